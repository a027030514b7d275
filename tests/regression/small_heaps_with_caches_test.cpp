// What broke: a thread's first allocation in a heap made a cache of 44 KiB, also where the heap's regions are too small for
// slabs and nothing is ever cached. A few thousand heaps of 8 KiB took 200 MB of metadata.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <string>
#include <vector>

#include "extmem/extmem.hpp"

namespace extmem {
namespace {

TEST(SmallHeapsWithCaches, HaveNone) {
  constexpr std::size_t kHeaps = 2000;
  constexpr std::size_t kLength = 8192;
  void* const memory = ::mmap(nullptr, kHeaps * kLength, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  auto domain = Domain::create();
  ASSERT_TRUE(domain.ok());
  std::vector<Heap> heaps;
  for (std::size_t i = 0; i < kHeaps; ++i) {
    auto heap = domain->create_heap("small" + std::to_string(i));
    ASSERT_TRUE(heap.ok()) << heap.error().message();
    RegionSpec spec;
    spec.base = static_cast<char*>(memory) + i * kLength;
    spec.length = kLength;
    spec.cpu_accessible = false;
    ASSERT_TRUE(domain->add_region(*heap, spec).ok());
    heaps.push_back(*heap);
  }
  for (Heap heap : heaps) {
    const auto p = heap.allocate(100);
    ASSERT_TRUE(p.ok()) << p.error().message();
    EXPECT_EQ(heap.stats()->cached_bytes, 0u);
    ASSERT_TRUE(heap.deallocate(*p).ok());
    EXPECT_EQ(heap.deallocate(*p).error().code(), EALREADY);
  }
  EXPECT_LT(domain->metadata_resident_bytes() / kHeaps, 12u * 1024);
  EXPECT_EQ(*domain->verify(), 0u);
  domain = Domain();
  ::munmap(memory, kHeaps * kLength);
}

TEST(SmallHeapsWithCaches, GetThemWithTheFirstLongRegion) {
  constexpr std::size_t kShort = 8192;
  constexpr std::size_t kLong = std::size_t{4} << 20;
  void* const memory =
      ::mmap(nullptr, kShort + kLong, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  auto domain = Domain::create();
  ASSERT_TRUE(domain.ok());
  auto heap = domain->create_heap("both");
  ASSERT_TRUE(heap.ok());
  RegionSpec spec;
  spec.base = memory;
  spec.length = kShort;
  ASSERT_TRUE(domain->add_region(*heap, spec).ok());
  const auto early = heap->allocate(100);
  ASSERT_TRUE(early.ok());
  EXPECT_EQ(heap->stats()->slabs, 0u);
  spec.base = static_cast<char*>(memory) + kShort;
  spec.length = kLong;
  const auto region = domain->add_region(*heap, spec);
  ASSERT_TRUE(region.ok());
  const auto late = heap->allocate(100);
  ASSERT_TRUE(late.ok());
  EXPECT_EQ(heap->stats()->slabs, 1u);
  ASSERT_TRUE(heap->deallocate(*early).ok());
  ASSERT_TRUE(heap->deallocate(*late).ok());
  EXPECT_EQ(*domain->verify(), 0u);
  ASSERT_TRUE(domain->remove_region(*region).ok());
  const auto again = heap->allocate(100);
  ASSERT_TRUE(again.ok()) << again.error().message();
  EXPECT_EQ(heap->stats()->slabs, 0u);
  ASSERT_TRUE(heap->deallocate(*again).ok());
  EXPECT_EQ(*domain->verify(), 0u);
  domain = Domain();
  ::munmap(memory, kShort + kLong);
}

}  // namespace
}  // namespace extmem
