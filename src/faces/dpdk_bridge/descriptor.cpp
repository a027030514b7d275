// The file behind memory that DPDK knows.
#include <algorithm>

#include "extmem/dpdk_bridge.h"
#include "faces/dpdk_bridge/eal.hpp"
#include "faces/dpdk_bridge/error.hpp"
#include "faces/dpdk_bridge/lease.hpp"
#include "faces/dpdk_bridge/state.hpp"

using namespace extmem::faces::dpdk_bridge;

namespace {

/// The domain whose memory p is, if it is lent or given.
extmem_domain_t* domain_of(const void* p) noexcept {
  const std::lock_guard lock(state().mutex);
  for (const extmem_dpdk_lease* lease : state().leases) {
    if (lease->find(p) != nullptr) return lease->domain();
  }
  for (const GivenRange& range : state().ranges) {
    if (overlap(range.base, range.length, p, 1)) return range.domain;
  }
  return nullptr;
}

}  // namespace

int extmem_dpdk_get_fd(const void* p, int* fd, uint64_t* offset) {
  BRIDGE_REQUIRE_OUT(fd);
  BRIDGE_REQUIRE_OUT(offset);
  BRIDGE_REQUIRE_EAL();
  extmem_domain_t* const domain = domain_of(p);
  if (domain == nullptr) return fail(EFAULT, "the memory is neither lent nor given to DPDK");
  extmem_region_id_t id{};
  if (const int failed = ::extmem_region_find(domain, p, &id); failed != 0) return fail_as_extmem(failed);
  extmem_region_info_t region{};
  if (const int failed = ::extmem_region_get_info(domain, id, &region, sizeof region); failed != 0)
    return fail_as_extmem(failed);
  extmem_region_file_t file{};
  if (const int failed = ::extmem_region_get_file(domain, id, &file, sizeof file); failed != 0)
    return fail_as_extmem(failed);
  *fd = file.fd;
  *offset = file.offset + static_cast<std::uint64_t>(static_cast<const std::byte*>(p) -
                                                     static_cast<const std::byte*>(region.base));
  return 0;
}
