// Producers, consumers and recoverers that are killed at random, thousands of times, while the others go on. Every
// numbered record is then accounted for: delivered, still in the ring, or reported as an orphan; exactly once.
//
//   EXTMEM_RING_KILLS   how many kills for each kind of ring; the default takes a second or two
//   EXTMEM_SEED         another order of events (the operating system adds its own)
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <random>
#include <set>

#include "base/crash_point.hpp"
#include "unit/shared/ring_world.hpp"

namespace extmem::shared::test {
namespace {

using Random = std::mt19937_64;

constexpr std::uint32_t kActors = 6;
constexpr std::uint32_t kParent = 10;
constexpr std::uint64_t kMaxRecords = std::uint64_t{1} << 24;  // for each producer
constexpr std::uint64_t kUsualKills = kSanitized ? 60 : 500;   // a fork takes much longer there
constexpr std::size_t kBatch = 8;
constexpr std::uint8_t kByOrphan = 0x80;

enum class Part { producer, consumer, recoverer };

/// What a child leaves behind, in shared memory.
struct Traces {
  std::atomic<std::uint64_t> completed;  // producer: records below were pushed
  std::atomic<std::uint64_t> attempted;  // producer: records from here on were never given to the ring
  std::array<RegionPtr, kBatch> out;     // consumer: where it pops to, null before each pop
  RegionPtr hand;                        // consumer: what it has taken last
  RegionPtr orphan;                      // the orphan it was told of last
  std::atomic<std::uint64_t> operations;
};

/// A record that was met again: allowed only where its first accountant died with it in hand.
struct Again {
  std::uint64_t record;
  std::uint8_t seen;
  std::uint32_t participant;
};

struct Shared {
  std::atomic<bool> stop;
  std::array<std::atomic<bool>, kActors> dead;
  std::array<Traces, kActors> traces;
  std::atomic<std::uint64_t> twice;       // delivered, but accounted for before: a duplicate
  std::atomic<std::uint64_t> unexpected;  // errors that no call may give here
  std::atomic<std::uint64_t> agains;
  std::array<Again, 1 << 16> again;
  // Who accounted for a record first: 0 nobody, id + 1 by delivery, kByOrphan | (id + 1) as an orphan.
  std::array<std::atomic<std::uint8_t>, 2 * kMaxRecords> seen;
};

std::uint64_t record_of(std::uint32_t producer, std::uint64_t sequence) {
  return producer * kMaxRecords + sequence;
}

/// Lets a kill meet a child in the middle of an operation more often than chance would.
void dawdle(const char*) {
  thread_local std::minstd_rand random{static_cast<unsigned>(::getpid())};
  if (random() % 64 == 0) ::usleep(50);
}

class Actor {
 public:
  Actor(Shared& shared, const Ring& ring, std::uint64_t seed)
      : shared_(shared), mine_(shared.traces[ring.participant() % kActors]), ring_(ring), random_(seed) {}

  template <typename Call>
  auto with_watch(Call call) {
    const auto is_dead = [&](std::uint32_t id) { return id < kActors && shared_.dead[id].load(); };
    const auto on_orphan = [&](const RingOrphan& orphan) {
      mine_.orphan = orphan.ptr;
      std::atomic_signal_fence(std::memory_order_seq_cst);
      std::uint8_t before = 0;
      const auto by_me = static_cast<std::uint8_t>(kByOrphan | (ring_.participant() + 1));
      if (shared_.seen[number_of(orphan.ptr)].compare_exchange_strong(before, by_me)) return;
      const std::uint64_t at = shared_.agains.fetch_add(1);
      shared_.again.at(at) = {number_of(orphan.ptr), before, orphan.participant};
    };
    return call(RingWatch{.is_dead = is_dead, .on_orphan = on_orphan});
  }

