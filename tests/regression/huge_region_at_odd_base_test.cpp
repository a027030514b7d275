// What broke: a region so long that its pages, limited by the alignment of its base, could not be numbered in 32 bits.
// The number was cut off, and 16 TiB became a region of a few pages, without a word.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cerrno>

#include "extmem/extmem.hpp"

namespace extmem {
namespace {

TEST(HugeRegionAtOddBase, IsRefusedOrServedWhole) {
  constexpr std::uint64_t kLength = std::uint64_t{1} << 44;
  constexpr std::uint64_t kPage = 4096;
  void* const memory =
      ::mmap(nullptr, kLength + 4 * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) GTEST_SKIP() << "needs 16 TiB of address space";
  auto domain = Domain::create();
  ASSERT_TRUE(domain.ok());
  auto heap = domain->create_heap("huge");
  ASSERT_TRUE(heap.ok());
  const auto start = reinterpret_cast<std::uintptr_t>(memory);
  for (const std::uint64_t more : {std::uint64_t{0}, 2 * kPage}) {
    RegionSpec spec;
    spec.base =
        reinterpret_cast<void*>(start + (start % (2 * kPage) == 0 ? kPage : 0));  // on a page, and no more
    spec.length = kLength + more;
    spec.cpu_accessible = false;
    const auto region = domain->add_region(*heap, spec);
    if (!region.ok()) {
      EXPECT_EQ(region.error().code(), EINVAL) << region.error().message();
      continue;
    }
    EXPECT_EQ(heap->stats()->total_bytes, spec.length);
    EXPECT_TRUE(domain->remove_region(*region).ok());
  }
  // On a better boundary the same memory is fine.
  RegionSpec spec;
  spec.base = reinterpret_cast<void*>((start + 2 * kPage - 1) & ~(2 * kPage - 1));
  spec.length = kLength;
  spec.cpu_accessible = false;
  const auto region = domain->add_region(*heap, spec);
  ASSERT_TRUE(region.ok()) << region.error().message();
  EXPECT_EQ(heap->stats()->total_bytes, kLength);
  AllocOptions high;
  high.placement = Placement::high;
  const auto p = heap->allocate(std::uint64_t{1} << 40, high);
  ASSERT_TRUE(p.ok()) << p.error().message();
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(*p),
            reinterpret_cast<std::uintptr_t>(spec.base) + kLength - (std::uint64_t{1} << 40));
  EXPECT_EQ(heap->deallocate(static_cast<char*>(*p) + (std::uint64_t{1} << 39)).error().code(), EINVAL);
  EXPECT_TRUE(heap->deallocate(*p).ok());
  EXPECT_EQ(*heap->verify(), 0u);
  ::munmap(memory, kLength + 4 * kPage);
}

}  // namespace
}  // namespace extmem
