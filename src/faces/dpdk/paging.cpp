// Mapping by the page.
#include <rte_eal_paging.h>
#include <rte_errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

#include "faces/dpdk/eal.hpp"

using extmem::dpdk::fail;

extern "C" {

void* rte_mem_map(void* requested_addr, size_t size, int prot, int flags, int fd, uint64_t offset) {
  const int protection = ((prot & RTE_PROT_READ) != 0 ? PROT_READ : 0) |
                         ((prot & RTE_PROT_WRITE) != 0 ? PROT_WRITE : 0) |
                         ((prot & RTE_PROT_EXECUTE) != 0 ? PROT_EXEC : 0);
  const int kind = ((flags & RTE_MAP_SHARED) != 0 ? MAP_SHARED : 0) |
                   ((flags & RTE_MAP_ANONYMOUS) != 0 ? MAP_ANONYMOUS : 0) |
                   ((flags & RTE_MAP_PRIVATE) != 0 ? MAP_PRIVATE : 0) |
                   ((flags & RTE_MAP_FORCE_ADDRESS) != 0 ? MAP_FIXED : 0);
  void* mapped = ::mmap(requested_addr, size, protection, kind, fd, static_cast<off_t>(offset));
  if (mapped != MAP_FAILED) return mapped;
  rte_errno = errno;
  return nullptr;
}

int rte_mem_unmap(void* virt, size_t size) { return ::munmap(virt, size) == 0 ? 0 : fail(errno); }

size_t rte_mem_page_size(void) { return static_cast<size_t>(::sysconf(_SC_PAGESIZE)); }

int rte_mem_lock(const void* virt, size_t size) { return ::mlock(virt, size) == 0 ? 0 : fail(errno); }

}  // extern "C"
