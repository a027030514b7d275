/* Locks that a program may hold around several walks or lookups.
 *
 * In DPDK they are the library's own locks, shared by its processes. Here they are of this process; what extmem shares has
 * locks of its own, which survive the death of a process. While the memory lock is read, no memory goes: walks read it,
 * and removing memory writes it. A thread may take it again, but not write it while it reads. Of the others a reader may
 * read-lock again. A lock is given back by the thread that took it.
 */
#ifndef EXTMEM_DPDK_RTE_EAL_MEMCONFIG_H
#define EXTMEM_DPDK_RTE_EAL_MEMCONFIG_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

void rte_mcfg_mem_read_lock(void);
void rte_mcfg_mem_read_unlock(void);
void rte_mcfg_mem_write_lock(void);
void rte_mcfg_mem_write_unlock(void);
void rte_mcfg_tailq_read_lock(void);
void rte_mcfg_tailq_read_unlock(void);
void rte_mcfg_tailq_write_lock(void);
void rte_mcfg_tailq_write_unlock(void);
void rte_mcfg_mempool_read_lock(void);
void rte_mcfg_mempool_read_unlock(void);
void rte_mcfg_mempool_write_lock(void);
void rte_mcfg_mempool_write_unlock(void);
void rte_mcfg_timer_lock(void);
void rte_mcfg_timer_unlock(void);

/* Whether --single-file-segments was given. */
bool rte_mcfg_get_single_file_segments(void);

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_DPDK_RTE_EAL_MEMCONFIG_H */
