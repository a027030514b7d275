/* fork while other threads write to a stream that fopen allocated: the C library resets the stream's lock in the child, and the
   parent's must not be reset with it. The child can use the stream. A lock and what it protects are as they were at the fork. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

enum { kThreads = 3, kForks = 12, kNumbers = 20000 };
static FILE* stream;
static atomic_int stop;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long* numbers; /* all equal whenever the lock is free */

static void* write_lines(void* arg) {
  (void)arg;
  while (!atomic_load(&stop)) {
    flockfile(stream);
    const long before = ftell(stream);
    fputs("a line of some length\n", stream);
    CHECK(ftell(stream) == before + 22); /* nobody else wrote */
    if (before > 1000000) rewind(stream);
    funlockfile(stream);
  }
  return NULL;
}

static void* count(void* arg) {
  (void)arg;
  while (!atomic_load(&stop)) {
    pthread_mutex_lock(&lock);
    for (int i = 0; i < kNumbers; ++i) ++numbers[i];
    pthread_mutex_unlock(&lock);
  }
  return NULL;
}

static void take(void) { pthread_mutex_lock(&lock); }
static void give(void) { pthread_mutex_unlock(&lock); }

int main(void) {
  alarm(120);
  stream = tmpfile();
  CHECK(stream != NULL);
  numbers = calloc(kNumbers, sizeof *numbers);
  CHECK(numbers != NULL);
  CHECK(pthread_atfork(take, give, give) == 0);
  pthread_t threads[kThreads + 1];
  for (int t = 0; t < kThreads; ++t) CHECK(pthread_create(&threads[t], NULL, write_lines, NULL) == 0);
  CHECK(pthread_create(&threads[kThreads], NULL, count, NULL) == 0);
  for (int i = 0; i < kForks; ++i) {
    const pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
      for (int k = 1; k < kNumbers; ++k) CHECK(numbers[k] == numbers[0]);
      flockfile(stream);
      funlockfile(stream);
      FILE* own = fopen("/dev/null", "w");
      CHECK(own != NULL && fputs("x", own) >= 0 && fclose(own) == 0);
      _exit(0);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
  }
  atomic_store(&stop, 1);
  for (int t = 0; t <= kThreads; ++t) CHECK(pthread_join(threads[t], NULL) == 0);
  CHECK(fclose(stream) == 0);
  puts("fork_streams: passed");
  return 0;
}
