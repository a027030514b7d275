#include "base/bits.hpp"

#include <gtest/gtest.h>

namespace extmem::base {
namespace {

constexpr std::uint64_t kMax = ~std::uint64_t{0};

TEST(Bits, AlignRoundsToMultiples) {
  for (std::uint64_t align = 1; align <= 4096; align *= 2) {
    for (std::uint64_t value = 0; value < 10'000; value += 7) {
      ASSERT_EQ(align_down(value, align), value / align * align);
      ASSERT_EQ(align_up(value, align), (value + align - 1) / align * align);
      ASSERT_EQ(is_aligned(value, align), value % align == 0);
    }
  }
  EXPECT_EQ(align_up(0, 1 << 30), 0u);
  EXPECT_EQ(align_down(kMax, std::uint64_t{1} << 63), std::uint64_t{1} << 63);
}

TEST(Bits, KnowPowersOfTwo) {
  EXPECT_FALSE(is_power_of_two(0));
  for (unsigned shift = 0; shift < 64; ++shift) {
    const std::uint64_t power = std::uint64_t{1} << shift;
    EXPECT_TRUE(is_power_of_two(power));
    EXPECT_EQ(floor_log2(power), shift);
    if (shift > 1) {
      EXPECT_FALSE(is_power_of_two(power - 1));
      EXPECT_FALSE(is_power_of_two(power + 1));
      EXPECT_EQ(floor_log2(power - 1), shift - 1);
      EXPECT_EQ(floor_log2(power + 1), shift);
    }
  }
}

TEST(Bits, CheckedArithmeticReportsOverflow) {
  std::uint64_t result = 0;
  EXPECT_TRUE(checked_add(kMax - 1, 1, result));
  EXPECT_EQ(result, kMax);
  EXPECT_FALSE(checked_add(kMax, 1, result));
  EXPECT_TRUE(checked_mul(std::uint64_t{1} << 32, (std::uint64_t{1} << 32) - 1, result));
  EXPECT_EQ(result, kMax - (std::uint64_t{1} << 32) + 1);
  EXPECT_FALSE(checked_mul(std::uint64_t{1} << 32, std::uint64_t{1} << 32, result));
  EXPECT_TRUE(checked_mul(0, kMax, result));
  EXPECT_EQ(result, 0u);
}

static_assert(align_up(5, 4) == 8 && narrow<std::uint16_t>(65535u) == 65535);

}  // namespace
}  // namespace extmem::base
