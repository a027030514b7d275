/* extmem for C: named domains, and the processes that share them. Part of extmem.h; its conventions hold here.
 *
 * A named domain lives in a folder of a runtime directory on a tmpfs. No process is special: whoever comes first creates
 * the domain, any may leave or be killed at any instruction, and the others go on.
 */
#ifndef EXTMEM_EXTMEM_PROCESS_H
#define EXTMEM_EXTMEM_PROCESS_H

#include "extmem/extmem_types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- structs and callbacks: what the functions below take and tell ---------------------------------------- */

/* Whether a named domain may, or must, be there before. */
enum extmem_open_mode {
  EXTMEM_OPEN_OR_CREATE = 0,  /* whoever comes first creates it */
  EXTMEM_OPEN_EXISTING = 1,   /* ENOENT where there is none */
  EXTMEM_OPEN_CREATE_ONLY = 2 /* EEXIST where there is one */
};

/* How to open a domain that processes share by its name. */
typedef struct extmem_open_options {
  size_t struct_size;
  /* Sizes of a domain that is created (one that is opened keeps its own); NULL: the defaults. */
  const extmem_domain_options_t* sizes;
  /* Runtime directory, on a tmpfs. NULL: $EXTMEM_RUNTIME_DIR, else $XDG_RUNTIME_DIR/extmem if
   * $XDG_RUNTIME_DIR is on one, else /dev/shm/extmem-UID. */
  const char* directory;
  uint32_t mode; /* enum extmem_open_mode */
  /* Members of the group share it (0660 instead of 0600): each of them asks for it, creator and openers, in a `directory` that
   * is the group's too (0770). EPERM where the folders are not this user's or its effective group's, or where who does
   * not ask for it meets what the group may write to. Members trust each other as threads do. */
  bool group;
  bool remove_when_last; /* the last participant that closes it removes it */
  /* This process maps what others add at the address where the adder has it, or not at all: allocations of this process
   * are then served from other regions, and what asks for the region fails with EADDRINUSE. */
  bool same_address;
  bool permanent; /* a domain that is created goes only by extmem_domain_remove, whoever closes it last */
  uint8_t reserved[8]; /* 0 */
} extmem_open_options_t;
#define EXTMEM_OPEN_OPTIONS_INIT                                                                    \
  {                                                                                                 \
    sizeof(extmem_open_options_t), NULL, NULL, EXTMEM_OPEN_OR_CREATE, false, false, false, false, { \
      0, 0, 0, 0, 0, 0, 0, 0                                                                        \
    }                                                                                               \
  }

/* A named domain, seen from outside. */
typedef struct extmem_domain_info {
  size_t struct_size;
  char name[EXTMEM_NAME_SIZE];
  uint64_t bytes;        /* of memory behind the control segment */
  uint32_t participants; /* that live */
  uint32_t dead;         /* that have ended and are not recovered yet */
} extmem_domain_info_t;

/* One process that is attached to a named domain. */
typedef struct extmem_participant_info {
  size_t struct_size;
  uint32_t id;   /* 1 to 256; used again when a participant is gone */
  uint32_t pid;  /* in its own pid namespace */
  char name[16]; /* what the kernel calls the process */
  bool self;     /* this process */
  bool dead;     /* it has ended, and what it left is not recovered yet */
  uint8_t reserved[6];
} extmem_participant_info_t;

/* What a recovery found and did; of a process' first call also what opening the domain did. */
typedef struct extmem_recovery_report {
  size_t struct_size;
  uint32_t participants; /* dead ones that were cleaned up now */
  uint32_t threads;      /* their threads */
  uint32_t unfinished;   /* threads that died inside a multi-step change, which was undone */
  uint32_t regions;      /* half-added or half-removed regions that were finished or undone */
  uint64_t freed_objects;
  uint64_t freed_bytes;
  uint64_t kept_objects; /* now without an owner (EXTMEM_ON_DEATH_KEEP) */
  uint64_t kept_bytes;
  uint64_t nanoseconds;
  /* Now without an owner because a listener refused EXTMEM_REGION_RECLAIMING; freed by a later recovery, once it agrees. */
  uint64_t withheld_objects;
  uint64_t withheld_bytes;
} extmem_recovery_report_t;

