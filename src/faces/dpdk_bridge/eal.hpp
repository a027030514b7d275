// What the bridge asks of EAL: whether it runs, device addresses of memory, and the devices.
//
// Thread-safety: stateless. Who maps or unmaps holds the bridge's mutex (state.hpp).
#pragma once

#include <rte_common.h>
#include <rte_memory.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "extmem/extmem.h"

struct rte_device;

namespace extmem::faces::dpdk_bridge {

/// Whether rte_eal_init has got as far as DPDK's memory and its lists.
bool eal_runs() noexcept;

/// Memory with consecutive device addresses; iova is RTE_BAD_IOVA where none is known.
struct Run {
  std::uint64_t offset = 0;  // from the start of the memory asked about
  std::uint64_t length = 0;
  rte_iova_t iova = RTE_BAD_IOVA;
};

/// The device addresses of [p, p + length): the IOVAs that the domain knows; where it knows none the address itself if EAL
/// is in VA mode. Takes no lock of the domain. Throws std::bad_alloc. Returns: 0; a failure already kept by fail().
int device_runs(extmem_domain_t* domain, const void* p, std::uint64_t length, std::vector<Run>& runs);

/// One device address for each page, as DPDK's tables want them.
std::vector<rte_iova_t> page_table(const std::vector<Run>& runs, std::uint64_t page_size);

/// A device that a driver has taken.
struct Device {
  rte_device* device = nullptr;
  std::string bus;
  std::string name;
};

/// The probed devices of all buses that can be walked (in 22.11: pci, vdev, auxiliary, dsa). Throws std::bad_alloc.
std::vector<Device> probed_devices();

/// Registered memory as the devices see it.
struct Mapping {
  std::byte* base = nullptr;
  std::vector<Run> runs;
};

/// Maps all runs with a known address for one device, or none. Returns: 1; 0 the device's driver wants nothing mapped; a
/// failure already kept by fail().
int map_for(const Device& device, const Mapping& memory) noexcept;
/// Unmaps what map_for has mapped, or nothing. `shared`: another device of the same bus was just unmapped; if both share an
/// IOMMU domain (as all of VFIO's default container do) the driver finds nothing left to unmap, and that is fine.
/// Returns: 0; a failure already kept by fail().
int unmap_for(const Device& device, const Mapping& memory, bool shared) noexcept;

}  // namespace extmem::faces::dpdk_bridge
