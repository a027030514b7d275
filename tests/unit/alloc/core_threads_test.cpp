// Core under real threads: races of frees, remote frees, flushes, drains and checks while others allocate.
#include <gtest/gtest.h>

#include <atomic>
#include <barrier>
#include <thread>

#include "unit/alloc/core_world.hpp"
#include "unit/alloc/on_slots.hpp"
#include "unit/alloc/racing_frees.hpp"
#include "unit/alloc/seed.hpp"
#include "unit/alloc/shadow.hpp"

namespace extmem::alloc {
namespace {

class CoreThreads
    : public ::testing::TestWithParam<bool> {  // with membarrier, or with the owners' own fences
 protected:
  CoreWorld world_{small_geometry(), GetParam()};
};
INSTANTIATE_TEST_SUITE_P(Fences, CoreThreads, ::testing::Bool(),
                         [](const auto& test) { return test.param ? "Membarrier" : "OwnFences"; });

struct Race {
  std::uint64_t size;
  bool owner_races;
  bool shared_before;
  bool draining;
};

// One thread allocates; then three free the same objects at once. Each must be freed exactly once.
TEST_P(CoreThreads, OfRacingFreesExactlyOneSucceeds) {
  const std::uint32_t region = world_.add_region(64 * kMiB);
  for (std::uint32_t slot = 1; slot <= 4; ++slot) (void)world_.cache(slot);
  for (const Race race :
       {Race{64, true, false, false}, Race{64, false, false, false}, Race{64, true, true, false},
        Race{3000, true, false, false}, Race{32768, true, true, false}, Race{100'000, true, false, false},
        Race{150'000, true, false, false}, Race{64, true, false, true}, Race{5000, false, true, true}}) {
    SCOPED_TRACE(race.size);
    constexpr int kRounds = 150;
    constexpr std::size_t kObjects = 24;
    RacingFrees race_of(kObjects);
    std::barrier sync(3);
    on_slots(3, [&](std::uint32_t thread) {
      const std::uint32_t slot = race.owner_races ? thread : thread + 1;
      Random random(thread);
      for (int round = 0; round < kRounds; ++round) {
        if (thread == 1) {
          if (race.draining) world_.set_draining(region, false, 1);
          for (auto& ptr : race_of.objects) ptr = world_.must_allocate(1, race.size, kFirstTagHolder + 3);
          race_of.begin();
          if (race.shared_before) world_.flush(1, true);
          if (race.draining) world_.set_draining(region, true, 1);
        }
        sync.arrive_and_wait();
        const std::size_t start = below(random, kObjects);
        for (std::size_t i = 0; i < kObjects; ++i) {
          race_of.free(world_, slot, (start * (round % 2 == 0 ? 0 : 1) + i) % kObjects);
        }
        sync.arrive_and_wait();
        if (thread == 1) {
          race_of.expect_each_once();
          EXPECT_EQ(world_.breaches(1), "");
        }
      }
    });
    if (race.draining) world_.set_draining(region, false);
    EXPECT_EQ(world_.tag_counts(kFirstTagHolder + 3).count, 0);
    EXPECT_EQ(world_.leftovers(), "");
    if (HasFailure()) return;
  }
}

// One thread allocates, the other frees: every slab's bias is revoked, again and again.
TEST_P(CoreThreads, FreesOfAnotherThreadFlowBack) {
  world_.add_region(64 * kMiB);
  (void)world_.cache(1);
  (void)world_.cache(2);
  constexpr int kItems = 50'000;
  constexpr std::size_t kRing = 512;
  std::vector<std::atomic<std::uint64_t>> ring(kRing);
  on_slots(2, [&](std::uint32_t slot) {
    for (std::size_t i = 0; i < kItems; ++i) {
      auto& place = ring[i % kRing];
      if (slot == 1) {
        const std::uint64_t ptr = world_.must_allocate(1, 16 + i % 1000);
        while (place.load(std::memory_order_acquire) != 0) std::this_thread::yield();
        place.store(ptr, std::memory_order_release);
      } else {
        std::uint64_t ptr = 0;
        while ((ptr = place.load(std::memory_order_acquire)) == 0) std::this_thread::yield();
        place.store(0, std::memory_order_release);
        world_.must_free(2, ptr);
      }
    }
  });
  EXPECT_EQ(world_.breaches(), "");
  EXPECT_EQ(world_.leftovers(), "");
}

TEST_P(CoreThreads, RandomUseWithFlushesDrainsAndChecks) {
  const std::uint64_t seed = seed_for(23);
  SCOPED_TRACE(replay_hint(seed));
  constexpr std::uint64_t kLength = 24 * kMiB;
  const std::uint32_t regions[] = {world_.add_region(kLength), world_.add_region(kLength)};
  Shadow shadows[] = {Shadow(kLength, 16), Shadow(kLength, 16)};
  const auto shadow = [&](std::uint64_t ptr) -> Shadow& { return shadows[(ptr >> 48) - regions[0]]; };
  constexpr std::uint32_t kWorkers = 3;
  constexpr int kSteps = 12'000;
  constexpr std::size_t kShared = 64;
  struct Held {
    std::uint64_t ptr = 0;
    std::uint64_t bytes = 0;
    std::uint32_t slot = 0;
  };
  std::vector<std::atomic<Held*>> exchange(kShared);
  std::atomic<std::uint32_t> working{kWorkers};
  std::atomic<int> bad{0};
  on_slots(kWorkers + 1, [&](std::uint32_t slot) {
    Random random(seed + slot);
    if (slot == kWorkers + 1) {  // the disturber
      for (int i = 0; working.load() != 0; ++i) {
        if (i % 4 == 0) {
          const std::string found = world_.breaches(slot);
          if (!found.empty()) ++bad;
          EXPECT_EQ(found, "");
        }
        if (i % 4 == 1) world_.flush(slot, one_in(random, 2));
        if (i % 4 == 2) world_.set_draining(regions[below(random, 2)], one_in(random, 2), slot);
        std::this_thread::sleep_for(std::chrono::microseconds(300));
        if (bad != 0) break;
      }
      return;
    }
    std::vector<Held> held;
    const auto free_one = [&](const Held& object) {
      if (!shadow(object.ptr).give(object.ptr, object.bytes, object.slot)) ++bad;
      if (world_.free_code(slot, object.ptr) != 0) ++bad;
    };
    for (int step = 0; step < kSteps && bad == 0; ++step) {
      const std::uint64_t dice = below(random, 100);
      if (held.empty() || dice < 48) {
        const std::uint64_t bytes = 1 + below(random, dice == 0 ? 300'000 : dice < 8 ? 30'000 : 800);
        const auto holder =
            static_cast<std::uint16_t>(dice % 3 == 0 ? kFirstTagHolder + dice : kHolderUntagged);
        const auto got = world_.allocate(slot, bytes, holder);
        if (!got.ok()) {
          if (got.error().code() != ENOMEM) ++bad;
          continue;
        }
        held.push_back(Held{*got, bytes, slot});
        if (!shadow(*got).take(*got, bytes, slot)) ++bad;
      } else {
        std::swap(held[below(random, held.size())], held.back());
        const Held object = held.back();
        held.pop_back();
        if (dice < 70) {
          free_one(object);
        } else {  // give it to whoever comes next, and free what was there
          Held* const given = new Held(object);
          Held* const taken = exchange[below(random, kShared)].exchange(given, std::memory_order_acq_rel);
          if (taken != nullptr) {
            free_one(*taken);
            delete taken;
          }
        }
      }
      if (one_in(random, 1000)) world_.core().drop_cache(slot, world_.cache(slot));
    }
    for (const Held& object : held) free_one(object);
    --working;
  });
  ASSERT_EQ(bad, 0);
  for (auto& place : exchange) {
    if (Held* const left = place.load(); left != nullptr) {
      world_.must_free(1, left->ptr);
      delete left;
    }
  }
  for (const std::uint32_t region : regions) world_.set_draining(region, false);
  for (std::uint16_t tag = 0; tag < 100; ++tag) {
    EXPECT_EQ(world_.tag_counts(static_cast<std::uint16_t>(kFirstTagHolder + tag)).bytes, 0);
  }
  EXPECT_EQ(world_.leftovers(), "");
}

TEST_P(CoreThreads, SmallHeapsAreNeverStarvedByCaches) {
  world_.add_region(256 * kKiB);
  std::atomic<int> refused{0};
  on_slots(3, [&](std::uint32_t slot) {
    Random random(slot);
    for (int i = 0; i < 4000; ++i) {  // at most three objects of 16 KiB are held at a time, in 256 KiB
      const auto got = world_.allocate(slot, 1 + below(random, 16384));
      if (!got.ok()) {
        ++refused;
        continue;
      }
      world_.must_free(slot, *got);
    }
  });
  EXPECT_EQ(refused, 0);
  EXPECT_EQ(world_.leftovers(), "");
}

TEST_P(CoreThreads, CachesComeAndGoWhileOthersFreeTheirObjects) {
  world_.add_region(64 * kMiB);
  std::vector<std::atomic<std::uint64_t>> places(256);
  on_slots(3, [&](std::uint32_t slot) {
    Random random(slot + 100);
    for (int life = 0; life < 60; ++life) {
      for (int i = 0; i < 150; ++i) {
        const std::uint64_t ptr = world_.must_allocate(slot, 16 + below(random, 2000));
        const std::uint64_t old =
            places[below(random, places.size())].exchange(ptr, std::memory_order_acq_rel);
        if (old != 0) world_.must_free(slot, old);
      }
      world_.core().drop_cache(slot, world_.cache(slot));
    }
  });
  EXPECT_EQ(world_.heap().caches, 0u);
  EXPECT_EQ(world_.breaches(), "");
  for (auto& place : places) {
    if (place != 0) world_.must_free(1, place);
  }
  EXPECT_EQ(world_.leftovers(), "");
}

}  // namespace
}  // namespace extmem::alloc
