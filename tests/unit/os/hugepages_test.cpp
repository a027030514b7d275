#include "os/hugepages.hpp"

#include <gtest/gtest.h>
#include <sys/prctl.h>

#include <bit>
#include <cerrno>

#include "os/mapping.hpp"
#include "unit/os/child.hpp"
#include "unit/os/hugepage_pool.hpp"

namespace extmem::os {
namespace {

using test::can_pretend;
using test::pretend;
using test::TestFolder;

constexpr const char* kThp = "/sys/kernel/mm/transparent_hugepage/";

TEST(Hugepages, AreListedBySize) {
  const Result<HugepagePools> pools = hugepage_pools();
  ASSERT_TRUE(pools) << pools.error().message();
  std::size_t before = page_size();
  for (const HugepagePool& pool : pools->list()) {
    EXPECT_TRUE(std::has_single_bit(pool.page_size));
    EXPECT_GT(pool.page_size, before);
    EXPECT_LE(pool.free, pool.total);
    EXPECT_EQ(pools->find(pool.page_size), &pool);
    before = pool.page_size;
  }
  EXPECT_EQ(pools->find(12345), nullptr);
  if (pools->count > 0) {
    EXPECT_NE(pools->find(default_hugepage_size()), nullptr);
  }
}

TEST(Hugepages, ANodeThatIsNotThereHasNone) {
  EXPECT_EQ(hugepage_pools(1023).error().code(), ENODEV);
  EXPECT_EQ(hugepage_pools(-2).error().code(), ENODEV);
}

TEST(Hugepages, AvailableCountsPromisesAndOvercommit) {
  HugepagePool pool;
  pool.free = 10;
  pool.reserved = 4;
  EXPECT_EQ(pool.available(), 6U);
  pool.reserved = 11;
  EXPECT_EQ(pool.available(), 0U);
  pool.overcommit = 5;
  pool.surplus = 2;
  EXPECT_EQ(pool.available(), 3U);
}

TEST(HugepagesReserved, ShowInTheFiguresOfMachineAndNodes) {
  const std::size_t size = default_hugepage_size();
  const test::HugepagesForATest hugepages(size, 3);
  if (!hugepages.ready()) GTEST_SKIP() << "needs hugepages: " << hugepages.why_not();
  const Result<HugepagePools> machine = hugepage_pools();
  ASSERT_TRUE(machine);
  EXPECT_GE(machine->find(size)->free, 3U);
  std::uint64_t in_nodes = 0;
  for (int node = 0; node < 1024; ++node) {
    const Result<HugepagePools> pools = hugepage_pools(node);
    if (pools && pools->find(size) != nullptr) in_nodes += pools->find(size)->total;
  }
  EXPECT_EQ(in_nodes, machine->find(size)->total);
}

TEST(HugepagesAbsent, AreAnEmptyList) {
  const TestFolder folder;
  RUN_IN_CHILD([&] {
    if (::chroot(folder.path().c_str()) != 0) return std::string("skip: needs root to chroot");
    const Result<HugepagePools> pools = hugepage_pools();
    REQUIRE_OK(pools);
    REQUIRE(pools->count == 0);
    REQUIRE(default_hugepage_size() == 0);
    REQUIRE(thp_policy().anonymous && thp_policy().shmem);  // no one says otherwise
    return std::string();
  });
}

TEST(HugepagesAbsent, WithoutSysMeminfoTellsTheDefaultSize) {
  const TestFolder folder;
  RUN_IN_CHILD([&] {
    if (!can_pretend("/proc/meminfo")) {
      return std::string("skip: needs root, mounts of its own, /proc and /sys");
    }
    REQUIRE(::mount("none", "/sys", "tmpfs", 0, nullptr) == 0);
    const std::string text =
        "Hugepagesize: 2048 kB\nHugePages_Total: 7\nHugePages_Free: 5\nHugePages_Rsvd: 2\n";
    REQUIRE(pretend(folder, "/proc/meminfo", text));
    const Result<HugepagePools> pools = hugepage_pools();
    REQUIRE_OK(pools);
    REQUIRE(pools->count == 1);
    const HugepagePool& pool = pools->pools[0];
    REQUIRE(pool.page_size == 2048 * 1024 && pool.total == 7 && pool.free == 5 && pool.reserved == 2);
    return std::string();
  });
}

TEST(ThpPolicy, FollowsTheSettings) {
  const TestFolder folder;
  RUN_IN_CHILD([&] {
    if (!can_pretend(kThp)) return std::string("skip: needs root, mounts of its own, /proc and /sys");
    // Only the two common settings count: sizes with settings of their own are hidden.
    REQUIRE(::mount("none", kThp, "tmpfs", 0, nullptr) == 0);
    const auto set = [&](const char* name, const char* text) {
      return test::write_file(std::string(kThp) + name, text);
    };
    REQUIRE(!thp_policy().anonymous && !thp_policy().shmem);  // a kernel without them
    REQUIRE(set("hpage_pmd_size", "2097152\n"));
    REQUIRE(set("enabled", "always [madvise] never\n"));
    REQUIRE(set("shmem_enabled", "always within_size advise [never] deny force\n"));
    REQUIRE(thp_policy().anonymous && !thp_policy().shmem);
    REQUIRE(thp_policy().page_size == 2097152);
    REQUIRE(set("enabled", "always madvise [never]\n"));
    REQUIRE(set("shmem_enabled", "always within_size [advise] never deny force\n"));
    REQUIRE(!thp_policy().anonymous && thp_policy().shmem);
    // One size switched on is enough.
    const std::string size = std::string(kThp) + "hugepages-64kB";
    REQUIRE(::mkdir(size.c_str(), 0755) == 0);
    REQUIRE(test::write_file(size + "/enabled", "always inherit [madvise] never\n"));
    REQUIRE(thp_policy().anonymous);
    REQUIRE(test::write_file(size + "/enabled", "always [inherit] madvise never\n"));
    REQUIRE(!thp_policy().anonymous);
    REQUIRE(set("enabled", "[always] madvise never\n"));
    REQUIRE(thp_policy().anonymous);
    REQUIRE(::prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0);
    REQUIRE(!thp_policy().anonymous && !thp_policy().shmem);
    return std::string();
  });
}

}  // namespace
}  // namespace extmem::os
