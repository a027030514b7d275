/* rte_ring.h: rings in memzones and in the caller's memory, alone and between lcores. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_ring.h>

#include "check.h"

#define ELEMENTS 20000u

static int names(void) {
  struct rte_ring* ring = rte_ring_create("one", 8, SOCKET_ID_ANY, 0);
  CHECK(ring != NULL && rte_ring_lookup("one") == ring && strcmp(ring->name, "one") == 0);
  CHECK(ring->memzone != NULL && strcmp(ring->memzone->name, "RG_one") == 0 && ring->memzone->addr == ring);
  CHECK(rte_ring_create("one", 8, SOCKET_ID_ANY, 0) == NULL && rte_errno == EEXIST);
  CHECK(rte_ring_create("two", 9, SOCKET_ID_ANY, 0) == NULL && rte_errno == EINVAL);
  CHECK(rte_ring_create("two", 0, SOCKET_ID_ANY, 0) == NULL && rte_errno == EINVAL);
  CHECK(rte_ring_create("two", 8, SOCKET_ID_ANY, 0x8000) == NULL && rte_errno == EINVAL);
  CHECK(rte_ring_create("two", 8, SOCKET_ID_ANY, RING_F_SP_ENQ | RING_F_MP_RTS_ENQ) == NULL &&
        rte_errno == EINVAL);
  CHECK(rte_ring_create_elem("two", 6, 8, SOCKET_ID_ANY, 0) == NULL && rte_errno == EINVAL);
  CHECK(rte_ring_create("a-name-that-is-29-bytes-long.", 8, SOCKET_ID_ANY, 0) == NULL &&
        rte_errno == ENAMETOOLONG);
  CHECK(rte_ring_create(NULL, 8, SOCKET_ID_ANY, 0) == NULL && rte_errno == EINVAL);
  rte_errno = 0;
  CHECK(rte_ring_lookup("two") == NULL && rte_errno == ENOENT);
  rte_ring_list_dump(stdout);
  rte_ring_free(ring);
  rte_ring_free(NULL);
  CHECK(rte_ring_lookup("one") == NULL && rte_memzone_lookup("RG_one") == NULL);
  CHECK(rte_ring_get_memsize(9) == -EINVAL && rte_ring_get_memsize_elem(3, 8) == -EINVAL);
  CHECK(rte_ring_get_memsize_elem(4, 16) == (ssize_t)sizeof(struct rte_ring) + 64);
  CHECK(sizeof(struct rte_ring) % RTE_CACHE_LINE_SIZE == 0);
  return 0;
}

/* Every function of the kind, on a ring of seven. */
static int moves(unsigned flags) {
  struct rte_ring* ring = rte_ring_create("moves", 8, (int)rte_socket_id(), flags);
  void *in[8], *out[8] = {NULL}, *object = NULL;
  unsigned i, left = 99, round;
  CHECK(ring != NULL);
  for (i = 0; i < 8; i++) in[i] = (void*)(uintptr_t)(i + 1);
  CHECK(rte_ring_get_size(ring) == 8 && rte_ring_get_capacity(ring) == 7 && rte_ring_empty(ring) &&
        !rte_ring_full(ring));
  CHECK(rte_ring_is_prod_single(ring) == ((flags & RING_F_SP_ENQ) != 0));
  CHECK(rte_ring_is_cons_single(ring) == ((flags & RING_F_SC_DEQ) != 0));
  for (round = 0; round < 20; round++) { /* so that the ends meet everywhere */
    CHECK(rte_ring_dequeue(ring, &object) == -ENOENT);
    CHECK(rte_ring_enqueue(ring, in[0]) == 0 && rte_ring_count(ring) == 1);
    CHECK(rte_ring_enqueue_bulk(ring, in + 1, 7, &left) == 0 && left == 6);
    CHECK(rte_ring_enqueue_bulk(ring, in + 1, 3, &left) == 3 && left == 3);
    CHECK(rte_ring_enqueue_burst(ring, in + 4, 4, &left) == 3 && left == 0 && rte_ring_full(ring));
    CHECK(rte_ring_enqueue(ring, in[7]) == -ENOBUFS && rte_ring_free_count(ring) == 0);
    CHECK(rte_ring_enqueue_burst(ring, in, 2, NULL) == 0);
    CHECK(rte_ring_dequeue(ring, &object) == 0 && object == in[0]);
    CHECK(rte_ring_dequeue_bulk(ring, out, 7, &left) == 0 && left == 6);
    CHECK(rte_ring_dequeue_bulk(ring, out, 2, &left) == 2 && left == 4 && out[0] == in[1] && out[1] == in[2]);
    CHECK(rte_ring_dequeue_burst(ring, out, 8, &left) == 4 && left == 0 &&
          memcmp(out, in + 3, 4 * sizeof in[0]) == 0);
    CHECK(rte_ring_sp_enqueue(ring, in[5]) == 0 && rte_ring_mp_enqueue(ring, in[6]) == 0);
    CHECK(rte_ring_sc_dequeue(ring, &object) == 0 && object == in[5]);
    CHECK(rte_ring_mc_dequeue(ring, &object) == 0 && object == in[6]);
    CHECK(rte_ring_mp_enqueue_bulk(ring, in, 2, NULL) == 2 &&
          rte_ring_sp_enqueue_burst(ring, in + 2, 2, NULL) == 2);
    CHECK(rte_ring_mc_dequeue_burst(ring, out, 1, NULL) == 1 &&
          rte_ring_sc_dequeue_bulk(ring, out + 1, 3, NULL) == 3);
    CHECK(memcmp(out, in, 4 * sizeof in[0]) == 0);
    CHECK(rte_ring_enqueue(ring, in[0]) == 0 && rte_ring_dequeue(ring, &object) == 0);
  }
  CHECK(rte_ring_enqueue(ring, in[0]) == 0);
  rte_ring_reset(ring);
  CHECK(rte_ring_empty(ring));
  rte_ring_free(ring);
  return 0;
}

