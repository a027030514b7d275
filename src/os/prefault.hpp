// Bringing in the pages of a mapping so that a missing one is an error and not a SIGBUS.
//
// Thread-safety: any thread, any time. No allocation.
#pragma once

#include <cstddef>
#include <cstdint>

#include "extmem/result.hpp"

namespace extmem::os {

/// What prefault may do on a kernel that has no MADV_POPULATE_WRITE (before 5.14).
enum class WithoutPopulate : std::uint8_t {
  touch,   ///< write to each page (what it holds stays): only where no page can fail to come
  refuse,  ///< an error
};

/// Makes every page of [p, p + bytes) present and writable; what the memory holds does not change.
/// Requires: `p` is aligned to `os_page_size`, the mapping's page size in bytes.
/// Errors: EFAULT where the memory behind a page cannot be had (hugepages exhausted on a node or in a cgroup,
/// file too short, full or broken device); ENOMEM; EHWPOISON; EOPNOTSUPP on an old kernel with
/// WithoutPopulate::refuse.
Result<void> prefault(void* p, std::size_t bytes, std::size_t os_page_size,
                      WithoutPopulate otherwise) noexcept;

}  // namespace extmem::os
