// What a ring does while nobody dies: both kinds, one thread.
#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <deque>
#include <random>
#include <thread>

#include "unit/shared/ring_world.hpp"

namespace extmem::shared::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;

class RingTest : public ::testing::TestWithParam<RingKind> {
 protected:
  static RingKind kind() { return GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(Kind, RingTest, ::testing::Values(RingKind::spsc, RingKind::mpmc),
                         [](const auto& test) { return kind_name(test.param); });

TEST_P(RingTest, SaysHowManyBytesItNeeds) {
  const std::size_t slot = kind() == RingKind::mpmc ? 16 : 8;
  EXPECT_EQ(*Ring::bytes_for(kind(), 2), 256 + 2 * slot);
  EXPECT_EQ(*Ring::bytes_for(kind(), 1024), 256 + 1024 * slot);
  EXPECT_EQ(*Ring::bytes_for(kind(), kMaxRingCapacity), 256 + kMaxRingCapacity * slot);
  for (const std::size_t bad : {0ul, 1ul, 3ul, 1000ul, kMaxRingCapacity * 2, ~0ul}) {
    EXPECT_FAILS(Ring::bytes_for(kind(), bad), EINVAL);
  }
}

TEST(RingKinds, OthersAreRefused) {
  SharedMemory memory(4096);
  for (const std::uint32_t bad : {0u, 3u, ~0u}) {
    EXPECT_FAILS(Ring::bytes_for(static_cast<RingKind>(bad), 4), EINVAL);
    EXPECT_FAILS(Ring::create(memory.base(), memory.bytes(), static_cast<RingKind>(bad), 4), EINVAL);
  }
}

TEST_P(RingTest, RefusesBadMemory) {
  SharedMemory memory(4096);
  const std::size_t needed = *Ring::bytes_for(kind(), 4);
  EXPECT_FAILS(Ring::create(nullptr, 4096, kind(), 4), EINVAL);
  EXPECT_FAILS(Ring::create(memory.base() + 8, 4000, kind(), 4), EINVAL);
  EXPECT_FAILS(Ring::create(memory.base(), needed - 1, kind(), 4), ENOSPC);
  EXPECT_FAILS(Ring::create(memory.base(), 4096, kind(), 5), EINVAL);
  EXPECT_EQ(std::count(memory.base(), memory.base() + 4096, std::byte{0}),
            4096);  // a refusal has written nothing
  ASSERT_TRUE(Ring::create(memory.base(), needed, kind(), 4));
  EXPECT_FAILS(Ring::attach(nullptr, 4096, 0), EINVAL);
  EXPECT_FAILS(Ring::attach(memory.base() + 32, 4000, 0), EINVAL);
  EXPECT_FAILS(Ring::attach(memory.base(), needed - 1, 0), EMSGSIZE);
  EXPECT_FAILS(Ring::attach(memory.base(), 255, 0), EMSGSIZE);
  EXPECT_FAILS(Ring::attach(memory.base(), needed, kMaxRingParticipant + 1), EINVAL);
  EXPECT_TRUE(Ring::attach(memory.base(), needed, kMaxRingParticipant));
}

TEST(RingHandle, RefusesWhenEmpty) {
  const Ring none;
  EXPECT_FALSE(none);
  EXPECT_EQ(none.capacity(), 0u);
  EXPECT_EQ(none.size_hint(), 0u);
  std::array<RegionPtr, 2> ptrs{element(1), element(2)};
  const auto is_dead = [](std::uint32_t) { return false; };
  const auto on_orphan = [](const RingOrphan&) {};
  const RingWatch watch{.is_dead = is_dead, .on_orphan = on_orphan};
  EXPECT_FAILS(none.try_push(element(1)), EINVAL);
  EXPECT_FAILS(none.push(ptrs), EINVAL);
  EXPECT_FAILS(none.try_pop(), EINVAL);
  EXPECT_FAILS(none.pop(ptrs), EINVAL);
  EXPECT_FAILS(none.take(), EINVAL);
  EXPECT_FAILS(none.settle({}), EINVAL);
  EXPECT_FAILS(none.push_wait(element(1), nanoseconds(0)), EINVAL);
  EXPECT_FAILS(none.pop_wait(nanoseconds(0)), EINVAL);
  EXPECT_FAILS(none.take_wait(nanoseconds(0)), EINVAL);
  EXPECT_FAILS(none.recover(watch), EINVAL);
  EXPECT_FAILS(none.walk([](const RingEntry&) { return true; }), EINVAL);
  EXPECT_FAILS(none.check(), EINVAL);
  EXPECT_FAILS(none.detach(), EINVAL);
  static_assert(sizeof(Ring) == 16 && std::is_trivially_copyable_v<Ring>);
}

TEST_P(RingTest, RefusesBadArguments) {
  const RingWorld world(kind(), 4);
  const Ring ring = world.attach(7);
  EXPECT_EQ(ring.kind(), kind());
  EXPECT_EQ(ring.capacity(), 4u);
  EXPECT_EQ(ring.participant(), 7u);
  std::array<RegionPtr, 2> second_null{element(1), RegionPtr{}};
  EXPECT_FAILS(ring.try_push(RegionPtr{}), EINVAL);
  EXPECT_FAILS(ring.push({}), EINVAL);
  EXPECT_FAILS(ring.push(second_null), EINVAL);
  EXPECT_EQ(ring.size_hint(), 0u);
  EXPECT_FAILS(ring.pop({}), EINVAL);
  EXPECT_FAILS(ring.settle({.ptr = {}, .ticket = 0}), kind() == RingKind::mpmc ? EINVAL : ESTALE);
  EXPECT_FAILS(ring.settle({.ptr = {}, .ticket = ~0ul}), ESTALE);
  EXPECT_FAILS(ring.push_wait(RegionPtr{}, milliseconds(1)), EINVAL);
  EXPECT_FAILS(ring.push_wait(element(1), nanoseconds(-1)), EINVAL);
  EXPECT_FAILS(ring.pop_wait(nanoseconds(-1)), EINVAL);
  const auto is_dead = [](std::uint32_t) { return false; };
  const auto on_orphan = [](const RingOrphan&) {};
  EXPECT_FAILS(ring.pop_wait(nanoseconds(0), {.is_dead = is_dead}), EINVAL);
  EXPECT_FAILS(ring.take_wait(nanoseconds(0), {.on_orphan = on_orphan}), EINVAL);
  EXPECT_FAILS(ring.recover({}), EINVAL);
  EXPECT_FAILS(ring.recover({.is_dead = is_dead}), EINVAL);
  EXPECT_FAILS(ring.recover({.on_orphan = on_orphan}), EINVAL);
  EXPECT_FAILS(ring.walk({}), EINVAL);
  EXPECT_TRUE(ring.check());
}

TEST_P(RingTest, GivesBackInOrderFullAndEmpty) {
  for (const std::size_t capacity : {2u, 4u, 64u}) {
    const RingWorld world(kind(), capacity);
    const Ring ring = world.attach(0);
    EXPECT_FAILS(ring.try_pop(), EAGAIN);
    std::uint64_t pushed = 1;
    std::uint64_t popped = 1;
    for (int lap = 0; lap < 5; ++lap) {
      while (pushed - popped < capacity) ASSERT_TRUE(ring.try_push(element(pushed++)));
      EXPECT_FAILS(ring.try_push(element(999)), EAGAIN);
      EXPECT_EQ(ring.size_hint(), capacity);
      ASSERT_TRUE(ring.check());
      EXPECT_EQ(content(ring).size(), capacity);
      EXPECT_EQ(content(ring).front(), popped);
      while (popped < pushed) ASSERT_EQ(number_of(*ring.try_pop()), popped++);
      EXPECT_FAILS(ring.try_pop(), EAGAIN);
      EXPECT_EQ(ring.size_hint(), 0u);
      ASSERT_TRUE(ring.push(std::array{element(pushed++)}));  // the next lap begins elsewhere
    }
  }
}

TEST_P(RingTest, PassesBatchesAsFarAsTheyFit) {
  const RingWorld world(kind(), 8);
  const Ring ring = world.attach(0);
  std::vector<RegionPtr> many;
  for (std::uint64_t i = 1; i <= 20; ++i) many.push_back(element(i));
  std::array<RegionPtr, 20> out{};
  EXPECT_EQ(*ring.push(many), 8u);
  EXPECT_FAILS(ring.push(many), EAGAIN);
  EXPECT_EQ(*ring.pop(std::span(out).first(3)), 3u);
  EXPECT_EQ(*ring.push(std::span(many).subspan(8)), 3u);
  EXPECT_EQ(*ring.pop(out), 8u);
  for (std::uint64_t i = 0; i < 8; ++i) EXPECT_EQ(number_of(out[i]), 4 + i);
  EXPECT_FAILS(ring.pop(out), EAGAIN);
}

TEST_P(RingTest, AgreesWithAQueue) {
  std::mt19937_64 random(3);
  const RingWorld world(kind(), 16);
  const Ring ring = world.attach(0);
  std::deque<std::uint64_t> model;
  std::deque<RingTaken> taken;
  std::uint64_t next = 1;
  for (int step = 0; step < 20'000; ++step) {
    std::array<RegionPtr, 20> some{};
    const std::size_t count = 1 + random() % some.size();
    switch (random() % 4) {
      case 0: {
        for (std::size_t i = 0; i < count; ++i) some[i] = element(next + i);
        const auto pushed = ring.push(std::span(some).first(count));
        ASSERT_EQ(pushed.ok() ? *pushed : 0, std::min(count, 16 - model.size() - taken.size()));
        for (std::size_t i = 0; pushed && i < *pushed; ++i) model.push_back(next++);
        break;
      }
      case 1: {
        if (!taken.empty()) break;
        const auto popped = ring.pop(std::span(some).first(count));
        ASSERT_EQ(popped.ok() ? *popped : 0, std::min(count, model.size()));
        for (std::size_t i = 0; popped && i < *popped; ++i, model.pop_front()) {
          ASSERT_EQ(number_of(some[i]), model.front());
        }
        break;
      }
      case 2: {
        const auto one = ring.take();
        ASSERT_EQ(one.ok(), !model.empty());
        if (!one) break;
        ASSERT_EQ(number_of(one->ptr), model.front());
        taken.push_back(*one);
        model.pop_front();
        break;
      }
      default:
        for (; !taken.empty() && random() % 4 != 0; taken.pop_front())
          ASSERT_TRUE(ring.settle(taken.front()));
    }
    ASSERT_EQ(ring.size_hint(), model.size());
    if (step % 16 != 0) continue;
    const auto checked = ring.check();
    ASSERT_TRUE(checked) << checked.error().message();
    ASSERT_EQ(content(ring).size(), model.size() + taken.size());
  }
}

TEST_P(RingTest, KeepsWhatIsTakenUntilItIsSettled) {
  const RingWorld world(kind(), 4);
  const Ring ring = world.attach(5);
  for (std::uint64_t i = 1; i <= 4; ++i) ASSERT_TRUE(ring.try_push(element(i)));
  const RingTaken first = *ring.take();
  const RingTaken second = *ring.take();
  EXPECT_EQ(number_of(second.ptr), 2u);
  EXPECT_EQ(second.ticket, 1u);
  EXPECT_FAILS(ring.try_push(element(5)), EAGAIN);  // both are in their slots still
  std::vector<RingEntry> entries;
  ASSERT_TRUE(ring.walk([&](const RingEntry& entry) {
    entries.push_back(entry);
    return true;
  }));
  ASSERT_EQ(entries.size(), 4u);
  EXPECT_TRUE(entries[1].taken);
  EXPECT_EQ(entries[1].participant, 5u);
  EXPECT_FALSE(entries[2].taken);
  ASSERT_TRUE(ring.check());
  if (kind() == RingKind::spsc) {
    EXPECT_FAILS(ring.settle(second), EINVAL);  // out of order
    EXPECT_FAILS(ring.try_pop(), EBUSY);
    EXPECT_FAILS(ring.detach(), EBUSY);
  }
  ASSERT_TRUE(ring.settle(first));
  EXPECT_FAILS(ring.settle(first), kind() == RingKind::spsc ? EINVAL : ESTALE);
  ASSERT_TRUE(ring.try_push(element(5)));
  EXPECT_FAILS(ring.settle(first), kind() == RingKind::spsc ? EINVAL : ESTALE);
  ASSERT_TRUE(ring.settle(second));
  for (std::uint64_t i = 3; i <= 5; ++i) EXPECT_EQ(number_of(*ring.try_pop()), i);
  EXPECT_TRUE(ring.check());
}

TEST_P(RingTest, MeansTheSameAtAnotherAddress) {
  const RingWorld world(kind(), 4);
  ASSERT_TRUE(world.attach(1).try_push(element(1)));
  SharedMemory elsewhere(world.bytes());
  std::memcpy(elsewhere.base(), world.base(), world.bytes());
  const Ring moved = *Ring::attach(elsewhere.base(), elsewhere.bytes(), 2);
  EXPECT_EQ(number_of(*moved.try_pop()), 1u);
}

TEST(RingSpsc, HasOneProducerAndOneConsumer) {
  const RingWorld world(RingKind::spsc, 4);
  const Ring one = world.attach(1);
  const Ring two = world.attach(2);
  ASSERT_TRUE(one.try_push(element(1)));
  EXPECT_FAILS(two.try_push(element(2)), EBUSY);
  EXPECT_EQ(number_of(*two.try_pop()), 1u);
  EXPECT_FAILS(one.try_pop(), EBUSY);
  ASSERT_TRUE(one.detach());
  ASSERT_TRUE(two.try_push(element(2)));
  EXPECT_FAILS(one.push_wait(element(3), milliseconds(1)), EBUSY);
  ASSERT_TRUE(two.detach());
  EXPECT_EQ(number_of(*one.try_pop()), 2u);
}

TEST_P(RingTest, ReportsWhatADeadTakerHad) {
  const RingWorld world(kind(), 4);
  const Ring alive = world.attach(1);
  const Ring dead = world.attach(2);
  for (std::uint64_t i = 1; i <= 4; ++i) ASSERT_TRUE(alive.try_push(element(i)));
  ASSERT_TRUE(dead.take());
  const RingTaken held = *dead.take();
  EXPECT_TRUE(recovered(alive, [](std::uint32_t) { return false; }).empty());
  const auto orphans = recovered(alive, [](std::uint32_t participant) { return participant == 2; });
  ASSERT_EQ(orphans.size(), 2u);
  EXPECT_EQ(number_of(orphans[1].ptr), 2u);
  EXPECT_EQ(orphans[1].ticket, 1u);
  EXPECT_EQ(orphans[1].participant, 2u);
  EXPECT_TRUE(recovered(alive, [](std::uint32_t participant) { return participant == 2; }).empty());
  EXPECT_FAILS(dead.settle(held), ESTALE);
  ASSERT_TRUE(alive.try_push(element(5)));
  for (std::uint64_t i = 3; i <= 5; ++i) EXPECT_EQ(number_of(*alive.try_pop()), i);
  EXPECT_TRUE(alive.check());
}

// A recoverer is slow: between its question and its step another one recovers, and the dead one's number is given to a
// living participant, which takes in its turn.
TEST_P(RingTest, SlowRecoverersLeaveTheNewHolderOfANumberAlone) {
  const RingWorld world(kind(), 4);
  const Ring producer = world.attach(1);
  for (std::uint64_t i = 1; i <= 4; ++i) ASSERT_TRUE(producer.try_push(element(i)));
  ASSERT_TRUE(world.attach(2).take());
  RingTaken reborn;
  const auto slow = recovered(world.attach(3), [&](std::uint32_t participant) {
    if (participant != 2 || reborn.ptr) return false;
    const auto quick = recovered(world.attach(4), [](std::uint32_t other) { return other == 2; });
    EXPECT_EQ(quick.size(), 1u);
    reborn = world.attach(2).take().value_or(RingTaken{});
    return true;  // of the dead one, that was
  });
  EXPECT_TRUE(slow.empty());
  EXPECT_EQ(number_of(reborn.ptr), 2u);
  EXPECT_TRUE(world.attach(2).settle(reborn));
}

TEST_P(RingTest, WaitsNoLongerThanAsked) {
  const RingWorld world(kind(), 2);
  const Ring ring = world.attach(0);
  const auto start = std::chrono::steady_clock::now();
  EXPECT_FAILS(ring.pop_wait(nanoseconds(0)), ETIMEDOUT);
  EXPECT_FAILS(ring.pop_wait(milliseconds(25)), ETIMEDOUT);
  EXPECT_FAILS(ring.take_wait(milliseconds(1)), ETIMEDOUT);
  EXPECT_GE(std::chrono::steady_clock::now() - start, milliseconds(26));
  ASSERT_TRUE(ring.push_wait(element(1), nanoseconds(0)));
  ASSERT_TRUE(ring.push_wait(element(2), nanoseconds::max()));
  EXPECT_FAILS(ring.push_wait(element(3), milliseconds(1)), ETIMEDOUT);
  EXPECT_EQ(number_of(*ring.pop_wait(nanoseconds::max())), 1u);
  const auto taken = ring.take_wait(nanoseconds::max());
  ASSERT_TRUE(taken);
  EXPECT_TRUE(ring.settle(*taken));
}

TEST_P(RingTest, WakesWhoWaits) {
  const RingWorld world(kind(), 2);
  const auto start = std::chrono::steady_clock::now();
  std::thread consumer([&] {
    const Ring ring = world.attach(2);
    for (std::uint64_t i = 1; i <= 20; ++i) {
      EXPECT_EQ(number_of(ring.pop_wait(nanoseconds::max()).value_or(RegionPtr{})), i);
      if (i % 4 == 0) std::this_thread::sleep_for(milliseconds(1));
    }
  });
  const Ring ring = world.attach(1);
  for (std::uint64_t i = 1; i <= 20; ++i) {
    if (i % 5 == 0) std::this_thread::sleep_for(milliseconds(1));
    EXPECT_TRUE(ring.push_wait(element(i), nanoseconds::max()));
  }
  consumer.join();
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60));
}

