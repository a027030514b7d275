/* rte_errno: why the last call of this thread failed. A call that succeeds leaves it alone. */
#ifndef EXTMEM_DPDK_RTE_ERRNO_H
#define EXTMEM_DPDK_RTE_ERRNO_H

#include <rte_per_lcore.h>

#ifdef __cplusplus
extern "C" {
#endif

RTE_DECLARE_PER_LCORE(int, _rte_errno);

/* A positive errno value, or one of those below; every thread has its own, and may assign to it. */
#define rte_errno RTE_PER_LCORE(_rte_errno)

/* The text of an error number; never NULL. It is valid until this thread calls again. Any thread may call it. */
const char* rte_strerror(int errnum);

#ifndef __ELASTERROR
#define __ELASTERROR 1000
#endif

/* Error numbers that errno does not have. */
enum {
  RTE_MIN_ERRNO = __ELASTERROR,
  E_RTE_SECONDARY, /* not permitted in a secondary process */
  E_RTE_NO_CONFIG, /* rte_eal_init() has not run */
  RTE_MAX_ERRNO
};

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_DPDK_RTE_ERRNO_H */
