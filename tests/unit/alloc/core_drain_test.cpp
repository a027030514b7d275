// Draining: no new allocation in the region, nothing of it cached, frees go straight back.
#include <gtest/gtest.h>

#include "unit/alloc/core_world.hpp"
#include "unit/alloc/seed.hpp"

namespace extmem::alloc {
namespace {

constexpr std::uint32_t region_of(std::uint64_t ptr) { return static_cast<std::uint32_t>(ptr >> 48); }

TEST(CoreDrain, EmptiesTheRegionAsObjectsAreFreed) {
  CoreWorld world;
  const std::uint32_t region = world.add_region(32 * kMiB);
  std::vector<std::uint64_t> held;
  for (int i = 0; i < 600; ++i)
    held.push_back(world.must_allocate(1 + std::uint32_t(i) % 3, 16 + std::uint64_t(i) * 7 % 9000));
  for (int i = 0; i < 3; ++i) held.push_back(world.must_allocate(1, 500'000));
  for (int i = 0; i < 600; i += 2)
    world.must_free(1 + std::uint32_t(i) % 3, held[std::size_t(i)]);  // some are cached now
  const std::uint32_t other = world.add_region(8 * kMiB);
  world.set_draining(region, true);
  EXPECT_EQ(world.breaches(), "");
  for (int i = 0; i < 300; ++i) EXPECT_EQ(region_of(world.must_allocate(2, 64)), other);
  EXPECT_EQ(region_of(world.must_allocate(2, 100'000)), other);
  for (std::size_t i = 0; i < held.size(); ++i) {
    if (i < 600 && i % 2 == 0) continue;
    const std::uint32_t before = world.core().region(region).drained.load();
    world.must_free(1 + std::uint32_t(i) % 4, held[i]);
    EXPECT_NE(world.core().region(region).drained.load(), before);
    EXPECT_EQ(world.free_code(3, held[i]), EALREADY);
  }
  const shared::LockGuard guard(world.heap().lock, 1, false);
  EXPECT_TRUE(world.core().region_empty_locked(region));
}

TEST(CoreDrain, CanBeTakenBack) {
  CoreWorld world;
  const std::uint32_t region = world.add_region(8 * kMiB);
  std::vector<std::uint64_t> held;
  for (int i = 0; i < 500; ++i) held.push_back(world.must_allocate(1, 100));
  for (int i = 0; i < 100; ++i) world.must_free(1, held[std::size_t(i)]);
  world.set_draining(region, true);
  EXPECT_EQ(world.allocate(1, 100).error().code(), ENOMEM);
  EXPECT_EQ(world.allocate(1, 100'000).error().code(), ENOMEM);
  const auto grown = world.core().resize_span(1, CoreWorld::kHeap, region, 0, 1);
  EXPECT_FALSE(grown.ok());
  for (int i = 100; i < 200; ++i) world.must_free(2, held[std::size_t(i)]);
  world.set_draining(region, false);
  EXPECT_EQ(world.breaches(), "");
  for (int i = 0; i < 200; ++i) held[std::size_t(i)] = world.must_allocate(2, 100);
  EXPECT_EQ(world.heap().slab_count, 1u);  // the free objects of the slab serve again
  for (const std::uint64_t ptr : held) world.must_free(1, ptr);
  EXPECT_EQ(world.leftovers(), "");
}

TEST(CoreDrain, TwiceIsLikeOnceAndTakingBackWhatDoesNotDrainDoesNothing) {
  CoreWorld world;
  const std::uint32_t region = world.add_region(8 * kMiB);
  const std::uint64_t held = world.must_allocate(1, 100);
  world.must_free(1, world.must_allocate(1, 5000));
  world.flush(2);
  world.set_draining(region, false);
  EXPECT_EQ(world.breaches(), "");
  world.set_draining(region, true);
  world.set_draining(region, true);
  EXPECT_EQ(world.breaches(), "");
  world.set_draining(region, false);
  world.set_draining(region, false);
  EXPECT_EQ(world.breaches(), "");
  world.must_free(1, held);
  EXPECT_EQ(world.leftovers(), "");
}

TEST(CoreDrain, LeavesAWhollyFreeSlabOfItsOwnerCounted) {
  CoreWorld world;
  const std::uint32_t region = world.add_region(8 * kMiB);
  std::vector<std::uint64_t> held;
  for (int i = 0; i < 3000; ++i) held.push_back(world.must_allocate(1, 1024));
  for (const std::uint64_t ptr : held) world.must_free(1, ptr);  // some slabs are wholly free and kept
  ASSERT_GT(world.cache(1).empty[class_of(1024)], 0u);
  world.set_draining(region, false);
  EXPECT_EQ(world.breaches(), "");
  EXPECT_EQ(world.leftovers(), "");
}

TEST(CoreDrain, RandomUseAroundIt) {
  const std::uint64_t seed = seed_for(17);
  SCOPED_TRACE(replay_hint(seed));
  Random random(seed);
  CoreWorld world;
  std::vector<std::uint32_t> regions;
  for (int i = 0; i < 3; ++i) regions.push_back(world.add_region(2 * kMiB));
  std::vector<bool> draining(regions.size());
  std::vector<std::uint64_t> held;
  for (int step = 0; step < 15'000; ++step) {
    const auto slot = static_cast<std::uint32_t>(1 + below(random, 3));
    if (one_in(random, 100)) {
      const std::size_t which = below(random, regions.size());
      draining[which] = !draining[which];
      world.set_draining(regions[which], draining[which], slot);
      ASSERT_EQ(world.breaches(), "") << step;
    } else if (held.empty() || one_in(random, 2)) {
      const auto got = world.allocate(slot, 1 + below(random, one_in(random, 10) ? 40'000 : 2000));
      if (!got.ok()) {
        ASSERT_EQ(got.error().code(), ENOMEM);
        continue;
      }
      for (std::size_t i = 0; i < regions.size(); ++i) {
        ASSERT_TRUE(region_of(*got) != regions[i] || !draining[i]) << "an allocation in a draining region";
      }
      held.push_back(*got);
    } else {
      std::swap(held[below(random, held.size())], held.back());
      world.must_free(slot, held.back());
      if (one_in(random, 8)) {
        ASSERT_EQ(world.free_code(slot, held.back()), EALREADY);
      }
      held.pop_back();
    }
  }
  for (std::size_t i = 0; i < regions.size(); ++i) {
    if (draining[i]) world.set_draining(regions[i], false);
  }
  for (const std::uint64_t ptr : held) world.must_free(1, ptr);
  EXPECT_EQ(world.leftovers(), "");
}

}  // namespace
}  // namespace extmem::alloc
