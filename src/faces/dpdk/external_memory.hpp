// The program's own memory in the domain: what adding it to a heap and registering it without one have in common.
// Thread-safety: any thread.
#pragma once

#include <rte_common.h>

#include <cstddef>

#include "extmem/domain.hpp"
#include "faces/dpdk/memory_heaps.hpp"

namespace extmem::dpdk {

/// Memory as rte_malloc_heap_memory_add() and rte_extmem_register() are given it.
struct ExternalMemory {
  void* addr = nullptr;
  std::size_t length = 0;
  const rte_iova_t* iovas = nullptr;
  unsigned n_pages = 0;
  std::size_t page_size = 0;

  /// Whether it is what both functions take: else EINVAL.
  [[nodiscard]] bool is_sound() const noexcept;
};

/// Adds it to a heap. Returns: 0, or -1 with rte_errno.
int add_memory(Heap heap, const ExternalMemory& memory) noexcept;

/// The region that is exactly [addr, addr + length), of a heap that `accept` takes, mapped in this process or not.
/// Errors: ENOENT; EDEADLK inside a callback.
Result<RegionInfo> find_memory(const void* addr, std::size_t length,
                               FunctionRef<bool(std::uint32_t heap_id)> accept) noexcept;

/// Takes it away, attaches or detaches it. Each returns: 0, or -1 with rte_errno.
int remove_memory(const RegionInfo& region) noexcept;
int attach_memory(const RegionInfo& region) noexcept;
int detach_memory(const RegionInfo& region) noexcept;

}  // namespace extmem::dpdk
