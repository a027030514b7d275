// Ranges: memory of a heap of ours as memory of one of DPDK's.
#include <rte_errno.h>
#include <rte_malloc.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "extmem/dpdk_bridge.h"
#include "faces/dpdk_bridge/eal.hpp"
#include "faces/dpdk_bridge/error.hpp"
#include "faces/dpdk_bridge/lease.hpp"
#include "faces/dpdk_bridge/state.hpp"

using namespace extmem::faces::dpdk_bridge;

namespace {

constexpr std::size_t kHeapNameSize = 32;  // DPDK's, with the zero; its headers do not say

/// The page size of a range that may be given. Returns: 0; a failure already kept.
int check_range(extmem_domain_t* domain, const void* p, std::size_t length, std::uint64_t& page) noexcept {
  extmem_object_info_t object{};
  if (const int failed = ::extmem_object_find_owner(domain, p, &object, sizeof object); failed != 0)
    return fail_as_extmem(failed);
  BRIDGE_REQUIRE(object.held,
                 "the memory is not allocated; reserve a memzone, or allocate it, and give that");
  const auto at = reinterpret_cast<std::uintptr_t>(p);
  const auto end = reinterpret_cast<std::uintptr_t>(object.base) + object.size;
  if (length > end - at) {
    return fail(EINVAL, "the range reaches %llu bytes beyond the end of what is allocated there",
                static_cast<unsigned long long>(length - (end - at)));
  }
  extmem_region_info_t region{};
  if (const int failed = ::extmem_region_get_info(domain, object.region, &region, sizeof region); failed != 0)
    return fail_as_extmem(failed);
  if (!region.cpu_accessible)
    return fail(ENOTSUP, "the CPU cannot reach this memory, and DPDK's heaps keep their bookkeeping inside");
  page = region.os_page_size;
  if (at % page != 0 || length % page != 0) {
    return fail(EINVAL,
                "address and length must be multiples of the region's OS page size, %llu: allocate with that "
                "alignment",
                static_cast<unsigned long long>(page));
  }
  if (length / page > std::numeric_limits<unsigned>::max())
    return fail(EOVERFLOW, "the range has more than 2^32 - 1 pages, which DPDK cannot count");
  return 0;
}

MadeHeap* made_heap(const std::string& name) noexcept {
  const auto found = std::ranges::find_if(state().heaps, [&](const MadeHeap& h) { return h.name == name; });
  return found == state().heaps.end() ? nullptr : &*found;
}

int refused(const char* heap) noexcept {
  const int why = rte_errno > 0 ? rte_errno : EIO;
  switch (why) {
    case EPERM:
      return fail(EPERM, "'%s' is a heap of DPDK's own memory; name another one", heap);
    case ENOSPC:
      return fail(ENOSPC, "DPDK has no room for another heap or area of memory (22.11: 32 and 128)");
    default:
      return fail(why, "DPDK refused the memory for its heap '%s': %s", heap, ::rte_strerror(why));
  }
}

}  // namespace

int extmem_dpdk_range_give(extmem_domain_t* domain, void* p, size_t length, const char* dpdk_heap) {
  BRIDGE_REQUIRE_DOMAIN(domain);
  BRIDGE_REQUIRE(p != nullptr && length != 0, "the range is empty; give what was allocated");
  BRIDGE_REQUIRE(
      dpdk_heap != nullptr && dpdk_heap[0] != '\0' && ::strnlen(dpdk_heap, kHeapNameSize) < kHeapNameSize,
      "a DPDK heap's name has 1 to 31 bytes");
  BRIDGE_REQUIRE_EAL();
  return guarded([&] {
    std::uint64_t page = 0;
    BRIDGE_TRY(check_range(domain, p, length, page));
    std::vector<Run> runs;
    BRIDGE_TRY(device_runs(domain, p, length, runs));
    std::vector<rte_iova_t> table = page_table(runs, page);

    const std::lock_guard lock(state().mutex);
    for (const GivenRange& range : state().ranges) {
      if (overlap(range.base, range.length, p, length))
        return fail(EEXIST, "the range overlaps one that DPDK's heap '%s' has; take that one back first",
                    range.heap.c_str());
    }
    for (const extmem_dpdk_lease* lease : state().leases) {
      if (lease->overlaps(p, length))
        return fail(EEXIST,
                    "the heap of this memory is lent to DPDK; withdraw it, or give memory of another heap");
    }
    GivenRange given{domain, static_cast<std::byte*>(p), length, dpdk_heap};
    state().ranges.reserve(state().ranges.size() + 1);
    state().heaps.reserve(state().heaps.size() + 1);
    MadeHeap candidate{given.heap, 1};
    bool made = false;
    if (::rte_malloc_heap_get_socket(dpdk_heap) < 0) {
      if (::rte_malloc_heap_create(dpdk_heap) != 0) return refused(dpdk_heap);
      made = true;
    }
    if (::rte_malloc_heap_memory_add(dpdk_heap, p, length, table.data(), static_cast<unsigned>(table.size()),
                                     page) != 0) {
      const int failed = refused(dpdk_heap);
      if (made) (void)::rte_malloc_heap_destroy(dpdk_heap);
      return failed;
    }
    state().ranges.push_back(std::move(given));
    if (made) {
      state().heaps.push_back(std::move(candidate));
    } else if (MadeHeap* const heap = made_heap(dpdk_heap); heap != nullptr) {
      ++heap->ranges;
    }
    return 0;
  });
}

int extmem_dpdk_range_take_back(void* p, size_t length) {
  BRIDGE_REQUIRE_EAL();
  const std::lock_guard lock(state().mutex);
  auto& ranges = state().ranges;
  const auto range =
      std::ranges::find_if(ranges, [&](const GivenRange& r) { return r.base == p && r.length == length; });
  if (range == ranges.end()) return fail(ENOENT, "no range with this address and length was given");
  if (::rte_malloc_heap_memory_remove(range->heap.c_str(), p, length) != 0) {
    const int why = rte_errno > 0 ? rte_errno : EIO;
    if (why == EBUSY)
      return fail(EBUSY, "something in the range is still allocated from DPDK's heap '%s'; free it first",
                  range->heap.c_str());
    return fail(why, "DPDK does not give the range back: %s", ::rte_strerror(why));
  }
  if (MadeHeap* const heap = made_heap(range->heap); heap != nullptr && --heap->ranges == 0) {
    // Refused where others have added memory of theirs meanwhile: then the heap is theirs.
    (void)::rte_malloc_heap_destroy(heap->name.c_str());
    state().heaps.erase(state().heaps.begin() + (heap - state().heaps.data()));
  }
  ranges.erase(range);
  return 0;
}
