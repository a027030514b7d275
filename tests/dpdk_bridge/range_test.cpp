// Ranges: memory of ours in DPDK's heaps, and back.
#include <rte_malloc.h>

#include <cerrno>

#include "eal.hpp"

namespace bridge_test {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

struct Range : Bridge {
  void SetUp() override {
    Bridge::SetUp();
    must_add(memory_);
  }
  std::byte* must_allocate(std::size_t length) {
    extmem_alloc_options_t options = EXTMEM_ALLOC_OPTIONS_INIT;
    options.align = 4096;
    void* p = nullptr;
    EXPECT_EQ(extmem_heap_allocate(heap, length, &options, &p), 0) << extmem_last_error_message();
    return static_cast<std::byte*>(p);
  }
  const Memory memory_{8 * kMiB};
};

TEST_F(Range, ServesDpdksAllocationsAndComesBack) {
  std::byte* const p = must_allocate(2 * kMiB);
  ASSERT_EQ(extmem_dpdk_range_give(domain, p, 2 * kMiB, "ours"), 0) << extmem_dpdk_last_error_message();
  const int socket = rte_malloc_heap_get_socket("ours");
  ASSERT_GE(socket, 0);
  void* const object = rte_malloc_socket("test", 1000, 0, socket);
  ASSERT_NE(object, nullptr);
  EXPECT_GE(object, p);
  EXPECT_LT(object, p + 2 * kMiB);
  EXPECT_EQ(dpdk_iova(object), reinterpret_cast<std::uintptr_t>(object));
  EXPECT_EQ(extmem_dpdk_range_take_back(p, 2 * kMiB), -EBUSY);
  rte_free(object);
  EXPECT_EQ(extmem_dpdk_range_take_back(p, kMiB), -ENOENT);
  EXPECT_EQ(extmem_dpdk_range_take_back(p, 2 * kMiB), 0) << extmem_dpdk_last_error_message();
  EXPECT_EQ(extmem_dpdk_range_take_back(p, 2 * kMiB), -ENOENT);
  EXPECT_LT(rte_malloc_heap_get_socket("ours"), 0);  // the heap went with its last range
  EXPECT_FALSE(dpdk_knows(p));
  EXPECT_EQ(extmem_free(heap, p), 0);
}

TEST_F(Range, MayBeAMemzoneOrPartOfOne) {
  extmem_alloc_options_t options = EXTMEM_ALLOC_OPTIONS_INIT;
  options.align = 4096;
  extmem_memzone_info_t zone{};
  ASSERT_EQ(extmem_memzone_reserve(domain, heap, "z", 3 * kMiB, &options, &zone, sizeof zone), 0);
  auto* const middle = static_cast<std::byte*>(zone.addr) + kMiB;
  ASSERT_EQ(extmem_dpdk_range_give(domain, middle, kMiB, "part"), 0) << extmem_dpdk_last_error_message();
  EXPECT_EQ(extmem_dpdk_range_give(domain, zone.addr, 2 * kMiB, "part"), -EEXIST);
  EXPECT_EQ(extmem_dpdk_range_give(domain, zone.addr, kMiB, "part"), 0);
  EXPECT_EQ(extmem_dpdk_range_give(domain, middle + kMiB, kMiB + 4096, "part"), -EINVAL);  // beyond the zone
  EXPECT_EQ(extmem_dpdk_range_take_back(middle, kMiB), 0);
  EXPECT_GE(rte_malloc_heap_get_socket("part"), 0);
  EXPECT_EQ(extmem_dpdk_range_take_back(zone.addr, kMiB), 0);
  EXPECT_LT(rte_malloc_heap_get_socket("part"), 0);
  EXPECT_EQ(extmem_memzone_free(domain, "z"), 0);
}

TEST_F(Range, LeavesAHeapThatWasThereBefore) {
  ASSERT_EQ(rte_malloc_heap_create("theirs"), 0);
  std::byte* const p = must_allocate(kMiB);
  ASSERT_EQ(extmem_dpdk_range_give(domain, p, kMiB, "theirs"), 0);
  EXPECT_EQ(extmem_dpdk_range_take_back(p, kMiB), 0);
  EXPECT_EQ(rte_malloc_heap_destroy("theirs"), 0);
  EXPECT_EQ(extmem_free(heap, p), 0);
}

TEST_F(Range, RefusesWhatCannotBeGiven) {
  std::byte* const p = must_allocate(kMiB);
  char elsewhere = 0;
  EXPECT_EQ(extmem_dpdk_range_give(domain, &elsewhere, 4096, "d"), -EFAULT);
  EXPECT_EQ(extmem_dpdk_range_give(domain, p + 64, 4096, "d"), -EINVAL);
  EXPECT_EQ(extmem_dpdk_range_give(domain, p, 4096 + 64, "d"), -EINVAL);
  EXPECT_EQ(extmem_dpdk_range_give(domain, p, 0, "d"), -EINVAL);
  EXPECT_EQ(extmem_dpdk_range_give(domain, p, kMiB, ""), -EINVAL);
  EXPECT_EQ(extmem_dpdk_range_give(domain, p, kMiB, "12345678901234567890123456789012"), -EINVAL);
  EXPECT_EQ(extmem_dpdk_range_give(domain, p, kMiB, "socket_0"), -EPERM);
  extmem_dpdk_lease_t* lease = nullptr;
  ASSERT_EQ(extmem_dpdk_lend(domain, heap, 0, &lease), 0);
  EXPECT_EQ(extmem_dpdk_range_give(domain, p, kMiB, "d"), -EEXIST);
  EXPECT_EQ(extmem_dpdk_withdraw(lease), 0);
  ASSERT_EQ(extmem_dpdk_range_give(domain, p, kMiB, "d"), 0);
  EXPECT_EQ(extmem_dpdk_lend(domain, heap, 0, &lease), -EEXIST);
  EXPECT_NE(std::string(extmem_dpdk_last_error_message()).find("'d'"), std::string::npos);
  EXPECT_EQ(extmem_dpdk_range_take_back(p, kMiB), 0);
  EXPECT_EQ(extmem_free(heap, p), 0);
  EXPECT_EQ(extmem_dpdk_range_give(domain, p, kMiB, "d"), -EINVAL) << "it is free";
  EXPECT_LT(rte_malloc_heap_get_socket("d"), 0);
}

}  // namespace
}  // namespace bridge_test
