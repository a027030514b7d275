// Threads, time, and a hook that runs when a thread ends.
//
// What it is: the few things a lock and a thread cache need from the system.
// Thread-safety: any thread, any time. No allocation but the one named at on_thread_exit; errno is not
// changed.
//
// Invariants:
//  1. A thread has at most one exit hook; it runs once per setting, on that thread, before its stack and its
//     static TLS go away.
//  2. Hooks do not run when the process exits with the thread still alive.
#pragma once

#include <cstdint>

#include "extmem/result.hpp"

namespace extmem::os {

/// The kernel's number of the calling thread: never zero, unique in the system while the thread lives. A
/// system call; callers on fast paths keep it (and forget it in a fork's child).
[[nodiscard]] std::uint32_t thread_id() noexcept;

/// The number of the calling process: never zero.
[[nodiscard]] std::uint32_t process_id() noexcept;

/// Whether a thread of this process has that number. A system call.
[[nodiscard]] bool thread_lives(std::uint32_t thread) noexcept;

using ThreadExitHook = void (*)(void*) noexcept;

/// Makes `hook(arg)` run when the calling thread exits, in place of the hook it had; a null `hook` removes
/// that. A hook that finds the thread's cache used again by a later exit handler may be set anew: it runs
/// again, up to PTHREAD_DESTRUCTOR_ITERATIONS (4) times.
/// Errors: EAGAIN where the process has used up its thread-specific keys; ENOMEM where the C library found no
/// memory.
/// Note: in a process that made 32 keys or more before ours, glibc calls calloc once for each thread here.
/// prepare_thread_exit(), called early, avoids that.
Result<void> on_thread_exit(ThreadExitHook hook, void* arg) noexcept;

/// Makes the process's one key for exit hooks, where that has not been done yet.
/// Errors: EAGAIN where the process has used up its thread-specific keys.
Result<void> prepare_thread_exit() noexcept;

/// Makes `in_child` run in the child of every fork from now on, on its only thread. For the life of the process.
/// Errors: ENOMEM. Note: the C library calls malloc here.
Result<void> on_fork(void (*in_child)()) noexcept;

/// Lets another thread run on this processor.
void yield() noexcept;

/// Tells the processor that this is a spinning loop.
void cpu_relax() noexcept;

/// Nanoseconds since an unknown start; never goes back; the same clock in every process of the machine.
[[nodiscard]] std::uint64_t monotonic_ns() noexcept;

/// Sleeps for at least `ns` nanoseconds; signals do not cut it short.
void sleep_ns(std::uint64_t ns) noexcept;

}  // namespace extmem::os
