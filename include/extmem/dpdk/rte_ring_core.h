/* In DPDK the rings' struct; here rte_ring.h has it all. */
#ifndef EXTMEM_DPDK_RTE_RING_CORE_H
#define EXTMEM_DPDK_RTE_RING_CORE_H

#include <rte_ring.h>

#endif /* EXTMEM_DPDK_RTE_RING_CORE_H */
