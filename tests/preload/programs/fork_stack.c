/* fork on a stack that malloc gave: the child has a copy of it, or fork fails. Ends with its errno value then. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "check.h"

static ucontext_t outside, inside;
static int failed;

static void run(void) {
  volatile int here = 1;
  const pid_t pid = fork();
  if (pid < 0) {
    failed = errno;
    return;
  }
  if (pid == 0) {
    here = 2;
    _exit(here == 2 ? 0 : 1);
  }
  int status;
  CHECK(waitpid(pid, &status, 0) == pid && status == 0 && here == 1);
}

int main(void) {
  enum { kStack = 1 << 18 };
  CHECK(getcontext(&inside) == 0);
  inside.uc_stack.ss_sp = malloc(kStack);
  inside.uc_stack.ss_size = kStack;
  inside.uc_link = &outside;
  CHECK(inside.uc_stack.ss_sp != NULL);
  makecontext(&inside, run, 0);
  CHECK(swapcontext(&outside, &inside) == 0);
  if (failed != 0) return failed;
  puts("fork_stack: passed");
  return 0;
}
