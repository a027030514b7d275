// Devices that refuse, fail, share, come and go. Debian's vdevs map nothing, so the test answers in their place.
#include <rte_dev.h>
#include <rte_eal.h>

#include <algorithm>
#include <cerrno>

#include "eal.hpp"

namespace bridge_test {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

struct Devices : Bridge {
  extmem_dpdk_lease_t* must_lend(std::uint32_t flags = 0) {
    extmem_dpdk_lease_t* lease = nullptr;
    EXPECT_EQ(extmem_dpdk_lend(domain, heap, flags, &lease), 0) << extmem_dpdk_last_error_message();
    return lease;
  }
  static std::uint64_t mappings(extmem_dpdk_lease_t* lease) {
    extmem_dpdk_lease_info_t info{};
    EXPECT_EQ(extmem_dpdk_lease_get_info(lease, &info, sizeof info), 0);
    return info.mappings;
  }
};

TEST_F(Devices, WithoutDmaMappingAreNoFailure) {
  const Memory memory(kMiB);
  must_add(memory);
  dma().answer = [](const DmaCall& call) { return call.device == "net_ring0" ? ENOTSUP : 0; };
  extmem_dpdk_lease_t* const lease = must_lend();
  EXPECT_EQ(mappings(lease), 1u);
  EXPECT_EQ(extmem_dpdk_withdraw(lease), 0);
  EXPECT_EQ(dma().count("net_ring0", false), 0u);
  EXPECT_EQ(dma().balance(), 0);
}

TEST_F(Devices, AreLeftAloneWhenAsked) {
  const Memory memory(kMiB);
  must_add(memory);
  extmem_dpdk_lease_t* const lease = must_lend(EXTMEM_DPDK_REGISTER_ONLY);
  EXPECT_TRUE(dpdk_knows(memory.base()));
  EXPECT_TRUE(dma().calls.empty());
  EXPECT_EQ(extmem_dpdk_refresh(lease), 0);
  EXPECT_TRUE(dma().calls.empty());
  EXPECT_EQ(extmem_dpdk_withdraw(lease), 0);
}

TEST_F(Devices, ThatFailRefuseTheRegion) {
  extmem_dpdk_lease_t* const lease = must_lend();
  const Memory good(kMiB), bad(4 * 4096);
  must_add(good);
  const auto before = dma().balance();
  // Both orders of devices, and failing at the third of four runs.
  for (const char* victim : {"net_null0", "net_ring0"}) {
    dma().answer = [&](const DmaCall& call) {
      return call.map && call.device == victim && call.addr == bad.base() + 2 * 4096 ? ENOMEM : 0;
    };
    extmem_region_id_t region{};
    EXPECT_EQ(add(heap, bad, region, {0x10000, 0x30000, 0x50000, 0x70000}), -ENOMEM);
    EXPECT_NE(std::string(extmem_dpdk_last_error_message()).find(victim), std::string::npos)
        << extmem_dpdk_last_error_message();
    EXPECT_FALSE(dpdk_knows(bad.base()));
    EXPECT_EQ(dma().balance(), before);
    dma().answer = nullptr;
  }
  // Nothing has changed: the same region is taken when the device can.
  extmem_region_id_t region{};
  EXPECT_EQ(add(heap, bad, region, {0x10000, 0x30000, 0x50000, 0x70000}), 0);
  EXPECT_EQ(extmem_dpdk_withdraw(lease), 0);
  EXPECT_EQ(dma().balance(), 0);
}

TEST_F(Devices, ThatFailRefuseTheLease) {
  const Memory first(kMiB), second(kMiB);
  must_add(first);
  must_add(second);
  dma().answer = [&](const DmaCall& call) { return call.map && call.addr == second.base() ? EIO : 0; };
  extmem_dpdk_lease_t* lease = nullptr;
  EXPECT_EQ(extmem_dpdk_lend(domain, heap, 0, &lease), -EIO);
  EXPECT_EQ(lease, nullptr);
  EXPECT_FALSE(dpdk_knows(first.base()));
  EXPECT_FALSE(dpdk_knows(second.base()));
  EXPECT_EQ(dma().balance(), 0);
  // No listener was left: a region that comes now is nobody's business.
  const Memory third(kMiB);
  must_add(third);
  EXPECT_FALSE(dpdk_knows(third.base()));
}

TEST_F(Devices, ThatHoldOnRefuseTheRemoval) {
  const Memory memory(kMiB);
  const extmem_region_id_t region = must_add(memory);
  extmem_dpdk_lease_t* const lease = must_lend();
  for (const char* victim : {"net_null0", "net_ring0"}) {
    dma().answer = [&](const DmaCall& call) { return !call.map && call.device == victim ? EBUSY : 0; };
    EXPECT_EQ(extmem_region_remove(domain, region, nullptr, 0), -EBUSY);
    EXPECT_TRUE(dpdk_knows(memory.base()));
    EXPECT_EQ(dma().balance(), 2);
    EXPECT_EQ(mappings(lease), 2u);
    EXPECT_EQ(extmem_dpdk_withdraw(lease), -EBUSY);
    EXPECT_NE(std::string(extmem_dpdk_last_error_message()).find(victim), std::string::npos);
    EXPECT_TRUE(dpdk_knows(memory.base()));
    EXPECT_EQ(dma().balance(), 2);
  }
  dma().answer = nullptr;
  // The lease still follows: a new region is lent, the old one can go.
  const Memory later(kMiB);
  must_add(later);
  EXPECT_TRUE(dpdk_knows(later.base()));
  EXPECT_EQ(extmem_region_remove(domain, region, nullptr, 0), 0);
  EXPECT_EQ(extmem_dpdk_withdraw(lease), 0);
  EXPECT_EQ(dma().balance(), 0);
}

TEST_F(Devices, WithdrawalIsAllOrNothing) {
  const Memory first(kMiB), second(kMiB), third(kMiB);
  for (const Memory* memory : {&first, &second, &third}) must_add(*memory);
  extmem_dpdk_lease_t* const lease = must_lend();
  dma().answer = [&](const DmaCall& call) { return !call.map && call.addr == first.base() ? EIO : 0; };
  EXPECT_EQ(extmem_dpdk_withdraw(lease), -EIO);
  for (const Memory* memory : {&first, &second, &third}) EXPECT_TRUE(dpdk_knows(memory->base()));
  EXPECT_EQ(mappings(lease), 6u);
  EXPECT_EQ(dma().balance(), 6);
  dma().answer = nullptr;
  EXPECT_EQ(extmem_dpdk_withdraw(lease), 0);
  EXPECT_EQ(dma().balance(), 0);
}

TEST_F(Devices, OfOneContainerMayFindNothingLeftToUnmap) {
  // All devices of VFIO's default container share one table: the second unmapping finds nothing.
  const Memory memory(2 * 4096);
  must_add(memory, {0x10000, 0x30000});
  extmem_dpdk_lease_t* const lease = must_lend();
  std::vector<void*> gone;
  dma().answer = [&](const DmaCall& call) {
    if (call.map) return 0;
    if (std::ranges::find(gone, call.addr) != gone.end()) return EINVAL;
    gone.push_back(call.addr);
    return 0;
  };
  EXPECT_EQ(extmem_dpdk_withdraw(lease), 0) << extmem_dpdk_last_error_message();
  EXPECT_FALSE(dpdk_knows(memory.base()));
  EXPECT_EQ(gone.size(), 2u);
}

int refuse_removals(const extmem_region_event_t* event, void*) {
  return event->kind == EXTMEM_REGION_REMOVING ? EACCES : 0;
}

TEST_F(Devices, AreMappedAgainWhenAnotherListenerRefusesTheRemoval) {
  const Memory memory(kMiB);
  const extmem_region_id_t region = must_add(memory);
  extmem_dpdk_lease_t* const lease = must_lend();
  ASSERT_EQ(extmem_listener_add(domain, refuse_removals, nullptr), 0);
  EXPECT_EQ(extmem_region_remove(domain, region, nullptr, 0), -EACCES);
  EXPECT_TRUE(dpdk_knows(memory.base()));
  EXPECT_EQ(mappings(lease), 2u);
  EXPECT_EQ(dma().balance(), 2);

  // Where the device does not take it again the lease says so, and refresh tries.
  dma().answer = [](const DmaCall& call) { return call.map ? ENOMEM : 0; };
  EXPECT_EQ(extmem_region_remove(domain, region, nullptr, 0), -EACCES);
  EXPECT_FALSE(dpdk_knows(memory.base()));
  extmem_dpdk_lease_info_t info{};
  ASSERT_EQ(extmem_dpdk_lease_get_info(lease, &info, sizeof info), 0);
  EXPECT_EQ(info.missing, 1u);
  EXPECT_EQ(info.regions, 0u);
  EXPECT_EQ(extmem_dpdk_refresh(lease), -ENOMEM);
  dma().answer = nullptr;
  EXPECT_EQ(extmem_dpdk_refresh(lease), 0);
  EXPECT_TRUE(dpdk_knows(memory.base()));
  ASSERT_EQ(extmem_listener_remove(domain, refuse_removals, nullptr), 0);
  EXPECT_EQ(extmem_dpdk_withdraw(lease), 0);
  EXPECT_EQ(dma().balance(), 0);
}

TEST_F(Devices, ThatComeLaterAreMappedByRefreshAndMayGo) {
  const Memory first(kMiB), second(kMiB);
  must_add(first);
  must_add(second);
  extmem_dpdk_lease_t* const lease = must_lend();
  ASSERT_EQ(rte_eal_hotplug_add("vdev", "net_null7", ""), 0);
  EXPECT_EQ(mappings(lease), 4u);
  // A device that fails on the second region: the first is unmapped again.
  dma().answer = [&](const DmaCall& call) {
    return call.map && call.device == "net_null7" && call.addr == second.base() ? ENOMEM : 0;
  };
  EXPECT_EQ(extmem_dpdk_refresh(lease), -ENOMEM);
  EXPECT_EQ(mappings(lease), 4u);
  EXPECT_EQ(dma().balance(), 4);
  dma().answer = nullptr;
  EXPECT_EQ(extmem_dpdk_refresh(lease), 0);
  EXPECT_EQ(mappings(lease), 6u);
  EXPECT_EQ(extmem_dpdk_refresh(lease), 0);
  EXPECT_EQ(dma().balance(), 6);
  ASSERT_EQ(rte_eal_hotplug_remove("vdev", "net_null7"), 0);
  EXPECT_EQ(extmem_dpdk_withdraw(lease), 0) << extmem_dpdk_last_error_message();
  EXPECT_EQ(dma().balance(), 2);  // what the device took along
  EXPECT_EQ(dma().count("net_null7", false), 1u);
}

}  // namespace
}  // namespace bridge_test
