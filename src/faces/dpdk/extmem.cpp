// rte_extmem_register() and its kin: memory that walks and lookups know, and no heap has.
//
// Each registration is a heap of its own that programs cannot name, with the memory as its one region and the socket id in
// its user data. So the core's checks against overlaps, its IOVA tables and its ways of sharing hold for it as they are.
#include <rte_memory.h>

#include <cerrno>
#include <cstdio>

#include "faces/dpdk/external_memory.hpp"
#include "faces/dpdk/memory_domain.hpp"
#include "faces/dpdk/memory_heaps.hpp"
#include "faces/dpdk/memory_lock.hpp"
#include "faces/dpdk/memory_ranges.hpp"
#include "faces/dpdk/memory_state.hpp"

namespace extmem::dpdk {
namespace {

int find_registration(const void* addr, std::size_t length, RegionInfo& region) noexcept {
  if (addr == nullptr || length == 0) return fail(EINVAL);
  if (!domain()) return fail(ENOENT);
  const auto found = find_memory(
      addr, length, [](std::uint32_t heap_id) { return role_of(heap_id).kind == HeapKind::registered; });
  if (!found) return fail(found.error().code());
  region = *found;
  return 0;
}

}  // namespace
}  // namespace extmem::dpdk

using namespace extmem::dpdk;

int rte_extmem_register(void* va_addr, size_t len, rte_iova_t iova_addrs[], unsigned int n_pages,
                        size_t page_sz) {
  const ExternalMemory memory{va_addr, len, iova_addrs, n_pages, page_sz};
  if (!memory.is_sound()) return fail(EINVAL);
  if (!domain()) return fail(E_RTE_NO_CONFIG);
  if (in_callback()) return fail(EDEADLK);
  const HeapRole role{HeapKind::registered, new_socket()};
  if (role.socket < 0) return fail(ENOSPC);
  char name[extmem::kMaxNameLength + 1];  // longer than any that a program can give
  (void)std::snprintf(name, sizeof name, "memory of rte_extmem_register(), socket %d", role.socket);
  extmem::HeapOptions options;
  options.user_data = role.user_data();
  const auto heap = domain().create_heap(name, options);
  if (!heap) return fail(heap.error().code());
  if (add_memory(*heap, memory) == 0) return 0;
  const int failed = rte_errno;
  (void)domain().destroy_heap(*heap);
  return fail(failed);
}

int rte_extmem_unregister(void* va_addr, size_t len) {
  extmem::RegionInfo region;
  if (find_registration(va_addr, len, region) != 0) return -1;
  const auto heap = domain().heap_by_id(region.heap_id);
  if (remove_memory(region) != 0) return -1;
  if (heap) (void)domain().destroy_heap(*heap);
  return 0;
}

int rte_extmem_attach(void* va_addr, size_t len) {
  extmem::RegionInfo region;
  return find_registration(va_addr, len, region) == 0 ? attach_memory(region) : -1;
}

int rte_extmem_detach(void* va_addr, size_t len) {
  extmem::RegionInfo region;
  return find_registration(va_addr, len, region) == 0 ? detach_memory(region) : -1;
}
