// A compare-and-swap of 16 bytes: two neighbouring 64-bit words change together or not at all.
//
// What it is: LOCK CMPXCHG16B, spelled out. The compilers' own forms call libatomic here, whose functions may lock
// (a lock of one process would not keep another out, and would stay held after a kill).
// Thread-safety: made for it, between processes too. A full fence, as every locked instruction is.
#pragma once

#include <atomic>
#include <cstdint>

#if !defined(__x86_64__)
#error "wide_cas.hpp knows x86-64 only; add this machine's 16-byte compare-and-swap (casp, say)"
#endif

namespace extmem::shared {

/// Two words that change together. Each may also be read, or compared and swapped, alone.
struct alignas(16) WordPair {
  std::atomic<std::uint64_t> first;
  std::atomic<std::uint64_t> second;
};
static_assert(sizeof(WordPair) == 16);

/// Stores both words if both hold what is expected. Returns: whether it did.
inline bool compare_exchange(WordPair& pair, std::uint64_t expected_first, std::uint64_t expected_second,
                             std::uint64_t first, std::uint64_t second) noexcept {
#if defined(__SANITIZE_THREAD__)
  pair.first.fetch_add(0, std::memory_order_acq_rel);
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
  pair.first.fetch_add(0, std::memory_order_acq_rel);  // changes nothing; shows TSan what it cannot see below
#endif
#endif
  bool done;
  __asm__ __volatile__("lock cmpxchg16b %[pair]"
                       : [pair] "+m"(pair), "=@ccz"(done), "+a"(expected_first), "+d"(expected_second)
                       : "b"(first), "c"(second)
                       : "memory");
  return done;
}

}  // namespace extmem::shared
