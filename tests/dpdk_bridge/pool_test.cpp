// Pools of packets: buffers in a heap, headers in DPDK's memory, and ports that use them.
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

#include <cerrno>
#include <cstring>
#include <set>

#include "eal.hpp"

namespace bridge_test {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

struct Pool : Bridge {
  int create(const char* name, std::uint32_t count, rte_mempool** pool, std::uint16_t room = 0) {
    extmem_dpdk_pool_options_t options = EXTMEM_DPDK_POOL_OPTIONS_INIT;
    options.name = name;
    options.count = count;
    options.data_room = room;
    return extmem_dpdk_pktmbuf_pool_create(domain, heap, &options, pool);
  }
  std::uint64_t used() {
    extmem_heap_stats_t stats{};
    EXPECT_EQ(extmem_heap_get_stats(heap, &stats, sizeof stats), 0);
    return stats.used_count;
  }
  /// Takes all mbufs, and checks each; gives them back.
  void check_buffers(rte_mempool* pool, std::uint32_t count) {
    std::vector<rte_mbuf*> mbufs(count);
    ASSERT_EQ(rte_pktmbuf_alloc_bulk(pool, mbufs.data(), count), 0);
    std::set<char*> begins;
    for (rte_mbuf* m : mbufs) {
      EXPECT_TRUE(RTE_MBUF_HAS_PINNED_EXTBUF(m));
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(m->buf_addr) % 64, 0u);
      extmem_object_info_t owner{};
      ASSERT_EQ(extmem_heap_find_owner(heap, m->buf_addr, &owner, sizeof owner), 0);
      EXPECT_TRUE(owner.held);
      EXPECT_LE(static_cast<char*>(m->buf_addr) + m->buf_len, static_cast<char*>(owner.base) + owner.size);
      EXPECT_NE(extmem_heap_find_owner(heap, m, &owner, sizeof owner), 0) << "the header is in DPDK's memory";
      // One run of device addresses that begins where the mbuf says.
      for (const std::size_t at : {std::size_t{0}, std::size_t{m->buf_len} - 1}) {
        extmem_iova_t iova{};
        ASSERT_EQ(extmem_iova_of_address(domain, static_cast<char*>(m->buf_addr) + at, &iova), 0);
        if (iova == EXTMEM_BAD_IOVA) iova = reinterpret_cast<std::uintptr_t>(m->buf_addr) + at;
        EXPECT_EQ(iova, rte_mbuf_iova_get(m) + at);
      }
      std::memset(m->buf_addr, 0x5a, m->buf_len);
      begins.insert(static_cast<char*>(m->buf_addr));
    }
    ASSERT_EQ(begins.size(), count);
    for (auto at = std::next(begins.begin()); at != begins.end(); ++at)
      EXPECT_GE(*at - *std::prev(at), mbufs[0]->buf_len) << "buffers overlap";
    rte_pktmbuf_free_bulk(mbufs.data(), count);
  }
};

TEST_F(Pool, HasItsBuffersInTheHeap) {
  const Memory memory(8 * kMiB);
  must_add(memory);
  rte_mempool* pool = nullptr;
  ASSERT_EQ(create("plain", 1023, &pool), 0) << extmem_dpdk_last_error_message();
  EXPECT_EQ(rte_pktmbuf_data_room_size(pool), 2176);
  EXPECT_EQ(used(), 1u);  // one chunk: the memory is one run
  check_buffers(pool, 1023);
  EXPECT_EQ(extmem_dpdk_pktmbuf_pool_destroy(pool, nullptr), 0);
  EXPECT_EQ(used(), 0u);
  EXPECT_EQ(extmem_dpdk_pktmbuf_pool_destroy(pool, nullptr), -ENOENT);
}

TEST_F(Pool, FindsRunsOfIovas) {
  // Runs of one, two and three pages with gaps of device addresses between them, and pages that are not known.
  const Memory memory(1024 * 4096);
  std::vector<extmem_iova_t> iovas;
  extmem_iova_t next = 0x1'0000'0000;
  for (std::size_t run = 0; iovas.size() < 1024; ++run) {
    for (std::size_t i = 0; i <= run % 3 && iovas.size() < 1024; ++i, next += 4096)
      iovas.push_back(run % 5 == 4 ? EXTMEM_BAD_IOVA : next);
    next += 0x100000;
  }
  must_add(memory, iovas);
  for (const std::uint16_t room : {std::uint16_t{2176}, std::uint16_t{4096}, std::uint16_t{9216}}) {
    rte_mempool* pool = nullptr;
    ASSERT_EQ(create("runs", 127, &pool, room), 0) << extmem_dpdk_last_error_message();
    EXPECT_EQ(rte_pktmbuf_data_room_size(pool), room);
    check_buffers(pool, 127);
    EXPECT_EQ(extmem_dpdk_pktmbuf_pool_destroy(pool, nullptr), 0);
    EXPECT_EQ(used(), 0u);
  }
}