/// How long after `change` a thread that sleeps in `wait` returns: the best of some rounds, of more where the machine is loaded.
/// A round in which the change came late does not count: the sleeper would soon look again by itself.
template <typename Wait, typename Change>
nanoseconds wake_time(Wait wait, Change change) {
  nanoseconds best = nanoseconds::max();
  for (int round = 0; round < 10 || (round < 1000 && best >= milliseconds(4)); ++round) {
    std::chrono::steady_clock::time_point woken;
    const auto begun = std::chrono::steady_clock::now();
    std::thread sleeper([&] {
      EXPECT_TRUE(wait());
      woken = std::chrono::steady_clock::now();
    });
    std::this_thread::sleep_for(milliseconds(2));  // it sleeps by now, and would look again 8 ms later
    const auto changed = std::chrono::steady_clock::now();
    change();
    sleeper.join();
    if (changed - begun < milliseconds(5)) best = std::min(best, nanoseconds(woken - changed));
  }
  return best;
}

TEST_P(RingTest, WakesAtOnceNotAtTheNextLook) {
  const RingWorld world(kind(), 2);
  const Ring one = world.attach(1);  // pushes
  const Ring two = world.attach(2);  // pops
  const auto pop_wait = [&] { return two.pop_wait(nanoseconds::max()).ok(); };
  EXPECT_LT(wake_time(pop_wait, [&] { EXPECT_TRUE(one.try_push(element(1))); }), milliseconds(4));

  const auto push_wait = [&] { return one.push_wait(element(1), nanoseconds::max()).ok(); };
  ASSERT_TRUE(one.try_push(element(1)));
  ASSERT_TRUE(one.try_push(element(1)));
  EXPECT_LT(wake_time(push_wait, [&] { EXPECT_TRUE(two.try_pop()); }), milliseconds(4));
  EXPECT_LT(wake_time(push_wait, [&] { EXPECT_TRUE(two.settle(two.take().value_or(RingTaken{}))); }),
            milliseconds(4));
  const auto die = [&] {
    EXPECT_TRUE(two.take());
    EXPECT_EQ(recovered(world.attach(3), [](std::uint32_t participant) { return participant == 2; }).size(),
              1u);
  };
  EXPECT_LT(wake_time(push_wait, die), milliseconds(4));
}

