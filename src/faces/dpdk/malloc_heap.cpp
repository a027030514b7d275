// External heaps: making and ending them, and the memory that programs lend them.
#include <rte_malloc.h>

#include <cerrno>
#include <climits>

#include "faces/dpdk/external_memory.hpp"
#include "faces/dpdk/memory_domain.hpp"
#include "faces/dpdk/memory_heaps.hpp"
#include "faces/dpdk/memory_lock.hpp"
#include "faces/dpdk/memory_state.hpp"

namespace extmem::dpdk {
namespace {

/// The external heap of that name. Returns: 0, or -1 with rte_errno ENOENT, EPERM an internal one, EDEADLK.
/// Requires: the name has been checked.
int find_external(const char* heap_name, Heap& heap) noexcept {
  heap = heap_of_name(heap_name);
  if (!heap) return fail(in_callback() ? EDEADLK : ENOENT);
  const HeapRole role = role_of(heap);
  if (role.kind == HeapKind::internal) return fail(EPERM);
  return role.kind == HeapKind::external ? 0 : fail(ENOENT);  // it has just been destroyed
}

/// Memory of an external heap, by the checks that remove, attach and detach have in common, in their order.
int find_range(const char* heap_name, const void* addr, std::size_t length, RegionInfo& region) noexcept {
  if (!is_name(heap_name) || addr == nullptr || length == 0) return fail(EINVAL);
  Heap heap;
  if (find_external(heap_name, heap) != 0) return -1;
  const auto found = find_memory(addr, length, [&](std::uint32_t id) { return id == heap.id(); });
  if (!found) return fail(found.error().code());
  region = *found;
  return 0;
}

}  // namespace
}  // namespace extmem::dpdk

using namespace extmem::dpdk;

int rte_malloc_heap_create(const char* heap_name) {
  if (!is_name(heap_name)) return fail(EINVAL);
  if (!domain()) return fail(E_RTE_NO_CONFIG);
  if (in_callback()) return fail(EDEADLK);
  if (heap_of_name(heap_name)) return fail(EEXIST);
  extmem::HeapOptions options;
  options.style = extmem::Style::exact;
  options.on_death = extmem::OnDeath::keep;  // as DPDK's memory: what a dead process had allocated stays
  const HeapRole role{HeapKind::external, new_socket()};
  if (role.socket < 0) return fail(ENOSPC);
  options.user_data = role.user_data();
  const auto heap = domain().create_heap(domain_name(heap_name), options);
  if (!heap) return fail(heap.error().code());
  remember_heap(heap_name, role.socket, *heap);
  return 0;
}

int rte_malloc_heap_destroy(const char* heap_name) {
  if (!is_name(heap_name)) return fail(EINVAL);
  extmem::Heap heap;
  if (find_external(heap_name, heap) != 0) return -1;
  const auto destroyed = domain().destroy_heap(heap);
  if (destroyed) return 0;
  return fail(destroyed.error().code() == ESTALE ? ENOENT : destroyed.error().code());
}

int rte_malloc_heap_get_socket(const char* name) {
  if (!is_name(name)) return fail(EINVAL);
  const extmem::Heap heap = heap_of_name(name);
  const HeapRole role = role_of(heap);
  return role.is_heap() ? role.socket : fail(in_callback() ? EDEADLK : ENOENT);
}

int rte_malloc_heap_socket_is_external(int socket_id) {
  if (socket_id == SOCKET_ID_ANY) return 0;
  switch (role_of(heap_of_socket(socket_id)).kind) {
    case HeapKind::internal:
      return 0;
    case HeapKind::external:
      return 1;
    default:
      return -1;
  }
}

int rte_malloc_heap_memory_add(const char* heap_name, void* va_addr, size_t len, rte_iova_t iova_addrs[],
                               unsigned int n_pages, size_t page_sz) {
  const ExternalMemory memory{va_addr, len, iova_addrs, n_pages, page_sz};
  if (!is_name(heap_name) || !memory.is_sound()) return fail(EINVAL);
  extmem::Heap heap;
  if (find_external(heap_name, heap) != 0) return -1;
  return add_memory(heap, memory);
}

int rte_malloc_heap_memory_remove(const char* heap_name, void* va_addr, size_t len) {
  extmem::RegionInfo region;
  return find_range(heap_name, va_addr, len, region) == 0 ? remove_memory(region) : -1;
}

int rte_malloc_heap_memory_attach(const char* heap_name, void* va_addr, size_t len) {
  extmem::RegionInfo region;
  return find_range(heap_name, va_addr, len, region) == 0 ? attach_memory(region) : -1;
}

int rte_malloc_heap_memory_detach(const char* heap_name, void* va_addr, size_t len) {
  extmem::RegionInfo region;
  return find_range(heap_name, va_addr, len, region) == 0 ? detach_memory(region) : -1;
}
