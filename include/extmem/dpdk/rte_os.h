/* What depends on the operating system: sets of processors, and the lists of sys/queue.h by DPDK's names. */
#ifndef EXTMEM_DPDK_RTE_OS_H
#define EXTMEM_DPDK_RTE_OS_H

#include <sched.h>
#include <sys/queue.h>

#define RTE_TAILQ_HEAD(name, type) TAILQ_HEAD(name, type)
#define RTE_TAILQ_ENTRY(type) TAILQ_ENTRY(type)
#define RTE_TAILQ_FOREACH(var, head, field) TAILQ_FOREACH(var, head, field)
#define RTE_TAILQ_FIRST(head) TAILQ_FIRST(head)
#define RTE_TAILQ_NEXT(elem, field) TAILQ_NEXT(elem, field)
#define RTE_STAILQ_HEAD(name, type) STAILQ_HEAD(name, type)
#define RTE_STAILQ_ENTRY(type) STAILQ_ENTRY(type)

/* glibc declares the type always, its macros only with _GNU_SOURCE. */
#if defined(CPU_SETSIZE) || defined(__GLIBC__)
#define RTE_HAS_CPUSET
typedef cpu_set_t rte_cpuset_t;
#endif

#ifdef CPU_SETSIZE
#define RTE_CPU_AND(dst, src1, src2) CPU_AND(dst, src1, src2)
#define RTE_CPU_OR(dst, src1, src2) CPU_OR(dst, src1, src2)
#define RTE_CPU_FILL(set)                                                          \
  do {                                                                             \
    unsigned int rte_cpu_;                                                         \
    CPU_ZERO(set);                                                                 \
    for (rte_cpu_ = 0; rte_cpu_ < CPU_SETSIZE; rte_cpu_++) CPU_SET(rte_cpu_, set); \
  } while (0)
#define RTE_CPU_NOT(dst, src)          \
  do {                                 \
    rte_cpuset_t rte_all_cpus_;        \
    RTE_CPU_FILL(&rte_all_cpus_);      \
    CPU_XOR(dst, &rte_all_cpus_, src); \
  } while (0)
#endif

#endif /* EXTMEM_DPDK_RTE_OS_H */
