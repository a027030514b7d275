// Running functions on worker lcores.
#include <rte_launch.h>

#include <cerrno>

#include "faces/dpdk/lcores.hpp"

using namespace extmem::dpdk;

namespace {

bool is_worker(const Lcore* lcore) {
  return lcore != nullptr && has_role(*lcore, ROLE_RTE) && lcore != &lcores().all[lcores().main];
}

int launch(Lcore& lcore, lcore_function_t* function, void* argument) {
  std::uint32_t waiting = WAIT;
  // Acquire: what the function before wrote, its result among it, comes first.
  if (!lcore.state.compare_exchange_strong(waiting, RUNNING, std::memory_order_acquire,
                                           std::memory_order_relaxed)) {
    return -EBUSY;
  }
  lcore.function = function;
  lcore.argument = argument;
  lcore.command.store(Lcore::kRun, std::memory_order_release);
  lcore.command.notify_one();
  return 0;
}

}  // namespace

extern "C" {

int rte_eal_remote_launch(lcore_function_t* f, void* arg, unsigned worker_id) {
  Lcore* lcore = find_lcore(worker_id);
  if (f == nullptr || !is_worker(lcore)) return -EINVAL;
  return launch(*lcore, f, arg);
}

int rte_eal_mp_remote_launch(lcore_function_t* f, void* arg, enum rte_rmt_call_main_t call_main) {
  if (f == nullptr) return -EINVAL;
  for (Lcore& lcore : lcores().all) {
    if (is_worker(&lcore) && lcore.state.load(std::memory_order_acquire) != WAIT) return -EBUSY;
  }
  for (Lcore& lcore : lcores().all) {
    if (is_worker(&lcore) && launch(lcore, f, arg) != 0) return -EBUSY;
  }
  if (call_main == CALL_MAIN) lcores().all[lcores().main].result = f(arg);
  return 0;
}

enum rte_lcore_state_t rte_eal_get_lcore_state(unsigned int worker_id) {
  const Lcore* lcore = find_lcore(worker_id);
  if (lcore == nullptr) return WAIT;
  return static_cast<rte_lcore_state_t>(lcore->state.load(std::memory_order_acquire));
}

int rte_eal_wait_lcore(unsigned worker_id) {
  Lcore* lcore = find_lcore(worker_id);
  if (lcore == nullptr) return -EINVAL;
  lcore->state.wait(RUNNING, std::memory_order_acquire);
  return lcore->result;
}

void rte_eal_mp_wait_lcore(void) {
  for (Lcore& lcore : lcores().all) {
    if (is_worker(&lcore)) lcore.state.wait(RUNNING, std::memory_order_acquire);
  }
}

}  // extern "C"
