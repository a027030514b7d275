/* rte_thread.h, and the threads of rte_lcore.h that are no lcores. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_thread.h>

#include "check.h"

static rte_thread_key key;
static int destroyed;
static void destroy(void* value) { destroyed += *(int*)value; }

static uint32_t body(void* arg) {
  static int value = 5;
  if (rte_thread_value_get(key) != NULL || rte_thread_value_set(key, &value) != 0) return 1;
  if (rte_thread_value_get(key) != &value) return 2;
  *(rte_thread_t*)arg = rte_thread_self();
  return UINT32_MAX;
}

static int threads(void) {
  rte_thread_t thread, self;
  rte_thread_attr_t attr;
  rte_cpuset_t all, set;
  enum rte_thread_priority priority;
  uint32_t result = 0;
  unsigned cpu = 0;
  destroyed = 0;
  CHECK(rte_thread_key_create(&key, destroy) == 0);
  CHECK(rte_thread_create(&thread, NULL, body, &self) == 0 && rte_thread_join(thread, &result) == 0);
  CHECK(result == UINT32_MAX && rte_thread_equal(thread, self) == 1 && destroyed == 5);
  CHECK(rte_thread_equal(thread, rte_thread_self()) == 0);

  CHECK(rte_thread_attr_init(&attr) == 0 && attr.priority == RTE_THREAD_PRIORITY_NORMAL);
  CPU_ZERO(&all);
  CHECK(rte_thread_get_affinity_by_id(rte_thread_self(), &all) == 0 && CPU_COUNT(&all) > 0);
  while (!CPU_ISSET(cpu, &all)) cpu++;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  CHECK(rte_thread_attr_set_affinity(&attr, &set) == 0);
  CPU_ZERO(&set);
  CHECK(rte_thread_attr_get_affinity(&attr, &set) == 0 && CPU_COUNT(&set) == 1 && CPU_ISSET(cpu, &set));
  CHECK(rte_thread_create(&thread, &attr, body, &self) == 0 && rte_thread_join(thread, NULL) == 0 &&
        destroyed == 10);
  CHECK(rte_thread_attr_set_priority(&attr, RTE_THREAD_PRIORITY_REALTIME_CRITICAL) == 0);
  CHECK(rte_thread_create(&thread, &attr, body, &self) == ENOTSUP);
  CHECK(rte_thread_get_priority(rte_thread_self(), &priority) == 0 && priority == RTE_THREAD_PRIORITY_NORMAL);
  CHECK(rte_thread_set_priority(rte_thread_self(), RTE_THREAD_PRIORITY_NORMAL) == 0);
  CHECK(rte_thread_set_priority(rte_thread_self(), RTE_THREAD_PRIORITY_REALTIME_CRITICAL) == ENOTSUP);
  CHECK(rte_thread_set_affinity_by_id(rte_thread_self(), &all) == 0);

  CHECK(rte_thread_create(NULL, NULL, body, &self) == EINVAL &&
        rte_thread_create(&thread, NULL, NULL, NULL) == EINVAL);
  CHECK(rte_thread_attr_init(NULL) == EINVAL && rte_thread_attr_set_affinity(&attr, NULL) == EINVAL);
  CHECK(rte_thread_attr_get_affinity(NULL, &set) == EINVAL &&
        rte_thread_get_priority(rte_thread_self(), NULL) == EINVAL);
  CHECK(rte_thread_key_create(NULL, NULL) == -1 && rte_errno == EINVAL);
  CHECK(rte_thread_value_set(NULL, &key) == -1 && rte_errno == EINVAL);
  rte_errno = 0;
  CHECK(rte_thread_value_get(NULL) == NULL && rte_errno == EINVAL);
  CHECK(rte_thread_key_delete(key) == 0 && rte_thread_key_delete(NULL) == -1);
  return 0;
}

static char seen_name[32];
static unsigned seen_lcore;
static pthread_barrier_t named;
static void* control(void* arg) {
  pthread_barrier_wait(&named);
  if (rte_thread_getname(pthread_self(), seen_name, sizeof seen_name) != 0) return NULL;
  seen_lcore = rte_lcore_id();
  return arg;
}

static int control_threads(void) {
  pthread_t thread;
  void* result = NULL;
  int value;
  CHECK(pthread_barrier_init(&named, NULL, 2) == 0);
  CHECK(rte_ctrl_thread_create(&thread, "a-name-that-is-too-long", NULL, control, &value) == 0);
  pthread_barrier_wait(&named); /* the name is given before the function returns */
  CHECK(pthread_join(thread, &result) == 0 && result == &value);
  CHECK(strcmp(seen_name, "a-name-that-is-") == 0 && seen_lcore == LCORE_ID_ANY);
  CHECK(rte_ctrl_thread_create(&thread, "x", NULL, NULL, NULL) == -EINVAL);
  CHECK(rte_ctrl_thread_create(NULL, "x", NULL, control, NULL) == -EINVAL);
  CHECK(rte_thread_setname(pthread_self(), NULL) == -EINVAL &&
        rte_thread_setname(pthread_self(), "main") == 0);
  return 0;
}

int main(int argc, char** argv) {
  if (threads() || control_threads()) return 1;
  CHECK(rte_eal_init(argc, argv) >= 0);
  if (threads() || control_threads()) return 1;
  return rte_eal_cleanup();
}
