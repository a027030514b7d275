// What identifies a process and this boot of the machine, and what this process may do.
//
// Thread-safety: any thread, any time. No allocation.
#pragma once

#include <array>
#include <cstdint>

#include "extmem/result.hpp"

namespace extmem::os {

/// True where the calling thread has CAP_SYS_ADMIN in effect (in its own user namespace: the kernel may still
/// refuse what it grants in the first one only).
[[nodiscard]] bool has_cap_sys_admin() noexcept;

/// True where the calling thread has CAP_IPC_LOCK in effect: RLIMIT_MEMLOCK does not bind it.
[[nodiscard]] bool has_cap_ipc_lock() noexcept;

using BootId = std::array<std::uint8_t, 16>;

/// The random number of this boot of the machine.
/// Errors: those of reading /proc/sys/kernel/random/boot_id; EIO where it does not hold an identifier.
Result<BootId> boot_id() noexcept;

/// When process `pid` started, in clock ticks since boot: with the pid it names one process for ever (of this
/// boot).
/// Errors: ESRCH where there is no such process; EIO where /proc/PID/stat cannot be understood.
Result<std::uint64_t> process_start_time(std::uint32_t pid) noexcept;

}  // namespace extmem::os
