/* A process that is pinned to one processor, as whatever a pinned lcore starts is: it begins with one lcore, but may name the
 * others. It was run against DPDK 22.11 too. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <sched.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <rte_eal.h>
#include <rte_launch.h>
#include <rte_lcore.h>

#include "check.h"

static unsigned first, last; /* the processors that this process may use */

static int runs_on(void* arg) {
  cpu_set_t now;
  CPU_ZERO(&now);
  return sched_getaffinity(0, sizeof now, &now) == 0 && CPU_COUNT(&now) == 1 &&
         CPU_ISSET(*(unsigned*)arg, &now);
}

static int pinned_to_first(void) { return runs_on(&first); }

/* What a started program sees. */
static int started(char* list) {
  char name[] = "pinned", huge[] = "--no-huge", memory[] = "--no-shconf", amount[] = "-m16", lcores[] = "-l";
  char* options[] = {name, huge, memory, amount, lcores, list, NULL};
  CHECK(pinned_to_first());
  CHECK(rte_eal_init(list == NULL ? 4 : 6, options) >= 0);
  if (list == NULL) {
    CHECK(rte_lcore_count() == 1 && rte_get_main_lcore() == first && pinned_to_first());
  } else {
    CHECK(rte_lcore_count() == 2 && pinned_to_first());
    CHECK(rte_eal_remote_launch(runs_on, &last, last) == 0 && rte_eal_wait_lcore(last) == 1);
  }
  CHECK(rte_eal_cleanup() == 0);
  CHECK(pinned_to_first());
  return 0;
}

static int in_a_process(char* list) {
  int status = 1;
  const pid_t child = fork();
  if (child == 0) _exit(started(list));
  CHECK(child > 0 && waitpid(child, &status, 0) == child);
  return status != 0;
}

int main(void) {
  cpu_set_t usable, one;
  char list[32];
  CPU_ZERO(&usable);
  CPU_ZERO(&one);
  CHECK(sched_getaffinity(0, sizeof usable, &usable) == 0);
  while (!CPU_ISSET(first, &usable)) first++;
  for (last = RTE_MAX_LCORE - 1; last > first && !CPU_ISSET(last, &usable);) last--;
  if (first >= last) {
    printf("this machine has one processor\n");
    return 77;
  }
  CPU_SET(first, &one);
  CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
  snprintf(list, sizeof list, "%u,%u", first, last);
  return in_a_process(NULL) || in_a_process(list);
}