  void produce() {
    std::uint64_t next = mine_.attempted.load();
    while (!shared_.stop.load(std::memory_order_relaxed)) {
      std::array<RegionPtr, kBatch> batch;
      const std::size_t count = 1 + random_() % kBatch;
      if (next + count > kMaxRecords) {
        ::usleep(1000);
        continue;
      }
      for (std::size_t i = 0; i < count; ++i) batch[i] = element(record_of(ring_.participant(), next + i));
      mine_.attempted.store(next + count);
      std::uint64_t done = 0;
      while (done < count && !shared_.stop.load(std::memory_order_relaxed)) {
        if (random_() % 8 == 0) {
          const auto pushed = with_watch([&](const RingWatch& watch) {
            return ring_.push_wait(batch[done], std::chrono::milliseconds(2), watch);
          });
          if (expected(pushed.error()) && pushed) ++done;
        } else {
          const auto pushed = ring_.push(std::span(batch).subspan(done, count - done));
          if (expected(pushed.error())) done += pushed.value_or(0);
        }
        mine_.completed.store(next + done);
        mine_.operations.fetch_add(1, std::memory_order_relaxed);
      }
      if (done < count) mine_.attempted.store(next + done);  // orderly end
      next += done;
    }
  }

  void consume() {
    while (!shared_.stop.load(std::memory_order_relaxed)) {
      switch (random_() % 8) {
        case 0:
          if (random_() % 8 == 0) recover();
          break;
        case 1: {
          const auto taken = with_watch(
              [&](const RingWatch& watch) { return ring_.take_wait(std::chrono::milliseconds(2), watch); });
          if (expected(taken.error()) && taken) settle(*taken);
          break;
        }
        case 2:
        case 3: {
          const auto taken = ring_.take();
          if (expected(taken.error()) && taken) settle(*taken);
          break;
        }
        default:
          pop();
      }
      mine_.operations.fetch_add(1, std::memory_order_relaxed);
    }
  }

  void recover_only() {
    while (!shared_.stop.load(std::memory_order_relaxed)) {
      recover();
      mine_.operations.fetch_add(1, std::memory_order_relaxed);
      if (random_() % 4 == 0) ::usleep(20);
    }
  }

  void recover() {
    const auto recovered = with_watch([&](const RingWatch& watch) { return ring_.recover(watch); });
    (void)expected(recovered.error());
  }

  void pop() {
    mine_.out.fill(RegionPtr{});
    const auto popped = ring_.pop(std::span(mine_.out).first(1 + random_() % kBatch));
    if (!expected(popped.error()) || !popped) return;
    for (std::size_t i = 0; i < *popped; ++i) deliver(mine_.out[i]);
  }

  /// An element that came through the ring: nobody may have accounted for it before.
  void deliver(RegionPtr ptr) {
    std::uint8_t nobody = 0;
    auto& seen = shared_.seen[number_of(ptr)];
    if (!seen.compare_exchange_strong(nobody, static_cast<std::uint8_t>(ring_.participant() + 1))) {
      shared_.twice.fetch_add(1);
    }
  }

 private:
  void settle(const RingTaken& taken) {
    mine_.hand = taken.ptr;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    deliver(taken.ptr);
    if (!ring_.settle(taken)) shared_.unexpected.fetch_add(1);
  }

  bool expected(Error error) {
    switch (error.code()) {
      case 0:
        return true;
      case EAGAIN:
      case ETIMEDOUT:
      case EBUSY:
        return true;  // EBUSY: an spsc place that is being recovered
      default:
        shared_.unexpected.fetch_add(1);
        return false;
    }
  }

  Shared& shared_;
  Traces& mine_;
  Ring ring_;
  Random random_;
};

class RingKill : public ::testing::TestWithParam<RingKind> {
 protected:
  static RingKind kind() { return GetParam(); }
  static Part part(std::uint32_t id) {
    if (kind() == RingKind::spsc)
      return id == 0 ? Part::producer : id == 1 ? Part::consumer : Part::recoverer;
    return id < 2 ? Part::producer : id < 4 ? Part::consumer : Part::recoverer;
  }
  static std::uint32_t actors() { return kind() == RingKind::spsc ? 4 : 6; }

