/* Memzones: memory that is reserved under a name, which every process of the domain can look up.
 *
 * A name is unique over all heaps. The pointer to a memzone's description stays the same, and valid, until the memzone is
 * freed; every lookup of this process gives the same.
 *
 * Thread-safety: every function may be called by any thread at any time, between rte_eal_init() and rte_eal_cleanup(), but
 * not inside a memory event callback: there they answer NULL or -1 with EDEADLK, and -EDEADLK where freeing.
 */
#ifndef EXTMEM_DPDK_RTE_MEMZONE_H
#define EXTMEM_DPDK_RTE_MEMZONE_H

#include <stdio.h>

#include <rte_common.h>
#include <rte_memory.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Which pages internal memory must come from. Heaps of external memory do not look at them. */
#define RTE_MEMZONE_2MB 0x00000001
#define RTE_MEMZONE_1GB 0x00000002
#define RTE_MEMZONE_16MB 0x00000100
#define RTE_MEMZONE_16GB 0x00000200
#define RTE_MEMZONE_256KB 0x00010000
#define RTE_MEMZONE_256MB 0x00020000
#define RTE_MEMZONE_512MB 0x00040000
#define RTE_MEMZONE_4GB 0x00080000
#define RTE_MEMZONE_SIZE_HINT_ONLY 0x00000004 /* other pages will do where there are none of those */
#define RTE_MEMZONE_IOVA_CONTIG 0x00100000    /* one run of IOVAs */

struct rte_memzone {
#define RTE_MEMZONE_NAMESIZE 32
  char name[RTE_MEMZONE_NAMESIZE];
  rte_iova_t iova; /* of the first byte */
  RTE_STD_C11
  union {
    void* addr;
    uint64_t addr_64;
  };
  size_t len;           /* what was asked for, in whole cache lines */
  uint64_t hugepage_sz; /* of the memory's pages */
  int32_t socket_id;
  uint32_t flags; /* 0 */
} __rte_packed;

/* Reserves memory. len 0: the biggest free piece that the heap has (or `bound` bytes, where that is given). `align` is 0
 * or a power of two; `bound` is 0 or a power of two, no multiple of which the memory crosses.
 *
 * Returns: the description, or NULL with rte_errno, tested in this order: ENOSPC there are rte_memzone_max_get() memzones;
 * ENAMETOOLONG 32 bytes or more; EEXIST; EINVAL a NULL name, align, len above SIZE_MAX - 63, bound, socket_id or flags;
 * ENOMEM. */
const struct rte_memzone* rte_memzone_reserve(const char* name, size_t len, int socket_id, unsigned flags);
const struct rte_memzone* rte_memzone_reserve_aligned(const char* name, size_t len, int socket_id,
                                                      unsigned flags, unsigned align);
const struct rte_memzone* rte_memzone_reserve_bounded(const char* name, size_t len, int socket_id,
                                                      unsigned flags, unsigned align, unsigned bound);

/* The same in a heap that is named ("socket_0", ... for internal ones). EINVAL also where the name is no heap's. */
const struct rte_memzone* rte_memzone_reserve_from_heap(const char* name, const char* heap_name, size_t len,
                                                        unsigned flags);
const struct rte_memzone* rte_memzone_reserve_aligned_from_heap(const char* name, const char* heap_name,
                                                                size_t len, unsigned flags, unsigned align);
const struct rte_memzone* rte_memzone_reserve_bounded_from_heap(const char* name, const char* heap_name,
                                                                size_t len, unsigned flags, unsigned align,
                                                                unsigned bound);

/* Returns: 0; -EINVAL for NULL, and for what is no memzone of this process, or no longer. */
int rte_memzone_free(const struct rte_memzone* mz);
/* The memzone of that name, or NULL. Takes the same time however many there are. */
const struct rte_memzone* rte_memzone_lookup(const char* name);
/* Prints every memzone. */
void rte_memzone_dump(FILE* f);
/* Calls func for every memzone that there was when the walk began. */
void rte_memzone_walk(void (*func)(const struct rte_memzone*, void* arg), void* arg);

/* The most memzones there can be: 2560 unless set. Returns: 0; -1 after rte_eal_init(). */
int rte_memzone_max_set(size_t max);
size_t rte_memzone_max_get(void);

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_DPDK_RTE_MEMZONE_H */
