#include "os/thread.hpp"

#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "unit/os/child.hpp"

namespace extmem::os {
namespace {

struct Counter {
  std::atomic<int> runs{0};
  std::atomic<std::uint32_t> thread{0};
  int again = 0;
};

void count(void* arg) noexcept {
  auto* const counter = static_cast<Counter*>(arg);
  ++counter->runs;
  counter->thread = thread_id();
  if (counter->again > 0) {
    --counter->again;
    EXPECT_TRUE(on_thread_exit(count, arg));
  }
}

TEST(ThreadExit, RunsTheHookOnTheThreadItself) {
  Counter counter;
  std::uint32_t id = 0;
  std::thread([&] {
    id = thread_id();
    ASSERT_TRUE(on_thread_exit(count, &counter));
    EXPECT_EQ(counter.runs, 0);
  }).join();
  EXPECT_EQ(counter.runs, 1);
  EXPECT_EQ(counter.thread, id);
  EXPECT_NE(id, thread_id());
}

TEST(ThreadExit, TheLastHookCounts) {
  Counter first;
  Counter last;
  std::thread([&] {
    ASSERT_TRUE(on_thread_exit(count, &first));
    ASSERT_TRUE(on_thread_exit(count, &last));
  }).join();
  EXPECT_EQ(first.runs, 0);
  EXPECT_EQ(last.runs, 1);
}

TEST(ThreadExit, NullRemovesTheHook) {
  Counter counter;
  std::thread([&] {
    ASSERT_TRUE(on_thread_exit(count, &counter));
    ASSERT_TRUE(on_thread_exit(nullptr, nullptr));
  }).join();
  EXPECT_EQ(counter.runs, 0);
}

TEST(ThreadExit, AHookMaySetItselfAgain) {
  Counter counter;
  counter.again = 2;
  std::thread([&] { ASSERT_TRUE(on_thread_exit(count, &counter)); }).join();
  EXPECT_EQ(counter.runs, 3);
}

TEST(ThreadExit, RunsForEveryThread) {
  Counter counter;
  std::vector<std::thread> threads;
  for (int i = 0; i < 32; ++i) {
    threads.emplace_back([&] { EXPECT_TRUE(on_thread_exit(count, &counter)); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(counter.runs, 32);
}

// The key is made once in a process, so this needs a process of its own: a "threadsafe" death test starts
// one.
std::string use_up_keys() {
  pthread_key_t last{};
  pthread_key_t key{};
  while (::pthread_key_create(&key, nullptr) == 0) last = key;
  REQUIRE_ERROR(prepare_thread_exit(), EAGAIN);
  REQUIRE_ERROR(on_thread_exit(count, nullptr), EAGAIN);
  REQUIRE(::pthread_key_delete(last) == 0);
  REQUIRE_OK(prepare_thread_exit());
  REQUIRE_OK(prepare_thread_exit());
  Counter counter;
  REQUIRE_OK(on_thread_exit(count, &counter));
  REQUIRE_OK(on_thread_exit(nullptr, nullptr));
  return "";
}

TEST(ThreadExitDeathTest, SaysWhenKeysAreUsedUp) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        const std::string outcome = use_up_keys();
        std::fputs(outcome.c_str(), stderr);
        ::_exit(outcome.empty() ? 0 : 1);
      },
      ::testing::ExitedWithCode(0), "");
}

TEST(ThreadExit, KeepsErrno) {
  std::thread([] {
    errno = 77;
    EXPECT_TRUE(on_thread_exit(count, nullptr));
    EXPECT_TRUE(on_thread_exit(nullptr, nullptr));
    EXPECT_EQ(errno, 77);
  }).join();
}

TEST(Thread, HasItsNumber) {
  EXPECT_EQ(process_id(), static_cast<std::uint32_t>(::getpid()));
  EXPECT_NE(thread_id(), 0U);
  yield();
  cpu_relax();
}

TEST(Clock, NeverGoesBack) {
  std::uint64_t before = monotonic_ns();
  for (int i = 0; i < 1000; ++i) {
    const std::uint64_t now = monotonic_ns();
    EXPECT_GE(now, before);
    before = now;
  }
}

TEST(Clock, SleepsInSpiteOfSignals) {
  struct sigaction action {};
  action.sa_handler = [](int) {};
  struct sigaction before {};
  ::sigaction(SIGALRM, &action, &before);
  const itimerval often{{0, 2000}, {0, 2000}};
  ::setitimer(ITIMER_REAL, &often, nullptr);
  const std::uint64_t start = monotonic_ns();
  sleep_ns(30'000'000);
  EXPECT_GE(monotonic_ns() - start, 30'000'000U);
  const itimerval never{};
  ::setitimer(ITIMER_REAL, &never, nullptr);
  ::sigaction(SIGALRM, &before, nullptr);
}

}  // namespace
}  // namespace extmem::os
