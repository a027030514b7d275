/* What the programs of this folder have in common. */
#ifndef EXTMEM_TESTS_DPDK_CHECK_H
#define EXTMEM_TESTS_DPDK_CHECK_H

#include <stdio.h>

/* Ends the function with 1 where the condition does not hold, and says which. */
#define CHECK(condition)                                                   \
  do {                                                                     \
    if (!(condition)) {                                                    \
      printf("%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition); \
      return 1;                                                            \
    }                                                                      \
  } while (0)

#endif /* EXTMEM_TESTS_DPDK_CHECK_H */
