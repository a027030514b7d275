/* Pseudo-random numbers: fast, well spread, and not for secrets.
 *
 * Thread-safety: any thread, any time; each has its own sequence. After rte_srand() the sequence of an lcore depends
 * on the seed and its id only.
 */
#ifndef EXTMEM_DPDK_RTE_RANDOM_H
#define EXTMEM_DPDK_RTE_RANDOM_H

#include <stdint.h>

#include <rte_compat.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Begins every thread's sequence anew. Without it the seed comes from the kernel. */
void rte_srand(uint64_t seedval);

/* Any number of 64 bits. */
uint64_t rte_rand(void);

/* A number below `upper_bound`, each as likely; 0 for a bound of 0. */
uint64_t rte_rand_max(uint64_t upper_bound);

/* At least 0.0, below 1.0. */
double rte_drand(void);

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_DPDK_RTE_RANDOM_H */
