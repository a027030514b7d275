// Changing who holds an object, while the thread that owns its slab is at work in it.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <thread>

#include "unit/alloc/core_world.hpp"
#include "unit/alloc/on_slots.hpp"

namespace extmem::alloc {
namespace {

constexpr std::uint16_t kFrom = kFirstTagHolder + 1;
constexpr std::uint16_t kTo = kFirstTagHolder + 2;

class CoreHolder : public ::testing::TestWithParam<bool> {  // with membarrier, or with the owners' own fences
 protected:
  CoreHolder() { region_ = world_.add_region(64 * kMiB); }
  bool change(std::uint32_t slot, std::uint64_t ptr, std::uint16_t from, std::uint16_t to) {
    const shared::LockGuard guard(world_.heap().lock, slot, false);
    EXPECT_TRUE(guard.held());
    const auto changed = world_.core().change_holder_locked(slot, CoreWorld::kHeap, ptr, from, to);
    EXPECT_TRUE(changed.ok());
    return changed.value_or(false);
  }
  std::atomic<std::uint16_t>& state_of(std::uint64_t ptr) {
    const RegionCore& r = world_.core().region(region_);
    const std::uint64_t page = (ptr & ((std::uint64_t{1} << 48) - 1)) >> r.pages.page_shift;
    const Slab& s =
        world_.core().slab(world_.core().pages(region_).desc(static_cast<std::uint32_t>(page)).slab());
    return world_.core().state(s.first_state +
                               static_cast<std::uint32_t>(place_of(ptr - s.first, s.reciprocal).number));
  }

  CoreWorld world_{small_geometry(), GetParam()};
  std::uint32_t region_ = 0;
};
INSTANTIATE_TEST_SUITE_P(Fences, CoreHolder, ::testing::Bool(),
                         [](const auto& test) { return test.param ? "Membarrier" : "OwnFences"; });

// The owner has looked at the state and is about to mark the object cached: whoever gives it to somebody else waits.
TEST_P(CoreHolder, WaitsForAFreeOfTheOwner) {
  const std::uint64_t ptr = world_.must_allocate(1, 64);
  ThreadCache& owner = world_.cache(1);
  (void)world_.cache(2);
  ASSERT_TRUE(owner.gate.enter(false));
  const std::uint16_t held = state_of(ptr).load();
  std::atomic<bool> done{false};
  bool changed = true;
  std::thread other([&] {
    changed = change(2, ptr, kHolderUntagged, kTo);
    done = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_FALSE(done) << "it did not wait, so the owner's store would undo it";
  state_of(ptr).store(cached_by(1));
  owner.gate.leave();
  other.join();
  EXPECT_FALSE(changed);
  state_of(ptr).store(held);
  world_.must_free(1, ptr);
  EXPECT_EQ(world_.leftovers(), "");
}

// Whatever comes first, the accounts of both tags add up to what there is.
TEST_P(CoreHolder, RacesWithFreesOfTheOwner) {
  constexpr std::size_t kObjects = 32;
  (void)world_.cache(1);
  (void)world_.cache(2);
  for (int round = 0; round < 300; ++round) {
    std::array<std::uint64_t, kObjects> ptrs;
    for (std::uint64_t& ptr : ptrs) ptr = world_.must_allocate(1, 256, kFrom);
    on_slots(2, [&](std::uint32_t slot) {
      for (const std::uint64_t ptr : ptrs) {
        if (slot == 1) {
          world_.must_free(1, ptr);
        } else {
          (void)change(2, ptr, kFrom, kTo);
        }
      }
    });
    ASSERT_EQ(world_.breaches(), "") << "in round " << round;
  }
  EXPECT_EQ(world_.leftovers(), "");
}

// Freed, and its slab made anew for objects of another size: the place is no object's, or not `from`'s.
TEST_P(CoreHolder, LeavesAloneWhatIsNoObject) {
  const std::uint64_t ptr = world_.must_allocate(1, 64);
  EXPECT_FALSE(change(1, ptr + 16, kHolderUntagged, kTo)) << "inside an object";
  EXPECT_FALSE(change(2, ptr + 16, kHolderUntagged, kTo)) << "inside an object of another thread";
  EXPECT_FALSE(change(1, make_ptr(region_, 64 * kMiB), kHolderUntagged, kTo)) << "behind the region";
  EXPECT_FALSE(change(1, make_ptr(region_ + 1, 0), kHolderUntagged, kTo)) << "in no region";
  world_.must_free(1, ptr);
  EXPECT_FALSE(change(2, ptr, kHolderUntagged, kTo)) << "freed";
  EXPECT_EQ(world_.leftovers(), "");
}

}  // namespace
}  // namespace extmem::alloc
