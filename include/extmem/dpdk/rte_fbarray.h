/* Arrays of elements of one size, each of them used or free, that processes can share.
 *
 * The struct holds the array's name, its length and where it is; the elements and the marks lie in a file of the
 * runtime directory that is mapped at the same address in every process (with --in-memory or --no-shconf: in memory of
 * this process alone). To share one, put the struct into shared memory, or hand a copy of it to the other process, which
 * calls rte_fbarray_attach().
 *
 * Every function sets rte_errno when it fails, and then has changed nothing.
 *   EINVAL    no array, or an index that is not in the array
 *
 * Thread-safety: any thread of any process may mark and search while others do. rte_fbarray_init(), _attach(),
 * _detach() and _destroy() must not run while another thread of this process uses the same array; they may while other
 * threads use others. A search takes no lock: it sees each element as it was at some moment of the call.
 *
 * A process may be killed at any time: its marks stay, no lock of its stays behind, and its file does not keep anybody
 * from making an array of that name again.
 */
#ifndef EXTMEM_DPDK_RTE_FBARRAY_H
#define EXTMEM_DPDK_RTE_FBARRAY_H

#include <stdio.h>

#include <rte_rwlock.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes of a name, its terminating zero included. */
#define RTE_FBARRAY_NAME_LEN 64

struct rte_fbarray {
  char name[RTE_FBARRAY_NAME_LEN];
  unsigned int
      count; /* elements in use; for reading. As of this process' last mark where the struct is a copy */
  unsigned int len;    /* elements there are */
  unsigned int elt_sz; /* bytes of an element */
  void* data;          /* the first element */
  rte_rwlock_t rwlock; /* not used: it is here for the layout */
};

/* ---- making and ending ----
 * 0, or -1 with rte_errno. */

/* Makes an array of `len` free elements that are zero; the struct needs no preparation.
 *   EINVAL        no struct, no name, a size of 0, a length of 0 or above INT_MAX; a '/' in the name of a shared array
 *   ENAMETOOLONG  the name has 64 bytes or more
 *   EBUSY         a process that lives has an array of this name
 *   ENOMEM        no memory, no room in the runtime directory, or no addresses
 *   E_RTE_NO_CONFIG  rte_eal_init() has not run
 */
int rte_fbarray_init(struct rte_fbarray* arr, const char* name, unsigned int len, unsigned int elt_sz);

/* Maps, at the address that the struct says, an array that another process has made.
 *   EINVAL, ENAMETOOLONG  the struct describes no array, or another one than the file holds
 *   EEXIST         this process has an array at these addresses already, this one perhaps
 *   ENOENT         there is no array of this name
 *   EBUSY          it is being made or destroyed right now
 *   EADDRNOTAVAIL  something else is mapped at these addresses in this process
 */
int rte_fbarray_attach(struct rte_fbarray* arr);

/* Ends the array for all: unmaps it, removes its file, and zeroes the struct.
 *   ENOENT  this process has not got it
 *   EBUSY   another process has it attached
 */
int rte_fbarray_destroy(struct rte_fbarray* arr);

/* Unmaps the array in this process; the struct stays as it is, and others keep the array.
 *   ENOENT  this process has not got it
 */
int rte_fbarray_detach(struct rte_fbarray* arr);

/* ---- elements ---- */

/* The address of an element, whether used or free; NULL with rte_errno. */
void* rte_fbarray_get(const struct rte_fbarray* arr, unsigned int idx);

/* The index of the element that holds this address; -1 with EINVAL where it is in none. */
int rte_fbarray_find_idx(const struct rte_fbarray* arr, const void* elt);

/* Mark an element. Marking it as what it is already succeeds and changes nothing. 0, or -1 with rte_errno:
 *   ETIMEDOUT  a process that was stopped in the middle of marking has kept everybody waiting for five seconds */
int rte_fbarray_set_used(struct rte_fbarray* arr, unsigned int idx);
int rte_fbarray_set_free(struct rte_fbarray* arr, unsigned int idx);

/* 1 used, 0 free, -1 with rte_errno. */
int rte_fbarray_is_used(struct rte_fbarray* arr, unsigned int idx);

/* ---- searches ----
 * An index, or -1 with rte_errno:
 *   ENOENT  there is no such used element
 *   ENOSPC  there is no such free element
 * `next` and plain names look at `start` and what is above it; `prev` and `rev` at `start` and what is below it. */

int rte_fbarray_find_next_free(struct rte_fbarray* arr, unsigned int start);
int rte_fbarray_find_next_used(struct rte_fbarray* arr, unsigned int start);
int rte_fbarray_find_prev_free(struct rte_fbarray* arr, unsigned int start);
int rte_fbarray_find_prev_used(struct rte_fbarray* arr, unsigned int start);

/* The lowest index of `n` elements in a row, all of which are looked at; `prev` takes those nearest to `start`.
 *   EINVAL  also where n is 0 or above the array's length */
int rte_fbarray_find_next_n_free(struct rte_fbarray* arr, unsigned int start, unsigned int n);
int rte_fbarray_find_next_n_used(struct rte_fbarray* arr, unsigned int start, unsigned int n);
int rte_fbarray_find_prev_n_free(struct rte_fbarray* arr, unsigned int start, unsigned int n);
int rte_fbarray_find_prev_n_used(struct rte_fbarray* arr, unsigned int start, unsigned int n);

/* The lowest index of the longest row of elements; of equally long ones, the one nearest to `start`. A row that goes
 * past `start` counts with the part that is looked at. */
int rte_fbarray_find_biggest_free(struct rte_fbarray* arr, unsigned int start);
int rte_fbarray_find_biggest_used(struct rte_fbarray* arr, unsigned int start);
int rte_fbarray_find_rev_biggest_free(struct rte_fbarray* arr, unsigned int start);
int rte_fbarray_find_rev_biggest_used(struct rte_fbarray* arr, unsigned int start);

/* How many elements in a row, from `start` on, are free or used: 0 where `start` itself is not. -1 only for EINVAL. */
int rte_fbarray_find_contig_free(struct rte_fbarray* arr, unsigned int start);
int rte_fbarray_find_contig_used(struct rte_fbarray* arr, unsigned int start);
int rte_fbarray_find_rev_contig_free(struct rte_fbarray* arr, unsigned int start);
int rte_fbarray_find_rev_contig_used(struct rte_fbarray* arr, unsigned int start);

/* Prints the array's figures and its rows of used elements, for people to read. Sets rte_errno to EINVAL, and prints
 * nothing, where either argument is NULL. */
void rte_fbarray_dump_metadata(struct rte_fbarray* arr, FILE* f);

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_DPDK_RTE_FBARRAY_H */
