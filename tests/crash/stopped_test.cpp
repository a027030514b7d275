// A process that is stopped, not dead: nobody takes anything from it, and nobody waits for it for long.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

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
    world_.log(0).stop = 1;
    Child child = world_.start(operation, hit);
    int status = 0;
    ::waitpid(child.pid, &status, WUNTRACED);
    EXPECT_TRUE(WIFSTOPPED(status));
    return child;
  }
  void go_on(Child& child) {
    ::kill(child.pid, SIGCONT);
    world_.finish(child);
    EXPECT_EQ(World::trouble(child), "");
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
  auto recovered = world_.domain().recover();  // it is not dead: nothing to do
  ASSERT_TRUE(recovered) << recovered.error().message();
  EXPECT_EQ(recovered->participants, 0u);
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
  const Kill dies = hit_of(world_, "free_remote", "revoke.shared", false);  // a slab is in no list then
  Child stopped = stop_in("allocate_refill", "refill.taken");
  Child dead = world_.start("free_remote", dies, 1);
  world_.finish(dead);
  auto recovered = world_.domain().recover();
  ASSERT_FALSE(recovered);
  expect_timeout(recovered.error(), stopped);
  go_on(stopped);
}

}  // namespace
}  // namespace extmem::crash
