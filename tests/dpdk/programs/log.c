/* rte_log.h: where lines go, and which are written. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <rte_log.h>

#include "check.h"

RTE_LOG_REGISTER(own_type, test.own, WARNING)
#define RTE_LOG_DEFAULT_LOGTYPE test.library
RTE_LOG_REGISTER_DEFAULT(library_type, DEBUG);
RTE_LOG_REGISTER_SUFFIX(part_type, part, ERR);

static FILE* file;
static char text[65536];

/* What was written since the last call. */
static const char* written(void) {
  size_t length;
  fflush(file);
  rewind(file);
  length = fread(text, 1, sizeof text - 1, file);
  text[length] = '\0';
  rewind(file);
  if (ftruncate(fileno(file), 0) != 0) return "cannot truncate";
  return text;
}

static int through_va_list(const char* format, ...) __rte_format_printf(1, 2);
static int through_va_list(const char* format, ...) {
  va_list ap;
  int n;
  va_start(ap, format);
  n = rte_vlog(RTE_LOG_ERR, RTE_LOGTYPE_USER2, format, ap);
  va_end(ap);
  return n;
}

static int lines(void) {
  CHECK(RTE_LOG(ERR, USER1, "room for %d\n", 5) == 18);
  CHECK(strcmp(written(), "USER1: room for 5\n") == 0);
  CHECK(rte_log(RTE_LOG_INFO, RTE_LOGTYPE_EAL, "x") == 1 && strcmp(written(), "x") == 0);
  CHECK(through_va_list("%s!\n", "y") == 3 && strcmp(written(), "y!\n") == 0);
  CHECK(rte_log(RTE_LOG_ERR, 100000, "x") == -1 && rte_log(RTE_LOG_DEBUG + 1, RTE_LOGTYPE_EAL, "x") == 0);
  CHECK(RTE_LOG(DEBUG, USER1, "x\n") == 0); /* types are at INFO */
  RTE_LOG_DP(INFO, USER1, "fast\n");
  RTE_LOG_DP(DEBUG, USER1, "left out\n");
  CHECK(strcmp(written(), "USER1: fast\n") == 0);
  CHECK(rte_log_cur_msg_loglevel() == (int)RTE_LOG_INFO && rte_log_cur_msg_logtype() == RTE_LOGTYPE_USER1);
  return 0;
}

static int levels(void) {
  int type;
  CHECK(rte_log_get_global_level() == RTE_LOG_DEBUG &&
        rte_log_get_level(RTE_LOGTYPE_EAL) == (int)RTE_LOG_INFO);
  CHECK(rte_log_get_level(own_type) == (int)RTE_LOG_WARNING &&
        rte_log_get_level(library_type) == (int)RTE_LOG_DEBUG);
  CHECK(rte_log_get_level(part_type) == (int)RTE_LOG_ERR && rte_log_get_level(100000) == -1);
  CHECK(rte_log_register("test.own") == own_type && rte_log_register("test.library.part") == part_type);
  CHECK(rte_log_can_log(own_type, RTE_LOG_WARNING) && !rte_log_can_log(own_type, RTE_LOG_NOTICE));
  CHECK(!rte_log_can_log(100000, RTE_LOG_EMERG));

  CHECK(rte_log_set_level(own_type, RTE_LOG_DEBUG) == 0 && rte_log_can_log(own_type, RTE_LOG_DEBUG));
  CHECK(rte_log_set_level(own_type, RTE_LOG_MAX + 1) == -1 && rte_log_set_level(100000, RTE_LOG_ERR) == -1);
  rte_log_set_global_level(RTE_LOG_ERR);
  CHECK(!rte_log_can_log(own_type, RTE_LOG_WARNING) && rte_log_can_log(own_type, RTE_LOG_ERR));
  rte_log_set_global_level(RTE_LOG_DEBUG);

  CHECK(rte_log_set_level_pattern("test.library*", RTE_LOG_CRIT) == 0);
  CHECK(rte_log_get_level(library_type) == (int)RTE_LOG_CRIT &&
        rte_log_get_level(part_type) == (int)RTE_LOG_CRIT);
  CHECK(rte_log_get_level(own_type) == (int)RTE_LOG_DEBUG);
  type = rte_log_register("test.library.later");
  CHECK(type > part_type && rte_log_get_level(type) == (int)RTE_LOG_CRIT);
  CHECK(rte_log_set_level_regexp("^test\\.own$", RTE_LOG_ALERT) == 0 &&
        rte_log_get_level(own_type) == (int)RTE_LOG_ALERT);
  CHECK(rte_log_set_level_regexp("[", RTE_LOG_ALERT) == -1 && rte_log_set_level_pattern("*", 99) == -1);
  CHECK(rte_log_set_level_pattern(NULL, RTE_LOG_ERR) == -1);
  CHECK(rte_log_register_type_and_pick_level("test.default", RTE_LOG_NOTICE) >= RTE_LOGTYPE_FIRST_EXT_ID);
  CHECK(rte_log_register(NULL) < 0);
  return 0;
}

static int dumps(void) {
  char wanted[64];
  rte_log_dump(file);
  written();
  snprintf(wanted, sizeof wanted, "id %d: test.own, level is alert\n", own_type);
  CHECK(strstr(text, "global log level is debug\n") == text && strstr(text, wanted) != NULL);
  CHECK(strstr(text, "id 0: lib.eal, level is info\n") != NULL && strstr(text, "id 24: user1, ") != NULL);
  rte_log_list_types(file, "\t");
  written();
  CHECK(strstr(text, "\tlib.malloc\n") != NULL && strstr(text, "\ttest.own\n") != NULL);
  return 0;
}

int main(void) {
  CHECK(rte_log_get_stream() == stderr);
  file = tmpfile();
  CHECK(file != NULL && rte_openlog_stream(file) == 0 && rte_log_get_stream() == file);
  if (lines() || levels() || dumps()) return 1;
  CHECK(rte_openlog_stream(NULL) == 0 && rte_log_get_stream() == stderr);
  fclose(file);
  return 0;
}
