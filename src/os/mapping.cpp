#include "os/mapping.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <bit>
#include <cassert>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <limits>

#include "base/error.hpp"
#include "os/errno_keeper.hpp"

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24  // Linux 5.18; glibc 2.36 does not name it
#endif

namespace extmem::os {
namespace {

std::size_t round_up(std::size_t bytes, std::size_t to) noexcept { return (bytes + to - 1) & ~(to - 1); }

bool on_page(const void* p) noexcept {
  return (reinterpret_cast<std::uintptr_t>(p) & (page_size() - 1)) == 0;
}

}  // namespace

std::size_t page_size() noexcept { return static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)); }

Result<std::byte*> reserve(std::size_t bytes) noexcept {
  if (bytes == 0)
    return EXTMEM_ERROR(EINVAL, "cannot reserve zero bytes of address space: ask for at least one");
  const ErrnoKeeper keeper;
  void* p = ::mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) {
    return EXTMEM_SYS_ERROR(errno,
                            "cannot reserve address space for metadata: raise RLIMIT_AS (ulimit -v) or "
                            "vm.max_map_count, or ask for a smaller geometry");
  }
  return static_cast<std::byte*>(p);
}

Result<std::byte*> reserve_aligned(std::size_t bytes, std::size_t align) noexcept {
  if (!std::has_single_bit(align))
    return EXTMEM_ERROR(EINVAL, "the alignment of a reservation must be a power of two");
  const std::size_t page = page_size();
  if (align <= page) return reserve(bytes);
  if (bytes == 0)
    return EXTMEM_ERROR(EINVAL, "cannot reserve zero bytes of address space: ask for at least one");
  if (bytes > std::numeric_limits<std::size_t>::max() - align - page) {
    return EXTMEM_ERROR(ENOMEM, "cannot reserve that much address space: length plus alignment overflows");
  }
  const std::size_t length = round_up(bytes, page);
  EXTMEM_TRY(raw, reserve(length + align - page));
  // Reserved with room to move: keep the aligned piece, give back what lies before and behind it.
  const auto address = reinterpret_cast<std::uintptr_t>(raw);
  const std::size_t before = round_up(address, align) - address;
  const std::size_t behind = align - page - before;
  std::byte* const aligned = raw + before;
  unmap(raw, before);
  unmap(aligned + length, behind);
  return aligned;
}

Result<void> commit(void* p, std::size_t bytes) noexcept {
  if (p == nullptr || !on_page(p))
    return EXTMEM_ERROR(EINVAL, "cannot commit memory at an address that is not on a page");
  if (bytes == 0) return {};
  const ErrnoKeeper keeper;
  if (::mprotect(p, bytes, PROT_READ | PROT_WRITE) != 0) {
    return EXTMEM_SYS_ERROR(
        errno,
        "cannot commit memory for metadata: the system is out of memory, its commit limit "
        "(vm.overcommit_memory, /proc/meminfo CommitLimit), the process' RLIMIT_DATA (ulimit -d) or "
        "vm.max_map_count is reached, or the range was not reserved");
  }
  return {};
}

Result<void> map_shared(void* p, std::size_t bytes, int fd) noexcept {
  const ErrnoKeeper keeper;
  if (::mmap(p, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd, 0) == MAP_FAILED) {
    return EXTMEM_SYS_ERROR(errno, "cannot map the control segment: mmap of its file failed");
  }
  return {};
}

Result<void> map_copy(void* p, std::size_t bytes, int fd) noexcept {
  const ErrnoKeeper keeper;
  if (::mmap(p, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd, 0) ==
      MAP_FAILED) {
    return EXTMEM_SYS_ERROR(errno, "cannot copy the control segment: mmap of its file failed");
  }
  return {};
}

void discard(void* p, std::size_t bytes) noexcept {
  if (bytes == 0) return;
  assert(p != nullptr && on_page(p));
  const ErrnoKeeper keeper;
  if (::madvise(p, bytes, MADV_DONTNEED) == 0) return;
  // The process has locked its memory (mlockall): then only DONTNEED_LOCKED, which kernels before 5.18 lack.
  if (::madvise(p, bytes, MADV_DONTNEED_LOCKED) == 0) return;
  std::memset(p, 0, round_up(bytes, page_size()));
}

void discard_shared(void* p, std::size_t bytes) noexcept {
  assert(p != nullptr && on_page(p));
  const ErrnoKeeper keeper;
  if (::madvise(p, bytes, MADV_REMOVE) != 0) std::memset(p, 0, bytes);
}

void unmap(void* p, std::size_t bytes) noexcept {
  if (p == nullptr || bytes == 0) return;
  assert(on_page(p));
  const ErrnoKeeper keeper;
  [[maybe_unused]] const int failed = ::munmap(p, bytes);
  assert(failed == 0);
}

}  // namespace extmem::os
