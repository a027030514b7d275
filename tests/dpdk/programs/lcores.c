/* rte_lcore.h and rte_launch.h: six lcores on the processors that the process may use, and threads that register. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <rte_atomic.h>
#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_per_lcore.h>

#include "check.h"

#define WORKERS 4 /* 2, 3, 4 and 6; 1 is the main lcore, 5 is set aside */

static RTE_DEFINE_PER_LCORE(int, own) = 3;
static unsigned cpu; /* all lcores are on it */
static int go;       /* atomic */
static rte_atomic32_t ran;
static pthread_t ran_on[RTE_MAX_LCORE];
static int was_pinned[RTE_MAX_LCORE];
static unsigned long long written; /* by workers, without atomics: launch and wait order it */

static int work(void* arg) {
  unsigned id = rte_lcore_id();
  cpu_set_t set;
  RTE_PER_LCORE(own) += (int)id;
  ran_on[id] = pthread_self();
  CPU_ZERO(&set);
  if (pthread_getaffinity_np(pthread_self(), sizeof set, &set) == 0) {
    was_pinned[id] = CPU_COUNT(&set) == 1 && CPU_ISSET(cpu, &set);
  }
  rte_atomic32_inc(&ran);
  return RTE_PER_LCORE(own) + *(int*)arg;
}

static int wait_for_go(void* arg) {
  (void)arg;
  while (!__atomic_load_n(&go, __ATOMIC_ACQUIRE)) sched_yield();
  return -77;
}

static int add_one(void* arg) {
  (void)arg;
  written++;
  return (int)written;
}

static int asking(void) {
  unsigned id, n = 0;
  rte_cpuset_t set;
  CHECK(rte_lcore_id() == 1 && rte_get_main_lcore() == 1 && rte_lcore_count() == WORKERS + 1);
  CHECK(rte_lcore_index(-1) == 0 && rte_lcore_index(2) == 1 && rte_lcore_index(6) == 4);
  CHECK(rte_lcore_index(5) == -1 && rte_lcore_index(0) == -1 && rte_lcore_index(RTE_MAX_LCORE) == -1);
  CHECK(rte_eal_lcore_role(1) == ROLE_RTE && rte_eal_lcore_role(5) == ROLE_SERVICE);
  CHECK(rte_eal_lcore_role(0) == ROLE_OFF && rte_eal_lcore_role(RTE_MAX_LCORE) == ROLE_OFF);
  CHECK(rte_lcore_has_role(5, ROLE_SERVICE) == 1 && rte_lcore_has_role(5, ROLE_RTE) == 0);
  CHECK(rte_lcore_has_role(RTE_MAX_LCORE, ROLE_OFF) == 0);
  CHECK(rte_lcore_is_enabled(2) && !rte_lcore_is_enabled(5) && !rte_lcore_is_enabled(RTE_MAX_LCORE));
  RTE_LCORE_FOREACH(id) n += id;
  CHECK(n == 1 + 2 + 3 + 4 + 6);
  n = 0;
  RTE_LCORE_FOREACH_WORKER(id) n += id;
  CHECK(n == 2 + 3 + 4 + 6);
  CHECK(rte_get_next_lcore(6, 0, 0) == RTE_MAX_LCORE && rte_get_next_lcore(6, 0, 1) == 1);
  CHECK(rte_get_next_lcore(6, 1, 1) == 2 && rte_get_next_lcore(4, 0, 0) == 6);
  set = rte_lcore_cpuset(3);
  CHECK(CPU_COUNT(&set) == 1 && CPU_ISSET(cpu, &set));
  set = rte_lcore_cpuset(0);
  CHECK(CPU_COUNT(&set) == 0);
  CHECK(rte_lcore_to_cpu_id(-1) >= 0 && rte_lcore_to_cpu_id(2) == rte_lcore_to_cpu_id(-1));
  CHECK(rte_lcore_to_cpu_id(RTE_MAX_LCORE) == -EINVAL);
  return 0;
}

static int sockets(void) {
  unsigned i, count = rte_socket_count();
  int previous = -1;
  CHECK(count >= 1);
  for (i = 0; i < count; i++) {
    int id = rte_socket_id_by_idx(i);
    CHECK(id > previous && rte_socket_idx_by_id((unsigned)id) == (int)i);
    previous = id;
  }
  rte_errno = 0;
  CHECK(rte_socket_id_by_idx(count) == -1 && rte_errno == EINVAL);
  rte_errno = 0;
  CHECK(rte_socket_idx_by_id(100000) == -1 && rte_errno == EINVAL);
  CHECK(rte_socket_idx_by_id(rte_socket_id()) >= 0 && rte_lcore_to_socket_id(1) == rte_socket_id());
  CHECK(rte_lcore_to_socket_id(6) == rte_socket_id());
  return 0;
}

