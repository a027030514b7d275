/* extmem for C: named heaps over memory that you already own. This header includes all of the C interface:
 *
 *   extmem_types.h    constants, handles, option and report structs
 *   extmem_heap.h     heaps, allocation, statistics, walks, the heap map
 *   extmem_region.h   regions, backings, listeners, addresses, memzones
 *   extmem_process.h  named domains, and the processes that share them
 *   extmem_ring.h     rings: passing region pointers between processes
 *   here              errors, domains, tags
 *
 * Conventions, true of every function unless it says otherwise:
 *  Returns   0, or a negative errno value; results come through pointers, which are written on success only.
 *  Failure   A failed call has changed nothing. extmem_last_error_message() tells what was wrong and what to do.
 *            Every function fails with EINVAL when a pointer that it needs is NULL, a heap handle is {NULL, 0} or
 *            a struct_size is wrong; those are not listed again. `errno` is left alone.
 *  Threads   Any thread may call any function at any time, but no call may run while extmem_domain_close runs,
 *            or follow it. Callbacks run under locks: inside, what would need a lock that comes before, or
 *            the same again, fails with EDEADLK. Callbacks must not throw.
 *  Strings   Zero-terminated. Names: 1 to 63 bytes (EINVAL when empty, ENAMETOOLONG), copied.
 *  fork      A child may go on with its copy of a private domain, in which regions in shared mappings drain; in a
 *            named domain it is a participant of its own from its first call on. It has no listeners. Do not fork
 *            inside a callback other than to exec.
 *  Units     Bytes, unless the name ends in _ns (nanoseconds).
 *  Memory    After extmem_domain_create or _open no function calls malloc.
 *
 * C11, C++11 and later.
 */
#ifndef EXTMEM_EXTMEM_H
#define EXTMEM_EXTMEM_H

#include "extmem/export.h"
#include "extmem/extmem_heap.h"
#include "extmem/extmem_inspect.h"
#include "extmem/extmem_process.h"
#include "extmem/extmem_region.h"
#include "extmem/extmem_ring.h"
#include "extmem/extmem_types.h"
#include "extmem/version.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- errors --------------------------------------------------------------------------------------------- */

/**
 * The version of the library that is running, such as "0.1.0".
 *
 * Returns: a constant string. Never fails.
 * Threads: any.
 */
EXTMEM_API const char* extmem_version(void);

/**
 * The error of the calling thread's last failing call, for the functions that return a pointer.
 *
 * Returns: a negative errno value; 0 when no call of this thread has failed yet. Success does not reset it.
 * Threads: any; each has its own.
 */
EXTMEM_API int extmem_last_error(void);

/**
 * What was wrong in the calling thread's last failing call, and what to do about it.
 *
 * Returns: a constant string that stays valid for good; "no error" when no call of this thread has failed yet.
 * Success does not reset it. Never NULL, never empty.
 * Threads: any; each has its own.
 */
EXTMEM_API const char* extmem_last_error_message(void);

/* ---- domains -------------------------------------------------------------------------------------------- */

/**
 * Makes a domain, private to this process, with one empty heap for each NUMA node ("node0", ...).
 *
 * Requires: options NULL (the defaults) or initialised with EXTMEM_DOMAIN_OPTIONS_INIT.
 * Returns: 0 and the domain in *domain, to be ended with extmem_domain_close; -errno.
 * Errors: EINVAL options out of range; ENOMEM address space or memory.
 * Threads: any.
 */
EXTMEM_API int extmem_domain_create(const extmem_domain_options_t* options, extmem_domain_t** domain);

/**
 * Ends a domain: forgets all of its heaps, regions and memzones, unmaps the memory of own backings, leaves
 * external memory as it is. Listeners hear EXTMEM_REGION_REMOVING, without a vote.
 *
 * Requires: no other call with this domain or one of its heaps is running or follows.
 * Returns: 0; -errno.
 * Errors: EINVAL domain is NULL.
 * Threads: one, alone.
 */
EXTMEM_API int extmem_domain_close(extmem_domain_t* domain);

/**
 * Checks every invariant of every heap, region and table.
 *
 * Requires: report NULL, or a function that hears of each breach.
 * Returns: 0 and the number of breaches in *breaches (0: all is well); -errno.
 * Errors: EDEADLK called inside a walk.
 * Threads: any; the heaps' threads wait meanwhile.
 */
EXTMEM_API int extmem_domain_verify(extmem_domain_t* domain, extmem_breach_fn report, void* arg,
                                    size_t* breaches);

/**
 * How many bytes of the domain's control segment are backed by memory now.
 *
 * Returns: 0 and the bytes in *bytes; -errno.
 * Threads: any.
 */
EXTMEM_API int extmem_domain_get_metadata_bytes(extmem_domain_t* domain, uint64_t* bytes);

/**
 * Draws the heap map: where the domain's memory is and who holds it, as text or as an SVG picture. Gives it to
 * `write` in chunks, in order; no lock is held meanwhile, so `write` may allocate from the heaps that are drawn.
 * At most 2 MiB are written.
 *
 * Requires: options NULL (the defaults) or initialised with EXTMEM_MAP_OPTIONS_INIT.
 * Returns: 0; what `write` returned when it ended the drawing; -errno.
 * Errors: ENOENT, ESTALE options->heap is not (or no longer) of this domain; ENOMEM the scratch mapping; EDEADLK
 * called inside a walk.
 * Threads: any; each heap is locked while it is looked at.
 */
EXTMEM_API int extmem_domain_write_map(extmem_domain_t* domain, const extmem_map_options_t* options,
                                       extmem_write_fn write, void* arg);

/* ---- tags ----------------------------------------------------------------------------------------------- */

/**
 * The tag of that name in this domain, made when it is new. Tags are never removed.
 *
 * Returns: 0 and the tag in *tag, for extmem_alloc_options_t; -errno.
 * Errors: EINVAL empty; ENAMETOOLONG; ENOSPC too many tags.
 * Threads: any.
 */
EXTMEM_API int extmem_tag_intern(extmem_domain_t* domain, const char* name, extmem_tag_t* tag);

/**
 * The name of a tag.
 *
 * Returns: 0 and in *name a string that stays valid as long as the domain, "" for EXTMEM_UNTAGGED; -errno.
 * Errors: ENOENT no such tag.
 * Threads: any.
 */
EXTMEM_API int extmem_tag_get_name(extmem_domain_t* domain, extmem_tag_t tag, const char** name);

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_EXTMEM_H */
