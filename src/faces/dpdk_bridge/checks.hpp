// What the bridge's functions check and convert alike.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "extmem/extmem.h"
#include "faces/dpdk_bridge/error.hpp"

namespace extmem::faces::dpdk_bridge {

/// The heap's id. Returns: 0; EINVAL where the heap is of another domain, or gone.
inline int checked_heap(extmem_domain_t* domain, extmem_heap_t heap, std::uint32_t& id) noexcept {
  if (const int failed = ::extmem_heap_get_id(heap, &id); failed != 0) return fail_as_extmem(failed);
  extmem_heap_t found{};
  if (::extmem_heap_find_by_id(domain, id, &found) != 0 || std::memcmp(&found, &heap, sizeof heap) != 0)
    return fail(EINVAL, "the heap is not of this domain, or was destroyed");
  return 0;
}

/// Writes a report as libextmem does: as much as the caller has room for, zeroes behind what this version knows.
template <typename T>
void store(const T& value, T* out, std::size_t size) noexcept {
  static_assert(std::is_trivially_copyable_v<T>);
  const std::size_t known = std::min(size, sizeof(T));
  auto* const bytes = reinterpret_cast<unsigned char*>(out);
  std::memcpy(bytes, &value, known);
  std::memset(bytes + known, 0, size - known);
  std::memcpy(bytes, &known, sizeof known);  // struct_size comes first in every report
}

}  // namespace extmem::faces::dpdk_bridge