static int launching(void) {
  int offset = 1000, round;
  unsigned id;
  RTE_LCORE_FOREACH_WORKER(id) {
    CHECK(rte_eal_get_lcore_state(id) == WAIT && rte_eal_wait_lcore(id) == 0);
    CHECK(rte_eal_remote_launch(work, &offset, id) == 0);
    CHECK(rte_eal_wait_lcore(id) == (int)(1003 + id) && rte_eal_get_lcore_state(id) == WAIT);
    CHECK(was_pinned[id] && !pthread_equal(ran_on[id], pthread_self()));
    CHECK(rte_eal_wait_lcore(id) == (int)(1003 + id)); /* the result stays */
  }
  CHECK(rte_atomic32_read(&ran) == WORKERS);
  CHECK(!pthread_equal(ran_on[2], ran_on[3]));

  CHECK(rte_eal_remote_launch(work, &offset, 1) == -EINVAL);             /* the main lcore */
  CHECK(rte_eal_remote_launch(work, &offset, 5) == -EINVAL);             /* set aside */
  CHECK(rte_eal_remote_launch(work, &offset, 0) == -EINVAL);             /* off */
  CHECK(rte_eal_remote_launch(work, &offset, RTE_MAX_LCORE) == -EINVAL); /* no id */
  CHECK(rte_eal_remote_launch(NULL, &offset, 2) == -EINVAL);
  CHECK(rte_eal_wait_lcore(RTE_MAX_LCORE) == -EINVAL &&
        rte_eal_mp_remote_launch(NULL, NULL, SKIP_MAIN) == -EINVAL);

  CHECK(rte_eal_remote_launch(wait_for_go, NULL, 3) == 0);
  CHECK(rte_eal_get_lcore_state(3) == RUNNING && rte_eal_remote_launch(work, &offset, 3) == -EBUSY);
  CHECK(rte_eal_mp_remote_launch(work, &offset, CALL_MAIN) == -EBUSY);
  CHECK(rte_atomic32_read(&ran) == WORKERS); /* and none was started */
  __atomic_store_n(&go, 1, __ATOMIC_RELEASE);
  CHECK(rte_eal_wait_lcore(3) == -77);

  offset = 0;
  CHECK(rte_eal_mp_remote_launch(work, &offset, SKIP_MAIN) == 0);
  rte_eal_mp_wait_lcore();
  CHECK(rte_atomic32_read(&ran) == 2 * WORKERS && rte_eal_wait_lcore(4) == 3 + 4 + 4);
  CHECK(rte_eal_mp_remote_launch(work, &offset, CALL_MAIN) == 0);
  rte_eal_mp_wait_lcore();
  CHECK(rte_atomic32_read(&ran) == 3 * WORKERS + 1 && pthread_equal(ran_on[1], pthread_self()));
  CHECK(rte_eal_wait_lcore(1) == 3 + 1);

  for (round = 1; round <= 2000; round++) {
    id = rte_get_next_lcore((unsigned)round % 8, 1, 1);
    CHECK(rte_eal_remote_launch(add_one, NULL, id) == 0);
    CHECK(rte_eal_wait_lcore(id) == round);
  }
  return 0;
}

static unsigned long long told_init, told_uninit; /* bits: which lcores */
static int refuse = -1;
static int on_init(unsigned id, void* arg) {
  if (arg != &told_init || (int)id == refuse) return -1;
  told_init |= 1ULL << id;
  return 0;
}
static void on_uninit(unsigned id, void* arg) {
  (void)arg;
  told_uninit |= 1ULL << id;
}
static int count_lcores(unsigned id, void* arg) {
  *(int*)arg += 1;
  return id == 4 ? 44 : 0;
}
static int count_all(unsigned id, void* arg) {
  (void)id;
  *(int*)arg += 1;
  return 0;
}

static int registered_result = 1;
static unsigned registered_id;
static void* registers(void* arg) {
  int refused = *(int*)arg;
  if (rte_lcore_id() != LCORE_ID_ANY || (int)rte_socket_id() != -1) return NULL;
  if (refused) {
    refuse = 0;
    registered_result =
        !(rte_thread_register() == -1 && rte_errno == ENOMEM && rte_lcore_id() == LCORE_ID_ANY);
    refuse = -1;
    return NULL;
  }
  if (rte_thread_register() != 0) return NULL;
  registered_id = rte_lcore_id();
  if (rte_eal_lcore_role(registered_id) != ROLE_NON_EAL || rte_lcore_count() != WORKERS + 2) return NULL;
  if (rte_thread_register() != 0 || rte_lcore_id() != registered_id) return NULL;
  if (rte_lcore_index((int)registered_id) != -1 || rte_lcore_is_enabled(registered_id)) return NULL;
  rte_thread_unregister();
  rte_thread_unregister();
  if (rte_lcore_id() != LCORE_ID_ANY || rte_eal_lcore_role(registered_id) != ROLE_OFF) return NULL;
  if (rte_lcore_count() != WORKERS + 1) return NULL;
  registered_result = 0;
  return NULL;
}

