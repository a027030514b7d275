/* UUIDs (RFC 4122): 16 bytes in network order, and their text.
 *
 * Thread-safety: plain computations.
 */
#ifndef EXTMEM_DPDK_RTE_UUID_H
#define EXTMEM_DPDK_RTE_UUID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef unsigned char rte_uuid_t[16];

/* A constant from the fields of the text; e is the last one. */
#define RTE_UUID_INIT(a, b, c, d, e)                                                                      \
  {                                                                                                       \
    ((a) >> 24) & 0xff, ((a) >> 16) & 0xff, ((a) >> 8) & 0xff, (a)&0xff, ((b) >> 8) & 0xff, (b)&0xff,     \
        ((c) >> 8) & 0xff, (c)&0xff, ((d) >> 8) & 0xff, (d)&0xff, ((e) >> 40) & 0xff, ((e) >> 32) & 0xff, \
        ((e) >> 24) & 0xff, ((e) >> 16) & 0xff, ((e) >> 8) & 0xff, (e)&0xff                               \
  }

#define RTE_UUID_STRLEN (36 + 1) /* bytes of the text, with the final zero */

bool rte_uuid_is_null(const rte_uuid_t uu);

static inline void rte_uuid_copy(rte_uuid_t dst, const rte_uuid_t src) {
  memcpy(dst, src, sizeof(rte_uuid_t));
}

/* Less than, equal to or greater than 0, by the bytes' order. */
int rte_uuid_compare(const rte_uuid_t a, const rte_uuid_t b);

/* Reads the text. Returns: 0, or -1 where it is not a UUID's; then `uu` is unchanged. */
int rte_uuid_parse(const char* in, rte_uuid_t uu);

/* Writes the text in lower case, cut to `len` bytes with the final zero. */
void rte_uuid_unparse(const rte_uuid_t uu, char* out, size_t len);

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_DPDK_RTE_UUID_H */
