// The memory of internal heaps: which pages, how much from the start, how they grow.
#pragma once

#include <array>
#include <cstdint>

#include "extmem/domain.hpp"
#include "faces/dpdk/eal.hpp"

namespace extmem::dpdk {

/// How internal heaps get memory, all in the same pages.
struct InternalMemory {
  BackingSpec backing{};
  std::uint64_t page_size = 0;
  std::uint64_t step = 0;                               ///< bytes that a heap grows by; 0: not at all
  std::array<std::uint64_t, kMaxSockets> from_start{};  ///< bytes, by index of the socket
  bool from_start_or_later = false;                     ///< it is no failure when they cannot be had
};

/// Decides by the options and by what the machine has. Returns: 0, or -1 with rte_errno and a line in the log:
/// EACCES no hugepages; EINVAL --huge-dir is no hugetlbfs; ENOMEM memory of a socket that is not there.
int plan_internal_memory(const EalOptions& options, InternalMemory& plan) noexcept;

/// Makes the heap of the socket with that index, if it is not there yet, and gives it its first memory.
/// Returns: 0, or -1 with rte_errno and a line in the log.
int make_internal_heap(const EalOptions& options, const InternalMemory& plan, unsigned index) noexcept;

/// Puts the internal heaps in the table of sockets. Returns: 0, or -1 with rte_errno.
int find_internal_heaps() noexcept;

}  // namespace extmem::dpdk
