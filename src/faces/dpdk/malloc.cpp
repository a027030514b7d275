// rte_malloc() and its family: straight to the heap of the socket. No lock of ours, no look at any table but that of sockets.
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_malloc.h>

#include <algorithm>
#include <cstring>

#include "base/bits.hpp"
#include "faces/dpdk/memory_domain.hpp"
#include "faces/dpdk/memory_heaps.hpp"

namespace extmem::dpdk {
namespace {

constexpr std::size_t kCacheLine = RTE_CACHE_LINE_SIZE;

constexpr bool is_align(unsigned align) noexcept { return (align & (align - 1)) == 0; }

enum class Fill : bool { none, zero };

/// Requires: the arguments are sound.
void* take(Heap heap, std::size_t size, unsigned align, Fill fill) noexcept {
  if (align <= kCacheLine) {  // which every allocation of an exact heap has
    const auto p = fill == Fill::zero ? heap.zalloc(size) : heap.allocate(size, kCacheLine);
    return p ? *p : nullptr;
  }
  AllocOptions options;
  options.align = align;
  const auto p = fill == Fill::zero ? heap.zalloc(size, options) : heap.allocate(size, options);
  return p ? *p : nullptr;
}

[[gnu::noinline]] void* take_elsewhere(std::size_t size, unsigned align, Fill fill, int tried) noexcept {
  for (std::size_t i = 0; i < internal_heaps.count; ++i) {
    const int socket = internal_heaps.sockets[i];
    if (socket == tried) continue;
    if (void* const p = take(internal_heaps.by_socket[static_cast<std::size_t>(socket)], size, align, fill))
      return p;
  }
  return nullptr;
}

void* take_anywhere(std::size_t size, unsigned align, Fill fill) noexcept {
  const unsigned own = rte_socket_id();
  if (own < kMaxSockets) {
    if (const Heap heap = internal_heaps.by_socket[own]) {
      if (void* const p = take(heap, size, align, fill)) return p;
      return take_elsewhere(size, align, fill, static_cast<int>(own));
    }
  }
  return take_elsewhere(size, align, fill, SOCKET_ID_ANY);
}

void* allocate(std::size_t size, unsigned align, int socket, Fill fill) noexcept {
  if (size == 0 || !is_align(align)) [[unlikely]]
    return nullptr;
  if (socket == SOCKET_ID_ANY) return take_anywhere(size, align, fill);
  const Heap heap = heap_of_socket(socket);
  return heap ? take(heap, size, align, fill) : nullptr;
}

void* allocate_from(const char* heap_name, std::size_t size, unsigned align, Fill fill) noexcept {
  if (size == 0 || !is_align(align)) return nullptr;
  const Heap heap = heap_of_name(heap_name);
  return heap ? take(heap, size, align, fill) : nullptr;
}

void log_bad(const char* function, const void* p, Error why) noexcept {
  RTE_LOG(ERR, MALLOC, "%s(%p): %s\n", function, p,
          domain() ? why.message() : "rte_eal_init() has not run, or rte_eal_cleanup() has");
}

/// Bytes of the allocation that begins at p, whichever heap's. Logs what is none.
Result<ObjectInfo> allocation_at(const char* function, const void* p) noexcept {
  const auto usable = domain().usable_size(p);
  const auto object = usable ? domain().owner_of(p) : Result<ObjectInfo>(usable.error());
  if (!object) log_bad(function, p, object.error());
  return object;
}

void release(const char* function, void* p) noexcept {
  // Of null it says nothing either, but where there is no domain.
  if (const auto freed = domain().deallocate(p); !freed && p != nullptr) [[unlikely]]
    log_bad(function, p, freed.error());
}

void* reallocate(void* p, std::size_t size, unsigned align, int socket) noexcept {
  if (p == nullptr) return allocate(size, align, socket, Fill::none);
  if (size == 0) {
    release("rte_realloc", p);
    return nullptr;
  }
  if (!is_align(align)) return nullptr;
  const auto object = allocation_at("rte_realloc", p);
  if (!object) return nullptr;
  auto heap = domain().heap_by_id(object->heap_id);
  if (heap && (socket == SOCKET_ID_ANY || role_of(*heap).socket == socket)) {
    AllocOptions options;
    options.align = align;
    options.in_place =
        true;  // else it would move inside its heap, which for SOCKET_ID_ANY may be an external one
    if (heap->reallocate(p, size, options)) return p;
  }
  void* const moved = allocate(size, align, socket, Fill::none);
  if (moved == nullptr) return nullptr;
  std::memcpy(moved, p, std::min<std::size_t>(object->size, size));
  release("rte_realloc", p);
  return moved;
}

}  // namespace
}  // namespace extmem::dpdk

