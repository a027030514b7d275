/* Regions, backings, listeners, addresses and memzones for C. Included by extmem.h, which states what all
 * functions have in common (errors, threads, strings, units).
 *
 * A region is contiguous memory that was given to a heap: external (the caller's) or own (a backing's). No two
 * regions of a domain overlap.
 */
#ifndef EXTMEM_EXTMEM_REGION_H
#define EXTMEM_EXTMEM_REGION_H

#include "extmem/extmem_types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- regions -------------------------------------------------------------------------------------------- */

/**
 * Lends memory that the caller owns to a heap. The IOVA table is copied.
 *
 * Requires: spec initialised with EXTMEM_REGION_SPEC_INIT; the caller keeps the memory mapped until the region is
 * removed or the domain closed.
 * Returns: 0 and the region in *region; -errno.
 * Errors: EINVAL base, length, page size or table; EEXIST it overlaps a region; EOVERFLOW; ENOSPC control segment
 * full; EPERM physical IOVAs without privilege; ESTALE the heap was destroyed; what a listener answered.
 * Threads: any.
 */
EXTMEM_API int extmem_region_add(extmem_domain_t* domain, extmem_heap_t heap,
                                 const extmem_region_spec_t* spec, extmem_region_id_t* region);

/**
 * Maps memory and gives it to a heap.
 *
 * Requires: spec initialised with EXTMEM_BACKING_SPEC_INIT.
 * Returns: 0 and the region in *region; -errno.
 * Errors: those of extmem_region_add; those of mapping, binding, pre-faulting and locking (ENOMEM, EPERM, ENOENT,
 * EACCES, ...); ECANCELED by spec->progress; EEXIST the file backs a region of this domain already.
 * Threads: any.
 */
EXTMEM_API int extmem_region_add_backing(extmem_domain_t* domain, extmem_heap_t heap,
                                         const extmem_backing_spec_t* spec, extmem_region_id_t* region);

/**
 * Takes a region away. External memory is left as it is; an own backing is unmapped.
 *
 * Requires: holders NULL, or a report of holders_size bytes.
 * Returns: 0; -errno. With EBUSY and holders given, *holders names who holds what.
 * Errors: ENOENT; EBUSY it is used; what a listener answered.
 * Threads: any.
 */
EXTMEM_API int extmem_region_remove(extmem_domain_t* domain, extmem_region_id_t region,
                                    extmem_holder_report_t* holders, size_t holders_size);

/**
 * Stops new allocations in the region, takes back what threads have cached of it, and waits until nothing in it
 * is held. Afterwards extmem_region_remove succeeds.
 *
 * Requires: holders NULL, or a report of holders_size bytes. timeout_ns 0: do not wait.
 * Returns: 0; -errno. With ETIMEDOUT and holders given, *holders names who holds what.
 * Errors: ENOENT; ETIMEDOUT (the region stays draining, see extmem_region_undrain); ECANCELED that was called meanwhile.
 * Threads: any; this one sleeps.
 */
EXTMEM_API int extmem_region_drain(extmem_domain_t* domain, extmem_region_id_t region, uint64_t timeout_ns,
                                   extmem_holder_report_t* holders, size_t holders_size);

/**
 * Lets allocations use a draining region again.
 *
 * Returns: 0; -errno.
 * Errors: ENOENT.
 * Threads: any.
 */
EXTMEM_API int extmem_region_undrain(extmem_domain_t* domain, extmem_region_id_t region);

/**
 * Tells about a region.
 *
 * Returns: 0 and the answer in *info (info_size bytes of it); -errno.
 * Errors: ENOENT.
 * Threads: any.
 */
EXTMEM_API int extmem_region_get_info(extmem_domain_t* domain, extmem_region_id_t region,
                                      extmem_region_info_t* info, size_t info_size);

/**
 * The file behind a region, to hand its descriptor to another process (see extmem_region_attach_file).
 *
 * Returns: 0 and the answer in *file (file_size bytes of it); -errno.
 * Errors: ENOENT; ENOTSUP it has none; ENXIO it is not mapped in this process.
 * Threads: any.
 */
EXTMEM_API int extmem_region_get_file(extmem_domain_t* domain, extmem_region_id_t region,
                                      extmem_region_file_t* file, size_t file_size);

/**
 * The region that an address lies in.
 *
 * Returns: 0 and the region in *region; -errno.
 * Errors: EFAULT none.
 * Threads: any.
 */
EXTMEM_API int extmem_region_find(extmem_domain_t* domain, const void* p, extmem_region_id_t* region);

/**
 * Visits all regions of the domain.
 *
 * Returns: 0; what `visit` returned when it ended the list; -errno.
 * Threads: any.
 */
EXTMEM_API int extmem_region_list(extmem_domain_t* domain, extmem_region_visit_fn visit, void* arg);

/**
 * Visits all runs of consecutive IOVAs of a region; offsets count from its start.
 *
 * Returns: 0; what `visit` returned when it ended the list; -errno.
 * Errors: ENOENT.
 * Threads: any.
 */
EXTMEM_API int extmem_region_list_iova_runs(extmem_domain_t* domain, extmem_region_id_t region,
                                            extmem_iova_run_visit_fn visit, void* arg);

