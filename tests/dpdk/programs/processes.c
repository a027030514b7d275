/* Primary and secondary processes of one file prefix: who may be what, and what becomes of a name when its holder is
 * killed. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <rte_eal.h>
#include <rte_errno.h>

#include "check.h"

/* A child that starts with these options, says on a pipe how that went, and lives until it is told to end. */
struct child {
  pid_t pid;
  int said, tell;
};

struct answer {
  int result, error;
  enum rte_proc_type_t type;
  int alive;
};

static int start(struct child* child, const char* prefix, const char* type, struct answer* answer) {
  int said[2], tell[2];
  CHECK(pipe(said) == 0 && pipe(tell) == 0);
  child->pid = fork();
  CHECK(child->pid >= 0);
  if (child->pid == 0) {
    char name[] = "child", huge[] = "--no-huge", first[64], second[64], byte;
    char* options[] = {name, huge, first, second, NULL};
    snprintf(first, sizeof first, "--file-prefix=%s", prefix);
    snprintf(second, sizeof second, "--proc-type=%s", type);
    rte_errno = 0;
    answer->result = rte_eal_init(4, options);
    answer->error = answer->result < 0 ? rte_errno : 0;
    answer->type = rte_eal_process_type();
    answer->alive = rte_eal_primary_proc_alive(NULL);
    if (answer->alive != rte_eal_primary_proc_alive(NULL)) _exit(2); /* asking changes nothing */
    if (write(said[1], answer, sizeof *answer) != (ssize_t)sizeof *answer) _exit(2);
    if (read(tell[0], &byte, 1) != 1) _exit(2);
    _exit(answer->result < 0 ? 1 : rte_eal_cleanup());
  }
  close(said[1]);
  close(tell[0]);
  child->said = said[0];
  child->tell = tell[1];
  CHECK(read(child->said, answer, sizeof *answer) == (ssize_t)sizeof *answer);
  return 0;
}

static int end(struct child* child, int status_wanted) {
  int status;
  CHECK(write(child->tell, "x", 1) == 1);
  CHECK(waitpid(child->pid, &status, 0) == child->pid && WIFEXITED(status) &&
        WEXITSTATUS(status) == status_wanted);
  close(child->said);
  close(child->tell);
  return 0;
}

int main(void) {
  struct child primary, secondary, other;
  struct answer answer;
  int status;

  /* A secondary process needs somebody who was there before. */
  if (start(&secondary, "first", "secondary", &answer)) return 1;
  CHECK(answer.result == -1 && answer.error == ENOENT);
  if (end(&secondary, 1)) return 1;

  if (start(&primary, "first", "primary", &answer)) return 1;
  CHECK(answer.result == 3 && answer.type == RTE_PROC_PRIMARY && answer.alive == 1);
  if (start(&other, "first", "primary", &answer)) return 1;
  CHECK(answer.result == -1 && answer.error == EBUSY && answer.alive == 1);
  if (end(&other, 1)) return 1;
  if (start(&secondary, "first", "secondary", &answer)) return 1;
  CHECK(answer.result == 3 && answer.type == RTE_PROC_SECONDARY && answer.alive == 1);
  if (start(&other, "first", "auto", &answer)) return 1;
  CHECK(answer.result == 3 && answer.type == RTE_PROC_SECONDARY);
  if (end(&other, 0)) return 1;
  /* Another prefix is another world. */
  if (start(&other, "second", "auto", &answer)) return 1;
  CHECK(answer.result == 3 && answer.type == RTE_PROC_PRIMARY && answer.alive == 1);
  if (end(&other, 0)) return 1;

  /* The primary one is killed: a secondary one goes on, and somebody else can become primary. */
  CHECK(kill(primary.pid, SIGKILL) == 0 && waitpid(primary.pid, &status, 0) == primary.pid);
  close(primary.said);
  close(primary.tell);
  if (start(&other, "first", "secondary", &answer)) return 1;
  CHECK(answer.result == 3 && answer.alive == 0);
  if (end(&other, 0)) return 1;
  if (start(&primary, "first", "auto", &answer)) return 1;
  CHECK(answer.result == 3 && answer.type == RTE_PROC_PRIMARY && answer.alive == 1);
  if (end(&secondary, 0) || end(&primary, 0)) return 1;
  return 0;
}