using namespace extmem::dpdk;

void* rte_malloc(const char*, size_t size, unsigned align) {
  if (size == 0 || !is_align(align)) [[unlikely]]
    return nullptr;
  return take_anywhere(size, align, Fill::none);
}
void* rte_malloc_socket(const char*, size_t size, unsigned align, int socket) {
  // The usual case. Of size 0 the heap answers an error.
  auto* const heap = known_external_heap(socket);
  if (heap != nullptr && align <= kCacheLine && is_align(align)) [[likely]] {
    const auto p = heap->allocate(size, kCacheLine);
    return p ? *p : nullptr;
  }
  return allocate(size, align, socket, Fill::none);
}
void* rte_zmalloc(const char*, size_t size, unsigned align) {
  return allocate(size, align, SOCKET_ID_ANY, Fill::zero);
}
void* rte_zmalloc_socket(const char*, size_t size, unsigned align, int socket) {
  return allocate(size, align, socket, Fill::zero);
}
void* rte_calloc(const char* type, size_t num, size_t size, unsigned align) {
  return rte_calloc_socket(type, num, size, align, SOCKET_ID_ANY);
}
void* rte_calloc_socket(const char*, size_t num, size_t size, unsigned align, int socket) {
  std::uint64_t bytes;
  if (!extmem::base::checked_mul(num, size, bytes)) return nullptr;
  return allocate(bytes, align, socket, Fill::zero);
}

void* rte_malloc_from_heap(const char* heap_name, const char*, size_t size, unsigned align) {
  return allocate_from(heap_name, size, align, Fill::none);
}
void* rte_zmalloc_from_heap(const char* heap_name, const char*, size_t size, unsigned align) {
  return allocate_from(heap_name, size, align, Fill::zero);
}
void* rte_calloc_from_heap(const char* heap_name, const char*, size_t num, size_t size, unsigned align) {
  std::uint64_t bytes;
  if (!extmem::base::checked_mul(num, size, bytes)) return nullptr;
  return allocate_from(heap_name, bytes, align, Fill::zero);
}

void* rte_realloc(void* ptr, size_t size, unsigned align) {
  return reallocate(ptr, size, align, SOCKET_ID_ANY);
}
void* rte_realloc_socket(void* ptr, size_t size, unsigned align, int socket) {
  return reallocate(ptr, size, align, socket);
}

void rte_free(void* ptr) { release("rte_free", ptr); }

void rte_free_sensitive(void* ptr) {
  if (ptr == nullptr) return;
  const auto object = allocation_at("rte_free_sensitive", ptr);
  if (!object) return;
  rte_memzero_explicit(ptr, object->size);
  release("rte_free_sensitive", ptr);
}

int rte_malloc_validate(const void* ptr, size_t* size) {
  if (ptr == nullptr) return -1;
  const auto usable = domain().usable_size(ptr);
  if (!usable) return -1;
  if (size != nullptr) *size = *usable;
  return 0;
}

int rte_malloc_set_limit(const char*, size_t) { return 0; }

rte_iova_t rte_malloc_virt2iova(const void* addr) {
  const auto iova = domain().iova_of(addr);
  return iova ? static_cast<rte_iova_t>(*iova) : RTE_BAD_IOVA;
}
