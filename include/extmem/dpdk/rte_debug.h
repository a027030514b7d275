/* Giving up with a message, and checks that do.
 *
 * These are for programs: extmem itself never ends the process.
 */
#ifndef EXTMEM_DPDK_RTE_DEBUG_H
#define EXTMEM_DPDK_RTE_DEBUG_H

#include <rte_branch_prediction.h>
#include <rte_log.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Writes the calling functions to the log. */
void rte_dump_stack(void);

/* rte_panic("format", ...): writes the message and the stack to the log and aborts. */
#define rte_panic(...) rte_panic_(__func__, __VA_ARGS__, "dummy")
#define rte_panic_(func, format, ...) __rte_panic(func, format "%.0s", __VA_ARGS__)
void __rte_panic(const char* funcname, const char* format, ...) __rte_cold __rte_noreturn
    __rte_format_printf(2, 3);

/* Panics where the condition does not hold; RTE_ASSERT only where RTE_ENABLE_ASSERT is defined. */
#define RTE_VERIFY(exp)                                                                 \
  do {                                                                                  \
    if (unlikely(!(exp))) rte_panic("line %d\tassert \"%s\" failed\n", __LINE__, #exp); \
  } while (0)
#ifdef RTE_ENABLE_ASSERT
#define RTE_ASSERT(exp) RTE_VERIFY(exp)
#else
#define RTE_ASSERT(exp) \
  do {                  \
  } while (0)
#endif

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_DPDK_RTE_DEBUG_H */
