/* In DPDK the rings of elements of any size; here rte_ring.h has it all. */
#ifndef EXTMEM_DPDK_RTE_RING_ELEM_H
#define EXTMEM_DPDK_RTE_RING_ELEM_H

#include <rte_ring.h>

#endif /* EXTMEM_DPDK_RTE_RING_ELEM_H */
