/* Spinning locks for many readers or one writer. A writer that waits keeps new readers out.
 *
 * A holder that is killed leaves the lock taken. Nothing of extmem's uses these; they are for programs.
 */
#ifndef EXTMEM_DPDK_RTE_RWLOCK_H
#define EXTMEM_DPDK_RTE_RWLOCK_H

#include <errno.h>
#include <stdint.h>

#include <rte_branch_prediction.h>
#include <rte_common.h>
#include <rte_pause.h>
#include <rte_spinlock.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RTE_RWLOCK_WAIT 0x1  /* a writer waits */
#define RTE_RWLOCK_WRITE 0x2 /* a writer has it */
#define RTE_RWLOCK_MASK (RTE_RWLOCK_WAIT | RTE_RWLOCK_WRITE)
#define RTE_RWLOCK_READ 0x4 /* one reader; the bits above count them */

typedef struct {
  int32_t cnt;
} rte_rwlock_t;

#define RTE_RWLOCK_INITIALIZER \
  { 0 }

static inline void rte_rwlock_init(rte_rwlock_t* rwl) { rwl->cnt = 0; }

/* The try functions return 0, or -EBUSY where it cannot be had now. */
static inline int rte_rwlock_read_trylock(rte_rwlock_t* rwl) {
  if (__atomic_load_n(&rwl->cnt, __ATOMIC_RELAXED) & RTE_RWLOCK_MASK) return -EBUSY;
  if (__atomic_add_fetch(&rwl->cnt, RTE_RWLOCK_READ, __ATOMIC_ACQUIRE) & RTE_RWLOCK_MASK) {
    __atomic_fetch_sub(&rwl->cnt, RTE_RWLOCK_READ, __ATOMIC_RELEASE);
    return -EBUSY;
  }
  return 0;
}
static inline void rte_rwlock_read_lock(rte_rwlock_t* rwl) {
  while (rte_rwlock_read_trylock(rwl) != 0) rte_pause();
}
static inline void rte_rwlock_read_unlock(rte_rwlock_t* rwl) {
  __atomic_fetch_sub(&rwl->cnt, RTE_RWLOCK_READ, __ATOMIC_RELEASE);
}

static inline int rte_rwlock_write_trylock(rte_rwlock_t* rwl) {
  int32_t now = __atomic_load_n(&rwl->cnt, __ATOMIC_RELAXED);
  /* Nobody has it; whether a writer waits stays as it is. */
  if (now >= RTE_RWLOCK_WRITE) return -EBUSY;
  return __atomic_compare_exchange_n(&rwl->cnt, &now, now + RTE_RWLOCK_WRITE, 0, __ATOMIC_ACQUIRE,
                                     __ATOMIC_RELAXED)
             ? 0
             : -EBUSY;
}
static inline void rte_rwlock_write_lock(rte_rwlock_t* rwl) {
  for (;;) {
    int32_t now = __atomic_load_n(&rwl->cnt, __ATOMIC_RELAXED);
    if (now < RTE_RWLOCK_WRITE) {
      /* Taking it clears "a writer waits"; other writers that wait say so again. */
      if (__atomic_compare_exchange_n(&rwl->cnt, &now, RTE_RWLOCK_WRITE, 1, __ATOMIC_ACQUIRE,
                                      __ATOMIC_RELAXED))
        return;
    } else if (!(now & RTE_RWLOCK_WAIT)) {
      __atomic_fetch_or(&rwl->cnt, RTE_RWLOCK_WAIT, __ATOMIC_RELAXED);
    }
    rte_pause();
  }
}
static inline void rte_rwlock_write_unlock(rte_rwlock_t* rwl) {
  __atomic_fetch_sub(&rwl->cnt, RTE_RWLOCK_WRITE, __ATOMIC_RELEASE);
}

/* 1 where a writer has it. */
static inline int rte_rwlock_write_is_locked(rte_rwlock_t* rwl) {
  return (__atomic_load_n(&rwl->cnt, __ATOMIC_RELAXED) & RTE_RWLOCK_WRITE) ? 1 : 0;
}

static inline void rte_rwlock_read_lock_tm(rte_rwlock_t* rwl) { rte_rwlock_read_lock(rwl); }
static inline void rte_rwlock_read_unlock_tm(rte_rwlock_t* rwl) { rte_rwlock_read_unlock(rwl); }
static inline void rte_rwlock_write_lock_tm(rte_rwlock_t* rwl) { rte_rwlock_write_lock(rwl); }
static inline void rte_rwlock_write_unlock_tm(rte_rwlock_t* rwl) { rte_rwlock_write_unlock(rwl); }

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_DPDK_RTE_RWLOCK_H */
