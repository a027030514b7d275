// Meta space: metadata of variable size inside the control segment, allocated by our own page layer.
//
// What it is: a PageSpace over a part of the segment: the allocator that manages regions also manages its
// own metadata, with the same undo journal. Small (128-byte pages): state words of slabs. Large (64 KiB pages):
// page descriptors and IOVA tables of regions.
// Thread-safety: callers hold the space's lock until their transaction is committed or rolled back: of the small one
// CoreRoots::small_lock, of the large one the directory's region lock.
#pragma once

#include <cstdint>

#include "alloc/page_space.hpp"

namespace extmem::alloc {

// A page of 64 state words has a descriptor of 16 bytes: an eighth. Larger pages would waste more at the ends of runs.
inline constexpr unsigned kSmallPageShift = 7;
inline constexpr unsigned kLargePageShift = 16;

struct alignas(64) MetaSpace {
  std::uint64_t area_offset;  // segment offset of page 0; constant
  PageSpace pages;
};

/// The segment offset of `bytes` new bytes (their content is undefined), or 0 when the space is full; the transaction
/// must then be rolled back. `whole`: space for all of it is taken now; else the caller does so before it stores there.
inline std::uint64_t allocate_meta(std::byte* segment, MetaSpace& meta, shared::Transaction& tx,
                                   std::uint64_t bytes, shared::Ground ground = {},
                                   bool whole = true) noexcept {
  PageAllocator allocator(segment, meta.pages, ground);
  const unsigned shift = meta.pages.page_shift;
  const std::uint64_t pages = (bytes + (std::uint64_t{1} << shift) - 1) >> shift;
  if (pages == 0 || pages > kMaxPages) return 0;
  SpanRequest request;
  request.pages = static_cast<std::uint32_t>(pages);
  const std::uint32_t page = allocator.allocate(tx, request, 0);
  if (page == kNoPage) return 0;
  const std::uint64_t offset = meta.area_offset + (std::uint64_t{page} << shift);
  return !whole || ground.ensure(segment + offset, pages << shift) ? offset : 0;
}

/// Gives back what allocate_meta gave. Returns its length in bytes.
inline std::uint64_t free_meta(std::byte* segment, MetaSpace& meta, shared::Transaction& tx,
                               std::uint64_t offset) noexcept {
  PageAllocator allocator(segment, meta.pages);
  const unsigned shift = meta.pages.page_shift;
  const auto page = static_cast<std::uint32_t>((offset - meta.area_offset) >> shift);
  const std::uint32_t length = allocator.desc(page).length();
  allocator.free(tx, page, length);
  return std::uint64_t{length} << shift;
}

}  // namespace extmem::alloc
