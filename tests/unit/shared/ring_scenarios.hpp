// One operation on a ring, interrupted anywhere: the scenarios, and the books that must balance afterwards.
//
// A scenario prepares a ring and lets a victim (participant 3) do one thing to it. Whatever is left of the memory when
// the victim dies goes to Books::balance, which lets a survivor work without and with recovery and then demands of
// every element: in the ring, or reported as an orphan, or in the victim's hand (shared memory that it wrote before
// settling), exactly once.
#pragma once

#include <algorithm>
#include <array>
#include <functional>
#include <set>

#include "shared/ring_format.hpp"
#include "unit/shared/ring_world.hpp"

namespace extmem::shared::test {

inline constexpr std::uint32_t kSurvivor = 1;
inline constexpr std::uint32_t kOtherDead = 2;
inline constexpr std::uint32_t kVictim = 3;
inline constexpr std::size_t kScenarioCapacity = 8;
inline constexpr std::uint64_t kFirstPushed = 100;  // the victim pushes 100, 101, ...

/// What the victim shares with those who look at it after its death.
struct Hand {
  std::array<RegionPtr, 16> out;
  std::uint64_t extra;  ///< elements noted in out[8...]
  void note(RegionPtr ptr) {
    out[8 + extra] = ptr;
    ++extra;
  }
};

struct Scenario {
  const char* name;
  RingKind kind;
  std::uint64_t before;                           ///< elements 1..before are in the ring, in this order
  std::function<void(const RingWorld&)> prepare;  ///< after those were pushed
  std::function<void(const Ring&, Hand&)> operation;
  bool in_register = false;  ///< the result is in a register for a moment: one element may be in no book
};

inline RingHeader& header_at(std::byte* ring) { return *reinterpret_cast<RingHeader*>(ring); }

/// The memory of one scenario: the ring, then the hand.
class Stage {
 public:
  explicit Stage(const Scenario& scenario)
      : scenario_(scenario),
        world_(scenario.kind, kScenarioCapacity),
        memory_(world_.bytes() + sizeof(Hand)) {
    if (scenario.kind == RingKind::mpmc || scenario.before > 0) {
      const Ring producer = world_.attach(kOtherDead);
      // Not at the start of the slots, so that batches wrap around.
      for (int i = 0; i < 5; ++i) {
        if (!producer.try_push(element(999)) || !producer.try_pop()) std::abort();
      }
      for (std::uint64_t i = 1; i <= scenario.before; ++i) {
        if (!producer.try_push(element(i))) std::abort();
      }
      if (!producer.detach()) std::abort();
    }
    if (scenario.prepare) scenario.prepare(world_);
    std::memcpy(memory_.base(), world_.base(), world_.bytes());
  }
  [[nodiscard]] std::size_t ring_bytes() const { return world_.bytes(); }
  [[nodiscard]] std::byte* base() const { return memory_.base(); }
  [[nodiscard]] std::size_t bytes() const { return memory_.bytes(); }
  [[nodiscard]] Hand& hand() const { return *reinterpret_cast<Hand*>(base() + ring_bytes()); }
  /// What the victim's process does.
  void act(const Ring& ring) const { scenario_.operation(ring, hand()); }
  [[nodiscard]] Ring attach(std::uint32_t participant) const {
    return *Ring::attach(base(), ring_bytes(), participant);
  }

 private:
  const Scenario& scenario_;
  RingWorld world_;
  SharedMemory memory_;
};

/// Balances what is left of a stage. Works on copies; the stage is only read.
class Books {
 public:
  Books(const Scenario& scenario, const Stage& stage)
      : scenario_(scenario), stage_(stage), copy_(stage.bytes()), ring_(stage.attach(kSurvivor)) {
    take_copy();
    ring_ = *Ring::attach(copy_.base(), stage.ring_bytes(), kSurvivor);
  }

