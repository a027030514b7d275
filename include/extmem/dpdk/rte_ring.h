/* Rings: queues of fixed size, of pointers or of other elements, without locks.
 *
 * Programs that allocate memory often hand it on by these. A ring that rte_ring_create() makes lies in the memzone
 * "RG_NAME"; one that rte_ring_init() makes lies where the caller wants it.
 * Thread-safety: any number of producers and consumers; with RING_F_SP_ENQ one producer, with RING_F_SC_DEQ one consumer
 * at a time. The _sp_, _mp_, _sc_ and _mc_ functions say so themselves. A thread that is killed between taking its place
 * and giving it free holds the others up; extmem's own rings (extmem_ring.h) survive that.
 */
#ifndef EXTMEM_DPDK_RTE_RING_H
#define EXTMEM_DPDK_RTE_RING_H

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>

#include <rte_branch_prediction.h>
#include <rte_common.h>
#include <rte_config.h>
#include <rte_memory.h>
#include <rte_memzone.h>
#include <rte_pause.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RTE_RING_MZ_PREFIX "RG_"
#define RTE_RING_NAMESIZE (RTE_MEMZONE_NAMESIZE - sizeof(RTE_RING_MZ_PREFIX) + 1) /* with the final zero */
#define RTE_RING_SZ_MASK (0x7fffffffU)                                            /* the most elements */

#define RING_F_SP_ENQ 0x0001   /* rte_ring_enqueue*(): one producer at a time */
#define RING_F_SC_DEQ 0x0002   /* rte_ring_dequeue*(): one consumer at a time */
#define RING_F_EXACT_SZ 0x0004 /* holds exactly `count`; without, count is a power of two and count - 1 fit */
#define RING_F_MP_RTS_ENQ 0x0008 /* other ways for many to agree on their turn: here as without a flag */
#define RING_F_MC_RTS_DEQ 0x0010
#define RING_F_MP_HTS_ENQ 0x0020
#define RING_F_MC_HTS_DEQ 0x0040

enum rte_ring_queue_behavior {
  RTE_RING_QUEUE_FIXED = 0, /* all or nothing: bulk */
  RTE_RING_QUEUE_VARIABLE   /* as many as fit: burst */
};

enum rte_ring_sync_type { RTE_RING_SYNC_MT, RTE_RING_SYNC_ST, RTE_RING_SYNC_MT_RTS, RTE_RING_SYNC_MT_HTS };

/* Who has taken places (head), and up to where they are done (tail). Both only count up, and wrap. */
struct rte_ring_headtail {
  volatile uint32_t head;
  volatile uint32_t tail;
  enum rte_ring_sync_type sync_type;
};

struct rte_ring {
  char name[RTE_RING_NAMESIZE] __rte_cache_aligned;
  int flags;
  const struct rte_memzone* memzone; /* as its creator sees it; NULL after rte_ring_init() */
  uint32_t size;                     /* a power of two */
  uint32_t mask;
  uint32_t capacity;
  struct rte_ring_headtail prod __rte_cache_aligned;
  char pad1 __rte_cache_aligned;
  struct rte_ring_headtail cons __rte_cache_aligned;
  char pad2 __rte_cache_aligned;
  /* The elements follow. */
};

/* ---- making and finding ---- */

/* Bytes of a ring for `count` pointers, or elements of `esize` bytes. Returns: -EINVAL for a count that is no power of two
 * or above RTE_RING_SZ_MASK, or an esize that is no multiple of 4. */
ssize_t rte_ring_get_memsize(unsigned int count);
ssize_t rte_ring_get_memsize_elem(unsigned int esize, unsigned int count);

/* Makes an empty ring in memory of that many bytes (with RING_F_EXACT_SZ: for rte_align32pow2(count + 1)).
 * Returns: 0; -EINVAL the count or unknown or contradicting flags; -ENAMETOOLONG. */
int rte_ring_init(struct rte_ring* r, const char* name, unsigned int count, unsigned int flags);

/* Makes one in a memzone. Returns: NULL with rte_errno: EINVAL, ENAMETOOLONG, EEXIST, ENOSPC, ENOMEM. */
struct rte_ring* rte_ring_create(const char* name, unsigned int count, int socket_id, unsigned int flags);
struct rte_ring* rte_ring_create_elem(const char* name, unsigned int esize, unsigned int count, int socket_id,
                                      unsigned int flags);
