#include "faces/dpdk_bridge/lease.hpp"

#include <rte_errno.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <utility>

#include "faces/dpdk_bridge/checks.hpp"
#include "faces/dpdk_bridge/error.hpp"

using namespace extmem::faces::dpdk_bridge;

namespace extmem::faces::dpdk_bridge {

State& state() noexcept {
  static State& only = *new State;
  return only;
}

namespace {

constexpr std::uint32_t kFlags = EXTMEM_DPDK_REGISTER_ONLY | EXTMEM_DPDK_NEED_IOVA;

bool same(extmem_region_id_t a, extmem_region_id_t b) noexcept {
  return a.slot == b.slot && a.generation == b.generation;
}

std::string label(const Device& device) { return device.bus + "/" + device.name; }

/// Calls `visit` with each region of a domain, under its region lock, until one answers other than 0.
/// Returns: what `visit` returned last; else a failure already kept by fail().
template <typename Visit>
int for_each_region(extmem_domain_t* domain, Visit&& visit) {
  struct Call {
    Visit& visit;
    int answer = 0;
  } call{visit};
  const int result = ::extmem_region_list(
      domain,
      [](const extmem_region_info_t* region, void* arg) {
        auto& to = *static_cast<Call*>(arg);
        to.answer = guarded([&] { return to.visit(*region); });
        return to.answer != 0 ? 1 : 0;
      },
      &call);
  if (call.answer != 0) return call.answer;
  return result < 0 ? fail_as_extmem(result) : 0;
}

}  // namespace
}  // namespace extmem::faces::dpdk_bridge

extmem_dpdk_lease::LentRegion* extmem_dpdk_lease::find(extmem_region_id_t id) noexcept {
  const auto found = std::ranges::find_if(regions_, [&](const LentRegion& r) { return same(r.info.id, id); });
  return found == regions_.end() ? nullptr : &*found;
}

const LentRegion* extmem_dpdk_lease::find(const void* p) const noexcept {
  const auto found = std::ranges::find_if(
      regions_, [&](const LentRegion& r) { return overlap(r.memory.base, r.info.length, p, 1); });
  return found == regions_.end() ? nullptr : &*found;
}

bool extmem_dpdk_lease::is_of(extmem_heap_t heap) const noexcept {
  return heap_.local == heap.local && heap_.key == heap.key;
}

bool extmem_dpdk_lease::overlaps(const void* p, std::uint64_t length) const noexcept {
  return std::ranges::any_of(
      regions_, [&](const LentRegion& r) { return overlap(r.memory.base, r.info.length, p, length); });
}

// ---- one region ----------------------------------------------------------------------------------------------

