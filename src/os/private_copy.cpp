#include "os/private_copy.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/error.hpp"
#include "os/errno_keeper.hpp"
#include "os/file.hpp"
#include "os/mapping.hpp"
#include "os/numa.hpp"

namespace extmem::os {
namespace {

constexpr std::size_t kBuffer = std::size_t{256} * 1024;

/// The end of the piece of data that begins at `begin`: not beyond `length`.
std::uint64_t end_of_data(int fd, std::uint64_t begin, std::uint64_t length) noexcept {
  return std::min(next_hole(fd, begin), length);
}

/// Whether all of it is mapped: another thread of the parent may have been taking it away.
bool is_mapped(std::byte* p, std::size_t bytes) noexcept {
  constexpr std::size_t kPages = 4096;
  std::array<unsigned char, kPages> present;
  for (std::size_t done = 0; done < bytes; done += kPages * page_size()) {
    if (::mincore(p + done, std::min(bytes - done, kPages * page_size()), present.data()) != 0) return false;
  }
  return true;
}

bool is_zero(const std::byte* p, std::size_t bytes) noexcept {
  return p[0] == std::byte{0} && std::memcmp(p, p + 1, bytes - 1) == 0;
}

/// Copies what is not zero: file systems call pages data that were only read ahead.
Result<void> copy_file(std::byte* to, std::uint64_t length, int fd, std::byte* buffer) noexcept {
  const std::size_t page = page_size();
  for (std::uint64_t at = 0; at < length;) {
    EXTMEM_TRY(data, next_data(fd, at));
    if (data >= length) break;  // kNoMore too
    const std::uint64_t end = end_of_data(fd, data, length);
    if (end <= data) break;  // a hole was made of it meanwhile
    for (at = data; at < end;) {
      const ::ssize_t got =
          ::pread(fd, buffer, std::min<std::uint64_t>(end - at, kBuffer), static_cast<::off_t>(at));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return EXTMEM_SYS_ERROR(errno, "cannot read the file that is to be copied");
      if (got == 0) return {};  // somebody cut it short: there is no more
      const auto bytes = static_cast<std::size_t>(got);
      for (std::size_t done = 0; done < bytes;) {
        const std::size_t piece = std::min(bytes - done, page - ((at + done) & (page - 1)));
        if (!is_zero(buffer + done, piece)) std::memcpy(to + at + done, buffer + done, piece);
        done += piece;
      }
      at += bytes;
    }
  }
  return {};
}

}  // namespace

Result<void> copy_in_place(const CopyRequest& request) noexcept {
  const ErrnoKeeper keeper;
  const auto map = [](std::size_t bytes) {
    return ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  };
  void* const copy = map(request.length);
  void* const buffer = copy == MAP_FAILED ? MAP_FAILED : map(kBuffer);
  Result<void> done;
  if (buffer == MAP_FAILED) {
    done = EXTMEM_SYS_ERROR(
        errno, "no memory for a private copy (RLIMIT_AS, vm.overcommit_memory, the machine's memory)");
  }
  auto* const to = static_cast<std::byte*>(copy);
  if (done && request.node >= 0) done = numa_bind(to, request.length, request.node, PresentPages::leave);
  if (done && request.fd >= 0) {
    done = copy_file(to, request.length, request.fd, static_cast<std::byte*>(buffer));
  } else if (done && is_mapped(request.addr, request.length)) {
    std::memcpy(to, request.addr, request.length);
  }
  if (done &&
      ::mremap(to, request.length, request.length, MREMAP_MAYMOVE | MREMAP_FIXED, request.addr) == MAP_FAILED)
    done = EXTMEM_SYS_ERROR(errno, "cannot put the copy in the mapping's place: mremap failed");
  if (!done && copy != MAP_FAILED) unmap(copy, request.length);
  if (buffer != MAP_FAILED) unmap(buffer, kBuffer);
  return done;
}

std::uint64_t bytes_to_copy(int fd, std::uint64_t length) noexcept {
  std::uint64_t sum = 0;
  for (std::uint64_t at = 0; at < length;) {
    const Result<std::uint64_t> data = next_data(fd, at);
    if (!data) return length;
    if (*data >= length) break;
    at = end_of_data(fd, *data, length);
    if (at <= *data) break;
    sum += at - *data;
  }
  return sum;
}

}  // namespace extmem::os
