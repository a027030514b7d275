#include "os/resident.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "os/mapping.hpp"
#include "os/smaps.hpp"
#include "unit/os/child.hpp"

namespace extmem::os {
namespace {

TEST(Resident, CountsWhatWasTouched) {
  const std::size_t page = page_size();
  const Result<std::byte*> p = reserve(64 * page);
  ASSERT_TRUE(p);
  EXPECT_EQ(resident_bytes(*p, 64 * page), 0U);
  // Between two parts that stay reserved, so that the kernel keeps it apart.
  ASSERT_TRUE(commit(*p + 8 * page, 32 * page));
  ::madvise(*p + 8 * page, 32 * page, MADV_NOHUGEPAGE);
  EXPECT_EQ(resident_bytes(*p, 64 * page), 0U);
  std::memset(*p + 8 * page, 1, 5 * page);
  errno = 77;
  EXPECT_EQ(resident_bytes(*p, 64 * page), 5 * page);
  EXPECT_EQ(errno, 77);
  EXPECT_EQ(resident_bytes(*p + 8 * page, 2 * page), 2 * page) << "never more than the range";
  EXPECT_EQ(resident_bytes(*p, 8 * page), 0U);
  discard(*p + 8 * page, 32 * page);
  EXPECT_EQ(resident_bytes(*p, 64 * page), 0U);
  unmap(*p, 64 * page);
  EXPECT_EQ(resident_bytes(*p, SIZE_MAX), 0U);
}

TEST(Resident, WithoutProcIsZero) {
  const test::TestFolder folder;
  RUN_IN_CHILD([&] {
    if (::chroot(folder.path().c_str()) != 0) return std::string("skip: needs root to chroot");
    REQUIRE(resident_bytes(&folder, sizeof folder) == 0);
    SmapsReader reader;
    REQUIRE(!reader.is_open());
    REQUIRE(!reader.next());
    return std::string();
  });
}

TEST(Smaps, ListsMappingsInOrderWithTheirSizes) {
  SmapsReader reader;
  ASSERT_TRUE(reader.is_open());
  const auto here = reinterpret_cast<std::uintptr_t>(&reader);
  std::uint64_t before = 0;
  bool found = false;
  while (const auto mapping = reader.next()) {
    EXPECT_LE(before, mapping->start);
    EXPECT_LT(mapping->start, mapping->end);
    EXPECT_LE(mapping->resident, mapping->end - mapping->start);
    EXPECT_GE(mapping->kernel_page_size, page_size());
    before = mapping->end;
    if (mapping->start <= here && here < mapping->end) {
      found = true;
      EXPECT_GT(mapping->resident, 0U);
    }
  }
  EXPECT_TRUE(found) << "the stack is a mapping";
  EXPECT_FALSE(reader.next());
}

}  // namespace
}  // namespace extmem::os
