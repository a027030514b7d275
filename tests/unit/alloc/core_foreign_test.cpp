// Objects of slabs that another thread keeps: they are not handed out by who freed them, and find back to their keeper.
#include <gtest/gtest.h>

#include <atomic>
#include <barrier>
#include <set>

#include "unit/alloc/core_world.hpp"
#include "unit/alloc/on_slots.hpp"
#include "unit/alloc/racing_frees.hpp"

namespace extmem::alloc {
namespace {

constexpr std::uint64_t kLine = 64;

Slab& slab_of(CoreWorld& world, std::uint64_t ptr) {
  const auto region = static_cast<std::uint32_t>(ptr >> 48);
  const std::uint64_t offset = ptr & ((std::uint64_t{1} << 48) - 1);
  const std::uint32_t shift = world.core().region(region).pages.page_shift;
  return world.core().slab(
      world.core().pages(region).desc(static_cast<std::uint32_t>(offset >> shift)).slab());
}

std::uint32_t kept_by(CoreWorld& world, std::uint32_t slot, std::uint32_t cls) {
  std::uint32_t count = 0;
  for (std::uint32_t link = world.heap().all_slabs[cls]; link != 0;
       link = world.core().slab(link - 1).all_next)
    count += world.core().slab(link - 1).keeper == slot;
  return count;
}

// What made threads write into one cache line: "passive false sharing" (Berger et al., Hoard, 2000).
TEST(CoreForeign, AFreedNeighbourIsNotHandedOutByWhoFreedIt) {
  CoreWorld world;
  world.add_region(256 * kMiB);
  for (std::uint32_t cls = 0; kSizeClasses[cls].outbox != 0; ++cls) {
    const std::uint64_t size = kSizeClasses[cls].size;
    SCOPED_TRACE(size);
    std::vector<std::uint64_t> objects;
    for (int i = 0; i < 10; ++i) objects.push_back(world.must_allocate(1, size));
    std::set<std::uint64_t> lines;
    for (const std::uint64_t ptr : objects) {
      for (std::uint64_t at = 0; at < size; at += 16) lines.insert((ptr + at) / kLine);
    }
    for (int i = 0; i < 10; i += 2) {  // the first revokes, the others are shared frees
      world.must_free(2, objects[std::size_t(i)]);
      std::vector<std::uint64_t> mine;
      for (int k = 0; k < 8; ++k) mine.push_back(world.must_allocate(2, size));
      for (const std::uint64_t ptr : mine) {
        EXPECT_FALSE(lines.contains(ptr / kLine));
        EXPECT_FALSE(lines.contains((ptr + size - 1) / kLine));
        EXPECT_EQ(slab_of(world, ptr).keeper, 2);
        world.must_free(2, ptr);
      }
    }
    for (int i = 1; i < 10; i += 2) world.must_free(1, objects[std::size_t(i)]);
    EXPECT_EQ(world.breaches(), "");
  }
  EXPECT_EQ(world.leftovers(), "");
}

TEST(CoreForeign, WhatOthersReturnServesTheKeeperAgain) {
  CoreWorld world;
  world.add_region(64 * kMiB);
  const std::uint32_t cls = class_of(256);
  std::set<std::uint64_t> first;
  for (int i = 0; i < 1000; ++i) first.insert(world.must_allocate(1, 256));
  const std::uint32_t slabs = world.heap().slab_count;
  for (int round = 0; round < 20; ++round) {
    for (const std::uint64_t ptr : first) world.must_free(2, ptr);
    EXPECT_NE(world.cache(1).returned[cls], 0u) << "without a word to the keeper";
    EXPECT_EQ(world.breaches(), "");
    first.clear();
    for (int i = 0; i < 1000; ++i) first.insert(world.must_allocate(1, 256));
    EXPECT_LE(world.heap().slab_count, slabs + 1u);
    EXPECT_EQ(world.breaches(), "");
  }
  EXPECT_EQ(first.size(), 1000u);
  for (const std::uint64_t ptr : first) {
    EXPECT_NE(world.free_code(2, ptr + 16), 0);
    world.must_free(2, ptr);
    EXPECT_EQ(world.free_code(2, ptr), EALREADY);
    EXPECT_EQ(world.free_code(1, ptr), EALREADY);
  }
  EXPECT_EQ(world.leftovers(), "");
}

TEST(CoreForeign, ASleepingKeeperPinsAFewSlabsOnly) {
  CoreWorld world;
  world.add_region(64 * kMiB);
  std::vector<std::uint64_t> objects;
  for (int i = 0; i < 20'000; ++i) objects.push_back(world.must_allocate(1, 512));
  const std::uint32_t most = world.heap().slab_count;
  ASSERT_GT(most, 100u);
  for (const std::uint64_t ptr : objects) world.must_free(2, ptr);
  EXPECT_LE(world.heap().slab_count, 20u) << "a thread's 512 KiB, and what the others are about to return";
  EXPECT_EQ(world.breaches(), "");
  EXPECT_EQ(world.leftovers(), "");
}

TEST(CoreForeign, WhatAThreadLeavesIsKeptByTheNextOne) {
  CoreWorld world;
  world.add_region(64 * kMiB);
  const std::uint32_t cls = class_of(64);
  const std::uint64_t held = world.must_allocate(1, 64);
  ASSERT_TRUE(world.core().drop_cache(1, world.cache(1)));
  Slab& slab = slab_of(world, held);
  EXPECT_EQ(slab.keeper, 0);
  const std::uint64_t next = world.must_allocate(2, 64);
  EXPECT_EQ(&slab_of(world, next), &slab);
  EXPECT_EQ(slab.keeper, 2);
  EXPECT_EQ(slab.owner(), 0u) << "somebody else may free what is held";
  const std::uint64_t other = world.must_allocate(3, 64);
  EXPECT_NE(&slab_of(world, other), &slab) << "one thread at a time";
  world.must_free(3, held);
  world.must_free(3, next);
  world.must_free(3, other);
  EXPECT_EQ(kept_by(world, 2, cls), 1u);
  EXPECT_EQ(world.breaches(), "");
  EXPECT_EQ(world.leftovers(), "");
}

// An object that is returned when its slab's keeper has gone, and had no free object then.
TEST(CoreForeign, AFullSlabOfAThreadThatLeftIsNobodys) {
  CoreWorld world;
  world.add_region(64 * kMiB);
  std::vector<std::uint64_t> objects;
  const std::uint32_t in_slab = 65536 / 1024;
  for (std::uint32_t i = 0; i < in_slab; ++i) objects.push_back(world.must_allocate(1, 1024));
  Slab& slab = slab_of(world, objects[0]);
  ASSERT_EQ(slab.free, 0);
  ASSERT_TRUE(world.core().drop_cache(1, world.cache(1)));
  for (std::size_t i = 0; i <= in_slab / 2; ++i) world.must_free(2, objects[i]);
  EXPECT_EQ(slab.keeper, 0);
  EXPECT_EQ(world.breaches(2), "");
  for (std::size_t i = in_slab / 2 + 1; i < in_slab; ++i) world.must_free(2, objects[i]);
  EXPECT_EQ(world.leftovers(2), "");
}

TEST(CoreForeign, AThreadThatFreesItsOwnObjectsOwnsTheSlabAgain) {
  CoreWorld world;
  world.add_region(64 * kMiB);
  const std::uint32_t cls = class_of(64);
  std::uint64_t mine = world.must_allocate(1, 64);
  const auto pairs_until_owned = [&] {
    const std::uint64_t theirs = world.must_allocate(1, 64);
    world.must_free(2, theirs);
    EXPECT_EQ(slab_of(world, mine).owner(), 0u);
    EXPECT_EQ(slab_of(world, mine).keeper, 1u);
    int pairs = 0;
    for (; slab_of(world, mine).owner() == 0 && pairs < 100'000; ++pairs) {
      world.must_free(1, mine);
      mine = world.must_allocate(1, 64);
    }
    EXPECT_EQ(slab_of(world, mine).owner(), 1u);
    EXPECT_EQ(world.breaches(), "");
    return pairs;
  };
  const int first = pairs_until_owned();
  EXPECT_GT(first, 50);
  EXPECT_LT(first, 1000);
  // Each time that this was too early it waits longer, up to a limit.
  const int second = pairs_until_owned();
  EXPECT_GE(second, 2 * (first - 1));
  int last = second;
  for (int i = 0; i < 20; ++i) last = pairs_until_owned();
  EXPECT_LE(last, kMostPatience + 2);
  EXPECT_EQ(world.cache(1).whole_patience[cls], kMostPatience);
  world.must_free(1, mine);
  EXPECT_EQ(world.leftovers(), "");
}

// An object that waits in an outbox while its slab becomes its keeper's again.
TEST(CoreForeign, AnOutboxMayHoldObjectsOfAnOwnedSlab) {
  CoreWorld world;
  world.add_region(64 * kMiB);
  std::vector<std::uint64_t> theirs;
  for (int i = 0; i < 10; ++i) theirs.push_back(world.must_allocate(1, 64));
  std::uint64_t mine = world.must_allocate(1, 64);
  for (const std::uint64_t ptr : theirs) world.must_free(2, ptr);
  while (slab_of(world, mine).owner() == 0) {
    world.must_free(1, mine);
    mine = world.must_allocate(1, 64);
  }
  EXPECT_EQ(world.breaches(), "");
  for (const std::uint64_t ptr : theirs) {
    EXPECT_EQ(world.free_code(1, ptr), EALREADY);
    EXPECT_EQ(world.free_code(2, ptr), EALREADY);
  }
  ASSERT_TRUE(world.core().drop_cache(2, world.cache(2)));
  EXPECT_EQ(world.breaches(), "");
  world.must_free(1, mine);
  EXPECT_EQ(world.leftovers(), "");
}

// Where memory is short slabs are not kept: else a few would go from thread to thread, by way of flushes of all caches.
TEST(CoreForeign, ThreadsShareTheLastSlab) {
  CoreWorld world;
  world.add_region(1 * kMiB);
  const std::uint32_t cls = class_of(64);
  std::vector<std::uint64_t> filler;
  std::uint64_t shared = world.must_allocate(1, 64);
  for (;;) {
    auto span = world.allocate_span(1, 4096);
    if (!span) break;
    filler.push_back(*span);
  }
  // The heap's flushes have made it nobody's.
  std::vector<std::uint64_t> objects;
  std::uint32_t kept = 0;
  for (std::uint32_t i = 0; i < 300; ++i) {
    auto got = world.allocate(1 + i % 3, 64);
    if (!got) break;
    objects.push_back(*got);
    kept += i > 10 && kept_by(world, 1, cls) + kept_by(world, 2, cls) + kept_by(world, 3, cls) != 0;
  }
  EXPECT_EQ(objects.size(), 300u);
  EXPECT_EQ(kept, 0u);
  EXPECT_EQ(world.breaches(), "");
  world.must_free(1, shared);
  for (const std::uint64_t ptr : objects) world.must_free(2, ptr);
  for (const std::uint64_t ptr : filler) world.must_free(1, ptr);
  EXPECT_EQ(world.leftovers(), "");
}

class CoreForeignThreads
    : public ::testing::TestWithParam<bool> {  // with membarrier, or with the owners' own fences
 protected:
  CoreWorld world_{small_geometry(), GetParam()};
};
INSTANTIATE_TEST_SUITE_P(Fences, CoreForeignThreads, ::testing::Bool(),
                         [](const auto& test) { return test.param ? "Membarrier" : "OwnFences"; });

// A keeper that is never patient makes the slab its own again and again while others free the same objects.
TEST_P(CoreForeignThreads, OfRacingFreesExactlyOneSucceedsWhileTheSlabIsOwnedAgain) {
  world_.add_region(64 * kMiB);
  for (std::uint32_t slot = 1; slot <= 3; ++slot) (void)world_.cache(slot);
  constexpr int kRounds = 400;
  constexpr std::size_t kObjects = 48;
  RacingFrees race(kObjects);
  // Nothing is allocated during a race: it might be what was freed in it.
  std::vector<std::uint64_t> own(kObjects);
  const std::uint32_t cls = class_of(64);
  std::barrier sync(3);
  on_slots(3, [&](std::uint32_t slot) {
    for (int round = 0; round < kRounds; ++round) {
      if (slot == 1) {
        for (std::size_t i = 0; i < kObjects; ++i) {
          race.objects[i] = world_.must_allocate(1, 64);
          own[i] = world_.must_allocate(1, 64);
        }
        race.begin();
      }
      sync.arrive_and_wait();
      for (std::size_t i = 0; i < kObjects; ++i) {
        if (slot == 1) {
          world_.cache(1).patience[cls] = 0;
          world_.must_free(1, own[i]);
        }
        race.free(world_, slot, slot == 2 ? kObjects - 1 - i : i);
      }
      sync.arrive_and_wait();
      if (slot == 1) {
        race.expect_each_once();
        EXPECT_EQ(world_.breaches(1), "");
      }
      sync.arrive_and_wait();
      if (::testing::Test::HasFailure()) return;
    }
  });
  EXPECT_EQ(world_.leftovers(), "");
}

// Two threads pass objects to each other, and each keeps some: what the one returns the other takes back, meanwhile.
TEST_P(CoreForeignThreads, ObjectsGoToAndFro) {
  world_.add_region(64 * kMiB);
  (void)world_.cache(1);
  (void)world_.cache(2);
  constexpr std::size_t kRing = 256;
  constexpr int kItems = 40'000;
  struct Way {
    std::vector<std::atomic<std::uint64_t>> ring = std::vector<std::atomic<std::uint64_t>>(kRing);
  };
  Way ways[2];
  std::atomic<int> wrong{0};
  on_slots(2, [&](std::uint32_t slot) {
    auto& to = ways[slot - 1].ring;
    auto& from = ways[2 - slot].ring;
    std::vector<std::uint64_t> own;
    for (int i = 0; i < kItems; ++i) {
      auto& place = to[static_cast<std::size_t>(i) % kRing];
      if (place.load(std::memory_order_acquire) == 0)
        place.store(world_.must_allocate(slot, 16 + static_cast<std::uint64_t>(i * 7) % 300),
                    std::memory_order_release);
      own.push_back(world_.must_allocate(slot, 64));
      if (own.size() > 100) {
        for (const std::uint64_t ptr : own) wrong += world_.free_code(slot, ptr) != 0;
        own.clear();
      }
      const std::uint64_t got =
          from[static_cast<std::size_t>(i) % kRing].exchange(0, std::memory_order_acq_rel);
      if (got != 0) wrong += world_.free_code(slot, got) != 0;
      if (slot == 1 && i % 5000 == 0) {
        EXPECT_EQ(world_.breaches(1), "");
      }
    }
    for (const std::uint64_t ptr : own) wrong += world_.free_code(slot, ptr) != 0;
  });
  for (auto& way : ways) {
    for (auto& place : way.ring) {
      if (place != 0) world_.must_free(1, place);
    }
  }
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(world_.breaches(), "");
  EXPECT_EQ(world_.leftovers(), "");
}

}  // namespace
}  // namespace extmem::alloc
