// The table of lcores: who they are, and the words through which a worker is told to run something.
//
// Who may change it: rte_eal_init() and rte_eal_cleanup(), and, with registered_mutex(), threads that register.
// Thread-safety: roles are read without a lock, by anybody.
#pragma once

#include <pthread.h>
#include <rte_lcore.h>
#include <sched.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>

#include "faces/dpdk/cpus.hpp"
#include "faces/dpdk/options.hpp"

namespace extmem::dpdk {

struct Lcore {
  // Release after the rest was filled, acquire before it is read.
  std::atomic<std::uint32_t> role{ROLE_OFF};
  cpu_set_t cpus{};
  unsigned socket = 0;  // kAnySocket: on several
  unsigned core = 0;
  int index = -1;  // among main and workers

  // The launcher: WAIT to RUNNING, then function and argument, then command (release).
  // The worker: sees command (acquire), runs, stores the result, then WAIT (release), which whoever waits acquires.
  enum Command : std::uint32_t { kNone, kRun, kEnd };
  std::atomic<std::uint32_t> state{WAIT};
  std::atomic<std::uint32_t> command{kNone};
  lcore_function_t* function = nullptr;
  void* argument = nullptr;
  int result = 0;
  pthread_t thread{};
  bool has_thread = false;
};

struct Lcores {
  std::array<Lcore, kMaxLcores> all{};
  unsigned main = 0;
  std::atomic<unsigned> count{0};  // relaxed: a figure
  Cpus cpus{};
  pid_t process = 0;         // that has the workers; a fork's child has none
  cpu_set_t process_cpus{};  // what the process might use before rte_eal_init()
};

/// The one table of the process.
Lcores& lcores() noexcept;

/// The lcore with that id, or null.
inline Lcore* find_lcore(unsigned id) noexcept { return id < kMaxLcores ? &lcores().all[id] : nullptr; }
inline bool has_role(const Lcore& lcore, rte_lcore_role_t role) noexcept {
  return lcore.role.load(std::memory_order_acquire) == static_cast<std::uint32_t>(role);
}

/// Makes the calling thread lcore `id` (or none: LCORE_ID_ANY), which runs on these processors.
void become_lcore(unsigned id, const cpu_set_t& cpus) noexcept;

/// Fills the table, pins the caller as main lcore and starts the workers. Returns: 0, or -1 with rte_errno, undone.
int lcores_init(const LcoreOptions& options, const Cpus& cpus, const cpu_set_t& process_cpus) noexcept;
/// Whether a worker of this process runs a function.
bool a_worker_runs() noexcept;
/// How many threads this process has beside the workers; 0 where the kernel does not tell.
unsigned other_threads() noexcept;
/// Ends the workers, none of which may run a function, and empties the table.
void lcores_cleanup() noexcept;

/// Forgets the callbacks of rte_lcore_callback_register(); `uninit` is called for each lcore.
void lcore_callbacks_cleanup() noexcept;

}  // namespace extmem::dpdk
