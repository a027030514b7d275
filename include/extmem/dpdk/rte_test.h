/* What unit tests say: each macro ends the function that it is in with -1 where what it says does not hold, and logs that
 * (as EAL, at the level of debugging) with the message that follows, a format and what it formats. */
#ifndef EXTMEM_DPDK_RTE_TEST_H
#define EXTMEM_DPDK_RTE_TEST_H

#include <rte_common.h>
#include <rte_debug.h>
#include <rte_log.h>

/* Called where a test has failed. A program may define it before. */
#ifndef RTE_TEST_TRACE_FAILURE
#define RTE_TEST_TRACE_FAILURE(_file, _line, _func)
#endif

#define RTE_TEST_ASSERT(cond, ...)                                                \
  do {                                                                            \
    if (!(cond)) {                                                                \
      RTE_LOG(DEBUG, EAL, "Test assert %s line %d failed: ", __func__, __LINE__); \
      rte_log(RTE_LOG_DEBUG, RTE_LOGTYPE_EAL, __VA_ARGS__);                       \
      rte_log(RTE_LOG_DEBUG, RTE_LOGTYPE_EAL, "\n");                              \
      RTE_TEST_TRACE_FAILURE(__FILE__, __LINE__, __func__);                       \
      return -1;                                                                  \
    }                                                                             \
  } while (0)

#define RTE_TEST_ASSERT_EQUAL(a, b, ...) RTE_TEST_ASSERT((a) == (b), __VA_ARGS__)
#define RTE_TEST_ASSERT_NOT_EQUAL(a, b, ...) RTE_TEST_ASSERT((a) != (b), __VA_ARGS__)
#define RTE_TEST_ASSERT_SUCCESS(val, ...) RTE_TEST_ASSERT((val) == 0, __VA_ARGS__)
#define RTE_TEST_ASSERT_FAIL(val, ...) RTE_TEST_ASSERT((val) != 0, __VA_ARGS__)
#define RTE_TEST_ASSERT_NULL(val, ...) RTE_TEST_ASSERT((val) == NULL, __VA_ARGS__)
#define RTE_TEST_ASSERT_NOT_NULL(val, ...) RTE_TEST_ASSERT((val) != NULL, __VA_ARGS__)

#endif /* EXTMEM_DPDK_RTE_TEST_H */
