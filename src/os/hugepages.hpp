// Hugepages: which sizes this machine has, how many are free, and what transparent hugepages may do.
//
// What it is: a reading of /sys/kernel/mm and /proc/meminfo. The figures are of the moment; whether hugepages
// can be had is decided by the kernel when they are mapped.
// Thread-safety: any thread, any time. No allocation.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "extmem/result.hpp"
#include "extmem/types.hpp"

namespace extmem::os {

/// The pool of one hugepage size; counts are pages of that size.
struct HugepagePool {
  std::size_t page_size = 0;   ///< bytes
  std::uint64_t total = 0;     ///< in the pool now
  std::uint64_t free = 0;      ///< of those, not in use
  std::uint64_t reserved = 0;  ///< of the free ones, promised to mappings (always 0 in a node's figures)
  std::uint64_t surplus = 0;   ///< of the total, taken beyond the pool's size
  std::uint64_t overcommit =
      0;  ///< how many pages may be taken beyond the pool's size (0 in a node's figures)

  /// How many pages a new mapping can be promised.
  [[nodiscard]] constexpr std::uint64_t available() const noexcept {
    const std::uint64_t unpromised = free > reserved ? free - reserved : 0;
    return unpromised + (overcommit > surplus ? overcommit - surplus : 0);
  }
};

/// The pools of a machine or a node, smallest page size first.
struct HugepagePools {
  static constexpr std::size_t kCapacity = 16;  // no architecture of Linux has more sizes
  std::array<HugepagePool, kCapacity> pools{};
  std::size_t count = 0;

  [[nodiscard]] constexpr std::span<const HugepagePool> list() const noexcept {
    return {pools.data(), count};
  }
  /// Returns: the pool of that page size, or null.
  [[nodiscard]] constexpr const HugepagePool* find(std::size_t page_size) const noexcept {
    for (const HugepagePool& pool : list()) {
      if (pool.page_size == page_size) return &pool;
    }
    return nullptr;
  }
};

/// Reads the hugepage pools of the machine (kAnyNode) or of one NUMA node. Where sysfs is not mounted, the
/// machine's default size as /proc/meminfo has it; where the kernel has no hugepages, an empty list.
/// Errors: ENODEV for a node that does not exist.
Result<HugepagePools> hugepage_pools(int node = kAnyNode) noexcept;

/// The size in bytes that MAP_HUGETLB gives when none is named; 0 where the kernel has no hugepages.
std::size_t default_hugepage_size() noexcept;

/// What the kernel's settings let madvise(MADV_HUGEPAGE) do in this process.
struct ThpPolicy {
  bool anonymous = false;     ///< for private anonymous memory
  bool shmem = false;         ///< for memfd, shm and tmpfs
  std::size_t page_size = 0;  ///< bytes; 0: not known
};

/// Reads the settings for transparent hugepages. Where sysfs is not mounted they count as permitted.
ThpPolicy thp_policy() noexcept;

}  // namespace extmem::os
