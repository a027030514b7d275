#include "shared/control_segment.hpp"

#include <gtest/gtest.h>

#include <cstring>

namespace extmem::shared {
namespace {

TEST(SegmentLayout, PlacesTablesApartAndAligned) {
  SegmentLayout layout;
  std::uint64_t end = 4096;  // the header has a page of its own
  for (const std::uint64_t align : {64u, 4096u, 64u, 65536u, 64u}) {
    const std::uint64_t at = layout.place(24, 1000, align);
    EXPECT_TRUE(base::is_aligned(at, align));
    EXPECT_GE(at, end);
    end = at + 24'000;
  }
  EXPECT_GE(layout.total_bytes(), end);
  EXPECT_TRUE(base::is_aligned(layout.total_bytes(), 4096));
}

TEST(SegmentLayout, HashTellsLayoutsApart) {
  const auto hash = [](std::uint64_t size, std::uint64_t count, std::uint64_t align) {
    SegmentLayout layout;
    layout.place(64, 10);
    layout.place(size, count, align);
    return layout.hash();
  };
  EXPECT_EQ(hash(24, 100, 64), hash(24, 100, 64));
  EXPECT_NE(hash(24, 100, 64), hash(24, 101, 64));
  EXPECT_NE(hash(24, 100, 64), hash(32, 100, 64));
  EXPECT_NE(hash(24, 100, 64), hash(24, 100, 4096));
  EXPECT_NE(hash(24, 100, 64), hash(100, 24, 64));
}

TEST(ControlSegment, BeginsAsZeroesBehindItsHeader) {
  SegmentLayout layout;
  const std::uint64_t at = layout.place(1, 100'000);
  Geometry geometry{};
  geometry.max_heaps = 7;
  ControlSegment segment;
  ASSERT_TRUE(segment.create_private(layout, geometry).ok());
  EXPECT_EQ(segment.header().magic, kSegmentMagic);
  EXPECT_EQ(segment.header().abi, kSegmentAbi);
  EXPECT_EQ(segment.header().layout_hash, layout.hash());
  EXPECT_EQ(segment.header().total_bytes, segment.bytes());
  EXPECT_EQ(segment.header().geometry.max_heaps, 7u);
  for (std::uint64_t i = 0; i < 100'000; ++i) ASSERT_EQ(segment.at<unsigned char>(at)[i], 0) << i;
}

TEST(ControlSegment, CostsAddressSpaceNotMemory) {
  SegmentLayout layout;
  layout.place(1, std::uint64_t{1} << 40);
  ControlSegment segment;
  ASSERT_TRUE(segment.create_private(layout, {}).ok());
  EXPECT_LE(segment.resident_bytes(), 65536u);
  segment.at<unsigned char>(std::uint64_t{1} << 39)[0] = 1;
  EXPECT_GE(segment.resident_bytes(), 8192u);
  segment.close();
  segment.close();
  EXPECT_EQ(segment.base(), nullptr);
}

TEST(ControlSegment, DiscardZeroesExactlyTheRange) {
  SegmentLayout layout;
  const std::uint64_t at = layout.place(1, 64 * 4096, 4096);
  ControlSegment segment;
  ASSERT_TRUE(segment.create_private(layout, {}).ok());
  auto* const bytes = segment.at<unsigned char>(at);
  struct Range {
    std::uint64_t offset;
    std::uint64_t length;
  };
  for (const Range range :
       {Range{0, 64 * 4096}, Range{5, 100}, Range{4000, 200}, Range{4096, 4096}, Range{100, 20'000},
        Range{8192, 5000}, Range{12'000, 288}, Range{4095, 2}, Range{77, 0}}) {
    std::memset(bytes, 0xee, 64 * 4096);
    segment.discard(at + range.offset, range.length);
    for (std::uint64_t i = 0; i < 64 * 4096; ++i) {
      const bool inside = i >= range.offset && i < range.offset + range.length;
      ASSERT_EQ(bytes[i], inside ? 0 : 0xee) << range.offset << " + " << range.length << " at " << i;
    }
  }
}

}  // namespace
}  // namespace extmem::shared
