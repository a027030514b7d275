// A process that is stopped, not dead: nobody takes anything from it, and nobody waits for it for long.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <cerrno>

#include "crash/sweep.hpp"
#include "shared/lock.hpp"

namespace extmem::crash {
namespace {

class CrashStopped : public ::testing::Test {
 protected:
  CrashStopped() { shared::Lock::patience_ns = 100'000'000; }
  ~CrashStopped() override { shared::Lock::patience_ns = shared::Lock::kPatienceNs; }

  Child stop_in(const char* operation, const char* point) {
    const Kill hit = hit_of(world_, operation, point, false);
    EXPECT_NE(hit.nth, 0u) << point;
    return stop_at(operation, hit, 0);
  }
  Child stop_at(const char* operation, Kill hit, int number) {
    world_.log(number).stop = 1;
    Child child = world_.start(operation, hit, number);
    int status = 0;
    ::waitpid(child.pid, &status, WUNTRACED);
    EXPECT_TRUE(WIFSTOPPED(status));
    return child;
  }
  void let_end(Child& child) {
    ::kill(child.pid, SIGCONT);
    world_.finish(child);
    EXPECT_EQ(World::trouble(child), "");
  }
  void go_on(Child& child) {
    let_end(child);
    settle();
  }
  void settle() {
    world_.settle("after the stop");
    std::string all;
    for (const std::string& one : world_.tally().problems) all += one + "\n";
    EXPECT_EQ(all, "");
  }
  static void expect_timeout(const Error& error, const Child& child) {
    EXPECT_EQ(error.code(), ETIMEDOUT) << error.message();
    EXPECT_NE(std::string(error.message()).find("pid " + std::to_string(child.pid)), std::string::npos)
        << error.message();
  }

  /// Stops it while it makes a slab in its own heap: nobody misses that heap, but it has the metadata's lock.
  Child stop_with_the_metadatas_lock(Kill hit, int number) {
    Child child = stop_at("drain_region", hit, number);
    EXPECT_NE(world_.metadata_lock_holder(), 0u) << "else the test shows nothing";
    return child;
  }