  void balance(const std::string& where) {
    SCOPED_TRACE(std::string(scenario_.name) + " " + kind_name(scenario_.kind) + ", " + where);
    ++balanced_;
    goes_on_without_recovery();
    take_copy();
    const auto orphans = recovered(
        ring_, [](std::uint32_t participant) { return participant == kOtherDead || participant == kVictim; });
    const auto checked = ring_.check();
    EXPECT_TRUE(checked) << checked.error().message();
    std::array<int, 256> counts{};
    for (const RingOrphan& orphan : orphans) ++counts.at(number_of(orphan.ptr));
    const auto& hand = *reinterpret_cast<const Hand*>(copy_.base() + stage_.ring_bytes());
    std::set<std::uint64_t> held;
    for (const RegionPtr ptr : hand.out) {
      if (ptr) held.insert(number_of(ptr));
    }
    std::uint64_t last = 0;
    while (const auto ptr = ring_.try_pop()) {
      const std::uint64_t number = number_of(*ptr);
      EXPECT_EQ(held.count(number), 0u) << "element " << number << " is in the ring and in the victim's hand";
      ++counts.at(number);
      EXPECT_GT(number, last) << "out of order";
      last = number;
    }
    std::uint64_t lost = 0;
    for (std::uint64_t i = 1; i <= scenario_.before; ++i) {
      if (counts[i] == 0 && held.count(i) == 0) ++lost;
      EXPECT_LE(counts[i], 1) << "element " << i << " twice";
    }
    EXPECT_LE(lost, scenario_.in_register ? 1u : 0u);
    // What the victim pushed is there as a prefix, and what was there stays.
    std::uint64_t pushed = 0;
    while (counts[kFirstPushed + pushed] == 1) ++pushed;
    for (std::uint64_t i = kFirstPushed + pushed; i < counts.size(); ++i) EXPECT_EQ(counts[i], 0) << i;
    EXPECT_GE(pushed, pushed_);
    pushed_ = pushed;
    works_as_new();
  }
  /// Elements of the victim's that were in the ring at the last balance.
  [[nodiscard]] std::uint64_t pushed() const { return pushed_; }
  [[nodiscard]] int balanced() const { return balanced_; }

 private:
  void take_copy() { std::memcpy(copy_.base(), stage_.base(), stage_.bytes()); }

  /// Others pass what can be passed at once; nobody hangs. (An spsc ring's places may be the dead one's.)
  void goes_on_without_recovery() {
    take_copy();
    std::uint64_t last = 0;
    int popped = 0;
    for (; popped < 100; ++popped) {
      const auto ptr = ring_.try_pop();
      if (!ptr) {
        EXPECT_TRUE(ptr.error().code() == EAGAIN ||
                    (ptr.error().code() == EBUSY && scenario_.kind == RingKind::spsc))
            << ptr.error().message();
        break;
      }
      EXPECT_GT(number_of(*ptr), last);
      last = number_of(*ptr);
    }
    EXPECT_LE(popped, static_cast<int>(kScenarioCapacity));
    const auto pushed = ring_.try_push(element(200));
    const int code = pushed.error().code();
    EXPECT_TRUE(pushed || code == EAGAIN || (code == EBUSY && scenario_.kind == RingKind::spsc));
  }
  /// After recovery every slot is usable again.
  void works_as_new() {
    for (std::uint64_t i = 0; i < 2 * kScenarioCapacity; ++i) {
      if (i >= kScenarioCapacity) {
        EXPECT_EQ(number_of(ring_.try_pop().value_or(RegionPtr{})), i - kScenarioCapacity + 1);
      }
      EXPECT_TRUE(ring_.try_push(element(i + 1))) << i;
    }
  }

