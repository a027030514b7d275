#include "faces/cli/text.hpp"

#include <fmt/core.h>

#include <cstdint>

namespace extmem::cli {
namespace {

std::uint32_t decode(std::string_view c) {
  const auto byte = [&](std::size_t i) {
    return static_cast<std::uint32_t>(static_cast<unsigned char>(c[i]));
  };
  if (c.size() == 1) return byte(0);
  std::uint32_t code = byte(0) & (0xffu >> (c.size() + 1));
  for (std::size_t i = 1; i < c.size(); ++i) code = code << 6 | (byte(i) & 0x3f);
  return code;
}

/// Controls, C1 among them; marks and overrides of direction; separators of lines; the byte order mark.
bool code_steers(std::uint32_t code) {
  return code < 0x20 || (code >= 0x7f && code < 0xa0) || (code >= 0x200b && code <= 0x200f) ||
         (code >= 0x2028 && code <= 0x202e) || (code >= 0x2060 && code <= 0x206f) || code == 0xfeff;
}

}  // namespace

std::size_t utf8_length(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[at + i]); };
  if (at >= text.size()) return 0;
  const std::size_t length = byte(0) < 0x80                       ? 1
                             : byte(0) >= 0xc2 && byte(0) <= 0xdf ? 2
                             : byte(0) >= 0xe0 && byte(0) <= 0xef ? 3
                             : byte(0) >= 0xf0 && byte(0) <= 0xf4 ? 4
                                                                  : 0;
  if (length == 0 || at + length > text.size()) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  const std::uint32_t code = decode(text.substr(at, length));
  if (length == 3 && (code < 0x800 || (code >= 0xd800 && code < 0xe000))) return 0;
  if (length == 4 && (code < 0x10000 || code > 0x10ffff)) return 0;
  return length;
}

std::uint32_t code_of(std::string_view character) { return decode(character); }

bool steers(std::string_view character) { return code_steers(decode(character)); }

std::string shown(std::string_view name, bool unicode) {
  std::string out;
  for (std::size_t at = 0; at < name.size();) {
    const std::size_t length = utf8_length(name, at);
    const std::string_view c = name.substr(at, length == 0 ? 1 : length);
    if (length != 0 && !steers(c) && (unicode || length == 1)) {
      out += c;
    } else {
      for (const char byte : c) out += fmt::format("\\x{:02x}", static_cast<unsigned char>(byte));
    }
    at += c.size();
  }
  return out;
}

std::string escape_html(std::string_view text) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = utf8_length(text, at);
    const std::string_view c = text.substr(at, length == 0 ? 1 : length);
    at += c.size();
    if (length == 0 || (length == 1 && steers(c) && c[0] != '\n')) {
      out += "\xef\xbf\xbd";
    } else if (c == "&") {
      out += "&amp;";
    } else if (c == "<") {
      out += "&lt;";
    } else if (c == ">") {
      out += "&gt;";
    } else if (c == "\"") {
      out += "&quot;";
    } else if (c == "'") {
      out += "&#39;";
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace extmem::cli
