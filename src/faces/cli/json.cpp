#include "faces/cli/json.hpp"

#include <fmt/core.h>

#include <cmath>

namespace extmem::cli {

void Json::quote(std::string_view text) {
  out_ += '"';
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out_ += '\\';
      out_ += c;
    } else if (byte < 0x20) {
      out_ += fmt::format("\\u{:04x}", byte);
    } else {
      out_ += c;
    }
  }
  out_ += '"';
}

void Json::before(std::string_view key) {
  if (!first_) out_ += ',';
  if (!open_.empty()) out_ += '\n' + std::string(open_.size() * 2, ' ');
  first_ = false;
  if (key.empty()) return;
  quote(key);
  out_ += ": ";
}

Json& Json::open(std::string_view key, char bracket) {
  before(key);
  out_ += bracket;
  open_ += bracket == '{' ? '}' : ']';
  first_ = true;
  return *this;
}

Json& Json::end() {
  const char bracket = open_.back();
  open_.pop_back();
  if (!first_) out_ += '\n' + std::string(open_.size() * 2, ' ');
  out_ += bracket;
  if (open_.empty()) out_ += '\n';
  first_ = false;
  return *this;
}

Json& Json::text(std::string_view key, std::string_view value) {
  before(key);
  quote(value);
  return *this;
}

Json& Json::real(std::string_view key, double value) {
  before(key);
  out_ += std::isfinite(value) ? fmt::format("{:.9g}", value) : "null";
  return *this;
}

Json& Json::boolean(std::string_view key, bool value) {
  before(key);
  out_ += value ? "true" : "false";
  return *this;
}

}  // namespace extmem::cli
