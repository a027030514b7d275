/* Time: the processor's cycle counter, and waiting.
 *
 * Thread-safety: any thread, any time. The counter is the same on all processors of a machine.
 */
#ifndef EXTMEM_DPDK_RTE_CYCLES_H
#define EXTMEM_DPDK_RTE_CYCLES_H

#include <stdint.h>

#include <rte_atomic.h>
#include <rte_common.h>
#include <rte_debug.h>
#if !defined(__x86_64__) && !defined(__aarch64__)
#include <time.h>
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define MS_PER_S 1000
#define US_PER_S 1000000
#define NS_PER_S 1000000000

enum timer_source { EAL_TIMER_TSC = 0, EAL_TIMER_HPET };
extern enum timer_source eal_timer_source; /* always EAL_TIMER_TSC */

/* The counter now. _precise: after everything before it in the program. */
static inline uint64_t rte_rdtsc(void) {
#if defined(__x86_64__)
  return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
  uint64_t now;
  __asm__ volatile("mrs %0, cntvct_el0" : "=r"(now));
  return now;
#else
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
#endif
}
static inline uint64_t rte_rdtsc_precise(void) {
  rte_mb();
  return rte_rdtsc();
}
static inline uint64_t rte_get_tsc_cycles(void) { return rte_rdtsc(); }
static inline uint64_t rte_get_timer_cycles(void) { return rte_rdtsc(); }

/* How many a second. Measured once, by rte_eal_init() or the first call. */
uint64_t rte_get_tsc_hz(void);
static inline uint64_t rte_get_timer_hz(void) { return rte_get_tsc_hz(); }

/* Waits at least so long: the function that was registered, at first rte_delay_us_block(). */
extern void (*rte_delay_us)(unsigned int us);
static inline void rte_delay_ms(unsigned ms) { rte_delay_us(ms * 1000); }

void rte_delay_us_block(unsigned int us); /* on the processor */
void rte_delay_us_sleep(unsigned int us); /* off it */
void rte_delay_us_callback_register(void (*userfunc)(unsigned int));

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_DPDK_RTE_CYCLES_H */