int extmem_dpdk_lease::lend(const extmem_region_info_t& info) {
  LentRegion region;
  region.info = info;
  region.memory.base = static_cast<std::byte*>(info.base);
  for (const GivenRange& range : state().ranges) {
    if (overlap(range.base, range.length, info.base, info.length)) {
      return fail(EEXIST, "a range of this region was given to DPDK's heap '%s'; take it back before lending",
                  range.heap.c_str());
    }
  }
  if (info.length / info.os_page_size > std::numeric_limits<unsigned>::max()) {
    return fail(EOVERFLOW,
                "the region has more than 2^32 - 1 pages, which DPDK cannot count; use larger pages");
  }
  BRIDGE_TRY(device_runs(domain_, info.base, info.length, region.memory.runs));
  if ((flags_ & EXTMEM_DPDK_NEED_IOVA) != 0) {
    for (const Run& run : region.memory.runs) {
      if (run.iova != RTE_BAD_IOVA) continue;
      return fail(
          EINVAL,
          "the IOVA of %llu bytes at %p is not known, and EAL is in PA mode; give the region its IOVAs",
          static_cast<unsigned long long>(run.length), static_cast<void*>(region.memory.base + run.offset));
    }
  }
  std::vector<rte_iova_t> table = page_table(region.memory.runs, info.os_page_size);
  regions_.reserve(regions_.size() + 1);  // so that nothing can fail once DPDK knows the region
  if (::rte_extmem_register(info.base, info.length, table.data(), static_cast<unsigned>(table.size()),
                            info.os_page_size) != 0) {
    const int why = rte_errno > 0 ? rte_errno : EIO;
    switch (why) {
      case EEXIST:
        if (::rte_extmem_attach(info.base, info.length) == 0) {
          region.attached = true;
          regions_.push_back(std::move(region));
          return 0;
        }
        return fail(
            EEXIST,
            "DPDK knows this memory already: somebody else registered it, here or in another process of this "
            "DPDK, and it cannot be attached (%s). In a secondary process mostly because something lies "
            "where "
            "the primary has DPDK's table of these pages: start the primary with a --base-virtaddr that is "
            "free in every process",
            ::rte_strerror(rte_errno));
      case ENOSPC:
        return fail(ENOSPC,
                    "DPDK has no room for another area of memory (22.11: 128); lend fewer, larger regions");
      default:
        return fail(why, "DPDK refused to register %llu bytes at %p: %s",
                    static_cast<unsigned long long>(info.length), info.base, ::rte_strerror(why));
    }
  }
  regions_.push_back(std::move(region));
  const int mapped = guarded([&] { return map_new_devices(regions_.back()); });
  if (mapped == 0) return 0;
  (void)::rte_extmem_unregister(info.base, info.length);
  regions_.pop_back();
  return mapped;
}

/// Maps the region for the devices that it is not mapped for; all of them, or on failure none.
int extmem_dpdk_lease::map_new_devices(LentRegion& region) {
  if ((flags_ & EXTMEM_DPDK_REGISTER_ONLY) != 0 || region.attached) return 0;
  const std::size_t before = region.devices.size();
  for (const Device& device : probed_devices()) {
    std::string name = label(device);
    if (std::ranges::find(region.devices, name) != region.devices.end()) continue;
    region.devices.reserve(region.devices.size() + 1);
    const int answer = map_for(device, region.memory);
    if (answer > 0) region.devices.push_back(std::move(name));
    if (answer >= 0) continue;
    const Message why;
    (void)unmap_since(region, before);
    return why.again(answer);
  }
  return 0;
}

/// Unmaps the region for the devices from `first` on; all of them, or on failure none.
int extmem_dpdk_lease::unmap_since(LentRegion& region, std::size_t first) {
  if (region.devices.size() == first) return 0;
  const std::vector<Device> present =
      probed_devices();  // a device that has been detached took its mappings along
  std::vector<const Device*> undone;
  undone.reserve(region.devices.size());
  for (std::size_t i = region.devices.size(); i-- > first;) {
    const auto device =
        std::ranges::find_if(present, [&](const Device& d) { return label(d) == region.devices[i]; });
    if (device == present.end()) continue;
    const bool shared = std::ranges::any_of(undone, [&](const Device* d) { return d->bus == device->bus; });
    if (const int failed = unmap_for(*device, region.memory, shared); failed != 0) {
      const Message why;
      for (const Device* again : undone) (void)map_for(*again, region.memory);
      return why.again(failed);
    }
    undone.push_back(&*device);
  }
  region.devices.resize(first);
  return 0;
}

/// Withdraws one region, which is then no longer in regions_.
int extmem_dpdk_lease::unlend(LentRegion& region) {
  BRIDGE_TRY(unmap_since(region, 0));
  const auto forget = region.attached ? ::rte_extmem_detach : ::rte_extmem_unregister;
  if (forget(region.memory.base, region.info.length) != 0) {
    const int why = rte_errno > 0 ? rte_errno : EIO;
    (void)map_new_devices(region);
    return fail(why, "DPDK does not forget %llu bytes at %p: %s; detach them in every DPDK process first",
                static_cast<unsigned long long>(region.info.length), static_cast<void*>(region.memory.base),
                ::rte_strerror(why));
  }
  regions_.erase(regions_.begin() + (&region - regions_.data()));
  return 0;
}

