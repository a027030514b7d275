// What every kind of backing does when all goes well. Failures: backing_failure_test.cpp.
#include "os/backing.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "os/hugepages.hpp"
#include "os/mapping.hpp"
#include "os/numa.hpp"
#include "os/vma.hpp"
#include "unit/os/backing_fixture.hpp"
#include "unit/os/hugepage_pool.hpp"

namespace extmem::os {
namespace {

using test::ask;
using test::ask_for_file;
using test::Holdings;
using test::kMiB;
using test::TestFolder;

struct Kind {
  const char* name;
  BackingKind kind;
  bool huge;
};

// The contract: the same for all kinds that this machine can have.
class Backing : public ::testing::TestWithParam<Kind> {
 protected:
  Backing()
      : page_(GetParam().huge ? default_hugepage_size() : page_size()),
        hugepages_(GetParam().huge ? page_ : 0, GetParam().huge ? 8 : 0),
        path_(GetParam().kind == BackingKind::shm ? test::shm_name("contract") : folder_.file("backing")) {}

  void SetUp() override {
    if (GetParam().huge && !hugepages_.ready()) GTEST_SKIP() << "needs hugepages: " << hugepages_.why_not();
    if (GetParam().kind == BackingKind::shm && ::access("/dev/shm", W_OK) != 0)
      GTEST_SKIP() << "needs /dev/shm";
  }

  BackingRequest request(std::size_t length) {
    BackingRequest request = ask(GetParam().kind, length);
    if (has_name()) {
      request.path_or_name = path_.c_str();
      request.unlink_on_close = true;
    }
    return request;
  }
  [[nodiscard]] bool has_name() const {
    return GetParam().kind == BackingKind::shm || GetParam().kind == BackingKind::file;
  }
  [[nodiscard]] std::string real_path() const {
    return GetParam().kind == BackingKind::shm ? "/dev/shm" + path_ : path_;
  }

