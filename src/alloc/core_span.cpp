// Spans: large objects, constrained objects, everything of exact heaps. Under the heap's lock, as transactions.
#include <algorithm>

#include "alloc/core.hpp"
#include "alloc/heap_guard.hpp"
#include "alloc/span_magazines.hpp"

namespace extmem::alloc {

namespace {

bool admits(const RegionCore& r, std::uint32_t slot, const RegionFilter& filter) noexcept {
  return (r.flags & kRegionDraining) == 0 && (filter.region == 0 || filter.region == slot) &&
         (filter.node == kAnyNode || filter.node == r.node) &&
         (filter.os_page_shift == 0 || filter.os_page_shift == r.os_page_shift);
}

SpanRequest for_region(const SpanRequest& request, const RegionCore& r, const std::byte* segment,
                       std::uint64_t bytes) noexcept {
  SpanRequest own = request;
  const std::uint64_t page_size = std::uint64_t{1} << r.pages.page_shift;
  const std::uint64_t pages = (bytes >> r.pages.page_shift) + ((bytes & (page_size - 1)) != 0);
  own.pages =
      pages > kMaxPages ? kNoPage : static_cast<std::uint32_t>(pages);  // kNoPage: more than any space has
  own.bytes = bytes;
  own.phase = r.phase;
  own.iova = &r.iova;
  own.segment = segment;
  if (own.align <= page_size) own.align = 1;  // every page of ours is aligned to its size
  return own;
}

Error deadlock() noexcept {
  return EXTMEM_ERROR(EDEADLK, "this thread holds the heap's lock: do not use a heap inside a walk over it");
}

}  // namespace

Result<Span> Core::allocate_span(std::uint32_t slot, std::uint32_t heap, std::uint64_t bytes,
                                 const SpanRequest& request, const RegionFilter& filter,
                                 std::uint16_t holder) noexcept {
  HeapCore& h = heaps_[heap];
  const HeapGuard guard(*this, slot, heap);
  if (!guard.held()) return guard.refused(deadlock());
  TagRecord* tag = nullptr;
  if (holder >= kFirstTagHolder) {
    tag = make_tag_locked(slot, h, holder);
    if (tag == nullptr)
      return EXTMEM_ERROR(ENOSPC, "no room for another (heap, tag) pair: raise DomainOptions::max_tags");
  }
  EXTMEM_TRY_VOID(flush_spans_locked(slot, heap));
  // A thread that caches spans gets its own ones biased to it. Tagged ones are never cached: they are counted.
  ThreadCache* const owner = span_owner_locked(slot, heap);
  const bool biased = holder == untagged_ && owner != nullptr;
  for (int round = 0; round < 2; ++round) {
    for (std::uint32_t region = h.first_region; region != 0; region = regions_[region].next) {
      RegionCore& r = regions_[region];
      if (!admits(r, region, filter) || !reaches(region)) continue;
      const SpanRequest own = for_region(request, r, segment_, bytes);
      PageAllocator allocator = pages(region);
      if (own.pages > allocator.largest_free_bound()) continue;
      // What is longer than the longest run of IOVAs, and than a page that has none, need not be looked for.
      if (own.iova_contiguous &&
          own.bytes > std::max(region::max_run_length(r.iova), std::uint64_t{1} << r.os_page_shift))
        continue;
      auto tx = transaction(slot);
      // Not of memory that growth added: who caches the last span of such a region keeps it from going.
      const bool cacheable = biased && own.pages <= kMostCachedPages &&
                             r.pages.page_shift == kSpanUnitShift && (r.flags & kRegionGrown) == 0;
      const std::uint32_t page =
          allocator.allocate(tx, own, holder, cacheable ? PageDesc::owned_by(heap, slot) : 0);
      if (page == kNoPage) continue;
      const std::uint64_t rounded = std::uint64_t{own.pages} << r.pages.page_shift;
      tx.add(h.span_count, 1);
      tx.add(h.span_pages_bytes, rounded);
      tx.commit();
      if (owner != nullptr) {
        // What is taken again from the cache would have been placed there: only plain requests may find it.
        SpanMagazines& spans = SpanMagazines::of(*owner);
        if (cacheable && !own.constrained() && filter.region == 0 && filter.os_page_shift == 0) {
          spans.note_allocated(address(region, std::uint64_t{page} << kSpanUnitShift),
                               RowSpan::pack(region, own.pages, page));
        } else {
          spans.note_changed();
        }
      }
      note_served(r);
      note_peak(h);
      if (tag != nullptr) count_tag_locked(slot, heap, *tag, static_cast<std::int64_t>(rounded), 1);
      return Span{region, page, own.pages};
    }
    // Before giving up, take back what threads have cached: their slabs may be what is missing.
    if (round == 0) {
      if (h.slab_count == 0) break;
      EXTMEM_TRY_VOID(flush_all_locked(slot, heap, true));
    }
  }
  return EXTMEM_ERROR(
      ENOMEM,
      "no free memory of the heap fits this size and these constraints: add a region or allow growth");
}

void Core::free_span_locked(std::uint32_t slot, std::uint32_t heap, std::uint32_t region,
                            std::uint32_t page) noexcept {
  HeapCore& h = heaps_[heap];
  RegionCore& r = regions_[region];
  PageAllocator allocator = pages(region);
  const std::uint32_t length = allocator.desc(page).length();
  const std::uint16_t holder = allocator.desc(page).holder();
  const std::uint64_t bytes = std::uint64_t{length} << r.pages.page_shift;
  note_freeing(h, region);
  auto tx = transaction(slot);
  allocator.free(tx, page, length);
  tx.add(h.span_count, ~std::uint64_t{0});
  tx.add(h.span_pages_bytes, -bytes);
  tx.commit();
  note_emptied(h, r);
  if (holder >= kFirstTagHolder) {
    if (TagRecord* tag = find_tag_locked(h, holder); tag != nullptr) {
      count_tag_locked(slot, heap, *tag, -static_cast<std::int64_t>(bytes), -1);
    }
  }
}

Result<void> Core::free_span(std::uint32_t slot, std::uint32_t heap, std::uint32_t region,
                             std::uint64_t offset) noexcept {
  const HeapGuard guard(*this, slot, heap);
  if (!guard.held()) return guard.refused(deadlock());
  RegionCore& r = regions_[region];
  PageAllocator allocator = pages(region);
  const unsigned shift = r.pages.page_shift;
  const auto page = static_cast<std::uint32_t>(offset >> shift);
  PageDesc& desc = allocator.desc(page);
  const bool aligned = (std::uint64_t{page} << shift) == offset;
  settle_spans_locked(slot, heap);  // first: it may be a second free of one of them
  if (aligned) EXTMEM_TRY_VOID(share_span_locked(slot, region, page));
  if (desc.kind() != PageKind::held_head || !aligned) {
    if (desc.kind() == PageKind::slab) return EXTMEM_ERROR(ENOTBLK, "the page belongs to a slab");
    if (allocator.find_head(page) != kNoPage) {
      return EXTMEM_ERROR(EINVAL, "interior pointer: free the address that allocate returned");
    }
    return EXTMEM_ERROR(
        EALREADY, "nothing is allocated at this address: it was freed (a double free), or never allocated");
  }
  const std::uint16_t holder = desc.holder();
  if (holder == kHolderMemzone) {
    return EXTMEM_ERROR(EPERM, "the memory belongs to a memzone: free the memzone by its name");
  }
  free_span_locked(slot, heap, region, page);
  count_free_locked(slot, heap);
  if (r.flags & kRegionDraining)
    r.drained.fetch_add(1, std::memory_order_release);  // pairs with the drain's acquire
  return {};
}

Result<bool> Core::resize_span(std::uint32_t slot, std::uint32_t heap, std::uint32_t region,
                               std::uint64_t offset, std::uint64_t bytes) noexcept {
  HeapCore& h = heaps_[heap];
  const HeapGuard guard(*this, slot, heap);
  if (!guard.held()) return guard.refused(deadlock());
  RegionCore& r = regions_[region];
  PageAllocator allocator = pages(region);
  const unsigned shift = r.pages.page_shift;
  const auto page = static_cast<std::uint32_t>(offset >> shift);
  PageDesc& desc = allocator.desc(page);
  settle_spans_locked(slot, heap);
  EXTMEM_TRY_VOID(share_span_locked(slot, region, page));
  if (desc.kind() != PageKind::held_head || (std::uint64_t{page} << shift) != offset) {
    return EXTMEM_ERROR(EINVAL, "not the address of a held span");
  }
  if (bytes == 0) return EXTMEM_ERROR(EINVAL, "a span cannot shrink to nothing: free it");
  const std::uint64_t wanted64 = (bytes >> shift) + ((bytes & ((std::uint64_t{1} << shift) - 1)) != 0);
  if (wanted64 > kMaxPages) return false;
  const auto wanted = static_cast<std::uint32_t>(wanted64);
  const std::uint32_t length = desc.length();
  if (wanted == length) return true;
  const std::uint16_t holder = desc.holder();
  if (wanted < length) note_freeing(h, region);
  auto tx = transaction(slot);
  if (wanted > length) {
    if ((r.flags & kRegionDraining) != 0) return false;
    EXTMEM_TRY_VOID(flush_spans_locked(slot, heap));
    if (allocator.free_after(page, length) < wanted - length) {
      // What lies behind may be free, but cached by a thread.
      const std::uint64_t end = std::uint64_t{page} + length + allocator.free_after(page, length);
      if (end >= r.pages.pages || allocator.desc(static_cast<std::uint32_t>(end)).kind() != PageKind::slab)
        return false;
      EXTMEM_TRY_VOID(flush_all_locked(slot, heap, false));
      if (allocator.free_after(page, length) < wanted - length) return false;
    }
    if (!allocator.ensure_run(page, wanted)) return false;
    allocator.grow(tx, page, length, wanted - length);
  } else {
    if (!allocator.ensure_run(page, wanted)) return true;  // what it has is more than it needs
    allocator.shrink(tx, page, length, wanted);
  }
  const std::int64_t delta = (std::int64_t{wanted} - std::int64_t{length}) * (std::int64_t{1} << shift);
  tx.add(h.span_pages_bytes, static_cast<std::uint64_t>(delta));
  tx.commit();
  note_peak(h);
  if (holder >= kFirstTagHolder) {
    if (TagRecord* tag = find_tag_locked(h, holder); tag != nullptr)
      count_tag_locked(slot, heap, *tag, delta, 0);
  }
  return true;
}

Result<Core::BiggestSpan> Core::biggest_span(std::uint32_t slot, std::uint32_t heap,
                                             const SpanRequest& request,
                                             const RegionFilter& filter) noexcept {
  HeapCore& h = heaps_[heap];
  const HeapGuard guard(*this, slot, heap);
  if (!guard.held()) return guard.refused(deadlock());
  EXTMEM_TRY_VOID(flush_all_locked(slot, heap, true));
  BiggestSpan best;
  for (std::uint32_t region = h.first_region; region != 0; region = regions_[region].next) {
    RegionCore& r = regions_[region];
    if (!admits(r, region, filter) || !reaches(region)) continue;
    PageAllocator allocator = pages(region);
    if ((std::uint64_t{allocator.largest_free_bound()} << r.pages.page_shift) <= best.bytes) continue;
    SpanRequest own = for_region(request, r, segment_, 1);
    const auto found = allocator.biggest(own);
    if (found.bytes > best.bytes)
      best = BiggestSpan{region, std::uint64_t{found.page} << r.pages.page_shift, found.bytes};
  }
  return best;
}

}  // namespace extmem::alloc