  void start(std::uint32_t id) {
    const std::uint64_t seed = random_();
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (seed % 2 == 0) base::crash_point_hook = dawdle;
      Actor actor(shared_, *Ring::attach(world_.base(), world_.bytes(), id), seed);
      switch (part(id)) {
        case Part::producer:
          actor.produce();
          break;
        case Part::consumer:
          actor.consume();
          break;
        case Part::recoverer:
          actor.recover_only();
          break;
      }
      ::_exit(0);
    }
    children_[id] = child;
  }

  /// What the dead child had accounted for without having settled it may be met again.
  void note_hands(std::uint32_t id) {
    const Traces& traces = shared_.traces[id];
    for (const RegionPtr ptr : traces.out) {
      if (ptr) in_hands_.insert({number_of(ptr), static_cast<std::uint8_t>(id + 1)});
    }
    if (traces.hand) in_hands_.insert({number_of(traces.hand), static_cast<std::uint8_t>(id + 1)});
    if (traces.orphan) {
      in_hands_.insert({number_of(traces.orphan), static_cast<std::uint8_t>(kByOrphan | (id + 1))});
    }
  }

  /// What the dead child had popped into shared memory, and not yet counted, is delivered.
  void count_out(std::uint32_t id) {
    for (RegionPtr& ptr : shared_.traces[id].out) {
      if (!ptr) continue;
      std::uint8_t seen = 0;
      const auto by_id = static_cast<std::uint8_t>(id + 1);
      if (!shared_.seen[number_of(ptr)].compare_exchange_strong(seen, by_id)) {
        EXPECT_TRUE(seen == by_id || (seen & kByOrphan) != 0) << "record " << number_of(ptr) << " twice";
      }
      ptr = RegionPtr{};
    }
  }

  void kill_one(Actor& survivor) {
    const auto id = static_cast<std::uint32_t>(random_() % actors());
    ::kill(children_[id], SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(children_[id], &status, 0), children_[id]);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        << "child " << id << " ended itself: " << status;
    note_hands(id);
    shared_.dead[id].store(true);
    survivor.recover();
    count_out(id);
    if (part(id) == Part::producer) {
      Traces& traces = shared_.traces[id];
      doubtful_.push_back({id, traces.completed.load(), traces.attempted.load()});
      traces.completed.store(traces.attempted.load());
    }
    shared_.dead[id].store(false);
    start(id);
  }

  void stop_all() {
    shared_.stop.store(true);
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    for (std::uint32_t id = 0; id < actors(); ++id) {
      int status = 0;
      pid_t ended = 0;
      while ((ended = ::waitpid(children_[id], &status, WNOHANG)) == 0 &&
             std::chrono::steady_clock::now() < end) {
        ::usleep(500);
      }
      EXPECT_EQ(ended, children_[id]) << "child " << id << " hangs";
      if (ended == 0) ::kill(children_[id], SIGKILL);
      EXPECT_GT(shared_.traces[id].operations.load(), 0u);
    }
  }

  struct Range {
    std::uint32_t producer;
    std::uint64_t from;
    std::uint64_t to;
  };

