// Size classes: multiples of 16 up to 128, then four to a power of two up to 128 KiB.
//
// Pure functions and constants. Internal waste is at most 25 %, on average about 10 %.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "base/bits.hpp"

namespace extmem::alloc {

inline constexpr std::uint32_t kClasses = 48;
inline constexpr std::uint64_t kMaxClassSize = 131072;
/// What lasts lies in spans if it is larger than this: what a reallocation has grown, and may grow on, which spans do in
/// place; and memzones, which spans round to pages only.
inline constexpr std::uint64_t kLastingSize = 32768;
inline constexpr std::uint32_t kMagazineCapacity = 64;
/// Classes with outboxes: up to 1 KiB. Of what is larger, few cache lines belong to two objects, and a lock for each few would cost more.
inline constexpr std::uint32_t kOutboxes = 20;
inline constexpr std::uint32_t kOutbox = kMagazineCapacity / 2;
inline constexpr std::uint64_t kSlabAlign =
    4096;  // addresses of slabs: objects have their size's natural alignment
inline constexpr std::uint32_t kMaxSlabPages = 64;
inline constexpr std::uint32_t kMaxSlabObjects = 4096;

constexpr std::uint32_t compute_class_of(std::uint64_t size) noexcept {
  if (size <= 128) return size == 0 ? 0 : static_cast<std::uint32_t>((size + 15) / 16 - 1);
  const unsigned high = base::floor_log2(size - 1);  // 7..16
  return 8 + (high - 7) * 4 + static_cast<std::uint32_t>((size - 1) >> (high - 2) & 3);
}

constexpr std::uint64_t compute_class_size(std::uint32_t cls) noexcept {
  if (cls < 8) return (std::uint64_t{cls} + 1) * 16;
  const unsigned high = 7 + (cls - 8) / 4;
  return (std::uint64_t{1} << high) + (std::uint64_t{(cls - 8) % 4} + 1) * (std::uint64_t{1} << (high - 2));
}

struct SizeClass {
  std::uint32_t size;
  std::uint32_t capacity;    // objects that a magazine holds at most
  std::uint32_t slab_bytes;  // wanted length of a slab
  std::uint32_t
      outbox;  // objects of others' slabs that a thread collects before it returns them; 0: it reuses them
};

namespace detail {
constexpr std::array<SizeClass, kClasses> make_classes() noexcept {
  std::array<SizeClass, kClasses> classes{};
  for (std::uint32_t c = 0; c < kClasses; ++c) {
    const std::uint64_t size = compute_class_size(c);
    // A magazine pins at most 64 KiB, or, where that is less than 8 objects, 512; a slab wastes at most an eighth at its tail,
    // but for whole pages, which it gives back (new_slab_in_region_locked).
    classes[c].size = static_cast<std::uint32_t>(size);
    classes[c].capacity = static_cast<std::uint32_t>(std::clamp<std::uint64_t>(
        65536 / size, std::min<std::uint64_t>(8, 524288 / size), kMagazineCapacity));
    classes[c].slab_bytes = size <= 1024 ? 65536 : size <= 8192 ? 131072 : 262144;
    classes[c].outbox = c < kOutboxes ? kOutbox : 0;
  }
  return classes;
}
using ClassTable = std::array<std::uint8_t, 1 + kMaxClassSize / 16>;
constexpr ClassTable make_class_table() noexcept {
  ClassTable table{};
  for (std::uint32_t i = 0; i < table.size(); ++i)
    table[i] = static_cast<std::uint8_t>(compute_class_of(i * 16));
  return table;
}
}  // namespace detail

inline constexpr std::array<SizeClass, kClasses> kSizeClasses = detail::make_classes();
inline constexpr detail::ClassTable kClassTable = detail::make_class_table();  // by size in units of 16 bytes
static_assert(kSizeClasses[kClasses - 1].size == kMaxClassSize);
static_assert(kSizeClasses[kOutboxes - 1].size == 1024);

/// The class whose objects hold `size` bytes. Requires: size <= kMaxClassSize.
constexpr std::uint32_t class_of(std::uint64_t size) noexcept { return kClassTable[(size + 15) >> 4]; }

/// Whether an object of a class is right for a size that it did not have before: it holds it, and is not much too large.
constexpr bool fits_well(std::uint64_t size, std::uint64_t object) noexcept {
  return size <= object && (size > object / 2 || object <= 64);
}

/// The smallest class whose objects hold `size` bytes and all begin at multiples of `align`; kClasses if none.
/// Requires: align is a power of two.
constexpr std::uint32_t class_of_aligned(std::uint64_t size, std::uint64_t align) noexcept {
  if (size > kMaxClassSize || align > kSlabAlign) return kClasses;
  for (std::uint32_t c = class_of(size); c < kClasses; ++c) {
    if (kSizeClasses[c].size % align == 0) return c;
  }
  return kClasses;
}

/// Wholly free slabs of a class that are kept: by a thread, and by a heap of threads that have ended. Up to 512 KiB.
constexpr std::uint32_t keep_empty(std::uint32_t cls) noexcept {
  return kSizeClasses[cls].size > kLastingSize ? 1 : 512 * 1024 / kSizeClasses[cls].slab_bytes;
}

}  // namespace extmem::alloc
