// Threads that register as lcores, and callbacks that hear of lcores.
//
// One mutex serialises both: a callback sees each lcore come and go exactly once.
#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_log.h>

#include <mutex>
#include <new>

#include "faces/dpdk/eal.hpp"
#include "faces/dpdk/lcores.hpp"

namespace extmem::dpdk {
namespace {

struct Callback {
  rte_lcore_init_cb init;
  rte_lcore_uninit_cb uninit;
  void* argument;
  Callback* next = nullptr;
};

std::mutex mutex;
Callback* first = nullptr;

// Tells `callback` that the lcores below `end` go.
void tell_gone(const Callback& callback, unsigned end) {
  if (callback.uninit == nullptr) return;
  for (unsigned id = 0; id < end; ++id) {
    if (!has_role(lcores().all[id], ROLE_OFF)) callback.uninit(id, callback.argument);
  }
}

// Tells every callback before `end` that the lcore goes; null: all.
void tell_lcore_gone(unsigned id, const Callback* end) {
  for (const Callback* c = first; c != end; c = c->next) {
    if (c->uninit != nullptr) c->uninit(id, c->argument);
  }
}

}  // namespace

void lcore_callbacks_cleanup() noexcept {
  const std::scoped_lock lock(mutex);
  while (first != nullptr) {
    Callback* const gone = first;
    first = gone->next;
    tell_gone(*gone, kMaxLcores);
    delete gone;
  }
}

}  // namespace extmem::dpdk

using namespace extmem::dpdk;

extern "C" {

void* rte_lcore_callback_register(const char* name, rte_lcore_init_cb init, rte_lcore_uninit_cb uninit,
                                  void* arg) {
  auto* callback = new (std::nothrow) Callback{init, uninit, arg};
  if (callback == nullptr) {
    rte_errno = ENOMEM;
    return nullptr;
  }
  const std::scoped_lock lock(mutex);
  for (unsigned id = 0; init != nullptr && id < kMaxLcores; ++id) {
    if (has_role(lcores().all[id], ROLE_OFF) || init(id, arg) >= 0) continue;
    RTE_LOG(ERR, EAL, "the callback %s refuses lcore %u\n", name != nullptr ? name : "without a name", id);
    tell_gone(*callback, id);
    delete callback;
    rte_errno = EPERM;
    return nullptr;
  }
  Callback** last = &first;
  while (*last != nullptr) last = &(*last)->next;
  *last = callback;
  return callback;
}

void rte_lcore_callback_unregister(void* handle) {
  const std::scoped_lock lock(mutex);
  for (Callback** at = &first; *at != nullptr; at = &(*at)->next) {
    if (*at != handle) continue;
    Callback* const gone = *at;
    *at = gone->next;
    tell_gone(*gone, kMaxLcores);
    delete gone;
    return;
  }
}

int rte_thread_register(void) {
  if (!initialized()) return fail(EINVAL);
  if (rte_lcore_id() != LCORE_ID_ANY) return 0;
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  (void)::pthread_getaffinity_np(::pthread_self(), sizeof(cpus), &cpus);
  const std::scoped_lock lock(mutex);
  unsigned id = 0;
  while (id < kMaxLcores && !has_role(lcores().all[id], ROLE_OFF)) ++id;
  if (id == kMaxLcores) return fail(ENOMEM);
  Lcore& lcore = lcores().all[id];
  lcore.cpus = cpus;
  lcore.socket = socket_of(cpus);
  lcore.core = core_of_cpu(first_cpu(cpus));
  lcore.role.store(ROLE_NON_EAL, std::memory_order_release);
  for (const Callback* c = first; c != nullptr; c = c->next) {
    if (c->init == nullptr || c->init(id, c->argument) >= 0) continue;
    tell_lcore_gone(id, c);
    lcore.role.store(ROLE_OFF, std::memory_order_release);
    return fail(ENOMEM);
  }
  lcores().count.fetch_add(1, std::memory_order_relaxed);
  become_lcore(id, cpus);
  return 0;
}

void rte_thread_unregister(void) {
  const unsigned id = rte_lcore_id();
  const std::scoped_lock lock(mutex);
  Lcore* lcore = find_lcore(id);
  if (lcore == nullptr || !has_role(*lcore, ROLE_NON_EAL)) return;
  tell_lcore_gone(id, nullptr);
  lcore->role.store(ROLE_OFF, std::memory_order_release);
  lcores().count.fetch_sub(1, std::memory_order_relaxed);
  become_lcore(LCORE_ID_ANY, lcore->cpus);
}

}  // extern "C"
