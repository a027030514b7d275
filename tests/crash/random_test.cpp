// Deaths at random moments. EXTMEM_CRASH_SEED repeats a run.
#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

#include "crash/world.hpp"

namespace extmem::crash {
namespace {

TEST(CrashAtRandom, IsSurvived) {
  const char* given = std::getenv("EXTMEM_CRASH_SEED");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 0) : std::random_device{}();
  std::printf("EXTMEM_CRASH_SEED=%llu\n", static_cast<unsigned long long>(seed));
  World world;
  world.run_at_random(3, 150, seed, 10);
  std::string all;
  for (const std::string& one : world.tally().problems) all += one + "\n";
  EXPECT_EQ(all, "");
  EXPECT_EQ(world.tally().hangs, 0u);
  std::printf("%llu deaths, worst recovery %.3f ms\n", static_cast<unsigned long long>(world.tally().kills),
              world.tally().worst_recovery_ms);
}

}  // namespace
}  // namespace extmem::crash
