/* Marks of functions that DPDK does not promise to keep.
 *
 * Both are empty here: a program needs neither ALLOW_EXPERIMENTAL_API nor ALLOW_INTERNAL_API, and one that
 * defines them compiles as well.
 */
#ifndef EXTMEM_DPDK_RTE_COMPAT_H
#define EXTMEM_DPDK_RTE_COMPAT_H

#define __rte_experimental
#define __rte_internal

#endif /* EXTMEM_DPDK_RTE_COMPAT_H */
