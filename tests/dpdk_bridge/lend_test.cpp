// Lending a heap: what DPDK knows when, and that nothing stays behind.
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_memory.h>

#include <unistd.h>

#include <cerrno>
#include <memory>

#include "eal.hpp"

namespace bridge_test {

std::vector<std::string> eal_options() { return {"--no-huge", "--no-shconf", "-m64"}; }

namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

struct Lend : Bridge {
  extmem_dpdk_lease_t* must_lend(std::uint32_t flags = 0) {
    extmem_dpdk_lease_t* lease = nullptr;
    EXPECT_EQ(extmem_dpdk_lend(domain, heap, flags, &lease), 0) << extmem_dpdk_last_error_message();
    return lease;
  }
  static extmem_dpdk_lease_info_t info_of(extmem_dpdk_lease_t* lease) {
    extmem_dpdk_lease_info_t info{};
    EXPECT_EQ(extmem_dpdk_lease_get_info(lease, &info, sizeof info), 0);
    return info;
  }
  static void must_withdraw(extmem_dpdk_lease_t* lease) {
    EXPECT_EQ(extmem_dpdk_withdraw(lease), 0) << extmem_dpdk_last_error_message();
  }
};

TEST_F(Lend, NeedsEal) {
  ASSERT_EQ(eal_failure(), "");
  for (const BeforeEal& answers : {before_eal(), after_failed_eal()}) {
    EXPECT_EQ(answers.lend, -ENODEV);
    EXPECT_NE(answers.message.find("rte_eal_init"), std::string::npos) << answers.message;
    EXPECT_EQ(answers.give, -ENODEV);
    EXPECT_EQ(answers.pool, -ENODEV);
  }
}

TEST_F(Lend, GivesEachPageTheRegionsIova) {
  const Memory memory(8 * 4096);
  std::vector<extmem_iova_t> iovas;
  for (std::uint64_t i = 0; i < 8; ++i) iovas.push_back(0x7000'0000 + (7 - i) * 0x10000);
  must_add(memory, iovas);
  EXPECT_FALSE(dpdk_knows(memory.base()));
  extmem_dpdk_lease_t* const lease = must_lend();
  for (std::size_t i = 0; i < 8; ++i) EXPECT_EQ(dpdk_iova(memory.base() + i * 4096 + 5), iovas[i] + 5);
  const rte_memseg_list* const list = rte_mem_virt2memseg_list(memory.base());
  ASSERT_NE(list, nullptr);
  EXPECT_EQ(list->external, 1u);
  EXPECT_EQ(list->page_sz, 4096u);
  const extmem_dpdk_lease_info_t info = info_of(lease);
  EXPECT_EQ(info.regions, 1u);
  EXPECT_EQ(info.bytes, 8u * 4096);
  EXPECT_EQ(info.mappings, 2u);  // net_null0 and net_ring0
  EXPECT_EQ(info.missing, 0u);
  must_withdraw(lease);
  EXPECT_FALSE(dpdk_knows(memory.base()));
  EXPECT_EQ(dma().balance(), 0);
}

TEST_F(Lend, TakesTheAddressWhereNoIovaIsKnown) {
  ASSERT_EQ(rte_eal_iova_mode(), RTE_IOVA_VA);
  const Memory memory(4 * 4096);
  // Two pages are known, two are not.
  must_add(memory, {0x1000'0000, EXTMEM_BAD_IOVA, EXTMEM_BAD_IOVA, 0x2000'0000});
  extmem_dpdk_lease_t* const lease = must_lend(EXTMEM_DPDK_NEED_IOVA);
  EXPECT_EQ(dpdk_iova(memory.base()), 0x1000'0000u);
  EXPECT_EQ(dpdk_iova(memory.base() + 4096), reinterpret_cast<std::uintptr_t>(memory.base() + 4096));
  EXPECT_EQ(dpdk_iova(memory.base() + 8192), reinterpret_cast<std::uintptr_t>(memory.base() + 8192));
  EXPECT_EQ(dpdk_iova(memory.base() + 12288), 0x2000'0000u);
  EXPECT_EQ(dma().count("net_null0", true), 3u);  // a mapping for each run of consecutive addresses
  must_withdraw(lease);
  EXPECT_EQ(dma().balance(), 0);
}

TEST_F(Lend, DoesNotTouchTheMemory) {
  const Memory memory(kMiB, PROT_NONE);
  must_add(memory);
  must_withdraw(must_lend());
}

TEST_F(Lend, FollowsRegionsThatComeAndGo) {
  const Memory first(kMiB), second(kMiB);
  extmem_dpdk_lease_t* const lease = must_lend();
  EXPECT_EQ(info_of(lease).regions, 0u);
  const extmem_region_id_t a = must_add(first);
  EXPECT_TRUE(dpdk_knows(first.base()));
  const extmem_region_id_t b = must_add(second);
  EXPECT_EQ(info_of(lease).regions, 2u);
  EXPECT_EQ(info_of(lease).mappings, 4u);
  EXPECT_EQ(extmem_region_remove(domain, a, nullptr, 0), 0);
  EXPECT_FALSE(dpdk_knows(first.base()));
  EXPECT_TRUE(dpdk_knows(second.base()));
  EXPECT_EQ(info_of(lease).regions, 1u);
  EXPECT_EQ(extmem_region_remove(domain, b, nullptr, 0), 0);
  EXPECT_EQ(dma().balance(), 0);
  for (const DmaCall& call : dma().calls)
    EXPECT_TRUE(call.registered) << "mapped or unmapped what DPDK did not know";
  must_withdraw(lease);
}

TEST_F(Lend, FollowsGrowth) {
  extmem_backing_spec_t backing = EXTMEM_BACKING_SPEC_INIT;
  backing.kind = EXTMEM_BACKING_MEMFD;
  extmem_heap_options_t options = EXTMEM_HEAP_OPTIONS_INIT;
  options.growth = &backing;
  options.growth_step = kMiB;
  options.growth_limit = 4 * kMiB;
  extmem_heap_t growing{};
  ASSERT_EQ(extmem_heap_create(domain, "growing", &options, &growing), 0) << extmem_last_error_message();
  extmem_dpdk_lease_t* lease = nullptr;
  ASSERT_EQ(extmem_dpdk_lend(domain, growing, 0, &lease), 0) << extmem_dpdk_last_error_message();
  void* p = nullptr;
  ASSERT_EQ(extmem_heap_allocate(growing, 2 * kMiB, nullptr, &p), 0);
  EXPECT_TRUE(dpdk_knows(p));
  EXPECT_EQ(extmem_free(growing, p), 0);
  must_withdraw(lease);
  EXPECT_FALSE(dpdk_knows(p));
}

TEST_F(Lend, LeavesOtherHeapsAlone) {
  const Memory mine(kMiB), others(kMiB);
  extmem_heap_t other{};
  ASSERT_EQ(extmem_heap_create(domain, "other", nullptr, &other), 0);
  extmem_dpdk_lease_t* const lease = must_lend();
  extmem_region_id_t region{};
  ASSERT_EQ(add(other, others, region), 0);
  must_add(mine);
  EXPECT_TRUE(dpdk_knows(mine.base()));
  EXPECT_FALSE(dpdk_knows(others.base()));
  must_withdraw(lease);
}

TEST_F(Lend, RefusesTheSameHeapTwice) {
  const Memory memory(kMiB);
  must_add(memory);
  extmem_dpdk_lease_t* const lease = must_lend();
  extmem_dpdk_lease_t* again = nullptr;
  EXPECT_EQ(extmem_dpdk_lend(domain, heap, 0, &again), -EEXIST);
  EXPECT_EQ(again, nullptr);
  EXPECT_TRUE(dpdk_knows(memory.base()));
  must_withdraw(lease);
  must_withdraw(must_lend());
}

TEST_F(Lend, RefusesAnEmptyHeapTwice) {
  extmem_dpdk_lease_t *lease = must_lend(), *again = nullptr;
  EXPECT_EQ(extmem_dpdk_lend(domain, heap, 0, &again), -EEXIST);
  const Memory memory(kMiB);
  must_add(memory);
  EXPECT_TRUE(dpdk_knows(memory.base()));
  must_withdraw(lease);
}

TEST_F(Lend, RefusesBadArguments) {
  extmem_dpdk_lease_t* lease = nullptr;
  EXPECT_EQ(extmem_dpdk_lend(nullptr, heap, 0, &lease), -EINVAL);
  EXPECT_EQ(extmem_dpdk_lend(domain, extmem_heap_t{}, 0, &lease), -EINVAL);
  EXPECT_EQ(extmem_dpdk_lend(domain, heap, 4, &lease), -EINVAL);
  EXPECT_EQ(extmem_dpdk_lend(domain, heap, 0, nullptr), -EINVAL);
  EXPECT_EQ(extmem_dpdk_withdraw(nullptr), -EINVAL);
  EXPECT_EQ(extmem_dpdk_refresh(nullptr), -EINVAL);
  extmem_domain_t* other = nullptr;
  ASSERT_EQ(extmem_domain_create(nullptr, &other), 0);
  EXPECT_EQ(extmem_dpdk_lend(other, heap, 0, &lease), -EINVAL);
  EXPECT_NE(std::string(extmem_dpdk_last_error_message()).find("domain"), std::string::npos);
  EXPECT_EQ(extmem_domain_close(other), 0);
  EXPECT_EQ(lease, nullptr);
}

TEST_F(Lend, TakesEverythingBackWhereDpdkRefusesOne) {
  const Memory first(kMiB), second(kMiB);
  must_add(first);
  must_add(second);
  ASSERT_EQ(rte_extmem_register(second.base(), kMiB, nullptr, 0, 4096), 0);  // somebody else was there before
  extmem_dpdk_lease_t* lease = nullptr;
  EXPECT_EQ(extmem_dpdk_lend(domain, heap, 0, &lease), -EEXIST);
  EXPECT_FALSE(dpdk_knows(first.base()));
  EXPECT_EQ(dma().balance(), 0);
  ASSERT_EQ(rte_extmem_unregister(second.base(), kMiB), 0);
  must_withdraw(must_lend());  // and no listener was left behind: the heap can be lent
}

TEST_F(Lend, SaysWhenDpdkHasNoRoom) {
  std::vector<std::unique_ptr<Memory>> pieces;
  extmem_dpdk_lease_t* const lease = must_lend();
  int answer = 0;
  while (answer == 0 && pieces.size() < 200) {
    pieces.push_back(std::make_unique<Memory>(4096));
    extmem_region_id_t region{};
    answer = add(heap, *pieces.back(), region);
  }
  EXPECT_EQ(answer, -ENOSPC);
  EXPECT_NE(std::string(extmem_dpdk_last_error_message()).find("no room"), std::string::npos)
      << extmem_dpdk_last_error_message();
  EXPECT_EQ(info_of(lease).regions, pieces.size() - 1);
  must_withdraw(lease);
  EXPECT_EQ(dma().balance(), 0);
}

TEST_F(Lend, TellsTheFileBehindMemory) {
  extmem_backing_spec_t backing = EXTMEM_BACKING_SPEC_INIT;
  backing.kind = EXTMEM_BACKING_MEMFD;
  backing.length = kMiB;
  extmem_region_id_t region{};
  ASSERT_EQ(extmem_region_add_backing(domain, heap, &backing, &region), 0);
  const Memory plain(kMiB);
  must_add(plain);
  auto* const p = static_cast<char*>(extmem_malloc(heap, 100));
  ASSERT_NE(p, nullptr);
  extmem_region_id_t home{};
  ASSERT_EQ(extmem_region_find(domain, p, &home), 0);
  extmem_region_info_t info{};
  ASSERT_EQ(extmem_region_get_info(domain, region, &info, sizeof info), 0);
  auto* const byte = static_cast<char*>(info.base) + 12345;
  int fd = -1;
  std::uint64_t offset = 0;
  EXPECT_EQ(extmem_dpdk_get_fd(byte, &fd, &offset), -EFAULT);
  extmem_dpdk_lease_t* const lease = must_lend();
  ASSERT_EQ(extmem_dpdk_get_fd(byte, &fd, &offset), 0) << extmem_dpdk_last_error_message();
  *byte = 'x';
  char read = 0;
  ASSERT_EQ(::pread(fd, &read, 1, static_cast<off_t>(offset)), 1);
  EXPECT_EQ(read, 'x');
  EXPECT_EQ(extmem_dpdk_get_fd(plain.base(), &fd, &offset), -ENOTSUP);
  // What the header says of DPDK itself.
  rte_memseg* const segment = rte_mem_virt2memseg(byte, nullptr);
  ASSERT_NE(segment, nullptr);
  EXPECT_EQ(rte_memseg_get_fd(segment), -1);
  EXPECT_EQ(rte_errno, ENOTSUP);
  must_withdraw(lease);
  EXPECT_EQ(extmem_free(heap, p), 0);
}

}  // namespace
}  // namespace bridge_test
