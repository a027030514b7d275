// Whether the system still has as much memory as somebody is about to take.
//
// What it is: taking pages (fallocate on tmpfs, populating anonymous memory) does not fail where the system runs out: the kernel
// then kills processes, any of them. So who takes many pages at once asks first. A moment's answer, and no promise.
// Thread-safety: stateless.
#pragma once

#include <cstdint>

#include "extmem/result.hpp"

namespace extmem::os {

/// Where the kernel tells of memory. Tests have trees of their own.
struct MemoryTold {
  const char* meminfo = "/proc/meminfo";
  const char* groups = "/proc/self/cgroup";
  const char* tree = "/sys/fs/cgroup";  ///< version 2 here; of version 1 its memory controller is in "memory"
};

/// Looks whether `bytes` of ordinary pages (not hugepages) could be taken now: from free memory, from what the kernel can drop,
/// and from free swap space; in the whole system, and in each control group that this process is in, as far as they can be seen: what
/// its limit leaves of what the group uses, files' pages that the kernel can drop not counted. Less than 1 MiB is looked at in
/// the system only. Where the kernel does not say, they could.
/// Errors: ENOMEM they could not.
Result<void> check_memory_left(std::uint64_t bytes, const MemoryTold& told = {}) noexcept;

}  // namespace extmem::os
