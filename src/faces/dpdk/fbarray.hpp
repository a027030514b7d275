// Arrays of elements that are used or free: the layout of an rte_fbarray, and arrays of one process for our own use.
//
// One mapping an array; the bytes of its file are the same:
//
//   ├ header (ArrayHeader) ┤ mask: a bit for each element ┤ … to a multiple of 4 KiB ┤ elements ┤
//                                                                                   └ rte_fbarray::data
//
// The mask is the truth: it alone decides what is used, and no search trusts a number instead unless the number is
// settled. `count` follows the mask. An array that processes share changes under a lock which the kernel hands on when
// its holder dies; whoever gets it that way counts the mask anew. So a process may be killed at any instruction: the
// mask is right, and the count is from the next call on that marks an element or attaches, until then off by what one
// call changes. The lock is waited for five seconds at most. Searches take no lock.
//
// Thread-safety: any thread of any process, but for making and ending an array.
#pragma once

#include <pthread.h>
#include <rte_fbarray.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/bits.hpp"
#include "faces/dpdk/fbarray_mask.hpp"

namespace extmem::dpdk {

inline constexpr std::uint64_t kArrayMagic = 0x3179617272616266;  // "fbarray1" as the bytes lie
inline constexpr std::uint64_t kElementsAlign = 4096;

/// How many elements are used, in one word with how many calls are changing that: the low half is the number of ones in
/// the mask where the high half is 0.
struct ArrayState {
  static constexpr std::uint64_t kOneChange = std::uint64_t{1} << 32;
  std::uint64_t word;
  [[nodiscard]] bool settled() const noexcept { return word < kOneChange; }
  [[nodiscard]] std::uint32_t count() const noexcept { return static_cast<std::uint32_t>(word); }
};

/// What an array's mapping begins with. Written once, before anybody else can see it, but for the lock and the state.
struct alignas(64) ArrayHeader {
  std::atomic<std::uint64_t> magic;  ///< last of all that init writes
  std::uint64_t data;                ///< address of the elements, in every process
  std::uint32_t len;
  std::uint32_t elt_sz;
  std::uint32_t shared;  ///< 1: other processes may have it, the lock is needed; 0: this process alone
  pthread_mutex_t
      lock;  ///< robust and process-shared; guards changes of the state, the mask and rte_fbarray::count

  alignas(64) std::atomic<std::uint64_t> state;  ///< an ArrayState
};

/// Bytes of header and mask, before the elements. Requires: 0 < len.
constexpr std::uint64_t bytes_before_elements(std::uint64_t len) noexcept {
  return base::align_up(sizeof(ArrayHeader) + (len + 63) / 64 * sizeof(MaskWord), kElementsAlign);
}
/// Bytes of the whole mapping. Cannot overflow: len < 2^31 and elt_sz < 2^32.
constexpr std::uint64_t bytes_of_array(std::uint64_t len, std::uint64_t elt_sz) noexcept {
  return bytes_before_elements(len) + len * elt_sz;
}

inline ArrayHeader* header_of(const rte_fbarray& array) noexcept {
  return reinterpret_cast<ArrayHeader*>(static_cast<std::byte*>(array.data) -
                                        bytes_before_elements(array.len));
}
inline MaskWord* mask_words(ArrayHeader* header) noexcept { return reinterpret_cast<MaskWord*>(header + 1); }

/// Checks what init and attach are given. Returns 0, or -1 with rte_errno EINVAL (no name, no length or one above
/// INT_MAX, elements without size) or ENAMETOOLONG (64 bytes or more).
int check_array(const char* name, unsigned len, unsigned elt_sz) noexcept;

/// Fills in the header of a mapping of zeroes and makes `array` describe it. Returns: 0, or an errno value.
int begin_array(void* mapping, const char* name, unsigned len, unsigned elt_sz, bool shared,
                rte_fbarray* array) noexcept;

/// Copies the array's true count to `array`, counting anew where a process died. Returns: 0, or an errno value.
int refresh_count(rte_fbarray& array) noexcept;

/// Marks elements [start, start + n) used or free; each that is already stays. Requires: they are in the array.
/// Returns: 0, or -1 with rte_errno ETIMEDOUT where another process keeps the lock for five seconds.
int mark_elements(rte_fbarray& array, unsigned start, unsigned n, bool used) noexcept;

// ---- arrays of this process alone: no file, and no place in the list that rte_fbarray_attach() and destroy look in ----

/// As rte_fbarray_init(). Memory comes with the first touch of each page, of the mask as of the elements, which are
/// zeroes at first; so a large array that nobody looks at costs one page.
int init_private_array(rte_fbarray* array, const char* name, unsigned len, unsigned elt_sz) noexcept;
/// Ends an array that init_private_array() made and zeroes the struct. Does nothing to a struct that is zero.
void destroy_private_array(rte_fbarray* array) noexcept;

}  // namespace extmem::dpdk
