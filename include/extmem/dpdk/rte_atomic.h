/* Barriers, and atomic counters of 16, 32 and 64 bits.
 *
 * Thread-safety: made for it. Operations that change a counter are sequentially consistent; reading and setting are
 * relaxed, as DPDK's are.
 */
#ifndef EXTMEM_DPDK_RTE_ATOMIC_H
#define EXTMEM_DPDK_RTE_ATOMIC_H

#include <stdint.h>
#include <stdlib.h> /* DPDK's includes it, by way of the compiler's header for barriers: programs count on it */

#include <rte_common.h>
#include <rte_compat.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- barriers: m both, w writes, r reads; smp between processors, io also for devices ---- */

#define rte_compiler_barrier() __asm__ volatile("" ::: "memory")

#if defined(__x86_64__)
#define rte_mb() __builtin_ia32_mfence()
#define rte_wmb() __builtin_ia32_sfence()
#define rte_rmb() __builtin_ia32_lfence()
/* x86 keeps the order of loads, and of stores. */
#define rte_smp_wmb() rte_compiler_barrier()
#define rte_smp_rmb() rte_compiler_barrier()
#define rte_io_wmb() rte_compiler_barrier()
#define rte_io_rmb() rte_compiler_barrier()
#elif defined(__aarch64__)
#define rte_mb() __asm__ volatile("dmb osh" ::: "memory")
#define rte_wmb() __asm__ volatile("dmb oshst" ::: "memory")
#define rte_rmb() __asm__ volatile("dmb oshld" ::: "memory")
#define rte_smp_wmb() __asm__ volatile("dmb ishst" ::: "memory")
#define rte_smp_rmb() __asm__ volatile("dmb ishld" ::: "memory")
#define rte_io_wmb() rte_wmb()
#define rte_io_rmb() rte_rmb()
#else
#define rte_mb() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define rte_wmb() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define rte_rmb() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define rte_smp_wmb() __atomic_thread_fence(__ATOMIC_RELEASE)
#define rte_smp_rmb() __atomic_thread_fence(__ATOMIC_ACQUIRE)
#define rte_io_wmb() rte_wmb()
#define rte_io_rmb() rte_rmb()
#endif
#define rte_smp_mb() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define rte_io_mb() rte_mb()

/* `memorder` is one of __ATOMIC_ACQUIRE, _RELEASE, _ACQ_REL, _SEQ_CST. */
static __rte_always_inline void rte_atomic_thread_fence(int memorder) { __atomic_thread_fence(memorder); }

/* ---- 16 bits ---- */

typedef struct {
  volatile int16_t cnt;
} rte_atomic16_t;

#define RTE_ATOMIC16_INIT(val) \
  { (val) }

/* Sets *dst to src where it is exp. Returns: 1, or 0 where it is not. */
static inline int rte_atomic16_cmpset(volatile uint16_t* dst, uint16_t exp, uint16_t src) {
  return __atomic_compare_exchange_n(dst, &exp, src, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST) ? 1 : 0;
}
/* Returns: what it was. */
static inline uint16_t rte_atomic16_exchange(volatile uint16_t* dst, uint16_t val) {
  return __atomic_exchange_n(dst, val, __ATOMIC_SEQ_CST);
}

static inline int16_t rte_atomic16_read(const rte_atomic16_t* v) {
  return __atomic_load_n(&v->cnt, __ATOMIC_RELAXED);
}
static inline void rte_atomic16_set(rte_atomic16_t* v, int16_t new_value) {
  __atomic_store_n(&v->cnt, new_value, __ATOMIC_RELAXED);
}
static inline void rte_atomic16_init(rte_atomic16_t* v) { rte_atomic16_set(v, 0); }
static inline void rte_atomic16_clear(rte_atomic16_t* v) { rte_atomic16_set(v, 0); }

/* Return: what it is then. */
static inline int16_t rte_atomic16_add_return(rte_atomic16_t* v, int16_t inc) {
  return __atomic_add_fetch(&v->cnt, inc, __ATOMIC_SEQ_CST);
}
static inline int16_t rte_atomic16_sub_return(rte_atomic16_t* v, int16_t dec) {
  return __atomic_sub_fetch(&v->cnt, dec, __ATOMIC_SEQ_CST);
}

static inline void rte_atomic16_add(rte_atomic16_t* v, int16_t inc) { (void)rte_atomic16_add_return(v, inc); }
static inline void rte_atomic16_sub(rte_atomic16_t* v, int16_t dec) { (void)rte_atomic16_sub_return(v, dec); }
static inline void rte_atomic16_inc(rte_atomic16_t* v) { rte_atomic16_add(v, 1); }
static inline void rte_atomic16_dec(rte_atomic16_t* v) { rte_atomic16_sub(v, 1); }

/* Return: 1 where it is 0 then, else 0. */
static inline int rte_atomic16_inc_and_test(rte_atomic16_t* v) { return rte_atomic16_add_return(v, 1) == 0; }
static inline int rte_atomic16_dec_and_test(rte_atomic16_t* v) { return rte_atomic16_sub_return(v, 1) == 0; }

/* Sets it to 1 where it is 0. Returns: 1, or 0 where it is not. */
static inline int rte_atomic16_test_and_set(rte_atomic16_t* v) {
  return rte_atomic16_cmpset((volatile uint16_t*)&v->cnt, 0, 1);
}

/* ---- 32 bits ---- */

typedef struct {
  volatile int32_t cnt;
} rte_atomic32_t;

#define RTE_ATOMIC32_INIT(val) \
  { (val) }

