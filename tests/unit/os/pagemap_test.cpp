#include "os/pagemap.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <limits>
#include <set>
#include <vector>

#include "os/hugepages.hpp"
#include "os/mapping.hpp"
#include "os/process.hpp"
#include "unit/os/child.hpp"
#include "unit/os/hugepage_pool.hpp"

namespace extmem::os {
namespace {

// Whether this process is shown physical addresses; the tests that need them are skipped where not.
bool is_shown() {
  const Result<std::byte*> p = reserve(page_size());
  if (!p || !commit(*p, page_size())) return false;
  **p = std::byte{1};
  std::uint64_t address = 0;
  const bool shown = physical_addresses(*p, page_size(), 1, &address).ok();
  unmap(*p, page_size());
  return shown;
}

#define SKIP_UNLESS_SHOWN() \
  if (!is_shown())          \
  GTEST_SKIP() << "needs physical addresses, which need CAP_SYS_ADMIN in the first user namespace"

class Memory {
 public:
  Memory(std::size_t bytes, int flags, int fd = -1)
      : bytes_(bytes), p_(::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, fd, 0)) {}
  ~Memory() {
    if (mapped()) ::munmap(p_, bytes_);
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  [[nodiscard]] bool mapped() const { return p_ != MAP_FAILED; }
  [[nodiscard]] volatile char* bytes() const { return static_cast<volatile char*>(p_); }
  [[nodiscard]] void* p() const { return p_; }
  void fill() { std::memset(p_, 1, bytes_); }

 private:
  std::size_t bytes_;
  void* p_;
};

constexpr int kPrivate = MAP_PRIVATE | MAP_ANONYMOUS;

TEST(Pagemap, EachPresentPageHasAnAddressOfItsOwn) {
  SKIP_UNLESS_SHOWN();
  constexpr std::size_t kPages = 1500;  // several batches
  Memory memory(kPages * page_size(), kPrivate);
  ::madvise(memory.p(), kPages * page_size(), MADV_NOHUGEPAGE);
  memory.fill();
  std::vector<std::uint64_t> addresses(kPages);
  std::set<std::uint64_t> distinct;
  // The kernel may move pages while they are looked at (other tests make it compact memory): then look again.
  for (int attempt = 0; attempt < 10 && distinct.size() < kPages; ++attempt) {
    const Result<void> found = physical_addresses(memory.p(), page_size(), kPages, addresses.data());
    ASSERT_TRUE(found) << found.error().message();
    distinct = std::set<std::uint64_t>(addresses.begin(), addresses.end());
  }
  EXPECT_EQ(distinct.size(), kPages);
  EXPECT_EQ(distinct.count(0), 0U);
  for (const std::uint64_t address : addresses) EXPECT_EQ(address % page_size(), 0U);
}

TEST(Pagemap, TwoMappingsOfAPageHaveOneAddress) {
  SKIP_UNLESS_SHOWN();
  const int fd = ::memfd_create("pagemap", MFD_CLOEXEC);
  ASSERT_EQ(::ftruncate(fd, static_cast<off_t>(4 * page_size())), 0);
  {
    Memory one(4 * page_size(), MAP_SHARED, fd);
    Memory two(4 * page_size(), MAP_SHARED, fd);
    one.fill();
    two.fill();
    std::array<std::uint64_t, 4> in_one{};
    std::array<std::uint64_t, 4> in_two{};
    for (int attempt = 0; attempt < 10; ++attempt) {  // the kernel may move pages in between
      ASSERT_TRUE(physical_addresses(one.p(), page_size(), 4, in_one.data()));
      ASSERT_TRUE(physical_addresses(two.p(), page_size(), 4, in_two.data()));
      if (in_one == in_two) break;
    }
    EXPECT_EQ(in_one, in_two);
  }
  ::close(fd);
}

TEST(Pagemap, AbsentPagesHaveNoAddress) {
  SKIP_UNLESS_SHOWN();
  Memory memory(4 * page_size(), kPrivate);
  memory.bytes()[0] = 1;
  std::array<std::uint64_t, 4> addresses{};
  EXPECT_TRUE(physical_addresses(memory.p(), page_size(), 1, addresses.data()));
  const Result<void> found = physical_addresses(memory.p(), page_size(), 4, addresses.data());
  EXPECT_EQ(found.error().code(), ENOENT);
  EXPECT_NE(std::strstr(found.error().message(), "pre-fault"), nullptr);
  EXPECT_EQ(physical_addresses(nullptr, page_size(), 1, addresses.data()).error().code(), ENOENT);
  void* const beyond =
      reinterpret_cast<void*>(std::numeric_limits<std::uintptr_t>::max() - 4 * page_size() + 1);
  EXPECT_EQ(physical_addresses(beyond, page_size(), 1, addresses.data()).error().code(), ENOENT);
}

TEST(Pagemap, NeverGivesTheZeroPage) {
  SKIP_UNLESS_SHOWN();
  Memory memory(4 * page_size(), kPrivate);
  ::madvise(memory.p(), 4 * page_size(), MADV_NOHUGEPAGE);
  memory.fill();
  ::madvise(memory.p(), 4 * page_size(), MADV_DONTNEED);
  memory.bytes()[0] = 1;
  EXPECT_EQ(memory.bytes()[page_size()], 0);  // reading maps the zero page
  std::array<std::uint64_t, 2> addresses{};
  const Result<void> found = physical_addresses(memory.p(), page_size(), 2, addresses.data());
  ASSERT_EQ(found.error().code(), ENOENT);
  EXPECT_NE(std::strstr(found.error().message(), "zero page"), nullptr) << found.error().message();
  memory.bytes()[page_size()] = 1;
  EXPECT_TRUE(physical_addresses(memory.p(), page_size(), 2, addresses.data()));
}

TEST(Pagemap, NeverGivesTheHugeZeroPage) {
  SKIP_UNLESS_SHOWN();
  const ThpPolicy policy = thp_policy();
  if (!policy.anonymous || policy.page_size == 0)
    GTEST_SKIP() << "needs transparent hugepages, which are switched off";
  const Result<std::byte*> p = reserve_aligned(policy.page_size, policy.page_size);
  ASSERT_TRUE(p);
  ASSERT_TRUE(commit(*p, policy.page_size));
  ASSERT_EQ(::madvise(*p, policy.page_size, MADV_HUGEPAGE), 0);
  EXPECT_TRUE(*static_cast<volatile std::byte*>(*p) == std::byte{0});
  std::uint64_t address = 0;
  EXPECT_EQ(physical_addresses(*p, page_size(), 1, &address).error().code(), ENOENT);
  EXPECT_EQ(physical_addresses(*p, policy.page_size, 1, &address).error().code(), ENOENT);
  unmap(*p, policy.page_size);
}

TEST(Pagemap, WithoutPageFlagsDoubtfulPagesAreRefused) {
  SKIP_UNLESS_SHOWN();
  const test::TestFolder folder;
  RUN_IN_CHILD([&] {
    if (!test::can_pretend("/proc/kpageflags")) return std::string("skip: needs mounts of its own and /proc");
    // A file of no length in place of /proc/kpageflags: nothing can be read.
    REQUIRE(test::pretend(folder, "/proc/kpageflags", ""));
    Memory memory(2 * page_size(), kPrivate);
    ::madvise(memory.p(), 2 * page_size(), MADV_NOHUGEPAGE);
    memory.bytes()[0] = 1;
    REQUIRE(memory.bytes()[page_size()] == 0);
    std::array<std::uint64_t, 2> addresses{};
    REQUIRE_OK(physical_addresses(memory.p(), page_size(), 1, addresses.data()));
    REQUIRE_ERROR(physical_addresses(memory.p(), page_size(), 2, addresses.data()), EBUSY);
    return std::string();
  });
}

TEST(Pagemap, PagesSharedWithAForkedProcessHaveAddresses) {
  SKIP_UNLESS_SHOWN();
  Memory memory(2 * page_size(), kPrivate);
  memory.fill();
  RUN_IN_CHILD([&] {
    std::array<std::uint64_t, 2> addresses{};
    REQUIRE_OK(physical_addresses(memory.p(), page_size(), 2, addresses.data()));
    return std::string();
  });
}

TEST(Pagemap, PagesThatAreNotOfTheSizeGivenAreRefused) {
  SKIP_UNLESS_SHOWN();
  const std::size_t bytes = 64 * page_size();
  const Result<std::byte*> p = reserve_aligned(bytes, bytes);
  ASSERT_TRUE(p);
  ASSERT_TRUE(commit(*p, bytes));
  ::madvise(*p, bytes, MADV_NOHUGEPAGE);
  // In reverse, so that the frames do not happen to be in a row.
  for (std::size_t at = bytes; at > 0; at -= page_size()) (*p)[at - 1] = std::byte{1};
  std::array<std::uint64_t, 64> singles{};
  ASSERT_TRUE(physical_addresses(*p, page_size(), 64, singles.data()));
  std::uint64_t address = 0;
  const Result<void> found = physical_addresses(*p, bytes, 1, &address);
  if (singles[63] == singles[0] + bytes - page_size() && singles[0] % bytes == 0) {
    EXPECT_TRUE(found);
  } else {
    EXPECT_EQ(found.error().code(), EINVAL);
  }
  unmap(*p, bytes);
}

TEST(Pagemap, HugepagesAreInOnePiece) {
  SKIP_UNLESS_SHOWN();
  const std::size_t size = default_hugepage_size();
  const test::HugepagesForATest hugepages(size, 2);
  if (!hugepages.ready()) GTEST_SKIP() << "needs hugepages: " << hugepages.why_not();
  Memory memory(2 * size, kPrivate | MAP_HUGETLB);
  ASSERT_TRUE(memory.mapped());
  std::array<std::uint64_t, 2> addresses{};
  EXPECT_EQ(physical_addresses(memory.p(), size, 2, addresses.data()).error().code(), ENOENT);
  memory.fill();
  ASSERT_TRUE(physical_addresses(memory.p(), size, 2, addresses.data()));
  std::vector<std::uint64_t> small(2 * size / page_size());
  ASSERT_TRUE(physical_addresses(memory.p(), page_size(), small.size(), small.data()));
  for (std::size_t i = 0; i < small.size(); ++i) {
    const std::size_t offset = i * page_size();
    EXPECT_EQ(small[i], addresses[offset / size] + offset % size);
  }
}

TEST(Pagemap, WithoutPrivilegeSaysWhatIsNeeded) {
  RUN_IN_CHILD([] {
    REQUIRE(test::drop_privileges());
    // Fewer privileges also take away the right to look at oneself, unless one is made dumpable again.
    REQUIRE(::prctl(PR_SET_DUMPABLE, 1) == 0);
    Memory memory(page_size(), kPrivate);
    memory.fill();
    std::uint64_t address = 0;
    const Result<void> found = physical_addresses(memory.p(), page_size(), 1, &address);
    REQUIRE_ERROR(found, EPERM);
    REQUIRE(std::strstr(found.error().message(), "CAP_SYS_ADMIN") != nullptr);
    REQUIRE(::prctl(PR_SET_DUMPABLE, 0) == 0);
    const Result<void> closed = physical_addresses(memory.p(), page_size(), 1, &address);
    REQUIRE(closed.error().code() == EACCES || closed.error().code() == EPERM);
    REQUIRE(std::strstr(closed.error().message(), "CAP_SYS_ADMIN") != nullptr);
    return std::string();
  });
}

TEST(Pagemap, RefusesWhatMakesNoSense) {
  std::uint64_t address = 0;
  alignas(4096) static std::array<char, 4096> page;
  const std::size_t size = page_size();
  EXPECT_EQ(physical_addresses(page.data(), 0, 1, &address).error().code(), EINVAL);
  EXPECT_EQ(physical_addresses(page.data(), size / 2, 1, &address).error().code(), EINVAL);
  EXPECT_EQ(physical_addresses(page.data(), 3 * size, 1, &address).error().code(), EINVAL);
  EXPECT_EQ(physical_addresses(page.data() + 1, size, 1, &address).error().code(), EINVAL);
  EXPECT_EQ(physical_addresses(page.data(), size, 1, nullptr).error().code(), EINVAL);
  EXPECT_EQ(physical_addresses(page.data(), size, SIZE_MAX, &address).error().code(), EINVAL);
  EXPECT_TRUE(physical_addresses(page.data(), size, 0, nullptr));
}

TEST(Pagemap, WithoutProcIsAnError) {
  const test::TestFolder folder;
  RUN_IN_CHILD([&] {
    if (::chroot(folder.path().c_str()) != 0) return std::string("skip: needs root to chroot");
    Memory memory(page_size(), kPrivate);
    memory.fill();
    std::uint64_t address = 0;
    REQUIRE_ERROR(physical_addresses(memory.p(), page_size(), 1, &address), EOPNOTSUPP);
    return std::string();
  });
}

}  // namespace
}  // namespace extmem::os