/* Frees what rte_ring_create() made; nothing for NULL or another ring. */
void rte_ring_free(struct rte_ring* r);
/* Returns: NULL with rte_errno ENOENT where no ring has that name. */
struct rte_ring* rte_ring_lookup(const char* name);

/* Empties it. Nobody else may use it meanwhile. */
void rte_ring_reset(struct rte_ring* r);
void rte_ring_dump(FILE* f, const struct rte_ring* r);
void rte_ring_list_dump(FILE* f);

/* ---- asking; of the moment ---- */

static inline unsigned int rte_ring_count(const struct rte_ring* r) {
  uint32_t count = (r->prod.tail - r->cons.tail) & r->mask;
  return count > r->capacity ? r->capacity : count;
}
static inline unsigned int rte_ring_get_size(const struct rte_ring* r) { return r->size; }
static inline unsigned int rte_ring_get_capacity(const struct rte_ring* r) { return r->capacity; }
static inline unsigned int rte_ring_free_count(const struct rte_ring* r) {
  return r->capacity - rte_ring_count(r);
}
static inline int rte_ring_full(const struct rte_ring* r) { return rte_ring_free_count(r) == 0; }
static inline int rte_ring_empty(const struct rte_ring* r) { return r->prod.tail == r->cons.tail; }
static inline enum rte_ring_sync_type rte_ring_get_prod_sync_type(const struct rte_ring* r) {
  return r->prod.sync_type;
}
static inline enum rte_ring_sync_type rte_ring_get_cons_sync_type(const struct rte_ring* r) {
  return r->cons.sync_type;
}
static inline int rte_ring_is_prod_single(const struct rte_ring* r) {
  return r->prod.sync_type == RTE_RING_SYNC_ST;
}
static inline int rte_ring_is_cons_single(const struct rte_ring* r) {
  return r->cons.sync_type == RTE_RING_SYNC_ST;
}

/* ---- the two moves that everything below is made of; private ---- */

/* Takes `n` places of `mine`, whose limit is `room` beyond the tail of `other`. Returns: how many, from *first on. */
static __rte_always_inline unsigned int rte_ring_take_(struct rte_ring_headtail* mine,
                                                       const struct rte_ring_headtail* other, uint32_t room,
                                                       unsigned int n, enum rte_ring_queue_behavior behavior,
                                                       int single, uint32_t* first, uint32_t* left) {
  uint32_t head = __atomic_load_n(&mine->head, __ATOMIC_RELAXED);
  for (;;) {
    unsigned int taken = n;
    /* Acquire: this load after the one of head, so that the difference is never too large; and it pairs with the
     * release in rte_ring_give_(): what lies in the places was copied before. */
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    *left = room + __atomic_load_n(&other->tail, __ATOMIC_ACQUIRE) - head;
    if (taken > *left) taken = behavior == RTE_RING_QUEUE_FIXED ? 0 : *left;
    *first = head;
    if (taken == 0) return 0;
    if (single) {
      __atomic_store_n(&mine->head, head + taken, __ATOMIC_RELAXED);
    } else if (!__atomic_compare_exchange_n(&mine->head, &head, head + taken, 1, __ATOMIC_RELAXED,
                                            __ATOMIC_RELAXED)) {
      continue;
    }
    *left -= taken;
    return taken;
  }
}

/* Says that the places are done, in the order in which they were taken. */
static __rte_always_inline void rte_ring_give_(struct rte_ring_headtail* mine, uint32_t first, unsigned int n,
                                               int single) {
  if (!single) rte_wait_until_equal_32(&mine->tail, first, __ATOMIC_RELAXED);
  __atomic_store_n(&mine->tail, first + n, __ATOMIC_RELEASE);
}

