/* Limits and switches of the DPDK interface, as a program written for DPDK 22.11 may ask for them.
 *
 * Most of DPDK's limits are tables of fixed size; extmem's tables grow. The names are here for programs that size
 * their own arrays by them; docs/dpdk.md says which limits hold.
 */
#ifndef EXTMEM_DPDK_RTE_CONFIG_H
#define EXTMEM_DPDK_RTE_CONFIG_H

#include <rte_build_config.h>

#define RTE_EXEC_ENV_LINUXAPP 1

#define RTE_VER_PREFIX "DPDK"
#define RTE_VER_YEAR 22
#define RTE_VER_MONTH 11
#define RTE_VER_MINOR 0
#define RTE_VER_SUFFIX ""
#define RTE_VER_RELEASE 99

/* Tells that the program is compiled against extmem and not against DPDK itself. */
#define RTE_LIB_EXTMEM 1

#define RTE_MAX_HEAPS 32
#define RTE_MAX_MEMSEG_LISTS 128
#define RTE_MAX_MEMSEG_PER_LIST 8192
#define RTE_MAX_MEM_MB_PER_LIST 32768
#define RTE_MAX_MEMSEG_PER_TYPE 32768
#define RTE_MAX_MEM_MB_PER_TYPE 65536
#define RTE_MAX_MEM_MB 524288
#define RTE_MAX_MEMZONE 2560
#define RTE_MAX_TAILQ 32

/* RTE_LOG_DP() writes what is at least this grave. */
#ifndef RTE_LOG_DP_LEVEL
#define RTE_LOG_DP_LEVEL RTE_LOG_INFO
#endif

#endif /* EXTMEM_DPDK_RTE_CONFIG_H */
