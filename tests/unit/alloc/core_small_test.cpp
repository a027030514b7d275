// Small objects on one thread, or on several whose turns the test decides.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "alloc/heap_guard.hpp"
#include "unit/alloc/core_world.hpp"
#include "unit/alloc/seed.hpp"

namespace extmem::alloc {
namespace {

using ::testing::Test;

TEST(CoreSmall, GivesDistinctAlignedObjectsOfEveryClass) {
  CoreWorld world;
  const std::uint32_t region = world.add_region(256 * kMiB);
  std::map<std::uint64_t, std::uint64_t> taken;  // offset -> end
  for (std::uint32_t cls = 0; cls < kClasses; ++cls) {
    const std::uint64_t size = kSizeClasses[cls].size;
    for (int i = 0; i < 200; ++i) {
      const std::uint64_t ptr = world.must_allocate(1, size);
      ASSERT_EQ(ptr >> 48, region);
      const std::uint64_t offset = ptr & ((std::uint64_t{1} << 48) - 1);
      const std::uint64_t natural = size & (~size + 1);
      ASSERT_TRUE(base::is_aligned(offset, std::min<std::uint64_t>(natural, kSlabAlign)));
      const auto next = taken.lower_bound(offset);
      ASSERT_TRUE(next == taken.end() || next->first >= offset + size);
      ASSERT_TRUE(next == taken.begin() || std::prev(next)->second <= offset);
      taken[offset] = offset + size;
    }
  }
  EXPECT_EQ(world.breaches(), "");
  for (const auto& [offset, end] : taken) world.must_free(1, make_ptr(region, offset));
  EXPECT_EQ(world.breaches(), "");
  EXPECT_EQ(world.leftovers(), "");
}

TEST(CoreSmall, RefusesASecondFreeEverywhereItMayLie) {
  CoreWorld world;
  world.add_region(16 * kMiB);
  const std::uint64_t ptr = world.must_allocate(1, 100);
  world.must_free(1, ptr);
  EXPECT_EQ(world.free_code(1, ptr), EALREADY);  // in the magazine
  EXPECT_EQ(world.free_code(2, ptr), EALREADY);  // in the magazine of another thread
  const std::uint64_t held = world.must_allocate(1, 100);
  world.flush(1);
  if (held != ptr) {
    EXPECT_EQ(world.free_code(1, ptr), EALREADY);  // free in its slab
  }
  world.must_free(1, held);
  EXPECT_EQ(world.leftovers(), "");
  EXPECT_EQ(world.free_code(1, ptr), EALREADY);  // its slab is gone
  EXPECT_EQ(world.breaches(), "");
}

TEST(CoreSmall, RefusesInteriorPointersAndTails) {
  CoreWorld world;
  const std::uint32_t region = world.add_region(16 * kMiB);
  const std::uint64_t ptr = world.must_allocate(1, 112);
  for (const std::uint64_t inside : {1u, 8u, 16u, 64u, 111u})
    EXPECT_EQ(world.free_code(1, ptr + inside), EINVAL);
  EXPECT_EQ(world.free_code(2, ptr + 16), EINVAL);  // by another thread
  const Slab& slab = world.core().slab(0);
  const std::uint64_t tail = slab.offset() + std::uint64_t{slab.objects} * slab.size();
  ASSERT_NE(tail % 4096, 0u);
  EXPECT_EQ(world.free_code(1, make_ptr(region, tail)), EINVAL);
  EXPECT_EQ(world.free_code(1, make_ptr(region, 8 * kMiB)), EALREADY);  // a free page
  world.must_free(1, ptr);
  EXPECT_EQ(world.leftovers(), "");
}

TEST(CoreSmall, AMemzonesMemoryIsFreedOnceItIsSomebodys) {
  CoreWorld world;
  world.add_region(16 * kMiB);
  const std::uint64_t small = world.must_allocate(1, 4096);
  const std::uint64_t big = world.must_allocate(1, 1 * kMiB);
  for (const std::uint64_t ptr : {small, big}) {
    const auto change = [&](std::uint16_t holder) {
      const HeapGuard guard(world.core(), 1, CoreWorld::kHeap);
      auto tx = world.core().transaction(1);
      world.core().set_holder_locked(tx, ptr, holder);
      tx.commit();
    };
    change(kHolderMemzone);
    EXPECT_EQ(world.free_code(1, ptr), EPERM);
    change(kHolderUntagged);
    world.must_free(1, ptr);
  }
  EXPECT_EQ(world.leftovers(), "");
}

TEST(CoreSmall, AFreeByAnotherThreadMakesTheSlabShared) {
  CoreWorld world;
  world.add_region(16 * kMiB);
  std::vector<std::uint64_t> objects;
  for (int i = 0; i < 300; ++i) objects.push_back(world.must_allocate(1, 256));
  ASSERT_EQ(world.core().slab(0).owner(), 1u);
  (void)world.cache(2);
  world.must_free(2, objects[0]);
  EXPECT_EQ(world.core().slab(0).owner(), 0u);
  EXPECT_EQ(world.heap().sharing[class_of(256)], 4u);
  EXPECT_EQ(world.breaches(), "");
  for (std::size_t i = 1; i < objects.size(); ++i) world.must_free(i % 3 == 0 ? 2 : 1, objects[i]);
  EXPECT_EQ(world.breaches(), "");
  EXPECT_EQ(world.leftovers(), "");
}

TEST(CoreSmall, ClassesWithManyRevocationsStartShared) {
  CoreWorld world;
  world.add_region(256 * kMiB);
  const std::uint32_t cls = class_of(32768);
  std::vector<std::uint64_t> objects;
  for (int i = 0; i < 400; ++i) {
    objects.push_back(world.must_allocate(1, 32768));
  }
  for (const std::uint64_t ptr : objects) world.must_free(2, ptr);
  EXPECT_GT(world.heap().sharing[cls], 16u);
  objects.clear();
  for (int i = 0; i < 400; ++i) objects.push_back(world.must_allocate(1, 32768));
  bool any_shared = false;
  for (std::uint32_t link = world.heap().all_slabs[cls]; link != 0;
       link = world.core().slab(link - 1).all_next) {
    any_shared |= world.core().slab(link - 1).owner() == 0;
  }
  EXPECT_TRUE(any_shared);
  EXPECT_EQ(world.breaches(), "");
  for (const std::uint64_t ptr : objects) world.must_free(1, ptr);
  EXPECT_EQ(world.leftovers(), "");
}

// Objects above 32 KiB: a few to a slab, whose pages behind the last object are given back.
TEST(CoreSmall, LargeClassesUseAllPagesOfTheirSlabs) {
  CoreWorld world;
  world.add_region(64 * kMiB);
  for (std::uint32_t cls = class_of(kLastingSize + 1); cls < kClasses; ++cls) {
    const std::uint64_t size = kSizeClasses[cls].size;
    const std::uint64_t ptr = world.must_allocate(1, size);
    const Slab& slab = world.core().slab(world.heap().all_slabs[cls] - 1);
    EXPECT_EQ(world.core().slab_pages(slab) * 4096, slab.objects * size) << size;
    EXPECT_EQ(world.free_code(1, ptr + 4096), EINVAL);
    world.must_free(1, ptr);
    EXPECT_EQ(world.free_code(1, ptr), EALREADY);
    EXPECT_EQ(world.must_allocate(1, size), ptr) << "it was cached";
    world.must_free(2, ptr);
    EXPECT_EQ(world.free_code(1, ptr), EALREADY);
  }
  EXPECT_EQ(world.leftovers(), "");
}

TEST(CoreSmall, LargeClassesAreSpansWhereNoSlabFits) {
  CoreWorld world;
  world.add_region(96 *
                   kKiB);  // shorter than a slab for the largest classes may be, and than an object of them
  EXPECT_EQ(world.allocate(1, 128 * kKiB).error().code(), ENOMEM);
  const std::uint64_t ptr = world.must_allocate(1, 96 * kKiB);
  EXPECT_EQ(world.allocate(1, 16).error().code(), ENOMEM);
  world.must_free(1, ptr);
  const std::uint64_t again = world.must_allocate(2, 96 * kKiB);  // what thread 1 caches of it is taken back
  world.must_free(2, again);
  EXPECT_EQ(world.leftovers(), "");
}

TEST(CoreSmall, WhatThreadsCacheOfLargeClassesIsBounded) {
  CoreWorld world;
  world.add_region(512 * kMiB);
  for (std::uint32_t cls = class_of(kLastingSize + 1); cls < kClasses; ++cls) {
    const std::uint64_t size = kSizeClasses[cls].size;
    std::vector<std::uint64_t> objects;
    for (int i = 0; i < 100; ++i) objects.push_back(world.must_allocate(1, size));
    for (const std::uint64_t ptr : objects) world.must_free(1, ptr);
    std::uint64_t kept = 0;
    for (std::uint32_t link = world.heap().all_slabs[cls]; link != 0;
         link = world.core().slab(link - 1).all_next) {
      kept += world.core().slab_pages(world.core().slab(link - 1)) * std::uint64_t{4096};
    }
    // A magazine's worth, whose objects may lie in a slab each, and a wholly free slab.
    EXPECT_LE(kept, (kSizeClasses[cls].capacity + 1) * std::uint64_t{kSizeClasses[cls].slab_bytes}) << size;
  }
  EXPECT_EQ(world.breaches(), "");
  EXPECT_EQ(world.leftovers(), "");
}

TEST(CoreSmall, TakesBackWhatASleepingThreadHasCached) {
  CoreWorld world;
  world.add_region(64 * kKiB);  // sixteen pages
  std::vector<std::uint64_t> objects;
  for (auto got = world.allocate(2, 1024); got.ok(); got = world.allocate(2, 1024)) objects.push_back(*got);
  EXPECT_EQ(objects.size(), 64u);
  for (const std::uint64_t ptr : objects)
    world.must_free(2, ptr);  // now all in the caches of slot 2, which sleeps
  EXPECT_EQ(world.breaches(), "");
  std::vector<std::uint64_t> again;
  for (auto got = world.allocate(1, 4096); got.ok(); got = world.allocate(1, 4096)) again.push_back(*got);
  EXPECT_EQ(again.size(), 16u);
  for (const std::uint64_t ptr : again) world.must_free(1, ptr);
  const auto all = world.allocate_span(3, 64 * kKiB);  // a span needs them back too
  ASSERT_TRUE(all.ok());
  world.must_free(3, *all);
  EXPECT_EQ(world.leftovers(), "");
}

TEST(CoreSmall, TakesEveryPageBeforeItSaysNoMemory) {
  for (const std::uint64_t size : {16u, 48u, 1000u, 4096u, 5000u, 32768u}) {
    CoreWorld world;
    world.add_region(256 * kKiB);
    std::set<std::uint64_t> objects;
    auto got = world.allocate(1, size);
    for (; got.ok(); got = world.allocate(1, size)) ASSERT_TRUE(objects.insert(*got).second);
    EXPECT_EQ(got.error().code(), ENOMEM);
    const std::uint64_t rounded = kSizeClasses[class_of(size)].size;
    EXPECT_GE(objects.size() * rounded, 256 * kKiB / 2) << size;
    EXPECT_EQ(world.breaches(), "");
    for (const std::uint64_t ptr : objects) world.must_free(1, ptr);
    EXPECT_EQ(world.leftovers(), "");
  }
}

TEST(CoreSmall, WithoutASlabRegionAsksForASpan) {
  CoreWorld world;
  world.add_region(8 * kKiB, 6, {.flags = kRegionUsed | kRegionCpu});
  const auto small = world.core().allocate_small(1, world.cache(1), class_of(64), kHolderUntagged);
  ASSERT_FALSE(small.ok());
  EXPECT_EQ(small.error().code(), ENOTBLK);
  std::vector<std::uint64_t> objects;
  for (auto got = world.allocate(1, 64); got.ok(); got = world.allocate(1, 64)) objects.push_back(*got);
  EXPECT_EQ(objects.size(), 128u);
  for (const std::uint64_t ptr : objects) world.must_free(2, ptr);
  EXPECT_EQ(world.leftovers(), "");
}

TEST(CoreSmall, SaysSoWhenTheMetadataIsFull) {
  shared::Geometry geometry = small_geometry();
  geometry.small_bytes = 64 * kKiB;
  CoreWorld world(geometry);
  world.add_region(64 * kMiB);
  std::vector<std::uint64_t> objects;
  auto got = world.allocate(1, 16);
  for (; got.ok(); got = world.allocate(1, 16)) objects.push_back(*got);
  EXPECT_EQ(got.error().code(), ENOSPC);
  EXPECT_GT(objects.size(), 64 * kKiB / 4);
  EXPECT_EQ(world.breaches(), "");
  for (const std::uint64_t ptr : objects) world.must_free(1, ptr);
  EXPECT_EQ(world.leftovers(), "");
  world.must_free(1, world.must_allocate(1, 16));
}

TEST(CoreSmall, SaysSoWhenTheSlabRecordsAreUsedUp) {
  shared::Geometry geometry = small_geometry();
  geometry.max_slabs = 3;
  CoreWorld world(geometry);
  world.add_region(64 * kMiB);
  std::vector<std::uint64_t> objects;
  auto got = world.allocate(1, 32768);
  for (; got.ok(); got = world.allocate(1, 32768)) objects.push_back(*got);
  EXPECT_EQ(got.error().code(), ENOSPC);
  EXPECT_FALSE(objects.empty());
  for (const std::uint64_t ptr : objects) world.must_free(1, ptr);
  EXPECT_EQ(world.allocate(1, 16).error().code(), 0);  // the empty slabs were taken back for it
  EXPECT_EQ(world.breaches(), "");
}

TEST(CoreSmall, SaysSoWhenTheCachesAreUsedUp) {
  shared::Geometry geometry = small_geometry();
  geometry.max_caches = 2;
  CoreWorld world(geometry);
  ASSERT_TRUE(world.core().make_cache(1, 0).ok());
  ASSERT_TRUE(world.core().make_cache(1, 1).ok());
  const auto third = world.core().make_cache(2, 1);
  ASSERT_FALSE(third.ok());
  EXPECT_EQ(third.error().code(), ENOSPC);
  world.core().drop_cache(1, world.cache(1, 0));
  EXPECT_TRUE(world.core().make_cache(2, 1).ok());
  EXPECT_EQ(world.core().cache_of(1, 0), nullptr);
}

TEST(CoreSmall, SlabsOfBigPagesUseOnlyWhatTheyCanName) {
  for (const unsigned shift : {13u, 16u, 20u}) {
    CoreWorld world;
    world.add_region(64 * kMiB, shift);
    std::set<std::uint64_t> objects;
    for (const std::uint64_t size : {16u, 48u, 1024u, 5000u, 32768u}) {
      for (int i = 0; i < 700; ++i) {
        const auto got = world.allocate(1, size);
        if (!got.ok()) break;
        ASSERT_TRUE(objects.insert(*got).second);
      }
    }
    EXPECT_EQ(world.breaches(), "") << shift;
    for (const std::uint64_t ptr : objects) ASSERT_EQ(world.free_code(1, ptr + 8), EINVAL);
    for (const std::uint64_t ptr : objects) world.must_free(1, ptr);
    EXPECT_EQ(world.leftovers(), "") << shift;
  }
}

// A 64-byte page leaves room for 4 KiB of slab at most: larger classes must not overflow the undo journal.
TEST(CoreSmall, TinyPagesTakeSlabsOnlyOfClassesThatFit) {
  CoreWorld world;
  world.add_region(4 * kMiB, 6);
  std::vector<std::uint64_t> objects;
  for (const SizeClass& cls : kSizeClasses) {
    objects.push_back(world.must_allocate(1, cls.size));
    ASSERT_EQ(world.core().slot(2).owner.load(), 0u)
        << "the journal of slot 1 overflowed at size " << cls.size;
  }
  EXPECT_EQ(world.breaches(), "");
  for (const std::uint64_t ptr : objects) world.must_free(1, ptr);
  EXPECT_EQ(world.leftovers(), "");
}

TEST(CoreSmall, ADroppedCacheLeavesNothingBehind) {
  CoreWorld world;
  world.add_region(16 * kMiB);
  std::vector<std::uint64_t> objects;
  for (int i = 0; i < 1000; ++i) objects.push_back(world.must_allocate(5, 16 + std::uint64_t(i) % 200));
  for (int i = 0; i < 1000; i += 2) world.must_free(5, objects[std::size_t(i)]);
  world.core().drop_cache(5, world.cache(5));
  EXPECT_EQ(world.heap().caches, 0u);
  EXPECT_EQ(world.breaches(), "");
  // The slot's next thread owns slabs without a free object as they are.
  for (int i = 1; i < 500; i += 2) world.must_free(5, objects[std::size_t(i)]);
  EXPECT_EQ(world.breaches(), "");
  for (int i = 501; i < 1000; i += 2) world.must_free(6, objects[std::size_t(i)]);
  EXPECT_EQ(world.breaches(), "");
  EXPECT_EQ(world.leftovers(), "");
}

TEST(CoreSmall, ThreadsThatComeAndGoUseTheSamePages) {
  CoreWorld world;
  world.add_region(64 * kMiB);
  Random random(7);
  std::set<std::uint64_t> pages;
  std::size_t at_first = 0;
  for (int round = 0; round < 40; ++round) {
    std::vector<std::pair<std::uint32_t, std::uint64_t>> objects;
    for (int i = 0; i < 400; ++i) {  // four at once
      const std::uint32_t slot = 1 + static_cast<std::uint32_t>(i) % 4;
      const std::uint64_t size = 16 + below(random, 2000);
      const std::uint64_t ptr = world.must_allocate(slot, size);
      for (std::uint64_t at = ptr >> 12; at <= (ptr + size - 1) >> 12; ++at) pages.insert(at);
      objects.emplace_back(slot, ptr);
    }
    for (const auto& [slot, ptr] : objects) world.must_free(slot, ptr);
    for (std::uint32_t slot = 1; slot <= 4; ++slot) world.core().drop_cache(slot, world.cache(slot));
    if (round == 0) at_first = pages.size();
  }
  EXPECT_LT(pages.size(), at_first * 2);
  EXPECT_EQ(world.breaches(), "");
  EXPECT_EQ(world.leftovers(), "");
}

// A heap is destroyed by one thread while another is about to use its cache: the record must not become a third's.
TEST(CoreSmall, ACacheThatAnotherThreadDropsStaysWithItsSlot) {
  shared::Geometry geometry = small_geometry();
  geometry.max_caches = 2;
  CoreWorld world(geometry);
  ThreadCache& cache = world.cache(5);
  const auto destroy = [&](std::uint32_t slot) {
    const shared::LockGuard guard(world.heap().lock, slot, false);
    (void)world.core().pause_all(slot, world.heap());
    EXPECT_TRUE(world.core().drop_caches_paused(slot, CoreWorld::kHeap));
  };
  destroy(1);
  EXPECT_EQ(world.heap().caches, 0u);
  EXPECT_EQ(world.core().cache_of(5, CoreWorld::kHeap), nullptr);
  // What slot 5 was about to do with it does no harm.
  EXPECT_EQ(Core::pop(world.core().fast_tables(), cache, magazine_of_last(63)), 0u);
  EXPECT_EQ(world.core().allocate_small(5, cache, 3, kHolderUntagged).error().code(), ESTALE);
  EXPECT_EQ(world.core().allocate_small(5, cache, 3, kFirstTagHolder).error().code(), ESTALE);
  EXPECT_EQ(world.core().find_tag_locked(world.heap(), kFirstTagHolder), nullptr);
  // Others get other records; slot 5 its own, again and again.
  ASSERT_TRUE(world.core().make_cache(6, 1).ok());
  EXPECT_EQ(world.core().make_cache(7, 1).error().code(), ENOSPC);
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(&world.cache(5), &cache);
    destroy(6);
  }
  EXPECT_TRUE(world.core().drop_spare_caches(5, 5));
  EXPECT_NE(world.core().make_cache(7, 1).value_or(nullptr), nullptr);
  EXPECT_EQ(world.core().make_cache(5, 1).error().code(), ENOSPC);
}

TEST(CoreSmall, InsideAWalkItRefusesInsteadOfHanging) {
  CoreWorld world;
  world.add_region(16 * kMiB);
  std::vector<std::uint64_t> objects;
  const std::uint32_t capacity = kSizeClasses[class_of(1024)].capacity;
  for (std::uint32_t i = 0; i < 4 * capacity; ++i) objects.push_back(world.must_allocate(3, 1024));
  (void)world.cache(1);
  (void)world.cache(2);
  world.must_free(2, objects[0]);  // every slab of the class becomes shared
  for (std::uint32_t i = 1; i < objects.size(); i += 40) world.must_free(2, objects[i]);
  world.flush(3);
  std::vector<std::uint64_t> held;
  for (std::uint32_t i = 0; i < objects.size(); ++i) {
    if (i != 0 && i % 40 != 1) held.push_back(objects[i]);
  }
  int refused = 0;
  {
    const shared::LockGuard walking(world.heap().lock, 1, false);
    for (const std::uint64_t ptr : held) {
      const int code = world.free_code(1, ptr);
      ASSERT_TRUE(code == 0 || code == EDEADLK) << code;
      refused += code == EDEADLK;
    }
    EXPECT_GT(refused, 0);
    EXPECT_EQ(world.allocate(1, 5000).error().code(), EDEADLK);
    EXPECT_EQ(world.allocate_span(1, 100'000).error().code(), EDEADLK);
  }
  for (const std::uint64_t ptr : held) {
    const int code = world.free_code(1, ptr);
    ASSERT_TRUE(code == 0 || code == EALREADY);
  }
  EXPECT_EQ(world.leftovers(), "");
}

TEST(CoreSmall, RandomUseByFourSlotsKeepsEveryInvariant) {
  const std::uint64_t seed = seed_for(11);
  SCOPED_TRACE(replay_hint(seed));
  Random random(seed);
  for (const bool membarrier : {true, false}) {
    CoreWorld world(small_geometry(), membarrier);
    world.add_region(4 * kMiB);
    world.add_region(1 * kMiB, 6, {.flags = kRegionUsed | kRegionCpu});
    world.add_region(32 * kMiB, 16);
    std::vector<std::uint64_t> objects;
    for (int step = 0; step < 30'000; ++step) {
      const auto slot = static_cast<std::uint32_t>(1 + below(random, 4));
      const bool filling = step / 3000 % 2 == 0;
      if (objects.empty() || below(random, 10) < (filling ? 6u : 4u)) {
        const std::uint64_t most = one_in(random, 50) ? 2 * kMiB : one_in(random, 5) ? kMaxClassSize : 600;
        const auto got = world.allocate(slot, 1 + below(random, most));
        if (got.ok()) {
          objects.push_back(*got);
        } else {
          ASSERT_EQ(got.error().code(), ENOMEM);
        }
      } else {
        std::swap(objects[below(random, objects.size())], objects.back());
        const std::uint64_t ptr = objects.back();
        objects.pop_back();
        ASSERT_EQ(world.free_code(slot, ptr), 0);
        if (one_in(random, 16)) {
          ASSERT_EQ(world.free_code(static_cast<std::uint32_t>(1 + below(random, 4)), ptr), EALREADY);
        }
      }
      if (one_in(random, 500)) world.core().drop_cache(slot, world.cache(slot));
      if (one_in(random, 500)) world.flush(slot, one_in(random, 2));
      if (step % 500 == 0) {
        ASSERT_EQ(world.breaches(), "") << "step " << step;
      }
    }
    for (const std::uint64_t ptr : objects) ASSERT_EQ(world.free_code(2, ptr), 0);
    EXPECT_EQ(world.leftovers(), "");
  }
}

}  // namespace
}  // namespace extmem::alloc