TEST_F(Pool, FailsWithoutATrace) {
  const Memory memory(kMiB);
  must_add(memory);
  rte_mempool* pool = nullptr;
  EXPECT_EQ(create("large", 1023, &pool), -ENOMEM);
  EXPECT_EQ(used(), 0u);
  EXPECT_EQ(rte_mempool_lookup("large"), nullptr);
  // DPDK's own memory is too small for the headers.
  const Memory more(256 * kMiB);
  must_add(more);
  EXPECT_EQ(create("headers", 900'000, &pool, 128), -ENOMEM);
  EXPECT_EQ(used(), 0u);
  EXPECT_EQ(pool, nullptr);
}

TEST_F(Pool, RefusesBadOptions) {
  const Memory memory(kMiB);
  must_add(memory);
  rte_mempool* pool = nullptr;
  extmem_dpdk_pool_options_t options = EXTMEM_DPDK_POOL_OPTIONS_INIT;
  const auto answer = [&] { return extmem_dpdk_pktmbuf_pool_create(domain, heap, &options, &pool); };
  EXPECT_EQ(extmem_dpdk_pktmbuf_pool_create(domain, heap, nullptr, &pool), -EINVAL);
  EXPECT_EQ(answer(), -EINVAL) << "no name";
  options.name = "p";
  EXPECT_EQ(answer(), -EINVAL) << "no count";
  options.count = 63;
  options.priv_size = 4;
  EXPECT_EQ(answer(), -EINVAL);
  options.priv_size = 8;
  options.data_room = 100;
  EXPECT_EQ(answer(), -EINVAL);
  options.data_room = 65500;
  EXPECT_EQ(answer(), -EINVAL);
  options.data_room = 256;
  options.cache_size = 63;
  EXPECT_EQ(answer(), -EINVAL);
  options.cache_size = 32;
  options.reserved = 1;
  EXPECT_EQ(answer(), -E2BIG);
  options.reserved = 0;
  options.name = "a name that is too long for DPDK's table";
  EXPECT_EQ(answer(), -ENAMETOOLONG);
  options.name = "p";
  options.struct_size = 8;
  EXPECT_EQ(answer(), -EINVAL);
  options.struct_size = sizeof options;
  EXPECT_EQ(used(), 0u);
  ASSERT_EQ(answer(), 0) << extmem_dpdk_last_error_message();
  rte_mempool* second = nullptr;
  EXPECT_EQ(extmem_dpdk_pktmbuf_pool_create(domain, heap, &options, &second), -EEXIST);
  EXPECT_EQ(extmem_dpdk_pktmbuf_pool_destroy(pool, nullptr), 0);
}

TEST_F(Pool, GoesOnlyWhenAllMbufsAreBack) {
  const Memory memory(kMiB);
  must_add(memory);
  extmem_dpdk_lease_t* lease = nullptr;
  ASSERT_EQ(extmem_dpdk_lend(domain, heap, 0, &lease), 0);
  rte_mempool* pool = nullptr;
  ASSERT_EQ(create("busy", 63, &pool), 0);
  rte_mbuf* mbufs[3];
  ASSERT_EQ(rte_pktmbuf_alloc_bulk(pool, mbufs, 3), 0);
  std::uint32_t out = 0;
  EXPECT_EQ(extmem_dpdk_pktmbuf_pool_destroy(pool, &out), -EBUSY);
  EXPECT_EQ(out, 3u);
  EXPECT_EQ(extmem_dpdk_withdraw(lease), -EBUSY);
  rte_pktmbuf_free_bulk(mbufs, 3);
  EXPECT_EQ(extmem_dpdk_withdraw(lease), -EBUSY) << "the pool is still there";
  EXPECT_EQ(extmem_dpdk_pktmbuf_pool_destroy(pool, &out), 0);
  EXPECT_EQ(extmem_dpdk_withdraw(lease), 0);
}

TEST_F(Pool, FreedBehindTheBridgesBackLosesNoBuffer) {
  const Memory memory(4 * kMiB);
  must_add(memory);
  extmem_dpdk_lease_t* lease = nullptr;
  ASSERT_EQ(extmem_dpdk_lend(domain, heap, 0, &lease), 0);
  rte_mempool *first = nullptr, *second = nullptr;
  ASSERT_EQ(create("again", 511, &first), 0);
  rte_mempool_free(first);
  // DPDK may well make the next one at the same address: it is not taken for the first.
  ASSERT_EQ(create("again", 511, &second), 0) << extmem_dpdk_last_error_message();
  check_buffers(second, 511);
  EXPECT_EQ(extmem_dpdk_withdraw(lease), -EBUSY);
  EXPECT_EQ(extmem_dpdk_pktmbuf_pool_destroy(second, nullptr), 0);
  EXPECT_EQ(rte_mempool_lookup("again"), nullptr);
  EXPECT_EQ(used(), 1u);
  EXPECT_EQ(extmem_dpdk_pktmbuf_pool_destroy(first, nullptr), 0);
  EXPECT_EQ(used(), 0u);
  EXPECT_EQ(extmem_dpdk_pktmbuf_pool_destroy(first, nullptr), -ENOENT);
  ASSERT_EQ(create("again", 511, &first), 0);
  rte_mempool_free(first);
  EXPECT_EQ(extmem_dpdk_withdraw(lease), 0) << "no pool is there";
  EXPECT_EQ(extmem_dpdk_pktmbuf_pool_destroy(first, nullptr), 0);
  EXPECT_EQ(used(), 0u);
}

TEST_F(Pool, NamesItselfInTheHeapsTags) {
  const Memory memory(kMiB);
  const extmem_region_id_t region = must_add(memory);
  rte_mempool* pool = nullptr;
  ASSERT_EQ(create("rx", 63, &pool), 0);
  extmem_holder_report_t holders{};
  EXPECT_EQ(extmem_region_remove(domain, region, &holders, sizeof holders), -EBUSY);
  ASSERT_EQ(holders.count, 1u);
  EXPECT_STREQ(holders.holders[0].tag, "mbufs of rx");
  EXPECT_EQ(extmem_dpdk_pktmbuf_pool_destroy(pool, nullptr), 0);
}

/// Starts a port of one queue pair with packets of `pool`.
std::uint16_t start_port(const char* device, rte_mempool* pool) {
  std::uint16_t port = 0;
  EXPECT_EQ(rte_eth_dev_get_port_by_name(device, &port), 0);
  rte_eth_conf configuration{};
  EXPECT_EQ(rte_eth_dev_configure(port, 1, 1, &configuration), 0);
  EXPECT_EQ(rte_eth_rx_queue_setup(port, 0, 256, 0, nullptr, pool), 0);
  EXPECT_EQ(rte_eth_tx_queue_setup(port, 0, 256, 0, nullptr), 0);
  EXPECT_EQ(rte_eth_dev_start(port), 0);
  return port;
}

TEST_F(Pool, CarriesPacketsThroughARingPort) {
  const Memory memory(4 * kMiB);
  must_add(memory);
  extmem_dpdk_lease_t* lease = nullptr;
  ASSERT_EQ(extmem_dpdk_lend(domain, heap, 0, &lease), 0);
  rte_mempool* pool = nullptr;
  ASSERT_EQ(create("ring", 511, &pool), 0);
  const std::uint16_t port = start_port("net_ring0", pool);
  for (std::uint32_t round = 0; round < 500; ++round) {
    rte_mbuf* sent[32];
    ASSERT_EQ(rte_pktmbuf_alloc_bulk(pool, sent, 32), 0);
    for (std::uint32_t i = 0; i < 32; ++i) {
      auto* const data = rte_pktmbuf_append(sent[i], 200);
      std::memset(data, static_cast<int>(round + i), 200);
    }
    ASSERT_EQ(rte_eth_tx_burst(port, 0, sent, 32), 32);
    rte_mbuf* got[32];
    ASSERT_EQ(rte_eth_rx_burst(port, 0, got, 32), 32);
    for (std::uint32_t i = 0; i < 32; ++i) {
      extmem_iova_t unused{};
      const auto* const data = rte_pktmbuf_mtod(got[i], unsigned char*);
      ASSERT_EQ(extmem_iova_of_address(domain, data, &unused), 0) << "the data is in a region of ours";
      EXPECT_EQ(data[0], static_cast<unsigned char>(round + i));
      EXPECT_EQ(data[199], static_cast<unsigned char>(round + i));
    }
    rte_pktmbuf_free_bulk(got, 32);
  }
  EXPECT_EQ(rte_eth_dev_stop(port), 0);
  EXPECT_EQ(extmem_dpdk_pktmbuf_pool_destroy(pool, nullptr), 0) << extmem_dpdk_last_error_message();
  EXPECT_EQ(extmem_dpdk_withdraw(lease), 0);
}

TEST_F(Pool, ReceivesFromANullPort) {
  const Memory memory(4 * kMiB);
  must_add(memory);
  rte_mempool* pool = nullptr;
  ASSERT_EQ(create("null", 511, &pool), 0);
  const std::uint16_t port = start_port("net_null0", pool);
  std::size_t received = 0;
  for (int round = 0; round < 1000; ++round) {
    rte_mbuf* got[32];
    const std::uint16_t n = rte_eth_rx_burst(port, 0, got, 32);
    for (std::uint16_t i = 0; i < n; ++i) {
      extmem_iova_t unused{};
      ASSERT_EQ(extmem_iova_of_address(domain, rte_pktmbuf_mtod(got[i], void*), &unused), 0);
    }
    received += n;
    rte_pktmbuf_free_bulk(got, n);
  }
  EXPECT_EQ(received, 32'000u);
  EXPECT_EQ(rte_eth_dev_stop(port), 0);
  EXPECT_EQ(extmem_dpdk_pktmbuf_pool_destroy(pool, nullptr), 0) << extmem_dpdk_last_error_message();
}

}  // namespace
}  // namespace bridge_test
