// Crash points: named places between two stores of a multi-step operation, where a test may stop, copy the
// control segment or kill the process. Without a hook one costs a load and a branch, on slow paths only.
#pragma once

#include <atomic>

namespace extmem::base {

using CrashPointHook = void (*)(const char* name);

/// The hook of tests; null otherwise. Set and cleared by tests while no other thread runs.
inline std::atomic<CrashPointHook> crash_point_hook{nullptr};

inline void crash_point(const char* name) noexcept {
  if (CrashPointHook hook = crash_point_hook.load(std::memory_order_relaxed); hook != nullptr) [[unlikely]]
    hook(name);
}

}  // namespace extmem::base
