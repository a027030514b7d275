// Record locks: one byte of a file, held by a process and by nothing else.
//
// What it is: POSIX record locks (fcntl), the one kind of lock that a process loses when and only when it ends or
// closes the file: a fork's child does not inherit it, other threads of the process keep it, exec drops it with the
// close-on-exec descriptor. (flock and OFD locks live on in a fork's child.)
// Thread-safety: any thread. A process must open the file once only: closing any descriptor of it drops its locks.
#pragma once

#include <cstdint>

#include "extmem/result.hpp"

namespace extmem::os {

/// Takes the lock of a byte for this process. Returns: false where another process has it.
/// Errors: ENOLCK the kernel's table is full; EBADF, EINVAL for a bad descriptor.
Result<bool> try_lock_byte(int fd, std::uint64_t byte) noexcept;
void unlock_byte(int fd, std::uint64_t byte) noexcept;
/// Whether any process has the byte's lock, this one included. What cannot be found out is answered with true: in doubt, it lives.
[[nodiscard]] bool byte_is_locked(int fd, std::uint64_t byte) noexcept;

/// The process that holds an flock() of the open file or folder, by /proc/locks. Returns: its number in this process' pid
/// namespace; 0 where nobody does, or it cannot be told.
[[nodiscard]] std::uint32_t flock_holder(int fd) noexcept;

}  // namespace extmem::os
