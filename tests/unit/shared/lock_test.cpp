#include "shared/lock.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

namespace extmem::shared {
namespace {

using std::chrono::milliseconds;

/// A lock as it lies in the control segment: in zero bytes.
struct Guarded {
  Lock lock;
  long value = 0;
  long mirror = 0;
};

class LockTest : public ::testing::TestWithParam<bool> {  // private or shared futexes
 protected:
  Guarded& guarded() { return *guarded_; }
  static bool shared() { return GetParam(); }

 private:
  std::unique_ptr<Guarded> guarded_ = std::make_unique<Guarded>();
};
INSTANTIATE_TEST_SUITE_P(Futex, LockTest, ::testing::Bool(),
                         [](const auto& test) { return test.param ? "Shared" : "Private"; });

TEST_P(LockTest, NamesItsHolder) EXTMEM_NO_THREAD_SAFETY_ANALYSIS {
  Lock& lock = guarded().lock;
  EXPECT_EQ(lock.holder(), 0u);
  ASSERT_EQ(lock.lock(17, shared()), Locked::yes);
  EXPECT_EQ(lock.holder(), 17u);
  lock.unlock(shared());
  EXPECT_EQ(lock.holder(), 0u);
  ASSERT_EQ(lock.lock((1u << 14) - 1, shared()), Locked::yes);
  EXPECT_EQ(lock.holder(), (1u << 14) - 1);
  lock.unlock(shared());
}

TEST_P(LockTest, TellsItsHolderThatItWouldWaitForItself) EXTMEM_NO_THREAD_SAFETY_ANALYSIS {
  Lock& lock = guarded().lock;
  const LockGuard outer(lock, 3, shared());
  ASSERT_TRUE(outer.held());
  {
    const LockGuard inner(lock, 3, shared());
    EXPECT_FALSE(inner.held());
  }
  EXPECT_EQ(lock.holder(), 3u);  // the inner guard has not unlocked it
  std::thread sleeper([&] {
    const LockGuard other(lock, 4, shared());
    EXPECT_TRUE(other.held());
  });
  std::this_thread::sleep_for(milliseconds(5));     // the other thread sleeps by now, most likely
  EXPECT_EQ(lock.lock(3, shared()), Locked::mine);  // also when the word says that somebody sleeps
  EXPECT_EQ(lock.holder(), 3u);
  lock.unlock(shared());
  sleeper.join();
  ASSERT_EQ(lock.lock(3, shared()), Locked::yes);  // for the outer guard's end
}

TEST_P(LockTest, LetsOneIn) {
  constexpr int kThreads = 4;
  constexpr int kRounds = 20'000;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i]() EXTMEM_NO_THREAD_SAFETY_ANALYSIS {
      for (int round = 0; round < kRounds; ++round) {
        const LockGuard guard(guarded().lock, static_cast<std::uint32_t>(i + 1), shared());
        if (!guard.held()) std::abort();
        const long value = guarded().value;
        if (value != guarded().mirror) std::abort();
        guarded().value = value + 1;
        if (round % 1024 == 0) std::this_thread::yield();
        guarded().mirror = value + 1;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(guarded().value, long{kThreads} * kRounds);
  EXPECT_EQ(guarded().lock.holder(), 0u);
}

TEST_P(LockTest, WakesEveryoneWhoSleeps) EXTMEM_NO_THREAD_SAFETY_ANALYSIS {
  Lock& lock = guarded().lock;
  for (int round = 0; round < 20; ++round) {
    ASSERT_EQ(lock.lock(1, shared()), Locked::yes);
    std::vector<std::thread> threads;
    for (std::uint32_t slot = 2; slot < 6; ++slot) {
      threads.emplace_back([&, slot]() EXTMEM_NO_THREAD_SAFETY_ANALYSIS {
        const LockGuard guard(lock, slot, shared());
        ++guarded().value;
      });
    }
    std::this_thread::sleep_for(milliseconds(2));
    EXPECT_EQ(guarded().value, 4 * round);
    lock.unlock(shared());
    for (std::thread& thread : threads) thread.join();  // a lost wake hangs here
  }
  EXPECT_EQ(guarded().value, 80);
}

/// The words of a lock, as others' processes change them.
struct Words {
  std::atomic<std::uint32_t> holder, turns;
};

// Between processes who waits for long asks whether the holder goes on. What counts is how long that one has it, not how long the wait
// has taken: where many want a lock, or processors are few, others may come first again and again.
TEST(LockBetweenProcesses, IsStuckByOneHolderAloneNotByMany) EXTMEM_NO_THREAD_SAFETY_ANALYSIS {
  constexpr milliseconds kPatience{300};
  Lock::patience_ns = std::uint64_t{std::chrono::nanoseconds(kPatience).count()};
  std::vector<Participant> records(kMaxParticipants + 1);
  std::vector<ThreadSlot> slots(8);  // nobody's: so none of them is dead
  Participants all;
  all.bind(nullptr, 0, records.data(), slots.data(), 7, -1, -1);
  const Peers peers(all);
  const auto lock = std::make_unique<Lock>();
  auto& words = reinterpret_cast<Words&>(*lock);
  words.holder = 2;
  EXPECT_EQ(lock->lock(1, peers), Locked::stuck);

  std::atomic<bool> waits{true};
  std::thread others([&] {  // far longer than the patience
    for (int turn = 0; turn < 100; ++turn) {
      std::this_thread::sleep_for(kPatience / 30);
      words.turns = words.turns + 1;
    }
    EXPECT_TRUE(waits) << "it gave up";
    words.holder = 0;
  });
  EXPECT_EQ(lock->lock(1, peers), Locked::yes);
  waits = false;
  others.join();
  Lock::patience_ns = Lock::kPatienceNs;
}

}  // namespace
}  // namespace extmem::shared
