// Threads: rte_thread.h, and those of rte_lcore.h that are no lcores.
#include <pthread.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_thread.h>
#include <sched.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <new>

#include "faces/dpdk/eal.hpp"
#include "faces/dpdk/lcores.hpp"

// rte_thread_key is a pointer to this.
struct eal_tls_key {
  pthread_key_t key;
};

namespace {

static_assert(sizeof(pthread_t) <= sizeof(uintptr_t));
pthread_t handle_of(rte_thread_t thread) { return static_cast<pthread_t>(thread.opaque_id); }

struct Start {
  rte_thread_func function;
  void* argument;
};

void* run(void* argument) {
  const Start start = *static_cast<Start*>(argument);
  delete static_cast<Start*>(argument);
  return reinterpret_cast<void*>(static_cast<uintptr_t>(start.function(start.argument)));
}

struct ControlStart {
  void* (*function)(void*);
  void* argument;
};

void* run_control(void* argument) {
  const ControlStart start = *static_cast<ControlStart*>(argument);
  delete static_cast<ControlStart*>(argument);
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  (void)::pthread_getaffinity_np(::pthread_self(), sizeof(cpus), &cpus);
  extmem::dpdk::become_lcore(LCORE_ID_ANY, cpus);
  return start.function(start.argument);
}

// Those of the process that no lcore has; all of the process' where there are none.
cpu_set_t control_cpus() {
  const auto& table = extmem::dpdk::lcores();
  cpu_set_t cpus = table.process_cpus;
  if (!extmem::dpdk::initialized()) (void)::sched_getaffinity(0, sizeof(cpus), &cpus);
  const cpu_set_t all = cpus;
  for (const auto& lcore : table.all) {
    if (!extmem::dpdk::has_role(lcore, ROLE_RTE)) continue;
    for (unsigned cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &lcore.cpus)) CPU_CLR(cpu, &cpus);
    }
  }
  return CPU_COUNT(&cpus) != 0 ? cpus : all;
}

}  // namespace

extern "C" {

int rte_thread_create(rte_thread_t* thread_id, const rte_thread_attr_t* thread_attr,
                      rte_thread_func thread_func, void* arg) {
  if (thread_id == nullptr || thread_func == nullptr) return EINVAL;
  if (thread_attr != nullptr && thread_attr->priority == RTE_THREAD_PRIORITY_REALTIME_CRITICAL)
    return ENOTSUP;
  auto* start = new (std::nothrow) Start{thread_func, arg};
  if (start == nullptr) return ENOMEM;
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  if (thread_attr != nullptr && CPU_COUNT(&thread_attr->cpuset) > 0) {
    ::pthread_attr_setaffinity_np(&attributes, sizeof(thread_attr->cpuset), &thread_attr->cpuset);
  }
  pthread_t thread{};
  const int failed = ::pthread_create(&thread, &attributes, run, start);
  ::pthread_attr_destroy(&attributes);
  if (failed != 0) {
    delete start;
    return failed;
  }
  thread_id->opaque_id = static_cast<uintptr_t>(thread);
  return 0;
}

int rte_thread_join(rte_thread_t thread_id, uint32_t* value_ptr) {
  void* result = nullptr;
  const int failed = ::pthread_join(handle_of(thread_id), &result);
  if (failed == 0 && value_ptr != nullptr) {
    *value_ptr = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(result));
  }
  return failed;
}

int rte_thread_detach(rte_thread_t thread_id) { return ::pthread_detach(handle_of(thread_id)); }

rte_thread_t rte_thread_self(void) { return {static_cast<uintptr_t>(::pthread_self())}; }

int rte_thread_equal(rte_thread_t t1, rte_thread_t t2) {
  return ::pthread_equal(handle_of(t1), handle_of(t2)) != 0 ? 1 : 0;
}

int rte_thread_attr_init(rte_thread_attr_t* attr) {
  if (attr == nullptr) return EINVAL;
  CPU_ZERO(&attr->cpuset);
  attr->priority = RTE_THREAD_PRIORITY_NORMAL;
  return 0;
}

int rte_thread_attr_set_priority(rte_thread_attr_t* thread_attr, enum rte_thread_priority priority) {
  if (thread_attr == nullptr) return EINVAL;
  thread_attr->priority = priority;
  return 0;
}

int rte_thread_attr_set_affinity(rte_thread_attr_t* thread_attr, rte_cpuset_t* cpuset) {
  if (thread_attr == nullptr || cpuset == nullptr) return EINVAL;
  thread_attr->cpuset = *cpuset;
  return 0;
}

int rte_thread_attr_get_affinity(rte_thread_attr_t* thread_attr, rte_cpuset_t* cpuset) {
  if (thread_attr == nullptr || cpuset == nullptr) return EINVAL;
  *cpuset = thread_attr->cpuset;
  return 0;
}

