#include "faces/preload/writer.hpp"

#include <unistd.h>

#include <cerrno>

#include "os/errno_keeper.hpp"

namespace extmem::preload {

void Writer::flush() noexcept {
  const os::ErrnoKeeper keep;
  std::size_t done = 0;
  while (done < used_) {
    const ssize_t n = ::write(fd_, buffer_ + done, used_ - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
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
    } else {
      put(*text);
    }
  }
  put('"');
  return *this;
}

Writer& Writer::member(const char* name, std::uint64_t value) noexcept {
  if (last_ != '{') put(',');
  return quoted(name).text(":").number(value);
}

}  // namespace extmem::preload
