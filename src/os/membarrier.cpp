#include "os/membarrier.hpp"

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cassert>

#include "os/errno_keeper.hpp"

namespace extmem::os {
namespace {

long call(int command) noexcept { return ::syscall(SYS_membarrier, command, 0, 0); }

}  // namespace

bool membarrier_register(bool global) noexcept {
  const ErrnoKeeper keeper;
  return call(global ? MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED
                     : MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0;
}

void membarrier(bool global) noexcept {
  const ErrnoKeeper keeper;
  const int command = global ? MEMBARRIER_CMD_GLOBAL_EXPEDITED : MEMBARRIER_CMD_PRIVATE_EXPEDITED;
  [[maybe_unused]] const long failed = call(command);
  assert(failed == 0);
}

}  // namespace extmem::os