int rte_thread_set_affinity_by_id(rte_thread_t thread_id, const rte_cpuset_t* cpuset) {
  if (cpuset == nullptr) return EINVAL;
  return ::pthread_setaffinity_np(handle_of(thread_id), sizeof(*cpuset), cpuset);
}

int rte_thread_get_affinity_by_id(rte_thread_t thread_id, rte_cpuset_t* cpuset) {
  if (cpuset == nullptr) return EINVAL;
  return ::pthread_getaffinity_np(handle_of(thread_id), sizeof(*cpuset), cpuset);
}

int rte_thread_get_priority(rte_thread_t thread_id, enum rte_thread_priority* priority) {
  if (priority == nullptr) return EINVAL;
  int policy = 0;
  sched_param parameters{};
  const int failed = ::pthread_getschedparam(handle_of(thread_id), &policy, &parameters);
  if (failed != 0) return failed;
  if (policy == SCHED_OTHER) {
    *priority = RTE_THREAD_PRIORITY_NORMAL;
  } else if (policy == SCHED_RR) {
    *priority = RTE_THREAD_PRIORITY_REALTIME_CRITICAL;
  } else {
    return EINVAL;
  }
  return 0;
}

int rte_thread_set_priority(rte_thread_t thread_id, enum rte_thread_priority priority) {
  if (priority == RTE_THREAD_PRIORITY_REALTIME_CRITICAL) return ENOTSUP;
  if (priority != RTE_THREAD_PRIORITY_NORMAL) return EINVAL;
  const sched_param parameters{};
  return ::pthread_setschedparam(handle_of(thread_id), SCHED_OTHER, &parameters);
}

int rte_thread_key_create(rte_thread_key* key, void (*destructor)(void*)) {
  if (key == nullptr) return extmem::dpdk::fail(EINVAL);
  auto* made = new (std::nothrow) eal_tls_key{};
  if (made == nullptr) return extmem::dpdk::fail(ENOMEM);
  if (const int failed = ::pthread_key_create(&made->key, destructor); failed != 0) {
    delete made;
    return extmem::dpdk::fail(failed);
  }
  *key = made;
  return 0;
}

int rte_thread_key_delete(rte_thread_key key) {
  if (key == nullptr || ::pthread_key_delete(key->key) != 0) return extmem::dpdk::fail(EINVAL);
  delete key;
  return 0;
}

int rte_thread_value_set(rte_thread_key key, const void* value) {
  if (key == nullptr) return extmem::dpdk::fail(EINVAL);
  const int failed = ::pthread_setspecific(key->key, value);
  return failed == 0 ? 0 : extmem::dpdk::fail(failed);
}

void* rte_thread_value_get(rte_thread_key key) {
  if (key != nullptr) return ::pthread_getspecific(key->key);
  rte_errno = EINVAL;
  return nullptr;
}

int rte_thread_setname(pthread_t id, const char* name) {
  if (name == nullptr) return -EINVAL;
  std::array<char, RTE_MAX_THREAD_NAME_LEN> cut{};
  std::memcpy(cut.data(), name, ::strnlen(name, cut.size() - 1));
  return -::pthread_setname_np(id, cut.data());
}

int rte_thread_getname(pthread_t id, char* name, size_t len) {
  if (name == nullptr) return -EINVAL;
  return -::pthread_getname_np(id, name, len);
}

int rte_ctrl_thread_create(pthread_t* thread, const char* name, const pthread_attr_t* attr,
                           void* (*start_routine)(void*), void* arg) {
  if (thread == nullptr || start_routine == nullptr) return -EINVAL;
  auto* start = new (std::nothrow) ControlStart{start_routine, arg};
  if (start == nullptr) return -ENOMEM;
  // The caller's attributes are not ours to change: those that a control thread may have are copied.
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  if (attr != nullptr) {
    int detached = 0;
    size_t stack = 0;
    (void)::pthread_attr_getdetachstate(attr, &detached);
    (void)::pthread_attr_setdetachstate(&attributes, detached);
    (void)::pthread_attr_getstacksize(attr, &stack);
    (void)::pthread_attr_setstacksize(&attributes, stack);
  }
  const cpu_set_t cpus = control_cpus();
  ::pthread_attr_setaffinity_np(&attributes, sizeof(cpus), &cpus);
  const int failed = ::pthread_create(thread, &attributes, run_control, start);
  ::pthread_attr_destroy(&attributes);
  if (failed != 0) {
    delete start;
    return -failed;
  }
  if (name != nullptr && rte_thread_setname(*thread, name) != 0) {
    RTE_LOG(DEBUG, EAL, "cannot name the control thread %s\n", name);
  }
  return 0;
}

}  // extern "C"