  World world_;
};

TEST_F(CrashStopped, HolderOfAHeapsLockIsNamedWhileFastPathsGoOn) {
  void* warm = *world_.heap().allocate(64);
  ASSERT_TRUE(world_.heap().deallocate(warm));
  Child child = stop_in("allocate_slabs", "transaction.changed");
  Heap heap = world_.heap();
  for (int i = 0; i < 1000; ++i) {
    auto p = heap.allocate(64);
    ASSERT_TRUE(p) << p.error().message();
    ASSERT_TRUE(heap.deallocate(*p));
  }
  auto slow = heap.allocate(300'000);
  ASSERT_FALSE(slow);
  expect_timeout(slow.error(), child);
  auto stats = heap.stats();
  ASSERT_FALSE(stats);
  expect_timeout(stats.error(), child);
  auto zone = world_.domain().reserve_memzone(heap, "not to be had", 64);
  ASSERT_FALSE(zone);
  expect_timeout(zone.error(), child);         // and settle() misses no object
  auto recovered = world_.domain().recover();  // it is not dead: nothing to do
  ASSERT_TRUE(recovered) << recovered.error().message();
  EXPECT_EQ(recovered->participants, 0u);
  go_on(child);
}

TEST_F(CrashStopped, WhoLeavesIsHandedNothingThatItWouldNotGiveBack) {
  Child child = stop_in("leave", "leave.emptied");
  std::uint32_t leaving = 0;
  ASSERT_TRUE(world_.domain().walk_participants([&](const ParticipantInfo& one) {
    if (one.pid == static_cast<std::uint32_t>(child.pid)) leaving = one.id;
    return true;
  }));
  ASSERT_NE(leaving, 0u);
  auto p = world_.heap().allocate(64);
  ASSERT_TRUE(p) << p.error().message();
  EXPECT_EQ(world_.domain().hand_over(*p, leaving).error().code(), ESRCH);
  EXPECT_TRUE(world_.heap().deallocate(*p)) << "it is still this process'";
  go_on(child);
}

TEST_F(CrashStopped, PauserIsNamedByWhomItHasPaused) {
  Child child = stop_in("flush", "pause.asked");
  auto p = world_.heap().allocate(64);
  ASSERT_FALSE(p);
  expect_timeout(p.error(), child);
  go_on(child);
}

TEST_F(CrashStopped, OwnerInsideItsCacheIsNamed) {
  Child child = stop_in("allocate_refill", "refill.taken");
  auto stats = world_.heap().stats();
  ASSERT_FALSE(stats);
  expect_timeout(stats.error(), child);
  auto p = world_.heap().allocate(64);
  ASSERT_TRUE(p) << p.error().message();
  ASSERT_TRUE(world_.heap().deallocate(*p));
  go_on(child);
}

// The heap's lock is inherited from a dead process while a stopped one stands inside its cache: the heap cannot be
// repaired now, and stays marked until it can.
TEST_F(CrashStopped, RepairThatMustWaitIsDoneLater) {
  const Kill dies = hit_of(world_, "free_remote", "revoke.shared", false);
  Child stopped = stop_in("allocate_refill", "refill.taken");
  Child dead = world_.start("free_remote", dies, 1);
  world_.finish(dead);
  auto recovered = world_.domain().recover();
  ASSERT_FALSE(recovered);
  expect_timeout(recovered.error(), stopped);
  go_on(stopped);
}

// A heap that cannot be destroyed now stays as it was, and is destroyed later.
TEST_F(CrashStopped, HolderOfTheMetadatasLockIsNamedByWhoDestroysAHeap) {
  const Kill hit = hit_of(world_, "drain_region", "transaction.changed", false);
  Heap mine = *world_.domain().create_heap("mine");
  BackingSpec spec;
  spec.length = 2u << 20;
  const RegionId region = *world_.domain().add_backing(mine, spec);
  AllocOptions tagged;
  tagged.tag = *world_.domain().intern_tag("of mine");
  void* p = *mine.allocate(64, tagged);  // so it has a cache, and a tag
  ASSERT_TRUE(mine.deallocate(p));
  ASSERT_TRUE(world_.domain().drain_region(region, std::chrono::seconds(30)));
  ASSERT_TRUE(world_.domain().remove_region(region));
  Child child = stop_with_the_metadatas_lock(hit, 0);
  for (int i = 0; i < 2; ++i) {
    auto destroyed = world_.domain().destroy_heap(mine);
    ASSERT_FALSE(destroyed);
    expect_timeout(destroyed.error(), child);
    EXPECT_TRUE(mine.stats()) << "the handle is not stale";
    EXPECT_EQ(*world_.domain().find_heap("mine"), mine);
  }
  // Adding and removing a region needs nothing that it has.
  auto added = world_.domain().add_backing(mine, spec);
  ASSERT_TRUE(added) << added.error().message();
  auto removed = world_.domain().remove_region(*added);
  EXPECT_TRUE(removed) << removed.error().message();
  let_end(child);
  EXPECT_TRUE(world_.domain().recover());
  auto again = world_.domain().add_backing(mine, spec);
  ASSERT_TRUE(again) << again.error().message();
  auto q = mine.allocate(64, tagged);
  ASSERT_TRUE(q) << q.error().message();
  EXPECT_TRUE(mine.deallocate(*q));
  EXPECT_TRUE(world_.domain().drain_region(*again, std::chrono::seconds(30)));
  EXPECT_TRUE(world_.domain().remove_region(*again));
  EXPECT_TRUE(world_.domain().destroy_heap(mine));
  settle();
}

// A dead thread's cache is emptied, but its record cannot be given away: the next cleaner does it.
TEST_F(CrashStopped, HolderOfTheMetadatasLockIsNamedByWhoBuriesACache) {
  const Kill busy = hit_of(world_, "allocate_refill", "refill.taken", false);
  const Kill hit = hit_of(world_, "drain_region", "transaction.changed", false);
  Child dead = stop_at("allocate_refill", busy, 1);  // inside its cache
  Child child = stop_with_the_metadatas_lock(hit, 0);
  ::kill(dead.pid, SIGKILL);
  world_.finish(dead);
  for (int i = 0; i < 2; ++i) {
    auto recovered = world_.domain().recover();
    ASSERT_FALSE(recovered);
    expect_timeout(recovered.error(), child);
  }
  auto stats = world_.heap().stats();  // who pauses the heap's threads meets the dead one too
  ASSERT_FALSE(stats);
  expect_timeout(stats.error(), child);
  let_end(child);
  auto recovered = world_.domain().recover();
  ASSERT_TRUE(recovered) << recovered.error().message();
  EXPECT_EQ(recovered->participants, 2u);
  settle();
}

}  // namespace
}  // namespace extmem::crash
