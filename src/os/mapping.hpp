// Reserving and committing address space for the library's own metadata.
//
// What it is: private anonymous memory in two steps. `reserve` takes addresses and no memory; `commit` makes
// a part of them usable; `discard` gives a part's memory back. Memory for users comes from backing.hpp.
// Thread-safety: every function may be called from any thread at any time; two threads must not work on the
// same pages at once. No function allocates, and none that succeeds changes errno.
//
// Invariants:
//  1. Reserved addresses that are not committed fault on any access and cost no memory.
//  2. Committed memory that was never written, or was discarded since, reads as zero.
//  3. Nothing here advises the kernel to leave the pages out of a core dump.
#pragma once

#include <cstddef>

#include "extmem/result.hpp"

namespace extmem::os {

/// The size in bytes of the processor's base page: a power of two, the same for the life of the process.
[[nodiscard]] std::size_t page_size() noexcept;

/// Reserves `bytes` of address space (rounded up to whole pages) without any memory behind it.
/// Returns: its page-aligned start; give it back with unmap(p, bytes).
/// Errors: EINVAL for zero; ENOMEM where no such range of addresses can be had (RLIMIT_AS, vm.max_map_count).
Result<std::byte*> reserve(std::size_t bytes) noexcept;

/// As reserve, with the start on a multiple of `align` bytes.
/// Errors: those of reserve; EINVAL where `align` is not a power of two.
Result<std::byte*> reserve_aligned(std::size_t bytes, std::size_t align) noexcept;

/// Makes [p, p + bytes) readable and writable; pages of zeroes appear on first touch.
/// Requires: `p` is page-aligned and the range lies in one reservation. Committing twice changes nothing.
/// Errors: EINVAL for a null or misaligned `p`; ENOMEM where the kernel's commit limit or vm.max_map_count is
/// hit, or the range is not reserved.
Result<void> commit(void* p, std::size_t bytes) noexcept;

/// Maps the first `bytes` bytes of a file over reserved addresses, shared with every process that does the same.
/// Requires: `p` is page-aligned and [p, p + bytes) is reserved. Errors: those of mmap.
Result<void> map_shared(void* p, std::size_t bytes, int fd) noexcept;

/// Maps a private copy of the first `bytes` bytes of a file in place of what is mapped at `p`. Errors: those of mmap.
Result<void> map_copy(void* p, std::size_t bytes, int fd) noexcept;

/// Gives the space of a range of a mapped file back, for every process; it reads as zero again.
/// Requires: `p` is page-aligned, and the range has its space.
void discard_shared(void* p, std::size_t bytes) noexcept;

/// Gives the memory of [p, p + bytes) back to the system; the range stays committed and reads as zero again.
/// Requires: `p` is page-aligned, and the range is committed. Works on locked memory too.
void discard(void* p, std::size_t bytes) noexcept;

/// Gives addresses and memory of [p, p + bytes) back. Does nothing for a null `p` or for zero bytes.
/// Requires: `p` is page-aligned, and nobody uses the range any more.
void unmap(void* p, std::size_t bytes) noexcept;

}  // namespace extmem::os
