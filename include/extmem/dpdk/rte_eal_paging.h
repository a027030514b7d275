/* Mapping memory and files by the page.
 *
 * Thread-safety: any thread, any time.
 */
#ifndef EXTMEM_DPDK_RTE_EAL_PAGING_H
#define EXTMEM_DPDK_RTE_EAL_PAGING_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <rte_compat.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What may be done with a page; 0: nothing. */
enum rte_mem_prot { RTE_PROT_READ = 1 << 0, RTE_PROT_WRITE = 1 << 1, RTE_PROT_EXECUTE = 1 << 2 };

enum rte_map_flags {
  RTE_MAP_SHARED = 1 << 0,       /* changes are seen by others */
  RTE_MAP_ANONYMOUS = 1 << 1,    /* no file */
  RTE_MAP_PRIVATE = 1 << 2,      /* changes are the process' own */
  RTE_MAP_FORCE_ADDRESS = 1 << 3 /* there and nowhere else, over what is mapped there */
};

/* Maps. `requested_addr`: a hint, or NULL. Returns: the address, or NULL with rte_errno: what mmap() says. */
void* rte_mem_map(void* requested_addr, size_t size, int prot, int flags, int fd, uint64_t offset);
/* Returns: 0, or -1 with rte_errno: what munmap() says. */
int rte_mem_unmap(void* virt, size_t size);
/* Bytes of a page. */
size_t rte_mem_page_size(void);
/* Keeps the pages in memory. Returns: 0, or -1 with rte_errno: what mlock() says. */
int rte_mem_lock(const void* virt, size_t size);

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_DPDK_RTE_EAL_PAGING_H */
