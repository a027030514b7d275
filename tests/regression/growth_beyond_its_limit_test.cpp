// What broke: a growth limit that is no multiple of the OS page was rounded up with the last region, so a heap grew
// beyond it; and what a growth policy cannot use was ignored without a word.
#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>

#include "extmem/extmem.hpp"

namespace extmem {
namespace {

TEST(GrowthBeyondItsLimit, NeverHappens) {
  auto domain = Domain::create();
  ASSERT_TRUE(domain.ok());
  for (const std::uint64_t limit :
       {std::uint64_t{10000}, std::uint64_t{100000}, (std::uint64_t{5} << 20) + 1}) {
    for (const std::uint64_t step :
         {std::uint64_t{1}, std::uint64_t{5000}, std::uint64_t{1} << 20, ~std::uint64_t{0}}) {
      HeapOptions options;
      options.growth.step = step;
      options.growth.limit = limit;
      auto heap = domain->create_heap("grows", options);
      ASSERT_TRUE(heap.ok()) << heap.error().message();
      std::size_t made = 0;
      Result<void*> p = heap->allocate(100);
      for (; p.ok(); p = heap->allocate(100)) ++made;
      EXPECT_EQ(p.error().code(), ENOMEM);
      EXPECT_NE(std::strstr(p.error().message(), "limit"), nullptr) << p.error().message();
      EXPECT_GT(made, 0u);
      EXPECT_LE(heap->stats()->total_bytes, limit) << "in steps of " << step;
      ASSERT_TRUE(heap->walk([&](const WalkEntry& entry) {
                        EXPECT_FALSE(entry.kind == WalkKind::region && !entry.external &&
                                     entry.length > limit);
                        return true;
                      })
                      .ok());
      domain = Domain::create();
      ASSERT_TRUE(domain.ok());
    }
  }
}

TEST(GrowthBeyondItsLimit, APolicyThatCannotWorkIsRefused) {
  auto domain = Domain::create();
  ASSERT_TRUE(domain.ok());
  HeapOptions good;
  good.growth.step = 1 << 20;
  good.growth.limit = 8 << 20;
  const auto refused = [&](const HeapOptions& options, const char* what) {
    const auto heap = domain->create_heap("bad", options);
    EXPECT_EQ(heap.error().code(), EINVAL) << what;
    EXPECT_EQ(domain->find_heap("bad").error().code(), ENOENT) << what;
  };
  HeapOptions bad = good;
  bad.growth.limit = 4095;
  refused(bad, "a limit below one OS page");
  bad = good;
  bad.growth.backing.path = "/tmp/not-used";
  refused(bad, "a path");
  bad = good;
  bad.growth.backing.os_page_size = 3000;
  refused(bad, "an OS page size that is no power of two");
  bad = good;
  bad.growth.backing.numa_node = -2;
  refused(bad, "no NUMA node");
  bad = good;
  const auto progress = [](std::uint64_t, std::uint64_t) { return false; };
  bad.growth.backing.progress = progress;
  refused(bad, "a callback that would be gone when the heap grows");
  EXPECT_TRUE(domain->create_heap("good", good).ok());
}

TEST(GrowthBeyondItsLimit, ABackingThatCannotBeMappedIsNamed) {
  auto domain = Domain::create();
  ASSERT_TRUE(domain.ok());
  HeapOptions options;
  options.growth.step = 1 << 20;
  options.growth.limit = 8 << 20;
  options.growth.backing.os_page_size = 8192;  // anonymous memory has no such pages
  auto heap = domain->create_heap("grows", options);
  ASSERT_TRUE(heap.ok()) << heap.error().message();
  const auto p = heap->allocate(100);
  EXPECT_EQ(p.error().code(), ENOMEM);
  EXPECT_NE(std::strstr(p.error().message(), "backing"), nullptr) << p.error().message();
}

}  // namespace
}  // namespace extmem
