/* Heaps for C: making them, allocating from them, looking into them. Included by extmem.h, which states what all
 * functions have in common (errors, threads, strings, units).
 *
 * A heap is a named allocator over the regions that were given to it. Nothing is ever written into its memory,
 * except the zeros and copies that a caller asks for. A pointer is freed at most once: a second free before
 * reuse, an interior or a foreign pointer is refused and changes nothing.
 */
#ifndef EXTMEM_EXTMEM_HEAP_H
#define EXTMEM_EXTMEM_HEAP_H

#include "extmem/extmem_types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- heaps of a domain ---------------------------------------------------------------------------------- */

/**
 * Makes an empty heap. Give it memory with extmem_region_add or extmem_region_add_backing.
 *
 * Requires: options NULL (the defaults) or initialised with EXTMEM_HEAP_OPTIONS_INIT.
 * Returns: 0 and the handle in *heap; -errno.
 * Errors: EINVAL name empty, options out of range; ENAMETOOLONG; EEXIST the name is taken; ENOSPC too many heaps.
 * Threads: any.
 */
EXTMEM_API int extmem_heap_create(extmem_domain_t* domain, const char* name,
                                  const extmem_heap_options_t* options, extmem_heap_t* heap);

/**
 * The heap of a name.
 *
 * Returns: 0 and the handle in *heap; -errno.
 * Errors: ENOENT.
 * Threads: any.
 */
EXTMEM_API int extmem_heap_find(extmem_domain_t* domain, const char* name, extmem_heap_t* heap);

/**
 * The heap of an id, the heap's stable number. NUMA nodes' heaps come first: id == index of the node.
 *
 * Returns: 0 and the handle in *heap; -errno.
 * Errors: ENOENT.
 * Threads: any.
 */
EXTMEM_API int extmem_heap_find_by_id(extmem_domain_t* domain, uint32_t id, extmem_heap_t* heap);

/**
 * The heap of a NUMA node, by the node's number.
 *
 * Returns: 0 and the handle in *heap; -errno.
 * Errors: ENOENT no such node.
 * Threads: any.
 */
EXTMEM_API int extmem_heap_find_by_node(extmem_domain_t* domain, int numa_node, extmem_heap_t* heap);

/**
 * Removes a heap that holds no region.
 *
 * Requires: users NULL, or a report of users_size bytes.
 * Returns: 0; -errno. With EBUSY and users given, *users names who holds the heap's memory.
 * Errors: EBUSY it holds a region; EPERM a node's heap; ESTALE destroyed before; what a listener answered to the
 * removal of an empty region that growth added (those before it are gone then).
 * Threads: any.
 */
EXTMEM_API int extmem_heap_destroy(extmem_domain_t* domain, extmem_heap_t heap, extmem_holder_report_t* users,
                                   size_t users_size);

/**
 * Visits all heaps of the domain in order of their ids.
 *
 * Returns: 0; what `visit` returned when it ended the list; -errno.
 * Threads: any.
 */
EXTMEM_API int extmem_heap_list(extmem_domain_t* domain, extmem_heap_visit_fn visit, void* arg);

/**
 * The heap's id.
 *
 * Returns: 0 and the id in *id; -errno.
 * Threads: any.
 */
EXTMEM_API int extmem_heap_get_id(extmem_heap_t heap, uint32_t* id);

/**
 * The heap's name.
 *
 * Returns: 0 and in *name a string that stays valid while the heap exists; -errno.
 * Threads: any.
 */
EXTMEM_API int extmem_heap_get_name(extmem_heap_t heap, const char** name);

/**
 * What extmem_heap_list tells of the heap. Takes no lock.
 *
 * Returns: 0 and the answer in *info (info_size bytes of it); -errno.
 * Errors: ESTALE the heap was destroyed.
 * Threads: any.
 */
EXTMEM_API int extmem_heap_get_info(extmem_heap_t heap, extmem_heap_info_t* info, size_t info_size);

/* ---- allocation ----------------------------------------------------------------------------------------- */

/**
 * Allocates `size` bytes, aligned to 16 (binned heaps) or 64 (exact heaps): the short and fast way.
 *
 * Returns: the memory, not initialised; NULL on failure, and extmem_last_error() tells the errno.
 * Errors: EINVAL size 0; ENOMEM no memory fits; EOVERFLOW size too large; ESTALE the heap was destroyed.
 * Threads: any.
 */
