#include "os/futex.hpp"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>

#include "os/errno_keeper.hpp"

namespace extmem::os {
namespace {

static_assert(sizeof(std::atomic<std::uint32_t>) == sizeof(std::uint32_t));
static_assert(std::atomic<std::uint32_t>::is_always_lock_free);
static_assert(sizeof(std::time_t) == sizeof(std::int64_t) && sizeof(long) == sizeof(std::int64_t),
              "SYS_futex takes the kernel's 64-bit timespec only on 64-bit machines");

constexpr std::int64_t kNanosecondsPerSecond = 1'000'000'000;

int operation(int op, bool shared) noexcept { return shared ? op : op | FUTEX_PRIVATE_FLAG; }

}  // namespace

int futex_wait(const std::atomic<std::uint32_t>& word, std::uint32_t expected, std::int64_t timeout_ns,
               bool shared) noexcept {
  const ErrnoKeeper keeper;
  timespec timeout{};
  if (timeout_ns >= 0) {
    timeout.tv_sec = timeout_ns / kNanosecondsPerSecond;
    timeout.tv_nsec = timeout_ns % kNanosecondsPerSecond;
  }
  const long failed = ::syscall(SYS_futex, &word, operation(FUTEX_WAIT, shared), expected,
                                timeout_ns >= 0 ? &timeout : nullptr, nullptr, 0);
  return failed == 0 ? 0 : errno;
}

void futex_wake(const std::atomic<std::uint32_t>& word, int count, bool shared) noexcept {
  const ErrnoKeeper keeper;
  ::syscall(SYS_futex, &word, operation(FUTEX_WAKE, shared), count, nullptr, nullptr, 0);
}

}  // namespace extmem::os
