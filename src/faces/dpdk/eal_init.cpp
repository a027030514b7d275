// rte_eal_init() and rte_eal_cleanup(): the order in which things start and end.
#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_version.h>
#include <sched.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "faces/dpdk/eal.hpp"
#include "faces/dpdk/fbarray_file.hpp"
#include "faces/dpdk/lcores.hpp"
#include "faces/dpdk/log.hpp"
#include "faces/dpdk/options.hpp"
#include "faces/dpdk/runtime_dir.hpp"

namespace extmem::dpdk {
namespace {

enum class Stage : unsigned { fresh, starting, running, ended };
// Release when everything stands or has ended; acquire in initialized().
std::atomic<Stage> stage{Stage::fresh};
constinit EalOptions the_options{};
std::atomic<rte_usage_hook_t> usage_hook{nullptr};  // relaxed: a function's address carries nothing else

const char* program_name(int argc, char** argv) noexcept {
  if (argc < 1 || argv[0] == nullptr) return "program";
  const char* slash = std::strrchr(argv[0], '/');
  return slash != nullptr ? slash + 1 : argv[0];
}

// Each step that fails undoes those before.
int start(const CommandLine& line, const Cpus& cpus, const cpu_set_t& process_cpus) noexcept {
  the_options = line.eal;
  EalOptions& eal = the_options;
  if (!runtime_dir_init(eal.file_prefix.data())) {
    RTE_LOG(ERR, EAL, "the path of the runtime directory is too long\n");
    return fail(ENAMETOOLONG);
  }
  if (!eal.shared()) {
    eal.process = RTE_PROC_PRIMARY;
  } else if (claim_process_type(eal.process) != 0) {
    return -1;
  }
  if (eal.shared() && eal.process == RTE_PROC_PRIMARY) remove_dead_arrays(rte_eal_get_runtime_dir());
  if (lcores_init(line.lcores, cpus, process_cpus) != 0) {
    release_process_type();
    return -1;
  }
  if (memory_init(eal) != 0) {
    const int failed = rte_errno;
    RTE_LOG(ERR, EAL, "cannot set up memory: %s\n", rte_strerror(failed));
    lcores_cleanup();
    release_process_type();
    return fail(failed);
  }
  return 0;
}

// A process that ends without rte_eal_cleanup() still leaves what it shares, so that its last user removes it; but not
// while another thread may be using it. Then, and after a kill, the next primary process does.
[[gnu::destructor]] void leave_at_exit() {
  if (initialized() && the_options.shared() && !a_worker_runs() && other_threads() == 1)
    (void)rte_eal_cleanup();
}

}  // namespace

const EalOptions& options() noexcept { return the_options; }
bool initialized() noexcept { return stage.load(std::memory_order_acquire) == Stage::running; }

}  // namespace extmem::dpdk

using namespace extmem::dpdk;

extern "C" {

int rte_eal_init(int argc, char** argv) {
  Stage expected = Stage::fresh;
  if (!stage.compare_exchange_strong(expected, Stage::starting, std::memory_order_relaxed)) {
    RTE_LOG(ERR, EAL, "rte_eal_init() has run before in this process\n");
    return fail(EALREADY);
  }
  const ProcessCpus process_cpus = ProcessCpus::detect();
  const Cpus cpus = Cpus::detect();

  CommandLine line;
  char no_name[] = "program";
  char* no_arguments[] = {no_name, nullptr};
  if (argc < 1 || argv == nullptr) {
    argc = 1;
    argv = no_arguments;
  }
  if (!parse_command_line(argc, argv, process_cpus, line)) {
    print_usage(program_name(argc, argv), usage_hook.load(std::memory_order_relaxed));
    stage.store(Stage::fresh, std::memory_order_relaxed);
    return fail(EINVAL);
  }
  if (line.help) {
    print_usage(program_name(argc, argv), usage_hook.load(std::memory_order_relaxed));
    std::exit(EXIT_SUCCESS);
  }
  if (line.log_help) {
    print_log_help(stdout);
    std::exit(EXIT_SUCCESS);
  }
  RTE_LOG(INFO, EAL, "Detected CPU lcores: %d\n", CPU_COUNT(&process_cpus.now));
  RTE_LOG(INFO, EAL, "Detected NUMA nodes: %d\n", cpus.sockets.count());
  if (line.version) RTE_LOG(CRIT, EAL, "RTE Version: '%s'\n", rte_version());
  (void)rte_get_tsc_hz();  // measured here, so that nobody's first reading takes long
  if (start(line, cpus, process_cpus.now) != 0) {
    stage.store(Stage::fresh, std::memory_order_relaxed);
    return -1;
  }
  stage.store(Stage::running, std::memory_order_release);
  return line.taken;
}

int rte_eal_cleanup(void) {
  if (a_worker_runs()) {
    RTE_LOG(ERR, EAL,
            "a worker still runs its function: end it, and rte_eal_mp_wait_lcore(), before the cleanup\n");
    return fail(EBUSY);
  }
  Stage expected = Stage::running;
  if (!stage.compare_exchange_strong(expected, Stage::ended, std::memory_order_acq_rel)) {
    if (expected == Stage::ended) RTE_LOG(WARNING, EAL, "rte_eal_cleanup() has run before\n");
    return fail(expected == Stage::ended ? EALREADY : E_RTE_NO_CONFIG);
  }
  lcore_callbacks_cleanup();
  lcores_cleanup();
  memory_cleanup();
  release_process_type();
  return 0;
}

rte_usage_hook_t rte_set_application_usage_hook(rte_usage_hook_t usage_func) {
  return usage_hook.exchange(usage_func, std::memory_order_relaxed);
}

}  // extern "C"