EXTMEM_API void* extmem_malloc(extmem_heap_t heap, size_t size);

/**
 * Frees what any allocating function of this heap gave. NULL does nothing and returns 0.
 *
 * Returns: 0; -errno.
 * Errors: EFAULT foreign pointer; EINVAL interior pointer; EALREADY double free; EPERM a memzone's memory.
 * Threads: any; also another than the one that allocated.
 */
EXTMEM_API int extmem_free(extmem_heap_t heap, void* p);

/**
 * Allocates `size` bytes under constraints.
 *
 * Requires: options NULL (no constraints) or initialised with EXTMEM_ALLOC_OPTIONS_INIT.
 * Returns: 0 and the memory in *p, not initialised unless options->zero; -errno.
 * Errors: EINVAL size 0, constraints out of range or in contradiction; ENOMEM no memory fits; EOVERFLOW size too
 * large; ENOTSUP zero where the CPU cannot reach the memory; ESTALE the heap was destroyed.
 * Threads: any.
 */
EXTMEM_API int extmem_heap_allocate(extmem_heap_t heap, size_t size, const extmem_alloc_options_t* options,
                                    void** p);

/**
 * Allocates `size` zeroed bytes.
 *
 * Requires, Returns, Errors, Threads: as extmem_heap_allocate.
 */
EXTMEM_API int extmem_heap_zalloc(extmem_heap_t heap, size_t size, const extmem_alloc_options_t* options,
                                  void** p);

/**
 * Allocates an array of `count` times `size` zeroed bytes.
 *
 * Requires, Returns, Threads: as extmem_heap_allocate.
 * Errors: also EOVERFLOW when the product overflows.
 */
EXTMEM_API int extmem_heap_calloc(extmem_heap_t heap, size_t count, size_t size,
                                  const extmem_alloc_options_t* options, void** p);

/**
 * Changes the size of an object, in place when possible, else by moving it.
 *
 * Requires: *p NULL (then this allocates) or an object of this heap.
 * Returns: 0 and the object's address, new or the same, in *p; -errno, and *p and the object stay as they were.
 * The tag is kept unless options->tag names one. Large objects take their pages along in private anonymous memory
 * that the heap grew by, where the domain has no listeners: the bytes of both places are then other physical pages.
 * What a device must reach needs a listener.
 * Errors: those of extmem_heap_allocate and extmem_free; ENOTSUP it would have to move memory that the CPU
 * cannot reach.
 * Threads: any.
 */
EXTMEM_API int extmem_heap_reallocate(extmem_heap_t heap, size_t new_size,
                                      const extmem_alloc_options_t* options, void** p);

/**
 * Allocates `count` objects of `size` bytes: all of them, or none.
 *
 * Requires: room for `count` pointers at `pointers` (NULL only when count is 0).
 * Returns: 0 and the objects in pointers[0..count); -errno, and some of the pointers may have become NULL.
 * Errors: as extmem_heap_allocate.
 * Threads: any.
 */
EXTMEM_API int extmem_heap_allocate_batch(extmem_heap_t heap, size_t size, size_t count,
                                          const extmem_alloc_options_t* options, void** pointers);

/**
 * Frees `count` objects. Where one is refused the others are freed all the same.
 *
 * Requires: `count` pointers at `pointers` (NULL only when count is 0); first_bad NULL, or where to put the index
 * of the first that was refused.
 * Returns: 0; -errno of the first that was refused (this failure has freed the others).
 * Errors: as extmem_free.
 * Threads: any.
 */
EXTMEM_API int extmem_heap_deallocate_batch(extmem_heap_t heap, size_t count, void* const* pointers,
                                            size_t* first_bad);

/**
 * How many bytes the object at `p` really has: at least what was asked for, and all of them may be used.
 *
 * Returns: 0 and the bytes in *size; -errno.
 * Errors: EFAULT foreign pointer; EINVAL interior pointer; EALREADY it is free.
 * Threads: any.
 */
EXTMEM_API int extmem_heap_get_usable_size(extmem_heap_t heap, const void* p, size_t* size);

/**
 * What a pointer of this heap points into; interior pointers are welcome.
 *
 * Returns: 0 and the answer in *info (info_size bytes of it); -errno.
 * Errors: EFAULT the pointer is in no region of this heap.
 * Threads: any.
 */
