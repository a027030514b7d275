/* Rings for C: passing region pointers between threads and processes, without locks. Included by extmem.h, which
 * states what all functions have in common (errors, threads, strings, units).
 *
 * A ring lies in plain shared memory, a memzone say, and every process maps it where it likes. An SPSC ring has one
 * producer and one consumer at a time; an MPMC ring has any number of both. Any participant may be killed at any time:
 * each element that was pushed is delivered, still in the ring, or reported as an orphan, exactly one of these.
 *
 * Beyond what extmem.h states, every function that takes a ring fails with EINVAL when the handle is {NULL, 0}, and
 * with EBADMSG when something else has written to the ring's memory.
 */
#ifndef EXTMEM_EXTMEM_RING_H
#define EXTMEM_EXTMEM_RING_H

#include "extmem/extmem_types.h"

#ifdef __cplusplus
extern "C" {
#endif

#define EXTMEM_RING_ALIGN 64                /* of the memory that a ring lies in */
#define EXTMEM_RING_MAX_CAPACITY 0x40000000 /* 2^30; the least is 2 */
#define EXTMEM_RING_MAX_PARTICIPANT 16383

enum extmem_ring_kind {
  EXTMEM_RING_SPSC = 1, /* one producer, one consumer */
  EXTMEM_RING_MPMC = 2  /* many producers, many consumers */
};

/* A ring as one participant uses it: two words, copied freely, nothing to free. The members are private. */
typedef struct extmem_ring {
  void* memory;
  uint64_t key;
} extmem_ring_t;

/* An element that was taken and not settled yet. */
typedef struct extmem_ring_taken {
  extmem_region_ptr_t ptr;
  uint64_t ticket; /* which one it is: elements are numbered from 0 in the order of their pushes */
} extmem_ring_taken_t;

/* An element whose taker died before settling it. */
typedef struct extmem_ring_orphan {
  extmem_region_ptr_t ptr;
  uint64_t ticket;
  uint32_t participant; /* who had taken it, or died while reporting it */
  uint32_t reserved;
} extmem_ring_orphan_t;

/* What a walk of a ring meets. */
typedef struct extmem_ring_entry {
  extmem_region_ptr_t ptr;
  uint64_t ticket;
  uint32_t participant; /* taken: by whom; else MPMC: pushed by whom, SPSC: 0 */
  bool taken;
  uint8_t reserved[3];
} extmem_ring_entry_t;

/* What extmem_ring_recover did. */
typedef struct extmem_ring_recovery {
  uint64_t orphans; /* elements reported */
  uint64_t roles;   /* SPSC: places of a dead producer or consumer that are free again */
} extmem_ring_recovery_t;

/* Whether every thread of a participant is gone for good; in doubt false. */
typedef bool (*extmem_ring_is_dead_fn)(uint32_t participant, void* arg);
/* Hears of an orphan, while it is still in its slot. May push to the ring, must not recover it. */
typedef void (*extmem_ring_orphan_fn)(const extmem_ring_orphan_t* orphan, void* arg);
/* Returns 0 to go on, as all visitors. */
typedef int (*extmem_ring_visit_fn)(const extmem_ring_entry_t* entry, void* arg);

/* Who tells which participants are dead, and who hears of what they had taken. */
typedef struct extmem_ring_watch {
  size_t struct_size;
  extmem_ring_is_dead_fn is_dead;
  extmem_ring_orphan_fn on_orphan;
  void* arg;
} extmem_ring_watch_t;
#define EXTMEM_RING_WATCH_INIT \
  { sizeof(extmem_ring_watch_t), NULL, NULL, NULL }

/* ---- rings ---------------------------------------------------------------------------------------------- */

/**
 * How many bytes a ring needs.
 *
 * Returns: 0 and the bytes in *bytes; -errno.
 * Errors: EINVAL kind, or capacity is no power of two from 2 to EXTMEM_RING_MAX_CAPACITY.
 * Threads: any.
 */
EXTMEM_API int extmem_ring_get_size(uint32_t kind, size_t capacity, size_t* bytes);

/**
 * Formats an empty ring into memory that nobody uses as a ring now.
 *
 * Requires: memory is a multiple of EXTMEM_RING_ALIGN.
 * Returns: 0; -errno. A creator that is killed here leaves no ring.
 * Errors: EINVAL kind, capacity, alignment; ENOSPC fewer bytes than extmem_ring_get_size says.
 * Threads: one for these bytes.
 */
EXTMEM_API int extmem_ring_create(void* memory, size_t bytes, uint32_t kind, size_t capacity);

/**
 * Gives a handle on the ring that extmem_ring_create made in these bytes, mapped anywhere in any process.
 *
 * Requires: a participant's number (0 to EXTMEM_RING_MAX_PARTICIPANT) is its own while it lives. Who gets the number
 * of a dead one first calls extmem_ring_recover with a function that says "dead" of it, on every ring that the dead
 * one used.
 * Returns: 0 and the handle in *ring; -errno.
 * Errors: EINVAL alignment, participant; ENODATA no ring there; EPROTO another version's; EBADMSG the header
 * contradicts itself; EMSGSIZE the ring is longer than bytes.
 * Threads: any.
 */
EXTMEM_API int extmem_ring_attach(void* memory, size_t bytes, uint32_t participant, extmem_ring_t* ring);

/**
 * Gives up this participant's places as producer and consumer of an SPSC ring; does nothing on an MPMC ring.
 *
 * Returns: 0; -errno. The handle stays usable.
 * Errors: EBUSY the consumer has taken elements that are not settled.
 * Threads: the producer's and consumer's.
 */
EXTMEM_API int extmem_ring_detach(extmem_ring_t ring);

/**
 * Puts as many of `count` elements into the ring as have room, in order.
 *
 * Requires: none of them is 0.
 * Returns: 0 and how many in *pushed, at least 1; -errno.
 * Errors: EAGAIN the ring is full; EBUSY (SPSC) another participant is the producer.
 * Threads: MPMC any; SPSC one at a time.
 */
EXTMEM_API int extmem_ring_push(extmem_ring_t ring, const extmem_region_ptr_t* ptrs, size_t count,
                                size_t* pushed);

/**
 * Takes and settles up to `count` elements, in order. Each is written to `ptrs` before it is settled: where that is
 * shared memory, a consumer that is killed here leaves no element unaccounted for.
 *
 * Returns: 0 and how many in *popped, at least 1; -errno.
 * Errors: EAGAIN the ring is empty; EBUSY (SPSC) another participant is the consumer, or elements are taken and not
 * settled; ESTALE this participant was declared dead.
 * Threads: MPMC any; SPSC one at a time.
 */
EXTMEM_API int extmem_ring_pop(extmem_ring_t ring, extmem_region_ptr_t* ptrs, size_t count, size_t* popped);

/**
 * Takes the oldest element and leaves it in its slot until extmem_ring_settle, so that its taker's death in between is
 * noticed.
 *
 * Returns: 0 and the element in *taken; -errno.
 * Errors: EAGAIN the ring is empty; EBUSY (SPSC) another participant is the consumer.
 * Threads: MPMC any; SPSC one at a time.
 */
EXTMEM_API int extmem_ring_take(extmem_ring_t ring, extmem_ring_taken_t* taken);

/**
 * Ends what extmem_ring_take began: the element is the caller's, and its slot free.
 *
 * Requires: SPSC elements are settled in the order in which they were taken.
 * Returns: 0; -errno.
 * Errors: EINVAL it is not taken, or out of order; ESTALE this participant was declared dead, and the element reported
 * as an orphan.
 * Threads: MPMC any; SPSC one at a time.
 */
EXTMEM_API int extmem_ring_settle(extmem_ring_t ring, const extmem_ring_taken_t* taken);

/**
 * Puts one element into the ring; waits for room.
 *
 * Requires: watch NULL, or initialised with EXTMEM_RING_WATCH_INIT; with it the wait recovers what dead participants
 * block. timeout_ns 0: one look; UINT64_MAX: no end.
 * Returns: 0; -errno.
 * Errors: ETIMEDOUT; EINVAL ptr is 0, or watch lacks a function; EBUSY as extmem_ring_push.
 * Threads: as extmem_ring_push.
 */
EXTMEM_API int extmem_ring_push_wait(extmem_ring_t ring, extmem_region_ptr_t ptr, uint64_t timeout_ns,
                                     const extmem_ring_watch_t* watch);

/**
 * Takes and settles one element; waits for it.
 *
 * Requires: as extmem_ring_push_wait.
 * Returns: 0 and the element in *ptr; -errno.
 * Errors: ETIMEDOUT; EINVAL; EBUSY, ESTALE as extmem_ring_pop.
 * Threads: as extmem_ring_pop.
 */
EXTMEM_API int extmem_ring_pop_wait(extmem_ring_t ring, extmem_region_ptr_t* ptr, uint64_t timeout_ns,
                                    const extmem_ring_watch_t* watch);

/**
 * Takes the oldest element as extmem_ring_take does; waits for it.
 *
 * Requires: as extmem_ring_push_wait.
 * Returns: 0 and the element in *taken; -errno.
 * Errors: ETIMEDOUT; EINVAL; EBUSY as extmem_ring_take.
 * Threads: as extmem_ring_take.
 */
EXTMEM_API int extmem_ring_take_wait(extmem_ring_t ring, extmem_ring_taken_t* taken, uint64_t timeout_ns,
                                     const extmem_ring_watch_t* watch);

/**
 * Reports and frees what dead participants had taken, and frees their places in an SPSC ring.
 *
 * Requires: watch has both functions. recovery NULL, or where to write what was done.
 * Returns: 0; -errno.
 * Errors: EINVAL a function is missing; ESTALE this participant was declared dead meanwhile.
 * Threads: any; several may recover at the same time, and each orphan is reported to one of them.
 */
EXTMEM_API int extmem_ring_recover(extmem_ring_t ring, const extmem_ring_watch_t* watch,
                                   extmem_ring_recovery_t* recovery);

/**
 * Visits the elements in the ring, oldest first. Exact while nobody uses the ring.
 *
 * Returns: 0; what the visitor returned to stop; -errno.
 * Threads: any.
 */
EXTMEM_API int extmem_ring_walk(extmem_ring_t ring, extmem_ring_visit_fn visit, void* arg);

/**
 * Checks the invariants of the ring's indices and slots.
 *
 * Requires: nobody uses the ring meanwhile.
 * Returns: 0; -errno.
 * Errors: EBADMSG; extmem_last_error_message() names the broken invariant.
 * Threads: one.
 */
EXTMEM_API int extmem_ring_check(extmem_ring_t ring);

/**
 * About how many elements can be taken: exact while nobody uses the ring.
 *
 * Returns: 0 and the number in *count; -errno.
 * Threads: any.
 */
EXTMEM_API int extmem_ring_get_count(extmem_ring_t ring, size_t* count);

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_EXTMEM_RING_H */
