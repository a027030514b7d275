/* Byte order: swapping, and to and from big endian (the network's) and little endian. */
#ifndef EXTMEM_DPDK_RTE_BYTEORDER_H
#define EXTMEM_DPDK_RTE_BYTEORDER_H

#include <stdint.h>

#include <rte_common.h>
#include <rte_config.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RTE_BIG_ENDIAN 1
#define RTE_LITTLE_ENDIAN 2
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define RTE_BYTE_ORDER RTE_BIG_ENDIAN
#else
#define RTE_BYTE_ORDER RTE_LITTLE_ENDIAN
#endif

/* Numbers that are kept in that order. */
typedef uint16_t rte_be16_t;
typedef uint32_t rte_be32_t;
typedef uint64_t rte_be64_t;
typedef uint16_t rte_le16_t;
typedef uint32_t rte_le32_t;
typedef uint64_t rte_le64_t;

/* Swapped; with constants, a constant. */
#define RTE_STATIC_BSWAP16(v) ((uint16_t)__builtin_bswap16((uint16_t)(v)))
#define RTE_STATIC_BSWAP32(v) ((uint32_t)__builtin_bswap32((uint32_t)(v)))
#define RTE_STATIC_BSWAP64(v) ((uint64_t)__builtin_bswap64((uint64_t)(v)))
#define rte_bswap16(x) ((uint16_t)__builtin_bswap16((uint16_t)(x)))
#define rte_bswap32(x) ((uint32_t)__builtin_bswap32((uint32_t)(x)))
#define rte_bswap64(x) ((uint64_t)__builtin_bswap64((uint64_t)(x)))
static inline uint16_t rte_constant_bswap16(uint16_t x) { return __builtin_bswap16(x); }
static inline uint32_t rte_constant_bswap32(uint32_t x) { return __builtin_bswap32(x); }
static inline uint64_t rte_constant_bswap64(uint64_t x) { return __builtin_bswap64(x); }

#if RTE_BYTE_ORDER == RTE_BIG_ENDIAN
#define RTE_BE16(v) ((rte_be16_t)(v))
#define RTE_LE16(v) ((rte_le16_t)RTE_STATIC_BSWAP16(v))
#define rte_cpu_to_be_16(x) (x)
#define rte_cpu_to_le_16(x) rte_bswap16(x)
#define rte_be_to_cpu_16(x) (x)
#define rte_le_to_cpu_16(x) rte_bswap16(x)
#define RTE_BE32(v) ((rte_be32_t)(v))
#define RTE_LE32(v) ((rte_le32_t)RTE_STATIC_BSWAP32(v))
#define rte_cpu_to_be_32(x) (x)
#define rte_cpu_to_le_32(x) rte_bswap32(x)
#define rte_be_to_cpu_32(x) (x)
#define rte_le_to_cpu_32(x) rte_bswap32(x)
#define RTE_BE64(v) ((rte_be64_t)(v))
#define RTE_LE64(v) ((rte_le64_t)RTE_STATIC_BSWAP64(v))
#define rte_cpu_to_be_64(x) (x)
#define rte_cpu_to_le_64(x) rte_bswap64(x)
#define rte_be_to_cpu_64(x) (x)
#define rte_le_to_cpu_64(x) rte_bswap64(x)
#endif

#if RTE_BYTE_ORDER == RTE_LITTLE_ENDIAN
#define RTE_LE16(v) ((rte_le16_t)(v))
#define RTE_BE16(v) ((rte_be16_t)RTE_STATIC_BSWAP16(v))
#define rte_cpu_to_le_16(x) (x)
#define rte_cpu_to_be_16(x) rte_bswap16(x)
#define rte_le_to_cpu_16(x) (x)
#define rte_be_to_cpu_16(x) rte_bswap16(x)
#define RTE_LE32(v) ((rte_le32_t)(v))
#define RTE_BE32(v) ((rte_be32_t)RTE_STATIC_BSWAP32(v))
#define rte_cpu_to_le_32(x) (x)
#define rte_cpu_to_be_32(x) rte_bswap32(x)
#define rte_le_to_cpu_32(x) (x)
#define rte_be_to_cpu_32(x) rte_bswap32(x)
#define RTE_LE64(v) ((rte_le64_t)(v))
#define RTE_BE64(v) ((rte_be64_t)RTE_STATIC_BSWAP64(v))
#define rte_cpu_to_le_64(x) (x)
#define rte_cpu_to_be_64(x) rte_bswap64(x)
#define rte_le_to_cpu_64(x) (x)
#define rte_be_to_cpu_64(x) rte_bswap64(x)
#endif

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_DPDK_RTE_BYTEORDER_H */
