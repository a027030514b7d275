#include "os/thread.hpp"

#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <ctime>
#include <limits>

#include "base/error.hpp"
#include "os/errno_keeper.hpp"

namespace extmem::os {
namespace {

constexpr std::uint64_t kNanosecondsPerSecond = 1'000'000'000;

struct ExitHook {
  ThreadExitHook hook;
  void* arg;
};

// A key holds one pointer and a hook is two, so the key points here. Initial-exec TLS is part of the thread's
// own block: reading it allocates nothing, and it outlives the destructors of keys.
[[gnu::tls_model("initial-exec")]] constinit thread_local ExitHook this_threads_hook{};

void run_hook(void* value) {
  auto* const slot = static_cast<ExitHook*>(value);
  const ExitHook now = *slot;
  *slot = ExitHook{};
  if (now.hook != nullptr) now.hook(now.arg);
}

// Zero: not made; otherwise the key plus one. pthread_once would do, but it cannot report a failure and try
// again.
constinit std::atomic<std::uint64_t> key_plus_one{0};

Result<pthread_key_t> the_key() noexcept {
  const std::uint64_t made = key_plus_one.load(std::memory_order_acquire);
  if (made != 0) return static_cast<pthread_key_t>(made - 1);
  pthread_key_t mine{};
  if (const int failed = ::pthread_key_create(&mine, run_hook); failed != 0) {
    return EXTMEM_SYS_ERROR(
        failed,
        "cannot watch for the end of threads: the process has used up its thread-specific keys "
        "(PTHREAD_KEYS_MAX); open the domain before the code that makes them");
  }
  std::uint64_t expected = 0;
  if (key_plus_one.compare_exchange_strong(expected, std::uint64_t{mine} + 1, std::memory_order_acq_rel))
    return mine;
  ::pthread_key_delete(mine);  // another thread was first
  return static_cast<pthread_key_t>(expected - 1);
}

}  // namespace

bool thread_lives(std::uint32_t thread) noexcept {
  const ErrnoKeeper keep;
  return ::syscall(SYS_tgkill, ::getpid(), thread, 0) == 0 || errno != ESRCH;
}

std::uint32_t thread_id() noexcept { return static_cast<std::uint32_t>(::syscall(SYS_gettid)); }

std::uint32_t process_id() noexcept { return static_cast<std::uint32_t>(::getpid()); }

Result<void> prepare_thread_exit() noexcept {
  EXTMEM_TRY_VOID(the_key());
  return {};
}

Result<void> on_thread_exit(ThreadExitHook hook, void* arg) noexcept {
  EXTMEM_TRY(key, the_key());
  if (const int failed = ::pthread_setspecific(key, hook != nullptr ? &this_threads_hook : nullptr);
      failed != 0) {
    return EXTMEM_SYS_ERROR(failed,
                            "cannot watch for the end of this thread: the C library is out of memory");
  }
  this_threads_hook = ExitHook{hook, arg};
  return {};
}

Result<void> on_fork(void (*in_child)()) noexcept {
  if (const int failed = ::pthread_atfork(nullptr, nullptr, in_child); failed != 0) {
    return EXTMEM_SYS_ERROR(failed, "cannot watch for forks: the C library is out of memory");
  }
  return {};
}

void yield() noexcept {
  const ErrnoKeeper keeper;
  ::sched_yield();
}

void cpu_relax() noexcept {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield" ::: "memory");
#else
  std::atomic_signal_fence(std::memory_order_seq_cst);
#endif
}

std::uint64_t monotonic_ns() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * kNanosecondsPerSecond +
         static_cast<std::uint64_t>(now.tv_nsec);
}

void sleep_ns(std::uint64_t ns) noexcept {
  timespec left{};
  left.tv_sec = static_cast<std::time_t>(ns / kNanosecondsPerSecond);
  left.tv_nsec = static_cast<long>(ns % kNanosecondsPerSecond);
  while (::clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left) == EINTR) {
  }
}

}  // namespace extmem::os
