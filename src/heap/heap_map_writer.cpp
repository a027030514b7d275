#include "heap/heap_map_writer.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>

namespace extmem::heap::map {
namespace {

constexpr std::array<std::string_view, 7> kUnits{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};

/// Length of the well-formed UTF-8 character at the start of s that is fit to be shown; 0 when there is none.
std::size_t printable_character(std::string_view s) noexcept {
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(s[i]); };
  const unsigned char lead = at(0);
  if (lead < 0x80) return lead >= 0x20 && lead != 0x7f ? 1 : 0;
  std::size_t length = 0;
  std::uint32_t code = 0;
  std::uint32_t least = 0;
  if ((lead & 0xe0) == 0xc0) {
    length = 2, code = lead & 0x1fu, least = 0xa0;  // and so not the C1 controls, 0x80 to 0x9f
  } else if ((lead & 0xf0) == 0xe0) {
    length = 3, code = lead & 0x0fu, least = 0x800;
  } else if ((lead & 0xf8) == 0xf0) {
    length = 4, code = lead & 0x07u, least = 0x10000;
  } else {
    return 0;
  }
  if (s.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((at(i) & 0xc0) != 0x80) return 0;
    code = (code << 6) | (at(i) & 0x3fu);
  }
  const bool surrogate = code >= 0xd800 && code <= 0xdfff;
  const bool direction = (code >= 0x2028 && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069);
  const bool never_a_character = (code & 0xfffe) == 0xfffe;
  return code < least || code > 0x10ffff || surrogate || direction || never_a_character ? 0 : length;
}

}  // namespace

std::size_t count_columns(std::string_view s) noexcept {
  return static_cast<std::size_t>(std::count_if(
      s.begin(), s.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

std::size_t Label::columns() const noexcept { return count_columns(view()); }

Label& Label::text(std::string_view s) noexcept {
  std::size_t n = std::min(s.size(), sizeof buffer_ - used_);
  while (n > 0 && n < s.size() && (static_cast<unsigned char>(s[n]) & 0xc0) == 0x80) --n;  // cut no character
  std::memcpy(buffer_ + used_, s.data(), n);
  used_ += n;
  return *this;
}

Label& Label::number(std::uint64_t value) noexcept {
  char digits[20];
  const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  return text({digits, static_cast<std::size_t>(end - digits)});
}

Label& Label::hex(std::uint64_t value) noexcept {
  char digits[16];
  const auto end = std::to_chars(digits, digits + sizeof digits, value, 16).ptr;
  return text("0x").text({digits, static_cast<std::size_t>(end - digits)});
}

Label& Label::bytes(std::uint64_t value) noexcept {
  std::size_t unit = 0;
  std::uint64_t scale = 1;
  while (unit + 1 < kUnits.size() && value / scale >= 1024) {
    scale *= 1024;
    ++unit;
  }
  const std::uint64_t whole = value / scale;
  const std::uint64_t tenth = value % scale * 10 / scale;  // scale <= 2^60: no overflow
  number(whole);
  if (unit > 0 && (tenth != 0 || (value % scale != 0 && whole < 10))) text(".").number(tenth);
  return text(" ").text(kUnits[unit]);
}

Label& Label::percent(std::uint64_t part, std::uint64_t whole) noexcept {
  if (part == 0 || whole == 0) return text("0 %");
  if (part >= whole) return text("100 %");
  for (; whole >> 55 != 0; whole >>= 1) part >>= 1;  // so that 200 * part does not overflow
  const std::uint64_t share = (part * 200 / whole + 1) / 2;
  if (share == 0) return text("<1 %");
  if (share == 100) return text(">99 %");
  return number(share).text(" %");
}

Label& Label::name(std::string_view s, std::size_t most, bool ascii) noexcept {
  std::size_t shown = 0;
  while (!s.empty()) {
    if (shown + 1 == most && count_columns(s) > 1) return text(ascii ? "~" : "…");
    std::size_t n = printable_character(s);
    if (n == 0 || (ascii && n > 1)) {
      text("?");
      n = std::max<std::size_t>(n, 1);
    } else {
      text(s.substr(0, n));
    }
    s.remove_prefix(n);
    ++shown;
  }
  return *this;
}

Writer& Writer::raw(std::string_view s) noexcept {
  while (!s.empty()) {
    if (used_ == sizeof buffer_ && !flush()) return *this;
    const std::size_t n = std::min(s.size(), sizeof buffer_ - used_);
    std::memcpy(buffer_ + used_, s.data(), n);
    used_ += n;
    s.remove_prefix(n);
  }
  return *this;
}

Writer& Writer::xml(std::string_view s) noexcept {
  for (const char c : s) {
    switch (c) {
      case '&':
        raw("&amp;");
        break;
      case '<':
        raw("&lt;");
        break;
      case '>':
        raw("&gt;");
        break;
      case '"':
        raw("&quot;");
        break;
      case '\'':
        raw("&#39;");
        break;
      default:
        raw({&c, 1});
    }
  }
  return *this;
}

Writer& Writer::number(std::uint64_t value) noexcept {
  char digits[20];
  const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  return raw({digits, static_cast<std::size_t>(end - digits)});
}

Writer& Writer::repeat(std::string_view s, std::size_t times) noexcept {
  for (; times > 0; --times) raw(s);
  return *this;
}

bool Writer::flush() noexcept {
  if (stopped_) {
    used_ = 0;
    return false;
  }
  if (used_ > 0 && !sink_({buffer_, used_})) stopped_ = true;
  used_ = 0;
  return !stopped_;
}

}  // namespace extmem::heap::map
