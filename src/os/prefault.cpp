#include "os/prefault.hpp"

#include <sys/mman.h>

#include <atomic>
#include <cerrno>

#include "base/error.hpp"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23  // Linux 5.14
#endif

namespace extmem::os {
namespace {

// Other threads and processes may use the memory already: adding nothing, atomically, loses no write of
// theirs.
void touch(void* p, std::size_t bytes, std::size_t os_page_size) noexcept {
  auto* const first = static_cast<unsigned char*>(p);
  for (std::size_t at = 0; at < bytes; at += os_page_size) {
    std::atomic_ref<unsigned char>(first[at]).fetch_or(0, std::memory_order_relaxed);
  }
}

}  // namespace

Result<void> prefault(void* p, std::size_t bytes, std::size_t os_page_size,
                      WithoutPopulate otherwise) noexcept {
  int failed = 0;
  do {
    failed = ::madvise(p, bytes, MADV_POPULATE_WRITE) == 0 ? 0 : errno;
  } while (failed == EINTR || failed == EAGAIN);
  switch (failed) {
    case 0:
      return {};
    case EINVAL:
      if (otherwise == WithoutPopulate::touch) {
        touch(p, bytes, os_page_size);
        return {};
      }
      return EXTMEM_ERROR(
          EOPNOTSUPP,
          "cannot pre-fault this memory safely: the kernel is older than 5.14 (no "
          "MADV_POPULATE_WRITE), and touching it could end in a SIGBUS; ask for no pre-faulting");
    case EFAULT:
      return EXTMEM_ERROR(
          EFAULT,
          "cannot pre-fault: the memory behind the mapping cannot be had; hugepages have run out on "
          "the NUMA node or in the cgroup, the file is shorter than the mapping, or its device is "
          "full or failing");
    case ENOMEM:
      return EXTMEM_ERROR(
          ENOMEM,
          "cannot pre-fault: memory has run out (on the bound NUMA node, in the cgroup, or in all), "
          "or part of the range is not mapped");
    case EHWPOISON:
      return EXTMEM_ERROR(EHWPOISON, "cannot pre-fault: a page of the range has failed in hardware");
    default:
      return EXTMEM_SYS_ERROR(failed, "cannot pre-fault: madvise(MADV_POPULATE_WRITE) failed");
  }
}

}  // namespace extmem::os
