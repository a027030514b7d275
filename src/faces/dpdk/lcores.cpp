// Starting and ending lcores, and asking about them.
#include "faces/dpdk/lcores.hpp"

#include <rte_errno.h>
#include <rte_log.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "faces/dpdk/eal.hpp"
#include "os/kernel_text.hpp"

extern "C" {
RTE_DEFINE_PER_LCORE(unsigned, _lcore_id) = LCORE_ID_ANY;
RTE_DEFINE_PER_LCORE(int, _thread_id) = -1;
}

namespace extmem::dpdk {
namespace {

thread_local unsigned this_socket = kAnySocket;
thread_local cpu_set_t these_cpus{};

constexpr const char* kRoleNames[] = {"RTE", "OFF", "SERVICE", "NON_EAL"};

void* run_worker(void* argument) {
  Lcore& self = *static_cast<Lcore*>(argument);
  become_lcore(static_cast<unsigned>(&self - lcores().all.data()), self.cpus);
  for (;;) {
    self.command.wait(Lcore::kNone, std::memory_order_acquire);
    const std::uint32_t command = self.command.load(std::memory_order_acquire);
    if (command == Lcore::kEnd) return nullptr;
    if (command != Lcore::kRun) continue;
    self.command.store(Lcore::kNone, std::memory_order_relaxed);  // the next launch needs state WAIT first
    self.result = self.function(self.argument);
    self.state.store(WAIT, std::memory_order_release);
    self.state.notify_all();
  }
}

int start_worker(unsigned id, Lcore& lcore) noexcept {
  // Pinned before it runs, so that what it touches first is on its node.
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  ::pthread_attr_setaffinity_np(&attributes, sizeof(lcore.cpus), &lcore.cpus);
  lcore.command.store(Lcore::kNone, std::memory_order_relaxed);
  lcore.state.store(WAIT, std::memory_order_relaxed);
  const int failed = ::pthread_create(&lcore.thread, &attributes, run_worker, &lcore);
  ::pthread_attr_destroy(&attributes);
  if (failed != 0) {
    RTE_LOG(ERR, EAL, "cannot start the thread of lcore %u: %s\n", id, std::strerror(failed));
    return failed;
  }
  lcore.has_thread = true;
  std::array<char, 32> name{};
  std::snprintf(name.data(), name.size(), "lcore-worker-%u", id);
  name[RTE_MAX_THREAD_NAME_LEN - 1] = '\0';  // the kernel takes no more
  (void)::pthread_setname_np(lcore.thread, name.data());
  return 0;
}

void fill(Lcore& lcore, const cpu_set_t& cpus) noexcept {
  lcore.cpus = cpus;
  lcore.socket = socket_of(cpus);
  lcore.core = core_of_cpu(first_cpu(cpus));
  lcore.result = 0;
}

}  // namespace

Lcores& lcores() noexcept {
  static constinit Lcores table;
  return table;
}

void become_lcore(unsigned id, const cpu_set_t& cpus) noexcept {
  RTE_PER_LCORE(_lcore_id) = id;
  these_cpus = cpus;
  this_socket = socket_of(cpus);
}

int lcores_init(const LcoreOptions& options, const Cpus& cpus, const cpu_set_t& process_cpus) noexcept {
  Lcores& table = lcores();
  table.cpus = cpus;
  table.process_cpus = process_cpus;
  table.main = *options.main;
  table.process = ::getpid();
  int index = 0;
  for (unsigned id = 0; id < kMaxLcores; ++id) {
    if (!options.wanted[id]) continue;
    Lcore& lcore = table.all[id];
    fill(lcore, options.cpus[id]);
    if (!options.service[id]) lcore.index = index++;
    lcore.role.store(options.service[id] ? ROLE_SERVICE : ROLE_RTE, std::memory_order_release);
  }
  table.count.store(static_cast<unsigned>(index), std::memory_order_relaxed);
  const Lcore& main = table.all[table.main];
  int failed = ::pthread_setaffinity_np(::pthread_self(), sizeof(main.cpus), &main.cpus);
  if (failed != 0) {
    RTE_LOG(ERR, EAL, "cannot pin the main lcore %u: %s\n", table.main, std::strerror(failed));
  } else {
    become_lcore(table.main, main.cpus);
    for (unsigned id = 0; id < kMaxLcores && failed == 0; ++id) {
      if (has_role(table.all[id], ROLE_RTE) && id != table.main) failed = start_worker(id, table.all[id]);
    }
  }
  if (failed == 0) return 0;
  lcores_cleanup();
  return fail(failed);
}

bool a_worker_runs() noexcept {
  if (lcores().process != ::getpid()) return false;
  for (const Lcore& lcore : lcores().all) {
    if (lcore.has_thread && lcore.state.load(std::memory_order_acquire) == RUNNING) return true;
  }
  return false;
}

unsigned other_threads() noexcept {
  std::array<char, 4096> buffer{};
  const std::string_view text = os::read_text("/proc/self/status", buffer).value_or(std::string_view{});
  const std::uint64_t threads = os::number_after(text, "Threads:").value_or(0);
  std::uint64_t workers = 0;
  for (const Lcore& lcore : lcores().all) workers += lcore.has_thread ? 1u : 0u;
  return threads > workers ? static_cast<unsigned>(threads - workers) : 0;
}

void lcores_cleanup() noexcept {
  Lcores& table = lcores();
  const bool has_workers = table.process == ::getpid();
  for (Lcore& lcore : table.all) {
    if (lcore.has_thread && has_workers) {
      lcore.command.store(Lcore::kEnd, std::memory_order_release);
      lcore.command.notify_one();
      ::pthread_join(lcore.thread, nullptr);
    }
    lcore.has_thread = false;
    lcore.role.store(ROLE_OFF, std::memory_order_release);
    lcore.index = -1;
    lcore.result = 0;
  }
  table.count.store(0, std::memory_order_relaxed);
  (void)::pthread_setaffinity_np(::pthread_self(), sizeof(table.process_cpus), &table.process_cpus);
  become_lcore(LCORE_ID_ANY, table.process_cpus);
}

}  // namespace extmem::dpdk

