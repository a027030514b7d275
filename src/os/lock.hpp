// Locking memory: its pages are present and are never written to swap.
//
// Thread-safety: any thread, any time. No allocation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "extmem/result.hpp"

namespace extmem::os {

/// When the pages of a locked range come.
enum class LockMode : std::uint8_t {
  now,       ///< all of them before the call returns
  on_touch,  ///< each when it is touched; it stays from then on
};

inline constexpr std::uint64_t kNoMemlockLimit = std::numeric_limits<std::uint64_t>::max();

/// Bytes that this process may lock in all (RLIMIT_MEMLOCK); kNoMemlockLimit where nothing limits it.
[[nodiscard]] std::uint64_t memlock_limit() noexcept;

/// Locks [p, p + bytes) in memory.
/// Requires: `p` is page-aligned. Note: locked pages can still move; only pinned ones have a lasting address.
/// Errors: EPERM where RLIMIT_MEMLOCK is 0; ENOMEM where it would be exceeded, or the range is not mapped;
/// EAGAIN where pages could not be brought in.
Result<void> lock_memory(void* p, std::size_t bytes, LockMode mode) noexcept;

/// Undoes lock_memory; unmapping does so too.
void unlock_memory(void* p, std::size_t bytes) noexcept;

}  // namespace extmem::os
