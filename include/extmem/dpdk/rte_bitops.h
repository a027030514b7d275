/* Single bits: masks, and reading and changing a bit of a word.
 *
 * Thread-safety: the relaxed operations are not atomic: two threads that change bits of one word can lose a change.
 */
#ifndef EXTMEM_DPDK_RTE_BITOPS_H
#define EXTMEM_DPDK_RTE_BITOPS_H

#include <stdint.h>

#include <rte_compat.h>
#include <rte_debug.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RTE_BIT64(nr) (UINT64_C(1) << (nr))
#define RTE_BIT32(nr) (UINT32_C(1) << (nr))

/* ---- 32 bits; get and test return the bit where it stands in the word, or 0. Requires: nr < 32. ---- */

static inline uint32_t rte_bit_relaxed_get32(unsigned int nr, volatile uint32_t* addr) {
  RTE_ASSERT(nr < 32);
  return *addr & RTE_BIT32(nr);
}
static inline void rte_bit_relaxed_set32(unsigned int nr, volatile uint32_t* addr) {
  RTE_ASSERT(nr < 32);
  *addr = *addr | RTE_BIT32(nr);
}
static inline void rte_bit_relaxed_clear32(unsigned int nr, volatile uint32_t* addr) {
  RTE_ASSERT(nr < 32);
  *addr = *addr & ~RTE_BIT32(nr);
}
static inline uint32_t rte_bit_relaxed_test_and_set32(unsigned int nr, volatile uint32_t* addr) {
  const uint32_t before = rte_bit_relaxed_get32(nr, addr);
  rte_bit_relaxed_set32(nr, addr);
  return before;
}
static inline uint32_t rte_bit_relaxed_test_and_clear32(unsigned int nr, volatile uint32_t* addr) {
  const uint32_t before = rte_bit_relaxed_get32(nr, addr);
  rte_bit_relaxed_clear32(nr, addr);
  return before;
}

/* ---- 64 bits; get and test return the bit where it stands in the word, or 0. Requires: nr < 64. ---- */

static inline uint64_t rte_bit_relaxed_get64(unsigned int nr, volatile uint64_t* addr) {
  RTE_ASSERT(nr < 64);
  return *addr & RTE_BIT64(nr);
}
static inline void rte_bit_relaxed_set64(unsigned int nr, volatile uint64_t* addr) {
  RTE_ASSERT(nr < 64);
  *addr = *addr | RTE_BIT64(nr);
}
static inline void rte_bit_relaxed_clear64(unsigned int nr, volatile uint64_t* addr) {
  RTE_ASSERT(nr < 64);
  *addr = *addr & ~RTE_BIT64(nr);
}
static inline uint64_t rte_bit_relaxed_test_and_set64(unsigned int nr, volatile uint64_t* addr) {
  const uint64_t before = rte_bit_relaxed_get64(nr, addr);
  rte_bit_relaxed_set64(nr, addr);
  return before;
}
static inline uint64_t rte_bit_relaxed_test_and_clear64(unsigned int nr, volatile uint64_t* addr) {
  const uint64_t before = rte_bit_relaxed_get64(nr, addr);
  rte_bit_relaxed_clear64(nr, addr);
  return before;
}

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_DPDK_RTE_BITOPS_H */
