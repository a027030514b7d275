// The child of the crash tests: does one operation and dies where it is told to.
//   crash_child LOG-DESCRIPTOR DIRECTORY DOMAIN OPERATION [traced]
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "base/crash_point.hpp"
#include "crash/points.hpp"
#include "crash/role.hpp"

namespace {

extmem::crash::Log* the_log = nullptr;

void at_point(const char* name) {
  extmem::crash::Log& log = *the_log;
  if (log.armed.load(std::memory_order_relaxed) == 0) return;
  const std::uint32_t number = extmem::crash::point_number(name);
  if (number == extmem::crash::kPointCount)
    std::snprintf(log.unknown_point, sizeof log.unknown_point, "%s", name);
  log.last_point.store(number, std::memory_order_relaxed);
  const std::uint64_t hit = log.hits.fetch_add(1, std::memory_order_relaxed) + 1;
  static std::uint32_t nth[extmem::crash::kPointCount + 1];
  const bool last = number == log.kill_point && ++nth[number] == log.kill_nth;
  if (hit <= extmem::crash::kSequence) log.sequence[hit - 1] = static_cast<std::uint8_t>(number);
  if (!last) return;
  log.killed.store(1);
  ::kill(::getpid(), log.stop != 0 ? SIGSTOP : SIGKILL);
}

/// Somebody else's memory lies where the domain's regions would go: so they come to lie elsewhere here.
void occupy(const extmem::crash::Log& log) {
  for (std::uint32_t i = 0; i < log.pages_taken; ++i) {
    (void)::mmap(reinterpret_cast<void*>(log.taken[i]), log.taken_bytes, PROT_NONE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
  }
}

}  // namespace

int main(int argc, char** argv) {
  using namespace extmem::crash;
  if (argc < 5) return 2;
  (void)::prctl(PR_SET_PDEATHSIG, SIGKILL);
  void* mapped = ::mmap(nullptr, sizeof(Log), PROT_READ | PROT_WRITE, MAP_SHARED, std::atoi(argv[1]), 0);
  if (mapped == MAP_FAILED) return 3;
  the_log = static_cast<Log*>(mapped);
  Log& log = *the_log;
  occupy(log);
  Role role(log, argv[2], argv[3]);
  const std::string operation = argv[4];
  if (operation == "random") {
    role.open();
    log.phase.store(Phase::ready);
    role.run_at_random();
    return 0;
  }
  if (argc <= 5)
    extmem::base::crash_point_hook = &at_point;  // a traced child is stepped: no instructions of ours
  role.prepare(operation);
  log.phase.store(Phase::ready);
  if (argc > 5) {
    (void)::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    (void)::raise(SIGSTOP);
  }
  log.armed.store(1);
  role.act(operation);
  log.armed.store(0);
  log.phase.store(Phase::acted);
  (void)::kill(::getpid(), SIGKILL);  // after the last point: the operation is whole
  return 0;
}