static __rte_always_inline unsigned int rte_ring_put_(struct rte_ring* r, const void* objects,
                                                      unsigned int esize, unsigned int n,
                                                      enum rte_ring_queue_behavior behavior, int single,
                                                      unsigned int* free_space) {
  uint32_t first, left;
  n = rte_ring_take_(&r->prod, &r->cons, r->capacity, n, behavior, single, &first, &left);
  if (n != 0) {
    uint32_t at = first & r->mask;
    uint32_t here = RTE_MIN(n, r->size - at);
    char* elements = (char*)&r[1];
    memcpy(elements + (size_t)at * esize, objects, (size_t)here * esize);
    memcpy(elements, (const char*)objects + (size_t)here * esize, (size_t)(n - here) * esize);
    rte_ring_give_(&r->prod, first, n, single);
  }
  if (free_space != NULL) *free_space = left;
  return n;
}

static __rte_always_inline unsigned int rte_ring_get_(struct rte_ring* r, void* objects, unsigned int esize,
                                                      unsigned int n, enum rte_ring_queue_behavior behavior,
                                                      int single, unsigned int* available) {
  uint32_t first, left;
  n = rte_ring_take_(&r->cons, &r->prod, 0, n, behavior, single, &first, &left);
  if (n != 0) {
    uint32_t at = first & r->mask;
    uint32_t here = RTE_MIN(n, r->size - at);
    const char* elements = (const char*)&r[1];
    memcpy(objects, elements + (size_t)at * esize, (size_t)here * esize);
    memcpy((char*)objects + (size_t)here * esize, elements, (size_t)(n - here) * esize);
    rte_ring_give_(&r->cons, first, n, single);
  }
  if (available != NULL) *available = left;
  return n;
}

/* ---- elements of `esize` bytes ----
 *
 * bulk: all n or none; returns n or 0. burst: as many as there is room (or are there); returns how many. One alone returns
 * 0, or -ENOBUFS where the ring is full, -ENOENT where it is empty. *free_space and *available are what is left
 * afterwards; either may be NULL. */

static __rte_always_inline unsigned int rte_ring_mp_enqueue_bulk_elem(struct rte_ring* r,
                                                                      const void* obj_table,
                                                                      unsigned int esize, unsigned int n,
                                                                      unsigned int* free_space) {
  return rte_ring_put_(r, obj_table, esize, n, RTE_RING_QUEUE_FIXED, 0, free_space);
}
static __rte_always_inline unsigned int rte_ring_mp_enqueue_burst_elem(struct rte_ring* r,
                                                                       const void* obj_table,
                                                                       unsigned int esize, unsigned int n,
                                                                       unsigned int* free_space) {
  return rte_ring_put_(r, obj_table, esize, n, RTE_RING_QUEUE_VARIABLE, 0, free_space);
}
static __rte_always_inline int rte_ring_mp_enqueue_elem(struct rte_ring* r, void* obj, unsigned int esize) {
  return rte_ring_mp_enqueue_bulk_elem(r, obj, esize, 1, NULL) != 0 ? 0 : -ENOBUFS;
}
static __rte_always_inline unsigned int rte_ring_sp_enqueue_bulk_elem(struct rte_ring* r,
                                                                      const void* obj_table,
                                                                      unsigned int esize, unsigned int n,
                                                                      unsigned int* free_space) {
  return rte_ring_put_(r, obj_table, esize, n, RTE_RING_QUEUE_FIXED, 1, free_space);
}
static __rte_always_inline unsigned int rte_ring_sp_enqueue_burst_elem(struct rte_ring* r,
                                                                       const void* obj_table,
                                                                       unsigned int esize, unsigned int n,
                                                                       unsigned int* free_space) {
  return rte_ring_put_(r, obj_table, esize, n, RTE_RING_QUEUE_VARIABLE, 1, free_space);
}
static __rte_always_inline int rte_ring_sp_enqueue_elem(struct rte_ring* r, void* obj, unsigned int esize) {
  return rte_ring_sp_enqueue_bulk_elem(r, obj, esize, 1, NULL) != 0 ? 0 : -ENOBUFS;
}
static __rte_always_inline unsigned int rte_ring_enqueue_bulk_elem(struct rte_ring* r, const void* obj_table,
                                                                   unsigned int esize, unsigned int n,
                                                                   unsigned int* free_space) {
  return rte_ring_put_(r, obj_table, esize, n, RTE_RING_QUEUE_FIXED, rte_ring_is_prod_single(r), free_space);
}
static __rte_always_inline unsigned int rte_ring_enqueue_burst_elem(struct rte_ring* r, const void* obj_table,
                                                                    unsigned int esize, unsigned int n,
                                                                    unsigned int* free_space) {
  return rte_ring_put_(r, obj_table, esize, n, RTE_RING_QUEUE_VARIABLE, rte_ring_is_prod_single(r),
                       free_space);
}
static __rte_always_inline int rte_ring_enqueue_elem(struct rte_ring* r, void* obj, unsigned int esize) {
  return rte_ring_enqueue_bulk_elem(r, obj, esize, 1, NULL) != 0 ? 0 : -ENOBUFS;
}

