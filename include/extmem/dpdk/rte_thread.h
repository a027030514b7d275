/* Threads: making and joining them, where they run, their priority, and their own values.
 *
 * Unless said otherwise a function returns 0 or a positive errno value: EINVAL for a NULL argument, or what pthread
 * says. Thread-safety: any thread, any time.
 */
#ifndef EXTMEM_DPDK_RTE_THREAD_H
#define EXTMEM_DPDK_RTE_THREAD_H

#include <stddef.h>
#include <stdint.h>

#include <rte_compat.h>
#include <rte_os.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
  uintptr_t opaque_id;
} rte_thread_t;

typedef uint32_t (*rte_thread_func)(void* arg);

enum rte_thread_priority {
  RTE_THREAD_PRIORITY_NORMAL = 0,
  RTE_THREAD_PRIORITY_REALTIME_CRITICAL = 1 /* refused on Linux: such a thread can starve the kernel's */
};

typedef struct {
  enum rte_thread_priority priority;
#ifdef RTE_HAS_CPUSET
  rte_cpuset_t cpuset; /* empty: wherever its maker may run */
#endif
} rte_thread_attr_t;

typedef struct eal_tls_key* rte_thread_key;

/* Makes a thread that runs thread_func(arg). attr NULL: normal priority, wherever its maker may run. */
int rte_thread_create(rte_thread_t* thread_id, const rte_thread_attr_t* thread_attr,
                      rte_thread_func thread_func, void* arg);
/* Waits for its end; its result goes to *value_ptr unless that is NULL. */
int rte_thread_join(rte_thread_t thread_id, uint32_t* value_ptr);
int rte_thread_detach(rte_thread_t thread_id);
rte_thread_t rte_thread_self(void);
/* 1 where both are the same thread, else 0. */
int rte_thread_equal(rte_thread_t t1, rte_thread_t t2);

int rte_thread_attr_init(rte_thread_attr_t* attr);
int rte_thread_attr_set_priority(rte_thread_attr_t* thread_attr, enum rte_thread_priority priority);

#ifdef RTE_HAS_CPUSET
int rte_thread_attr_set_affinity(rte_thread_attr_t* thread_attr, rte_cpuset_t* cpuset);
int rte_thread_attr_get_affinity(rte_thread_attr_t* thread_attr, rte_cpuset_t* cpuset);
int rte_thread_set_affinity_by_id(rte_thread_t thread_id, const rte_cpuset_t* cpuset);
int rte_thread_get_affinity_by_id(rte_thread_t thread_id, rte_cpuset_t* cpuset);

/* Moves the calling thread to these processors; rte_socket_id() and rte_lcore_cpuset() follow. Returns: 0 or -1. */
int rte_thread_set_affinity(rte_cpuset_t* cpusetp);
/* The processors of the calling thread. */
void rte_thread_get_affinity(rte_cpuset_t* cpusetp);
#endif

int rte_thread_get_priority(rte_thread_t thread_id, enum rte_thread_priority* priority);
int rte_thread_set_priority(rte_thread_t thread_id, enum rte_thread_priority priority);

/* Values of which every thread has its own; the destructor runs where a thread ends with one that is not NULL.
 * Return 0, or -1 with rte_errno: EINVAL, ENOMEM, EAGAIN too many keys. */
int rte_thread_key_create(rte_thread_key* key, void (*destructor)(void*));
int rte_thread_key_delete(rte_thread_key key);
int rte_thread_value_set(rte_thread_key key, const void* value);
/* NULL where none was set; for a NULL key with rte_errno EINVAL. */
void* rte_thread_value_get(rte_thread_key key);

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_DPDK_RTE_THREAD_H */
