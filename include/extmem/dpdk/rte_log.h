/* The log: lines with a type and a level, written to stderr or a stream of the program's.
 *
 * A line is written when its level is at least as grave as (not above) both the global level and its type's.
 * Thread-safety: any thread, any time.
 */
#ifndef EXTMEM_DPDK_RTE_LOG_H
#define EXTMEM_DPDK_RTE_LOG_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <rte_common.h>
#include <rte_config.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Types: those of DPDK's libraries, eight for programs, and more by rte_log_register(). */
#define RTE_LOGTYPE_EAL 0
#define RTE_LOGTYPE_MALLOC 1
#define RTE_LOGTYPE_RING 2
#define RTE_LOGTYPE_MEMPOOL 3
#define RTE_LOGTYPE_TIMER 4
#define RTE_LOGTYPE_PMD 5
#define RTE_LOGTYPE_HASH 6
#define RTE_LOGTYPE_LPM 7
#define RTE_LOGTYPE_KNI 8
#define RTE_LOGTYPE_ACL 9
#define RTE_LOGTYPE_POWER 10
#define RTE_LOGTYPE_METER 11
#define RTE_LOGTYPE_SCHED 12
#define RTE_LOGTYPE_PORT 13
#define RTE_LOGTYPE_TABLE 14
#define RTE_LOGTYPE_PIPELINE 15
#define RTE_LOGTYPE_MBUF 16
#define RTE_LOGTYPE_CRYPTODEV 17
#define RTE_LOGTYPE_EFD 18
#define RTE_LOGTYPE_EVENTDEV 19
#define RTE_LOGTYPE_GSO 20
#define RTE_LOGTYPE_USER1 24
#define RTE_LOGTYPE_USER2 25
#define RTE_LOGTYPE_USER3 26
#define RTE_LOGTYPE_USER4 27
#define RTE_LOGTYPE_USER5 28
#define RTE_LOGTYPE_USER6 29
#define RTE_LOGTYPE_USER7 30
#define RTE_LOGTYPE_USER8 31
#define RTE_LOGTYPE_FIRST_EXT_ID 32

/* Levels, the gravest first. */
#define RTE_LOG_EMERG 1U
#define RTE_LOG_ALERT 2U
#define RTE_LOG_CRIT 3U
#define RTE_LOG_ERR 4U
#define RTE_LOG_WARNING 5U
#define RTE_LOG_NOTICE 6U
#define RTE_LOG_INFO 7U
#define RTE_LOG_DEBUG 8U
#define RTE_LOG_MAX RTE_LOG_DEBUG

/* Where lines go from now on; NULL: stderr. Returns: 0. */
int rte_openlog_stream(FILE* f);
/* Where they go now. */
FILE* rte_log_get_stream(void);

void rte_log_set_global_level(uint32_t level);
uint32_t rte_log_get_global_level(void);

/* A type's level; -1 for a type that does not exist. */
int rte_log_get_level(uint32_t logtype);
/* Whether a line of this type and level would be written. */
bool rte_log_can_log(uint32_t logtype, uint32_t loglevel);

/* Set the level of one type, of those whose name fits a shell pattern ("lib.*"), or a regular expression (basic, case
 * ignored). The last two hold for types that are registered later, too.
 * Returns: 0, or -1 for a type that does not exist, a level above RTE_LOG_MAX, or a malformed expression. */
int rte_log_set_level(uint32_t logtype, uint32_t level);
int rte_log_set_level_pattern(const char* pattern, uint32_t level);
int rte_log_set_level_regexp(const char* regex, uint32_t level);

/* Inside a stream's own write function (fopencookie): level and type of the line that is written. */
int rte_log_cur_msg_loglevel(void);
int rte_log_cur_msg_logtype(void);

/* The type of that name, made where it is new, with level INFO or the one given; then what was set by pattern or
 * expression. Returns: the type; -ENOMEM where there are 1024 already; -EINVAL for NULL or more than 63 bytes. */
int rte_log_register(const char* name);
int rte_log_register_type_and_pick_level(const char* name, uint32_t level_def);

/* Writes the types' names, one a line, each with `prefix` before it. */
void rte_log_list_types(FILE* out, const char* prefix);
/* Writes all types with their levels. */
void rte_log_dump(FILE* f);

/* Writes a line. Returns: the bytes written, 0 where the level keeps it back, negative for a type that does not
 * exist or a stream that fails. */
int rte_log(uint32_t level, uint32_t logtype, const char* format, ...) __rte_cold __rte_format_printf(3, 4);
int rte_vlog(uint32_t level, uint32_t logtype, const char* format, va_list ap) __rte_format_printf(3, 0);

/* RTE_LOG(ERR, USER1, "no room for %d\n", n): the type's name is put before the line. */
#define RTE_LOG(l, t, ...) rte_log(RTE_LOG_##l, RTE_LOGTYPE_##t, #t ": " __VA_ARGS__)

/* The same, left out of the program where the level is above RTE_LOG_DP_LEVEL. */
#define RTE_LOG_DP(l, t, ...) \
  (void)((RTE_LOG_##l <= RTE_LOG_DP_LEVEL) ? rte_log(RTE_LOG_##l, RTE_LOGTYPE_##t, #t ": " __VA_ARGS__) : 0)

/* Defines the int variable `type`, and registers a log type for it before main(): RTE_LOG_REGISTER(t, my.name, INFO). */
#define RTE_LOG_REGISTER_IMPL(type, name, level)                        \
  int type;                                                             \
  RTE_INIT(__##type) {                                                  \
    type = rte_log_register_type_and_pick_level(name, RTE_LOG_##level); \
    if (type < 0) type = RTE_LOGTYPE_EAL;                               \
  }
#define RTE_LOG_REGISTER(type, name, level) RTE_LOG_REGISTER_IMPL(type, RTE_STR(name), level)
#define RTE_LOG_REGISTER_DEFAULT(type, level) \
  RTE_LOG_REGISTER_IMPL(type, RTE_STR(RTE_LOG_DEFAULT_LOGTYPE), level)
#define RTE_LOG_REGISTER_SUFFIX(type, suffix, level) \
  RTE_LOG_REGISTER_IMPL(type, RTE_STR(RTE_LOG_DEFAULT_LOGTYPE) "." RTE_STR(suffix), level)

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_DPDK_RTE_LOG_H */