static __rte_always_inline unsigned int rte_ring_mc_dequeue_bulk_elem(struct rte_ring* r, void* obj_table,
                                                                      unsigned int esize, unsigned int n,
                                                                      unsigned int* available) {
  return rte_ring_get_(r, obj_table, esize, n, RTE_RING_QUEUE_FIXED, 0, available);
}
static __rte_always_inline unsigned int rte_ring_mc_dequeue_burst_elem(struct rte_ring* r, void* obj_table,
                                                                       unsigned int esize, unsigned int n,
                                                                       unsigned int* available) {
  return rte_ring_get_(r, obj_table, esize, n, RTE_RING_QUEUE_VARIABLE, 0, available);
}
static __rte_always_inline int rte_ring_mc_dequeue_elem(struct rte_ring* r, void* obj_p, unsigned int esize) {
  return rte_ring_mc_dequeue_bulk_elem(r, obj_p, esize, 1, NULL) != 0 ? 0 : -ENOENT;
}
static __rte_always_inline unsigned int rte_ring_sc_dequeue_bulk_elem(struct rte_ring* r, void* obj_table,
                                                                      unsigned int esize, unsigned int n,
                                                                      unsigned int* available) {
  return rte_ring_get_(r, obj_table, esize, n, RTE_RING_QUEUE_FIXED, 1, available);
}
static __rte_always_inline unsigned int rte_ring_sc_dequeue_burst_elem(struct rte_ring* r, void* obj_table,
                                                                       unsigned int esize, unsigned int n,
                                                                       unsigned int* available) {
  return rte_ring_get_(r, obj_table, esize, n, RTE_RING_QUEUE_VARIABLE, 1, available);
}
static __rte_always_inline int rte_ring_sc_dequeue_elem(struct rte_ring* r, void* obj_p, unsigned int esize) {
  return rte_ring_sc_dequeue_bulk_elem(r, obj_p, esize, 1, NULL) != 0 ? 0 : -ENOENT;
}
static __rte_always_inline unsigned int rte_ring_dequeue_bulk_elem(struct rte_ring* r, void* obj_table,
                                                                   unsigned int esize, unsigned int n,
                                                                   unsigned int* available) {
  return rte_ring_get_(r, obj_table, esize, n, RTE_RING_QUEUE_FIXED, rte_ring_is_cons_single(r), available);
}
static __rte_always_inline unsigned int rte_ring_dequeue_burst_elem(struct rte_ring* r, void* obj_table,
                                                                    unsigned int esize, unsigned int n,
                                                                    unsigned int* available) {
  return rte_ring_get_(r, obj_table, esize, n, RTE_RING_QUEUE_VARIABLE, rte_ring_is_cons_single(r),
                       available);
}
static __rte_always_inline int rte_ring_dequeue_elem(struct rte_ring* r, void* obj_p, unsigned int esize) {
  return rte_ring_dequeue_bulk_elem(r, obj_p, esize, 1, NULL) != 0 ? 0 : -ENOENT;
}

/* ---- pointers ---- */

