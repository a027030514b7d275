#include "faces/preload/large.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "base/bits.hpp"
#include "faces/preload/process_heap.hpp"
#include "os/errno_keeper.hpp"
#include "os/mapping.hpp"

namespace extmem::preload {

namespace {

constexpr std::size_t kPiece = std::size_t{4} << 20;     // looked at, and copied, at once
constexpr std::size_t kMostPages = kPiece / 4096;        // in a piece
constexpr std::size_t kHugepage = std::size_t{2} << 20;  // transparent ones are not split to give a part back
constexpr std::size_t kWorthIt = std::size_t{64} * 1024;  // shorter free runs are left alone

/// Whether pages may be dropped, and read as zero from then on.
bool droppable() noexcept {
  const BackingSpec& b = process.settings.backing;
  return b.kind == BackingKind::anonymous && !process.settings.shared_with_children() && !b.prefault &&
         !b.lock;
}

/// Whether an object's pages may move to another place. Not transparent hugepages, which would be split, nor pages of a node:
/// those places have their node each.
bool movable() noexcept {
  const BackingSpec& b = process.settings.backing;
  return droppable() && !b.thp && b.numa_node == kAnyNode;
}

/// Drops the whole pages (of `page` bytes) in [p, p + bytes). False: there were none, or the kernel refuses (mlockall).
bool drop(std::byte* p, std::size_t bytes, std::size_t page) noexcept {
  const auto at = reinterpret_cast<std::uintptr_t>(p);
  const std::uintptr_t begin = base::align_up(at, page);
  const std::uintptr_t end = base::align_down(at + bytes, page);
  return begin < end && ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED) == 0;
}

/// Whether less than half of the pages is in memory: then dropping them costs less than writing them.
bool mostly_absent(std::byte* p, std::size_t bytes) noexcept {
  unsigned char present[kMostPages];
  if (::mincore(p, bytes, present) != 0) return false;
  const std::size_t pages = bytes / os::page_size();
  const auto there = std::count_if(present, present + pages, [](unsigned char c) { return (c & 1) != 0; });
  return static_cast<std::size_t>(there) < pages / 2;
}

}  // namespace

void zero_large(void* p, std::size_t bytes) noexcept {
  const os::ErrnoKeeper keep;
  auto* at = static_cast<std::byte*>(p);
  std::byte* const end = at + bytes;
  const std::size_t page = os::page_size();
  if (!droppable()) {
    std::memset(at, 0, bytes);
    return;
  }
  const auto head = std::min<std::size_t>(bytes, -reinterpret_cast<std::uintptr_t>(at) & (page - 1));
  std::memset(at, 0, head);
  at += head;
  while (at < end) {
    // Up to the next multiple of the piece, so that no transparent hugepage is split in between.
    const std::size_t whole = base::align_down(static_cast<std::size_t>(end - at), page);
    const std::size_t piece =
        std::min<std::size_t>(whole, kPiece - (reinterpret_cast<std::uintptr_t>(at) & (kPiece - 1)));
    if (piece == 0) break;
    if (!mostly_absent(at, piece) || !drop(at, piece, page)) std::memset(at, 0, piece);
    at += piece;
  }
  std::memset(at, 0, static_cast<std::size_t>(end - at));
}

void* move_large(void* p, std::size_t old_size, std::size_t size, const void* caller) noexcept {
  // Room that is only address space can be ample; where it is memory, some is better than copying at every step.
  const std::size_t room = droppable() ? size / 2 : size / 8;
  std::size_t taken = size + room;
  AllocOptions options;
  if (process.settings.tags && caller != nullptr) options.tag = tag_of_caller(caller);
  Result<void*> place = process.heap.allocate(taken, options);
  if (!place) {
    taken = size;
    place = process.heap.allocate(taken, options);
  }
  if (!place) return nullptr;
  auto* to = static_cast<std::byte*>(*place);
  auto* from = static_cast<std::byte*>(p);
  const os::ErrnoKeeper keep;
  os::Moved moved;
  if (movable()) moved = process.mover.move(to, from, old_size);
  if (moved.place_lost) return nullptr;
  // Piece by piece, each dropped once it is copied: the object is never in memory twice.
  for (std::size_t done = moved.bytes; done < old_size; done += kPiece) {
    const std::size_t piece = std::min(kPiece, old_size - done);
    std::memcpy(to + done, from + done, piece);
    if (droppable() && old_size > kPiece) drop(from + done, piece, os::page_size());
  }
  if (taken > size) {
    options.in_place = true;  // what is left behind it becomes free; where that fails it stays larger
    (void)process.heap.reallocate(to, size, options);
  }
  if (moved.old_place_lost) return to;
  if (const Result<void> freed = process.heap.deallocate(p); !freed)
    tell_bad_free("realloc", p, freed.error());
  return to;
}

bool give_back_free_pages() noexcept {
  if (!droppable()) return false;
  const os::ErrnoKeeper keep;
  const std::size_t page = process.settings.backing.thp ? kHugepage : os::page_size();
  bool any = false;
  // The heap stands still meanwhile: nobody can take what is being dropped.
  (void)process.heap.walk([&](const WalkEntry& entry) {
    if (entry.kind == WalkKind::free_span && entry.length >= kWorthIt && entry.addr != nullptr)
      any |= drop(static_cast<std::byte*>(entry.addr), entry.length, page);
    return true;
  });
  return any;
}

}  // namespace extmem::preload
