/* Allocation from named heaps: internal ones, "socket_N", one for each NUMA node, and external ones, which a program
 * makes and gives memory of its own.
 *
 * A heap is named by its socket id: the node's number, or for an external heap an id from 256 upwards, which is never
 * used again. Sizes and alignments are rounded up to 64 bytes; nothing is written into the memory but the zeros and the
 * copies that are asked for. docs/dpdk.md tells where this differs from DPDK.
 *
 * Thread-safety: every function may be called by any thread at any time, between rte_eal_init() and rte_eal_cleanup().
 * Inside a memory event callback or a walk, memory may be allocated and freed; there heaps do not grow, and what
 * adds or removes heaps or memory fails with EDEADLK.
 */
#ifndef EXTMEM_DPDK_RTE_MALLOC_H
#define EXTMEM_DPDK_RTE_MALLOC_H

#include <stddef.h>
#include <stdio.h>

#include <rte_memory.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a heap has and how it is used. total = free + allocated, always. */
struct rte_malloc_socket_stats {
  size_t heap_totalsz_bytes; /* of all its memory */
  size_t heap_freesz_bytes;  /* free */
  size_t greatest_free_size; /* the biggest free piece: a memzone of length 0 gets exactly that */
  unsigned free_count;       /* free pieces */
  unsigned alloc_count;      /* allocations */
  size_t heap_allocsz_bytes; /* allocated, in whole cache lines */
};

/* ---- allocate ----
 *
 * `type` names what is allocated, for people who read code; it may be NULL. `align` is 0 or a power of two. `socket` is a
 * socket id or SOCKET_ID_ANY: then the internal heap of the calling thread's socket is tried first, the other
 * internal ones after it, external ones never.
 *
 * Returns: the memory, or NULL: size 0, align no power of two, no such heap, or out of memory. rte_errno stays as it was. */

void* rte_malloc(const char* type, size_t size, unsigned align) __rte_alloc_size(2);
void* rte_malloc_socket(const char* type, size_t size, unsigned align, int socket) __rte_alloc_size(2);
/* The same, filled with zeros. */
void* rte_zmalloc(const char* type, size_t size, unsigned align) __rte_alloc_size(2);
void* rte_zmalloc_socket(const char* type, size_t size, unsigned align, int socket) __rte_alloc_size(2);
/* num times size bytes of zeros; NULL also where the product does not fit. */
void* rte_calloc(const char* type, size_t num, size_t size, unsigned align) __rte_alloc_size(2, 3);
void* rte_calloc_socket(const char* type, size_t num, size_t size, unsigned align, int socket)
    __rte_alloc_size(2, 3);

/* Changes the size of an allocation and keeps its contents: in place where the memory behind it is free or it shrinks, the
 * alignment holds and, for rte_realloc_socket, the heap is the one that is asked for; else by moving. NULL is allocated
 * anew; size 0 frees.
 * Returns: the memory; or NULL, and then ptr is still allocated (unless size was 0). */
void* rte_realloc(void* ptr, size_t size, unsigned int align) __rte_alloc_size(2);
void* rte_realloc_socket(void* ptr, size_t size, unsigned int align, int socket) __rte_alloc_size(2);

/* Frees what the functions above gave. NULL does nothing; what is not allocated is logged, and nothing changes. */
void rte_free(void* ptr);
/* The same, after filling the memory with zeros in a way that the compiler keeps. */
void rte_free_sensitive(void* ptr);

/* ---- allocate from a heap by its name: as above. Internal heaps are named "socket_0", ... ---- */

void* rte_malloc_from_heap(const char* heap_name, const char* type, size_t size, unsigned align)
    __rte_alloc_size(3);
void* rte_zmalloc_from_heap(const char* heap_name, const char* type, size_t size, unsigned align)
    __rte_alloc_size(3);
void* rte_calloc_from_heap(const char* heap_name, const char* type, size_t num, size_t size, unsigned align)
    __rte_alloc_size(3, 4);

