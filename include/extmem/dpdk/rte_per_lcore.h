/* Variables of which every thread has its own. */
#ifndef EXTMEM_DPDK_RTE_PER_LCORE_H
#define EXTMEM_DPDK_RTE_PER_LCORE_H

#include <pthread.h>

#define RTE_DEFINE_PER_LCORE(type, name) __thread __typeof__(type) per_lcore_##name
#define RTE_DECLARE_PER_LCORE(type, name) extern __thread __typeof__(type) per_lcore_##name
#define RTE_PER_LCORE(name) (per_lcore_##name)

#endif /* EXTMEM_DPDK_RTE_PER_LCORE_H */
