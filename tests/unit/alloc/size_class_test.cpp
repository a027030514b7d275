#include "alloc/size_class.hpp"

#include <gtest/gtest.h>

#include "alloc/slab.hpp"

namespace extmem::alloc {
namespace {

TEST(SizeClass, IsTheSmallestThatFits) {
  for (std::uint64_t size = 0; size <= kMaxClassSize; ++size) {
    const std::uint32_t cls = class_of(size);
    ASSERT_LT(cls, kClasses) << size;
    ASSERT_GE(kSizeClasses[cls].size, size);
    if (cls > 0) {
      ASSERT_LT(kSizeClasses[cls - 1].size, std::max<std::uint64_t>(size, 1)) << size;
    }
    ASSERT_EQ(cls, compute_class_of(size));
  }
}

TEST(SizeClass, WastesLessThanAQuarterOfAnObjectAboveTheSmallest) {
  for (std::uint64_t size = 49; size <= kMaxClassSize; ++size) {
    const std::uint64_t given = kSizeClasses[class_of(size)].size;
    ASSERT_LE((given - size) * 4, given) << size;
  }
  for (std::uint64_t size = 1; size < 49; ++size)
    ASSERT_LT(kSizeClasses[class_of(size)].size - size, 16u) << size;
}

TEST(SizeClass, SizesRiseAndAreMultiplesOf16) {
  for (std::uint32_t cls = 0; cls < kClasses; ++cls) {
    EXPECT_EQ(kSizeClasses[cls].size, compute_class_size(cls));
    EXPECT_EQ(kSizeClasses[cls].size % 16, 0u);
    EXPECT_EQ(class_of(kSizeClasses[cls].size), cls);
    if (cls > 0) {
      EXPECT_GT(kSizeClasses[cls].size, kSizeClasses[cls - 1].size);
    }
  }
}

TEST(SizeClass, MagazinesHoldAFewObjectsAndLittleMemory) {
  for (const SizeClass& cls : kSizeClasses) {
    EXPECT_GE(cls.capacity, 2u);  // flush_class() returns half
    EXPECT_LE(cls.capacity, kMagazineCapacity);
    EXPECT_LE(std::uint64_t{cls.capacity} * cls.size,
              std::max<std::uint64_t>(65536, 8 * std::uint64_t{cls.size}));
  }
}

TEST(SizeClass, SlabsWasteAtMostAnEighthAtTheirTailOrWholePages) {
  for (const SizeClass& cls : kSizeClasses) {
    if (cls.size > kLastingSize) {  // given back
      EXPECT_EQ(cls.slab_bytes % cls.size % kSlabAlign, 0u) << cls.size;
    } else {
      EXPECT_LE(cls.slab_bytes % cls.size * 8, cls.slab_bytes) << cls.size;
    }
    EXPECT_LE(cls.slab_bytes, std::uint64_t{kMaxSlabPages} * 4096);
    EXPECT_LE(cls.slab_bytes / cls.size, kMaxSlabObjects);
  }
}

TEST(SizeClass, WithAnAlignmentIsTheSmallestThatFulfilsIt) {
  for (std::uint64_t align = 1; align <= 2 * kSlabAlign; align *= 2) {
    for (std::uint64_t size = 1; size <= kMaxClassSize + 1; size += size < 300 ? 1 : 37) {
      std::uint32_t expected = kClasses;
      for (std::uint32_t cls = kClasses; cls-- > 0;) {
        if (align <= kSlabAlign && kSizeClasses[cls].size >= size && kSizeClasses[cls].size % align == 0)
          expected = cls;
      }
      ASSERT_EQ(class_of_aligned(size, align), expected) << size << " aligned to " << align;
    }
  }
}

TEST(ObjectPlace, DividesExactly) {
  for (const SizeClass& cls : kSizeClasses) {
    const std::uint64_t reciprocal = reciprocal_of(cls.size);
    std::uint64_t wrong = 0;
    for (std::uint64_t offset = 0; offset < 262'144; ++offset) {
      const ObjectPlace place = place_of(offset, reciprocal);
      if (place.number != offset / cls.size || place.exact != (offset % cls.size == 0)) ++wrong;
    }
    EXPECT_EQ(wrong, 0u) << cls.size;
    for (std::uint64_t offset = 262'144; offset < std::uint64_t{1} << 32; offset += offset / 3 + 16) {
      ASSERT_EQ(place_of(offset, reciprocal).number, offset / cls.size) << offset << " by " << cls.size;
      ASSERT_EQ(place_of(offset, reciprocal).exact, offset % cls.size == 0) << offset << " by " << cls.size;
    }
  }
}

TEST(ObjectPlace, OfAnAddressOutsideTheSlabIsNoObject) {
  for (const SizeClass& cls : kSizeClasses) {
    for (std::uint64_t distance = cls.size; distance != 0; distance *= 2) {
      EXPECT_GE(place_of(~std::uint64_t{0} - distance + 1, reciprocal_of(cls.size)).number, kMaxSlabObjects);
      if (distance < std::uint64_t{1} << 32) continue;
      EXPECT_GE(place_of(distance, reciprocal_of(cls.size)).number, kMaxSlabObjects);
    }
  }
}

}  // namespace
}  // namespace extmem::alloc
