// Physical addresses of memory, from the kernel's /proc/self/pagemap.
//
// Thread-safety: any thread, any time. No allocation.
//
// Invariants:
//  1. An address that is returned is never 0 and never that of a shared zero page, which the kernel maps
//     where memory was read but not yet written.
//  2. Addresses hold from the call on only for pages that do not move: hugetlb pages, and pages pinned for
//     the long term. The kernel moves other pages at will, locked ones included.
#pragma once

#include <cstddef>
#include <cstdint>

#include "extmem/result.hpp"

namespace extmem::os {

/// Writes the physical addresses in bytes of the `n_pages` OS pages that start at `p` to `out`.
/// Requires: `out` has room for n_pages. The content of `out` is not specified after an error.
/// Errors: EINVAL for a size that is no power of two or below the base page, a misaligned `p`, or memory that
/// is not made of whole pages of that size; ENOENT where a page is absent, swapped out or a zero page
/// (pre-fault it first); EPERM without CAP_SYS_ADMIN; EBUSY for a page that KSM shares, or, where
/// /proc/kpageflags cannot be read to tell it from a zero page, one that a fork shares; EHWPOISON; EOPNOTSUPP
/// where the kernel has no pagemap.
Result<void> physical_addresses(const void* p, std::size_t os_page_size, std::size_t n_pages,
                                std::uint64_t* out) noexcept;

}  // namespace extmem::os
