#include "os/vma.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cerrno>
#include <limits>

#include "os/hugepages.hpp"
#include "os/mapping.hpp"
#include "unit/os/child.hpp"
#include "unit/os/hugepage_pool.hpp"

namespace extmem::os {
namespace {

// Both ways of asking must give the same answers: the second is what kernels before 6.11 leave.
std::string check_plain_memory() {
  const std::size_t page = page_size();
  const Result<std::byte*> p = reserve(8 * page);
  REQUIRE_OK(p);
  REQUIRE_OK(commit(*p + 2 * page, 2 * page));  // three mappings now
  REQUIRE(kernel_page_size(*p, 8 * page).value_or(0) == page);
  REQUIRE(kernel_page_size(*p + 3 * page + 5, 1).value_or(0) == page);
  REQUIRE(!is_hugetlb(*p, 8 * page).value_or(true));
  ::munmap(*p + 5 * page, page);
  REQUIRE_ERROR(kernel_page_size(*p, 8 * page), EFAULT);
  REQUIRE_ERROR(kernel_page_size(*p + 5 * page, 1), EFAULT);
  REQUIRE(kernel_page_size(*p, 5 * page).value_or(0) == page);
  REQUIRE(kernel_page_size(*p + 6 * page, 2 * page).value_or(0) == page);
  REQUIRE_ERROR(kernel_page_size(nullptr, 1), EFAULT);
  unmap(*p, 8 * page);
  return "";
}

std::string check_hugepage(std::size_t size) {
  const std::size_t page = page_size();
  void* const room = ::mmap(nullptr, 4 * size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  REQUIRE(room != MAP_FAILED);
  auto* const first =
      reinterpret_cast<std::byte*>((reinterpret_cast<std::uintptr_t>(room) / size + 1) * size);
  REQUIRE(::mmap(first, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_FIXED,
                 -1, 0) == first);
  REQUIRE(kernel_page_size(first, size).value_or(0) == size);
  REQUIRE(is_hugetlb(first, size).value_or(false));
  REQUIRE(is_hugetlb(first + page, 1).value_or(false));
  // The smallest page in the range counts.
  REQUIRE(kernel_page_size(first - page, size).value_or(0) == page);
  REQUIRE(!is_hugetlb(first, size + 1).value_or(true));
  ::munmap(room, 4 * size);
  return "";
}

bool without_query() { return test::fail_system_call(SYS_ioctl, ENOTTY); }

TEST(Vma, KnowsPlainMemory) {
  RUN_IN_CHILD([] { return check_plain_memory(); });
}

TEST(Vma, KnowsPlainMemoryBySmaps) {
  RUN_IN_CHILD(
      [] { return without_query() ? check_plain_memory() : std::string("skip: no seccomp filters"); });
}

TEST(Vma, KnowsHugepages) {
  const std::size_t size = default_hugepage_size();
  const test::HugepagesForATest hugepages(size, 1);
  if (!hugepages.ready()) GTEST_SKIP() << "needs hugepages: " << hugepages.why_not();
  RUN_IN_CHILD([&] { return check_hugepage(size); });
  RUN_IN_CHILD(
      [&] { return without_query() ? check_hugepage(size) : std::string("skip: no seccomp filters"); });
}

TEST(Vma, RefusesWhatMakesNoSense) {
  int here = 0;
  EXPECT_EQ(kernel_page_size(&here, 0).error().code(), EINVAL);
  EXPECT_EQ(kernel_page_size(&here, std::numeric_limits<std::size_t>::max()).error().code(), EINVAL);
  EXPECT_TRUE(is_hugetlb(&here, sizeof here));
}

TEST(Vma, WithoutProcIsAnError) {
  const test::TestFolder folder;
  RUN_IN_CHILD([&] {
    if (::chroot(folder.path().c_str()) != 0) return std::string("skip: needs root to chroot");
    int here = 0;
    REQUIRE_ERROR(is_hugetlb(&here, sizeof here), ENOENT);
    return std::string();
  });
}

}  // namespace
}  // namespace extmem::os
