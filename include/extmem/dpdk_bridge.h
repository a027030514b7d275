/* extmem for C: extmem's memory inside a running DPDK. A library of its own, libextmem-dpdk-bridge, which exists where
 * Debian's libdpdk-dev does; docs/dpdk-bridge.md draws who owns what, and says what DPDK 22.11 does not allow.
 *
 *   lend and withdraw       a heap's regions as DPDK's external memory, mapped for its devices
 *   ranges                  a piece of a heap's memory as memory of one of DPDK's own heaps
 *   pools of packets        mbufs whose data buffers lie in a heap
 *   descriptors             the file behind lent memory
 *
 * The conventions of extmem.h hold here, but for these:
 *  Messages  extmem_dpdk_last_error_message() tells about this library's functions; it passes on what libextmem said.
 *  EAL       Every function fails with ENODEV where rte_eal_init has not succeeded in this process yet.
 *  Devices   None is attached to DPDK or detached from it while one of these functions runs, or while a region of a lent
 *            heap comes or goes: DPDK's list of devices has no lock.
 *  Memory    This library calls malloc.
 *  fork      Do not use it in a child: DPDK does not survive a fork either.
 * C++ programs open a named domain a second time, with extmem_domain_open: it stays one participant, and its heaps the same.
 */
#ifndef EXTMEM_DPDK_BRIDGE_H
#define EXTMEM_DPDK_BRIDGE_H

#include "extmem/extmem.h"

struct rte_mempool;

