#include "os/numa.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "os/mapping.hpp"
#include "unit/os/child.hpp"

namespace extmem::os {
namespace {

using test::can_pretend;
using test::pretend;
using test::TestFolder;

constexpr const char* kHasMemory = "/sys/devices/system/node/has_memory";

// Memory of a test's own, gone with it.
class Pages {
 public:
  explicit Pages(std::size_t count) : bytes_(count * page_size()), p_(*reserve(bytes_)) {
    EXPECT_TRUE(commit(p_, bytes_));
  }
  ~Pages() { unmap(p_, bytes_); }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  std::byte* p() { return p_; }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }

 private:
  std::size_t bytes_;
  std::byte* p_;
};

TEST(NodeSet, CountsAndIndexes) {
  NodeSet nodes;
  EXPECT_EQ(nodes.count(), 0);
  EXPECT_EQ(nodes.id_at(0), -1);
  for (const int id : {0, 3, 63, 64, 200, 1023}) nodes.add(id);
  nodes.add(-1);
  nodes.add(kMaxNumaNodes);
  EXPECT_EQ(nodes.count(), 6);
  int index = 0;
  for (const int id : {0, 3, 63, 64, 200, 1023}) {
    EXPECT_TRUE(nodes.contains(id));
    EXPECT_EQ(nodes.index_of(id), index);
    EXPECT_EQ(nodes.id_at(index), id);
    ++index;
  }
  EXPECT_FALSE(nodes.contains(-1));
  EXPECT_FALSE(nodes.contains(kMaxNumaNodes));
  EXPECT_EQ(nodes.index_of(1), -1);
  EXPECT_EQ(nodes.id_at(6), -1);
  EXPECT_EQ(nodes.id_at(-1), -1);
}

TEST(Numa, HasANodeWithMemory) {
  EXPECT_GE(numa_nodes().count(), 1);
  const NodeSet memory = numa_memory_nodes();
  ASSERT_GE(memory.count(), 1);
  EXPECT_TRUE(numa_nodes().contains(memory.id_at(0)));
  EXPECT_TRUE(numa_nodes().contains(current_node()));
}

TEST(Numa, BindsToEachNodeThatHasMemory) {
  const NodeSet memory = numa_memory_nodes();
  for (int i = 0; i < memory.count(); ++i) {
    Pages pages(4);
    const Result<void> bound = numa_bind(pages.p(), pages.bytes(), memory.id_at(i), PresentPages::leave);
    ASSERT_TRUE(bound) << bound.error().message();
    std::memset(pages.p(), 1, pages.bytes());
    const Result<int> node = numa_node_of(pages.p());
    ASSERT_TRUE(node) << node.error().message();
    EXPECT_EQ(*node, memory.id_at(i));
    EXPECT_TRUE(numa_bind(pages.p(), pages.bytes(), memory.id_at(i), PresentPages::move));
  }
}

TEST(Numa, RefusesNodesThatAreNotThere) {
  Pages pages(1);
  for (const int node : {-1, 1023, kMaxNumaNodes, 1 << 20}) {
    EXPECT_EQ(numa_bind(pages.p(), pages.bytes(), node, PresentPages::leave).error().code(), EINVAL) << node;
  }
}

TEST(Numa, APageThatIsNotThereHasNoNode) {
  Pages pages(2);
  pages.p()[0] = std::byte{1};
  EXPECT_TRUE(numa_node_of(pages.p()));
  const Result<int> absent = numa_node_of(pages.p() + page_size());
  if (!absent) {  // with one node, a kernel or container that will not tell gives that node
    EXPECT_EQ(absent.error().code(), ENOENT);
  }
  Pages gone(1);
  ::munmap(gone.p(), gone.bytes());
  const Result<int> unmapped = numa_node_of(gone.p());
  if (!unmapped) {
    EXPECT_TRUE(unmapped.error().code() == EFAULT || unmapped.error().code() == ENOENT);
  }
}

// One node is all that most machines have: a second one is pretended, so that the kernel is really asked.
TEST(NumaPretended, AsksTheKernelWhereThereIsAChoice) {
  const TestFolder folder;
  RUN_IN_CHILD([&] {
    if (!can_pretend(kHasMemory)) return std::string("skip: needs root, mounts of its own, /proc and /sys");
    REQUIRE(pretend(folder, kHasMemory, "0,1022\n"));
    REQUIRE(numa_memory_nodes().count() == 2);
    Pages pages(4);
    REQUIRE_OK(numa_bind(pages.p(), pages.bytes(), 0, PresentPages::leave));
    std::memset(pages.p(), 1, pages.bytes());
    REQUIRE_OK(numa_bind(pages.p(), pages.bytes(), 0, PresentPages::move));
    REQUIRE(numa_node_of(pages.p()).value_or(-1) == 0);
    REQUIRE_ERROR(numa_bind(pages.p(), pages.bytes(), 1022, PresentPages::leave), EINVAL);

    Pages hole(3);
    ::munmap(hole.p() + page_size(), page_size());
    REQUIRE_ERROR(numa_bind(hole.p(), hole.bytes(), 0, PresentPages::leave), EFAULT);
    REQUIRE(test::fail_system_call(SYS_mbind, EPERM));
    REQUIRE_ERROR(numa_bind(pages.p(), pages.bytes(), 0, PresentPages::leave), EPERM);
    return std::string();
  });
}

TEST(NumaPretended, ReadsTheKernelsLists) {
  const TestFolder folder;
  RUN_IN_CHILD([&] {
    if (!can_pretend(kHasMemory)) return std::string("skip: needs root, mounts of its own, /proc and /sys");
    REQUIRE(pretend(folder, kHasMemory, "1-3,17,64-65\n"));
    const NodeSet nodes = numa_memory_nodes();
    REQUIRE(nodes.count() == 6);
    REQUIRE(nodes.id_at(0) == 1 && nodes.id_at(2) == 3 && nodes.id_at(3) == 17 && nodes.id_at(5) == 65);
    REQUIRE(pretend(folder, kHasMemory, "1-99999999\n"));
    REQUIRE(numa_memory_nodes().count() == kMaxNumaNodes - 1);
    REQUIRE(pretend(folder, kHasMemory, "rubbish\n"));
    REQUIRE(numa_memory_nodes().count() >= 1);
    return std::string();
  });
}

TEST(NumaAbsent, LeavesNodeZero) {
  const TestFolder folder;
  RUN_IN_CHILD([&] {
    if (::chroot(folder.path().c_str()) != 0) return std::string("skip: needs root to chroot");
    REQUIRE(numa_nodes().count() >= 1);  // without /sys the kernel tells by system call
    if (!test::fail_system_call(SYS_get_mempolicy, ENOSYS)) return std::string("skip: no seccomp filters");
    REQUIRE(test::fail_system_call(SYS_move_pages, ENOSYS));
    REQUIRE(test::fail_system_call(SYS_mbind, ENOSYS));
    REQUIRE(numa_nodes().count() == 1 && numa_nodes().contains(0));
    Pages pages(1);
    REQUIRE_OK(numa_bind(pages.p(), pages.bytes(), 0, PresentPages::leave));
    REQUIRE(numa_node_of(pages.p()).value_or(-1) == 0);
    return std::string();
  });
}

}  // namespace
}  // namespace extmem::os
