// Exact heaps: the usual allocation and the usual free that the span magazines do not have, under the heap's lock.
//
// The same as allocate_span and free_span of such requests, without what those cannot need: no constraints, no tag, no
// slabs, no growth, no error. Whatever is unusual is left to them.
#include "alloc/core.hpp"
#include "alloc/heap_guard.hpp"
#include "alloc/span_magazines.hpp"

namespace extmem::alloc {

namespace {
constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 36;  // so that pages fit 32 bits
constexpr std::uint32_t kWorthNoting = 4;  // regions without room: fewer are passed sooner than noted

/// Whoever dies in between leaves no hint.
void note_full(HeapCore& h, std::uint32_t region, std::uint32_t wanted) noexcept {
  h.full_to = 0;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  h.full_pages = wanted;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  h.full_to = region;
}
}  // namespace

std::uint64_t Core::allocate_plain_span(std::uint32_t slot, std::uint32_t heap, ThreadCache* own,
                                        std::uint64_t bytes) noexcept {
  if (bytes - 1 >= kMostBytes) return 0;
  const auto wanted = static_cast<std::uint32_t>((bytes + (1u << kSpanUnitShift) - 1) >> kSpanUnitShift);
  HeapCore& h = heaps_[heap];
  const HeapGuard guard(*this, slot, heap);
  if (!guard.held()) return 0;
  SpanMagazines* const spans = own == nullptr ? nullptr : &SpanMagazines::of(*own);
  const bool open = spans != nullptr && spans->open != 0;
  // Alone with an empty cache, or nobody caches: nothing is to be flushed.
  if (h.open_caches > (open && spans->cached() == 0 ? 1u : 0u) && !flush_spans_locked(slot, heap)) return 0;
  const std::uint32_t full_to = h.full_to;
  const bool known = full_to - 1 < geometry_.max_regions && wanted >= h.full_pages &&
                     regions_[full_to].heap == heap && (regions_[full_to].flags & kRegionAttached) != 0;
  std::uint32_t passed = 0;  // regions without room
  bool all_looked_at = true;
  for (std::uint32_t region = known ? full_to : h.first_region.get(); region != 0;
       region = regions_[region].next) {
    RegionCore& r = regions_[region];
    if ((r.flags & kRegionDraining) != 0 || !reaches(region)) {
      all_looked_at = false;
      continue;
    }
    if (r.pages.page_shift != kSpanUnitShift) return 0;
    PageAllocator allocator = pages(region);
    if (wanted > allocator.largest_free_bound()) {
      ++passed;
      continue;
    }
    const bool cacheable = open && wanted <= kMostCachedPages && (r.flags & kRegionGrown) == 0;
    auto tx = transaction(slot);
    const std::uint32_t page =
        allocator.allocate_plain(tx, wanted, untagged_, cacheable ? spans->owner.get() : 0);
    if (page == kNoPage) {
      ++passed;
      continue;
    }
    const std::uint64_t rounded = std::uint64_t{wanted} << kSpanUnitShift;
    {
      shared::Writer w(tx);
      w.add(h.span_count, 1);
      w.add(h.span_pages_bytes, rounded);
    }
    tx.commit();
    const std::uint64_t at = address(region, std::uint64_t{page} << kSpanUnitShift);
    if (cacheable) {
      spans->note_allocated(at, RowSpan::pack(region, wanted, page));
    } else if (spans != nullptr) {
      spans->note_changed();
    }
    note_served(r);
    note_peak(h);
    if (passed >= kWorthNoting && all_looked_at) note_full(h, region, wanted);
    return at;
  }
  h.full_to = 0;
  return 0;  // the usual way looks at all regions
}

// What is known to be full may not lie behind a region in which something is free now.
void Core::note_freeing(HeapCore& heap, std::uint32_t region) const noexcept {
  if (const std::uint32_t to = heap.full_to;
      to - 1 < geometry_.max_regions && regions_[region].rank < regions_[to].rank)
    heap.full_to = region;
}

bool Core::free_plain_span(ThreadCache& own, std::uint32_t region, std::uint32_t page) noexcept {
  const std::uint32_t slot = own.slot;
  const std::uint32_t heap = own.heap;
  HeapCore& h = heaps_[heap];
  const HeapGuard guard(*this, slot, heap);
  if (!guard.held()) return false;
  RegionCore& r = regions_[region];
  if (r.heap != heap || (r.flags & (kRegionAttached | kRegionDraining)) != kRegionAttached) return false;
  if (r.pages.page_shift != kSpanUnitShift || page >= r.pages.pages)
    return false;  // another one came meanwhile
  PageAllocator allocator = pages(region);
  SpanMagazines& spans = SpanMagazines::of(own);
  if (spans.cached() != 0) return_spans_locked(slot, own);  // first: it may be a second free of one of them
  spans.note_changed();
  const PageDesc& desc = allocator.desc(page);
  const std::uint64_t word0 = desc.word0;
  const auto length = static_cast<std::uint32_t>(word0);
  if (word0 - length != PageDesc::pack(PageKind::held_head, 0, untagged_)) return false;
  if (desc.word1 != 0 && desc.word1 != spans.owner) return false;  // another thread's
  note_freeing(h, region);
  auto tx = transaction(slot);
  allocator.free(tx, page, length);
  {
    shared::Writer w(tx);
    w.add(h.span_count, ~std::uint64_t{0});
    w.add(h.span_pages_bytes, -(std::uint64_t{length} << kSpanUnitShift));
  }
  tx.commit();
  note_emptied(h, r);
  if (h.closed_frees != 0 || spans.open == 0) count_free_locked(slot, heap);
  return true;
}

}  // namespace extmem::alloc
