#include "os/membarrier.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <thread>

#include "os/thread.hpp"
#include "unit/os/child.hpp"

namespace extmem::os {
namespace {

class Membarrier : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (!membarrier_register(GetParam())) GTEST_SKIP() << "needs a kernel with expedited membarrier";
  }
};
INSTANTIATE_TEST_SUITE_P(Reach, Membarrier, ::testing::Bool(),
                         [](const auto& test) { return test.param ? "Global" : "Private"; });

TEST_P(Membarrier, RegistersTwice) {
  EXPECT_TRUE(membarrier_register(GetParam()));
  errno = 77;
  membarrier(GetParam());
  EXPECT_EQ(errno, 77);
}

TEST_P(Membarrier, StaysRegisteredInAForksChild) {
  RUN_IN_CHILD([] {
    membarrier(GetParam());  // asserts
    return std::string();
  });
}

// Dekker: each side writes its flag and reads the other's. Without a barrier between, both can read the old
// value; with the light one on one side and membarrier on the other, never. (Timing decides whether a mistake
// would show.)
TEST_P(Membarrier, OrdersAStoreBeforeALoadOfTheLightSide) {
  constexpr int kRounds = 10'000;
  std::atomic<int> light{0};
  std::atomic<int> heavy{0};
  std::atomic<int> round{0};
  std::atomic<int> light_done{0};
  int light_saw = 0;
  int both_missed = 0;
  std::thread other([&] {
    for (int i = 1; i <= kRounds; ++i) {
      for (int spins = 0; round.load(std::memory_order_acquire) < i; ++spins) {
        if (spins > 2000) yield();
      }
      light.store(i, std::memory_order_relaxed);
      std::atomic_signal_fence(std::memory_order_seq_cst);
      light_saw = heavy.load(std::memory_order_relaxed);
      light_done.store(i, std::memory_order_release);
    }
  });
  for (int i = 1; i <= kRounds; ++i) {
    round.store(i, std::memory_order_release);
    for (int delay = i % 256; delay > 0; --delay) std::atomic_signal_fence(std::memory_order_seq_cst);
    heavy.store(i, std::memory_order_relaxed);
    membarrier(GetParam());
    const int heavy_saw = light.load(std::memory_order_relaxed);
    while (light_done.load(std::memory_order_acquire) < i) yield();
    if (heavy_saw != i && light_saw != i) ++both_missed;
  }
  other.join();
  EXPECT_EQ(both_missed, 0);
}

TEST(MembarrierAbsent, IsReported) {
  RUN_IN_CHILD([] {
    if (!test::fail_system_call(SYS_membarrier, ENOSYS)) return std::string("skip: no seccomp filters");
    REQUIRE(!membarrier_register(false));
    REQUIRE(!membarrier_register(true));
    return std::string();
  });
}

}  // namespace
}  // namespace extmem::os
