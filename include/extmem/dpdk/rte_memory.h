/* Memory as lists of pages, whatever heap it serves: looking up, walking, hearing of it, registering more.
 *
 * A memseg list is one piece of memory that was added at once, a memseg is one of its pages. Their descriptions are this
 * process' own and made when somebody first walks over them or looks one up; they stay where they are while
 * the memory stays.
 *
 * Thread-safety: every function may be called by any thread at any time, between rte_eal_init() and rte_eal_cleanup().
 * Memory does not go while a walk is under way: what wants to remove it waits. Each function works inside a memory event
 * callback too, unless it says otherwise; the twins ending in _thread_unsafe are then the same.
 */
#ifndef EXTMEM_DPDK_RTE_MEMORY_H
#define EXTMEM_DPDK_RTE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <rte_bitops.h>
#include <rte_common.h>
#include <rte_config.h>
#include <rte_fbarray.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RTE_PGSIZE_4K (1ULL << 12)
#define RTE_PGSIZE_64K (1ULL << 16)
#define RTE_PGSIZE_256K (1ULL << 18)
#define RTE_PGSIZE_2M (1ULL << 21)
#define RTE_PGSIZE_16M (1ULL << 24)
#define RTE_PGSIZE_256M (1ULL << 28)
#define RTE_PGSIZE_512M (1ULL << 29)
#define RTE_PGSIZE_1G (1ULL << 30)
#define RTE_PGSIZE_4G (1ULL << 32)
#define RTE_PGSIZE_16G (1ULL << 34)

#define SOCKET_ID_ANY -1

#define RTE_MEMSEG_FLAG_DO_NOT_FREE \
  RTE_BIT32(0) /* the page stays: it was there from the start, or the program wants it so */
#define RTE_MEMSEG_FLAG_DIRTY RTE_BIT32(1) /* not used */

/* A page of memory. */
struct rte_memseg {
  rte_iova_t iova; /* RTE_BAD_IOVA where none is known */
  RTE_STD_C11
  union {
    void* addr;
    uint64_t addr_64;
  };
  size_t len; /* hugepage_sz */
  uint64_t hugepage_sz;
  int32_t socket_id;
  uint32_t nchannel; /* what -n said */
  uint32_t nrank;    /* what -r said */
  uint32_t flags;    /* RTE_MEMSEG_FLAG_* */
} __rte_packed;

/* Memory that was added at once. */
struct rte_memseg_list {
  RTE_STD_C11
  union {
    void* base_va;
    uint64_t addr_64;
  };
  uint64_t page_sz;
  int socket_id;
  volatile uint32_t version; /* not used */
  size_t len;
  unsigned int external;         /* 1: the program's own memory */
  unsigned int heap;             /* 1: it serves a heap; 0: rte_extmem_register() made it known */
  struct rte_fbarray memseg_arr; /* of struct rte_memseg; every element is used */
};

/* ---- addresses ---- */

/* Locks the page of an address in memory. Returns: 0, or -errno. */
int rte_mem_lock_page(const void* virt);
/* The physical address of a byte, as the kernel tells; RTE_BAD_IOVA where it does not (it needs CAP_SYS_ADMIN). */
phys_addr_t rte_mem_virt2phy(const void* virt);
/* By rte_eal_iova_mode() the address itself, or the physical one. IOVA tables are not looked at: see
 * rte_malloc_virt2iova() and rte_mem_virt2memseg() for those. */
rte_iova_t rte_mem_virt2iova(const void* virt);
/* The address that a device's address means, in whichever memory has it in its table; NULL where none has. */
void* rte_mem_iova2virt(rte_iova_t iova);
/* The page that an address lies in, NULL where it is not known memory. msl: the list that it lies in, or NULL. */
struct rte_memseg* rte_mem_virt2memseg(const void* virt, const struct rte_memseg_list* msl);
struct rte_memseg_list* rte_mem_virt2memseg_list(const void* virt);

/* ---- walks ----
 *
 * In order of address. External and registered memory is visited too, marked `external`. What a callback returns ends the
 * walk if it is not 0, and is returned; else 0. -1 with rte_errno EINVAL: no callback; ENOMEM: no memory for the
 * descriptions. */

typedef int (*rte_memseg_walk_t)(const struct rte_memseg_list* msl, const struct rte_memseg* ms, void* arg);
/* [ms->addr, ms->addr + len) is one run of pages of one list. */
typedef int (*rte_memseg_contig_walk_t)(const struct rte_memseg_list* msl, const struct rte_memseg* ms,
                                        size_t len, void* arg);
typedef int (*rte_memseg_list_walk_t)(const struct rte_memseg_list* msl, void* arg);

int rte_memseg_walk(rte_memseg_walk_t func, void* arg);
int rte_memseg_contig_walk(rte_memseg_contig_walk_t func, void* arg);
int rte_memseg_list_walk(rte_memseg_list_walk_t func, void* arg);
int rte_memseg_walk_thread_unsafe(rte_memseg_walk_t func, void* arg);
int rte_memseg_contig_walk_thread_unsafe(rte_memseg_contig_walk_t func, void* arg);
int rte_memseg_list_walk_thread_unsafe(rte_memseg_list_walk_t func, void* arg);

