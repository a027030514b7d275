/* Processes that end without rte_eal_cleanup(), while their workers allocate or not, and children of fork. */
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_malloc.h>

#include "check.h"

static int allocate_for_ever(void* arg) {
  for (;;) {
    void* p = rte_malloc("for ever", 100, 0);
    if (p == NULL && arg != NULL) return 1;
    rte_free(p);
  }
  return 0;
}

static int init(const char* sharing) {
  char name[] = "exits", huge[] = "--no-huge", map[] = "--lcores", lcores[64], word[32];
  char* options[] = {name, huge, map, lcores, word, NULL};
  unsigned cpu = 0;
  rte_cpuset_t usable;
  rte_thread_get_affinity(&usable);
  /* Without _GNU_SOURCE there are no macros for sets. */
  while (!((const unsigned char*)&usable)[cpu / 8] ||
         !(((const unsigned char*)&usable)[cpu / 8] >> cpu % 8 & 1))
    cpu++;
  snprintf(lcores, sizeof lcores, "(0-2)@%u", cpu);
  snprintf(word, sizeof word, "%s", sharing);
  return rte_eal_init(5, options);
}

enum way { EXIT_WHILE_WORKERS_ALLOCATE, EXIT_WITH_IDLE_WORKERS, CLEAN_UP_IN_A_CHILD };

static int child(enum way way, const char* sharing) {
  int status;
  pid_t grandchild;
  if (init(sharing) < 0 || rte_malloc("kept", 1000, 0) == NULL) return 1;
  switch (way) {
    case EXIT_WHILE_WORKERS_ALLOCATE:
      if (rte_eal_mp_remote_launch(allocate_for_ever, NULL, SKIP_MAIN) != 0) return 1;
      rte_delay_us_sleep(5000);
      return 0;
    case EXIT_WITH_IDLE_WORKERS:
      return 0;
    default:
      grandchild = fork();
      if (grandchild == 0) _exit(rte_eal_cleanup() == 0 && rte_lcore_count() == 0 ? 5 : 6);
      if (waitpid(grandchild, &status, 0) != grandchild || !WIFEXITED(status) || WEXITSTATUS(status) != 5)
        return 1;
      return rte_malloc("still there", 1000, 0) != NULL && rte_eal_cleanup() == 0 ? 0 : 1;
  }
}

int main(void) {
  static const char* const sharing[] = {"--in-memory", "--file-prefix=exits"};
  char folder[256];
  int way, i, status, round;
  snprintf(folder, sizeof folder, "%s/dpdk-exits", getenv("EXTMEM_RUNTIME_DIR"));
  for (way = EXIT_WHILE_WORKERS_ALLOCATE; way <= CLEAN_UP_IN_A_CHILD; way++) {
    for (i = 0; i < 2; i++) {
      for (round = 0; round < 3; round++) {
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) exit(child((enum way)way, sharing[i]));
        CHECK(waitpid(pid, &status, 0) == pid);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
          printf("way %d, %s: status %x\n", way, sharing[i], status);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        /* Nothing that was shared is left behind, except by a process that could not clean up. */
        if (way != EXIT_WHILE_WORKERS_ALLOCATE && i == 1) CHECK(access(folder, F_OK) != 0);
      }
    }
  }
  return 0;
}
