// Waiting in the kernel until a 32-bit word changes.
//
// What it is: FUTEX_WAIT and FUTEX_WAKE, nothing added.
// Thread-safety: made for it. No allocation; errno is not changed.
//
// Invariants:
//  1. A wait and its wake agree on `shared`: false for a word that only this process uses (cheaper), true for
//     one that may be mapped by several.
#pragma once

#include <atomic>
#include <cstdint>

namespace extmem::os {

/// Sleeps while `word` holds `expected`, for at most `timeout_ns` nanoseconds (negative: for ever).
/// Returns: 0 after a wake (perhaps a spurious one), EAGAIN where the word held another value already,
/// ETIMEDOUT, or EINTR after a signal. Look at the word again in every case.
int futex_wait(const std::atomic<std::uint32_t>& word, std::uint32_t expected, std::int64_t timeout_ns,
               bool shared) noexcept;

/// Wakes up to `count` threads that wait on `word`.
void futex_wake(const std::atomic<std::uint32_t>& word, int count, bool shared) noexcept;

}  // namespace extmem::os
