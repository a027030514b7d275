/* Spinlocks: short critical sections between threads that do not sleep.
 *
 * A holder that is killed leaves the lock taken. Nothing of extmem's uses these; they are for programs.
 * The _tm functions would try transactional memory first, where the processor has it. Here they are plain locks.
 */
#ifndef EXTMEM_DPDK_RTE_SPINLOCK_H
#define EXTMEM_DPDK_RTE_SPINLOCK_H

#include <rte_branch_prediction.h>
#include <rte_common.h>
#include <rte_cycles.h>
#include <rte_lcore.h>
#include <rte_pause.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
  volatile int locked; /* 0 or 1 */
} rte_spinlock_t;

#define RTE_SPINLOCK_INITIALIZER \
  { 0 }

static inline void rte_spinlock_init(rte_spinlock_t* sl) { sl->locked = 0; }

/* Returns: 1 where it was free and is the caller's now, else 0. */
static inline int rte_spinlock_trylock(rte_spinlock_t* sl) {
  int free_value = 0;
  return __atomic_compare_exchange_n(&sl->locked, &free_value, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED) ? 1
                                                                                                         : 0;
}
static inline void rte_spinlock_lock(rte_spinlock_t* sl) {
  while (!rte_spinlock_trylock(sl)) {
    while (__atomic_load_n(&sl->locked, __ATOMIC_RELAXED)) rte_pause();
  }
}
static inline void rte_spinlock_unlock(rte_spinlock_t* sl) {
  __atomic_store_n(&sl->locked, 0, __ATOMIC_RELEASE);
}
static inline int rte_spinlock_is_locked(rte_spinlock_t* sl) {
  return __atomic_load_n(&sl->locked, __ATOMIC_ACQUIRE);
}

static inline int rte_tm_supported(void) { return 0; }
static inline void rte_spinlock_lock_tm(rte_spinlock_t* sl) { rte_spinlock_lock(sl); }
static inline void rte_spinlock_unlock_tm(rte_spinlock_t* sl) { rte_spinlock_unlock(sl); }
static inline int rte_spinlock_trylock_tm(rte_spinlock_t* sl) { return rte_spinlock_trylock(sl); }

/* ---- its holder may take it again, and gives it back as often ---- */

typedef struct {
  rte_spinlock_t sl;
  volatile int user;  /* the holder's thread id, or -1 */
  volatile int count; /* how often it has it */
} rte_spinlock_recursive_t;

#define RTE_SPINLOCK_RECURSIVE_INITIALIZER \
  { RTE_SPINLOCK_INITIALIZER, -1, 0 }

static inline void rte_spinlock_recursive_init(rte_spinlock_recursive_t* slr) {
  rte_spinlock_init(&slr->sl);
  slr->user = -1;
  slr->count = 0;
}
static inline int rte_spinlock_recursive_trylock(rte_spinlock_recursive_t* slr) {
  int id = rte_gettid();
  /* Only the caller itself can have written its own id. */
  if (__atomic_load_n(&slr->user, __ATOMIC_RELAXED) != id) {
    if (!rte_spinlock_trylock(&slr->sl)) return 0;
    __atomic_store_n(&slr->user, id, __ATOMIC_RELAXED);
  }
  slr->count = slr->count + 1;
  return 1;
}
static inline void rte_spinlock_recursive_lock(rte_spinlock_recursive_t* slr) {
  int id = rte_gettid();
  if (__atomic_load_n(&slr->user, __ATOMIC_RELAXED) != id) {
    rte_spinlock_lock(&slr->sl);
    __atomic_store_n(&slr->user, id, __ATOMIC_RELAXED);
  }
  slr->count = slr->count + 1;
}
static inline void rte_spinlock_recursive_unlock(rte_spinlock_recursive_t* slr) {
  slr->count = slr->count - 1;
  if (slr->count != 0) return;
  __atomic_store_n(&slr->user, -1, __ATOMIC_RELAXED);
  rte_spinlock_unlock(&slr->sl);
}

static inline void rte_spinlock_recursive_lock_tm(rte_spinlock_recursive_t* slr) {
  rte_spinlock_recursive_lock(slr);
}
static inline void rte_spinlock_recursive_unlock_tm(rte_spinlock_recursive_t* slr) {
  rte_spinlock_recursive_unlock(slr);
}
static inline int rte_spinlock_recursive_trylock_tm(rte_spinlock_recursive_t* slr) {
  return rte_spinlock_recursive_trylock(slr);
}

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_DPDK_RTE_SPINLOCK_H */
