// The end of a program on the heap of a domain that others share.
//
// What a program of which nobody else knows leaves on malloc's heap is garbage, unless it was killed: then a heap may keep it for
// whoever looks into that (OnDeath::keep). Nothing is freed here: other libraries' destructors and threads use their memory to
// the very end. The process only says that it ends, and is recovered like a dead one when it is gone.
// exit comes here by the library's destructor, after the program's own; _exit, which many shells use, and quick_exit do not.
// A process that ends by a raw system call is one that was killed. The statistics are told on the same ways.
#include <dlfcn.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>

#include "faces/preload/exported.hpp"
#include "faces/preload/process_heap.hpp"
#include "heap/live_domains.hpp"

namespace extmem::preload {

namespace {

using Exit = void (*)(int);
Exit next_exit = nullptr;

[[noreturn]] void leave(int status) noexcept {
  tell_of_exit();
  report_exit();
  if (next_exit != nullptr) next_exit(status);
  for (;;) ::syscall(SYS_exit_group, status);
}

}  // namespace

void watch_exit() noexcept {
  // Now: _exit may be called in signal handlers and in the child of a vfork.
  next_exit = reinterpret_cast<Exit>(::dlsym(RTLD_NEXT, "_exit"));
  if (process.settings.domain[0] != '\0' || process.settings.stats != StatsFormat::none) {
    (void)::at_quick_exit([] {
      tell_of_exit();
      report_exit();
    });
  }
}

void tell_of_exit() noexcept {
  if (process.phase == Phase::ready && process.settings.domain[0] != '\0') heap::end_now();
}

}  // namespace extmem::preload

EXTMEM_EXPORTED_C void _exit(int status) { extmem::preload::leave(status); }
EXTMEM_EXPORTED_C void _Exit(int status) noexcept { extmem::preload::leave(status); }
