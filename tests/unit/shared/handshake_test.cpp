#include "shared/handshake.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>

#include "os/membarrier.hpp"

namespace extmem::shared {
namespace {

using std::chrono::milliseconds;

class HandshakeTest
    : public ::testing::TestWithParam<bool> {  // with membarrier, or with the owner's own fences
 protected:
  void SetUp() override {
    if (GetParam() && !os::membarrier_register(false))
      GTEST_SKIP() << "needs a kernel with expedited membarrier";
    gate_->reset(GetParam());
  }
  Handshake& gate() { return *gate_; }
  void pause() {
    gate().ask();
    Handshake::fence(GetParam(), false);
    EXPECT_EQ(gate().wait(false, 0), Handshake::Stand::still);
  }

 private:
  std::unique_ptr<Handshake> gate_ = std::make_unique<Handshake>();
};
INSTANTIATE_TEST_SUITE_P(Fences, HandshakeTest, ::testing::Bool(),
                         [](const auto& test) { return test.param ? "Membarrier" : "OwnFences"; });

TEST_P(HandshakeTest, AnOwnerThatSleepsOutsideDelaysNobody) {
  (void)gate().enter(false);
  gate().leave();
  for (int i = 0; i < 1000; ++i) {
    pause();
    gate().resume(false);
  }
  (void)gate().enter(false);
  gate().leave();
}

TEST_P(HandshakeTest, ThePauserWaitsForTheEndOfTheOperation) {
  std::atomic<bool> paused{false};
  (void)gate().enter(false);
  std::thread pauser([&] {
    pause();
    paused = true;
    gate().resume(false);
  });
  std::this_thread::sleep_for(milliseconds(20));
  EXPECT_FALSE(paused);
  gate().leave();
  pauser.join();
  EXPECT_TRUE(paused);
}

TEST_P(HandshakeTest, AnAskedOwnerBeginsNothing) {
  std::atomic<bool> inside{false};
  pause();
  EXPECT_FALSE(gate().try_enter());
  EXPECT_EQ(gate().wait(false, 0), Handshake::Stand::still);  // a refused try_enter has left nothing behind
  std::thread owner([&] {
    (void)gate().enter(false);
    inside = true;
    gate().leave();
  });
  std::this_thread::sleep_for(milliseconds(20));
  EXPECT_FALSE(inside);
  gate().resume(false);
  owner.join();  // a lost wake hangs here
  EXPECT_TRUE(inside);
}

// The owner keeps two plain words equal except inside an operation; the pauser must never see them differ, and its own
// changes of both must reach the owner whole.
TEST_P(HandshakeTest, ThePauserNeverSeesATornPair) {
  struct Pair {
    std::atomic<long> first{0};
    std::atomic<long> second{0};
  } pair;
  constexpr int kPauses = 1000;
  std::atomic<bool> stop{false};
  std::atomic<long> torn{0};
  std::atomic<long> operations{0};
  long plain = 0;  // not atomic: for ThreadSanitizer's eyes
  std::thread owner([&] {
    while (!stop.load(std::memory_order_relaxed)) {
      if (!gate().try_enter()) (void)gate().enter(false);
      const long value = pair.first.load(std::memory_order_relaxed);
      if (value != pair.second.load(std::memory_order_relaxed)) torn.fetch_add(1);
      pair.first.store(value + 1, std::memory_order_relaxed);
      ++plain;
      pair.second.store(value + 1, std::memory_order_relaxed);
      gate().leave();
      operations.fetch_add(1, std::memory_order_relaxed);
    }
  });
  while (operations.load() == 0) std::this_thread::yield();
  for (int i = 0; i < kPauses; ++i) {
    pause();
    const long before = pair.first.load(std::memory_order_relaxed);
    if (before != pair.second.load(std::memory_order_relaxed)) torn.fetch_add(1);
    pair.first.store(before + 10, std::memory_order_relaxed);
    ++plain;
    pair.second.store(before + 10, std::memory_order_relaxed);
    if (pair.first.load(std::memory_order_relaxed) != before + 10) torn.fetch_add(1);
    gate().resume(false);
    if (i % 16 == 0) std::this_thread::yield();
  }
  stop = true;
  owner.join();
  EXPECT_EQ(torn, 0);
  EXPECT_EQ(pair.first, operations + 10 * kPauses);
  EXPECT_EQ(plain, operations + kPauses);
}

}  // namespace
}  // namespace extmem::shared
