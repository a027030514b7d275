// A heap that is lent to EAL: its regions are registered, mapped for the devices, and followed by a listener.
//
// Invariants, whenever the state's mutex is free:
//  1. Each entry of regions_ is registered with DPDK, and mapped for exactly the devices that it names.
//  2. Every region of the heap that this process maps is among them, but for those that a refused removal lost.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "extmem/dpdk_bridge.h"
#include "faces/dpdk_bridge/state.hpp"

struct extmem_dpdk_lease {
 public:
  extmem_dpdk_lease(extmem_domain_t* domain, extmem_heap_t heap, std::uint32_t heap_id,
                    std::uint32_t flags) noexcept
      : domain_(domain), heap_(heap), heap_id_(heap_id), flags_(flags) {}

  /// Registers the listener and lends what is there. Returns: 0; a failure already kept, and nothing is lent.
  int begin();
  int refresh();
  /// Takes everything back. Returns: 0, and the lease may be deleted; a failure, and everything is lent as before.
  int end();
  int info(extmem_dpdk_lease_info_t& info);

  /// The lent region that p lies in, or null. Requires: the state's mutex is held.
  [[nodiscard]] const extmem::faces::dpdk_bridge::LentRegion* find(const void* p) const noexcept;
  [[nodiscard]] bool overlaps(const void* p, std::uint64_t length) const noexcept;
  [[nodiscard]] extmem_domain_t* domain() const noexcept { return domain_; }
  [[nodiscard]] bool is_of(extmem_heap_t heap) const noexcept;

 private:
  using LentRegion = extmem::faces::dpdk_bridge::LentRegion;
  static int listen(const extmem_region_event_t* event, void* self);
  // These require the region lock (they run in listeners and visitors) and the mutex.
  int lend(const extmem_region_info_t& region);
  int unlend(LentRegion& region);
  int map_new_devices(LentRegion& region);
  int unmap_since(LentRegion& region, std::size_t first);
  int take_all_back();
  enum class Pools { matter, do_not };
  int stop(Pools pools);  // takes the lock
  /// Lends a visited region of the heap, or maps it for new devices. On failure undoes what this walk has done, which
  /// `before` remembers: the regions, and for how many devices each was mapped.
  int cover(const extmem_region_info_t& region,
            std::vector<std::pair<extmem_region_id_t, std::size_t>>& before);
  int cover_all();
  LentRegion* find(extmem_region_id_t id) noexcept;

  extmem_domain_t* const domain_;
  const extmem_heap_t heap_;
  const std::uint32_t heap_id_;
  const std::uint32_t flags_;
  std::vector<LentRegion> regions_;  // guarded by the state's mutex
  bool ended_ = false;               // likewise: nothing is lent any more
};
