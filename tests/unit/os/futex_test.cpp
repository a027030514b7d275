#include "os/futex.hpp"

#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <new>
#include <thread>

#include "os/thread.hpp"
#include "unit/os/child.hpp"

namespace extmem::os {
namespace {

constexpr std::int64_t kMillisecond = 1'000'000;

class Futex : public ::testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(PrivateAndShared, Futex, ::testing::Bool(),
                         [](const auto& test) { return test.param ? "Shared" : "Private"; });

TEST_P(Futex, DoesNotWaitForAnotherValue) {
  const std::atomic<std::uint32_t> word{5};
  EXPECT_EQ(futex_wait(word, 4, -1, GetParam()), EAGAIN);
}

TEST_P(Futex, TimesOut) {
  const std::atomic<std::uint32_t> word{5};
  EXPECT_EQ(futex_wait(word, 5, 0, GetParam()), ETIMEDOUT);
  const std::uint64_t start = monotonic_ns();
  EXPECT_EQ(futex_wait(word, 5, 20 * kMillisecond, GetParam()), ETIMEDOUT);
  EXPECT_GE(monotonic_ns() - start, 20U * kMillisecond);
}

TEST_P(Futex, WakesAThread) {
  std::atomic<std::uint32_t> word{0};
  std::thread waiter([&] {
    while (word.load() == 0) {
      const int outcome = futex_wait(word, 0, -1, GetParam());
      EXPECT_TRUE(outcome == 0 || outcome == EAGAIN || outcome == EINTR) << outcome;
    }
  });
  sleep_ns(5 * kMillisecond);
  word.store(1);
  futex_wake(word, 1, GetParam());
  waiter.join();
}

TEST(FutexShared, WakesAnotherProcess) {
  void* const memory =
      ::mmap(nullptr, std::size_t{4096}, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  auto* const word = new (memory) std::atomic<std::uint32_t>{0};
  std::thread waker([&] {
    sleep_ns(10 * kMillisecond);
    word->store(1);
    futex_wake(*word, 1, true);
  });
  const auto outcome = test::in_child([&] {
    while (word->load() == 0) REQUIRE(futex_wait(*word, 0, 10'000 * kMillisecond, true) != ETIMEDOUT);
    return std::string();
  });
  waker.join();
  EXPECT_TRUE(outcome.ok) << outcome.text;
  ::munmap(memory, 4096);
}

TEST(FutexSignal, InterruptsAWait) {
  struct sigaction action {};
  action.sa_handler = [](int) {};
  struct sigaction before {};
  ::sigaction(SIGUSR1, &action, &before);
  const std::atomic<std::uint32_t> word{0};
  std::atomic<int> outcome{-1};
  std::thread waiter([&] { outcome = futex_wait(word, 0, -1, false); });
  while (outcome == -1) {
    ::pthread_kill(waiter.native_handle(), SIGUSR1);
    sleep_ns(kMillisecond);
  }
  waiter.join();
  EXPECT_EQ(outcome, EINTR);
  ::sigaction(SIGUSR1, &before, nullptr);
}

TEST(FutexErrno, IsKept) {
  const std::atomic<std::uint32_t> word{0};
  errno = 77;
  EXPECT_EQ(futex_wait(word, 1, -1, false), EAGAIN);
  futex_wake(word, 1, false);
  EXPECT_EQ(errno, 77);
}

}  // namespace
}  // namespace extmem::os
