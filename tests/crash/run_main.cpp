// The long run of the crash tests: ./do crash [--quick|--full] [--json FILE] [--seed N] [--only PART]...
// A part is an operation, or what else there is: kOthers.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <random>
#include <string_view>
#include <thread>
#include <vector>

#include "crash/sweep.hpp"

namespace extmem::crash {
namespace {

struct Totals {
  std::set<std::string> points;
  std::uint64_t point_kills = 0, cleaner_kills = 0, step_kills = 0, random_kills = 0;
  std::uint64_t copies = 0;
  std::uint64_t hangs = 0, corruptions = 0, lost_bytes = 0;
  double worst_recovery_ms = 0;
  double million_ms = 0, million_stall_ms = 0;
};

void add(Totals& totals, World& world) {
  Tally& tally = world.tally();
  totals.points.insert(tally.points.begin(), tally.points.end());
  totals.hangs += tally.hangs;
  totals.corruptions += tally.corruptions;
  totals.lost_bytes += tally.lost_bytes;
  totals.worst_recovery_ms = std::max(totals.worst_recovery_ms, tally.worst_recovery_ms);
  for (const std::string& problem : tally.problems) std::printf("  PROBLEM %s\n", problem.c_str());
}

/// One process that held a million objects dies; another thread of the survivor allocates and frees meanwhile.
void recover_a_million(Totals& totals) {
  World world(true);
  Child child = world.start("million", World::kNever);
  world.finish(child, 60);
  std::atomic<bool> stop{false};
  std::atomic<bool> ready{false};
  double worst = 0;
  std::thread other([&] {
    Heap heap = world.heap();
    while (!stop) {
      const auto start = std::chrono::steady_clock::now();
      auto p = heap.allocate(256);
      if (p) (void)heap.deallocate(*p);
      if (ready)
        worst = std::max(
            worst,
            std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
      ready = true;
    }
  });
  while (!ready) std::this_thread::yield();
  const auto start = std::chrono::steady_clock::now();
  auto report = world.domain().recover();
  totals.million_ms =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  stop = true;
  other.join();
  totals.million_stall_ms = worst;
  if (!report || report->freed_objects < 1'000'000)
    world.problem("the million objects of a dead process are not freed");
  world.settle("a million objects");
  add(totals, world);
}

constexpr const char* kCleaners = "cleaners";  // killed while they clean
constexpr const char* kAtRandom = "random";
constexpr const char* kMillion = "million";
constexpr const char* kOthers[] = {kCleaners, kAtRandom, kMillion};

/// `only`: these parts, and nothing else. Empty: all there is.
int run(bool full, const char* json, std::uint64_t seed, const std::vector<std::string>& only) {
  Totals totals;
  const auto start = std::chrono::steady_clock::now();
  const auto seconds = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  std::printf("%-18s %8s %8s %12s %8s\n", "operation", "hits", "kills", "instructions", "copies");
  bool elsewhere = false;
  const auto wanted = [&](const std::string& part) {
    return only.empty() || std::ranges::find(only, part) != only.end();
  };
  for (const std::string& operation : operations()) {
    if (!wanted(operation)) continue;
    World world;
    elsewhere = !elsewhere;
    const std::uint64_t hits = sweep_points(world, operation, full ? 1 : 60, elsewhere);
    const std::uint64_t kills = world.tally().kills;
    totals.point_kills += kills;
    const bool fast = is_fast(operation);
    const std::uint64_t all = sweep_copies(world, operation, full || fast ? 1 : 29,
                                           full   ? 3600
                                           : fast ? 40
                                                  : 3);
    // And some deaths in earnest, where the survivor's own objects lie among the dead one's.
    if (!fast) {
      for (std::uint64_t third = 1; third <= 2; ++third)
        kill_after(world, operation, std::min<std::uint64_t>(all, 12'000) * third / 3 + 1);
    }
    totals.step_kills += world.tally().kills - kills + world.tally().instructions;
    totals.copies += world.tally().copies;
    std::printf("%-18s %8llu %8llu %12llu %8llu%s\n", operation.c_str(),
                static_cast<unsigned long long>(hits), static_cast<unsigned long long>(kills),
                static_cast<unsigned long long>(world.tally().instructions),
                static_cast<unsigned long long>(world.tally().copies),
                full && world.tally().cut ? "  cut short: the time was up" : "");
    std::fflush(stdout);
    add(totals, world);
  }
  for (const Victim& victim : victims()) {
    if (!wanted(kCleaners)) break;
    World world;
    sweep_cleaner(world, victim, full ? 1 : 100);
    totals.cleaner_kills += world.tally().kills;
    std::printf("cleaner after %s at %s: %llu kills\n", victim.operation,
                *victim.point != '\0' ? victim.point : "its end",
                static_cast<unsigned long long>(world.tally().kills));
    add(totals, world);
  }
  if (wanted(kAtRandom)) {
    World world;
    std::printf("at random: seed %llu\n", static_cast<unsigned long long>(seed));
    world.run_at_random(3, full ? 5000 : 1000, seed, full ? 900 : 25);
    totals.random_kills = world.tally().kills;
    add(totals, world);
  }
  if (wanted(kMillion)) recover_a_million(totals);
  for (const char* name : kPointNames) {
    if (only.empty() && !totals.points.contains(name))
      std::printf("  PROBLEM no process was killed at %s\n", name);
  }
  char text[1024];
  std::snprintf(
      text, sizeof text,
      "{\"crash_points_total\": %u, \"crash_points_hit\": %zu, \"point_kills\": %llu, "
      "\"cleaner_kills\": %llu, "
      "\"single_step_kills\": %llu, \"copies_recovered\": %llu, "
      "\"random_kills\": %llu, \"hangs\": %llu, \"corruptions\": "
      "%llu, \"lost_bytes\": %llu, "
      "\"worst_recovery_ms\": %.3f, \"million_objects_ms\": %.3f, \"million_objects_stall_ms\": "
      "%.3f, \"seed\": %llu, "
      "\"seconds\": %.1f}\n",
      kPointCount, totals.points.size(), static_cast<unsigned long long>(totals.point_kills),
      static_cast<unsigned long long>(totals.cleaner_kills),
      static_cast<unsigned long long>(totals.step_kills), static_cast<unsigned long long>(totals.copies),
      static_cast<unsigned long long>(totals.random_kills), static_cast<unsigned long long>(totals.hangs),
      static_cast<unsigned long long>(totals.corruptions), static_cast<unsigned long long>(totals.lost_bytes),
      totals.worst_recovery_ms, totals.million_ms, totals.million_stall_ms,
      static_cast<unsigned long long>(seed), seconds());
  std::fputs(text, stdout);
  if (json != nullptr) {
    std::FILE* file = std::fopen(json, "w");
    if (file == nullptr || std::fputs(text, file) < 0 || std::fclose(file) != 0) {
      std::perror(json);
      return 2;
    }
  }
  return totals.hangs == 0 && totals.corruptions == 0 && totals.lost_bytes == 0 &&
                 (!only.empty() || totals.points.size() == kPointCount)
             ? 0
             : 1;
}

}  // namespace
}  // namespace extmem::crash

int main(int argc, char** argv) {
  bool full = false;
  const char* json = nullptr;
  std::uint64_t seed = std::random_device{}();
  std::vector<std::string> only;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--full") == 0) {
      full = true;
    } else if (std::strcmp(argv[i], "--json") == 0 && i + 1 < argc) {
      json = argv[++i];
    } else if (std::strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
      seed = std::strtoull(argv[++i], nullptr, 0);
    } else if (std::strcmp(argv[i], "--only") == 0 && i + 1 < argc &&
               (std::ranges::find(extmem::crash::operations(), argv[i + 1]) !=
                    extmem::crash::operations().end() ||
                std::ranges::find(extmem::crash::kOthers, std::string_view(argv[i + 1])) !=
                    std::end(extmem::crash::kOthers))) {
      only.emplace_back(argv[++i]);
    } else if (std::strcmp(argv[i], "--quick") != 0) {
      std::fprintf(stderr, "usage: %s [--quick|--full] [--json FILE] [--seed N] [--only PART]...\n", argv[0]);
      return 2;
    }
  }
  return extmem::crash::run(full, json, seed, only);
}
