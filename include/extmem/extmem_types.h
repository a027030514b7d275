/* The words of extmem for C: constants, handles, option and report structs. Included by extmem.h.
 *
 * Structs that may grow in later versions start with `size_t struct_size`.
 * Options: the caller sets it, best with the initialiser macro beside the struct:
 *
 *     extmem_alloc_options_t options = EXTMEM_ALLOC_OPTIONS_INIT;
 *     options.align = 4096;
 *
 *   A smaller struct_size (an older program) means defaults for the rest; a larger one (a newer program) is
 *   accepted while what this library does not know is zero bytes, and refused with E2BIG otherwise. A size
 *   smaller than the first version's, 0 above all, is refused with EINVAL.
 * Reports need no initialising: the caller passes `sizeof report` beside the pointer, the library writes no
 *   more than that, fills up with zeros what it does not know, and says in struct_size how much it does know. In
 *   a callback the library owns the struct.
 * Structs without struct_size never change. Numeric values of constants never change.
 *
 * Units: every length, size, offset and limit is in bytes. Thread-safety: plain values.
 */
#ifndef EXTMEM_EXTMEM_TYPES_H
#define EXTMEM_EXTMEM_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "extmem/export.h"
#include "extmem/version.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- constants and handles ------------------------------------------------------------------------------ */

#define EXTMEM_NAME_SIZE 64          /* a name of up to 63 bytes, and its terminating zero */
#define EXTMEM_MAX_ALIGN 0x40000000u /* 1 GiB */
#define EXTMEM_MAX_HOLDERS 64        /* lines of a holder report */
#define EXTMEM_ANY_NODE (-1)         /* any NUMA node, or "node not known" */
#define EXTMEM_BAD_IOVA UINT64_MAX   /* "no device address is known" */
#define EXTMEM_UNTAGGED 0            /* the tag of what has none */

/* A domain. Made by extmem_domain_create or extmem_domain_open, ended by extmem_domain_close. */
typedef struct extmem_domain extmem_domain_t;

/* A heap: two words, copied freely, nothing to free. {NULL, 0} is "no heap". The members are private: `key`
 * tells a destroyed heap from a newer one in its place, so that a stale handle answers ESTALE. */
typedef struct extmem_heap {
  void* local;
  uint64_t key;
} extmem_heap_t;

/* A region. Slot and generation: a stale id answers ENOENT, it is never mistaken for a newer region.
 * {0, 0} is "no region". */
typedef struct extmem_region_id {
  uint32_t slot;
  uint32_t generation;
} extmem_region_id_t;

typedef uint64_t extmem_iova_t;       /* a device's address of a byte, or EXTMEM_BAD_IOVA */
typedef uint64_t extmem_region_ptr_t; /* region slot (16 bits) and offset (48 bits); 0 is null */
typedef uint16_t extmem_tag_t;        /* made by extmem_tag_intern; 0 is untagged */

/* How a heap places allocations. */
enum extmem_style {
  EXTMEM_STYLE_BINNED = 0, /* size classes, slabs and per-thread magazines: the fast one */
  EXTMEM_STYLE_EXACT = 1 /* sizes to the cache line, from the high end, neighbours coalesce, grows in place */
};

/* Which end of the free memory to prefer. */
enum extmem_placement {
  EXTMEM_PLACEMENT_ANY = 0, /* the good fit that the style prefers */
  EXTMEM_PLACEMENT_LOW = 1, /* the lowest offset that fits, in the first region that can serve */
  EXTMEM_PLACEMENT_HIGH = 2 /* the highest offset that fits */
};

/* Where a region's IOVAs come from. */
enum extmem_iova_source {
  EXTMEM_IOVA_TABLE = 0,    /* the table that is given, one per OS page; without one every page is bad */
  EXTMEM_IOVA_IDENTITY = 1, /* the virtual address is the IOVA */
  /* The kernel's pagemap: needs CAP_SYS_ADMIN, and hugetlb memory unless unstable addresses are accepted. */
  EXTMEM_IOVA_PHYSICAL = 2
};

/* What a ready-made backing maps. */
enum extmem_backing_kind {
  EXTMEM_BACKING_EXTERNAL = 0, /* the caller's memory; not for extmem_region_add_backing */
  EXTMEM_BACKING_ANONYMOUS = 1,
  EXTMEM_BACKING_HUGETLB = 2,
  EXTMEM_BACKING_MEMFD = 3,
  EXTMEM_BACKING_MEMFD_HUGETLB = 4,
  EXTMEM_BACKING_SHM = 5,
  EXTMEM_BACKING_FILE = 6,
  EXTMEM_BACKING_DAX = 7
};