/* Visitors, as in extmem_types.h: 0 goes on. */
typedef int (*extmem_domain_visit_fn)(const extmem_domain_info_t* domain, void* arg);
typedef int (*extmem_participant_visit_fn)(const extmem_participant_info_t* participant, void* arg);

/* ---- named domains -------------------------------------------------------------------------------------- */

/**
 * Opens a domain that processes share by its name, or creates it: whoever comes first. Every process of the same
 * user (or group: extmem_open_options_t.group) can open it; opened twice in one process it is one participant. In a group's
 * domain extmem lets the group use the memory that it makes (own backings without a path); a file that the caller names needs
 * the permissions by itself, and a memfd of another user has to be handed over (extmem_region_attach_file).
 *
 * Requires: options NULL (the defaults) or initialised with EXTMEM_OPEN_OPTIONS_INIT. A name is a file's name: no '/',
 * no '.' at its beginning.
 * Returns: 0 and the domain in *domain, to be ended with extmem_domain_close; -errno.
 * Errors: EINVAL, ENAMETOOLONG the name or the options; EEXIST, ENOENT by mode; EPERM, EACCES, ELOOP, ENOTSUP the runtime
 * directory is not safe or not on a tmpfs; EUCLEAN, EPROTO, ESTALE what is there is damaged, of another version or
 * layout, or of before a reboot; ENOSPC the tmpfs is full, or 256 processes use the domain; ENOMEM; ETIMEDOUT a stopped
 * process is in the way; EBUSY this process has it open without options->same_address and now asks for that.
 * Threads: any.
 */
EXTMEM_API int extmem_domain_open(const char* name, const extmem_open_options_t* options,
                                  extmem_domain_t** domain);

/**
 * Removes a named domain that no living process uses, with the memory of its own backings and the files that were to go
 * with their regions (unlink_on_remove; of a group's domain those that the group may write to).
 *
 * Requires: directory NULL (as in extmem_open_options_t) or a runtime directory.
 * Returns: 0; -errno.
 * Errors: EBUSY a living process uses it; ENOENT; EINVAL, ENAMETOOLONG the name; those of the runtime directory; EACCES, EPERM,
 * ... such a file, which the message names, cannot be removed: then the domain stays.
 * Threads: any.
 */
EXTMEM_API int extmem_domain_remove(const char* name, const char* directory);

/**
 * Visits the named domains of a runtime directory.
 *
 * Requires: directory NULL (as in extmem_open_options_t) or a runtime directory.
 * Returns: 0, also where there is no such directory; what `visit` returned when it ended the list; -errno.
 * Errors: those of the runtime directory.
 * Threads: any.
 */
EXTMEM_API int extmem_domain_list(const char* directory, extmem_domain_visit_fn visit, void* arg);

/**
 * Whether the domain was opened by a name; otherwise it is private to this process.
 *
 * Returns: 0 and the answer in *named; -errno.
 * Threads: any.
 */
EXTMEM_API int extmem_domain_is_named(extmem_domain_t* domain, bool* named);

/* ---- processes ------------------------------------------------------------------------------------------ */

/**
 * This process' number among the participants of the domain.
 *
 * Returns: 0 and the number in *participant: 1 to 256, 0 in a private domain; -errno.
 * Threads: any.
 */
EXTMEM_API int extmem_domain_get_participant(extmem_domain_t* domain, uint32_t* participant);

/**
 * Visits the participants of a named domain.
 *
 * Returns: 0; what `visit` returned when it ended the walk; -errno.
 * Errors: ENOTSUP a private domain.
 * Threads: any.
 */
EXTMEM_API int extmem_participant_walk(extmem_domain_t* domain, extmem_participant_visit_fn visit, void* arg);

/**
 * Cleans up after every participant that has ended without leaving. Nobody has to call it: a process that meets what a
 * dead one left does so too. Asks the listeners again about memory that they withheld (EXTMEM_REGION_RECLAIMING).
 *
 * Requires: report NULL, or room for report_size bytes of it.
 * Returns: 0 and what was done in *report; -errno.
 * Errors: ENOTSUP a private domain; ETIMEDOUT a stopped process is in the way; EDEADLK inside a callback.
 * Threads: any.
 */
