// Saying precisely which hugepages are missing and how to get them.
//
// Thread-safety: any thread, any time. No allocation.
#pragma once

#include <cstddef>

#include "os/backing.hpp"

namespace extmem::os {

/// The error for a mapping of `bytes` in hugepages of `page_size` bytes that the kernel refused with ENOMEM:
/// names the size and the command that reserves such pages, or says that it was not for want of hugepages.
/// Writes the figures to `shortage` where that is not null.
Error hugepage_shortage(std::size_t page_size, std::size_t bytes, Shortage* shortage) noexcept;

}  // namespace extmem::os