#ifdef __cplusplus
extern "C" {
#endif

/**
 * What was wrong in the calling thread's last failing call of this library, and what to do about it.
 *
 * Returns: a string that stays valid until the thread's next failing call; "no error" before the first. Never NULL.
 * Threads: any; each has its own.
 */
EXTMEM_API const char* extmem_dpdk_last_error_message(void);

/* ---- lend and withdraw ----------------------------------------------------------------------------------- */

/* A heap that is lent. */
typedef struct extmem_dpdk_lease extmem_dpdk_lease_t;

enum extmem_dpdk_lend_flag {
  EXTMEM_DPDK_REGISTER_ONLY = 1, /* leave the devices alone: map nothing for them */
  EXTMEM_DPDK_NEED_IOVA = 2      /* refuse memory whose device address would be unknown */
};

/* What a lease has lent. */
typedef struct extmem_dpdk_lease_info {
  size_t struct_size;
  uint64_t regions;  /* that DPDK knows */
  uint64_t bytes;    /* in them */
  uint64_t mappings; /* pairs of a region and a device that it is mapped for */
  uint64_t missing;  /* regions that the heap has and DPDK lost: see extmem_dpdk_lend */
} extmem_dpdk_lease_info_t;

/**
 * Lends all memory of a heap to this process' DPDK. Each region is registered (rte_extmem_register) and mapped for each
 * probed device whose driver wants that (rte_dev_dma_map). Regions that come later are lent before anything is allocated
 * from them, and withdrawn before they go.
 *
 * A page's device address is the IOVA that the region has. Where it has none it is the virtual address if EAL is in VA
 * mode; in PA mode it stays unknown (RTE_BAD_IOVA), and devices are not told of it.
 *
 * A region that another process of this DPDK has lent, at the same address, is attached (rte_extmem_attach); the other one maps it
 * for devices, and cannot withdraw it before this one has.
 *
 * Where registering or mapping fails, the call that brought the region (this one, extmem_region_add, ...) fails, and
 * everything is as before. Where a device will not let go of a region, its removal fails likewise. Where such a removal
 * was refused by somebody else and the region cannot be lent again, it is counted as missing; extmem_dpdk_refresh tries.
 *
 * Requires: flags 0 or of enum extmem_dpdk_lend_flag. The lease is withdrawn before the heap is destroyed, the domain is
 * closed or rte_eal_cleanup is called.
 * Returns: 0 and the lease in *lease; -errno.
 * Errors: EINVAL flags, or EXTMEM_DPDK_NEED_IOVA and unknown addresses; EEXIST the heap is lent already, or a range of it
 * was given; EOVERFLOW a region has too many pages; ENOSPC DPDK has no room for more (22.11: 128 areas); ENOMEM; what a
 * device answered; EDEADLK inside a callback; ESTALE the heap was destroyed.
 * Threads: any.
 */
EXTMEM_API int extmem_dpdk_lend(extmem_domain_t* domain, extmem_heap_t heap, uint32_t flags,
                                extmem_dpdk_lease_t** lease);

/**
 * Maps what is lent for devices that were probed since, and lends what is missing. DPDK tells nobody of new devices, so
 * whoever attaches one calls this before starting it.
 *
 * Returns: 0; -errno, and what this call has mapped is unmapped again.
 * Errors: as extmem_dpdk_lend.
 * Threads: any.
 */
EXTMEM_API int extmem_dpdk_refresh(extmem_dpdk_lease_t* lease);

/**
 * What a lease has lent.
 *
 * Returns: 0 and the answer in *info (info_size bytes of it); -errno.
 * Threads: any.
 */
EXTMEM_API int extmem_dpdk_lease_get_info(extmem_dpdk_lease_t* lease, extmem_dpdk_lease_info_t* info,
                                          size_t info_size);

/**
 * Takes everything back: unmaps it for all devices and unregisters it. The lease is gone then.
 *
 * Requires: no other call with this lease is running or follows.
 * Returns: 0; -errno, and everything is lent as before.
 * Errors: EBUSY a pool of extmem_dpdk_pktmbuf_pool_create is in the heap; what a device answered; EDEADLK inside a
 * callback.
 * Threads: one.
 */
EXTMEM_API int extmem_dpdk_withdraw(extmem_dpdk_lease_t* lease);

/* ---- ranges ---------------------------------------------------------------------------------------------- */

/**
 * Gives memory that the caller has allocated (a memzone, or an object) to one of DPDK's heaps, which is made if there is
 * none of that name. DPDK zeroes it and keeps its bookkeeping inside. Device addresses are chosen as by extmem_dpdk_lend;
 * DPDK itself maps the memory for its devices.
 *
 * Requires: the caller keeps the memory allocated until it has taken it back.
 * Returns: 0; -errno.
 * Errors: EFAULT foreign pointer; EINVAL it is not allocated, reaches beyond its object, is no multiple of the OS page
 * size of its region, or the heap's name is empty or longer than 31 bytes; EPERM a heap of DPDK's own memory; EEXIST it is
 * given already, or its heap is lent; ENOTSUP the CPU cannot reach it; EOVERFLOW too many pages; ENOSPC DPDK has no room;
 * ENOMEM.
 * Threads: any.
 */
EXTMEM_API int extmem_dpdk_range_give(extmem_domain_t* domain, void* p, size_t length, const char* dpdk_heap);

/**
 * Takes a range back that extmem_dpdk_range_give gave. The DPDK heap goes with its last range if it was made for it. What
 * is in the memory then is DPDK's rest.
 *
 * Returns: 0; -errno.
 * Errors: ENOENT no such range was given; EBUSY something in it is allocated from DPDK's heap.
 * Threads: any.
 */
EXTMEM_API int extmem_dpdk_range_take_back(void* p, size_t length);

/* ---- pools of packets ------------------------------------------------------------------------------------ */

/* How to make a pool of packets. */
typedef struct extmem_dpdk_pool_options {
  size_t struct_size;
  const char* name;    /* of the mempool: 1 to 25 bytes */
  uint32_t count;      /* of mbufs; 2^n - 1 wastes least */
  uint32_t cache_size; /* of each lcore's cache */
  uint16_t priv_size;  /* the application's bytes behind each mbuf's header: a multiple of 8 */
  uint16_t data_room;  /* of a buffer, its headroom (128) among it; 0: 2176. It is rounded up to 64. */
  int32_t socket;      /* for headers and mempool, DPDK's own memory; -1: any */
  uint64_t reserved;   /* 0 */
} extmem_dpdk_pool_options_t;
#define EXTMEM_DPDK_POOL_OPTIONS_INIT \
  { sizeof(extmem_dpdk_pool_options_t), NULL, 0, 0, 0, 0, -1, 0 }

/**
 * Makes a pool of mbufs whose data buffers are memory of a heap (pinned external buffers). Headers stay in DPDK's memory.
 * Each buffer begins at a multiple of 64 and is one run of device addresses, chosen as by extmem_dpdk_lend. Where devices
 * do DMA into the buffers the heap has to be lent, first.
 *
 * Requires: options initialised with EXTMEM_DPDK_POOL_OPTIONS_INIT. The pool is destroyed before the domain is closed.
 * Returns: 0 and the mempool in *pool; -errno.
 * Errors: EINVAL options; ENAMETOOLONG; EEXIST the name is taken; ENOMEM the heap, or DPDK, has not enough; ENOSPC; ENOTSUP
 * the CPU cannot reach the heap's memory; ESTALE the heap was destroyed.
 * Threads: any.
 */
EXTMEM_API int extmem_dpdk_pktmbuf_pool_create(extmem_domain_t* domain, extmem_heap_t heap,
                                               const extmem_dpdk_pool_options_t* options,
                                               struct rte_mempool** pool);

/**
 * Destroys such a pool, and frees its buffers, when all of its mbufs are back. Where rte_mempool_free has freed it already,
 * which leaves the buffers allocated, this frees them.
 *
 * Requires: no port or thread uses the pool any more. out NULL, or where to write the count.
 * Returns: 0; -errno. With EBUSY, *out is how many mbufs are not back.
 * Errors: EBUSY; ENOENT it is no pool of extmem_dpdk_pktmbuf_pool_create.
 * Threads: one, for this pool.
 */
EXTMEM_API int extmem_dpdk_pktmbuf_pool_destroy(struct rte_mempool* pool, uint32_t* out);

/* ---- descriptors ----------------------------------------------------------------------------------------- */

/**
 * The file behind lent or given memory: what vhost-user and memif want of it. DPDK itself keeps no descriptors of external
 * memory (rte_memseg_get_fd answers ENOTSUP) and lets nobody tell it any.
 *
 * Returns: 0, the descriptor in *fd (not the caller's to close; open while the region is in the domain) and where p's byte
 * is in the file in *offset; -errno.
 * Errors: EFAULT the memory is neither lent nor given; ENOTSUP no file is behind it, or none that extmem opened.
 * Threads: any.
 */
EXTMEM_API int extmem_dpdk_get_fd(const void* p, int* fd, uint64_t* offset);

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_DPDK_BRIDGE_H */