  std::size_t page_;
  test::HugepagesForATest hugepages_;
  TestFolder folder_;
  std::string path_;
};

INSTANTIATE_TEST_SUITE_P(Kinds, Backing,
                         ::testing::Values(Kind{"Anonymous", BackingKind::anonymous, false},
                                           Kind{"Hugetlb", BackingKind::hugetlb, true},
                                           Kind{"Memfd", BackingKind::memfd, false},
                                           Kind{"MemfdHugetlb", BackingKind::memfd_hugetlb, true},
                                           Kind{"Shm", BackingKind::shm, false},
                                           Kind{"File", BackingKind::file, false}),
                         [](const auto& test) { return test.param.name; });

TEST_P(Backing, GivesZeroedMemoryAndTakesItBack) {
  const Holdings before = Holdings::now();
  Result<Mapping> mapping = create_backing(request(3 * page_));
  ASSERT_TRUE(mapping) << mapping.error().message();
  EXPECT_EQ(mapping->length, 3 * page_);
  EXPECT_EQ(mapping->os_page_size, page_);
  EXPECT_EQ(mapping->kind, GetParam().kind);
  EXPECT_EQ(kernel_page_size(mapping->addr, mapping->length).value_or(0), page_);
  EXPECT_EQ(mapping->fd >= 0,
            GetParam().kind != BackingKind::anonymous && GetParam().kind != BackingKind::hugetlb);
  EXPECT_EQ(mapping->created, has_name());
  EXPECT_EQ(test::path_exists(real_path()), has_name());
  EXPECT_TRUE(test::works(*mapping));
  const Result<void> closed = close_backing(*mapping);
  EXPECT_TRUE(closed) << closed.error().message();
  EXPECT_EQ(mapping->addr, nullptr);
  EXPECT_EQ(mapping->fd, -1);
  EXPECT_TRUE(close_backing(*mapping)) << "closing nothing is nothing";
  EXPECT_FALSE(test::path_exists(real_path()));
  EXPECT_EQ(Holdings::now(), before);
}

TEST_P(Backing, RoundsTheLengthUp) {
  Result<Mapping> mapping = create_backing(request(page_ + 1));
  ASSERT_TRUE(mapping) << mapping.error().message();
  EXPECT_EQ(mapping->length, 2 * page_);
  EXPECT_TRUE(test::works(*mapping));
  EXPECT_TRUE(close_backing(*mapping));
}

TEST_P(Backing, TakesThePageSizeWhenItIsTheRightOne) {
  BackingRequest with = request(page_);
  with.os_page_size = page_;
  Result<Mapping> mapping = create_backing(with);
  ASSERT_TRUE(mapping) << mapping.error().message();
  EXPECT_EQ(mapping->os_page_size, page_);
  EXPECT_TRUE(close_backing(*mapping));
}

TEST_P(Backing, AlignsTheAddress) {
  for (const std::size_t align : {std::size_t{1}, page_size(), 4 * kMiB, std::size_t{1} << 30}) {
    BackingRequest aligned = request(2 * page_);
    aligned.align = align;
    Result<Mapping> mapping = create_backing(aligned);
    ASSERT_TRUE(mapping) << mapping.error().message();
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(mapping->addr) % align, 0U);
    EXPECT_TRUE(close_backing(*mapping));
  }
}

TEST_P(Backing, PrefaultsWithProgress) {
  std::vector<std::pair<std::uint64_t, std::uint64_t>> calls;
  const auto note = [&](std::uint64_t done, std::uint64_t total) {
    calls.emplace_back(done, total);
    return false;
  };
  const std::size_t length = GetParam().huge ? 4 * page_ : 150 * kMiB;
  BackingRequest prefaulted = request(length);
  prefaulted.prefault = true;
  prefaulted.progress = note;
  Result<Mapping> mapping = create_backing(prefaulted);
  ASSERT_TRUE(mapping) << mapping.error().message();
  ASSERT_GE(calls.size(), length > 64 * kMiB ? 4U : 2U);
  EXPECT_EQ(calls.front().first, 0U);
  EXPECT_EQ(calls.back().first, length);
  for (std::size_t i = 0; i < calls.size(); ++i) {
    EXPECT_EQ(calls[i].second, length);
    if (i > 0) {
      EXPECT_GT(calls[i].first, calls[i - 1].first);
    }
  }
  std::vector<unsigned char> present(length / page_size());
  ASSERT_EQ(::mincore(mapping->addr, length, present.data()), 0);
  EXPECT_TRUE(std::all_of(present.begin(), present.end(), [](unsigned char p) { return (p & 1) != 0; }));
  EXPECT_TRUE(close_backing(*mapping));
}

TEST_P(Backing, BindsToANode) {
  const int node = numa_memory_nodes().id_at(0);
  BackingRequest bound = request(2 * page_);
  bound.numa_node = node;
  bound.prefault = true;
  Result<Mapping> mapping = create_backing(bound);
  if (GetParam().kind == BackingKind::file && !mapping) {
    EXPECT_EQ(mapping.error().code(), EINVAL) << "a file on disk cannot be bound";
    EXPECT_FALSE(test::path_exists(real_path()));
    return;
  }
  ASSERT_TRUE(mapping) << mapping.error().message();
  EXPECT_EQ(mapping->node, node);
  EXPECT_EQ(numa_node_of(mapping->addr).value_or(-1), node);
  EXPECT_TRUE(test::works(*mapping));
  EXPECT_TRUE(close_backing(*mapping));
}

TEST_P(Backing, BindsWhereThereIsAChoiceOfNodes) {
  if (!test::is_root()) GTEST_SKIP() << "needs root: a second node is pretended";
  const TestFolder pretended;
  RUN_IN_CHILD([&] {
    if (!test::can_pretend("/sys/devices/system/node/has_memory")) {
      return std::string("skip: needs mounts of its own and /sys");
    }
    REQUIRE(test::pretend(pretended, "/sys/devices/system/node/has_memory", "0,1022\n"));
    BackingRequest bound = request(2 * page_);
    bound.numa_node = 0;
    Result<Mapping> mapping = create_backing(bound);
    if (GetParam().kind == BackingKind::file) return std::string();  // see BindsToANode
    REQUIRE_OK(mapping);
    // The kernel's promise of hugepages is not per node, so bound ones are there at once.
    if (GetParam().huge) REQUIRE(numa_node_of(mapping->addr + page_).value_or(-1) == 0);
    REQUIRE(test::works(*mapping));
    REQUIRE_OK(close_backing(*mapping));
    bound.numa_node = 1022;
    REQUIRE_ERROR(create_backing(bound), EINVAL);
    return std::string();
  });
}

TEST_P(Backing, LocksItsPages) {
  BackingRequest locked = request(4 * page_);
  locked.lock = true;
  Result<Mapping> mapping = create_backing(locked);
  ASSERT_TRUE(mapping) << mapping.error().message();
  std::array<char, 8192> buffer;
  const auto status = read_text("/proc/self/status", buffer);
  ASSERT_TRUE(status);
  if (!GetParam().huge) {
    EXPECT_GE(number_after(*status, "VmLck:").value_or(0) * 1024, mapping->length);
  }
  EXPECT_TRUE(test::works(*mapping));
  EXPECT_TRUE(close_backing(*mapping));
}

TEST_P(Backing, SharesItsBytesThroughItsDescriptor) {
  Result<Mapping> mapping = create_backing(request(2 * page_));
  ASSERT_TRUE(mapping) << mapping.error().message();
  if (mapping->fd >= 0) {
    void* const other = ::mmap(nullptr, 2 * page_, PROT_READ, MAP_SHARED, mapping->fd, 0);
    ASSERT_NE(other, MAP_FAILED);
    mapping->addr[page_ + 3] = std::byte{0x77};
    EXPECT_EQ(static_cast<std::byte*>(other)[page_ + 3], std::byte{0x77});
    EXPECT_NE(::fcntl(mapping->fd, F_GETFD) & FD_CLOEXEC, 0);
    ::munmap(other, 2 * page_);
  }
  EXPECT_TRUE(close_backing(*mapping));
}

TEST(BackingMemfd, CannotChangeItsLength) {
  Result<Mapping> mapping = create_backing(ask(BackingKind::memfd, kMiB));
  ASSERT_TRUE(mapping) << mapping.error().message();
  EXPECT_NE(::ftruncate(mapping->fd, 0), 0);
  EXPECT_NE(::ftruncate(mapping->fd, 2 * kMiB), 0);
  EXPECT_TRUE(close_backing(*mapping));
}

TEST(BackingFile, OpensWhatIsThereAndKeepsIt) {
  const TestFolder folder;
  const std::string path = folder.file("data");
  BackingRequest request = ask_for_file(path, kMiB);
  Result<Mapping> first = create_backing(request);
  ASSERT_TRUE(first) << first.error().message();
  EXPECT_TRUE(first->created);
  first->addr[kMiB - 1] = std::byte{0x31};
  EXPECT_TRUE(close_backing(*first));
  EXPECT_TRUE(test::path_exists(path)) << "nobody asked for it to be removed";

  request.create = false;
  request.prefault = true;
  Result<Mapping> again = create_backing(request);
  ASSERT_TRUE(again) << again.error().message();
  EXPECT_FALSE(again->created);
  EXPECT_EQ(again->addr[kMiB - 1], std::byte{0x31});
  EXPECT_TRUE(close_backing(*again));

  request.create = true;
  request.length = 2 * kMiB;
  Result<Mapping> longer = create_backing(request);
  ASSERT_TRUE(longer) << longer.error().message();
  EXPECT_FALSE(longer->created);
  EXPECT_EQ(longer->addr[kMiB - 1], std::byte{0x31});
  EXPECT_EQ(test::file_length(path), static_cast<long long>(2 * kMiB));
  EXPECT_TRUE(close_backing(*longer));

  request.length = kMiB;
  Result<Mapping> part = create_backing(request);
  ASSERT_TRUE(part) << part.error().message();
  EXPECT_TRUE(close_backing(*part));
  EXPECT_EQ(test::file_length(path), static_cast<long long>(2 * kMiB)) << "a longer file stays as long";
}

TEST(BackingFile, FollowsALinkButRemovesOnlyItsOwnName) {
  const TestFolder folder;
  const std::string target = folder.file("target");
  const std::string link = folder.file("link");
  ASSERT_TRUE(test::write_file(target, std::string(page_size(), 'x')));
  ASSERT_EQ(::symlink(target.c_str(), link.c_str()), 0);
  BackingRequest request = ask_for_file(link, page_size());
  request.unlink_on_close = true;
  Result<Mapping> mapping = create_backing(request);
  ASSERT_TRUE(mapping) << mapping.error().message();
  EXPECT_EQ(mapping->addr[0], std::byte{'x'});
  EXPECT_TRUE(close_backing(*mapping));
  EXPECT_TRUE(test::path_exists(link));
  EXPECT_TRUE(test::path_exists(target));
}

TEST(BackingFile, DoesNotRemoveAnotherFileOfItsName) {
  const TestFolder folder;
  const std::string path = folder.file("data");
  BackingRequest request = ask_for_file(path, page_size());
  request.unlink_on_close = true;
  Result<Mapping> mapping = create_backing(request);
  ASSERT_TRUE(mapping) << mapping.error().message();
  ASSERT_EQ(::unlink(path.c_str()), 0);
  ASSERT_TRUE(test::write_file(path, "someone else's"));
  EXPECT_TRUE(close_backing(*mapping));
  EXPECT_TRUE(test::path_exists(path));
}

TEST(BackingFile, IsRemovedAlthoughTheProcessWentElsewhere) {
  const TestFolder folder;
  RUN_IN_CHILD([&] {
    REQUIRE(::chdir(folder.path().c_str()) == 0);
    const std::string path = "relative";
    BackingRequest request = ask_for_file(path, page_size());
    request.unlink_on_close = true;
    Result<Mapping> mapping = create_backing(request);
    REQUIRE_OK(mapping);
    REQUIRE(::chdir("/") == 0);
    REQUIRE_OK(close_backing(*mapping));
    REQUIRE(!test::path_exists(folder.file("relative")));
    return std::string();
  });
}

TEST(BackingHugetlbfs, GivesTheFileSystemsPages) {
  const std::size_t size = default_hugepage_size();
  const test::HugepagesForATest hugepages(size, 4);
  if (!hugepages.ready()) GTEST_SKIP() << "needs hugepages: " << hugepages.why_not();
  const TestFolder folder;
  RUN_IN_CHILD([&] {
    if (!test::own_mounts()) return std::string("skip: needs root, mounts of its own, /proc and /sys");
    if (::mount("none", folder.path().c_str(), "hugetlbfs", 0, nullptr) != 0) {
      return std::string("skip: no hugetlbfs can be mounted");
    }
    const std::string path = folder.file("data");
    BackingRequest request = ask_for_file(path, size + 1);
    request.unlink_on_close = true;
    Result<Mapping> mapping = create_backing(request);
    REQUIRE_OK(mapping);
    REQUIRE(mapping->os_page_size == size && mapping->length == 2 * size);
    REQUIRE(is_hugetlb(mapping->addr, mapping->length).value_or(false));
    REQUIRE(test::works(*mapping));
    // Longer than the pool: the file gets its old length back.
    request.length = std::size_t{1} << 45;
    REQUIRE_ERROR(create_backing(request), ENOMEM);
    REQUIRE(test::file_length(path) == static_cast<long long>(2 * size));
    REQUIRE_OK(close_backing(*mapping));
    REQUIRE(!test::path_exists(path));
    return std::string();
  });
}

TEST(BackingHugetlb, ComesInEachSizeThatCanBeHad) {
  const Result<HugepagePools> pools = hugepage_pools();
  ASSERT_TRUE(pools);
  for (const HugepagePool& pool : pools->list()) {
    const test::HugepagesForATest hugepages(pool.page_size, 1);
    if (!hugepages.ready()) continue;  // 1 GiB in one piece is a matter of luck
    for (const BackingKind kind : {BackingKind::hugetlb, BackingKind::memfd_hugetlb}) {
      BackingRequest request = ask(kind, 1);
      request.os_page_size = pool.page_size;
      request.prefault = true;
      Result<Mapping> mapping = create_backing(request);
      ASSERT_TRUE(mapping) << mapping.error().message();
      EXPECT_EQ(mapping->length, pool.page_size);
      EXPECT_EQ(kernel_page_size(mapping->addr, mapping->length).value_or(0), pool.page_size);
      EXPECT_TRUE(close_backing(*mapping));
    }
  }
}

TEST(BackingThp, AnonymousMemoryGetsWholeHugepages) {
  const ThpPolicy policy = thp_policy();
  if (!policy.anonymous || policy.page_size == 0)
    GTEST_SKIP() << "needs transparent hugepages, which are switched off";
  BackingRequest request = ask(BackingKind::anonymous, 4 * policy.page_size);
  request.thp = true;
  request.prefault = true;
  Result<Mapping> mapping = create_backing(request);
  ASSERT_TRUE(mapping) << mapping.error().message();
  EXPECT_EQ(mapping->os_page_size, page_size()) << "a transparent hugepage is no promise";
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(mapping->addr) % policy.page_size, 0U);
  EXPECT_TRUE(close_backing(*mapping));
}

}  // namespace
}  // namespace extmem::os