/* What to do when the wanted backing cannot be had. Never silent: extmem_region_info_t.kind says what it is. */
enum extmem_fallback {
  EXTMEM_FALLBACK_NONE = 0, /* an error */
  EXTMEM_FALLBACK_THP = 1,  /* anonymous memory advised for transparent hugepages */
  EXTMEM_FALLBACK_ANONYMOUS = 2
};

enum extmem_region_event_kind {
  EXTMEM_REGION_ADDED = 0,
  EXTMEM_REGION_REMOVING = 1,
  EXTMEM_REGION_RECLAIMING = 2 /* what a dead process held in the region is about to be freed */
};

/* What a walk meets, in address order inside each region. */
enum extmem_walk_kind {
  EXTMEM_WALK_REGION = 0,
  EXTMEM_WALK_FREE_SPAN = 1,
  EXTMEM_WALK_HELD_SPAN = 2,
  EXTMEM_WALK_SLAB = 3,
  EXTMEM_WALK_OBJECT = 4,
  EXTMEM_WALK_MEMZONE = 5
};

/* ---- options: what the caller asks ---------------------------------------------------------------------- */

/* Sizes that bound a domain's control segment. Address space only: memory is used as things are created. */
typedef struct extmem_domain_options {
  size_t struct_size;
  uint32_t max_regions;
  uint32_t max_heaps;
  uint32_t max_memzones;
  uint32_t max_tags;
  uint32_t max_threads;    /* threads that use the domain at the same time */
  uint32_t reserved;       /* 0 */
  uint64_t small_metadata; /* bytes for object states, at most 8 GiB */
  uint64_t large_metadata; /* bytes for page maps and IOVA tables */
} extmem_domain_options_t;
#define EXTMEM_DOMAIN_OPTIONS_INIT                                                                \
  {                                                                                               \
    sizeof(extmem_domain_options_t), 4096u, 8192u, 1u << 18, 8192u, 1024u, 0u, UINT64_C(4) << 30, \
        UINT64_C(64) << 30                                                                        \
  }

/* Everything that can be asked of one allocation. Zero (numa_node: EXTMEM_ANY_NODE) means "do not care". */
typedef struct extmem_alloc_options {
  size_t struct_size;
  size_t align; /* power of two up to EXTMEM_MAX_ALIGN; 0: 16 (binned) or 64 (exact) */
  /* Power of two >= size: the memory crosses no multiple of it, counted in offsets of the region, or in IOVA
   * space when iova_contiguous is set. */
  size_t nocross;
  size_t os_page_size; /* only regions of this OS page size */
  uint64_t min_offset; /* window [min_offset, max_offset) in region offsets; max_offset 0: no end */
  uint64_t max_offset;
  extmem_region_id_t region; /* only this region */
  int32_t numa_node;         /* only regions of this node */
  extmem_tag_t tag;
  uint8_t dma_bits;     /* 1..63: every byte's IOVA is known and below 2^dma_bits */
  uint8_t placement;    /* enum extmem_placement */
  bool iova_contiguous; /* one run of IOVAs; inside one OS page this always holds */
  bool zero;            /* fill with zero bytes (needs memory that the CPU can reach) */
  /* nocross is counted in addresses instead: those of the process that added the region. Where another process has it
   * elsewhere, boundaries up to 1 GiB still hold (see extmem_open_options_t.same_address for larger ones). */
  bool nocross_in_addresses;
  bool in_place;       /* extmem_heap_reallocate: where it is, or not at all (ENOMEM) */
  uint8_t reserved[4]; /* 0 */
} extmem_alloc_options_t;
#define EXTMEM_ALLOC_OPTIONS_INIT                                                                         \
  {                                                                                                       \
    sizeof(extmem_alloc_options_t), 0, 0, 0, 0, 0, {0, 0}, EXTMEM_ANY_NODE, 0, 0, 0, false, false, false, \
        false, {                                                                                          \
      0, 0, 0, 0                                                                                          \
    }                                                                                                     \
  }