TEST_P(RingTest, RecoversWhileItWaits) {
  const RingWorld world(kind(), 2);
  const Ring alive = world.attach(1);
  ASSERT_TRUE(alive.try_push(element(1)));
  ASSERT_TRUE(alive.try_push(element(2)));
  ASSERT_TRUE(world.attach(2).take());
  EXPECT_FAILS(alive.push_wait(element(3), milliseconds(1)), ETIMEDOUT);
  std::vector<std::uint64_t> orphans;
  const auto is_dead = [](std::uint32_t participant) { return participant == 2; };
  const auto on_orphan = [&](const RingOrphan& orphan) { orphans.push_back(number_of(orphan.ptr)); };
  ASSERT_TRUE(alive.push_wait(element(3), nanoseconds::max(), {.is_dead = is_dead, .on_orphan = on_orphan}));
  EXPECT_EQ(orphans, std::vector<std::uint64_t>{1});
  EXPECT_EQ(content(alive), (std::vector<std::uint64_t>{2, 3}));
}

TEST(RingSpsc, DoesNotWaitForALivingOnesPlace) {
  const RingWorld world(RingKind::spsc, 2);
  const Ring other = world.attach(2);
  ASSERT_TRUE(other.try_push(element(1)));
  const auto taken = other.take();
  ASSERT_TRUE(taken);
  const auto is_dead = [](std::uint32_t) { return false; };
  const auto on_orphan = [](const RingOrphan&) {};
  const RingWatch watch{.is_dead = is_dead, .on_orphan = on_orphan};
  const Ring ring = world.attach(1);
  EXPECT_FAILS(ring.push_wait(element(2), nanoseconds::max(), watch), EBUSY);
  EXPECT_FAILS(ring.take_wait(nanoseconds::max(), watch), EBUSY);
  ASSERT_TRUE(other.try_push(element(2)));
  EXPECT_FAILS(other.pop_wait(nanoseconds::max(), watch), EBUSY);  // its own, taken and not settled
}

TEST(RingSpsc, FreesTheProducersPlaceWhileItWaits) {
  const RingWorld world(RingKind::spsc, 2);
  ASSERT_TRUE(world.attach(2).try_push(element(1)));
  const auto is_dead = [](std::uint32_t participant) { return participant == 2; };
  const auto on_orphan = [](const RingOrphan&) {};
  const Ring alive = world.attach(1);
  EXPECT_TRUE(alive.push_wait(element(2), milliseconds(100), {.is_dead = is_dead, .on_orphan = on_orphan}));
}

}  // namespace
}  // namespace extmem::shared::test
