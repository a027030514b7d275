/* fork from a process whose other threads allocate all the time: the child has a copy of everything, as it was, and neither
   sees what the other does afterwards. vfork and exec; a child that forks again. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>

#include "check.h"

enum { kObjects = 2000, kThreads = 3 };
static unsigned char* objects[kObjects];
static size_t sizes[kObjects];
static atomic_int stop;

static void* churn(void* arg) {
  uint64_t state = (uint64_t)(uintptr_t)arg + 12345;
  void* live[64] = {0};
  while (!atomic_load(&stop)) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    void** slot = &live[state >> 58];
    free(*slot);
    *slot = malloc((state >> 30) % 3000);
  }
  for (int i = 0; i < 64; ++i) free(live[i]);
  return NULL;
}

static void check_copy(unsigned char mark) {
  for (int i = 0; i < kObjects; ++i) {
    for (size_t b = 0; b < sizes[i]; ++b) CHECK(objects[i][b] == (unsigned char)(mark + i));
  }
}

static void child(unsigned char mark, int depth) {
  check_copy(mark);
  for (int i = 0; i < kObjects; ++i) { /* changes that the parent must not see */
    objects[i] = realloc(objects[i], sizes[i] + 500);
    CHECK(objects[i] != NULL);
    memset(objects[i], 0xee, sizes[i] + 500);
  }
  for (int i = 0; i < 20000; ++i) free(malloc((size_t)(i * 37 % 5000)));
  for (int i = 0; i < kObjects; ++i) free(objects[i]);
  if (depth > 0) {
    const pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
      for (int i = 0; i < 1000; ++i) free(malloc((size_t)i));
      _exit(0);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
  }
  exit(0); /* with everything that runs at exit */
}

int main(int argc, char** argv) {
  const int forks = argc > 1 ? atoi(argv[1]) : 60;
  for (int i = 0; i < kObjects; ++i) {
    sizes[i] = (size_t)(i * 7919 % 4000) + 1;
    objects[i] = malloc(sizes[i]);
    CHECK(objects[i] != NULL);
  }
  pthread_t threads[kThreads];
  for (uintptr_t t = 0; t < kThreads; ++t) CHECK(pthread_create(&threads[t], NULL, churn, (void*)t) == 0);
  for (int round = 0; round < forks; ++round) {
    const unsigned char mark = (unsigned char)(round * 3);
    for (int i = 0; i < kObjects; ++i) memset(objects[i], mark + i, sizes[i]);
    fflush(stdout);
    const pid_t pid = round % 10 == 9 ? vfork() : fork();
    CHECK(pid >= 0);
    if (pid == 0) {
      if (round % 10 == 9) {
        execlp("true", "true", (char*)NULL);
        _exit(1);
      }
      child(mark, round % 4 == 0);
    }
    for (int i = 0; i < kObjects; ++i) memset(objects[i], 0x11, sizes[i]); /* the child must not see this */
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(status == 0);
    for (int i = 0; i < kObjects; ++i) CHECK(objects[i][0] == 0x11);
  }
  atomic_store(&stop, 1);
  for (int t = 0; t < kThreads; ++t) CHECK(pthread_join(threads[t], NULL) == 0);
  puts("fork: passed");
  return 0;
}