/* Memory that the caller owns and lends to a heap. */
typedef struct extmem_region_spec {
  size_t struct_size;
  void* base;                 /* a multiple of os_page_size */
  size_t length;              /* a multiple of os_page_size */
  size_t os_page_size;        /* a power of two >= 64 that divides base and length; 0: the system's */
  const extmem_iova_t* iovas; /* one per OS page, or NULL; copied */
  size_t n_iovas;             /* 0, or exactly length / os_page_size */
  uint32_t iova_source;       /* enum extmem_iova_source */
  int32_t numa_node;
  bool allow_unstable_iova; /* accept physical addresses of pages that the kernel may migrate */
  bool cpu_accessible;      /* false: device memory; zeroing and moving reallocations answer ENOTSUP */
  bool any_iovas;           /* accept a table whose IOVAs are no multiples of os_page_size */
  bool
      alone_at_address; /* refuse it (EEXIST) also where a region that is not mapped in this process has any of
                             * these addresses in the process that added it */
  uint8_t reserved[4];  /* 0 */
} extmem_region_spec_t;
#define EXTMEM_REGION_SPEC_INIT                                                                         \
  {                                                                                                     \
    sizeof(extmem_region_spec_t), NULL, 0, 0, NULL, 0, EXTMEM_IOVA_TABLE, EXTMEM_ANY_NODE, false, true, \
        false, false, {                                                                                 \
      0, 0, 0, 0                                                                                        \
    }                                                                                                   \
  }

/* Called while pre-faulting, with bytes done and in all. Returns true to cancel (the add fails: ECANCELED). */
typedef bool (*extmem_progress_fn)(uint64_t done, uint64_t total, void* arg);

/* Memory that extmem maps itself for a heap ("own"). */
typedef struct extmem_backing_spec {
  size_t struct_size;
  size_t length;               /* rounded up to the OS page size */
  size_t os_page_size;         /* hugetlb: the wanted size; 0: the kind's default */
  const char* path;            /* file, dax: path; shm: "/name"; otherwise an optional label */
  extmem_progress_fn progress; /* or NULL */
  void* progress_arg;
  uint32_t kind;         /* enum extmem_backing_kind */
  uint32_t fallback;     /* enum extmem_fallback */
  uint32_t iova_source;  /* enum extmem_iova_source */
  int32_t numa_node;     /* bound before the first touch */
  bool create;           /* file, shm: create it or make it longer when needed */
  bool unlink_on_remove; /* file, shm: remove the name when the region goes */
  bool thp;              /* advise transparent hugepages */
  bool prefault;         /* populate every page now */
  bool lock;             /* mlock */
  bool allow_unstable_iova;
  uint8_t reserved[2]; /* 0 */
} extmem_backing_spec_t;
#define EXTMEM_BACKING_SPEC_INIT                                                                           \
  {                                                                                                        \
    sizeof(extmem_backing_spec_t), 0, 0, NULL, NULL, NULL, EXTMEM_BACKING_ANONYMOUS, EXTMEM_FALLBACK_NONE, \
        EXTMEM_IOVA_TABLE, EXTMEM_ANY_NODE, true, false, false, false, false, false, {                     \
      0, 0                                                                                                 \
    }                                                                                                      \
  }

/* What becomes of the objects that a process holds in a heap of a named domain when it dies or leaves. */
enum extmem_on_death {
  EXTMEM_ON_DEATH_RECLAIM = 0, /* freed, unless it had handed them over */
  EXTMEM_ON_DEATH_KEEP = 1     /* kept, without an owner, until somebody frees them */
};

/* A heap's style, and how it may take more memory from a backing by itself. */
typedef struct extmem_heap_options {
  size_t struct_size;
  uint32_t style;      /* enum extmem_style */
  bool give_back;      /* regions that growth added and that are empty are removed ... */
  uint8_t on_death;    /* enum extmem_on_death */
  bool keep_one;       /* ... but one, so that a heap at the edge does not map and unmap for ever */
  uint8_t reserved[1]; /* 0 */
  const extmem_backing_spec_t*
      growth;            /* NULL: no growth. length is ignored; path and progress must be NULL */
  uint64_t growth_step;  /* bytes per growth (or the allocation's size, if larger); not 0 */
  uint64_t growth_limit; /* most bytes that growth may have added at any time */
  uint64_t user_data;    /* the caller's: extmem only keeps it, for every process */
} extmem_heap_options_t;
#define EXTMEM_HEAP_OPTIONS_INIT                                                                           \
  {                                                                                                        \
    sizeof(extmem_heap_options_t), EXTMEM_STYLE_BINNED, true, EXTMEM_ON_DEATH_RECLAIM, true, {0}, NULL, 0, \
        0, 0                                                                                               \
  }

enum extmem_map_format {
  EXTMEM_MAP_TEXT = 0, /* UTF-8 lines for a terminal */
  EXTMEM_MAP_SVG = 1   /* one self-contained SVG 1.1 document */
};

