// Giving up: rte_panic(), rte_exit(), and the stack of the caller.
#include <execinfo.h>
#include <rte_common.h>
#include <rte_debug.h>
#include <rte_eal.h>

#include <array>
#include <cstdarg>
#include <cstdlib>

extern "C" {

void rte_dump_stack(void) {
  std::array<void*, 64> frames{};
  const int count = ::backtrace(frames.data(), static_cast<int>(frames.size()));
  char** names = ::backtrace_symbols(frames.data(), count);
  for (int i = 0; i < count; ++i) {
    RTE_LOG(ERR, EAL, "%d: %s\n", i, names != nullptr ? names[i] : "?");
  }
  std::free(names);
}

void __rte_panic(const char* funcname, const char* format, ...) {
  rte_log(RTE_LOG_CRIT, RTE_LOGTYPE_EAL, "PANIC in %s():\n", funcname);
  va_list ap;
  va_start(ap, format);
  rte_vlog(RTE_LOG_CRIT, RTE_LOGTYPE_EAL, format, ap);
  va_end(ap);
  rte_dump_stack();
  std::abort();
}

void rte_exit(int exit_code, const char* format, ...) {
  if (exit_code != 0) {
    RTE_LOG(CRIT, EAL, "Error - exiting with code: %d\n  Cause: ", exit_code);
  }
  va_list ap;
  va_start(ap, format);
  rte_vlog(RTE_LOG_CRIT, RTE_LOGTYPE_EAL, format, ap);
  va_end(ap);
  rte_eal_cleanup();
  std::exit(exit_code);
}

}  // extern "C"
