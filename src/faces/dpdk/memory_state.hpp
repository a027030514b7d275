// What the processes of a domain share about the DPDK face, besides heaps and memzones.
#pragma once

#include <rte_memory.h>

#include <atomic>
#include <cstdint>

namespace extmem::dpdk {

/// Lies in a memzone of a hidden heap; zeroes at first. Used by one process alone in a private domain.
struct SharedState {
  static constexpr std::uint32_t kReady = 0x44504b31;  ///< "DPK1"
  static constexpr std::uint32_t kNoMask = 0;

  /// kReady once the internal heaps are there. Release by who made them, acquire by who joins.
  std::atomic<std::uint32_t> ready;
  /// Bits of the DMA mask. Relaxed.
  std::atomic<std::uint32_t> dma_bits;
  /// The socket id of the next external heap or registration. Relaxed: each gets another.
  std::atomic<std::int64_t> next_socket;
  /// rte_iova_mode of whoever made the heaps. Ordered by `ready`.
  std::uint32_t iova_mode;
};
static_assert(std::atomic<std::int64_t>::is_always_lock_free);

/// Null before memory_init() and after memory_cleanup().
SharedState* shared_state() noexcept;

/// A socket id that nobody had before. Returns: the id, or -1 where 2^31 are used up, or there is no domain.
int new_socket() noexcept;

}  // namespace extmem::dpdk
