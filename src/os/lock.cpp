#include "os/lock.hpp"

#include <sys/mman.h>
#include <sys/resource.h>

#include <array>
#include <cerrno>
#include <optional>

#include "base/error.hpp"
#include "os/errno_keeper.hpp"
#include "os/kernel_text.hpp"
#include "os/process.hpp"

namespace extmem::os {
namespace {

// Whether locking `bytes` more would break the limit, as far as /proc tells what is locked already.
bool exceeds_limit(std::size_t bytes) noexcept {
  const std::uint64_t limit = memlock_limit();
  if (limit == kNoMemlockLimit) return false;
  std::array<char, 8192> buffer;
  const auto text = read_text("/proc/self/status", buffer);
  const auto locked_kilobytes = text ? number_after(*text, "VmLck:") : std::nullopt;
  return !locked_kilobytes || bytes > limit || *locked_kilobytes * 1024 > limit - bytes;
}

}  // namespace

std::uint64_t memlock_limit() noexcept {
  const ErrnoKeeper keeper;
  rlimit limit{};
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return kNoMemlockLimit;
  return has_cap_ipc_lock() ? kNoMemlockLimit : limit.rlim_cur;
}

Result<void> lock_memory(void* p, std::size_t bytes, LockMode mode) noexcept {
  const ErrnoKeeper keeper;
  const unsigned flags = mode == LockMode::on_touch ? static_cast<unsigned>(MLOCK_ONFAULT) : 0U;
  if (::mlock2(p, bytes, flags) == 0) return {};
  switch (errno) {
    case EPERM:
      return EXTMEM_ERROR(EPERM,
                          "cannot lock memory: RLIMIT_MEMLOCK is 0; raise it (ulimit -l, LimitMEMLOCK=, "
                          "/etc/security/limits.conf) or give the program CAP_IPC_LOCK");
    case ENOMEM:
      if (exceeds_limit(bytes)) {
        return EXTMEM_ERROR(
            ENOMEM,
            "cannot lock memory: it would exceed RLIMIT_MEMLOCK, counting what the process has "
            "locked already (VmLck in /proc/self/status); raise the limit (ulimit -l, "
            "LimitMEMLOCK=, /etc/security/limits.conf) or give the program CAP_IPC_LOCK");
      }
      return EXTMEM_ERROR(ENOMEM,
                          "cannot lock memory: part of the range is not mapped, memory has run out, or "
                          "vm.max_map_count is reached");
    case EAGAIN:
      return EXTMEM_ERROR(EAGAIN, "cannot lock memory: some of its pages could not be brought in");
    default:
      return EXTMEM_SYS_ERROR(errno, "cannot lock memory: mlock2 failed");
  }
}

void unlock_memory(void* p, std::size_t bytes) noexcept {
  const ErrnoKeeper keeper;
  ::munlock(p, bytes);
}

}  // namespace extmem::os
