/* extmem for C: looking at a named domain from outside. Part of extmem.h; its conventions hold here.
 *
 * An inspector reads the domain's control file, for which it needs no more than permission to read it. It does not join, takes
 * no lock, writes nothing, maps no region and waits for nobody: the domain's processes do not notice.
 * What it tells comes from a private copy: names are copied by a refresh, a heap when it is first asked about after that. The
 * domain goes on meanwhile: where no copy of one instant can be had within some milliseconds, the answer is EAGAIN, or the figures
 * as they were read, which need not add up.
 * It trusts nothing in the file: damage is a breach, or EUCLEAN.
 */
#ifndef EXTMEM_EXTMEM_INSPECT_H
#define EXTMEM_EXTMEM_INSPECT_H

#include "extmem/extmem_process.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One look from outside. Used by one thread at a time. */
typedef struct extmem_inspector extmem_inspector_t;

/* Return 0 to go on, anything else to end the walk with that value. */
typedef int (*extmem_tag_visit_fn)(extmem_tag_t tag, const char* name, void* arg);

/* ---- inspectors ------------------------------------------------------------------------------------------- */

/**
 * Opens the control file of a named domain to read it.
 *
 * Requires: directory NULL (as in extmem_open_options_t) or a runtime directory.
 * Returns: 0 and the inspector in *inspector; -errno.
 * Errors: EINVAL, ENAMETOOLONG the name; ENOENT; EACCES; ELOOP, EPERM what is there is no control file; EUCLEAN, EPROTO, ESTALE it is
 * damaged, of another version or layout, of before a reboot; ENOMEM.
 * Threads: any.
 */
EXTMEM_API int extmem_inspector_open(const char* name, const char* directory, extmem_inspector_t** inspector);

/**
 * Ends an inspector.
 *
 * Returns: 0.
 * Threads: the one that uses the inspector.
 */
EXTMEM_API int extmem_inspector_close(extmem_inspector_t* inspector);

/**
 * Looks again: what was copied is forgotten, and names are copied anew.
 *
 * Returns: 0; -errno.
 * Errors: ESTALE the domain was removed; EUCLEAN the file was cut short; EAGAIN names and regions came and went all the time (what was
 * read last can be walked all the same).
 * Threads: the one that uses the inspector.
 */
EXTMEM_API int extmem_inspector_refresh(extmem_inspector_t* inspector);

/**
 * Visits the heaps that an inspector sees, in order of their ids.
 *
 * Returns: 0; what `visit` returned when it ended the walk; -errno.
 * Errors: EUCLEAN.
 * Threads: the one that uses the inspector.
 */
EXTMEM_API int extmem_inspector_walk_heaps(extmem_inspector_t* inspector, extmem_heap_visit_fn visit,
                                           void* arg);

/**
 * Visits the regions that an inspector sees. Their base is NULL: nothing is mapped here.
 *
 * Returns: 0; what `visit` returned when it ended the walk; -errno.
 * Errors: EUCLEAN; EDEADLK inside a walk over a heap.
 * Threads: the one that uses the inspector.
 */
EXTMEM_API int extmem_inspector_walk_regions(extmem_inspector_t* inspector, extmem_region_visit_fn visit,
                                             void* arg);

/**
 * Visits the participants that an inspector sees. One in another pid namespace counts as living.
 *
 * Returns: 0; what `visit` returned when it ended the walk; -errno.
 * Errors: EUCLEAN.
 * Threads: the one that uses the inspector.
 */
EXTMEM_API int extmem_inspector_walk_participants(extmem_inspector_t* inspector,
                                                  extmem_participant_visit_fn visit, void* arg);

/**
 * Visits the memzones that an inspector sees. Their address is NULL.
 *
 * Returns: 0; what `visit` returned when it ended the walk; -errno.
 * Errors: EUCLEAN; EDEADLK inside a walk over a heap.
 * Threads: the one that uses the inspector.
 */
EXTMEM_API int extmem_inspector_walk_memzones(extmem_inspector_t* inspector, extmem_memzone_visit_fn visit,
                                              void* arg);

/**
 * Visits all runs of consecutive IOVAs of a region that an inspector sees.
 *
 * Returns: 0; what `visit` returned when it ended the walk; -errno.
 * Errors: ENOENT no such region; EUCLEAN its table is damaged; EAGAIN unstable; EDEADLK inside a walk over a heap.
 * Threads: the one that uses the inspector.
 */
EXTMEM_API int extmem_inspector_walk_iova_runs(extmem_inspector_t* inspector, extmem_region_id_t region,
                                               extmem_iova_run_visit_fn visit, void* arg);