EXTMEM_API int extmem_heap_find_owner(extmem_heap_t heap, const void* p, extmem_object_info_t* info,
                                      size_t info_size);

/**
 * As extmem_free, for an object of whichever heap of the domain.
 *
 * Returns: 0; -errno. NULL does nothing and returns 0.
 * Errors: as extmem_free.
 * Threads: any.
 */
EXTMEM_API int extmem_object_free(extmem_domain_t* domain, void* p);

/**
 * As extmem_heap_get_usable_size, for an object of whichever heap of the domain.
 *
 * Returns, Errors, Threads: as extmem_heap_get_usable_size.
 */
EXTMEM_API int extmem_object_get_usable_size(extmem_domain_t* domain, const void* p, size_t* size);

/**
 * As extmem_heap_find_owner, for an object of whichever heap of the domain.
 *
 * Returns, Errors, Threads: as extmem_heap_find_owner.
 */
EXTMEM_API int extmem_object_find_owner(extmem_domain_t* domain, const void* p, extmem_object_info_t* info,
                                        size_t info_size);

/* ---- seeing --------------------------------------------------------------------------------------------- */

/**
 * A consistent snapshot: all counters of one instant (the heap's threads pause for some microseconds).
 *
 * Returns: 0 and the counters in *stats (stats_size bytes of it); -errno.
 * Errors: ESTALE the heap was destroyed; EDEADLK called inside a walk.
 * Threads: any.
 */
EXTMEM_API int extmem_heap_get_stats(extmem_heap_t heap, extmem_heap_stats_t* stats, size_t stats_size);

/**
 * Live bytes and counts per tag, exact. Scans the state of every object while the heap's threads wait.
 *
 * Requires: room for `capacity` structs at `stats` (NULL only when capacity is 0).
 * Returns: 0, the first `capacity` tags in `stats`, and in *count how many there are in all; -errno.
 * Errors: ESTALE the heap was destroyed; EDEADLK called inside a walk.
 * Threads: any.
 */
EXTMEM_API int extmem_heap_get_tag_stats(extmem_heap_t heap, extmem_tag_stats_t* stats, size_t capacity,
                                         size_t* count);

/**
 * Who holds memory of the heap now: a line for each tag, in a named domain for each process and tag. A line with pid 0 that
 * is no memzone is what a dead process left (EXTMEM_ON_DEATH_KEEP). Scans the state of every object while the heap's threads
 * wait.
 *
 * Errors: EDEADLK inside a walk over the heap; ETIMEDOUT a stopped process is in the way; ESTALE the heap was destroyed.
 * Threads: any.
 */
EXTMEM_API int extmem_heap_get_holders(extmem_heap_t heap, extmem_holder_report_t* holders,
                                       size_t holders_size);

/**
 * Visits the heap's regions, spans, slabs, memzones and, if asked, objects, in address order in each region.
 * A small memzone lies in a slab, like an object, and is met where objects are asked for.
 *
 * Requires: options NULL (no objects) or initialised with EXTMEM_WALK_OPTIONS_INIT.
 * Returns: 0; what `visit` returned when it ended the walk; -errno.
 * Errors: ESTALE the heap was destroyed; EDEADLK called inside a walk.
 * Threads: any. The heap is locked meanwhile: inside, allocating what this thread has not cached fails with EDEADLK.
 */
EXTMEM_API int extmem_heap_walk(extmem_heap_t heap, const extmem_walk_options_t* options,
                                extmem_walk_visit_fn visit, void* arg);

/**
 * Checks every invariant of the heap.
 *
 * Requires: report NULL, or a function that hears of each breach.
 * Returns: 0 and the number of breaches in *breaches (0: all is well); -errno.
 * Errors: ESTALE the heap was destroyed; EDEADLK called inside a walk.
 * Threads: any; the heap's threads wait meanwhile.
 */
EXTMEM_API int extmem_heap_verify(extmem_heap_t heap, extmem_breach_fn report, void* arg, size_t* breaches);

/**
 * Moves every thread's cached objects back to their slabs, and empty slabs back to free pages.
 *
 * Returns: 0; -errno.
 * Errors: ESTALE the heap was destroyed; EDEADLK called inside a walk.
 * Threads: any. Waits for a thread that is stopped in the middle of an operation.
 */
EXTMEM_API int extmem_heap_flush(extmem_heap_t heap);

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_EXTMEM_HEAP_H */