static int callbacks(void) {
  const unsigned long long all = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6;
  int refused = 0, n = 0;
  void* handle;
  pthread_t thread;
  CHECK(rte_lcore_iterate(count_lcores, &n) == 44 && n == 4);
  n = 0;
  CHECK(rte_lcore_iterate(count_all, &n) == 0 && n == 6);

  refuse = 4;
  CHECK(rte_lcore_callback_register("refuses", on_init, on_uninit, &told_init) == NULL && rte_errno == EPERM);
  CHECK(told_init == (1 << 1 | 1 << 2 | 1 << 3) && told_uninit == told_init);
  refuse = -1;
  told_init = told_uninit = 0;
  handle = rte_lcore_callback_register("test", on_init, on_uninit, &told_init);
  CHECK(handle != NULL && told_init == all && told_uninit == 0);

  CHECK(pthread_create(&thread, NULL, registers, &refused) == 0 && pthread_join(thread, NULL) == 0);
  CHECK(registered_result == 0 && told_init == (all | 1ULL << registered_id));
  CHECK(told_uninit == 1ULL << registered_id);
  refused = registered_result = 1;
  CHECK(pthread_create(&thread, NULL, registers, &refused) == 0 && pthread_join(thread, NULL) == 0);
  CHECK(registered_result == 0 && rte_lcore_count() == WORKERS + 1);

  told_uninit = 0;
  rte_lcore_callback_unregister(handle);
  CHECK(told_uninit == all);
  told_uninit = 0;
  rte_lcore_callback_unregister(handle); /* no callback any more: nothing */
  rte_lcore_callback_unregister(NULL);
  CHECK(told_uninit == 0);
  CHECK(rte_lcore_callback_register("no functions", NULL, NULL, NULL) !=
        NULL); /* freed by rte_eal_cleanup() */
  return 0;
}

static int dumping(void) {
  char text[4096], line[128];
  FILE* f = tmpfile();
  size_t length;
  CHECK(f != NULL);
  rte_lcore_dump(f);
  rewind(f);
  length = fread(text, 1, sizeof text - 1, f);
  text[length] = '\0';
  fclose(f);
  snprintf(line, sizeof line, "lcore 5, socket %d, role SERVICE, cpuset %u\n", (int)rte_socket_id(), cpu);
  CHECK(strstr(text, line) != NULL && strstr(text, "lcore 1, ") == text);
  return 0;
}

static int affinity(void) {
  rte_cpuset_t before, set;
  CPU_ZERO(&set);
  rte_thread_get_affinity(&before);
  CHECK(CPU_COUNT(&before) == 1 && CPU_ISSET(cpu, &before));
  CHECK(rte_thread_set_affinity(&set) == -1); /* no processor */
  CHECK(rte_thread_set_affinity(&before) == 0);
  set = rte_lcore_cpuset(1);
  CHECK(CPU_EQUAL(&set, &before));
  return 0;
}

int main(int argc, char** argv) {
  char name[] = "lcores", lcores[64], huge[] = "--no-huge", memory[] = "--in-memory", map[] = "--lcores",
       main_lcore[] = "--main-lcore=1", services[] = "-S5";
  char* options[] = {name, huge, memory, map, lcores, main_lcore, services, NULL};
  cpu_set_t usable, now;
  CPU_ZERO(&usable);
  CPU_ZERO(&now);
  (void)argc;
  (void)argv;
  CHECK(sched_getaffinity(0, sizeof usable, &usable) == 0);
  while (!CPU_ISSET(cpu, &usable)) cpu++;
  snprintf(lcores, sizeof lcores, "(1-4)@%u,(5,6)@%u", cpu, cpu);
  CHECK(rte_eal_init(7, options) == 6);
  if (asking() || sockets() || launching() || callbacks() || dumping() || affinity()) return 1;
  __atomic_store_n(&go, 0, __ATOMIC_RELEASE);
  CHECK(rte_eal_remote_launch(wait_for_go, NULL, 6) == 0);
  CHECK(rte_eal_cleanup() == -1 && rte_errno == EBUSY && rte_lcore_count() == WORKERS + 1);
  __atomic_store_n(&go, 1, __ATOMIC_RELEASE);
  CHECK(rte_eal_wait_lcore(6) == -77);
  CHECK(rte_eal_cleanup() == 0);
  CHECK(rte_lcore_id() == LCORE_ID_ANY && rte_lcore_count() == 0);
  CHECK(rte_eal_remote_launch(add_one, NULL, 2) == -EINVAL);
  CHECK(sched_getaffinity(0, sizeof now, &now) == 0 && CPU_EQUAL(&now, &usable));
  return 0;
}