/**
 * Visits the tags that an inspector sees.
 *
 * Returns: 0; what `visit` returned when it ended the walk; -errno.
 * Errors: EUCLEAN.
 * Threads: the one that uses the inspector.
 */
EXTMEM_API int extmem_inspector_walk_tags(extmem_inspector_t* inspector, extmem_tag_visit_fn visit,
                                          void* arg);

/**
 * Statistics of a heap.
 *
 * Requires: stable NULL, or where to put whether the figures are of one instant.
 * Returns: 0 and the figures in *stats; -errno.
 * Errors: ENOENT no heap has this id; EUCLEAN; EDEADLK inside a walk over a heap; EAGAIN the heap did not rest, and stable is NULL.
 * Threads: the one that uses the inspector.
 */
EXTMEM_API int extmem_inspector_get_stats(extmem_inspector_t* inspector, uint32_t heap_id,
                                          extmem_heap_stats_t* stats, size_t stats_size, bool* stable);

/**
 * Live bytes and counts of a heap by tag, as extmem_heap_get_tag_stats tells them.
 *
 * Requires: stats an array of `capacity` structs, or NULL with 0; stable as in extmem_inspector_get_stats.
 * Returns: 0 and in *count how many there are in all; -errno.
 * Errors: as extmem_inspector_get_stats.
 * Threads: the one that uses the inspector.
 */
EXTMEM_API int extmem_inspector_get_tag_stats(extmem_inspector_t* inspector, uint32_t heap_id,
                                              extmem_tag_stats_t* stats, size_t capacity, size_t* count,
                                              bool* stable);

/**
 * Who holds memory of a heap, as extmem_heap_get_holders tells it.
 *
 * Requires: stable as in extmem_inspector_get_stats.
 * Returns: 0 and the report in *holders; -errno.
 * Errors: as extmem_inspector_get_stats.
 * Threads: the one that uses the inspector.
 */
EXTMEM_API int extmem_inspector_get_holders(extmem_inspector_t* inspector, uint32_t heap_id,
                                            extmem_holder_report_t* holders, size_t holders_size,
                                            bool* stable);

/**
 * Visits regions, spans, slabs and, if asked, objects of a heap. Addresses are NULL. Inside, the inspector's other calls about heaps
 * answer EDEADLK.
 *
 * Requires: options NULL or initialised with EXTMEM_WALK_OPTIONS_INIT; stable as in extmem_inspector_get_stats.
 * Returns: 0; what `visit` returned when it ended the walk; -errno.
 * Errors: as extmem_inspector_get_stats; EUCLEAN also where the heap's pages do not tile its regions.
 * Threads: the one that uses the inspector.
 */
EXTMEM_API int extmem_inspector_walk_heap(extmem_inspector_t* inspector, uint32_t heap_id,
                                          const extmem_walk_options_t* options, extmem_walk_visit_fn visit,
                                          void* arg, bool* stable);

/**
 * Checks every invariant of every heap, region and table. A breach that is reported is one, however busy the domain is.
 *
 * Requires: report NULL, or a function that hears of each breach; unstable NULL, or where to put how many parts (heaps, names, regions,
 * metadata) could not be judged, because they changed all the time or somebody stopped or died in the middle of a change.
 * Returns: 0 and the number of breaches in *breaches; -errno.
 * Errors: ESTALE the domain was removed; EUCLEAN the file was cut short; EDEADLK inside a walk over a heap; EAGAIN a part could not be
 * judged, no breach was found, and unstable is NULL.
 * Threads: the one that uses the inspector.
 */
EXTMEM_API int extmem_inspector_verify(extmem_inspector_t* inspector, extmem_breach_fn report, void* arg,
                                       size_t* breaches, size_t* unstable);

/**
 * Checks every invariant of one heap.
 *
 * Requires: report NULL, or a function that hears of each breach.
 * Returns: 0 and the number of breaches in *breaches; -errno.
 * Errors: ENOENT no heap has this id; EUCLEAN; EDEADLK; EAGAIN it could not be judged wholly, and no breach was found.
 * Threads: the one that uses the inspector.
 */
EXTMEM_API int extmem_inspector_verify_heap(extmem_inspector_t* inspector, uint32_t heap_id,
                                            extmem_breach_fn report, void* arg, size_t* breaches);

/**
 * How many bytes of the domain's control segment are backed by memory now.
 *
 * Returns: 0 and the bytes in *bytes; -errno.
 * Threads: the one that uses the inspector.
 */
EXTMEM_API int extmem_inspector_get_metadata_bytes(extmem_inspector_t* inspector, uint64_t* bytes);

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_EXTMEM_INSPECT_H */
