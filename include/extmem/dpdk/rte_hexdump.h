/* Writing memory as hexadecimal numbers. */
#ifndef EXTMEM_DPDK_RTE_HEXDUMP_H
#define EXTMEM_DPDK_RTE_HEXDUMP_H

#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Sixteen bytes a line, with their offset and their characters. `title` may be NULL. */
void rte_hexdump(FILE* f, const char* title, const void* buf, unsigned int len);

/* All in one line, with colons between the bytes. `title` may be NULL. */
void rte_memdump(FILE* f, const char* title, const void* buf, unsigned int len);

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_DPDK_RTE_HEXDUMP_H */
