// How much of a mapping is backed by memory.
//
// Thread-safety: any thread, any time. No allocation; errno is not changed.
#pragma once

#include <cstddef>
#include <cstdint>

namespace extmem::os {

/// Resident bytes of [p, p + bytes), from /proc/self/smaps; 0 where it cannot be read. Exact where the kernel
/// keeps the range apart from its neighbours, else an upper bound. Cost: a pass over the process' mappings;
/// for reports, not for hot paths.
std::uint64_t resident_bytes(const void* p, std::size_t bytes) noexcept;

}  // namespace extmem::os
