// Writing log lines: where to, and whether.
#include <rte_debug.h>
#include <rte_log.h>

#include <atomic>
#include <cstdarg>
#include <cstdio>

namespace {

// Who sets it hands the stream over by it: release, with the acquire in stream().
std::atomic<std::FILE*> the_stream{nullptr};

struct CurrentLine {
  std::uint32_t level = 0;
  std::uint32_t type = 0;
};
thread_local CurrentLine current{};

std::FILE* stream() {
  std::FILE* own = the_stream.load(std::memory_order_acquire);
  return own != nullptr ? own : stderr;
}

}  // namespace

extern "C" {

int rte_openlog_stream(FILE* f) {
  the_stream.store(f, std::memory_order_release);
  return 0;
}

FILE* rte_log_get_stream(void) { return stream(); }

int rte_log_cur_msg_loglevel(void) { return static_cast<int>(current.level); }
int rte_log_cur_msg_logtype(void) { return static_cast<int>(current.type); }

int rte_vlog(uint32_t level, uint32_t logtype, const char* format, va_list ap) {
  if (rte_log_get_level(logtype) < 0) return -1;
  if (!rte_log_can_log(logtype, level)) return 0;
  current = {level, logtype};
  std::FILE* to = stream();
  const int written = std::vfprintf(to, format, ap);
  std::fflush(to);
  return written;
}

int rte_log(uint32_t level, uint32_t logtype, const char* format, ...) {
  va_list ap;
  va_start(ap, format);
  const int written = rte_vlog(level, logtype, format, ap);
  va_end(ap);
  return written;
}

}  // extern "C"
