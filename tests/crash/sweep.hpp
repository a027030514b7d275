// Sweeps: an operation, killed again and again.
#pragma once

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "crash/role.hpp"
#include "crash/world.hpp"

namespace extmem::crash {

/// At which hits to kill: the first and the last `ends` of each distinct point, and every `stride`-th.
inline std::vector<std::uint64_t> hits_to_kill_at(const Log& log, std::uint64_t stride, std::uint64_t ends = 1) {
  const std::uint64_t hits = log.hits;
  std::set<std::uint64_t> chosen;
  for (std::uint32_t point = 0; point < kPointCount; ++point) {
    std::vector<std::uint64_t> at;
    for (std::uint64_t i = 0; i < std::min<std::uint64_t>(hits, kSequence); ++i) {
      if (log.sequence[i] == point) at.push_back(i + 1);
    }
    for (std::uint64_t i = 0; i < std::min<std::uint64_t>(ends, at.size()); ++i) {
      chosen.insert(at[i]);
      chosen.insert(at[at.size() - 1 - i]);
    }
  }
  for (std::uint64_t hit = 1; hit <= hits; hit += stride) chosen.insert(hit);
  return {chosen.begin(), chosen.end()};
}

/// Kills `operation` at its crash points. Returns how many hits it has in all.
inline std::uint64_t sweep_points(World& world, const std::string& operation, std::uint64_t stride, bool elsewhere = false) {
  Child whole = world.start(operation, World::kNever, 0, elsewhere);
  world.finish(whole);
  if (const std::string wrong = World::trouble(whole); !wrong.empty()) world.problem(operation + ", whole: " + wrong);
  const std::vector<std::uint64_t> hits = hits_to_kill_at(*whole.log, stride);
  const std::uint64_t all = whole.log->hits;
  world.settle(operation + ", whole");
  for (const std::uint64_t hit : hits) {
    Child child = world.start(operation, hit, 0, elsewhere);
    world.finish(child);
    const std::string what = operation + ", killed at hit " + std::to_string(hit) + " of " + std::to_string(all) + " (" +
                             (child.log->last_point < kPointCount ? kPointNames[child.log->last_point] : "?") + ")";
    if (const std::string wrong = World::trouble(child); !wrong.empty()) world.problem(what + ": " + wrong);
    if (!world.settle(what) && world.tally().problems.size() >= 20) break;
  }
  return all;
}

/// A victim that dies in `operation` at `victim_hit`, and a cleaner that dies at its `cleaner_hit`.
inline std::uint64_t clean_after(World& world, const std::string& operation, std::uint64_t victim_hit, std::uint64_t cleaner_hit,
                                 std::vector<std::uint64_t>* hits, std::uint64_t stride) {
  const std::string what = operation + " killed at hit " + std::to_string(victim_hit) + ", its cleaner at hit " + std::to_string(cleaner_hit);
  Child cleaner = world.start("recover", cleaner_hit, 1);
  world.wait_ready(cleaner);
  Child victim = world.start(operation, victim_hit, 0);
  world.finish(victim);
  cleaner.log->go = 1;
  world.finish(cleaner);
  for (const Child* child : {&victim, &cleaner}) {
    if (const std::string wrong = World::trouble(*child); !wrong.empty()) world.problem(what + ": " + wrong);
  }
  if (hits != nullptr) *hits = hits_to_kill_at(*cleaner.log, stride);
  const std::uint64_t all = cleaner.log->hits;
  world.settle(what);
  return all;
}

/// Deaths that leave each kind of work to a cleaner: killed in the operation, at the first (or last) hit of a point.
struct Victim {
  const char* operation;
  const char* point;  // "": after all
  bool last;
};
inline const std::vector<Victim>& victims() {
  static const std::vector<Victim> all = {
      {"hold", "", false},                        // objects, spans, caches, orphans to be
      {"allocate_refill", "refill.taken", true},  // inside its cache: it is buried
      {"free_flush", "flush.freed", true},        // the same, with slabs half returned
      {"allocate_slabs", "transaction.changed", true},  // a journal, and the heap's lock
      {"flush", "pause.asked", false},            // others stand still
      {"free_remote", "revoke.shared", false},
      {"add_backing", "add.mapped", false},       // memory that no record names
      {"add_backing", "add.allocated", false},    // a region half there
      {"remove_region", "remove.draining", false},
      {"remove_region", "remove.detached", false},
      {"drain_region", "drain.relisted", false},
      {"memzone_reserve", "memzone.allocated", true},
      {"destroy_heap", "destroy.emptied", false},
      {"hand_over", "holder.changed", false},
      {"leave", "leave.emptied", false},
      {"join", "join.alive", false},
  };
  return all;
}

inline std::uint64_t hit_of(World& world, const std::string& operation, const char* point, bool last);

/// Kills the cleaner of a victim at its crash points.
inline void sweep_cleaner(World& world, const Victim& victim, std::uint64_t stride) {
  std::vector<std::uint64_t> hits;
  const std::string operation = victim.operation;
  const std::uint64_t victim_hit = *victim.point == '\0' ? World::kNever : hit_of(world, operation, victim.point, victim.last);
  if (*victim.point != '\0' && victim_hit == 0) {
    world.problem(operation + " never reaches " + victim.point);
    return;
  }
  clean_after(world, operation, victim_hit, World::kNever, &hits, stride);
  for (const std::uint64_t hit : hits) {
    clean_after(world, operation, victim_hit, hit, nullptr, stride);
    if (world.tally().problems.size() >= 20) return;
  }
}

/// The first hit of `point` in an operation, or 0.
inline std::uint64_t hit_of(World& world, const std::string& operation, const char* point, bool last) {
  Child whole = world.start(operation, World::kNever);
  world.finish(whole);
  std::uint64_t found = 0;
  for (std::uint64_t i = 0; i < std::min<std::uint64_t>(whole.log->hits, kSequence); ++i) {
    if (std::strcmp(kPointNames[whole.log->sequence[i]], point) != 0) continue;
    found = i + 1;
    if (!last) break;
  }
  world.settle(operation);
  return found;
}

/// Kills an operation after so many of its instructions.
inline void kill_after(World& world, const std::string& operation, std::uint64_t instructions) {
  Child child = world.start(operation, World::kNever, 0, instructions % 3 == 0, true);
  world.step(child, instructions);
  const std::string what = operation + ", killed after instruction " + std::to_string(instructions);
  if (const std::string wrong = World::trouble(child); !wrong.empty()) world.problem(what + ": " + wrong);
  world.settle(what);
}

/// Steps through an operation once, recovering a copy after every `stride`-th instruction. Returns how far it came.
inline std::uint64_t sweep_copies(World& world, const std::string& operation, std::uint64_t stride, int seconds = 600) {
  Child child = world.start(operation, World::kNever, 0, false, true);
  world.step_copying(child, stride, seconds, operation);
  if (const std::string wrong = World::trouble(child); !wrong.empty()) world.problem(operation + ", stepped: " + wrong);
  world.settle(operation + ", stepped");
  return child.steps;
}

}  // namespace extmem::crash
