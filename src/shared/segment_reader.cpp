#include "shared/segment_reader.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>

#include "base/error.hpp"
#include "os/errno_keeper.hpp"
#include "os/mapping.hpp"

namespace extmem::shared {

namespace {
Error cut_short() noexcept {
  return EXTMEM_ERROR(EUCLEAN, "the control segment was cut short: remove the domain");
}
}  // namespace

Result<void> SegmentReader::bytes(std::uint64_t offset, void* to, std::uint64_t length) const noexcept {
  const os::ErrnoKeeper keeper;
  auto* at = static_cast<std::byte*>(to);
  while (length != 0) {
    const ssize_t got = ::pread(fd_, at, length, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return EXTMEM_SYS_ERROR(errno, "cannot read the control segment");
    if (got == 0) return cut_short();
    at += got;
    offset += static_cast<std::uint64_t>(got);
    length -= static_cast<std::uint64_t>(got);
  }
  // What is read later is not older: pairs with the writers' release fences (Lock::begin_turn, Core::enter).
  std::atomic_thread_fence(std::memory_order_acquire);
  return {};
}

Result<void> SegmentReader::copy(std::byte* copy, std::uint64_t offset, std::uint64_t length) const noexcept {
  const os::ErrnoKeeper keeper;
  const std::uint64_t end = offset + length;
  const std::uint64_t page = os::page_size();
  while (offset < end) {
    const off_t data = ::lseek(fd_, static_cast<off_t>(offset), SEEK_DATA);
    if (data < 0 && errno != ENXIO) return EXTMEM_SYS_ERROR(errno, "cannot read the control segment");
    // ENXIO: no data from here on. That the file is long enough, check() finds out.
    const std::uint64_t from = data < 0 ? end : std::min(static_cast<std::uint64_t>(data) & ~(page - 1), end);
    if (from > offset) os::discard(copy + offset, from - offset);
    if (from >= end) return {};
    off_t hole = ::lseek(fd_, static_cast<off_t>(from), SEEK_HOLE);
    if (hole < 0)
      hole = static_cast<off_t>(end);  // a hole was made of it: it reads as zeroes, or is cut short
    const std::uint64_t to =
        std::clamp((static_cast<std::uint64_t>(hole) + page - 1) & ~(page - 1), from + page, end);
    EXTMEM_TRY_VOID(bytes(from, copy + from, to - from));
    offset = to;
  }
  return {};
}

Result<void> SegmentReader::check(bool named) const noexcept {
  struct stat status {};
  if (::fstat(fd_, &status) != 0) return EXTMEM_SYS_ERROR(errno, "cannot look at the control segment");
  if (static_cast<std::uint64_t>(status.st_size) != bytes_) return cut_short();
  if (named && status.st_nlink == 0)
    return EXTMEM_ERROR(ESTALE, "the domain was removed: look for another one");
  return {};
}

}  // namespace extmem::shared
