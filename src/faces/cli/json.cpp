#include "faces/cli/json.hpp"

#include <fmt/core.h>

#include <cmath>

#include "faces/cli/text.hpp"

namespace extmem::cli {

void Json::quote(std::string_view text) {
  out_ += '"';
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = utf8_length(text, at);
    const std::string_view c = text.substr(at, length == 0 ? 1 : length);
    at += c.size();
    if (length == 0) {
      out_ += "\\ufffd";  // a byte of a name that is no UTF-8
    } else if (c == "\"" || c == "\\") {
      out_ += '\\';
      out_ += c;
    } else if (length <= 3 && steers(c)) {  // what steers a terminal is in the lower plane
      out_ += fmt::format("\\u{:04x}", code_of(c));
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
