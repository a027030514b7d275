// Exact heaps: the slow side of their span magazines. Opening and closing them, returning what they hold, and letting
// others at a span that is biased to its thread.
#include <algorithm>

#include "alloc/chains.hpp"
#include "alloc/core.hpp"
#include "alloc/span_magazines.hpp"
#include "base/crash_point.hpp"

namespace extmem::alloc {

namespace {
// Whoever flushes another thread's spans, or frees one that is biased to it, pauses it, which costs both some
// microseconds; a hit saves about a tenth of one. If it happens too often for the hits, the heap's caches close for a
// number of frees, for twice as many the next time; closed they cost nobody anything. All of them: every allocation
// that is no hit flushes every cache, so that a closed one spoils the others.
constexpr std::uint32_t kWindow = 8;            // disturbances that are judged together
constexpr std::uint32_t kWorthwhileHits = 128;  // for each
constexpr std::uint32_t kMostHits = 1024;       // that count for one
constexpr std::uint32_t kBackoffFrees = 64;     // the first time
constexpr std::uint32_t kMostBackoff = 10;      // 32,768 frees
}  // namespace

void Core::make_spans_locked(ThreadCache& cache) noexcept {
  SpanMagazines& spans = SpanMagazines::of(cache);
  spans.open = 0;
  spans.owner = PageDesc::owned_by(cache.heap, cache.slot);
  spans.level = 0;
  spans.top = 0;
  spans.floor = 0;
  spans.hits = 0;
  spans.asked = 0;
}

void Core::open_spans_locked(ThreadCache& cache) noexcept {
  SpanMagazines& spans = SpanMagazines::of(cache);
  // Without membarrier each operation of an owner would need a full fence: as dear as the lock.
  HeapCore& h = heaps_[cache.heap];
  if (spans.open != 0 || !has_membarrier_ || h.closed_frees != 0) return;
  spans.hits = 0;
  h.open_caches.add(1);
  spans.open = 1;
}

/// Requires: the owner stands still, or calls; nothing is cached.
void Core::close_spans_locked(ThreadCache& cache) noexcept {
  SpanMagazines& spans = SpanMagazines::of(cache);
  spans.note_changed();
  if (spans.open == 0) return;
  spans.open = 0;
  heaps_[cache.heap].open_caches.add(std::uint16_t{0xffff});
}

/// Whether a span of a row is one that is biased to that row's owner. It may be of a flush that was cut short: then it is
/// free by now.
bool Core::biased_to(const ThreadCache& cache, const RowSpan& span) const noexcept {
  const std::uint32_t region = span.region();
  if (region == 0 || region > geometry_.max_regions || !sound(regions_[region])) return false;
  const RegionCore& r = regions_[region];
  if ((r.flags & kRegionAttached) == 0 || r.heap != cache.heap || span.page() >= r.pages.pages) return false;
  const PageDesc& desc = pages(region).desc(span.page());
  return (desc.kind() == PageKind::held_head || desc.kind() == PageKind::cached_head) &&
         desc.length() == span.length() && desc.word1 == SpanMagazines::of(cache).owner;
}

void Core::return_spans_locked(std::uint32_t slot, ThreadCache& cache) noexcept {
  SpanMagazines& spans = SpanMagazines::of(cache);
  std::uint32_t left = spans.cached();
  if (left == 0) return;
  for (; left != 0; --left) {
    const RowSpan& span = spans.at(spans.level + left);
    if (biased_to(cache, span)) free_span_locked(slot, cache.heap, span.region(), span.page());
    base::crash_point("spans.freed");
    spans.top = spans.level + left - 1;
  }
  base::crash_point("spans.returned");
}

/// Empties and closes a cache of which a death may have left anything. Requires: the heap's lock, its owner stands still.
void Core::restore_spans_locked(std::uint32_t slot, ThreadCache& cache) noexcept {
  return_spans_locked(slot, cache);
  SpanMagazines& spans = SpanMagazines::of(cache);
  spans.top = spans.level.get();  // of a damaged row it may not be
  spans.note_changed();
  spans.open = 0;
  spans.hits = 0;
  spans.asked = 0;
}

void Core::flush_spans_paused(std::uint32_t slot, std::uint32_t heap) noexcept {
  const HeapCore& h = heaps_[heap];
  if (h.exact == 0) return;
  for (std::uint32_t link = h.first_cache; link != 0; link = caches_[link - 1].next) {
    return_spans_locked(slot, caches_[link - 1]);
    SpanMagazines::of(caches_[link - 1]).note_changed();
  }
}

/// Notes that the owner had to stand still. Requires: it does; the heap's lock.
void Core::disturbed_locked(std::uint32_t slot, ThreadCache& cache) noexcept {
  HeapCore& h = heaps_[cache.heap];
  SpanMagazines& spans = SpanMagazines::of(cache);
  h.hits.add(static_cast<std::uint16_t>(std::min(spans.hits.get(), kMostHits)));
  spans.hits = 0;
  if (h.closed_frees == 0) {
    h.disturbed.add(1);
    if (h.disturbed >= kWindow) {
      const bool worthwhile = h.hits >= kWindow * kWorthwhileHits;
      h.backoff =
          worthwhile ? std::uint8_t{0} : static_cast<std::uint8_t>(std::min(h.backoff + 1u, kMostBackoff));
      h.closed_frees =
          h.backoff == 0 ? std::uint16_t{0} : static_cast<std::uint16_t>(kBackoffFrees << (h.backoff - 1u));
      h.disturbed = 0;
      h.hits = 0;
    }
  }
  if (h.closed_frees == 0) return;
  return_spans_locked(slot, cache);  // what is closed is empty
  close_spans_locked(cache);
}

// A span that another thread is just freeing may be missed: then that free comes after this operation, as it may.
// One that was freed before, as the threads' synchronisation tells, is seen: the owner's level was lowered before.
Result<void> Core::flush_spans_locked(std::uint32_t slot, std::uint32_t heap) noexcept {
  HeapCore& h = heaps_[heap];
  if (h.open_caches == 0) return {};
  ThreadCache* own = cache_of(slot, heap);
  const bool own_open = own != nullptr && SpanMagazines::of(*own).open != 0;
  if (own_open) return_spans_locked(slot, *own);
  if (h.open_caches == (own_open ? 1u : 0u)) return {};
  bool any = false;
  for (std::uint32_t link = h.first_cache; link != 0; link = caches_[link - 1].next) {
    ThreadCache& cache = caches_[link - 1];
    SpanMagazines& spans = SpanMagazines::of(cache);
    if (&cache == own || spans.cached() == 0) continue;
    spans.asked = 1;
    cache.gate.ask();
    any = true;
  }
  if (!any) return {};
  base::crash_point("spans.asked");
  shared::Handshake::fence(has_membarrier_, peers_.shared);
  Error stuck{};
  for (std::uint32_t link = h.first_cache; link != 0;) {
    ThreadCache& cache = caches_[link - 1];
    link = cache.next;  // first: a dead one's cache goes
    SpanMagazines& spans = SpanMagazines::of(cache);
    if (spans.asked == 0) continue;
    spans.asked = 0;
    const shared::Handshake::Stand stand =
        stuck ? shared::Handshake::Stand::stuck : cache.gate.wait(peers_, cache.slot);
    if (stand == shared::Handshake::Stand::dead) {
      if (auto buried = bury_cache_locked(slot, cache); !buried) stuck = buried.error();
      continue;
    }
    if (stand == shared::Handshake::Stand::stuck) {
      if (!stuck) stuck = shared::stuck_error(peers_, cache.slot);
    } else {
      return_spans_locked(slot, cache);
      disturbed_locked(slot, cache);
    }
    resume(cache);
  }
  return stuck ? Result<void>(stuck) : Result<void>();
}

Core::FreeFigures Core::free_figures(std::uint32_t region) const noexcept {
  FreeFigures f;
  const PageSpace& space = regions_[region].pages;
  const PageAllocator allocator = pages(region);
  std::uint64_t run = 0;
  for (std::uint64_t page = 0; page < space.pages;) {
    const PageDesc& desc = allocator.desc(static_cast<std::uint32_t>(page));
    const std::uint64_t length = std::min<std::uint64_t>(desc.length(), space.pages - page);
    if (length == 0) break;  // a broken space: verify() says more
    if (desc.kind() == PageKind::cached_head) {
      f.cached_pages += length;
      ++f.cached_spans;
    }
    if (desc.kind() == PageKind::cached_head || desc.kind() == PageKind::free_head) {
      f.runs += run == 0 ? 1u : 0u;
      run += length;
      f.pages += length;
      f.longest = std::max(f.longest, run);
    } else {
      run = 0;
    }
    page += length;
  }
  return f;
}

Result<void> Core::share_span_locked(std::uint32_t slot, std::uint32_t region, std::uint32_t page) noexcept {
  // The caller may have looked before it had the lock: the region may be gone since.
  if ((regions_[region].flags & kRegionAttached) == 0 || page >= regions_[region].pages.pages) return {};
  PageDesc& desc = pages(region).desc(page);
  const std::uint32_t owner = desc.owner();
  if (owner == 0) return {};
  const std::uint32_t heap = regions_[region].heap;
  if (owner == slot) {
    settle_spans_locked(slot, heap);
    return {};
  }
  // Its owner, if it is there and may push, stands still meanwhile: it may be about to free the span, too.
  ThreadCache* cache = cache_of(owner, heap);
  const bool moves = cache != nullptr && SpanMagazines::of(*cache).open != 0;
  if (moves) {
    EXTMEM_TRY(stands, pause(slot, *cache));
    if (!stands) return {};  // it had died: what it had cached is free, and nobody moves the rest
    // What it has cached is free, this span perhaps among it; and it may not find this one in its row any more.
    return_spans_locked(slot, *cache);
    SpanMagazines::of(*cache).note_changed();
  }
  if (desc.kind() == PageKind::held_head) desc.word1 = 0;
  base::crash_point("spans.shared");
  if (moves) {
    disturbed_locked(slot, *cache);
    resume(*cache);
  }
  return {};
}

bool Core::span_is_cached(std::uint32_t region, std::uint32_t page) const noexcept {
  const std::uint32_t owner = pages(region).desc(page).owner();
  if (owner == 0 || owner > geometry_.max_threads) return false;
  const ThreadCache* const cache = cache_of(owner, regions_[region].heap);
  if (cache == nullptr || !cache->exact()) return false;
  const SpanMagazines& spans = SpanMagazines::of(*cache);
  const std::uint32_t level = spans.level;
  for (std::uint32_t n = spans.cached(); n != 0; --n) {
    const RowSpan& span = spans.at(level + n);
    if (span.region() == region && span.page() == page) return true;
  }
  return false;
}

void Core::show_cached_spans(std::uint32_t heap) noexcept {
  (void)for_each_cache(*this, heaps_[heap], [&](const ThreadCache& cache) {
    const SpanMagazines& spans = SpanMagazines::of(cache);
    for (std::uint32_t n = spans.cached(); n != 0; --n) {
      const RowSpan& span = spans.at(spans.level + n);
      if (!biased_to(cache, span)) continue;
      auto& word0 = pages(span.region()).desc(span.page()).word0;
      word0 = PageDesc::pack(PageKind::cached_head, span.length(), static_cast<std::uint16_t>(word0 >> 48));
    }
  });
}

void Core::settle_spans_locked(std::uint32_t slot, std::uint32_t heap) noexcept {
  ThreadCache* own = heaps_[heap].exact == 0 ? nullptr : cache_of(slot, heap);
  if (own == nullptr) return;
  return_spans_locked(slot, *own);
  SpanMagazines::of(*own).note_changed();
}

ThreadCache* Core::span_owner_locked(std::uint32_t slot, std::uint32_t heap) const noexcept {
  ThreadCache* own = heaps_[heap].exact == 0 ? nullptr : cache_of(slot, heap);
  return own != nullptr && SpanMagazines::of(*own).open != 0 ? own : nullptr;
}

void Core::count_free_locked(std::uint32_t slot, std::uint32_t heap) noexcept {
  HeapCore& h = heaps_[heap];
  if (h.exact == 0) return;
  if (h.closed_frees != 0) h.closed_frees.add(std::uint16_t{0xffff});
  if (h.closed_frees != 0) return;
  if (ThreadCache* own = cache_of(slot, heap); own != nullptr) open_spans_locked(*own);
}

std::size_t Core::check_spans_locked(
    std::uint32_t heap, std::uint64_t cached_heads,
    FunctionRef<void(const char*, std::uint64_t, std::uint64_t, std::uint64_t)> report) const noexcept {
  std::size_t breaches = 0;
  const auto breach = [&](const char* what, std::uint64_t where, std::uint64_t expected,
                          std::uint64_t found) {
    ++breaches;
    if (report) report(what, where, expected, found);
  };
  const HeapCore& h = heaps_[heap];
  std::uint64_t cached = 0;
  std::uint32_t open = 0;
  (void)for_each_cache(*this, h, [&](const ThreadCache& cache) {
    const SpanMagazines& spans = SpanMagazines::of(cache);
    open += spans.open != 0 ? 1u : 0u;
    if (spans.top - spans.floor > kUndoDepth || spans.level - spans.floor > spans.top - spans.floor) {
      breach("a row of spans is as long as it may be", cache.slot, kUndoDepth, spans.top - spans.floor);
      return;
    }
    if (spans.top != spans.floor && spans.open == 0)
      breach("a closed cache is empty", cache.slot, 0, spans.top - spans.floor);
    for (std::uint32_t n = spans.floor + 1; n != spans.top + 1; ++n) {
      const RowSpan& span = spans.at(n);
      if (!biased_to(cache, span)) {
        breach("a span in a thread's row is that thread's", span.address, cache.slot, span.region());
        continue;
      }
      cached += n - spans.floor > spans.level - spans.floor ? 1u : 0u;
      for (std::uint32_t other = spans.floor + 1; other != n; ++other) {
        if (spans.at(other).span == span.span)
          breach("a span is in a row once", span.address, n - spans.floor, other - spans.floor);
      }
    }
  });
  if (open != h.open_caches)
    breach("open_caches counts the caches that may hold spans", heap, open, h.open_caches);
  if (cached_heads > cached) breach("every cached span is in a thread's row", heap, cached_heads, cached);
  return breaches;
}

}  // namespace extmem::alloc
