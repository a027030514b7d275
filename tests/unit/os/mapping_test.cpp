#include "os/mapping.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdint>
#include <cstring>

#include "unit/os/child.hpp"

namespace extmem::os {
namespace {

using test::set_limit;

constexpr std::size_t kMiB = std::size_t{1} << 20;

bool all_zero(const std::byte* p, std::size_t bytes) {
  return std::all_of(p, p + bytes, [](std::byte b) { return b == std::byte{0}; });
}

TEST(Mapping, PageSizeIsAPowerOfTwo) { EXPECT_TRUE(std::has_single_bit(page_size())); }

TEST(Mapping, ReservesCommitsAndDiscards) {
  const std::size_t bytes = 8 * kMiB;
  const Result<std::byte*> p = reserve(bytes);
  ASSERT_TRUE(p) << p.error().message();
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(*p) % page_size(), 0U);

  ASSERT_TRUE(commit(*p + kMiB, kMiB));
  EXPECT_TRUE(all_zero(*p + kMiB, kMiB));
  std::memset(*p + kMiB, 0xab, kMiB);
  ASSERT_TRUE(commit(*p + kMiB, kMiB)) << "committing twice changes nothing";
  EXPECT_EQ((*p)[kMiB], std::byte{0xab});

  discard(*p + kMiB, kMiB / 2);
  EXPECT_TRUE(all_zero(*p + kMiB, kMiB / 2));
  EXPECT_EQ((*p)[kMiB + kMiB / 2], std::byte{0xab});
  unmap(*p, bytes);
}

TEST(Mapping, ReservedIsNotAccessible) {
  const Result<std::byte*> p = reserve(page_size());
  ASSERT_TRUE(p);
  const auto outcome = test::in_child([&] {
    ::prctl(PR_SET_DUMPABLE, 0);
    ::signal(SIGSEGV, SIG_DFL);
    **p = std::byte{1};
    return std::string();
  });
  EXPECT_FALSE(outcome.ok);
  unmap(*p, page_size());
}

TEST(Mapping, ReservesMoreThanTheMachineHas) {
  const std::size_t bytes = std::size_t{1} << 39;  // ThreadSanitizer leaves no room for much more
  const Result<std::byte*> p = reserve(bytes);
  ASSERT_TRUE(p) << p.error().message();
  ASSERT_TRUE(commit(*p + bytes / 2, page_size()));
  (*p)[bytes / 2] = std::byte{1};
  unmap(*p, bytes);
}

TEST(Mapping, ReservesAtAnAlignment) {
  for (std::size_t align = 1; align <= std::size_t{1} << 30; align <<= 1) {
    const std::size_t bytes = 3 * page_size() + 1;
    const Result<std::byte*> p = reserve_aligned(bytes, align);
    ASSERT_TRUE(p) << p.error().message();
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(*p) % align, 0U);
    ASSERT_TRUE(commit(*p, bytes));
    (*p)[bytes - 1] = std::byte{1};
    unmap(*p, bytes);
  }
}

TEST(Mapping, RefusesWhatMakesNoSense) {
  EXPECT_EQ(reserve(0).error().code(), EINVAL);
  EXPECT_EQ(reserve_aligned(0, std::size_t{1} << 20).error().code(), EINVAL);
  EXPECT_EQ(reserve_aligned(1, 3).error().code(), EINVAL);
  EXPECT_EQ(reserve_aligned(1, 0).error().code(), EINVAL);
  EXPECT_EQ(reserve(SIZE_MAX).error().code(), ENOMEM);
  EXPECT_EQ(reserve_aligned(SIZE_MAX, kMiB).error().code(), ENOMEM);
  EXPECT_EQ(reserve_aligned(SIZE_MAX - kMiB, kMiB).error().code(), ENOMEM);
  EXPECT_EQ(commit(nullptr, 1).error().code(), EINVAL);
  std::byte somewhere{};
  EXPECT_EQ(commit(&somewhere + 1, 1).error().code(), EINVAL);
  unmap(nullptr, 1);
}

TEST(Mapping, CommitFailsWhereNothingIsReserved) {
  const Result<std::byte*> p = reserve(page_size());
  ASSERT_TRUE(p);
  unmap(*p, page_size());
  EXPECT_EQ(commit(*p, page_size()).error().code(), ENOMEM);
}

TEST(Mapping, FailsBeyondTheLimitOfAddressSpace) {
  RUN_IN_CHILD([] {
    REQUIRE(set_limit(RLIMIT_AS, 0));
    const Result<std::byte*> p = reserve(64 * kMiB);
    const Result<std::byte*> aligned = reserve_aligned(kMiB, kMiB);
    REQUIRE(set_limit(RLIMIT_AS, RLIM_INFINITY));
    REQUIRE_ERROR(p, ENOMEM);
    REQUIRE_ERROR(aligned, ENOMEM);
    REQUIRE(std::strstr(p.error().message(), "RLIMIT_AS") != nullptr);
    return std::string();
  });
}

TEST(Mapping, DiscardsLockedMemory) {
  RUN_IN_CHILD([] {
    const Result<std::byte*> p = reserve(4 * page_size());
    REQUIRE_OK(p);
    REQUIRE_OK(commit(*p, 4 * page_size()));
    if (::mlock(*p, 4 * page_size()) != 0) return std::string("skip: this user may lock no memory");
    std::memset(*p, 0xab, 4 * page_size());
    discard(*p, 2 * page_size());
    REQUIRE(all_zero(*p, 2 * page_size()));
    REQUIRE((*p)[2 * page_size()] == std::byte{0xab});
    // A kernel before 5.18 knows no MADV_DONTNEED_LOCKED: then the memory is overwritten.
    REQUIRE(test::fail_system_call(SYS_madvise, EINVAL, 2, 0xffffffff, 24));
    discard(*p + 2 * page_size(), page_size() + 1);
    REQUIRE(all_zero(*p, 4 * page_size()));
    return std::string();
  });
}

TEST(Mapping, KeepsErrno) {
  errno = 77;
  const Result<std::byte*> p = reserve_aligned(kMiB, kMiB);
  ASSERT_TRUE(p);
  ASSERT_TRUE(commit(*p, kMiB));
  discard(*p, kMiB);
  unmap(*p, kMiB);
  EXPECT_EQ(errno, 77);
}

}  // namespace
}  // namespace extmem::os
