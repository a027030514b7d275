#include "os/hugepage_shortage.hpp"

#include <cerrno>

#include "base/error.hpp"
#include "os/hugepages.hpp"

// Messages are constants, so each hugepage size that an architecture has gets its own pair.
#define EXTMEM_HUGEPAGE_SHORTAGE(kilobytes, name)                                                        \
  case std::size_t{kilobytes} * 1024:                                                                    \
    if (pool->total == 0) {                                                                              \
      return EXTMEM_ERROR(ENOMEM, "no " name                                                             \
                                  " hugepages are reserved on this machine: as root, echo COUNT > "      \
                                  "/sys/kernel/mm/hugepages/hugepages-" #kilobytes "kB/nr_hugepages");   \
    }                                                                                                    \
    return EXTMEM_ERROR(ENOMEM,                                                                          \
                        "not enough " name                                                               \
                        " hugepages are free: see free_hugepages and resv_hugepages, and as root raise " \
                        "/sys/kernel/mm/hugepages/hugepages-" #kilobytes "kB/nr_hugepages")

namespace extmem::os {
namespace {

Error shortage_error(const HugepagePool* pool) noexcept {
  switch (pool->page_size) {
    EXTMEM_HUGEPAGE_SHORTAGE(64, "64 KiB");
    EXTMEM_HUGEPAGE_SHORTAGE(1024, "1 MiB");
    EXTMEM_HUGEPAGE_SHORTAGE(2048, "2 MiB");
    EXTMEM_HUGEPAGE_SHORTAGE(16384, "16 MiB");
    EXTMEM_HUGEPAGE_SHORTAGE(32768, "32 MiB");
    EXTMEM_HUGEPAGE_SHORTAGE(524288, "512 MiB");
    EXTMEM_HUGEPAGE_SHORTAGE(1048576, "1 GiB");
    EXTMEM_HUGEPAGE_SHORTAGE(16777216, "16 GiB");
    default:
      return EXTMEM_ERROR(
          ENOMEM,
          "not enough hugepages of that size are free: as root, raise nr_hugepages in the folder of "
          "that size in /sys/kernel/mm/hugepages");
  }
}

}  // namespace

Error hugepage_shortage(std::size_t page_size, std::size_t bytes, Shortage* shortage) noexcept {
  const std::uint64_t needed = bytes / page_size;
  const Result<HugepagePools> pools = hugepage_pools();
  const HugepagePool* const pool = pools ? pools->find(page_size) : nullptr;
  if (pool == nullptr) {
    if (shortage != nullptr) *shortage = Shortage{page_size, needed, 0};
    const HugepagePool unknown{};
    return shortage_error(&unknown);
  }
  if (pool->available() >= needed) {
    return EXTMEM_ERROR(
        ENOMEM,
        "cannot map hugepages although enough are free: the address space (RLIMIT_AS, ulimit -v), "
        "vm.max_map_count, the size limit of the hugetlbfs mount or a hugetlb cgroup does not allow "
        "it");
  }
  if (shortage != nullptr) *shortage = Shortage{page_size, needed, pool->available()};
  return shortage_error(pool);
}

}  // namespace extmem::os
