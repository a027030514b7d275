// Asking the kernel how it maps a range: in pages of which size.
//
// What it is: PROCMAP_QUERY (Linux 6.11), and on older kernels a reading of /proc/self/smaps, for which the
// kernel walks the page tables of everything mapped below the range: slow in large processes.
// Thread-safety: any thread, any time. No allocation.
#pragma once

#include <cstddef>

#include "extmem/result.hpp"

namespace extmem::os {

/// The smallest page size in bytes with which the kernel maps [p, p + bytes). Transparent hugepages do not
/// count.
/// Errors: EINVAL for zero bytes or a range that wraps around; EFAULT where a part of the range is not
/// mapped; those of opening /proc/self/maps or smaps.
Result<std::size_t> kernel_page_size(const void* p, std::size_t bytes) noexcept;

/// True where all of [p, p + bytes) is in hugetlb pages, or in device-DAX pages larger than the base page:
/// such pages stay whole and are not migrated behind their user's back.
/// Errors: those of kernel_page_size.
Result<bool> is_hugetlb(const void* p, std::size_t bytes) noexcept;

/// True where a fork's child would see what its parent writes to any part of [p, p + bytes) later: a shared mapping, or
/// one that the child does not get; also where that cannot be found out.
bool is_shared_with_children(const void* p, std::size_t bytes) noexcept;

}  // namespace extmem::os
