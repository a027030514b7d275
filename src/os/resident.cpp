#include "os/resident.hpp"

#include <algorithm>

#include "os/errno_keeper.hpp"
#include "os/smaps.hpp"

namespace extmem::os {

std::uint64_t resident_bytes(const void* p, std::size_t bytes) noexcept {
  const ErrnoKeeper keeper;
  const auto start = reinterpret_cast<std::uintptr_t>(p);
  std::uint64_t end = 0;
  if (__builtin_add_overflow(start, bytes, &end)) return 0;
  std::uint64_t total = 0;
  SmapsReader reader;
  while (const auto mapping = reader.next()) {
    if (mapping->start >= end) break;
    const std::uint64_t from = std::max<std::uint64_t>(mapping->start, start);
    const std::uint64_t to = std::min(mapping->end, end);
    if (from < to) total += std::min(mapping->resident, to - from);
  }
  return total;
}

}  // namespace extmem::os
