/* rte_atomic.h, rte_spinlock.h, rte_rwlock.h, rte_seqlock.h, rte_ticketlock.h, rte_pause.h: alone, and on threads. */
#include <pthread.h>
#include <string.h>

#include <rte_atomic.h>
#include <rte_pause.h>
#include <rte_rwlock.h>
#include <rte_seqlock.h>
#include <rte_spinlock.h>
#include <rte_ticketlock.h>

#include "check.h"

#define THREADS 3
#define ROUNDS 200 /* where processors are few, each turn of a ticket lock can take a time slice */

static rte_spinlock_t spinlock = RTE_SPINLOCK_INITIALIZER;
static rte_spinlock_recursive_t recursive = RTE_SPINLOCK_RECURSIVE_INITIALIZER;
static rte_rwlock_t rwlock = RTE_RWLOCK_INITIALIZER;
static rte_ticketlock_t ticketlock = RTE_TICKETLOCK_INITIALIZER;
static rte_ticketlock_recursive_t ticketlock_recursive = RTE_TICKETLOCK_RECURSIVE_INITIALIZER;
static rte_seqlock_t seqlock = RTE_SEQLOCK_INITIALIZER;
static rte_atomic32_t counter = RTE_ATOMIC32_INIT(0);
static int under_lock[5];
static uint64_t pair[2]; /* written under the lock, read without: relaxed atomics, for the checker of races */
static int torn;         /* atomic */

static void* work(void* arg) {
  int i;
  (void)arg;
  for (i = 0; i < ROUNDS; i++) {
    uint32_t begin;
    uint64_t a, b;
    rte_spinlock_lock(&spinlock);
    under_lock[0]++;
    rte_spinlock_unlock(&spinlock);

    rte_spinlock_recursive_lock(&recursive);
    rte_spinlock_recursive_lock(&recursive);
    under_lock[1]++;
    rte_spinlock_recursive_unlock(&recursive);
    rte_spinlock_recursive_unlock(&recursive);

    rte_rwlock_write_lock(&rwlock);
    under_lock[2]++;
    rte_rwlock_write_unlock(&rwlock);
    rte_rwlock_read_lock(&rwlock);
    if (under_lock[2] == 0) __atomic_store_n(&torn, 1, __ATOMIC_RELAXED);
    rte_rwlock_read_unlock(&rwlock);

    rte_ticketlock_lock(&ticketlock);
    under_lock[3]++;
    rte_ticketlock_unlock(&ticketlock);

    rte_ticketlock_recursive_lock(&ticketlock_recursive);
    if (!rte_ticketlock_recursive_trylock(&ticketlock_recursive))
      __atomic_store_n(&torn, 1, __ATOMIC_RELAXED);
    under_lock[4]++;
    rte_ticketlock_recursive_unlock(&ticketlock_recursive);
    rte_ticketlock_recursive_unlock(&ticketlock_recursive);

    rte_seqlock_write_lock(&seqlock);
    __atomic_store_n(&pair[0], pair[0] + 1, __ATOMIC_RELAXED);
    __atomic_store_n(&pair[1], pair[1] + 1, __ATOMIC_RELAXED);
    rte_seqlock_write_unlock(&seqlock);
    do {
      begin = rte_seqlock_read_begin(&seqlock);
      a = __atomic_load_n(&pair[0], __ATOMIC_RELAXED);
      b = __atomic_load_n(&pair[1], __ATOMIC_RELAXED);
    } while (rte_seqlock_read_retry(&seqlock, begin));
    if (a != b) __atomic_store_n(&torn, 1, __ATOMIC_RELAXED);

    rte_atomic32_inc(&counter);
  }
  return NULL;
}

static int threads(void) {
  pthread_t thread[THREADS];
  int i;
  for (i = 0; i < THREADS; i++) CHECK(pthread_create(&thread[i], NULL, work, NULL) == 0);
  for (i = 0; i < THREADS; i++) CHECK(pthread_join(thread[i], NULL) == 0);
  for (i = 0; i < 5; i++) CHECK(under_lock[i] == THREADS * ROUNDS);
  CHECK(rte_atomic32_read(&counter) == THREADS * ROUNDS && pair[0] == THREADS * ROUNDS && !torn);
  return 0;
}

