/* For programs that go on after a failure: it is printed and counted, and main() ends with `failures != 0`. */
#ifndef EXTMEM_TESTS_DPDK_EXPECT_H
#define EXTMEM_TESTS_DPDK_EXPECT_H

#include <rte_errno.h>
#include <stdio.h>
#include <string.h>

static int failures = 0;

/* Whether this is DPDK without hugepages: some things are otherwise then. extmem makes no difference there. */
#ifdef RTE_LIB_EXTMEM
#define DPDK_NO_HUGE 0
#else
#define DPDK_NO_HUGE (rte_eal_has_hugepages() == 0)
#endif

#define EXPECT(condition)                                            \
  do {                                                               \
    if (!(condition)) {                                              \
      printf("%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
      failures++;                                                    \
    }                                                                \
  } while (0)

/* call gives `result`, and rte_errno is `error`. */
#define EXPECT_FAILS(call, result, error)                                                              \
  do {                                                                                                 \
    rte_errno = 0;                                                                                     \
    if ((call) != (result) || rte_errno != (error)) {                                                  \
      printf("%s:%d: failed: %s, rte_errno is %d (%s), expected %d (%s)\n", __FILE__, __LINE__, #call, \
             rte_errno, rte_strerror(rte_errno), (error), #error);                                     \
      failures++;                                                                                      \
    }                                                                                                  \
  } while (0)

#endif /* EXTMEM_TESTS_DPDK_EXPECT_H */
