/* Telling the compiler which way a condition usually goes. */
#ifndef EXTMEM_DPDK_RTE_BRANCH_PREDICTION_H
#define EXTMEM_DPDK_RTE_BRANCH_PREDICTION_H

#ifndef likely
#define likely(x) __builtin_expect(!!(x), 1)
#endif
#ifndef unlikely
#define unlikely(x) __builtin_expect(!!(x), 0)
#endif

#endif /* EXTMEM_DPDK_RTE_BRANCH_PREDICTION_H */
