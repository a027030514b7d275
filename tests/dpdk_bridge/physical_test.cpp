// EAL in PA mode: device addresses are physical, or unknown. Needs hugepages and the right to read physical addresses.
#include <rte_eal.h>
#include <rte_mbuf.h>
#include <rte_memory.h>
#include <rte_mempool.h>

#include <cerrno>

#include "eal.hpp"

namespace bridge_test {

std::vector<std::string> eal_options() { return {"--in-memory", "-m16", "--iova-mode=pa"}; }

namespace {

struct Physical : Bridge {
  void SetUp() override {
    Bridge::SetUp();
    if (!eal_failure().empty()) {
      GTEST_SKIP() << "needs 16 free hugepages of 2 MiB and physical addresses (root): EAL says "
                   << eal_failure();
    }
    ASSERT_EQ(rte_eal_iova_mode(), RTE_IOVA_PA);
  }
  int lend(std::uint32_t flags) { return extmem_dpdk_lend(domain, heap, flags, &lease); }
  extmem_dpdk_lease_t* lease = nullptr;
};

TEST_F(Physical, AddressesThatAreUnknownStayUnknown) {
  const Memory memory(4 * 4096);
  must_add(memory, {EXTMEM_BAD_IOVA, 0x1000'0000, EXTMEM_BAD_IOVA, EXTMEM_BAD_IOVA});
  EXPECT_EQ(lend(EXTMEM_DPDK_NEED_IOVA), -EINVAL);
  EXPECT_NE(std::string(extmem_dpdk_last_error_message()).find("PA mode"), std::string::npos)
      << extmem_dpdk_last_error_message();
  EXPECT_FALSE(dpdk_knows(memory.base()));
  ASSERT_EQ(lend(0), 0) << extmem_dpdk_last_error_message();
  EXPECT_EQ(dpdk_iova(memory.base()), RTE_BAD_IOVA);
  EXPECT_EQ(dpdk_iova(memory.base() + 4096), 0x1000'0000u);
  // Devices are told of the one page that has an address.
  ASSERT_EQ(dma().count("net_null0", true), 1u);
  EXPECT_EQ(dma().calls[0].addr, memory.base() + 4096);
  EXPECT_EQ(dma().calls[0].length, 4096u);
  EXPECT_EQ(extmem_dpdk_withdraw(lease), 0);
  EXPECT_EQ(dma().balance(), 0);
}

TEST_F(Physical, AddressesOfABackingAreWhatDpdkFinds) {
  extmem_backing_spec_t backing = EXTMEM_BACKING_SPEC_INIT;
  backing.kind = EXTMEM_BACKING_HUGETLB;
  backing.length = std::size_t{4} << 20;
  backing.iova_source = EXTMEM_IOVA_PHYSICAL;
  backing.prefault = true;
  extmem_region_id_t region{};
  if (extmem_region_add_backing(domain, heap, &backing, &region) != 0)
    GTEST_SKIP() << "needs two more hugepages of 2 MiB: " << extmem_last_error_message();
  extmem_region_info_t info{};
  ASSERT_EQ(extmem_region_get_info(domain, region, &info, sizeof info), 0);
  auto* const base = static_cast<char*>(info.base);
  ASSERT_EQ(lend(EXTMEM_DPDK_NEED_IOVA), 0) << extmem_dpdk_last_error_message();
  for (const std::size_t at : {std::size_t{0}, std::size_t{5000}, std::size_t{3} << 20})
    EXPECT_EQ(dpdk_iova(base + at), rte_mem_virt2phy(base + at));

  rte_mempool* pool = nullptr;
  extmem_dpdk_pool_options_t options = EXTMEM_DPDK_POOL_OPTIONS_INIT;
  options.name = "physical";
  options.count = 1023;
  ASSERT_EQ(extmem_dpdk_pktmbuf_pool_create(domain, heap, &options, &pool), 0)
      << extmem_dpdk_last_error_message();
  std::vector<rte_mbuf*> mbufs(1023);
  ASSERT_EQ(rte_pktmbuf_alloc_bulk(pool, mbufs.data(), 1023), 0);
  for (const rte_mbuf* m : mbufs) {
    EXPECT_EQ(rte_mbuf_iova_get(m), rte_mem_virt2phy(m->buf_addr));
    const std::size_t last = m->buf_len - 1u;
    EXPECT_EQ(rte_mbuf_iova_get(m) + last, rte_mem_virt2phy(static_cast<char*>(m->buf_addr) + last));
  }
  rte_pktmbuf_free_bulk(mbufs.data(), 1023);
  EXPECT_EQ(extmem_dpdk_pktmbuf_pool_destroy(pool, nullptr), 0);
  EXPECT_EQ(extmem_dpdk_withdraw(lease), 0);
}

TEST_F(Physical, AddressesAreNotNeededByAPool) {
  const Memory memory(std::size_t{4} << 20);
  must_add(memory);
  rte_mempool* pool = nullptr;
  extmem_dpdk_pool_options_t options = EXTMEM_DPDK_POOL_OPTIONS_INIT;
  options.name = "unknown";
  options.count = 127;
  options.data_room = 9216;
  ASSERT_EQ(extmem_dpdk_pktmbuf_pool_create(domain, heap, &options, &pool), 0)
      << extmem_dpdk_last_error_message();
  rte_mbuf* const mbuf = rte_pktmbuf_alloc(pool);
  ASSERT_NE(mbuf, nullptr);
  EXPECT_EQ(rte_mbuf_iova_get(mbuf), RTE_BAD_IOVA);
  rte_pktmbuf_free(mbuf);
  EXPECT_EQ(extmem_dpdk_pktmbuf_pool_destroy(pool, nullptr), 0);
}

}  // namespace
}  // namespace bridge_test
