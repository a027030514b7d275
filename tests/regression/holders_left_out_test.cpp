// What broke: a holder report's `more`, the number of further holders, counted a holder once for each group of its objects.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cerrno>
#include <chrono>
#include <memory>
#include <string>

#include "extmem/extmem.hpp"

namespace extmem {
namespace {

TEST(HoldersLeftOut, AreCountedOnce) {
  constexpr std::size_t kLength = std::size_t{8} << 20;
  constexpr std::size_t kTags = 100;
  void* const memory =
      ::mmap(nullptr, 2 * kLength, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  auto domain = Domain::create();
  ASSERT_TRUE(domain.ok());
  auto heap = domain->create_heap("h");
  ASSERT_TRUE(heap.ok());
  RegionId regions[2];
  for (std::size_t i = 0; i < 2; ++i) {
    RegionSpec spec;
    spec.base = static_cast<char*>(memory) + i * kLength;
    spec.length = kLength;
    const auto region = domain->add_region(*heap, spec);
    ASSERT_TRUE(region.ok());
    regions[i] = *region;
  }
  for (int round = 0; round < 5; ++round) {
    for (std::size_t t = 0; t < kTags; ++t) {
      const auto tag = domain->intern_tag("tag" + std::to_string(t));
      ASSERT_TRUE(tag.ok());
      for (const RegionId region : regions) {
        AllocOptions options;
        options.tag = *tag;
        options.region = region;
        ASSERT_TRUE(heap->allocate(100, options).ok());
      }
    }
  }
  const auto report = std::make_unique<HolderReport>();
  const auto expect_all = [&](std::size_t objects, const char* what) {
    EXPECT_EQ(report->count, HolderReport::kMax) << what;
    EXPECT_EQ(report->more, kTags - HolderReport::kMax) << what;
    EXPECT_EQ(report->total_count, objects) << what;
  };
  EXPECT_EQ(domain->remove_region(regions[0], report.get()).error().code(), EBUSY);
  expect_all(5 * kTags, "remove");
  EXPECT_EQ(domain->destroy_heap(*heap, report.get()).error().code(), EBUSY);
  expect_all(2 * 5 * kTags, "destroy");
  EXPECT_EQ(domain->drain_region(regions[0], std::chrono::nanoseconds(0), report.get()).error().code(),
            ETIMEDOUT);
  expect_all(5 * kTags, "drain");
  domain = Domain();
  ::munmap(memory, 2 * kLength);
}

}  // namespace
}  // namespace extmem
