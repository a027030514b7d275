// How much of a mapping is backed by memory.
#pragma once

#include <cstddef>
#include <cstdint>

namespace extmem::os {

/// Resident bytes of [p, p + bytes), from /proc/self/smaps; 0 where it cannot be read.
/// Cost: a pass over the process' mappings; for reports, not for hot paths. Thread-safe.
std::uint64_t resident_bytes(const void* p, std::size_t bytes) noexcept;

}  // namespace extmem::os