// ---- all regions ---------------------------------------------------------------------------------------------

int extmem_dpdk_lease::listen(const extmem_region_event_t* event, void* self) {
  auto& lease = *static_cast<extmem_dpdk_lease*>(self);
  if (event->info.heap_id != lease.heap_id_ || event->info.base == nullptr) return 0;
  const int answer = guarded([&] {
    const std::lock_guard lock(state().mutex);
    if (lease.ended_) return 0;
    LentRegion* const known = lease.find(event->info.id);
    switch (event->kind) {
      case EXTMEM_REGION_ADDED:
        return known == nullptr ? lease.lend(event->info) : 0;
      case EXTMEM_REGION_REMOVING:
        return known != nullptr ? lease.unlend(*known) : 0;
      default:  // reclaiming what a dead process held: the region stays, and the dead one's devices are not of this EAL
        return 0;
    }
  });
  return -answer;
}

int extmem_dpdk_lease::cover(const extmem_region_info_t& region,
                             std::vector<std::pair<extmem_region_id_t, std::size_t>>& before) {
  if (region.heap_id != heap_id_ || region.base == nullptr) return 0;  // null: not mapped in this process
  constexpr std::size_t kNotLent = ~std::size_t{0};
  LentRegion* const known = find(region.id);
  before.emplace_back(region.id, known == nullptr ? kNotLent : known->devices.size());
  const int failed = guarded([&] { return known == nullptr ? lend(region) : map_new_devices(*known); });
  if (failed == 0) return 0;
  before.pop_back();
  const Message why;
  for (std::size_t i = before.size(); i-- > 0;) {
    LentRegion* const changed = find(before[i].first);
    if (changed == nullptr) continue;
    (void)(before[i].second == kNotLent ? unlend(*changed) : unmap_since(*changed, before[i].second));
  }
  return why.again(failed);
}

int extmem_dpdk_lease::cover_all() {
  std::vector<std::pair<extmem_region_id_t, std::size_t>> before;
  return for_each_region(domain_, [&](const extmem_region_info_t& region) {
    const std::lock_guard lock(state().mutex);
    return cover(region, before);
  });
}

int extmem_dpdk_lease::begin() {
  // First the listener, then what is there: a region that comes in between is lent by the first and met by the second.
  if (const int failed = ::extmem_listener_add(domain_, listen, this); failed != 0)
    return fail_as_extmem(failed);
  const int failed = cover_all();
  if (failed == 0) return 0;
  const Message why;
  // What only the listener has lent meanwhile goes too. A device that holds on keeps it: nothing else can be done here.
  if (stop(Pools::do_not) != 0) {
    const std::lock_guard lock(state().mutex);
    ended_ = true;
  }
  (void)::extmem_listener_remove(domain_, listen, this);
  return why.again(failed);
}

int extmem_dpdk_lease::refresh() { return cover_all(); }

int extmem_dpdk_lease::take_all_back() {
  std::vector<extmem_region_info_t> taken;
  taken.reserve(regions_.size());
  while (!regions_.empty()) {
    const extmem_region_info_t info = regions_.back().info;
    if (const int failed = unlend(regions_.back()); failed != 0) {
      const Message why;
      for (const extmem_region_info_t& again : taken) (void)guarded([&] { return lend(again); });
      return why.again(failed);
    }
    taken.push_back(info);
  }
  return 0;
}

/// Takes everything back and stops to follow the heap, as one step for those who add and remove regions.
int extmem_dpdk_lease::stop(Pools pools) {
  for (;;) {
    const int answer = for_each_region(domain_, [&](const extmem_region_info_t&) {
      const std::lock_guard lock(state().mutex);
      for (const Pool& pool : state().pools) {
        if (pools == Pools::do_not || !pool.is_there()) continue;
        for (const Chunk& chunk : pool.chunks) {
          if (overlaps(chunk.base, chunk.length))
            return fail(EBUSY, "the pool of packets '%s' has its buffers in this heap; destroy it first",
                        pool.name.c_str());
        }
      }
      BRIDGE_TRY(take_all_back());
      ended_ = true;
      return 1;  // one region is enough: this runs for the sake of the lock
    });
    if (answer < 0) return answer;
    const std::lock_guard lock(state().mutex);
    // The domain had no region. Has one come since, the listener has lent it: once more.
    if (regions_.empty()) ended_ = true;
    if (ended_) return 0;
  }
}

