// Exact heaps: the usual allocation and the usual free that the span magazines do not have, under the heap's lock.
//
// The same as allocate_span and free_span of such requests, without what those cannot need: no constraints, no tag, no
// slabs, no growth, no error. Whatever is unusual is left to them.
#include "alloc/core.hpp"
#include "alloc/span_magazines.hpp"

namespace extmem::alloc {

namespace {
constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 36;  // so that pages fit 32 bits
}  // namespace

std::uint64_t Core::allocate_plain_span(ThreadCache& own, std::uint64_t bytes) noexcept {
  if (bytes - 1 >= kMostBytes) return 0;
  const std::uint32_t slot = own.slot;
  const std::uint32_t heap = own.heap;
  const auto wanted = static_cast<std::uint32_t>((bytes + (1u << kSpanUnitShift) - 1) >> kSpanUnitShift);
  HeapCore& h = heaps_[heap];
  const HeapGuard guard(*this, slot, heap);
  if (!guard.held()) return 0;
  SpanMagazines& spans = SpanMagazines::of(own);
  const bool open = spans.open != 0;
  // Alone with an empty cache, or nobody caches: nothing is to be flushed.
  if (h.open_caches > (open && spans.cached() == 0 ? 1u : 0u) && !flush_spans_locked(slot, heap)) return 0;
  for (std::uint32_t region = h.first_region; region != 0; region = regions_[region].next) {
    RegionCore& r = regions_[region];
    if ((r.flags & kRegionDraining) != 0 || !reaches(region)) continue;
    if (r.pages.page_shift != kSpanUnitShift) return 0;
    PageAllocator allocator = pages(region);
    const bool cacheable = open && wanted <= kMostCachedPages && (r.flags & kRegionGrown) == 0;
    auto tx = transaction(slot);
    const std::uint32_t page =
        allocator.allocate_plain(tx, wanted, untagged_, cacheable ? spans.owner.get() : 0);
    if (page == kNoPage) continue;
    const std::uint64_t rounded = std::uint64_t{wanted} << kSpanUnitShift;
    {
      shared::Writer w(tx);
      w.add(h.span_count, 1);
      w.add(h.span_pages_bytes, rounded);
    }
    tx.commit();
    const std::uint64_t at = address(region, std::uint64_t{page} << kSpanUnitShift);
    if (cacheable) {
      spans.note_allocated(at, RowSpan::pack(region, wanted, page));
    } else {
      spans.note_changed();
    }
    note_served(r);
    note_peak(h);
    return at;
  }
  return 0;
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