/* How to draw the heap map. */
typedef struct extmem_map_options {
  size_t struct_size;
  extmem_heap_t heap;  /* only this heap; {NULL, 0}: every heap that holds a region */
  const char* title;   /* heading; NULL: "extmem heap map" */
  uint32_t format;     /* enum extmem_map_format */
  uint32_t width;      /* text: columns, 40 to 250; taken as 40 or 250 when outside of these */
  bool colors;         /* text: ANSI colours (256-colour codes) */
  bool ascii;          /* text: nothing but ASCII */
  bool objects;        /* look at every object, so that slabs show which tags hold them */
  uint8_t reserved[5]; /* 0 */
} extmem_map_options_t;
#define EXTMEM_MAP_OPTIONS_INIT                                                                \
  {                                                                                            \
    sizeof(extmem_map_options_t), {NULL, 0}, NULL, EXTMEM_MAP_TEXT, 100, false, false, true, { \
      0, 0, 0, 0, 0                                                                            \
    }                                                                                          \
  }

typedef struct extmem_walk_options {
  size_t struct_size;
  bool objects;        /* also every object of every slab */
  uint8_t reserved[7]; /* 0 */
} extmem_walk_options_t;
#define EXTMEM_WALK_OPTIONS_INIT                                  \
  {                                                               \
    sizeof(extmem_walk_options_t), false, { 0, 0, 0, 0, 0, 0, 0 } \
  }

/* ---- reports: what the library tells -------------------------------------------------------------------- */

/* A piece of memory with consecutive IOVAs. */
typedef struct extmem_iova_run {
  uint64_t offset; /* from the start of the region, or of the range asked for */
  uint64_t length;
  extmem_iova_t iova;
} extmem_iova_run_t;

typedef struct extmem_region_info {
  size_t struct_size;
  extmem_region_id_t id;
  void* base;
  uint64_t length;
  uint64_t os_page_size;
  uint64_t page_size; /* the granule */
  uint64_t free_bytes;
  uint64_t largest_free;
  uint64_t free_runs;
  uint64_t iova_runs; /* runs of consecutive IOVAs */
  uint64_t iova_table_bytes;
  uint32_t heap_id;
  uint32_t kind; /* enum extmem_backing_kind */
  int32_t numa_node;
  int32_t fd;    /* -1: none */
  bool external; /* the caller's memory; false: a backing of ours */
  bool cpu_accessible;
  bool draining;
  bool grown; /* added by a growth policy */
  uint8_t reserved[4];
  void* adder_base; /* where the process that added the region has it; base: where this one does */
} extmem_region_info_t;

/* The file behind a region that this process has mapped. */
typedef struct extmem_region_file {
  size_t struct_size;
  uint64_t offset; /* of the region's first byte in the file */
  uint64_t length;
  int32_t fd;    /* this process', open while the region is mapped here; not the caller's to close */
  uint32_t kind; /* enum extmem_backing_kind */
} extmem_region_file_t;

/* Who holds memory: one line of the report of a refused remove or destroy, or of an expired drain. */
typedef struct extmem_holder {
  char tag[EXTMEM_NAME_SIZE]; /* "" for untagged */
  bool memzone;               /* a memzone */
  bool mapping;               /* not objects: the process maps the region (count and bytes are 0) */
  uint8_t reserved[2];
  uint32_t pid; /* named domains: whose; 0: nobody's, or a private domain's */
  uint64_t count;
  uint64_t bytes;
} extmem_holder_t;

typedef struct extmem_holder_report {
  size_t struct_size;
  size_t count; /* lines filled */
  size_t more;  /* further holders that did not fit */
  uint64_t total_count;
  uint64_t total_bytes;
  extmem_holder_t holders[EXTMEM_MAX_HOLDERS];
} extmem_holder_report_t;

/* Always: total_bytes == used_bytes + free_bytes + cached_bytes + slab_free_bytes. */
typedef struct extmem_heap_stats {
  size_t struct_size;
  uint64_t total_bytes;     /* sum of the regions' lengths (in whole pages) */
  uint64_t used_bytes;      /* of the objects and spans that users hold (rounded sizes) */
  uint64_t free_bytes;      /* in free runs of pages */
  uint64_t cached_bytes;    /* free objects in magazines */
  uint64_t slab_free_bytes; /* free objects inside slabs, and the slabs' unusable tails */
  uint64_t largest_free;    /* the biggest run of free pages */
  uint64_t free_runs;
  uint64_t used_count; /* objects and spans held */
  uint64_t cached_count;
  uint64_t peak_bytes; /* upper bound of the most bytes ever held ... */
  uint64_t peak_error; /* ... which is too high by at most this */
  uint64_t slabs;
  uint64_t regions;
  uint64_t memzones;
  uint64_t metadata_bytes; /* of the control segment that serve this heap */
  double fragmentation;    /* 1 - largest_free / free_bytes; 0 when nothing is free */
} extmem_heap_stats_t;

