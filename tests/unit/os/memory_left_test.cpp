// What control groups and the system leave, told by trees that the tests write.
#include "os/memory_left.hpp"

#include <gtest/gtest.h>
#include <sys/sysinfo.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>

#include "unit/os/child.hpp"

namespace extmem::os {
namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

class MemoryLeft : public testing::Test {
 protected:
  MemoryLeft() {
    system(1 << 20);
    groups("0::/\n");
  }
  void write(const std::string& name, const std::string& text) const {
    const std::string path = folder_.file(name);
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    ASSERT_TRUE(test::write_file(path, text)) << path;
  }
  void system(std::uint64_t mib) const {
    write("meminfo",
          "MemTotal: 1 kB\nMemAvailable:   " + std::to_string(mib * 1024) + " kB\nSwapFree: 0 kB\n");
  }
  void groups(const std::string& text) const { write("groups", text); }
  /// A group of version 2. No swap space for it.
  void group(const std::string& path, const std::string& limit, std::uint64_t used_mib,
             std::uint64_t inactive = 0, std::uint64_t active = 0, std::uint64_t slab = 0) const {
    const std::string at = "tree" + path;
    write(at + "/memory.max", limit + "\n");
    write(at + "/memory.current", std::to_string(used_mib * kMiB) + "\n");
    write(at + "/memory.swap.max", "0\n");
    write(at + "/memory.swap.current", "0\n");
    write(at + "/memory.stat",
          "anon 1\nfile 99999999999999\nshmem 99999999999999\ninactive_anon 99999999999999\ninactive_file " +
              std::to_string(inactive * kMiB) + "\nactive_file " + std::to_string(active * kMiB) +
              "\nslab_reclaimable " + std::to_string(slab * kMiB) + "\n");
  }
  void group_of_version_1(const std::string& path, std::uint64_t limit, std::uint64_t used,
                          std::uint64_t inactive, std::uint64_t both) const {
    const std::string at = "tree/memory" + path;
    write(at + "/memory.limit_in_bytes", std::to_string(limit * kMiB) + "\n");
    write(at + "/memory.usage_in_bytes", std::to_string(used * kMiB) + "\n");
    write(at + "/memory.memsw.limit_in_bytes", std::to_string(both * kMiB) + "\n");
    write(at + "/memory.memsw.usage_in_bytes", std::to_string(used * kMiB) + "\n");
    write(at + "/memory.stat", "cache 9\ninactive_file 7\ntotal_inactive_file " +
                                   std::to_string(inactive * kMiB) + "\ntotal_active_file 0\n");
  }
  [[nodiscard]] Result<void> check(std::uint64_t mib) const {
    const std::string meminfo = folder_.file("meminfo"), groups = folder_.file("groups"),
                      tree = folder_.file("tree");
    return check_memory_left(mib * kMiB, MemoryTold{meminfo.c_str(), groups.c_str(), tree.c_str()});
  }
  void expect_left(std::uint64_t mib) const {
    EXPECT_TRUE(check(mib).ok());
    const auto more = check(mib + 1);
    ASSERT_FALSE(more.ok());
    EXPECT_EQ(more.error().code(), ENOMEM);
    EXPECT_NE(std::strstr(more.error().message(), "control group"), nullptr) << more.error().message();
  }
  static std::string mib(std::uint64_t n) { return std::to_string(n * kMiB); }