static __rte_always_inline unsigned int rte_ring_mp_enqueue_bulk(struct rte_ring* r, void* const* obj_table,
                                                                 unsigned int n, unsigned int* free_space) {
  return rte_ring_mp_enqueue_bulk_elem(r, obj_table, sizeof(void*), n, free_space);
}
static __rte_always_inline unsigned int rte_ring_mp_enqueue_burst(struct rte_ring* r, void* const* obj_table,
                                                                  unsigned int n, unsigned int* free_space) {
  return rte_ring_mp_enqueue_burst_elem(r, obj_table, sizeof(void*), n, free_space);
}
static __rte_always_inline int rte_ring_mp_enqueue(struct rte_ring* r, void* obj) {
  return rte_ring_mp_enqueue_elem(r, &obj, sizeof(void*));
}
static __rte_always_inline unsigned int rte_ring_sp_enqueue_bulk(struct rte_ring* r, void* const* obj_table,
                                                                 unsigned int n, unsigned int* free_space) {
  return rte_ring_sp_enqueue_bulk_elem(r, obj_table, sizeof(void*), n, free_space);
}
static __rte_always_inline unsigned int rte_ring_sp_enqueue_burst(struct rte_ring* r, void* const* obj_table,
                                                                  unsigned int n, unsigned int* free_space) {
  return rte_ring_sp_enqueue_burst_elem(r, obj_table, sizeof(void*), n, free_space);
}
static __rte_always_inline int rte_ring_sp_enqueue(struct rte_ring* r, void* obj) {
  return rte_ring_sp_enqueue_elem(r, &obj, sizeof(void*));
}
static __rte_always_inline unsigned int rte_ring_enqueue_bulk(struct rte_ring* r, void* const* obj_table,
                                                              unsigned int n, unsigned int* free_space) {
  return rte_ring_enqueue_bulk_elem(r, obj_table, sizeof(void*), n, free_space);
}
static __rte_always_inline unsigned int rte_ring_enqueue_burst(struct rte_ring* r, void* const* obj_table,
                                                               unsigned int n, unsigned int* free_space) {
  return rte_ring_enqueue_burst_elem(r, obj_table, sizeof(void*), n, free_space);
}
static __rte_always_inline int rte_ring_enqueue(struct rte_ring* r, void* obj) {
  return rte_ring_enqueue_elem(r, &obj, sizeof(void*));
}

static __rte_always_inline unsigned int rte_ring_mc_dequeue_bulk(struct rte_ring* r, void** obj_table,
                                                                 unsigned int n, unsigned int* available) {
  return rte_ring_mc_dequeue_bulk_elem(r, obj_table, sizeof(void*), n, available);
}
static __rte_always_inline unsigned int rte_ring_mc_dequeue_burst(struct rte_ring* r, void** obj_table,
                                                                  unsigned int n, unsigned int* available) {
  return rte_ring_mc_dequeue_burst_elem(r, obj_table, sizeof(void*), n, available);
}
static __rte_always_inline int rte_ring_mc_dequeue(struct rte_ring* r, void** obj_p) {
  return rte_ring_mc_dequeue_elem(r, obj_p, sizeof(void*));
}
static __rte_always_inline unsigned int rte_ring_sc_dequeue_bulk(struct rte_ring* r, void** obj_table,
                                                                 unsigned int n, unsigned int* available) {
  return rte_ring_sc_dequeue_bulk_elem(r, obj_table, sizeof(void*), n, available);
}
static __rte_always_inline unsigned int rte_ring_sc_dequeue_burst(struct rte_ring* r, void** obj_table,
                                                                  unsigned int n, unsigned int* available) {
  return rte_ring_sc_dequeue_burst_elem(r, obj_table, sizeof(void*), n, available);
}
static __rte_always_inline int rte_ring_sc_dequeue(struct rte_ring* r, void** obj_p) {
  return rte_ring_sc_dequeue_elem(r, obj_p, sizeof(void*));
}
static __rte_always_inline unsigned int rte_ring_dequeue_bulk(struct rte_ring* r, void** obj_table,
                                                              unsigned int n, unsigned int* available) {
  return rte_ring_dequeue_bulk_elem(r, obj_table, sizeof(void*), n, available);
}
static __rte_always_inline unsigned int rte_ring_dequeue_burst(struct rte_ring* r, void** obj_table,
                                                               unsigned int n, unsigned int* available) {
  return rte_ring_dequeue_burst_elem(r, obj_table, sizeof(void*), n, available);
}
static __rte_always_inline int rte_ring_dequeue(struct rte_ring* r, void** obj_p) {
  return rte_ring_dequeue_elem(r, obj_p, sizeof(void*));
}

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_DPDK_RTE_RING_H */
