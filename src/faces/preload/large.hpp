// Large objects of private anonymous memory: what the kernel can do for them page by page.
//
// What it is: three things that are not worth it for small objects. Zeroes come without touching pages that nobody has
// written; an object that grows moves to a place with room behind it, so that growing by small steps does not move it at
// every step, and takes its pages along (os/page_mover.hpp); and malloc_trim gives the pages of free memory back to the system.
// It rests on MADV_DONTNEED, after which a private anonymous page reads as zero, and on mremap. It is not done where the pages are
// shared, hugepages out of a pool, or wanted present (--prefault, --lock): there the same is done by hand, or not at all.
// Thread-safety: as malloc.
#pragma once

#include <cstddef>

namespace extmem::preload {

inline constexpr std::size_t kLargeObject = 256 * 1024;

/// Makes [p, p + bytes) zero, without bringing in pages that are not there. errno is not changed.
void zero_large(void* p, std::size_t bytes) noexcept;

/// realloc for an object that cannot grow to `size` where it is: to a place with room behind it.
/// Null: there is no memory, and the object stays as it was. Requires: p's object has `old_size` < size bytes.
void* move_large(void* p, std::size_t old_size, std::size_t size, const void* caller) noexcept;

/// Gives the pages of free memory back. Returns whether there were any. errno is not changed.
bool give_back_free_pages() noexcept;

}  // namespace extmem::preload
