// Spans through Core: regions in order, filters, constraints, errors, resizing, the biggest piece.
#include <gtest/gtest.h>

#include "unit/alloc/core_world.hpp"
#include "unit/alloc/page_oracle.hpp"
#include "unit/alloc/seed.hpp"

namespace extmem::alloc {
namespace {

constexpr std::uint64_t offset_of(std::uint64_t ptr) { return ptr & ((std::uint64_t{1} << 48) - 1); }
constexpr std::uint32_t region_of(std::uint64_t ptr) { return static_cast<std::uint32_t>(ptr >> 48); }

TEST(CoreSpan, RegionsServeInTheOrderOfTheirAdding) {
  CoreWorld world;
  const std::uint32_t first = world.add_region(64 * kKiB);
  const std::uint32_t second = world.add_region(1 * kMiB);
  const std::uint64_t a = world.must_span(1, 40 * kKiB);
  const std::uint64_t b = world.must_span(1, 40 * kKiB);
  EXPECT_EQ(region_of(a), first);
  EXPECT_EQ(region_of(b), second);
  EXPECT_EQ(world.heap().span_count, 2u);
  EXPECT_EQ(world.heap().span_pages_bytes, 80 * kKiB);
  world.must_free(1, a);
  world.must_free(2, b);
  EXPECT_EQ(world.leftovers(), "");
}

TEST(CoreSpan, FiltersChooseTheRegion) {
  CoreWorld world;
  const std::uint32_t near = world.add_region(1 * kMiB, 12, {.node = 0});
  const std::uint32_t far = world.add_region(1 * kMiB, 12, {.node = 1});
  const std::uint32_t huge = world.add_region(4 * kMiB, 12, {.os_page_shift = 21, .node = 0});
  const auto where = [&](const RegionFilter& filter) {
    const auto span = world.core().allocate_span(1, CoreWorld::kHeap, 64 * kKiB, {}, filter, kHolderUntagged);
    return span.ok() ? span->region : 0;
  };
  EXPECT_EQ(where({}), near);
  EXPECT_EQ(where({.node = 1}), far);
  EXPECT_EQ(where({.os_page_shift = 21}), huge);
  EXPECT_EQ(where({.region = far}), far);
  EXPECT_EQ(where({.region = far, .node = 0}), 0u);
  EXPECT_EQ(where({.node = 2}), 0u);
  EXPECT_EQ(where({.node = 1, .os_page_shift = 21}), 0u);
  EXPECT_EQ(world.breaches(), "");
}

TEST(CoreSpan, AlignsAddressesNotOffsets) {
  CoreWorld world;
  const std::uint32_t region = world.add_region(16 * kMiB, 12, {.phase = 5 * kMiB + 4096});
  SpanRequest request;
  for (const std::uint64_t align : {4 * kKiB, 64 * kKiB, 1 * kMiB, 4 * kMiB}) {
    request.align = align;
    const auto got = world.allocate_span(1, 10'000, request);
    ASSERT_TRUE(got.ok()) << align;
    EXPECT_TRUE(base::is_aligned(world.core().region(region).phase + offset_of(*got), align)) << align;
  }
  request.align = std::uint64_t{1} << 30;
  EXPECT_EQ(world.allocate_span(1, 1, request).error().code(), ENOMEM);
}

TEST(CoreSpan, KeepsToContiguousIovasBelowTheMask) {
  CoreWorld world;
  std::vector<Iova> iovas;  // runs of four pages, far apart, the later ones lower
  for (std::uint64_t page = 0; page < 64; ++page) {
    iovas.push_back(Iova{(std::uint64_t{0x1000} - page / 4 * 0x100) << 20 | page % 4 << 12});
  }
  iovas[40] = kBadIova;
  world.add_region(256 * kKiB, 12, {.iovas = iovas});
  SpanRequest request;
  request.iova_contiguous = true;
  int found = 0;
  for (auto got = world.allocate_span(1, 10'000, request); got.ok();
       got = world.allocate_span(1, 10'000, request)) {
    EXPECT_LE(offset_of(*got) / 4096 % 4, 1u);  // three pages inside four
    ++found;
  }
  EXPECT_EQ(found, 16);  // also the run that lost its first page
  EXPECT_EQ(world.allocate_span(1, 16'385, request).error().code(), ENOMEM);
  request.dma_bits = 31;  // one page of each run is still free: those with IOVAs below 2 GiB
  const auto low = world.allocate_span(1, 4096, request);
  ASSERT_TRUE(low.ok());
  EXPECT_LT(static_cast<std::uint64_t>(iovas[offset_of(*low) / 4096]), std::uint64_t{1} << 31);
  EXPECT_EQ(world.breaches(), "");
}

TEST(CoreSpan, RefusesWhatIsNoSpan) {
  CoreWorld world;
  const std::uint32_t region = world.add_region(1 * kMiB);
  const std::uint64_t ptr = world.must_span(1, 100 * kKiB);
  EXPECT_EQ(world.free_code(1, ptr + 64), EINVAL);
  for (std::uint64_t page = 1; page < 25; ++page)
    EXPECT_EQ(world.free_code(1, ptr + page * 4096), EINVAL) << page;
  EXPECT_EQ(world.free_code(1, ptr + std::uint64_t{25} * 4096), EALREADY);
  EXPECT_EQ(world.free_code(1, make_ptr(region, 1 * kMiB - 1)), EALREADY);
  world.must_free(2, ptr);
  EXPECT_EQ(world.free_code(1, ptr), EALREADY);
  EXPECT_EQ(world.free_code(2, ptr + 4096), EALREADY);
  EXPECT_EQ(world.leftovers(), "");
}

TEST(CoreSpan, RefusesSizesThatNoRegionHas) {
  CoreWorld world;
  world.add_region(1 * kMiB);
  for (const std::uint64_t bytes :
       {1 * kMiB + 1, std::uint64_t{1} << 44, std::uint64_t{1} << 62, ~std::uint64_t{0}}) {
    EXPECT_EQ(world.allocate_span(1, bytes).error().code(), ENOMEM) << bytes;
  }
  EXPECT_EQ(world.allocate_span(1, 1 * kMiB).error().code(), 0);
  EXPECT_EQ(world.breaches(), "");
}

TEST(CoreSpan, ResizesInPlaceWhenTheNeighbourIsFree) {
  CoreWorld world;
  const std::uint32_t region = world.add_region(1 * kMiB);
  const auto resize = [&](std::uint64_t offset, std::uint64_t bytes) {
    const auto done = world.core().resize_span(1, CoreWorld::kHeap, region, offset, bytes);
    return done.ok() ? int{*done} : -done.error().code();
  };
  const std::uint64_t a = offset_of(world.must_span(1, 100 * kKiB));
  EXPECT_EQ(resize(a, 200 * kKiB), 1);
  EXPECT_EQ(world.heap().span_pages_bytes, 200 * kKiB);
  const std::uint64_t b = offset_of(world.must_span(1, 100 * kKiB));
  ASSERT_EQ(b, a + 200 * kKiB);
  EXPECT_EQ(resize(a, 201 * kKiB), 0);
  EXPECT_EQ(resize(a, 197 * kKiB), 1);  // the same number of pages
  EXPECT_EQ(world.heap().span_pages_bytes, 300 * kKiB);
  EXPECT_EQ(resize(a, 1), 1);
  EXPECT_EQ(world.heap().span_pages_bytes, 104 * kKiB);
  EXPECT_EQ(resize(a, 200 * kKiB), 1);
  EXPECT_EQ(resize(a, 0), -EINVAL);
  EXPECT_EQ(resize(a + 4096, 4096), -EINVAL);
  EXPECT_EQ(resize(a, ~std::uint64_t{0}), 0);
  EXPECT_EQ(world.breaches(), "");
  EXPECT_EQ(world.out_bytes(), static_cast<std::int64_t>(300 * kKiB));
  world.must_free(1, make_ptr(region, a));
  world.must_free(1, make_ptr(region, b));
  EXPECT_EQ(world.leftovers(), "");
}

TEST(CoreSpan, GrowsIntoWhatAnotherThreadHasCached) {
  CoreWorld world;
  const std::uint32_t region = world.add_region(256 * kKiB);
  const std::uint64_t a = offset_of(world.must_span(1, 64 * kKiB));
  const std::uint64_t small = world.must_allocate(2, 100);
  ASSERT_EQ(offset_of(small), a + 64 * kKiB);
  world.must_free(2, small);  // cached by slot 2, in a slab right behind the span
  const auto grown = world.core().resize_span(1, CoreWorld::kHeap, region, a, 256 * kKiB);
  ASSERT_TRUE(grown.ok());
  EXPECT_TRUE(*grown);
  EXPECT_EQ(world.breaches(), "");
}

TEST(CoreSpan, GrowsOverAFreeRunIntoWhatAnotherThreadHasCached) {
  CoreWorld world;
  const std::uint32_t region = world.add_region(256 * kKiB);
  const std::uint64_t a = offset_of(world.must_span(1, 64 * kKiB));
  const std::uint64_t gap = world.must_allocate(1, 16 * kKiB + 32 * kKiB);
  const std::uint64_t small = world.must_allocate(2, 100);
  ASSERT_GT(offset_of(small), offset_of(gap));
  world.must_free(1, gap);
  world.must_free(2, small);
  const auto grown = world.core().resize_span(1, CoreWorld::kHeap, region, a, 256 * kKiB);
  ASSERT_TRUE(grown.ok());
  EXPECT_TRUE(*grown);
  EXPECT_EQ(world.breaches(), "");
}

TEST(CoreSpan, TheBiggestPieceLooksBehindCachesAndIntoEveryRegion) {
  CoreWorld world;
  world.add_region(1 * kMiB);
  const std::uint32_t big = world.add_region(8 * kMiB);
  for (int i = 0; i < 500; ++i) world.must_free(2, world.must_allocate(2, 1000));
  const auto all = world.core().biggest_span(1, CoreWorld::kHeap, {}, {});
  ASSERT_TRUE(all.ok());
  EXPECT_EQ(all->region, big);
  EXPECT_EQ(all->bytes, 8 * kMiB);
  SpanRequest request;
  request.nocross = 64 * kKiB;
  EXPECT_EQ(world.core().biggest_span(1, CoreWorld::kHeap, request, {})->bytes, 64 * kKiB);
  request.nocross = 1 * kKiB;
  EXPECT_EQ(world.core().biggest_span(1, CoreWorld::kHeap, request, {})->bytes, 1 * kKiB);
  request = {};
  request.iova_contiguous = true;  // no IOVA is known: one OS page is contiguous all the same
  EXPECT_EQ(world.core().biggest_span(1, CoreWorld::kHeap, request, {})->bytes, 4 * kKiB);
  request.dma_bits = 32;
  EXPECT_EQ(world.core().biggest_span(1, CoreWorld::kHeap, request, {})->bytes, 0u);
}

TEST(CoreSpan, ServesARegionOfTwoToThe47Bytes) {
  shared::Geometry geometry = small_geometry();
  geometry.large_bytes = 1 * kGiB;  // address space only
  CoreWorld world(geometry);
  const std::uint32_t region = world.add_region(std::uint64_t{1} << 47, 24, {.os_page_shift = 30});
  SpanRequest request;
  request.placement = Placement::high;
  const auto high = world.allocate_span(1, std::uint64_t{1} << 40, request);
  ASSERT_TRUE(high.ok());
  EXPECT_EQ(offset_of(*high), (std::uint64_t{1} << 47) - (std::uint64_t{1} << 40));
  const std::uint64_t small = world.must_allocate(1, 100);
  EXPECT_EQ(region_of(small), region);
  EXPECT_EQ(world.free_code(2, *high + 1), EINVAL);
  EXPECT_EQ(world.free_code(2, *high + (std::uint64_t{1} << 39)), EINVAL);
  world.must_free(2, *high);
  world.must_free(2, small);
  EXPECT_EQ(world.leftovers(), "");
}

TEST(CoreSpan, DetachedRegionsServeNoMore) {
  CoreWorld world;
  std::vector<std::uint32_t> regions;
  for (int i = 0; i < 4; ++i) regions.push_back(world.add_region(64 * kKiB));
  for (const std::size_t i : {1u, 3u, 0u, 2u}) {
    {
      const shared::LockGuard guard(world.heap().lock, 1, false);
      EXPECT_TRUE(world.core().region_empty_locked(regions[i]));
      world.core().detach_region_locked(regions[i]);
    }
    world.core().region(regions[i]).heap = 0;
    EXPECT_EQ(world.breaches(), "");
    std::uint64_t pieces = 0;
    std::vector<std::uint64_t> held;
    for (auto got = world.allocate_span(1, 64 * kKiB); got.ok(); got = world.allocate_span(1, 64 * kKiB)) {
      EXPECT_NE(region_of(*got), regions[i]);
      held.push_back(*got);
      ++pieces;
    }
    EXPECT_EQ(pieces, world.heap().regions);
    for (const std::uint64_t ptr : held) world.must_free(1, ptr);
  }
  EXPECT_EQ(world.heap().regions, 0u);
}

}  // namespace
}  // namespace extmem::alloc
