/* Copying memory. The C library's memcpy() picks the fastest way for the processor when the program starts, so these
 * are it; the ranges must not overlap. */
#ifndef EXTMEM_DPDK_RTE_MEMCPY_H
#define EXTMEM_DPDK_RTE_MEMCPY_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_common.h>
#include <rte_config.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Returns: dst. */
static inline void* rte_memcpy(void* dst, const void* src, size_t n) { return memcpy(dst, src, n); }

static inline void rte_mov16(uint8_t* dst, const uint8_t* src) { memcpy(dst, src, 16); }
static inline void rte_mov32(uint8_t* dst, const uint8_t* src) { memcpy(dst, src, 32); }
static inline void rte_mov48(uint8_t* dst, const uint8_t* src) { memcpy(dst, src, 48); }
static inline void rte_mov64(uint8_t* dst, const uint8_t* src) { memcpy(dst, src, 64); }
static inline void rte_mov128(uint8_t* dst, const uint8_t* src) { memcpy(dst, src, 128); }
static inline void rte_mov256(uint8_t* dst, const uint8_t* src) { memcpy(dst, src, 256); }

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_DPDK_RTE_MEMCPY_H */
