/* Telling the processor which memory will be used soon. Any address may be given, NULL too. */
#ifndef EXTMEM_DPDK_RTE_PREFETCH_H
#define EXTMEM_DPDK_RTE_PREFETCH_H

#include <rte_common.h>
#include <rte_compat.h>

#ifdef __cplusplus
extern "C" {
#endif

/* For reading: into all caches; into the second level and beyond; the third; into as little of the caches as can be. */
static inline void rte_prefetch0(const volatile void* p) {
  __builtin_prefetch((const void*)(uintptr_t)p, 0, 3);
}
static inline void rte_prefetch1(const volatile void* p) {
  __builtin_prefetch((const void*)(uintptr_t)p, 0, 2);
}
static inline void rte_prefetch2(const volatile void* p) {
  __builtin_prefetch((const void*)(uintptr_t)p, 0, 1);
}
static inline void rte_prefetch_non_temporal(const volatile void* p) {
  __builtin_prefetch((const void*)(uintptr_t)p, 0, 0);
}

/* For writing. */
static inline void rte_prefetch0_write(const void* p) { __builtin_prefetch(p, 1, 3); }
static inline void rte_prefetch1_write(const void* p) { __builtin_prefetch(p, 1, 2); }
static inline void rte_prefetch2_write(const void* p) { __builtin_prefetch(p, 1, 1); }

/* Will not be used here soon, but by another processor. A hint that not every processor has. */
static inline void rte_cldemote(const volatile void* p) {
#if defined(__x86_64__)
  __asm__ volatile(
      ".byte 0x0f, 0x1c, 0x06" ::"S"(p)); /* cldemote (%rsi); does nothing where it is not known */
#else
  (void)p;
#endif
}

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_DPDK_RTE_PREFETCH_H */
