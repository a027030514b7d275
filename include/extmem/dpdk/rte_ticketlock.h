/* Ticket locks: spinlocks that are had in the order of asking.
 *
 * A holder that is killed leaves the lock taken. Nothing of extmem's uses these; they are for programs.
 */
#ifndef EXTMEM_DPDK_RTE_TICKETLOCK_H
#define EXTMEM_DPDK_RTE_TICKETLOCK_H

#include <stdint.h>

#include <rte_common.h>
#include <rte_lcore.h>
#include <rte_pause.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef union {
  uint32_t tickets;
  struct {
    uint16_t current; /* whose turn it is */
    uint16_t next;    /* the next ticket to be given */
  } s;
} rte_ticketlock_t;

#define RTE_TICKETLOCK_INITIALIZER \
  { 0 }

static inline void rte_ticketlock_init(rte_ticketlock_t* tl) {
  __atomic_store_n(&tl->tickets, 0, __ATOMIC_RELAXED);
}

static inline void rte_ticketlock_lock(rte_ticketlock_t* tl) {
  uint16_t mine = __atomic_fetch_add(&tl->s.next, 1, __ATOMIC_RELAXED);
  rte_wait_until_equal_16(&tl->s.current, mine, __ATOMIC_ACQUIRE);
}
static inline void rte_ticketlock_unlock(rte_ticketlock_t* tl) {
  uint16_t current = __atomic_load_n(&tl->s.current, __ATOMIC_RELAXED);
  __atomic_store_n(&tl->s.current, (uint16_t)(current + 1), __ATOMIC_RELEASE);
}
/* Returns: 1 where it was free and is the caller's now, else 0. */
static inline int rte_ticketlock_trylock(rte_ticketlock_t* tl) {
  rte_ticketlock_t seen, wanted;
  seen.tickets = __atomic_load_n(&tl->tickets, __ATOMIC_RELAXED);
  if (seen.s.next != seen.s.current) return 0;
  wanted.tickets = seen.tickets;
  wanted.s.next++;
  return __atomic_compare_exchange_n(&tl->tickets, &seen.tickets, wanted.tickets, 0, __ATOMIC_ACQUIRE,
                                     __ATOMIC_RELAXED)
             ? 1
             : 0;
}
static inline int rte_ticketlock_is_locked(rte_ticketlock_t* tl) {
  rte_ticketlock_t seen;
  seen.tickets = __atomic_load_n(&tl->tickets, __ATOMIC_ACQUIRE);
  return seen.s.current != seen.s.next;
}

/* ---- its holder may take it again, and gives it back as often ---- */

#define TICKET_LOCK_INVALID_ID -1

typedef struct {
  rte_ticketlock_t tl;
  int user;           /* the holder's thread id, or TICKET_LOCK_INVALID_ID */
  unsigned int count; /* how often it has it */
} rte_ticketlock_recursive_t;

#define RTE_TICKETLOCK_RECURSIVE_INITIALIZER \
  { RTE_TICKETLOCK_INITIALIZER, TICKET_LOCK_INVALID_ID, 0 }

static inline void rte_ticketlock_recursive_init(rte_ticketlock_recursive_t* tlr) {
  rte_ticketlock_init(&tlr->tl);
  __atomic_store_n(&tlr->user, TICKET_LOCK_INVALID_ID, __ATOMIC_RELAXED);
  tlr->count = 0;
}
static inline void rte_ticketlock_recursive_lock(rte_ticketlock_recursive_t* tlr) {
  int id = rte_gettid();
  if (__atomic_load_n(&tlr->user, __ATOMIC_RELAXED) != id) {
    rte_ticketlock_lock(&tlr->tl);
    __atomic_store_n(&tlr->user, id, __ATOMIC_RELAXED);
  }
  tlr->count++;
}
static inline int rte_ticketlock_recursive_trylock(rte_ticketlock_recursive_t* tlr) {
  int id = rte_gettid();
  if (__atomic_load_n(&tlr->user, __ATOMIC_RELAXED) != id) {
    if (rte_ticketlock_trylock(&tlr->tl) == 0) return 0;
    __atomic_store_n(&tlr->user, id, __ATOMIC_RELAXED);
  }
  tlr->count++;
  return 1;
}
static inline void rte_ticketlock_recursive_unlock(rte_ticketlock_recursive_t* tlr) {
  if (--tlr->count != 0) return;
  __atomic_store_n(&tlr->user, TICKET_LOCK_INVALID_ID, __ATOMIC_RELAXED);
  rte_ticketlock_unlock(&tlr->tl);
}

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_DPDK_RTE_TICKETLOCK_H */
