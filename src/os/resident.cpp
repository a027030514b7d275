#include "os/resident.hpp"

#include <fcntl.h>
#include <unistd.h>

#include "os/errno_keeper.hpp"

namespace extmem::os {

namespace {

/// Reads a hexadecimal or decimal number; false when there is none.
bool read_number(const char*& at, const char* end, unsigned base, std::uint64_t& out) noexcept {
  out = 0;
  const char* const begin = at;
  for (; at < end; ++at) {
    unsigned digit;
    if (*at >= '0' && *at <= '9') {
      digit = static_cast<unsigned>(*at - '0');
    } else if (base == 16 && *at >= 'a' && *at <= 'f') {
      digit = static_cast<unsigned>(*at - 'a') + 10;
    } else {
      break;
    }
    out = out * base + digit;
  }
  return at != begin;
}

/// Follows smaps line by line: a mapping's header, then its "Rss: N kB".
struct Counter {
  std::uint64_t begin;
  std::uint64_t end;
  std::uint64_t total = 0;
  bool inside = false;

  void line(const char* at, const char* stop) noexcept {
    std::uint64_t from = 0;
    std::uint64_t to = 0;
    const char* header = at;
    if (read_number(header, stop, 16, from) && header < stop && *header == '-' &&
        read_number(++header, stop, 16, to)) {
      inside = from >= begin && to <= end;
      return;
    }
    if (!inside || stop - at < 4 || at[0] != 'R' || at[1] != 's' || at[2] != 's' || at[3] != ':') return;
    at += 4;
    while (at < stop && *at == ' ') ++at;
    std::uint64_t kilobytes = 0;
    if (read_number(at, stop, 10, kilobytes)) total += kilobytes * 1024;
  }
};

}  // namespace

std::uint64_t resident_bytes(const void* p, std::size_t bytes) noexcept {
  const ErrnoKeeper keeper;
  const int fd = ::open("/proc/self/smaps", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  const auto begin = reinterpret_cast<std::uintptr_t>(p);
  Counter counter{begin, begin + bytes};
  char buffer[8192];
  std::size_t have = 0;
  for (;;) {
    const ssize_t got = ::read(fd, buffer + have, sizeof buffer - have);
    if (got <= 0) break;
    have += static_cast<std::size_t>(got);
    std::size_t start = 0;
    for (std::size_t i = 0; i < have; ++i) {
      if (buffer[i] != '\n') continue;
      counter.line(buffer + start, buffer + i);
      start = i + 1;
    }
    if (start == 0 && have == sizeof buffer) start = have;  // an overlong line: a path, of no interest
    for (std::size_t i = start; i < have; ++i) buffer[i - start] = buffer[i];
    have -= start;
  }
  ::close(fd);
  return counter.total;
}

}  // namespace extmem::os