  const Scenario& scenario_;
  const Stage& stage_;
  SharedMemory copy_;
  Ring ring_;
  std::uint64_t pushed_ = 0;
  int balanced_ = 0;
};

inline void take_as_other(const RingWorld& world) {
  const Ring other = world.attach(kOtherDead);
  if (!other.take() || !other.take()) std::abort();
}
/// As if the pusher had died between its CAS and moving tail on, a taker between its CAS and moving head on.
inline void lag(const RingWorld& world) {
  header_at(world.base()).tail.fetch_sub(1);
  header_at(world.base()).head.fetch_sub(1);
}
inline void somebody_sleeps(const RingWorld& world) {
  header_at(world.base()).elements.fetch_or(1);
  header_at(world.base()).room.fetch_or(1);
}

inline void push_one(const Ring& ring, Hand&) { (void)ring.try_push(element(kFirstPushed)); }
inline void push_five(const Ring& ring, Hand&) {
  std::array<RegionPtr, 5> ptrs;
  for (std::size_t i = 0; i < ptrs.size(); ++i) ptrs[i] = element(kFirstPushed + i);
  (void)ring.push(ptrs);
}
inline void pop_three(const Ring& ring, Hand& hand) { (void)ring.pop(std::span(hand.out).first(3)); }
inline void pop_into_register(const Ring& ring, Hand& hand) {
  if (const auto ptr = ring.try_pop()) hand.note(*ptr);
}
inline void take_note_settle(const Ring& ring, Hand& hand) {
  if (const auto taken = ring.take()) {
    hand.note(taken->ptr);
    (void)ring.settle(*taken);
  }
}
inline void take_two(const Ring& ring, Hand& hand) {
  const auto first = ring.take();
  const auto second = ring.take();
  if (!first || !second) return;
  hand.note(first->ptr);
  (void)ring.settle(*first);
  hand.note(second->ptr);
  (void)ring.settle(*second);
  (void)ring.detach();
}
inline void recover_other(const Ring& ring, Hand& hand) {
  const auto is_dead = [](std::uint32_t participant) { return participant == kOtherDead; };
  const auto on_orphan = [&](const RingOrphan& orphan) { hand.note(orphan.ptr); };
  (void)ring.recover({.is_dead = is_dead, .on_orphan = on_orphan});
}
inline void recover_and_push_back(const Ring& ring, Hand& hand) {
  recover_other(ring, hand);
  (void)ring.try_push(element(kFirstPushed));
}

inline std::vector<Scenario> scenarios() {
  std::vector<Scenario> all;
  for (const RingKind kind : {RingKind::spsc, RingKind::mpmc}) {
    const std::vector<Scenario> both{
        {"push to an empty ring", kind, 0, {}, push_one},
        {"push to a full ring", kind, 8, {}, push_one},
        {"push a batch", kind, 1, {}, push_five},
        {"push a batch that fits in part", kind, 6, {}, push_five},
        {"push where somebody sleeps", kind, 2, somebody_sleeps, push_one},
        {"push where a dead one has taken", kind, 8, take_as_other, push_one},
        {"pop from an empty ring", kind, 0, {}, pop_three},
        {"pop a batch", kind, 6, {}, pop_three},
        {"pop a batch of a full ring", kind, 8, {}, pop_three},
        {"pop the last ones", kind, 2, {}, pop_three},
        {"pop where somebody sleeps", kind, 4, somebody_sleeps, pop_three},
        {"pop into a register", kind, 3, {}, pop_into_register, true},
        {"take, note, settle", kind, 3, {}, take_note_settle},
        {"take two, settle both, detach", kind, 3, {}, take_two},
        {"recover from a dead taker", kind, 6, take_as_other, recover_other},
        {"recover, push", kind, 8, take_as_other, recover_and_push_back},
        {"recover where nobody died", kind, 2, {}, recover_other},
    };
    all.insert(all.end(), both.begin(), both.end());
  }
  const std::vector<Scenario> lagging{
      {"push where tail lags", RingKind::mpmc, 3, lag, push_five},
      {"pop where head lags", RingKind::mpmc, 3, lag, pop_three},
      {"take where both lag", RingKind::mpmc, 1, lag, take_note_settle},
      {"push to a full ring where both lag", RingKind::mpmc, 8, lag, push_one},
  };
  all.insert(all.end(), lagging.begin(), lagging.end());
  return all;
}

}  // namespace extmem::shared::test
