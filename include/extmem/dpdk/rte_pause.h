/* Waiting in a loop without disturbing the other threads of the processor's core. */
#ifndef EXTMEM_DPDK_RTE_PAUSE_H
#define EXTMEM_DPDK_RTE_PAUSE_H

#include <assert.h>
#include <stdint.h>

#include <rte_atomic.h>
#include <rte_common.h>
#include <rte_compat.h>

#ifdef __cplusplus
extern "C" {
#endif

static inline void rte_pause(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield" ::: "memory");
#else
  __asm__ volatile("" ::: "memory");
#endif
}

/* Wait until *addr is `expected`; memorder is __ATOMIC_ACQUIRE or __ATOMIC_RELAXED. */
static __rte_always_inline void rte_wait_until_equal_16(volatile uint16_t* addr, uint16_t expected,
                                                        int memorder) {
  while (__atomic_load_n(addr, memorder) != expected) rte_pause();
}
static __rte_always_inline void rte_wait_until_equal_32(volatile uint32_t* addr, uint32_t expected,
                                                        int memorder) {
  while (__atomic_load_n(addr, memorder) != expected) rte_pause();
}
static __rte_always_inline void rte_wait_until_equal_64(volatile uint64_t* addr, uint64_t expected,
                                                        int memorder) {
  while (__atomic_load_n(addr, memorder) != expected) rte_pause();
}

/* Waits until (*addr & mask) stands in the relation `cond` (==, <, ...) to `expected`. */
#define RTE_WAIT_UNTIL_MASKED(addr, mask, cond, expected, memorder)                       \
  do {                                                                                    \
    while (!((__atomic_load_n((addr), (memorder)) & (mask)) cond(expected))) rte_pause(); \
  } while (0)

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_DPDK_RTE_PAUSE_H */