/* Sets *dst to src where it is exp. Returns: 1, or 0 where it is not. */
static inline int rte_atomic32_cmpset(volatile uint32_t* dst, uint32_t exp, uint32_t src) {
  return __atomic_compare_exchange_n(dst, &exp, src, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST) ? 1 : 0;
}
/* Returns: what it was. */
static inline uint32_t rte_atomic32_exchange(volatile uint32_t* dst, uint32_t val) {
  return __atomic_exchange_n(dst, val, __ATOMIC_SEQ_CST);
}

static inline int32_t rte_atomic32_read(const rte_atomic32_t* v) {
  return __atomic_load_n(&v->cnt, __ATOMIC_RELAXED);
}
static inline void rte_atomic32_set(rte_atomic32_t* v, int32_t new_value) {
  __atomic_store_n(&v->cnt, new_value, __ATOMIC_RELAXED);
}
static inline void rte_atomic32_init(rte_atomic32_t* v) { rte_atomic32_set(v, 0); }
static inline void rte_atomic32_clear(rte_atomic32_t* v) { rte_atomic32_set(v, 0); }

/* Return: what it is then. */
static inline int32_t rte_atomic32_add_return(rte_atomic32_t* v, int32_t inc) {
  return __atomic_add_fetch(&v->cnt, inc, __ATOMIC_SEQ_CST);
}
static inline int32_t rte_atomic32_sub_return(rte_atomic32_t* v, int32_t dec) {
  return __atomic_sub_fetch(&v->cnt, dec, __ATOMIC_SEQ_CST);
}

static inline void rte_atomic32_add(rte_atomic32_t* v, int32_t inc) { (void)rte_atomic32_add_return(v, inc); }
static inline void rte_atomic32_sub(rte_atomic32_t* v, int32_t dec) { (void)rte_atomic32_sub_return(v, dec); }
static inline void rte_atomic32_inc(rte_atomic32_t* v) { rte_atomic32_add(v, 1); }
static inline void rte_atomic32_dec(rte_atomic32_t* v) { rte_atomic32_sub(v, 1); }

/* Return: 1 where it is 0 then, else 0. */
static inline int rte_atomic32_inc_and_test(rte_atomic32_t* v) { return rte_atomic32_add_return(v, 1) == 0; }
static inline int rte_atomic32_dec_and_test(rte_atomic32_t* v) { return rte_atomic32_sub_return(v, 1) == 0; }

/* Sets it to 1 where it is 0. Returns: 1, or 0 where it is not. */
static inline int rte_atomic32_test_and_set(rte_atomic32_t* v) {
  return rte_atomic32_cmpset((volatile uint32_t*)&v->cnt, 0, 1);
}

/* ---- 64 bits ---- */

typedef struct {
  volatile int64_t cnt;
} rte_atomic64_t;

#define RTE_ATOMIC64_INIT(val) \
  { (val) }

/* Sets *dst to src where it is exp. Returns: 1, or 0 where it is not. */
static inline int rte_atomic64_cmpset(volatile uint64_t* dst, uint64_t exp, uint64_t src) {
  return __atomic_compare_exchange_n(dst, &exp, src, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST) ? 1 : 0;
}
/* Returns: what it was. */
static inline uint64_t rte_atomic64_exchange(volatile uint64_t* dst, uint64_t val) {
  return __atomic_exchange_n(dst, val, __ATOMIC_SEQ_CST);
}

static inline int64_t rte_atomic64_read(rte_atomic64_t* v) {
  return __atomic_load_n(&v->cnt, __ATOMIC_RELAXED);
}
static inline void rte_atomic64_set(rte_atomic64_t* v, int64_t new_value) {
  __atomic_store_n(&v->cnt, new_value, __ATOMIC_RELAXED);
}
static inline void rte_atomic64_init(rte_atomic64_t* v) { rte_atomic64_set(v, 0); }
static inline void rte_atomic64_clear(rte_atomic64_t* v) { rte_atomic64_set(v, 0); }

/* Return: what it is then. */
static inline int64_t rte_atomic64_add_return(rte_atomic64_t* v, int64_t inc) {
  return __atomic_add_fetch(&v->cnt, inc, __ATOMIC_SEQ_CST);
}
static inline int64_t rte_atomic64_sub_return(rte_atomic64_t* v, int64_t dec) {
  return __atomic_sub_fetch(&v->cnt, dec, __ATOMIC_SEQ_CST);
}

static inline void rte_atomic64_add(rte_atomic64_t* v, int64_t inc) { (void)rte_atomic64_add_return(v, inc); }
static inline void rte_atomic64_sub(rte_atomic64_t* v, int64_t dec) { (void)rte_atomic64_sub_return(v, dec); }
static inline void rte_atomic64_inc(rte_atomic64_t* v) { rte_atomic64_add(v, 1); }
static inline void rte_atomic64_dec(rte_atomic64_t* v) { rte_atomic64_sub(v, 1); }

/* Return: 1 where it is 0 then, else 0. */
static inline int rte_atomic64_inc_and_test(rte_atomic64_t* v) { return rte_atomic64_add_return(v, 1) == 0; }
static inline int rte_atomic64_dec_and_test(rte_atomic64_t* v) { return rte_atomic64_sub_return(v, 1) == 0; }

/* Sets it to 1 where it is 0. Returns: 1, or 0 where it is not. */
static inline int rte_atomic64_test_and_set(rte_atomic64_t* v) {
  return rte_atomic64_cmpset((volatile uint64_t*)&v->cnt, 0, 1);
}

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_DPDK_RTE_ATOMIC_H */
