// fork, where the child could not have a copy of the memory.
//
// Private memory (anonymous, hugetlb) is copied by the kernel, and the heap's books with it (src/heap/fork.cpp). Memory in a
// shared mapping is not: what the child writes its parent would see. Rather than to let a background save go wrong, fork
// fails there, with the reason. vfork, posix_spawn, system and popen share everything until exec anyway, and work.
#include <dlfcn.h>
#include <pty.h>
#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#include "faces/preload/exported.hpp"
#include "faces/preload/process_heap.hpp"
#include "os/writer.hpp"

namespace {

bool refused(const char* function) noexcept {
  if (!extmem::preload::process.settings.shared_with_children()) return false;
  static std::atomic_flag told = ATOMIC_FLAG_INIT;  // relaxed: nothing goes with it
  if (!told.test_and_set(std::memory_order_relaxed)) {
    extmem::os::Writer(STDERR_FILENO)
        .text("extmem: ")
        .text(function)
        .text(
            " refused: the heap lies in memory that a child would share instead of copying. Use --backing "
            "anon, thp or "
            "hugetlb without --domain for programs that fork.\n");
  }
  errno = ENOTSUP;
  return true;
}

template <typename Function>
Function next(const char* name) noexcept {
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

}  // namespace

EXTMEM_EXPORTED_C pid_t fork() {
  if (refused("fork")) return -1;
  const auto real = next<pid_t (*)()>("fork");
  return real();
}
EXTMEM_EXPORTED_C pid_t _Fork() {
  if (refused("_Fork")) return -1;
  const auto real = next<pid_t (*)()>("_Fork");
  if (real == nullptr) {  // the GNU C library has it from 2.34 on
    errno = ENOSYS;
    return -1;
  }
  return real();
}
EXTMEM_EXPORTED_C int forkpty(int* main, char* name, const termios* settings, const winsize* size) {
  if (refused("forkpty")) return -1;
  const auto real = next<int (*)(int*, char*, const termios*, const winsize*)>("forkpty");
  if (real == nullptr) {  // in libutil before 2.34, which its callers have loaded
    errno = ENOSYS;
    return -1;
  }
  return real(main, name, settings, size);
}
EXTMEM_EXPORTED_C int daemon(int nochdir, int noclose) {
  if (refused("daemon")) return -1;
  const auto real = next<int (*)(int, int)>("daemon");
  return real(nochdir, noclose);
}