int extmem_dpdk_lease::end() {
  BRIDGE_TRY(stop(Pools::matter));
  if (const int failed = ::extmem_listener_remove(domain_, listen, this); failed != 0)
    return fail_as_extmem(failed);
  return 0;
}

int extmem_dpdk_lease::info(extmem_dpdk_lease_info_t& info) {
  info = {};
  info.struct_size = sizeof info;
  return for_each_region(domain_, [&](const extmem_region_info_t& region) {
    if (region.heap_id != heap_id_ || region.base == nullptr) return 0;
    const std::lock_guard lock(state().mutex);
    const LentRegion* const known = find(region.id);
    if (known == nullptr) {
      ++info.missing;
      return 0;
    }
    ++info.regions;
    info.bytes += known->info.length;
    info.mappings += known->devices.size();
    return 0;
  });
}

// ---- the C functions -----------------------------------------------------------------------------------------

int extmem_dpdk_lend(extmem_domain_t* domain, extmem_heap_t heap, uint32_t flags,
                     extmem_dpdk_lease_t** lease) {
  BRIDGE_REQUIRE_DOMAIN(domain);
  BRIDGE_REQUIRE_HEAP(heap);
  BRIDGE_REQUIRE((flags & ~kFlags) == 0, "flags has bits that are not of enum extmem_dpdk_lend_flag");
  BRIDGE_REQUIRE_OUT(lease);
  BRIDGE_REQUIRE_EAL();
  return guarded([&] {
    std::uint32_t id = 0;
    BRIDGE_TRY(checked_heap(domain, heap, id));
    auto made = std::make_unique<extmem_dpdk_lease>(domain, heap, id, flags);
    {  // known before it lends anything: a range of the heap that is given meanwhile meets it, and a second lease, too
      const std::lock_guard lock(state().mutex);
      for (const extmem_dpdk_lease* lease_of : state().leases) {
        if (lease_of->is_of(heap)) return fail(EEXIST, "the heap is lent already; withdraw that lease first");
      }
      state().leases.push_back(made.get());
    }
    if (const int failed = made->begin(); failed != 0) {
      const std::lock_guard lock(state().mutex);
      std::erase(state().leases, made.get());
      return failed;
    }
    *lease = made.release();
    return 0;
  });
}

int extmem_dpdk_refresh(extmem_dpdk_lease_t* lease) {
  BRIDGE_REQUIRE(lease != nullptr, "lease is NULL; pass what extmem_dpdk_lend gave");
  return guarded([&] { return lease->refresh(); });
}

int extmem_dpdk_lease_get_info(extmem_dpdk_lease_t* lease, extmem_dpdk_lease_info_t* info, size_t info_size) {
  BRIDGE_REQUIRE(lease != nullptr, "lease is NULL; pass what extmem_dpdk_lend gave");
  BRIDGE_REQUIRE_OUT(info);
  BRIDGE_REQUIRE(info_size >= sizeof(size_t), "the report's size is too small; pass sizeof of the report");
  extmem_dpdk_lease_info_t found{};
  BRIDGE_TRY(guarded([&] { return lease->info(found); }));
  store(found, info, info_size);
  return 0;
}

int extmem_dpdk_withdraw(extmem_dpdk_lease_t* lease) {
  BRIDGE_REQUIRE(lease != nullptr, "lease is NULL; pass what extmem_dpdk_lend gave");
  return guarded([&] {
    BRIDGE_TRY(lease->end());
    {
      const std::lock_guard lock(state().mutex);
      std::erase(state().leases, lease);
    }
    delete lease;
    return 0;
  });
}
