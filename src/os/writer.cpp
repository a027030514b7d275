#include "os/writer.hpp"

#include <unistd.h>

#include <cerrno>

#include "os/errno_keeper.hpp"

namespace extmem::os {

namespace {

/// Bytes of the character beyond ASCII that begins here; 0: these are none.
unsigned utf8_length(const char* text) noexcept {
  const auto byte = [&](unsigned i) { return static_cast<unsigned char>(text[i]); };
  const unsigned length = byte(0) >= 0xf0 ? 4 : byte(0) >= 0xe0 ? 3 : 2;
  if (byte(0) < 0xc2 || byte(0) > 0xf4) return 0;
  // Of the second byte not all that follow are allowed: no longer form than needed, no surrogate, none above U+10FFFF.
  const unsigned low = byte(0) == 0xe0 ? 0xa0 : byte(0) == 0xf0 ? 0x90 : 0x80;
  const unsigned high = byte(0) == 0xed ? 0x9f : byte(0) == 0xf4 ? 0x8f : 0xbf;
  if (byte(1) < low || byte(1) > high) return 0;
  for (unsigned i = 2; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  return length;
}

}  // namespace

void Writer::flush() noexcept {
  const os::ErrnoKeeper keep;
  std::size_t done = 0;
  while (done < used_) {
    const ssize_t n = ::write(fd_, buffer_ + done, used_ - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      if (failed_ == 0) failed_ = n < 0 ? errno : EIO;
      break;
    }
    done += static_cast<std::size_t>(n);
  }
  used_ = 0;
}

void Writer::put(char c) noexcept {
  if (used_ == sizeof buffer_) flush();
  buffer_[used_++] = last_ = c;
}

Writer& Writer::text(const char* text) noexcept {
  for (; *text != '\0'; ++text) put(*text);
  return *this;
}

Writer& Writer::number(std::uint64_t value) noexcept {
  char digits[20];
  int n = 0;
  do digits[n++] = static_cast<char>('0' + value % 10);
  while ((value /= 10) != 0);
  while (n > 0) put(digits[--n]);
  return *this;
}

Writer& Writer::hex(std::uint64_t value) noexcept {
  text("0x");
  int shift = 60;
  while (shift > 0 && (value >> shift) == 0) shift -= 4;
  for (; shift >= 0; shift -= 4) put("0123456789abcdef"[value >> shift & 15]);
  return *this;
}

Writer& Writer::bytes(std::uint64_t value) noexcept {
  static constexpr const char* kUnits[] = {" B", " KiB", " MiB", " GiB", " TiB"};
  unsigned unit = 0;
  while (unit < 4 && value >> (10 * (unit + 1)) != 0) ++unit;
  const unsigned shift = 10 * unit;
  number(value >> shift);
  if (const std::uint64_t rest = value & ((std::uint64_t{1} << shift) - 1); rest != 0) {
    const std::uint64_t hundredths = (rest >> (shift >= 10 ? shift - 10 : 0)) * 100 / 1024;
    put('.');
    put(static_cast<char>('0' + hundredths / 10));
    put(static_cast<char>('0' + hundredths % 10));
  }
  return text(kUnits[unit]);
}

Writer& Writer::quoted(const char* text) noexcept {
  put('"');
  for (; *text != '\0'; ++text) {
    const auto c = static_cast<unsigned char>(*text);
    if (c == '"' || c == '\\') {
      put('\\');
      put(*text);
    } else if (c < 0x20) {
      this->text("\\u00");
      put("0123456789abcdef"[c >> 4]);
      put("0123456789abcdef"[c & 15]);
    } else if (c < 0x80) {
      put(*text);
    } else if (const unsigned length = utf8_length(text); length == 0) {
      this->text("\\ufffd");
    } else {
      for (unsigned i = 0; i < length; ++i) put(text[i]);
      text += length - 1;
    }
  }
  put('"');
  return *this;
}

Writer& Writer::member(const char* name, std::uint64_t value) noexcept {
  if (last_ != '{') put(',');
  return quoted(name).text(":").number(value);
}

Writer& Writer::member(const char* name, const char* value) noexcept {
  if (last_ != '{') put(',');
  return quoted(name).text(":").quoted(value);
}

}  // namespace extmem::os
