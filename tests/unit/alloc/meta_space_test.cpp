#include "alloc/meta_space.hpp"

#include <gtest/gtest.h>

#include "unit/alloc/core_world.hpp"

namespace extmem::alloc {
namespace {

class MetaSpaceTest : public ::testing::Test {
 protected:
  std::uint64_t allocate(MetaSpace& meta, std::uint64_t bytes) {
    auto tx = world_.core().transaction(1);
    const std::uint64_t at = allocate_meta(world_.core().segment(), meta, tx, bytes);
    tx.commit();
    return at;
  }
  std::uint64_t free(MetaSpace& meta, std::uint64_t at) {
    auto tx = world_.core().transaction(1);
    const std::uint64_t bytes = free_meta(world_.core().segment(), meta, tx, at);
    tx.commit();
    return bytes;
  }
  CoreWorld world_;
  MetaSpace& small_ = world_.core().roots().small;
  MetaSpace& large_ = world_.core().roots().large;
};

TEST_F(MetaSpaceTest, GivesRoundedPiecesInsideItsArea) {
  for (MetaSpace* meta : {&small_, &large_}) {
    const std::uint64_t page = std::uint64_t{1} << meta->pages.page_shift;
    for (const std::uint64_t bytes : {std::uint64_t{1}, page - 1, page, page + 1, 10 * page}) {
      const std::uint64_t at = allocate(*meta, bytes);
      ASSERT_GE(at, meta->area_offset);
      EXPECT_TRUE(base::is_aligned(at, page));
      EXPECT_LE(at + bytes, meta->area_offset + (std::uint64_t{meta->pages.pages} << meta->pages.page_shift));
      EXPECT_EQ(free(*meta, at), base::align_up(bytes, page));
    }
    EXPECT_EQ(meta->pages.free_pages, meta->pages.pages);
  }
}

TEST_F(MetaSpaceTest, SaysZeroWhenFullAndForNoBytes) {
  EXPECT_EQ(allocate(small_, 0), 0u);
  EXPECT_EQ(allocate(small_, small_geometry().small_bytes + 1), 0u);
  EXPECT_EQ(allocate(small_, ~std::uint64_t{0} / 2), 0u);
  const std::uint64_t all = allocate(small_, small_geometry().small_bytes);
  EXPECT_EQ(all, small_.area_offset);
  EXPECT_EQ(allocate(small_, 1), 0u);
  free(small_, all);
  EXPECT_NE(allocate(small_, 1), 0u);
}

}  // namespace
}  // namespace extmem::alloc
