// Killed between any two instructions: a sample of what `./do crash` does after every instruction.
#include <gtest/gtest.h>

#include "crash/sweep.hpp"

namespace extmem::crash {
namespace {

std::string problems(World& world) {
  std::string all;
  for (const std::string& one : world.tally().problems) all += one + "\n";
  return all;
}

class CrashSteps : public ::testing::TestWithParam<std::string> {};
// The short ones; ./do crash steps through all of them.
INSTANTIATE_TEST_SUITE_P(Operation, CrashSteps,
                         ::testing::Values("allocate_first", "allocate_hit", "allocate_tagged",
                                           "allocate_exact", "free_local", "exact_hit", "exact_push",
                                           "exact_flush", "exact_foreign", "free_coalescing", "free_remote",
                                           "free_shared", "free_foreign", "hand_over", "memzone_reserve"),
                         [](const auto& test) { return test.param; });

TEST_P(CrashSteps, AreSurvived) {
  World world;
  const bool fast = is_fast(GetParam());
  const std::uint64_t all = sweep_copies(world, GetParam(), fast ? 1 : 31, 3);
  // And some deaths in earnest, where the survivor's own objects lie among the dead one's.
  for (std::uint64_t third = 1; third <= 2; ++third) kill_after(world, GetParam(), all * third / 3 + 1);
  const Tally& tally = world.tally();
  std::printf("%s: %llu instructions, looked at after %llu of them, %llu copies\n", GetParam().c_str(),
              static_cast<unsigned long long>(all), static_cast<unsigned long long>(tally.instructions),
              static_cast<unsigned long long>(tally.copies));
  EXPECT_EQ(problems(world), "");
  EXPECT_EQ(world.tally().hangs, 0u);
}

}  // namespace
}  // namespace extmem::crash
