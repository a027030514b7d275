// What broke: a drain that undrain_region had ended went on waiting, and then said that the region goes on draining.
#include <gtest/gtest.h>

#include <cerrno>
#include <chrono>
#include <thread>

#include "extmem/extmem.hpp"

namespace extmem {
namespace {

TEST(UndrainDuringDrain, EndsIt) {
  auto domain = Domain::create();
  ASSERT_TRUE(domain.ok());
  auto heap = domain->create_heap("h");
  ASSERT_TRUE(heap.ok());
  BackingSpec spec;
  spec.length = 2 << 20;
  const auto region = domain->add_backing(*heap, spec);
  ASSERT_TRUE(region.ok());
  const auto held = heap->allocate(100);
  ASSERT_TRUE(held.ok());
  const auto start = std::chrono::steady_clock::now();
  int code = 0;
  std::thread drains([&] { code = domain->drain_region(*region, std::chrono::seconds(60)).error().code(); });
  while (!domain->region_info(*region)->draining) std::this_thread::yield();
  EXPECT_TRUE(domain->undrain_region(*region).ok());
  drains.join();
  EXPECT_EQ(code, ECANCELED);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30));
  EXPECT_TRUE(heap->allocate(100).ok());
  EXPECT_TRUE(heap->deallocate(*held).ok());
}

}  // namespace
}  // namespace extmem
