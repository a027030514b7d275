// Every named crash point of every operation: killed there, recovered, checked against the log.
#include <gtest/gtest.h>

#include "crash/sweep.hpp"

namespace extmem::crash {
namespace {

std::string problems(World& world) {
  std::string all;
  for (const std::string& one : world.tally().problems) all += one + "\n";
  return all;
}

class CrashPoints : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Operation, CrashPoints, ::testing::ValuesIn(operations()),
                         [](const auto& test) { return test.param; });

TEST_P(CrashPoints, AreSurvived) {
  World world;
  sweep_points(world, GetParam(), 100, GetParam() == "reallocate");
  EXPECT_EQ(problems(world), "");
  EXPECT_EQ(world.tally().hangs, 0u);
}

TEST(CrashOfACleaner, IsSurvived) {
  World world;
  for (const Victim& victim : victims()) sweep_cleaner(world, victim, 100);
  EXPECT_EQ(problems(world), "");
  EXPECT_EQ(world.tally().hangs, 0u);
}

}  // namespace
}  // namespace extmem::crash
