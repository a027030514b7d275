// Random deaths: children in tight loops, killed at any moment, while the survivor works too.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>

#include "crash/world.hpp"
#include "heap/domain_state.hpp"

namespace extmem::crash {

namespace {

using Clock = std::chrono::steady_clock;

std::uint64_t next(std::uint64_t& x) {
  x ^= x << 13;
  x ^= x >> 7;
  return x ^= x << 17;
}

}  // namespace

/// Takes back what a dead child had to give back, by its log. While others go on: an address may be theirs by now, so
/// only who holds it tells.
void World::reconcile(Log& log, const std::string& what) {
  for (std::uint32_t i = 0; i < log.entries; ++i) {
    Entry& entry = log.entry[i];
    const Of of = entry.of.load();
    if (of == Of::nobody || of == Of::allocating) continue;
    auto p = domain_.from_region_ptr(RegionPtr{entry.ptr});
    if (!p) {
      problem(what + ": the region of an object is gone");
      continue;
    }
    std::uint16_t holder = 0;
    auto object = state_->held_object(nullptr, *p, &holder);
    const std::uint32_t whose = object ? state_->holder_participant(holder) : 0;
    // Freed by the dead one, handed out again and by now ours once more, it would have another pattern.
    const bool same = object && intact(*p, entry.size, entry.seed);
    const bool held_for_us = whose == domain_.participant() || whose == heap::kOrphanOwner;
    const bool must_be = of == Of::handed || of == Of::lent || (of == Of::held && entry.kept);
    const bool ours = held_for_us && same;
    if (must_be && !held_for_us)
      problem(what + ": an object is gone, state " + std::to_string(static_cast<std::uint32_t>(of)));
    if (must_be && held_for_us && !same) problem(what + ": somebody wrote into an object");
    if (ours) {
      if (auto freed = domain_.deallocate(*p); !freed)
        problem(what + ": an object cannot be freed: " + freed.error().message());
    }
    entry.of = Of::nobody;
  }
  for (ZoneEntry& zone : log.zone) {
    if (zone.name[0] == '\0') continue;
    auto found = domain_.find_memzone(zone.name);
    if (zone.is == ZoneIs::reserved && !found) problem(what + ": memzone " + zone.name + " is gone");
    if (zone.is == ZoneIs::none && found) problem(what + ": memzone " + zone.name + " is still there");
    if (found) (void)domain_.free_memzone(zone.name);
  }
  forget(log);
}

void World::own_step(std::uint64_t random) {
  static std::uint64_t seed = 1u << 20;
  if (own_.size() > 200 || (random % 2 == 0 && !own_.empty())) {
    std::swap(own_[random / 2 % own_.size()], own_.back());
    Own own = own_.back();
    own_.pop_back();
    if (!intact(own.p, own.size, own.seed)) problem("an object of the survivor was written to");
    if (auto freed = own.heap.deallocate(own.p); !freed)
      problem(std::string("an object of the survivor cannot be freed: ") + freed.error().message());
    return;
  }
  const std::uint32_t size = 64 + static_cast<std::uint32_t>(random / 2 % 3000);
  auto p = small_.allocate(size);
  if (!p) {
    if (p.error().code() != ENOMEM)
      problem(std::string("the survivor cannot allocate: ") + p.error().message());
    return;
  }
  fill(*p, size, ++seed);
  own_.push_back(Own{small_, *p, size, seed});
}

bool World::wait_until_cleaned(const std::string& what) {
  const auto start = Clock::now();
  for (;;) {
    const auto before = Clock::now();
    auto report = domain_.recover();
    const double ms = std::chrono::duration<double, std::milli>(Clock::now() - before).count();
    if (report && report->participants != 0)
      tally_.worst_recovery_ms = std::max(tally_.worst_recovery_ms, ms);
    if (!report) problem(what + ": recover: " + report.error().message());
    bool dead = false;
    (void)domain_.walk_participants([&](const ParticipantInfo& one) {
      dead |= one.dead;
      return true;
    });
    if (!dead) return true;  // another child may have been the cleaner
    if (Clock::now() - start > std::chrono::seconds(20)) {
      ++tally_.hangs;
      std::fprintf(stderr, "crash harness: %s: a dead participant is not cleaned for 20 s\n", what.c_str());
      return false;
    }
    ::usleep(200);
  }
}

void World::free_unknown(std::uint64_t most, const std::string& what) {
  std::uint64_t unknown = 0;
  for (Heap heap : {kept_, kept_exact_}) {
    std::vector<void*> orphans;
    WalkOptions each;
    each.objects = true;
    (void)heap.walk(
        [&](const WalkEntry& entry) {
          bool ours = false;
          for (const Own& own : own_) ours |= own.p == entry.addr;
          if (!ours && entry.held && (entry.kind == WalkKind::object || entry.kind == WalkKind::held_span))
            orphans.push_back(entry.addr);
          return true;
        },
        each);
    unknown += orphans.size();
    for (void* p : orphans) (void)heap.deallocate(p);
  }
  if (unknown > most)
    problem(what + ": " + std::to_string(unknown) + " objects that nobody knows are kept, at most " +
            std::to_string(most) + " can be");
}

void World::run_at_random(int processes, std::uint64_t kills, std::uint64_t seed, int seconds) {
  std::uint64_t random = seed | 1;
  const auto end = Clock::now() + std::chrono::seconds(seconds);
  Child children[kLogs];
  std::uint64_t progress[kLogs] = {};
  Clock::time_point moved[kLogs];
  const auto lend_some = [&](Log& log) {
    for (std::uint32_t i = 0; i < 32; ++i) {
      Entry& entry = log.entry[i];
      if (entry.of.load() != Of::nobody) continue;
      const std::uint32_t size = 64 + static_cast<std::uint32_t>(next(random) % 2000);
      auto p = small_.allocate(size);
      if (!p) return;
      entry.size = size;
      entry.kept = false;
      entry.ptr = domain_.to_region_ptr(*p)->bits;
      entry.seed = entry.ptr ^ random;
      fill(*p, size, entry.seed);
      entry.of.store(Of::lent, std::memory_order_release);
    }
  };
  const auto begin = [&](int i) {
    Log& log = *logs_[i];
    log.entries = 32;
    log.seed = next(random);
    log.zones_from = static_cast<std::uint32_t>(i) * 3;
    children[i] = start("random", kNever, i, next(random) % 3 == 0);
    progress[i] = 0;
    moved[i] = Clock::now();
  };
  for (int i = 0; i < processes; ++i) begin(i);
  std::uint64_t killed = 0;
  for (; killed < kills && Clock::now() < end && tally_.problems.size() < 20; ++killed) {
    const auto until = Clock::now() + std::chrono::microseconds(next(random) % 6000);
    do {
      for (int i = 0; i < 20; ++i) own_step(next(random));
      for (int i = 0; i < processes; ++i) {
        Log& log = *logs_[i];
        if (log.phase.load() != Phase::ready) continue;
        lend_some(log);
        for (std::uint32_t e = 0; e < log.entries; ++e) {
          Entry& entry = log.entry[e];
          if (entry.of.load(std::memory_order_acquire) != Of::handed) continue;
          auto p = domain_.from_region_ptr(RegionPtr{entry.ptr});
          if (!p || !intact(*p, entry.size, entry.seed))
            problem("an object that was handed over is not intact");
          if (p) {
            if (auto freed = domain_.deallocate(*p); !freed)
              problem(std::string("an object that was handed over cannot be freed: ") +
                      freed.error().message());
          }
          entry.of.store(Of::nobody, std::memory_order_release);
        }
        if (const std::uint64_t now = log.progress; now != progress[i]) {
          progress[i] = now;
          moved[i] = Clock::now();
        } else if (Clock::now() - moved[i] > std::chrono::seconds(20)) {
          problem("process " + std::to_string(i) + " does not go on");
          finish(children[i], 0);  // says what it waits for
          begin(i);
        }
      }
    } while (Clock::now() < until);
    const int victim = static_cast<int>(next(random) % static_cast<std::uint64_t>(processes));
    Child& child = children[victim];
    wait_ready(child);
    ::kill(child.pid, SIGKILL);
    finish(child);
    const std::string what = "random death " + std::to_string(killed) + " of seed " + std::to_string(seed);
    if (const std::string wrong = trouble(child); !wrong.empty()) problem(what + ": " + wrong);
    if (!wait_until_cleaned(what)) break;
    reconcile(*child.log, what);
    if (killed % 16 == 0) {
      auto breaches = domain_.verify([&](const Breach& breach) { problem(what + ": " + breach.what); });
      if (!breaches) problem(what + ": verify: " + breaches.error().message());
    }
    begin(victim);
  }
  for (int i = 0; i < processes; ++i) {
    wait_ready(children[i]);
    ::kill(children[i].pid, SIGKILL);
    finish(children[i]);
    if (const std::string wrong = trouble(children[i]); !wrong.empty()) problem("in the end: " + wrong);
  }
  (void)wait_until_cleaned("in the end");
  for (int i = 0; i < processes; ++i) reconcile(*logs_[i], "in the end");
  // At most one object for each death.
  free_unknown(killed + static_cast<std::uint64_t>(processes), "in the end");
  settle("random, seed " + std::to_string(seed));
}

}  // namespace extmem::crash