/* ---- the file behind a page ----
 *
 * The descriptor is only lent: it is open while the memory is there. External memory has one where it lies in a shared
 * mapping of a file that this process still has open.
 * Returns: the descriptor; -1 with rte_errno: EINVAL ms or offset is NULL, or ms is no page of a list; ENOENT a page that
 * is not used; ENOTSUP external memory without one; ENODEV other memory without one. */
int rte_memseg_get_fd(const struct rte_memseg* ms);
int rte_memseg_get_fd_thread_unsafe(const struct rte_memseg* ms);
int rte_memseg_get_fd_offset(const struct rte_memseg* ms, size_t* offset);
int rte_memseg_get_fd_offset_thread_unsafe(const struct rte_memseg* ms, size_t* offset);

/* ---- memory without a heap ----
 *
 * Makes memory known to walks and lookups, and no more: nothing is written to it, nobody is told, no heap gets it. Each
 * registration uses up a socket id. 0, or -1 with rte_errno; EDEADLK inside a walk or a memory event callback. */

/* EINVAL as rte_malloc_heap_memory_add(); EEXIST it overlaps memory that is known; ENOSPC. */
int rte_extmem_register(void* va_addr, size_t len, rte_iova_t iova_addrs[], unsigned int n_pages,
                        size_t page_sz);
/* EINVAL va_addr NULL or len 0; ENOENT not exactly a range that was registered; EBUSY another process has it attached. */
int rte_extmem_unregister(void* va_addr, size_t len);
/* EINVAL; ENOENT; EEXIST it is attached in this process. */
int rte_extmem_attach(void* va_addr, size_t len);
/* EINVAL; ENOENT, also where it is not attached. */
int rte_extmem_detach(void* va_addr, size_t len);

/* ---- the whole ---- */

/* Prints every page, or where pages are alike the runs of them. */
void rte_dump_physmem_layout(FILE* f);
/* Bytes of internal memory. */
uint64_t rte_eal_get_physmem_size(void);
/* What -n and -r said; 0 without them. */
unsigned rte_memory_get_nchannel(void);
unsigned rte_memory_get_nrank(void);

/* Whether every IOVA that is known fits in maskbits bits.
 * Returns: 0 it does, and from now on memory with others is refused; 1 it does not; -1 maskbits is above 63. */
int rte_mem_check_dma_mask(uint8_t maskbits);
int rte_mem_check_dma_mask_thread_unsafe(uint8_t maskbits);
/* From now on memory with other IOVAs is refused. The smallest mask counts. */
void rte_mem_set_dma_mask(uint8_t maskbits);
/* 1 where this process can learn physical addresses, else 0. */
int rte_eal_using_phys_addrs(void);

/* ---- memory events ---- */

enum rte_mem_event { RTE_MEM_EVENT_ALLOC = 0, RTE_MEM_EVENT_FREE };

#define RTE_MEM_EVENT_CALLBACK_NAME_LEN 64

/* ALLOC: the memory was added, in whichever way, and can be looked up. FREE: it is about to go. Not of registered memory.
 * Inside, memory can be allocated from what is there; nothing can be added or removed. */
typedef void (*rte_mem_event_callback_t)(enum rte_mem_event event_type, const void* addr, size_t len,
                                         void* arg);

/* Callbacks hear events in the order of registration. Each is known by name and arg. May be called inside one.
 * 0, or -1 with rte_errno: EINVAL a NULL or empty name, or a NULL function; ENAMETOOLONG 64 bytes or more; EEXIST. */
int rte_mem_event_callback_register(const char* name, rte_mem_event_callback_t clb, void* arg);
/* When it returns, the callback does not run any more (unless it is the callback that calls).
 * EINVAL; ENAMETOOLONG; ENOENT. */
int rte_mem_event_callback_unregister(const char* name, void* arg);

/* ---- limits of internal heaps ---- */

#define RTE_MEM_ALLOC_VALIDATOR_NAME_LEN 64

/* Asked before an internal heap grows to new_len bytes, its limit or more. Below 0: it shall not. */
typedef int (*rte_mem_alloc_validator_t)(int socket_id, size_t cur_limit, size_t new_len);

/* Validators are of the process that registers them: they are asked when this process makes a heap grow. Each is known by
 * name and socket_id. 0, or -1 with rte_errno: EINVAL a NULL or empty name, a NULL function, socket_id below 0;
 * ENAMETOOLONG 64 bytes or more; EEXIST. */
int rte_mem_alloc_validator_register(const char* name, rte_mem_alloc_validator_t clb, int socket_id,
                                     size_t limit);
/* EINVAL; ENAMETOOLONG; ENOENT. */
int rte_mem_alloc_validator_unregister(const char* name, int socket_id);

/* ---- secrets ---- */

/* Fills memory with zeros, even where the compiler can tell that nobody reads it again. */
void rte_memzero_explicit(void* dst, size_t sz);
/* Whether n bytes are equal; the time that it takes does not depend on them. */
bool rte_memeq_timingsafe(const void* a, const void* b, size_t n);

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_DPDK_RTE_MEMORY_H */
