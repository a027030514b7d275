// Threads on one ring: every element arrives exactly once and in its producer's order, and what it points to is visible.
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <random>
#include <thread>

#include "unit/shared/ring_world.hpp"

namespace extmem::shared::test {
namespace {

constexpr std::uint64_t kEach = 40'000;  // elements of each producer

/// What the elements stand for: plain memory, so that ThreadSanitizer checks that the ring orders its writes.
struct Payload {
  std::uint64_t value = 0;
};

class RingThreads : public ::testing::TestWithParam<RingKind> {
 protected:
  static RingKind kind() { return GetParam(); }
  static std::uint64_t producers() { return kind() == RingKind::spsc ? 1 : 3; }
  static std::uint64_t consumers() { return kind() == RingKind::spsc ? 1 : 3; }

  void produce(std::uint64_t who, bool waiting) {
    const Ring ring = world_.attach(static_cast<std::uint32_t>(who));
    std::mt19937_64 random(who);
    for (std::uint64_t i = 0; i < kEach;) {
      std::array<RegionPtr, 8> batch;
      const std::size_t count = std::min<std::uint64_t>(1 + random() % batch.size(), kEach - i);
      for (std::size_t k = 0; k < count; ++k) {
        const std::uint64_t number = who * kEach + i + k;
        payloads_[number].value = number * 3 + 1;
        batch[k] = element(number);
      }
      for (std::size_t done = 0; done < count;) {
        if (waiting) {
          const auto pushed = ring.push_wait(batch[done], std::chrono::nanoseconds::max());
          if (!pushed) return fail(pushed.error());
          ++done;
        } else if (const auto pushed = ring.push(std::span(batch).subspan(done, count - done)); pushed) {
          done += *pushed;
        } else {
          if (pushed.error().code() != EAGAIN) return fail(pushed.error());
          std::this_thread::yield();
        }
      }
      i += count;
    }
  }

  void consume(std::uint64_t who, bool waiting) {
    const Ring ring = world_.attach(static_cast<std::uint32_t>(100 + who));
    std::array<std::uint64_t, 3> next{};  // of each producer, the least number that may still come
    std::mt19937_64 random(who);
    while (left_.load(std::memory_order_relaxed) > 0) {
      std::array<RegionPtr, 8> out{};
      std::size_t count = 0;
      if (random() % 2 == 0) {
        const auto taken = waiting ? ring.take_wait(std::chrono::milliseconds(20)) : ring.take();
        if (taken) {
          out[count++] = taken->ptr;
          if (const auto settled = ring.settle(*taken); !settled) return fail(settled.error());
        } else if (taken.error().code() != EAGAIN && taken.error().code() != ETIMEDOUT) {
          return fail(taken.error());
        }
      } else {
        const auto popped = ring.pop(std::span(out).first(1 + random() % out.size()));
        if (!popped && popped.error().code() != EAGAIN) return fail(popped.error());
        count = popped.value_or(0);
      }
      if (count == 0) std::this_thread::yield();
      for (std::size_t k = 0; k < count; ++k) {
        const std::uint64_t number = number_of(out[k]);
        std::uint64_t& least = next.at(number / kEach);
        if (number < least) return fail("out of order, or twice");
        least = number + 1;
        if (payloads_.at(number).value != number * 3 + 1) return fail("the payload is not visible");
        if (seen_[number].exchange(1, std::memory_order_relaxed) != 0) return fail("twice");
      }
      left_.fetch_sub(static_cast<std::int64_t>(count), std::memory_order_relaxed);
    }
  }

  void run(bool waiting) {
    left_ = static_cast<std::int64_t>(producers() * kEach);
    std::vector<std::thread> threads;
    for (std::uint64_t i = 0; i < producers(); ++i) threads.emplace_back([=, this] { produce(i, waiting); });
    for (std::uint64_t i = 0; i < consumers(); ++i) threads.emplace_back([=, this] { consume(i, waiting); });
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(left_.load(), 0);
    const Ring ring = world_.attach(0);
    EXPECT_EQ(ring.size_hint(), 0u);
    EXPECT_TRUE(ring.check());
    for (std::uint64_t i = 0; i < producers() * kEach; ++i) ASSERT_EQ(seen_[i].load(), 1) << i;
  }

  void fail(Error error) { fail(error.message()); }
  void fail(const char* why) {
    ADD_FAILURE() << why;
    left_.store(0);
    std::_Exit(1);  // the other side may wait for ever
  }

  RingWorld world_{kind(), 32};
  std::vector<Payload> payloads_{std::vector<Payload>(3 * kEach)};
  std::vector<std::atomic<int>> seen_{std::vector<std::atomic<int>>(3 * kEach)};
  std::atomic<std::int64_t> left_{0};
};
INSTANTIATE_TEST_SUITE_P(Kind, RingThreads, ::testing::Values(RingKind::spsc, RingKind::mpmc),
                         [](const auto& test) { return kind_name(test.param); });

TEST_P(RingThreads, PassEachElementOnce) { run(false); }
TEST_P(RingThreads, PassEachElementOnceWhileTheyWait) { run(true); }

class RingRecoverers : public ::testing::TestWithParam<RingKind> {};
INSTANTIATE_TEST_SUITE_P(Kind, RingRecoverers, ::testing::Values(RingKind::spsc, RingKind::mpmc),
                         [](const auto& test) { return kind_name(test.param); });

TEST_P(RingRecoverers, ShareTheOrphans) {
  constexpr int kRounds = 300;
  const RingWorld world(GetParam(), 64);
  const Ring dead = world.attach(9);
  std::vector<std::atomic<int>> reports(64 + 1);
  for (int round = 0; round < kRounds; ++round) {
    for (std::uint64_t i = 1; i <= 64; ++i) {
      ASSERT_TRUE(dead.try_push(element(i)));
      reports[i].store(0);
    }
    for (int i = 0; i < 64; ++i) ASSERT_TRUE(dead.take());
    std::array<std::thread, 3> threads;
    std::atomic<std::size_t> ready{0};
    for (std::uint32_t who = 0; who < threads.size(); ++who) {
      threads[who] = std::thread([&, who] {
        const Ring ring = world.attach(who);
        const auto is_dead = [&](std::uint32_t participant) { return participant == 9; };
        const auto on_orphan = [&](const RingOrphan& orphan) { reports[number_of(orphan.ptr)].fetch_add(1); };
        ready.fetch_add(1);
        while (ready.load() < threads.size()) std::this_thread::yield();
        EXPECT_TRUE(ring.recover({.is_dead = is_dead, .on_orphan = on_orphan}));
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (std::uint64_t i = 1; i <= 64; ++i) ASSERT_EQ(reports[i].load(), 1) << i;
  }
  EXPECT_TRUE(dead.check());
}

}  // namespace
}  // namespace extmem::shared::test