/**
 * Registers a function that hears of regions, in the order of registration. For EXTMEM_REGION_ADDED an errno
 * value refuses the region, and those that had already heard of it then hear EXTMEM_REGION_REMOVING. For
 * EXTMEM_REGION_REMOVING an errno value refuses the removal, and those that had already heard of it then hear
 * EXTMEM_REGION_ADDED again. For EXTMEM_REGION_RECLAIMING, which the listeners of the process that cleans up hear, an errno
 * value means that DMA may still be going on: what the dead process held in the region is then kept, without an owner, and
 * each later extmem_domain_recover or extmem_domain_poll of this process asks again; once all agree it is freed. Inside, the region can be asked about and memory allocated and freed; adding and
 * removing regions, and what needs the directory (heaps, tags and memzones by name, walks, verify), fails with
 * EDEADLK.
 *
 * Returns: 0; -errno.
 * Errors: EEXIST the pair (listener, arg) is registered; ENOSPC too many.
 * Threads: any; the listener runs in the thread that adds or removes.
 */
EXTMEM_API int extmem_listener_add(extmem_domain_t* domain, extmem_region_listener_fn listener, void* arg);

/**
 * Ends a registration. Not from inside a listener.
 *
 * Returns: 0; -errno.
 * Errors: ENOENT.
 * Threads: any.
 */
EXTMEM_API int extmem_listener_remove(extmem_domain_t* domain, extmem_region_listener_fn listener, void* arg);

/* ---- addresses ------------------------------------------------------------------------------------------ */

/**
 * The IOVA of a byte.
 *
 * Returns: 0 and in *iova the IOVA, or EXTMEM_BAD_IOVA where none is known; -errno.
 * Errors: EFAULT in no region.
 * Threads: any.
 */
EXTMEM_API int extmem_iova_of_address(extmem_domain_t* domain, const void* p, extmem_iova_t* iova);

/**
 * The address that a device's address means.
 *
 * Returns: 0 and the address in *p; -errno.
 * Errors: ENOENT no page has that IOVA; EINVAL EXTMEM_BAD_IOVA.
 * Threads: any.
 */
EXTMEM_API int extmem_iova_to_address(extmem_domain_t* domain, extmem_iova_t iova, void** p);

/**
 * Whether [p, p + length) is one run of consecutive known IOVAs.
 *
 * Returns: 0 and the answer in *contiguous; -errno.
 * Errors: EFAULT not inside one region; EINVAL length 0.
 * Threads: any.
 */
EXTMEM_API int extmem_iova_is_contiguous(extmem_domain_t* domain, const void* p, size_t length,
                                         bool* contiguous);

/**
 * The runs that [p, p + length) is made of: a scatter list. Offsets count from p.
 *
 * Requires: room for `capacity` runs at `runs` (NULL only when capacity is 0).
 * Returns: 0, the first `capacity` runs in `runs`, and in *count how many there are in all; -errno.
 * Errors: EFAULT not inside one region; EINVAL length 0.
 * Threads: any.
 */
EXTMEM_API int extmem_iova_get_runs(extmem_domain_t* domain, const void* p, size_t length,
                                    extmem_iova_run_t* runs, size_t capacity, size_t* count);

/**
 * The portable form of a pointer: region slot and offset.
 *
 * Returns: 0 and the portable form in *ptr; -errno.
 * Errors: EFAULT in no region.
 * Threads: any.
 */
EXTMEM_API int extmem_region_ptr_of_address(extmem_domain_t* domain, const void* p, extmem_region_ptr_t* ptr);

/**
 * The address that a portable pointer means here.
 *
 * Returns: 0 and the address in *p; -errno.
 * Errors: EFAULT in no region; why the region is not mapped in this process (ENXIO, EADDRINUSE, ...).
 * Threads: any.
 */
EXTMEM_API int extmem_region_ptr_to_address(extmem_domain_t* domain, extmem_region_ptr_t ptr, void** p);

/* ---- memzones ------------------------------------------------------------------------------------------- */

/**
 * Reserves memory of a heap under a name, unique in the domain. length 0: the biggest piece that fits the
 * constraints (and nocross, if given) in the regions that the heap has; it does not grow for that.
 *
 * Requires: options NULL (no constraints) or initialised with EXTMEM_ALLOC_OPTIONS_INIT.
 * Returns: 0 and what was reserved in *info (info_size bytes of it); -errno.
 * Errors: EINVAL; ENAMETOOLONG; EEXIST the name is taken; ENOSPC too many memzones; ENOMEM no memory fits; ESTALE
 * the heap was destroyed.
 * Threads: any.
 */
EXTMEM_API int extmem_memzone_reserve(extmem_domain_t* domain, extmem_heap_t heap, const char* name,
                                      size_t length, const extmem_alloc_options_t* options,
                                      extmem_memzone_info_t* info, size_t info_size);

/**
 * The memzone of a name.
 *
 * Returns: 0 and what it is in *info (info_size bytes of it); -errno.
 * Errors: ENOENT.
 * Threads: any.
 */
EXTMEM_API int extmem_memzone_find(extmem_domain_t* domain, const char* name, extmem_memzone_info_t* info,
                                   size_t info_size);

/**
 * Frees a memzone.
 *
 * Returns: 0; -errno.
 * Errors: ENOENT.
 * Threads: any.
 */
EXTMEM_API int extmem_memzone_free(extmem_domain_t* domain, const char* name);

/**
 * Visits all memzones of the domain.
 *
 * Returns: 0; what `visit` returned when it ended the list; -errno.
 * Threads: any.
 */
EXTMEM_API int extmem_memzone_list(extmem_domain_t* domain, extmem_memzone_visit_fn visit, void* arg);

/**
 * How many memzones the domain has.
 *
 * Returns: 0 and the number in *count; -errno.
 * Threads: any.
 */
EXTMEM_API int extmem_memzone_get_count(extmem_domain_t* domain, size_t* count);

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_EXTMEM_REGION_H */
