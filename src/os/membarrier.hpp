// A memory barrier that one thread imposes on all others.
//
// What it is: the membarrier system call in its expedited forms. It is the dear half of an asymmetric
// barrier: the fast side orders its accesses against the compiler only (std::atomic_signal_fence), the slow
// side calls membarrier(), and together they are as good as a full fence on both sides.
// Thread-safety: any thread, any time. No allocation; errno is not changed.
//
// Invariants:
//  1. membarrier(false) reaches every thread of this process.
//  2. membarrier(true) reaches every running thread of every process that called membarrier_register(true),
//     and of no other: each participant registers before its first fast-path operation.
//  3. A registration is inherited by fork, and lost at exec.
#pragma once

namespace extmem::os {

/// Makes this process ready for membarrier(global); calling it again is harmless.
/// Returns: false where the kernel has no such barrier (before 4.16, not configured, or forbidden by a
/// filter); the caller must then use full fences on its fast side too.
[[nodiscard]] bool membarrier_register(bool global) noexcept;

/// Makes every thread described in invariants 1 and 2 run a full memory barrier before this returns.
/// Requires: membarrier_register(global) returned true in this process or in one that it was forked from.
void membarrier(bool global) noexcept;

}  // namespace extmem::os
