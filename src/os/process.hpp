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

/// A number that another process, or this one at another time, is unlikely to get. No secret.
[[nodiscard]] std::uint64_t random_number() noexcept;

/// When process `pid` started, in clock ticks since boot: with the pid it names one process for ever (of this
/// boot).
/// Errors: ESRCH where there is no such process; EIO where /proc/PID/stat cannot be understood.
Result<std::uint64_t> process_start_time(std::uint32_t pid) noexcept;

/// A number of what this process runs since its last exec: exec makes it another one, a fork's child has its parent's. Every copy of
/// this library in the process says the same. 0: the kernel does not tell, or the program has wiped what it told (Go's runtime does).
[[nodiscard]] std::uint64_t program_image() noexcept;

/// The inode of this process' pid namespace, folded to 32 bits; 0 where /proc does not tell.
[[nodiscard]] std::uint32_t pid_namespace() noexcept;

/// What the kernel calls this process (its "comm"), cut to 15 bytes.
void process_name(char (&name)[16]) noexcept;

/// Whether process `pid` has ended and waits for its parent only: all its descriptors are closed.
[[nodiscard]] bool process_is_zombie(std::uint32_t pid) noexcept;

/// Whether process `pid` maps the file of that device and number, or may: what cannot be found out (no permission for
/// /proc/PID/maps) is answered with true, and so is a process that maps nothing because it is just ending. A process that
/// is gone is answered with false.
[[nodiscard]] bool process_maps_file(std::uint32_t pid, std::uint64_t device, std::uint64_t inode) noexcept;

/// Whether there is no process `pid`, for sure: /proc may hide it, or not be mounted.
[[nodiscard]] bool process_is_gone(std::uint32_t pid) noexcept;

/// What the kernel tells of a thread: whether it runs, and how often it stopped running.
struct ThreadActivity {
  bool known = false;  ///< false: /proc does not tell
  bool gone = false;   ///< there is no such thread
  bool asleep =
      false;  ///< it sleeps, or is stopped: it does not run, and does not wait for a processor either
  std::uint64_t switches = 0;  ///< how often it left a processor

  /// Whether a thread of which `before` was told earlier has run no instruction of its program since.
  [[nodiscard]] bool still_since(const ThreadActivity& before) const noexcept {
    if (!known || !before.known || gone != before.gone) return false;
    return gone || (asleep && before.asleep && switches == before.switches);
  }
};
[[nodiscard]] ThreadActivity thread_activity(std::uint32_t pid, std::uint32_t thread) noexcept;

}  // namespace extmem::os