typedef struct extmem_tag_stats {
  char name[EXTMEM_NAME_SIZE]; /* "" for untagged */
  extmem_tag_t tag;
  uint8_t reserved[6];
  uint64_t live_bytes;
  uint64_t live_count;
  uint64_t peak_bytes; /* upper bound ... */
  uint64_t peak_error; /* ... too high by at most this */
} extmem_tag_stats_t;

typedef struct extmem_memzone_info {
  size_t struct_size;
  char name[EXTMEM_NAME_SIZE];
  void* addr; /* NULL where its region is not mapped here: extmem_region_ptr_to_address says why */
  uint64_t length;
  extmem_iova_t iova; /* of the first byte, or EXTMEM_BAD_IOVA */
  uint64_t os_page_size;
  extmem_region_ptr_t ptr;
  uint32_t heap_id;
  int32_t numa_node;
} extmem_memzone_info_t;

typedef struct extmem_heap_info {
  size_t struct_size;
  char name[EXTMEM_NAME_SIZE];
  uint64_t regions;
  uint32_t id;
  uint32_t style;     /* enum extmem_style */
  uint64_t user_data; /* extmem_heap_options_t.user_data */
} extmem_heap_info_t;

/* What a pointer points into. */
typedef struct extmem_object_info {
  size_t struct_size;
  void* base;    /* start of the object */
  uint64_t size; /* usable bytes */
  extmem_region_id_t region;
  uint32_t heap_id;
  extmem_tag_t tag;
  bool memzone;
  bool held; /* false: free or cached */
} extmem_object_info_t;

typedef struct extmem_region_event {
  size_t struct_size;
  uint32_t kind; /* enum extmem_region_event_kind */
  bool foreign;  /* another process added the region, and it is mapped or attached here now */
  uint8_t reserved[3];
  /* Of EXTMEM_REGION_RECLAIMING: the dead participant; both are 0 when it is about several at once. */
  uint32_t participant;
  uint32_t pid;
  extmem_region_info_t info; /* base is NULL where the region is not mapped here (reclaiming only) */
} extmem_region_event_t;

typedef struct extmem_walk_entry {
  size_t struct_size;
  uint32_t kind; /* enum extmem_walk_kind */
  uint32_t heap_id;
  extmem_region_id_t region;
  uint64_t offset; /* in the region */
  uint64_t length;
  void* addr;
  const char* name;      /* memzone: its name, valid during the callback; otherwise NULL */
  uint32_t object_size;  /* slab */
  uint32_t object_count; /* slab */
  uint32_t held_count;   /* slab */
  extmem_tag_t tag;
  bool external;
  bool held;   /* object, held span */
  bool cached; /* object in a magazine */
  uint8_t reserved[7];
} extmem_walk_entry_t;

/* One breach found by verify. */
typedef struct extmem_breach {
  size_t struct_size;
  const char* what; /* the invariant, a constant string */
  uint64_t where;   /* page, slab or table index */
  uint64_t expected;
  uint64_t found;
  uint32_t heap_id;
  uint32_t region_slot;
} extmem_breach_t;

/* ---- callbacks ------------------------------------------------------------------------------------------ */

/* Visitors return 0 to go on. Anything else ends the walk and is what the walking function returns; use
 * positive values to tell it from an error of the library. `arg` is the caller's. */
typedef int (*extmem_heap_visit_fn)(const extmem_heap_info_t* heap, void* arg);
typedef int (*extmem_region_visit_fn)(const extmem_region_info_t* region, void* arg);
typedef int (*extmem_iova_run_visit_fn)(const extmem_iova_run_t* run, void* arg);
typedef int (*extmem_memzone_visit_fn)(const extmem_memzone_info_t* memzone, void* arg);
typedef int (*extmem_walk_visit_fn)(const extmem_walk_entry_t* entry, void* arg);
/* Hears of each breach. */
typedef void (*extmem_breach_fn)(const extmem_breach_t* breach, void* arg);
/* Takes the next piece of a text or picture; it is not zero-terminated. Returns 0 to go on. */
typedef int (*extmem_write_fn)(const char* text, size_t length, void* arg);
/* Hears of regions. 0 agrees; an errno value, of either sign, refuses (see extmem_listener_add). */
typedef int (*extmem_region_listener_fn)(const extmem_region_event_t* event, void* arg);

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_EXTMEM_TYPES_H */
