/* Lcores: threads that are pinned to processors and known by a number, and the NUMA nodes ("sockets") they are on.
 *
 * rte_eal_init() makes one for each processor that -l, -c or --lcores names. The caller's thread is the main lcore,
 * the others are workers; other threads may register. An id is below RTE_MAX_LCORE.
 * Thread-safety: any thread, any time after rte_eal_init(). Before it there are no lcores.
 */
#ifndef EXTMEM_DPDK_RTE_LCORE_H
#define EXTMEM_DPDK_RTE_LCORE_H

#include <pthread.h>
#include <stdio.h>

#include <rte_compat.h>
#include <rte_config.h>
#include <rte_eal.h>
#include <rte_launch.h>
#include <rte_per_lcore.h>
#include <rte_thread.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LCORE_ID_ANY UINT32_MAX /* the id of a thread that is no lcore */

RTE_DECLARE_PER_LCORE(unsigned, _lcore_id);

enum rte_lcore_role_t {
  ROLE_RTE,     /* main or worker */
  ROLE_OFF,     /* no lcore */
  ROLE_SERVICE, /* -s or -S: set aside; there are no services in extmem */
  ROLE_NON_EAL  /* a thread that has registered */
};

/* The role; ROLE_OFF for an id that is too high. */
enum rte_lcore_role_t rte_eal_lcore_role(unsigned int lcore_id);
/* 1 where the lcore has that role, else 0. */
int rte_lcore_has_role(unsigned int lcore_id, enum rte_lcore_role_t role);

/* The calling thread's lcore, or LCORE_ID_ANY. */
static inline unsigned rte_lcore_id(void) { return RTE_PER_LCORE(_lcore_id); }

unsigned int rte_get_main_lcore(void);
/* How many lcores there are: main, workers, and registered threads. */
unsigned int rte_lcore_count(void);
/* The lcore's place among main and workers, from 0; -1: the caller's. Returns: -1 where it is none of these. */
int rte_lcore_index(int lcore_id);
int rte_lcore_is_enabled(unsigned int lcore_id);

/* The processors it runs on; empty for an id that is too high or off. */
#ifdef RTE_HAS_CPUSET
rte_cpuset_t rte_lcore_cpuset(unsigned int lcore_id);
#endif
/* The number of the processor's core inside its package; -1: the caller's. Returns: -EINVAL for no lcore. */
int rte_lcore_to_cpu_id(int lcore_id);

/* The next enabled lcore after `i`, for the first one i = -1. wrap: go on at the lowest.
 * Returns: RTE_MAX_LCORE where there is none. */
unsigned int rte_get_next_lcore(unsigned int i, int skip_main, int wrap);

#define RTE_LCORE_FOREACH(i) \
  for (i = rte_get_next_lcore(-1, 0, 0); i < RTE_MAX_LCORE; i = rte_get_next_lcore(i, 0, 0))
#define RTE_LCORE_FOREACH_WORKER(i) \
  for (i = rte_get_next_lcore(-1, 1, 0); i < RTE_MAX_LCORE; i = rte_get_next_lcore(i, 1, 0))

/* ---- sockets ---- */

/* The NUMA node that the calling thread is pinned to; SOCKET_ID_ANY (-1) for one that is on several, or no lcore. */
unsigned int rte_socket_id(void);
/* How many NUMA nodes have processors. */
unsigned int rte_socket_count(void);
/* The id of the node with that index, in ascending order. Returns: -1 with rte_errno EINVAL for too high an index. */
int rte_socket_id_by_idx(unsigned int idx);
/* The other way round: -1 with rte_errno EINVAL where no node has that id. (From the RFC; not in DPDK.) */
int rte_socket_idx_by_id(unsigned int socket);
/* The node of an lcore; 0 for an id that is too high. */
unsigned int rte_lcore_to_socket_id(unsigned int lcore_id);

/* ---- callbacks and registered threads ---- */

typedef int (*rte_lcore_init_cb)(unsigned int lcore_id, void* arg);
typedef void (*rte_lcore_uninit_cb)(unsigned int lcore_id, void* arg);

/* Calls `init` for each lcore that is there, and from now on for each that comes, `uninit` for each that goes. A
 * negative result of `init` refuses: here, those before are undone and NULL is returned; later, the thread is not
 * registered. Either function may be NULL. `name` is for messages. Returns: a handle, or NULL with rte_errno ENOMEM
 * or EPERM (refused). Inside, registering lcores or callbacks deadlocks. */
void* rte_lcore_callback_register(const char* name, rte_lcore_init_cb init, rte_lcore_uninit_cb uninit,
                                  void* arg);
/* Calls `uninit` for each lcore and forgets the callback. NULL: nothing. */
void rte_lcore_callback_unregister(void* handle);

typedef int (*rte_lcore_iterate_cb)(unsigned int lcore_id, void* arg);

/* Calls `cb` for each lcore of any role; a result that is not 0 ends it and is returned. */
int rte_lcore_iterate(rte_lcore_iterate_cb cb, void* arg);
/* Writes one line for each lcore. */
void rte_lcore_dump(FILE* f);

/* Gives the calling thread an lcore id (role ROLE_NON_EAL); one that has an id keeps it.
 * Returns: 0, or -1 with rte_errno EINVAL before rte_eal_init(), ENOMEM no id is free or a callback refused. */
int rte_thread_register(void);
/* Gives the id back; nothing for a thread that did not register. */
void rte_thread_unregister(void);

/* ---- threads ---- */

/* Names a thread, cut to 15 bytes. Returns: 0, or a negative errno value. */
int rte_thread_setname(pthread_t id, const char* name);
int rte_thread_getname(pthread_t id, char* name, size_t len);

/* Makes a thread that runs beside the lcores: on the processors of the process that no lcore has, where there are
 * any. Returns: 0, or a negative errno value. */
int rte_ctrl_thread_create(pthread_t* thread, const char* name, const pthread_attr_t* attr,
                           void* (*start_routine)(void*), void* arg);

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_DPDK_RTE_LCORE_H */
