// Span magazines of exact heaps: what they return, who flushes them, what they refuse, and what a death leaves.
#include <gtest/gtest.h>

#include <map>

#include "model/exact_model.hpp"
#include "unit/alloc/exact_world.hpp"
#include "unit/alloc/seed.hpp"

namespace extmem::alloc {
namespace {

TEST(CoreExact, TheSpanFreedLastComesBackFirst) {
  ExactWorld world;
  world.add_region(64 * kKiB);
  world.begin(1);
  const std::uint64_t a = world.must_allocate(1, 200);
  const std::uint64_t b = world.must_allocate(1, 200);
  const std::uint64_t c = world.must_allocate(1, 64);
  world.must_free(1, c);
  world.must_free(1, b);
  world.must_free(1, a);
  EXPECT_EQ(world.cached(1), 3u);
  EXPECT_EQ(world.breaches(), "");
  EXPECT_EQ(world.must_allocate(1, 193), a);
  EXPECT_EQ(world.must_allocate(1, 250), b);
  EXPECT_EQ(world.must_allocate(1, 1), c);
  EXPECT_EQ(world.cached(1), 0u);
  for (const std::uint64_t ptr : {a, b, c}) world.must_free(1, ptr);
  EXPECT_EQ(world.leftovers(), "");
}

TEST(CoreExact, AnAllocationThatIsNoHitFindsEverythingFree) {
  ExactWorld world;
  world.add_region(16 * kKiB);
  world.begin(1);
  world.begin(2);
  std::vector<std::uint64_t> held;
  for (std::uint32_t i = 0; i < 256; ++i) held.push_back(world.must_allocate(i < 192 ? 3 : 1 + i % 2, 64));
  EXPECT_EQ(world.allocate(3, 64).error().code(), ENOMEM);
  for (std::uint32_t i = 0; i < 192; ++i) world.must_free(3, held[i]);
  for (std::uint32_t i = 256; i-- > 192;) world.must_free(1 + i % 2, held[i]);
  EXPECT_GT(world.cached(1), 30u);
  EXPECT_GT(world.cached(2), 30u);
  const std::uint64_t all = world.must_allocate(1, 16 * kKiB);
  EXPECT_EQ(all & kPlaceMask, 0u);
  EXPECT_EQ(world.cached(1) + world.cached(2), 0u);
  world.must_free(3, all);
  EXPECT_EQ(world.leftovers(), "");
}

TEST(CoreExact, AWrongFreeIsRefusedAndChangesNothing) {
  ExactWorld world;
  const std::uint32_t region = world.add_region(64 * kKiB);
  world.begin(1);
  world.begin(2);
  const std::uint64_t a = world.must_allocate(1, 640);
  const std::uint64_t b = world.must_allocate(1, 640);
  world.must_free(1, b);
  for (const std::uint32_t slot : {1u, 2u, 3u}) {
    EXPECT_EQ(world.free_code(slot, a + 64), EINVAL);
    EXPECT_EQ(world.free_code(slot, a + 1), EINVAL);
    EXPECT_EQ(world.free_code(slot, b), EALREADY);
    EXPECT_EQ(world.free_code(slot, b + 64), EALREADY);
    EXPECT_EQ(world.free_code(slot, make_ptr(region, 0)), EALREADY);
  }
  EXPECT_EQ(world.must_allocate(1, 640), b);
  world.must_free(2, b);  // another thread's free: straight to the pages
  for (const std::uint32_t slot : {1u, 2u, 3u}) EXPECT_EQ(world.free_code(slot, b), EALREADY);
  world.must_free(1, a);
  EXPECT_EQ(world.free_code(1, a), EALREADY);
  EXPECT_EQ(world.leftovers(), "");
}

TEST(CoreExact, TaggedAndSharedSpansAreNotCached) {
  ExactWorld world;
  world.add_region(64 * kKiB);
  world.begin(1);
  const auto tagged = world.allocate(1, 64, kFirstTagHolder + 1);
  ASSERT_TRUE(tagged.ok());
  const std::uint64_t shared = world.must_allocate(3, 64);  // slot 3 has no cache
  for (const std::uint64_t ptr : {*tagged, shared}) {
    EXPECT_EQ(world.head(ptr).owner(), 0u);
    world.must_free(1, ptr);
    EXPECT_EQ(world.cached(1), 0u);
  }
  const std::uint64_t small = world.must_allocate(1, 64);
  EXPECT_EQ(world.head(small).owner(), 1u);
  world.must_free(1, small);
  EXPECT_EQ(world.cached(1), 1u);
  EXPECT_EQ(world.tag_counts(kFirstTagHolder + 1).count, 0);
  EXPECT_EQ(world.leftovers(), "");
}

TEST(CoreExact, GrowingTakesACachedNeighbour) {
  ExactWorld world;
  const std::uint32_t region = world.add_region(4096);
  world.begin(1);
  world.begin(2);
  const std::uint64_t high = world.must_allocate(2, 64);
  const std::uint64_t low = world.must_allocate(1, 64);
  ASSERT_EQ(low + 64, high);
  world.must_free(2, high);
  ASSERT_EQ(world.cached(2), 1u);
  const auto grown = world.core().resize_span(2, CoreWorld::kHeap, region, low & kPlaceMask, 128);
  ASSERT_TRUE(grown.ok() && *grown);
  EXPECT_EQ(world.head(low).owner(), 0u);  // it was slot 1's, and has changed
  EXPECT_EQ(world.breaches(), "");
  world.must_free(1, low);
  EXPECT_EQ(world.leftovers(), "");
}

TEST(CoreExact, ADrainingRegionKeepsNothingCached) {
  ExactWorld world;
  const std::uint32_t region = world.add_region(64 * kKiB);
  world.begin(1);
  const std::uint64_t a = world.must_allocate(1, 64);
  const std::uint64_t b = world.must_allocate(1, 64);
  world.must_free(1, b);
  EXPECT_EQ(world.cached(1), 1u);
  world.set_draining(region, true);
  EXPECT_EQ(world.cached(1), 0u);
  EXPECT_EQ(world.head(a).owner(), 1u);
  world.must_free(1, a);
  EXPECT_EQ(world.cached(1), 0u);
  {
    const shared::LockGuard guard(world.heap().lock, 1, false);
    EXPECT_TRUE(world.core().region_empty_locked(region));
  }
  world.set_draining(region, false);
  EXPECT_EQ(world.leftovers(), "");
}

TEST(CoreExact, CachesThatAreDisturbedForNothingCloseForLongerAndLonger) {
  ExactWorld world;
  world.add_region(64 * kKiB);
  world.begin(1);
  const auto disturb = [&] {  // by a thread that has no cache
    const auto other = world.core().allocate_span(2, CoreWorld::kHeap, 128, {}, {}, kHolderUntagged);
    ASSERT_TRUE(other.ok());
    const std::uint64_t ptr = make_ptr(other->region, std::uint64_t{other->page} << kSpanUnitShift);
    EXPECT_EQ(world.cached(1), 0u);
    ASSERT_TRUE(world.core().free_span(2, CoreWorld::kHeap, other->region, ptr & kPlaceMask).ok());
    EXPECT_EQ(world.breaches(), "");
  };
  std::uint32_t last = 0;
  for (int round = 0; round < 12; ++round) {
    // Slot 1 frees until its cache is open.
    std::uint32_t frees = 0;
    for (; world.cached(1) == 0; ++frees) world.must_free(1, world.must_allocate(1, 64));
    if (round > 1) {
      EXPECT_GE(frees, std::min(last * 2, 32'000u) - 10);
    }
    last = frees;
    for (int i = 0; i < 8; ++i) {
      EXPECT_NE(world.spans(1).open, 0u);
      world.must_free(1, world.must_allocate(1, 64));
      EXPECT_EQ(world.cached(1), 1u);
      disturb();
    }
    EXPECT_EQ(world.spans(1).open, 0u);
    EXPECT_EQ(world.heap().open_caches, 0u);
  }
  EXPECT_GE(last, 32'000u);
  // One that was used between the disturbances stays open.
  while (world.cached(1) == 0) world.must_free(1, world.must_allocate(1, 64));
  for (int i = 0; i < 100; ++i) {
    for (int hit = 0; hit < 150; ++hit) world.must_free(1, world.must_allocate(1, 64));
    disturb();
    EXPECT_NE(world.spans(1).open, 0u);
  }
}

TEST(CoreExact, WhatAnotherThreadChangesLeavesTheRow) {
  ExactWorld world;
  const std::uint32_t region = world.add_region(64 * kKiB);
  world.begin(1);
  world.begin(2);
  const std::uint64_t first = world.must_allocate(1, 64);
  world.must_free(2, first);
  const std::uint64_t again = world.must_allocate(2, 64);
  ASSERT_EQ(again, first);  // at the place that slot 1 had allocated last
  EXPECT_EQ(world.head(again).owner(), 2u);
  world.must_free(1, again);
  EXPECT_EQ(world.cached(1) + world.cached(2), 0u);  // it was 2's, and is nobody's
  EXPECT_EQ(world.free_code(2, again), EALREADY);
  // A memzone: the owner's next free of that address is wrong.
  const std::uint64_t zone = world.must_allocate(1, 64);
  {
    const shared::LockGuard guard(world.heap().lock, 1, false);
    auto tx = world.core().transaction(1);
    world.core().set_holder_locked(tx, zone, kHolderMemzone);
    tx.commit();
  }
  EXPECT_EQ(world.free_code(1, zone), EPERM);
  {
    const shared::LockGuard guard(world.heap().lock, 1, false);
    auto tx = world.core().transaction(1);
    world.core().set_holder_locked(tx, zone, kHolderUntagged);
    tx.commit();
  }
  world.must_free(1, zone);
  // Grown by another one.
  const std::uint64_t high = world.must_allocate(1, 64);
  const std::uint64_t low = world.must_allocate(1, 64);
  world.must_free(2, high);
  ASSERT_TRUE(*world.core().resize_span(2, CoreWorld::kHeap, region, low & kPlaceMask, 128));
  world.must_free(1, low);
  EXPECT_EQ(world.cached(1), 0u);
  EXPECT_EQ(world.leftovers(), "");
}

TEST(CoreExact, WhetherASpanIsCachedCanBeAsked) {
  ExactWorld world;
  const std::uint32_t region = world.add_region(64 * kKiB);
  world.begin(1);
  const std::uint64_t ptr = world.must_allocate(1, 640);
  const auto page = static_cast<std::uint32_t>((ptr & kPlaceMask) >> kSpanUnitShift);
  EXPECT_FALSE(world.core().span_is_cached(region, page));
  world.must_free(1, ptr);
  ASSERT_EQ(world.cached(1), 1u);
  EXPECT_TRUE(world.core().span_is_cached(region, page));
  EXPECT_EQ(world.must_allocate(1, 640), ptr);
  EXPECT_FALSE(world.core().span_is_cached(region, page));
  world.must_free(1, ptr);
  EXPECT_EQ(world.leftovers(), "");
}

// A thread that died inside a push or a pop, or in whose row a flush died: whatever they had done, the row says what is
// cached, and the heads whether it is returned already.
TEST(CoreExact, WhatADeathInsideAnOperationLeavesIsDecidedByTheRow) {
  for (const bool whole_heap : {false, true}) {
    for (const int step : {0, 1, 2, 3, 4}) {
      SCOPED_TRACE(step);
      ExactWorld world;
      world.add_region(64 * kKiB);
      world.begin(2);
      std::vector<std::uint64_t> held;
      for (int i = 0; i < 6; ++i) held.insert(held.begin(), world.must_allocate(2, 64));
      for (int i = 0; i < 3; ++i) world.must_free(2, held[std::size_t(i)]);
      ThreadCache& cache = world.cache(2);
      SpanMagazines& spans = world.spans(2);
      bool last_held = true;     // the fourth span, which is being freed
      bool third_held = false;   // the third, which is being allocated
      std::uint32_t others = 2;  // the fifth and sixth
      if (step == 1) {           // a push
        spans.level = spans.level - 1;
        last_held = false;
      } else if (step == 2) {  // a pop
        spans.level = spans.level + 1;
        third_held = true;
      } else if (step == 3) {  // a flush that had returned one more than it had noted
        const std::uint32_t level = spans.level;
        const std::uint32_t top = spans.top;
        world.flush(1);
        ASSERT_EQ(spans.top, level);
        spans.top = top;
      } else if (step == 4) {  // an allocation: in the row, not yet at the level
        world.flush(1);
        const std::uint64_t ptr = world.must_allocate(2, 64);
        ASSERT_EQ(ptr, held[2]);
        spans.level = spans.level - 1;
      }
      {
        const shared::LockGuard guard(world.heap().lock, 1, false);
        if (whole_heap) {
          ASSERT_TRUE(world.core().repair_heap_locked(1, CoreWorld::kHeap).ok());
        } else {
          ASSERT_TRUE(world.core().bury_cache_locked(1, cache).ok());
        }
      }
      EXPECT_EQ(world.breaches(), "");
      EXPECT_EQ(world.heap().open_caches, 0u);
      EXPECT_EQ(world.heap().span_count, others + (last_held ? 1 : 0) + (third_held ? 1 : 0));
      world.must_free(1, held[4]);
      world.must_free(1, held[5]);
      EXPECT_EQ(world.free_code(1, held[3]), last_held ? 0 : EALREADY);
      EXPECT_EQ(world.free_code(1, held[2]), third_held ? 0 : EALREADY);
      EXPECT_EQ(world.free_code(1, held[0]), EALREADY);
      EXPECT_EQ(world.leftovers(), "");
    }
  }
}

// ---- against a model without caches ------------------------------------------------------------------------

TEST(CoreExact, RandomOperationsShowNothingThatAHeapWithoutCachesWouldNotShow) {
  const std::uint64_t seed = seed_for(20260301);
  SCOPED_TRACE(replay_hint(seed));
  Random random(seed);
  constexpr std::uint64_t kBytes = 96 * kKiB;
  constexpr std::uint32_t kSlots = 3;
  std::uint64_t hits = 0;
  for (int world_number = 0; world_number < 12; ++world_number) {
    ExactWorld world;
    const std::uint32_t region = world.add_region(kBytes);
    test::ExactModel model(kBytes);
    const RegionCore& r = world.core().region(region);
    const std::uint64_t looks = world_number % 3 == 0 ? 4 : world_number % 3 == 1 ? 40 : 400;
    const std::uint64_t most = world_number % 2 == 0 ? 512 : 6000;
    // For each slot and length what it has freed since the last flush, the last one last.
    std::map<std::pair<std::uint32_t, std::uint64_t>, std::vector<std::uint64_t>> freed;
    const auto look = [&] {
      {
        const shared::LockGuard guard(world.heap().lock, kSlots + 1, false);
        ASSERT_TRUE(world.core().flush_spans_locked(kSlots + 1, CoreWorld::kHeap).ok());
      }
      freed.clear();
      const auto runs = model.free_runs();
      std::uint64_t free_bytes = 0;
      for (const auto& [offset, length] : runs) free_bytes += length;
      ASSERT_EQ(r.pages.free_pages * 64, free_bytes);
      ASSERT_EQ(r.pages.free_runs, runs.size());
      ASSERT_EQ(std::uint64_t{world.core().pages(region).largest_free()} * 64, model.longest());
      ASSERT_EQ(world.heap().span_count, model.held.size());
      ASSERT_EQ(world.heap().span_pages_bytes, kBytes - free_bytes);
      for (const auto& [offset, length] : runs) {
        const PageDesc& desc = world.head(make_ptr(region, offset));
        ASSERT_EQ(desc.kind(), PageKind::free_head);
        ASSERT_EQ(desc.length() * 64, length);
      }
    };
    std::uint32_t slot = 1;
    std::uint64_t usual = 64;
    std::uint64_t latest = 0;  // offset of the latest allocation
    for (int step = 0; step < 6000; ++step) {
      // One thread works for a while, mostly with one size; now and then another one frees what it had.
      if (one_in(random, world_number < 6 ? 400 : 40))
        slot = static_cast<std::uint32_t>(1 + below(random, kSlots));
      if (one_in(random, 100)) usual = 64 * (1 + below(random, 8));
      if (one_in(random, 300)) world.heap().closed_frees = 0;  // as if it had freed for long
      const std::uint64_t bytes = one_in(random, 20) ? 1 + below(random, most) : usual;
      const std::uint64_t length = base::align_up(bytes, 64);
      if (below(random, 100) < (step % 1000 < 500 ? 60 : 40)) {
        bool hit = false;
        const auto got = world.allocate(slot, bytes, kHolderUntagged, &hit);
        ASSERT_EQ(got.ok(), hit || model.longest() >= length);
        if (!got.ok()) {
          ASSERT_EQ(got.error().code(), ENOMEM);
          freed.clear();
          continue;
        }
        const std::uint64_t offset = *got & kPlaceMask;
        if (hit) {
          auto& mine = freed[{slot, length}];
          ASSERT_FALSE(mine.empty());
          ASSERT_EQ(offset, mine.back());
          mine.pop_back();
          ++hits;
        } else {
          ASSERT_TRUE(model.may_place(offset, length)) << "at step " << step;
          freed.clear();
        }
        ASSERT_TRUE(model.held.emplace(offset, length).second);
        latest = offset;
      } else if (!model.held.empty()) {
        auto which = model.held.lower_bound(below(random, kBytes));
        if (which == model.held.end()) which = model.held.begin();
        if (const auto it = model.held.find(latest); it != model.held.end() && !one_in(random, 4)) which = it;
        const auto [offset, had] = *which;
        const std::uint64_t ptr = make_ptr(region, offset);
        if (one_in(random, 60)) {  // grow or shrink it in place
          const std::uint64_t wanted = 64 * (1 + below(random, 40));
          std::uint64_t room = had;
          const auto runs = model.free_runs();
          if (const auto behind = runs.find(offset + had); behind != runs.end()) room += behind->second;
          const auto resized = world.core().resize_span(slot, CoreWorld::kHeap, region, offset, wanted);
          ASSERT_TRUE(resized.ok());
          ASSERT_EQ(*resized, wanted <= room);
          if (*resized) which->second = wanted;
          if (wanted > had) freed.clear();
        } else {
          const std::uint32_t before =
              world.core().cache_of(slot, CoreWorld::kHeap) != nullptr ? world.cached(slot) : 0;
          world.must_free(slot, ptr);
          if (world.cached(slot) > before) freed[{slot, had}].push_back(offset);
          if (one_in(random, 8)) {  // which returns what is cached
            ASSERT_EQ(world.free_code(slot, ptr), EALREADY);
          }
          model.held.erase(which);
          // A span that was another thread's may have closed that one's cache, which flushes it.
          for (std::uint32_t other = 1; other <= kSlots; ++other) {
            if (other == slot || world.core().cache_of(other, CoreWorld::kHeap) == nullptr ||
                world.cached(other) != 0)
              continue;
            for (auto& [of, offsets] : freed) {
              if (of.first == other) offsets.clear();
            }
          }
        }
      }
      if (one_in(random, 50)) {
        ASSERT_EQ(world.breaches(kSlots + 1), "");
      }
      if (one_in(random, looks)) look();
      if (HasFatalFailure()) return;
    }
    for (const auto& [offset, length] : model.held) world.must_free(1, make_ptr(region, offset));
    ASSERT_EQ(world.leftovers(kSlots + 1), "");
  }
  EXPECT_GT(hits, 1000u);
}

// ---- one thread: not even the addresses tell ---------------------------------------------------------------

// Frees in any order but the reverse one, of two sizes: what comes next is placed as if nothing had been cached.
TEST(CoreExact, WhatWasFreedInAnotherOrderIsPlacedAnew) {
  ExactWorld world;
  world.add_region(16 * kKiB);
  world.begin(1);
  for (const std::uint64_t other : {64u, 1024u}) {
    const std::uint64_t a = world.must_allocate(1, 1024);
    const std::uint64_t b = world.must_allocate(1, other);
    world.must_free(1, a);
    world.must_free(1, b);
    EXPECT_EQ(world.cached(1), 0u);
    const std::uint64_t first = world.must_allocate(1, other);
    const std::uint64_t second = world.must_allocate(1, 1024);
    EXPECT_EQ(first + other, a + 1024);  // both from the high end downwards
    EXPECT_EQ(second + 1024, first);
    world.must_free(1, first);
    world.must_free(1, second);
  }
  // In the reverse order, but the first to come is not the one freed last.
  const std::uint64_t a = world.must_allocate(1, 64);
  const std::uint64_t b = world.must_allocate(1, 1024);
  world.must_free(1, b);
  world.must_free(1, a);
  EXPECT_EQ(world.cached(1), 2u);
  const std::uint64_t c = world.must_allocate(1, 1024);
  EXPECT_EQ(c + 1024, a + 64);
  world.must_free(1, c);
  EXPECT_EQ(world.leftovers(), "");
}

TEST(CoreExact, AlignedAndResizedSpansAreNotTakenForPlainOnes) {
  ExactWorld world;
  const std::uint32_t region = world.add_region(16 * kKiB);
  world.begin(1);
  const std::uint64_t top = world.must_allocate(1, 64);
  SpanRequest request;
  request.align = 4096;
  request.high_end = true;
  const auto aligned = world.allocate_span(1, 64, request, kHolderUntagged);
  ASSERT_TRUE(aligned.ok());
  world.must_free(1, *aligned);
  const std::uint64_t plain = world.must_allocate(1, 64);
  EXPECT_EQ(plain + 64, top);
  const std::uint64_t shrunk = world.must_allocate(1, 1024);
  const auto resized = world.core().resize_span(1, CoreWorld::kHeap, region, shrunk & kPlaceMask, 64);
  ASSERT_TRUE(resized.ok() && *resized);
  world.must_free(1, shrunk);
  const std::uint64_t again = world.must_allocate(1, 64);
  EXPECT_EQ(again + 64, plain);
  for (const std::uint64_t ptr : {top, plain, again}) world.must_free(1, ptr);
  EXPECT_EQ(world.leftovers(), "");
}

TEST(CoreExact, OneThreadsAllocationsAreAllPlacedAsWithoutCaches) {
  const std::uint64_t seed = seed_for(20260303);
  SCOPED_TRACE(replay_hint(seed));
  Random random(seed);
  constexpr std::uint64_t kBytes = 64 * kKiB;
  ExactWorld world;
  const std::uint32_t region = world.add_region(kBytes);
  test::ExactModel model(kBytes);
  std::vector<std::uint64_t> order;  // offsets, the latest last
  std::uint64_t hits = 0;
  world.begin(1);
  for (int step = 0; step < 40'000; ++step) {
    if (one_in(random, 2) || order.empty()) {
      const std::uint64_t length = 64 * (1 + below(random, one_in(random, 10) ? 100 : 3));
      bool hit = false;
      const auto got = world.allocate(1, length, kHolderUntagged, &hit);
      ASSERT_EQ(got.ok(), model.longest() >= length);
      if (!got.ok()) continue;
      const std::uint64_t offset = *got & kPlaceMask;
      ASSERT_TRUE(model.may_place(offset, length)) << "at step " << step;
      ASSERT_TRUE(model.held.emplace(offset, length).second);
      order.push_back(offset);
      hits += hit ? 1 : 0;
    } else {
      const std::size_t which = one_in(random, 5) ? below(random, order.size()) : order.size() - 1;
      world.must_free(1, make_ptr(region, order[which]));
      model.held.erase(order[which]);
      order.erase(order.begin() + static_cast<std::ptrdiff_t>(which));
    }
  }
  EXPECT_GT(hits, 1000u);
  for (const std::uint64_t offset : order) world.must_free(1, make_ptr(region, offset));
  EXPECT_EQ(world.leftovers(), "");
}

}  // namespace
}  // namespace extmem::alloc
