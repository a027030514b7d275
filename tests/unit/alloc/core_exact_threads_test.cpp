// Span magazines under real threads: racing frees, spans that wander, flushes and checks while others work.
#include <gtest/gtest.h>

#include <atomic>
#include <barrier>
#include <memory>
#include <thread>

#include "unit/alloc/exact_world.hpp"
#include "unit/alloc/on_slots.hpp"
#include "unit/alloc/racing_frees.hpp"
#include "unit/alloc/seed.hpp"
#include "unit/alloc/shadow.hpp"

namespace extmem::alloc {
namespace {

class CoreExactThreads
    : public ::testing::TestWithParam<bool> {  // with membarrier, or with the owners' own fences
 protected:
  ExactWorld world_{GetParam()};
  /// Lets caches open, as if there had been many frees.
  void reopen(std::uint32_t slot) {
    const shared::LockGuard guard(world_.heap().lock, slot, false);
    world_.heap().closed_frees = 0;
  }
};
INSTANTIATE_TEST_SUITE_P(Fences, CoreExactThreads, ::testing::Bool(),
                         [](const auto& test) { return test.param ? "Membarrier" : "OwnFences"; });

// The first thread allocates; then three free the same spans at once. Each must be freed exactly once.
TEST_P(CoreExactThreads, OfRacingFreesExactlyOneSucceeds) {
  world_.add_region(1 * kMiB);
  for (std::uint32_t slot = 1; slot <= 3; ++slot) world_.begin(slot);
  constexpr std::size_t kSpans = 24;
  RacingFrees race(kSpans);
  std::atomic<int> biased{0};
  std::barrier sync(3);
  on_slots(3, [&](std::uint32_t slot) {
    for (int round = 0; round < 1000; ++round) {
      if (slot == 1) {
        reopen(1);
        world_.begin(1);  // opens it
        for (auto& ptr : race.objects) ptr = world_.must_allocate(1, 64u << round % 7);
        race.begin();
        biased += world_.head(race.objects[0]).owner() == 1 ? 1 : 0;
      }
      sync.arrive_and_wait();
      for (std::size_t i = 0; i < kSpans; ++i) race.free(world_, slot, i);
      sync.arrive_and_wait();
      if (slot == 1) {
        race.expect_each_once();
        if (round % 16 == 0) {
          EXPECT_EQ(world_.breaches(1), "");
        }
      }
    }
  });
  EXPECT_EQ(biased > 500, GetParam());  // without membarrier nothing is biased
  EXPECT_EQ(world_.leftovers(), "");
}

// Three threads allocate, free and exchange spans through a common table, while a fourth flushes, drains and checks.
TEST_P(CoreExactThreads, NothingIsHandedOutTwiceAndNothingIsLost) {
  const std::uint64_t seed = seed_for(20260302);
  SCOPED_TRACE(replay_hint(seed));
  constexpr std::uint64_t kBytes = 2 * kMiB;
  const std::uint32_t region = world_.add_region(kBytes);
  Shadow shadow(kBytes, 64);
  struct Held {
    std::uint64_t ptr = 0;
    std::uint64_t bytes = 0;
  };
  constexpr std::size_t kPlaces = 64;
  std::vector<std::atomic<Held*>> places(kPlaces);
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::atomic<std::uint64_t> hits{0};
  std::thread watcher([&] {
    Random random(seed);
    while (!stop) {
      switch (below(random, 4)) {
        case 0:
          EXPECT_EQ(world_.breaches(4), "");
          break;
        case 1:
          world_.flush(4);
          break;
        case 2:
          world_.set_draining(region, true, 4);
          EXPECT_EQ(world_.breaches(4), "");
          world_.set_draining(region, false, 4);
          break;
        default:
          reopen(4);
      }
      std::this_thread::sleep_for(std::chrono::microseconds(below(random, 2000)));
    }
  });
  on_slots(3, [&](std::uint32_t slot) {
    Random random(seed + slot);
    std::vector<Held> own;
    for (int step = 0; step < 60'000; ++step) {
      if (step % 100 == 0) reopen(slot);
      const std::uint64_t action = below(random, 100);
      if (action < 48 && own.size() < 100) {
        const std::uint64_t bytes = one_in(random, 200) ? 1 + below(random, 9000) : 64u << below(random, 3);
        bool hit = false;
        const auto got = world_.allocate(slot, bytes, kHolderUntagged, &hit);
        if (!got.ok()) continue;  // while the region drains
        hits += hit ? 1 : 0;
        if (!shadow.take(*got, bytes, slot)) ++wrong;
        own.push_back(Held{*got, bytes});
      } else if (action < 97 && !own.empty()) {
        const std::size_t which = one_in(random, 4) ? below(random, own.size()) : own.size() - 1;
        const Held held = own[which];
        own[which] = own.back();
        own.pop_back();
        if (!shadow.give(held.ptr, held.bytes, slot)) ++wrong;
        if (world_.free_code(slot, held.ptr) != 0) ++wrong;
      } else if (!own.empty() && one_in(random, 8)) {  // exchange
        auto* mine = new Held(own.back());
        own.pop_back();
        if (!shadow.give(mine->ptr, mine->bytes, slot)) ++wrong;
        const std::unique_ptr<Held> theirs(places[below(random, kPlaces)].exchange(mine));
        if (theirs != nullptr) {
          if (!shadow.take(theirs->ptr, theirs->bytes, slot)) ++wrong;
          own.push_back(*theirs);
        }
      }
    }
    for (const Held& held : own) {
      if (!shadow.give(held.ptr, held.bytes, slot)) ++wrong;
      if (world_.free_code(slot, held.ptr) != 0) ++wrong;
    }
  });
  stop = true;
  watcher.join();
  for (auto& place : places) {
    const std::unique_ptr<Held> last(place.exchange(nullptr));
    if (last != nullptr) world_.must_free(1, last->ptr);
  }
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(hits > 1000u, GetParam());
  EXPECT_EQ(world_.leftovers(), "");
}

// What one thread has freed is free for another one that knows of it.
TEST_P(CoreExactThreads, WhatAnotherThreadHasFreedIsThereAtOnce) {
  world_.add_region(64 * kKiB);
  world_.begin(1);
  world_.begin(2);
  std::barrier sync(2);
  on_slots(2, [&](std::uint32_t slot) {
    std::vector<std::uint64_t> held;
    for (int round = 0; round < 300; ++round) {
      if (round % 2 == static_cast<int>(slot - 1)) {  // takes all there is, and frees it
        reopen(slot);
        for (int i = 0; i < 16; ++i) {
          const auto got = world_.allocate(slot, 4096);
          EXPECT_TRUE(got.ok()) << "round " << round << ", span " << i;
          held.push_back(got.value_or(0));
        }
        EXPECT_EQ(world_.allocate(slot, 64).error().code(), ENOMEM);
        for (const std::uint64_t ptr : held) world_.must_free(slot, ptr);
        held.clear();
      }
      sync.arrive_and_wait();
    }
  });
  EXPECT_EQ(world_.leftovers(), "");
}

}  // namespace
}  // namespace extmem::alloc