static int exact_and_elements(void) {
  uint32_t in[3][3] = {{1, 2, 3}, {4, 5, 6}, {7, 8, 9}}, out[3][3];
  ssize_t bytes = rte_ring_get_memsize_elem(12, rte_align32pow2(8 + 1));
  struct rte_ring* ring = (struct rte_ring*)aligned_alloc(RTE_CACHE_LINE_SIZE, (size_t)bytes);
  unsigned i;
  CHECK(ring != NULL && rte_ring_init(ring, "own", 8, RING_F_EXACT_SZ) == 0);
  CHECK(rte_ring_get_capacity(ring) == 8 && rte_ring_get_size(ring) == 16 && ring->memzone == NULL);
  CHECK(rte_ring_lookup("own") == NULL);
  for (i = 0; i < 100; i++) {
    CHECK(rte_ring_enqueue_bulk_elem(ring, in, 12, 3, NULL) == 3 &&
          rte_ring_enqueue_burst_elem(ring, in, 12, 3, NULL) == 3);
    CHECK(rte_ring_enqueue_elem(ring, in[2], 12) == 0 && rte_ring_enqueue_elem(ring, in[1], 12) == 0);
    CHECK(rte_ring_enqueue_elem(ring, in[0], 12) == -ENOBUFS);
    CHECK(rte_ring_dequeue_bulk_elem(ring, out, 12, 3, NULL) == 3 && memcmp(in, out, sizeof in) == 0);
    CHECK(rte_ring_dequeue_burst_elem(ring, out, 12, 3, NULL) == 3 && memcmp(in, out, sizeof in) == 0);
    CHECK(rte_ring_dequeue_elem(ring, out, 12) == 0 && out[0][0] == 7);
    CHECK(rte_ring_dequeue_elem(ring, out, 12) == 0 && out[0][0] == 4);
    CHECK(rte_ring_dequeue_elem(ring, out, 12) == -ENOENT);
  }
  rte_ring_free(ring); /* not a memzone's: nothing */
  CHECK(rte_ring_init(ring, "a-name-that-is-29-bytes-long.", 8, 0) == -ENAMETOOLONG);
  CHECK(rte_ring_init(ring, "own", 12, 0) == -EINVAL);
  free(ring);
  return 0;
}

static struct rte_ring* shared;
static unsigned char seen[2 * ELEMENTS + 1];

/* Two produce, two consume; the sum of what a consumer saw is not enough, so each element is marked. */
static int produce(void* arg) {
  uintptr_t first = (uintptr_t)arg, i;
  for (i = first; i < first + ELEMENTS;) {
    if (rte_ring_enqueue(shared, (void*)i) == 0) {
      i++;
    } else {
      sched_yield();
    }
  }
  return 0;
}
static int consume(void* arg) {
  void* objects[5];
  unsigned got = 0, n, i;
  (void)arg;
  while (got < ELEMENTS) {
    n = rte_ring_dequeue_burst(shared, objects, RTE_MIN(5u, ELEMENTS - got), NULL);
    for (i = 0; i < n; i++) __atomic_fetch_add(&seen[(uintptr_t)objects[i]], 1, __ATOMIC_RELAXED);
    got += n;
    if (n == 0) sched_yield();
  }
  return 0;
}

static int between_lcores(void) {
  uintptr_t i;
  shared = rte_ring_create("shared", 64, SOCKET_ID_ANY, 0);
  CHECK(shared != NULL);
  CHECK(rte_eal_remote_launch(produce, (void*)(uintptr_t)1, 1) == 0);
  CHECK(rte_eal_remote_launch(produce, (void*)(uintptr_t)(ELEMENTS + 1), 2) == 0);
  CHECK(rte_eal_remote_launch(consume, NULL, 3) == 0);
  CHECK(consume(NULL) == 0);
  rte_eal_mp_wait_lcore();
  for (i = 1; i <= 2 * ELEMENTS; i++) CHECK(seen[i] == 1);
  CHECK(rte_ring_empty(shared));
  rte_ring_free(shared);
  return 0;
}

int main(void) {
  char name[] = "rings", huge[] = "--no-huge", memory[] = "--in-memory", map[] = "--lcores", lcores[64];
  char* options[] = {name, huge, memory, map, lcores, NULL};
  cpu_set_t usable;
  unsigned cpu = 0, other;
  CPU_ZERO(&usable);
  CHECK(sched_getaffinity(0, sizeof usable, &usable) == 0);
  while (!CPU_ISSET(cpu, &usable)) cpu++;
  for (other = CPU_SETSIZE - 1; !CPU_ISSET(other, &usable); other--) {
  }
  snprintf(lcores, sizeof lcores, "(0,1)@%u,(2,3)@%u", cpu, other);
  CHECK(rte_eal_init(5, options) == 4);
  if (names() || moves(0) || moves(RING_F_SP_ENQ | RING_F_SC_DEQ) ||
      moves(RING_F_MP_HTS_ENQ | RING_F_MC_RTS_DEQ))
    return 1;
  if (exact_and_elements() || between_lcores()) return 1;
  return rte_eal_cleanup();
}