EXTMEM_API int extmem_domain_recover(extmem_domain_t* domain, extmem_recovery_report_t* report,
                                     size_t report_size);

/**
 * As extmem_domain_recover, and does what others wait for: unmaps regions that they remove, maps those that they have
 * added. What could not be mapped before (no descriptors, an address that was taken, a listener that refused) is tried again.
 * Calls that the thread's cache does not serve do so too: a process that makes none for long should call this now and then,
 * for a drain or a removal by another one waits for it.
 *
 * Returns: 0; -errno.
 * Errors: as extmem_domain_recover.
 * Threads: any.
 */
EXTMEM_API int extmem_domain_poll(extmem_domain_t* domain);

/**
 * Makes another participant the holder of an object: it survives this process, and goes with that one.
 *
 * Returns: 0; -errno.
 * Errors: ENOTSUP a private domain; ESRCH no such participant lives; EFAULT foreign pointer; EINVAL interior pointer;
 * EALREADY it is free, or was freed at the same time; EPERM a memzone; ETIMEDOUT a stopped process is in the way.
 * Threads: any.
 */
EXTMEM_API int extmem_object_hand_over(extmem_domain_t* domain, const void* p, uint32_t participant);

/**
 * Gives a region that this process cannot map by itself (memory that another process owned already) an address here:
 * the caller's mapping of the same memory, congruent to the adder's modulo 1 GiB.
 *
 * Requires: the mapping stays until the region is removed or the domain closed.
 * Returns: 0; -errno.
 * Errors: EINVAL base is NULL or not congruent, or not the adder's where this process wants the same; EEXIST the region
 * is mapped here, or the memory overlaps one that is; ENOENT; what a listener answered; EDEADLK inside a callback.
 * Threads: any.
 */
EXTMEM_API int extmem_region_attach(extmem_domain_t* domain, extmem_region_id_t region, void* base);

/**
 * Maps a region in this process through a descriptor of its memory that somebody handed over (SCM_RIGHTS): for memory that
 * has no path, where the process that holds it may not be looked into or is gone. `fd` stays the caller's.
 *
 * Requires: offset is what extmem_region_get_file tells.
 * Returns: 0; -errno.
 * Errors: EBADF; ESTALE the file is not the region's memory, or was cut short; EPERM it could still be cut short; EACCES it
 * is not open for reading and writing; EINVAL the offset; ENOTSUP the region has no file; EADDRINUSE by
 * extmem_open_options_t.same_address; EEXIST the region is mapped here; ENOENT; what a listener answered; EDEADLK inside a
 * callback.
 * Threads: any.
 */
EXTMEM_API int extmem_region_attach_file(extmem_domain_t* domain, extmem_region_id_t region, int fd,
                                         uint64_t offset);

/**
 * The reverse of extmem_region_attach, also for the process that added the region: memory of the caller's that this process
 * goes without from now on, while the others keep it. What is allocated in it stays so; here it can be freed again after
 * another extmem_region_attach.
 *
 * Requires: no thread of this process uses the memory meanwhile.
 * Returns: 0; -errno.
 * Errors: ENOENT no such region, or it is not mapped here; ENOTSUP extmem maps it by itself; what a listener answered;
 * EDEADLK inside a callback.
 * Threads: any.
 */
EXTMEM_API int extmem_region_detach(extmem_domain_t* domain, extmem_region_id_t region);

/**
 * From now on this process maps backings at free addresses from `lowest` upwards, above the regions that are there already:
 * small ones for devices, say. Where none is found the kernel chooses. 0, as from the start: a named domain's backings go
 * to a window of addresses that Linux leaves free in every process (48 to 56 TiB), a private one's where the kernel likes.
 *
 * Returns: 0; -errno.
 * Errors: EINVAL lowest is no multiple of 2 MiB, or above 2^46.
 * Threads: any.
 */
EXTMEM_API int extmem_domain_place_backings(extmem_domain_t* domain, uint64_t lowest);

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_EXTMEM_PROCESS_H */