  RingWorld world_{kind(), 16};
  SharedMemory memory_{sizeof(Shared)};
  Shared& shared_ = *reinterpret_cast<Shared*>(memory_.base());
  std::uint64_t seed_ = environment_number("EXTMEM_SEED", 11);
  Random random_{seed_};
  std::array<pid_t, kActors> children_{};
  std::set<std::pair<std::uint64_t, std::uint8_t>> in_hands_;
  std::vector<Range> doubtful_;
};
INSTANTIATE_TEST_SUITE_P(Kind, RingKill, ::testing::Values(RingKind::spsc, RingKind::mpmc),
                         [](const auto& test) { return kind_name(test.param); });

TEST_P(RingKill, AccountsForEveryRecordExactlyOnce) {
  const std::uint64_t kills = environment_number("EXTMEM_RING_KILLS", kUsualKills);
  const Ring ring = world_.attach(kParent);
  Actor survivor(shared_, ring, seed_);
  for (std::uint32_t id = 0; id < actors(); ++id) start(id);
  for (std::uint64_t i = 0; i < kills && !HasFailure(); ++i) {
    ::usleep(static_cast<useconds_t>(random_() % 1500));
    kill_one(survivor);
    ASSERT_EQ(shared_.twice.load(), 0u) << "after kill " << i;
    ASSERT_EQ(shared_.unexpected.load(), 0u) << "after kill " << i;
  }
  // On a loaded machine they may hardly have run yet.
  const auto attempted = [&] {
    std::uint64_t records = 0;
    for (std::uint32_t id = 0; id < actors(); ++id) records += shared_.traces[id].attempted.load();
    return records;
  };
  const auto worked = [&] {
    bool all = attempted() > kills + actors() * kBatch;  // the last of each are not pushed any more
    for (std::uint32_t id = 0; id < actors(); ++id) all &= shared_.traces[id].operations.load() != 0;
    return all;
  };
  for (int i = 0; i < 100'000 && !worked() && !HasFailure(); ++i) ::usleep(500);
  stop_all();
  if (HasFailure()) return;

  // Nobody uses the ring now; the children are gone, and their places in an spsc ring with them.
  for (std::uint32_t id = 0; id < actors(); ++id) {
    note_hands(id);
    shared_.dead[id].store(true);
  }
  survivor.recover();
  const auto checked = ring.check();
  ASSERT_TRUE(checked) << checked.error().message();
  std::uint64_t in_ring = 0;
  for (; const auto ptr = ring.try_pop(); ++in_ring) survivor.deliver(*ptr);
  EXPECT_EQ(shared_.twice.load(), 0u);
  EXPECT_EQ(shared_.unexpected.load(), 0u);

  std::uint64_t records = 0;
  std::uint64_t orphans = 0;
  std::uint64_t lost = 0;
  std::uint64_t never_pushed = 0;
  const auto is_seen = [&](std::uint32_t producer, std::uint64_t sequence) {
    const std::uint8_t seen = shared_.seen[record_of(producer, sequence)].load();
    orphans += (seen & kByOrphan) != 0 ? 1 : 0;
    return seen != 0;
  };
  // A push that was killed has pushed the first so many of its batch, or none.
  std::set<std::pair<std::uint32_t, std::uint64_t>> doubtful;
  for (const Range& range : doubtful_) {
    bool all = true;
    for (std::uint64_t i = range.from; i < range.to; ++i) {
      const bool seen = is_seen(range.producer, i);
      EXPECT_TRUE(all || !seen) << "a batch has a gap";
      all = all && seen;
      never_pushed += seen ? 0 : 1;
      doubtful.insert({range.producer, i});
    }
  }
  for (std::uint32_t id = 0; id < actors(); ++id) {
    if (part(id) != Part::producer) continue;
    for (std::uint64_t i = 0; i < shared_.traces[id].attempted.load(); ++i, ++records) {
      if (doubtful.count({id, i}) == 0 && !is_seen(id, i)) ++lost;
    }
  }
  EXPECT_EQ(lost, 0u);
  for (std::uint64_t i = 0; i < shared_.agains.load(); ++i) {
    const Again& again = shared_.again.at(i);
    EXPECT_EQ(in_hands_.count({again.record, again.seen}), 1u)
        << "record " << again.record << " was reported for " << again.participant << " although "
        << int{again.seen} << " had accounted for it and lived";
  }
  EXPECT_GT(records, kills);
  std::printf(
      "%llu kills: %llu records, %llu of them orphans, %llu met again in a dead one's hand, %llu not pushed, "
      "%llu left in the ring; replay with EXTMEM_SEED=%llu\n",
      static_cast<unsigned long long>(kills), static_cast<unsigned long long>(records),
      static_cast<unsigned long long>(orphans), static_cast<unsigned long long>(shared_.agains.load()),
      static_cast<unsigned long long>(never_pushed), static_cast<unsigned long long>(in_ring),
      static_cast<unsigned long long>(seed_));
}

}  // namespace
}  // namespace extmem::shared::test
