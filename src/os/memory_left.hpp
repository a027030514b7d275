// Whether the system still has as much memory as somebody is about to take.
//
// What it is: taking pages (fallocate on tmpfs, populating anonymous memory) does not fail where the system runs out: the kernel
// then kills processes, any of them. So who takes many pages at once asks first. A moment's answer, and no promise.
// Thread-safety: stateless.
#pragma once

#include <cstdint>

#include "extmem/result.hpp"

namespace extmem::os {

/// Looks whether `bytes` of ordinary pages (not hugepages) could be taken now: from free memory, from what the kernel can drop,
/// and from free swap space; and whether a control group's limit is lower than that in itself (what is used of it is not looked
/// at: much of that the kernel can drop). Where the kernel does not say, they could.
/// Errors: ENOMEM they could not.
Result<void> check_memory_left(std::uint64_t bytes) noexcept;

}  // namespace extmem::os
