/* fork while another thread has values of more keys than the C library keeps beside a thread: none is lost, or fork fails. Ends with its
   errno value then. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

enum { kKeys = 48 };
static pthread_key_t keys[kKeys];
static pthread_barrier_t barrier;

static void* keep(void* arg) {
  for (uintptr_t i = 0; i < kKeys; ++i) CHECK(pthread_setspecific(keys[i], (void*)(i + 1)) == 0);
  pthread_barrier_wait(&barrier);
  pthread_barrier_wait(&barrier);
  for (uintptr_t i = 0; i < kKeys; ++i) CHECK(pthread_getspecific(keys[i]) == (void*)(i + 1));
  return arg;
}

int main(void) {
  CHECK(pthread_barrier_init(&barrier, NULL, 2) == 0);
  for (int i = 0; i < kKeys; ++i) CHECK(pthread_key_create(&keys[i], NULL) == 0);
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, keep, NULL) == 0);
  pthread_barrier_wait(&barrier);
  const pid_t pid = fork();
  const int failed = pid < 0 ? errno : 0;
  if (pid == 0) _exit(0);
  int status = 0;
  if (pid > 0) CHECK(waitpid(pid, &status, 0) == pid && status == 0);
  pthread_barrier_wait(&barrier);
  CHECK(pthread_join(thread, NULL) == 0);
  if (failed != 0) return failed;
  puts("fork_keys: passed");
  return 0;
}
