// Tags: live bytes and counts per holder, exact when nothing is in flight.
#include <gtest/gtest.h>

#include <map>

#include "unit/alloc/core_world.hpp"
#include "unit/alloc/seed.hpp"

namespace extmem::alloc {
namespace {

TEST(CoreTags, CountObjectsAndSpans) {
  CoreWorld world;
  world.add_region(64 * kMiB);
  const std::uint16_t tag = kFirstTagHolder + 5;
  std::vector<std::uint64_t> held;
  for (int i = 0; i < 100; ++i) held.push_back(world.must_allocate(1, 100, tag));  // 112 bytes each
  for (int i = 0; i < 3; ++i) held.push_back(world.must_allocate(1, 1 * kMiB, tag));
  EXPECT_EQ(world.tag_counts(tag).bytes, static_cast<std::int64_t>(100 * 112 + 3 * kMiB));
  EXPECT_EQ(world.tag_counts(tag).count, 103);
  for (const std::uint64_t ptr : held) world.must_free(2, ptr);  // by another thread
  EXPECT_EQ(world.tag_counts(tag).bytes, 0);
  EXPECT_EQ(world.tag_counts(tag).count, 0);
  EXPECT_GE(world.tag_counts(tag).peak, static_cast<std::int64_t>(100 * 112 + 3 * kMiB));
  EXPECT_EQ(world.tag_counts(tag + 1).count, 0);
  EXPECT_EQ(world.leftovers(), "");
}

TEST(CoreTags, AreKeptApartWhereTheyShareADelta) {
  CoreWorld world;
  world.add_region(64 * kMiB);
  const std::uint16_t a = kFirstTagHolder;
  const std::uint16_t b =
      kFirstTagHolder + kTagDeltas;  // the same place in a cache, the same bucket in the heap
  std::vector<std::uint64_t> held;
  for (int i = 0; i < 50; ++i) {
    held.push_back(world.must_allocate(1, 16, a));
    held.push_back(world.must_allocate(1, 32, b));
  }
  EXPECT_EQ(world.tag_counts(a).count, 50);
  EXPECT_EQ(world.tag_counts(b).bytes, 1600);
  for (std::size_t i = 0; i < held.size(); i += 2) world.must_free(3, held[i]);
  EXPECT_EQ(world.tag_counts(a).count, 0);
  EXPECT_EQ(world.tag_counts(b).count, 50);
  EXPECT_EQ(world.tag_counts(b).bytes, 1600);
}

TEST(CoreTags, FollowASpanThatChangesItsLength) {
  CoreWorld world;
  const std::uint32_t region = world.add_region(64 * kMiB);
  const std::uint16_t tag = kFirstTagHolder;
  const std::uint64_t ptr = world.must_span(1, 64 * kKiB, tag);
  const std::uint64_t offset = ptr & ((std::uint64_t{1} << 48) - 1);
  ASSERT_TRUE(*world.core().resize_span(1, CoreWorld::kHeap, region, offset, 1 * kMiB));
  EXPECT_EQ(world.tag_counts(tag).bytes, static_cast<std::int64_t>(1 * kMiB));
  EXPECT_EQ(world.tag_counts(tag).count, 1);
  ASSERT_TRUE(*world.core().resize_span(1, CoreWorld::kHeap, region, offset, 4096));
  EXPECT_EQ(world.tag_counts(tag).bytes, 4096);
  EXPECT_GE(world.tag_counts(tag).peak, static_cast<std::int64_t>(1 * kMiB));
}

// A span is counted at once, small objects when the cache tells them: their sum must not be missed between the two.
TEST(CoreTags, PeakOfOneThreadIsExact) {
  CoreWorld world;
  world.add_region(64 * kMiB);
  const std::uint16_t tag = kFirstTagHolder;
  const std::uint64_t small = world.must_allocate(1, 640, tag);
  const std::uint64_t span = world.must_allocate(1, 40'960, tag);
  world.must_free(1, span);
  world.must_free(1, small);
  EXPECT_EQ(world.tag_counts(tag).peak, 640 + 40'960);
  EXPECT_EQ(world.tag_counts(tag).bytes, 0);
}

TEST(CoreTags, SurviveTheirCacheAndTheDrainOfTheirRegion) {
  CoreWorld world;
  const std::uint32_t region = world.add_region(16 * kMiB);
  const std::uint16_t tag = kFirstTagHolder + 1;
  std::vector<std::uint64_t> held;
  for (int i = 0; i < 500; ++i) held.push_back(world.must_allocate(1 + std::uint32_t(i) % 3, 64, tag));
  world.core().drop_cache(2, world.cache(2));
  EXPECT_EQ(world.tag_counts(tag).count, 500);
  world.set_draining(region, true);
  for (int i = 0; i < 250; ++i) world.must_free(4, held[std::size_t(i)]);
  EXPECT_EQ(world.tag_counts(tag).count, 250);
  EXPECT_EQ(world.tag_counts(tag).bytes, 250 * 64);
}

TEST(CoreTags, SayWhenThereIsNoRoomForAnother) {
  shared::Geometry geometry = small_geometry();
  geometry.max_tags = 0;  // 1024 records
  CoreWorld world(geometry);
  world.add_region(16 * kMiB);
  std::vector<std::uint64_t> held;
  for (std::uint16_t i = 0; i < 1024; ++i) {
    held.push_back(world.must_allocate(1, 16, static_cast<std::uint16_t>(kFirstTagHolder + i)));
  }
  EXPECT_EQ(world.allocate(1, 16, kFirstTagHolder + 1024).error().code(), ENOSPC);
  EXPECT_EQ(world.allocate(1, 100'000, kFirstTagHolder + 1024).error().code(), ENOSPC);
  EXPECT_EQ(world.breaches(), "");
  for (const std::uint64_t ptr : held) world.must_free(1, ptr);
  EXPECT_EQ(world.leftovers(), "");
  const shared::LockGuard guard(world.heap().lock, 1, false);
  EXPECT_TRUE(world.core().free_tags_locked(1, world.heap()));
  EXPECT_EQ(world.core().find_tag_locked(world.heap(), kFirstTagHolder), nullptr);
  EXPECT_NE(world.core().make_tag_locked(1, world.heap(), kFirstTagHolder + 1024), nullptr);
}

TEST(CoreTags, AgreeWithAModelAfterRandomUse) {
  const std::uint64_t seed = seed_for(3);
  SCOPED_TRACE(replay_hint(seed));
  Random random(seed);
  CoreWorld world;
  world.add_region(32 * kMiB);
  constexpr std::uint16_t kTags = 200;  // more than a cache has deltas
  struct Held {
    std::uint64_t ptr;
    std::uint16_t tag;
    std::int64_t bytes;
  };
  struct Model {
    std::int64_t bytes = 0;
    std::int64_t count = 0;
    std::int64_t peak = 0;
  };
  std::vector<Held> held;
  std::map<std::uint16_t, Model> model;
  for (int step = 0; step < 20'000; ++step) {
    const auto slot = static_cast<std::uint32_t>(1 + below(random, 3));
    if (held.empty() || one_in(random, 2)) {
      const auto tag = static_cast<std::uint16_t>(
          kFirstTagHolder + (one_in(random, 2) ? below(random, 3) : below(random, kTags)));
      const std::uint64_t size = 1 + below(random, one_in(random, 20) ? 200'000 : 3000);
      const auto got = world.allocate(slot, size, tag);
      if (!got.ok()) continue;
      const std::uint64_t rounded =
          size <= kMaxClassSize ? kSizeClasses[class_of(size)].size : base::align_up(size, 4096);
      held.push_back(Held{*got, tag, static_cast<std::int64_t>(rounded)});
      Model& m = model[tag];
      m.bytes += held.back().bytes;
      ++m.count;
      m.peak = std::max(m.peak, m.bytes);
    } else {
      std::swap(held[below(random, held.size())], held.back());
      world.must_free(slot, held.back().ptr);
      model[held.back().tag].bytes -= held.back().bytes;
      --model[held.back().tag].count;
      held.pop_back();
    }
    if (one_in(random, 2000)) world.core().drop_cache(slot, world.cache(slot));
    if (step % 2000 == 1999) {
      for (const auto& [tag, m] : model) {
        const auto counts = world.tag_counts(tag, slot);
        ASSERT_EQ(counts.bytes, m.bytes) << "tag " << tag << ", step " << step;
        ASSERT_EQ(counts.count, m.count) << "tag " << tag << ", step " << step;
        // When a thread tells its peak, each other may have this much untold.
        const std::int64_t untold = (world.heap().most_caches - 1) * 2 * kSpillBytes;
        ASSERT_GE(counts.peak + untold, m.peak) << "tag " << tag << ", step " << step;
      }
      ASSERT_EQ(world.breaches(), "");
    }
  }
}

}  // namespace
}  // namespace extmem::alloc