/* ---- look ---- */

/* Tells the usable size of an allocation in *size, unless size is NULL.
 * Returns: 0; -1 for NULL and for what is not the start of an allocation. */
int rte_malloc_validate(const void* ptr, size_t* size);
/* Returns: 0; -1 where no heap has this socket id, or socket_stats is NULL. */
int rte_malloc_get_socket_stats(int socket, struct rte_malloc_socket_stats* socket_stats);
/* Returns: 0; -1 with rte_errno: EINVAL an argument is NULL, or the name empty or too long; ENOENT no such heap. */
int rte_malloc_get_stats_from_heap(const char* heap_name, struct rte_malloc_socket_stats* stats);
/* Does nothing and returns 0, as in DPDK: `max` per `type` was never enforced. */
int rte_malloc_set_limit(const char* type, size_t max);
/* Prints the statistics of every heap. `type` is not used. */
void rte_malloc_dump_stats(FILE* f, const char* type);
/* Prints what every heap consists of: its memory, and in each what is allocated and what is free. */
void rte_malloc_dump_heaps(FILE* f);
/* The address of a byte of a heap for a device: of external memory what its IOVA table says, of internal memory by
 * rte_eal_iova_mode(). RTE_BAD_IOVA where none is known, or the address is in no heap. */
rte_iova_t rte_malloc_virt2iova(const void* addr);

/* ---- external heaps ----
 *
 * Each returns 0 (rte_malloc_heap_get_socket the id), or -1 with rte_errno; the errors are tested in the order in which
 * they stand here, and a call that fails has changed nothing. Heap names have 1 to 31 bytes. Also EDEADLK: called inside
 * a memory event callback or a walk. */

/* EINVAL the name is NULL, empty or too long; EEXIST; ENOSPC. */
int rte_malloc_heap_create(const char* heap_name);
/* EINVAL; ENOENT; EPERM an internal heap; EBUSY it has memory. */
int rte_malloc_heap_destroy(const char* heap_name);
/* EINVAL; ENOENT. */
int rte_malloc_heap_get_socket(const char* name);
/* 1 the heap with this socket id is external, 0 it is internal or the id is SOCKET_ID_ANY, -1 there is none. */
int rte_malloc_heap_socket_is_external(int socket_id);

/* Lends memory to an external heap. The memory stays mapped until it is removed again. iova_addrs has one address for each
 * page and is copied; where it is NULL, every page's is RTE_BAD_IOVA and n_pages does not matter.
 * EINVAL the name, va_addr NULL, page_sz no power of two from 64, len 0, len or va_addr no multiple of page_sz, n_pages not
 * len / page_sz; ENOENT; EPERM an internal heap; ENOSPC; EEXIST it overlaps memory that is known. */
int rte_malloc_heap_memory_add(const char* heap_name, void* va_addr, size_t len, rte_iova_t iova_addrs[],
                               unsigned int n_pages, size_t page_sz);
/* Takes memory away again: exactly a range that was added, by whichever process.
 * EINVAL the name, va_addr NULL, len 0; ENOENT no such heap; EPERM; ENOENT no such range; EBUSY something is allocated in
 * it, or another process has it attached. */
int rte_malloc_heap_memory_remove(const char* heap_name, void* va_addr, size_t len);
/* Lets this process use memory that another process added, and that it has mapped at the same address itself.
 * EINVAL; ENOENT; EPERM; ENOENT; EEXIST it is attached in this process (the one that added it is). */
int rte_malloc_heap_memory_attach(const char* heap_name, void* va_addr, size_t len);
/* The reverse. The memory stays the heap's. EINVAL; ENOENT; EPERM; ENOENT, also where it is not attached. */
int rte_malloc_heap_memory_detach(const char* heap_name, void* va_addr, size_t len);

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_DPDK_RTE_MALLOC_H */
