// Text that others chose: what of it may reach a terminal or a document.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace extmem::cli {

/// Bytes of the UTF-8 character at `at`, 1 to 4; 0 where there is none.
std::size_t utf8_length(std::string_view text, std::size_t at);

/// Its number. Requires: utf8_length said that it is one.
std::uint32_t code_of(std::string_view character);
/// Whether the character (of utf8_length bytes) does something else than being seen: controls, marks and overrides of
/// direction, separators of lines, the byte order mark.
bool steers(std::string_view character);

/// A name as it may be printed: printable characters as they are (ASCII only, where `unicode` is not set), all others,
/// controls and what turns the direction of writing among them, as \xNN.
std::string shown(std::string_view name, bool unicode);

/// Text inside an HTML or XML element or attribute; what is no UTF-8 becomes U+FFFD.
std::string escape_html(std::string_view text);

}  // namespace extmem::cli