  test::TestFolder folder_;
};

TEST_F(MemoryLeft, IsWhatTheSystemHas) {
  system(100);
  EXPECT_TRUE(check(100).ok());
  const auto more = check(101);
  ASSERT_FALSE(more.ok());
  EXPECT_EQ(more.error().code(), ENOMEM);
  EXPECT_NE(std::strstr(more.error().message(), "MemAvailable"), nullptr);
}

TEST_F(MemoryLeft, IsTheGroupsLimitLessWhatItUses) {
  groups("0::/a\n");
  group("/a", mib(1000), 900);
  expect_left(100);
  group("/a", mib(1000), 1200);  // the limit was lowered
  expect_left(0);
}

TEST_F(MemoryLeft, CountsWhatTheKernelCanDropButNoTmpfs) {
  groups("0::/a\n");
  group("/a", mib(1000), 900, 30, 20, 10);
  expect_left(160);
  group("/a", mib(1000), 100, 5000, 0, 0);  // nonsense: never more than the limit
  expect_left(1000);
}

TEST_F(MemoryLeft, IsTheLeastOfAllGroupsAbove) {
  groups("0::/a/b/c\n");
  group("", mib(5000), 0);
  group("/a", mib(1000), 900);
  group("/a/b", mib(500), 450, 10);
  group("/a/b/c", "max", 400);
  expect_left(60);
  group("/a", mib(1000), 970);
  expect_left(30);
  group("/a/b/c", mib(401), 400);
  expect_left(1);
}

TEST_F(MemoryLeft, IsBoundByNoGroupThatHasNoLimitOrCannotBeSeen) {
  groups("0::/seen/from/outside\n");
  EXPECT_TRUE(check(5000).ok());
  group("", "max", 4000);
  EXPECT_TRUE(check(5000).ok());
  groups("nonsense\n0:\n7:memory\n");
  EXPECT_TRUE(check(5000).ok());
  group("", mib(100), 90);  // as in a container: its own group is the root that it sees
  groups("0::/seen/from/outside\n");
  expect_left(10);
}

TEST_F(MemoryLeft, SaysOnlyTheLimitWhereUseIsNotTold) {
  groups("0::/a\n");
  write("tree/a/memory.max", mib(100) + "\n");
  expect_left(100);
}

TEST_F(MemoryLeft, CountsSwapSpaceThatTheGroupMayUse) {
  struct sysinfo now {};
  ASSERT_EQ(::sysinfo(&now), 0);
  const std::uint64_t swap = std::uint64_t{now.freeswap} * now.mem_unit / kMiB;
  groups("0::/a\n");
  group("/a", mib(1000), 900);
  write("tree/a/memory.swap.max", mib(50) + "\n");
  write("tree/a/memory.swap.current", mib(20) + "\n");
  expect_left(100 + std::min<std::uint64_t>(swap, 30));
}

TEST_F(MemoryLeft, KnowsGroupsOfVersion1) {
  groups("12:pids:/x\n4:memory:/a/b\n0::/\n");
  group_of_version_1("", 8796093022207, 100, 0, 8796093022207);
  group_of_version_1("/a", 1000, 900, 20, 1000);
  group_of_version_1("/a/b", 600, 500, 0, 600);
  struct sysinfo now {};
  ASSERT_EQ(::sysinfo(&now), 0);
  const std::uint64_t swap = std::uint64_t{now.freeswap} * now.mem_unit / kMiB;
  expect_left(100 + std::min<std::uint64_t>(swap, 100));
  group_of_version_1("/a", 1000, 970, 20, 970);  // memory and swap together are used up
  expect_left(50);
}

TEST_F(MemoryLeft, IsNotLookedAtInGroupsForTinyTakers) {
  groups("0::/a\n");
  group("/a", mib(1), 1);
  const std::string groups = folder_.file("groups"), tree = folder_.file("tree");
  const MemoryTold told{"/proc/meminfo", groups.c_str(), tree.c_str()};
  EXPECT_TRUE(check_memory_left(4096, told).ok());
  EXPECT_FALSE(check_memory_left(kMiB, told).ok());
}

TEST_F(MemoryLeft, OfThisProcessIsEnoughForALittle) {
  EXPECT_TRUE(check_memory_left(0).ok());
  EXPECT_TRUE(check_memory_left(2 * kMiB).ok());
  EXPECT_EQ(check_memory_left(UINT64_MAX / 2).error().code(), ENOMEM);
}

}  // namespace
}  // namespace extmem::os