using namespace extmem::dpdk;

extern "C" {

enum rte_lcore_role_t rte_eal_lcore_role(unsigned int lcore_id) {
  const Lcore* lcore = find_lcore(lcore_id);
  if (lcore == nullptr) return ROLE_OFF;
  return static_cast<rte_lcore_role_t>(lcore->role.load(std::memory_order_acquire));
}

int rte_lcore_has_role(unsigned int lcore_id, enum rte_lcore_role_t role) {
  return lcore_id < kMaxLcores && rte_eal_lcore_role(lcore_id) == role ? 1 : 0;
}

int rte_lcore_is_enabled(unsigned int lcore_id) { return rte_lcore_has_role(lcore_id, ROLE_RTE); }

unsigned int rte_get_main_lcore(void) { return lcores().main; }

unsigned int rte_lcore_count(void) { return lcores().count.load(std::memory_order_relaxed); }

int rte_lcore_index(int lcore_id) {
  const Lcore* lcore = find_lcore(lcore_id < 0 ? rte_lcore_id() : static_cast<unsigned>(lcore_id));
  return lcore != nullptr ? lcore->index : -1;
}

int rte_lcore_to_cpu_id(int lcore_id) {
  const Lcore* lcore = find_lcore(lcore_id < 0 ? rte_lcore_id() : static_cast<unsigned>(lcore_id));
  return lcore != nullptr ? static_cast<int>(lcore->core) : -EINVAL;
}

unsigned int rte_lcore_to_socket_id(unsigned int lcore_id) {
  const Lcore* lcore = find_lcore(lcore_id);
  return lcore != nullptr ? lcore->socket : 0;
}

rte_cpuset_t rte_lcore_cpuset(unsigned int lcore_id) {
  const Lcore* lcore = find_lcore(lcore_id);
  if (lcore != nullptr && !has_role(*lcore, ROLE_OFF)) return lcore->cpus;
  cpu_set_t none;
  CPU_ZERO(&none);
  return none;
}

unsigned int rte_get_next_lcore(unsigned int i, int skip_main, int wrap) {
  unsigned int next = i + 1;  // -1 becomes 0
  for (unsigned int looked_at = 0; looked_at < kMaxLcores; ++looked_at, ++next) {
    if (next >= kMaxLcores) {
      if (wrap == 0) break;
      next = 0;
    }
    if (rte_lcore_is_enabled(next) != 0 && (skip_main == 0 || next != lcores().main)) return next;
  }
  return RTE_MAX_LCORE;
}

unsigned int rte_socket_id(void) { return this_socket; }

unsigned int rte_socket_count(void) { return static_cast<unsigned>(lcores().cpus.sockets.count()); }

int rte_socket_id_by_idx(unsigned int idx) {
  const int id = idx < extmem::os::kMaxNumaNodes ? lcores().cpus.sockets.id_at(static_cast<int>(idx)) : -1;
  return id >= 0 ? id : fail(EINVAL);
}

int rte_socket_idx_by_id(unsigned int socket) {
  const int index =
      socket < extmem::os::kMaxNumaNodes ? lcores().cpus.sockets.index_of(static_cast<int>(socket)) : -1;
  return index >= 0 ? index : fail(EINVAL);
}

int rte_thread_set_affinity(rte_cpuset_t* cpusetp) {
  if (cpusetp == nullptr) return -1;
  const int failed = ::pthread_setaffinity_np(::pthread_self(), sizeof(*cpusetp), cpusetp);
  if (failed != 0) {
    RTE_LOG(ERR, EAL, "cannot move the thread to other processors: %s\n", std::strerror(failed));
    return -1;
  }
  these_cpus = *cpusetp;
  this_socket = socket_of(*cpusetp);
  if (Lcore* lcore = find_lcore(rte_lcore_id()); lcore != nullptr) {
    lcore->cpus = *cpusetp;
    lcore->socket = this_socket;
  }
  return 0;
}

void rte_thread_get_affinity(rte_cpuset_t* cpusetp) {
  if (cpusetp == nullptr) return;
  // A thread that is no lcore of ours may have moved by itself.
  if (CPU_COUNT(&these_cpus) == 0) {
    (void)::pthread_getaffinity_np(::pthread_self(), sizeof(*cpusetp), cpusetp);
  } else {
    *cpusetp = these_cpus;
  }
}

int rte_lcore_iterate(rte_lcore_iterate_cb cb, void* arg) {
  for (unsigned id = 0; id < kMaxLcores; ++id) {
    if (has_role(lcores().all[id], ROLE_OFF)) continue;
    const int result = cb(id, arg);
    if (result != 0) return result;
  }
  return 0;
}

void rte_lcore_dump(FILE* f) {
  for (unsigned id = 0; id < kMaxLcores; ++id) {
    const Lcore& lcore = lcores().all[id];
    const std::uint32_t role = lcore.role.load(std::memory_order_acquire);
    if (role == ROLE_OFF) continue;
    std::fprintf(f, "lcore %u, socket %d, role %s, cpuset ", id, static_cast<int>(lcore.socket),
                 kRoleNames[role]);
    const char* comma = "";
    for (unsigned cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (!CPU_ISSET(cpu, &lcore.cpus)) continue;
      unsigned last = cpu;
      while (last + 1 < CPU_SETSIZE && CPU_ISSET(last + 1, &lcore.cpus)) ++last;
      std::fprintf(f, last > cpu ? "%s%u-%u" : "%s%u", comma, cpu, last);
      comma = ",";
      cpu = last;
    }
    std::fputc('\n', f);
  }
}

}  // extern "C"
