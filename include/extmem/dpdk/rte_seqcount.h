/* Sequence counters: readers look again where a writer was there meanwhile. One writer at a time.
 *
 *   do {
 *     begin = rte_seqcount_read_begin(&count);
 *     ... copy the data ...
 *   } while (rte_seqcount_read_retry(&count, begin));
 */
#ifndef EXTMEM_DPDK_RTE_SEQCOUNT_H
#define EXTMEM_DPDK_RTE_SEQCOUNT_H

#include <stdbool.h>
#include <stdint.h>

#include <rte_atomic.h>
#include <rte_branch_prediction.h>
#include <rte_compat.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
  uint32_t sn; /* odd while a writer is there */
} rte_seqcount_t;

#define RTE_SEQCOUNT_INITIALIZER \
  { 0 }

static inline void rte_seqcount_init(rte_seqcount_t* seqcount) { seqcount->sn = 0; }

/* Pairs with the release in write_end: the data is not older than the number. */
static inline uint32_t rte_seqcount_read_begin(const rte_seqcount_t* seqcount) {
  return __atomic_load_n(&seqcount->sn, __ATOMIC_ACQUIRE);
}
/* True where the data may be torn: a writer was there at the beginning, or has come since. */
static inline bool rte_seqcount_read_retry(const rte_seqcount_t* seqcount, uint32_t begin_sn) {
  if (unlikely(begin_sn & 1)) return true;
  rte_atomic_thread_fence(__ATOMIC_ACQUIRE); /* the data before the number */
  return begin_sn != __atomic_load_n(&seqcount->sn, __ATOMIC_RELAXED);
}

static inline void rte_seqcount_write_begin(rte_seqcount_t* seqcount) {
  __atomic_store_n(&seqcount->sn, seqcount->sn + 1, __ATOMIC_RELAXED);
  rte_atomic_thread_fence(__ATOMIC_RELEASE); /* the number before the data */
}
static inline void rte_seqcount_write_end(rte_seqcount_t* seqcount) {
  __atomic_store_n(&seqcount->sn, seqcount->sn + 1, __ATOMIC_RELEASE);
}

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_DPDK_RTE_SEQCOUNT_H */