static int alone(void) {
  rte_spinlock_init(&spinlock);
  CHECK(rte_spinlock_trylock(&spinlock) == 1 && rte_spinlock_is_locked(&spinlock) == 1);
  CHECK(rte_spinlock_trylock(&spinlock) == 0);
  rte_spinlock_unlock(&spinlock);
  CHECK(rte_spinlock_is_locked(&spinlock) == 0);
  CHECK(rte_tm_supported() == 0 && rte_spinlock_trylock_tm(&spinlock) == 1);
  rte_spinlock_unlock_tm(&spinlock);

  rte_rwlock_init(&rwlock);
  CHECK(rte_rwlock_read_trylock(&rwlock) == 0 && rte_rwlock_read_trylock(&rwlock) == 0);
  CHECK(rte_rwlock_write_trylock(&rwlock) == -EBUSY);
  rte_rwlock_read_unlock(&rwlock);
  rte_rwlock_read_unlock(&rwlock);
  CHECK(rte_rwlock_write_trylock(&rwlock) == 0 && rte_rwlock_write_is_locked(&rwlock) == 1);
  CHECK(rte_rwlock_read_trylock(&rwlock) == -EBUSY && rte_rwlock_write_trylock(&rwlock) == -EBUSY);
  rte_rwlock_write_unlock(&rwlock);
  CHECK(rte_rwlock_write_is_locked(&rwlock) == 0);

  rte_ticketlock_init(&ticketlock);
  CHECK(rte_ticketlock_trylock(&ticketlock) == 1 && rte_ticketlock_is_locked(&ticketlock) == 1);
  CHECK(rte_ticketlock_trylock(&ticketlock) == 0);
  rte_ticketlock_unlock(&ticketlock);
  CHECK(rte_ticketlock_is_locked(&ticketlock) == 0);

  CHECK(!rte_seqlock_read_retry(&seqlock, rte_seqlock_read_begin(&seqlock)));
  rte_seqlock_write_lock(&seqlock);
  CHECK(rte_seqlock_read_retry(&seqlock, rte_seqlock_read_begin(&seqlock)));
  rte_seqlock_write_unlock(&seqlock);
  return 0;
}

/* The same for each width; `wide` is a value that needs all of its bits. */
#define COUNTERS(bits, wide)                                                                             \
  static int counters##bits(void) {                                                                      \
    rte_atomic##bits##_t v = RTE_ATOMIC##bits##_INIT(7);                                                 \
    volatile uint##bits##_t word = 1;                                                                    \
    CHECK(rte_atomic##bits##_read(&v) == 7);                                                             \
    rte_atomic##bits##_init(&v);                                                                         \
    CHECK(rte_atomic##bits##_read(&v) == 0 && rte_atomic##bits##_test_and_set(&v) == 1);                 \
    CHECK(rte_atomic##bits##_test_and_set(&v) == 0 && rte_atomic##bits##_dec_and_test(&v) == 1);         \
    rte_atomic##bits##_add(&v, 5);                                                                       \
    rte_atomic##bits##_sub(&v, 7);                                                                       \
    rte_atomic##bits##_inc(&v);                                                                          \
    CHECK(rte_atomic##bits##_inc_and_test(&v) == 1);                                                     \
    rte_atomic##bits##_dec(&v);                                                                          \
    CHECK(rte_atomic##bits##_add_return(&v, 3) == 2 && rte_atomic##bits##_sub_return(&v, 2) == 0);       \
    rte_atomic##bits##_set(&v, wide);                                                                    \
    CHECK(rte_atomic##bits##_read(&v) == wide);                                                          \
    rte_atomic##bits##_clear(&v);                                                                        \
    CHECK(rte_atomic##bits##_read(&v) == 0);                                                             \
    CHECK(rte_atomic##bits##_cmpset(&word, 1, wide) == 1 && word == wide);                               \
    CHECK(rte_atomic##bits##_cmpset(&word, 1, 2) == 0 && rte_atomic##bits##_exchange(&word, 3) == wide); \
    CHECK(word == 3);                                                                                    \
    return 0;                                                                                            \
  }
COUNTERS(16, INT16_MAX)
COUNTERS(32, INT32_MAX)
COUNTERS(64, INT64_MAX)

static int barriers(void) {
  uint32_t word = 4;
  rte_mb();
  rte_wmb();
  rte_rmb();
  rte_smp_mb();
  rte_smp_wmb();
  rte_smp_rmb();
  rte_io_mb();
  rte_io_wmb();
  rte_io_rmb();
  rte_compiler_barrier();
  rte_atomic_thread_fence(__ATOMIC_SEQ_CST);
  rte_pause();
  rte_wait_until_equal_32(&word, 4, __ATOMIC_ACQUIRE);
  RTE_WAIT_UNTIL_MASKED(&word, 6, ==, 4u, __ATOMIC_RELAXED);
  CHECK(word == 4);
  return 0;
}

int main(void) { return alone() || threads() || counters16() || counters32() || counters64() || barriers(); }
