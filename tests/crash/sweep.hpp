// Sweeps: an operation, killed again and again.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdio>
#include <string>
#include <vector>

#include "crash/role.hpp"
#include "crash/world.hpp"

namespace extmem::crash {

/// Where to kill an operation that has run whole: at the first and the last hit of each of its points, and at every
/// `stride`-th hit of all. `early`: also at the second hit, the fourth and so on, as what the first ones left may be in the way.
inline std::vector<Kill> where_to_kill(const Log& log, std::uint64_t stride, bool early) {
  const std::uint64_t hits = std::min<std::uint64_t>(log.hits, kSequence);
  std::uint32_t seen[kPointCount + 1] = {};
  std::uint32_t in_all[kPointCount + 1] = {};
  for (std::uint64_t i = 0; i < hits; ++i) ++in_all[log.sequence[i]];
  std::vector<Kill> chosen;
  for (std::uint64_t i = 0; i < hits; ++i) {
    const std::uint32_t point = log.sequence[i];
    const std::uint32_t nth = ++seen[point];
    if (nth == 1 || nth == in_all[point] || i % stride == 0 || (early && std::has_single_bit(nth)))
      chosen.push_back(Kill{point, nth});
  }
  return chosen;
}

inline std::string to_text(Kill kill) {
  return kill.nth == 0 ? "its end" : "hit " + std::to_string(kill.nth) + " of " + kPointNames[kill.point];
}

/// Kills `operation` at its crash points. Returns how many hits it has in all.
inline std::uint64_t sweep_points(World& world, const std::string& operation, std::uint64_t stride,
                                  bool elsewhere = false) {
  Child whole = world.start(operation, World::kNever, 0, elsewhere);
  world.finish(whole);
  if (const std::string wrong = World::trouble(whole); !wrong.empty())
    world.problem(operation + ", whole: " + wrong);
  const std::vector<Kill> kills = where_to_kill(*whole.log, stride, true);
  const std::uint64_t all = whole.log->hits;
  world.settle(operation + ", whole");
  for (const Kill kill : kills) {
    Child child = world.start(operation, kill, 0, elsewhere);
    world.finish(child);
    const std::string what = operation + ", killed at " + to_text(kill);
    if (const std::string wrong = World::trouble(child); !wrong.empty()) world.problem(what + ": " + wrong);
    if (!world.settle(what) && world.tally().problems.size() >= 20) break;
  }
  return all;
}

/// A victim that dies in `operation`, and a cleaner that dies while it cleans.
inline void clean_after(World& world, const std::string& operation, Kill victim_dies, Kill cleaner_dies,
                        std::vector<Kill>* kills, std::uint64_t stride, const char* cleans = "recover") {
  const std::string what =
      operation + " killed at " + to_text(victim_dies) + ", its cleaner at " + to_text(cleaner_dies);
  Child cleaner = world.start(cleans, cleaner_dies, 1);
  world.wait_ready(cleaner);
  Child victim = world.start(operation, victim_dies, 0);
  world.finish(victim);
  cleaner.log->go = 1;
  world.finish(cleaner);
  for (const Child* child : {&victim, &cleaner}) {
    if (const std::string wrong = World::trouble(*child); !wrong.empty()) world.problem(what + ": " + wrong);
  }
  if (kills != nullptr) *kills = where_to_kill(*cleaner.log, stride, false);
  world.settle(what);
}

/// Deaths that leave each kind of work to a cleaner: killed in the operation, at the first (or last) hit of a point.
struct Victim {
  const char* operation;
  const char* point;  // "": after all
  bool last;
  const char* cleaner = "recover";  // what its cleaner does
};
inline const std::vector<Victim>& victims() {
  static const std::vector<Victim> all = {
      {"hold", "", false},                        // objects, spans, caches, orphans to be
      {"hold", "", false, "withhold"},            // the same, and a listener that does not let go at first
      {"allocate_refill", "refill.taken", true},  // inside its cache: it is buried
      {"free_flush", "flush.freed", true},        // the same, with slabs half returned
      {"allocate_slabs", "transaction.changed", true},  // a journal, and the heap's lock
      {"flush", "pause.asked", false},                  // others stand still
      {"free_remote", "revoke.shared", false},
      {"free_foreign", "return.freed", false},  // objects are free that nobody counts yet
      {"free_foreign", "return.unlisted", true},
      {"free_foreign", "rebias.owned", false},
      {"exact_flush", "transaction.changed", true},  // of an exact heap, with spans half returned
      {"exact_foreign", "spans.asked", false},
      {"exact_foreign", "spans.shared", true},
      {"add_backing", "add.mapped", false},     // memory that no record names
      {"add_backing", "add.allocated", false},  // a region half there
      {"add_file", "backing.named", false},
      {"add_file", "add.attached", false},
      {"add_file_aside", "backing.aside", false},   // a file by a name aside, of which nothing else is known
      {"add_file_aside", "backing.linked", false},  // one by two names
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

inline Kill hit_of(World& world, const std::string& operation, const char* point, bool last);

/// Kills the cleaner of a victim at its crash points.
inline void sweep_cleaner(World& world, const Victim& victim, std::uint64_t stride) {
  std::vector<Kill> kills;
  const std::string operation = victim.operation;
  const Kill dies =
      *victim.point == '\0' ? World::kNever : hit_of(world, operation, victim.point, victim.last);
  if (*victim.point != '\0' && dies.nth == 0) {
    world.problem(operation + " never reaches " + victim.point);
    return;
  }
  clean_after(world, operation, dies, World::kNever, &kills, stride, victim.cleaner);
  for (const Kill kill : kills) {
    clean_after(world, operation, dies, kill, nullptr, stride, victim.cleaner);
    if (world.tally().problems.size() >= 20) return;
  }
}

/// The first (or last) hit of a point in an operation; nth is 0 where it has none.
inline Kill hit_of(World& world, const std::string& operation, const char* point, bool last) {
  Child whole = world.start(operation, World::kNever);
  world.finish(whole);
  Kill found;
  for (std::uint64_t i = 0; i < std::min<std::uint64_t>(whole.log->hits, kSequence); ++i) {
    if (std::strcmp(kPointNames[whole.log->sequence[i]], point) != 0) continue;
    found = Kill{whole.log->sequence[i], found.nth + 1};
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
inline std::uint64_t sweep_copies(World& world, const std::string& operation, std::uint64_t stride,
                                  int seconds = 600) {
  Child child = world.start(operation, World::kNever, 0, false, true);
  world.step_copying(child, stride, seconds, operation);
  if (const std::string wrong = World::trouble(child); !wrong.empty())
    world.problem(operation + ", stepped: " + wrong);
  world.settle(operation + ", stepped");
  return child.steps;
}

}  // namespace extmem::crash
