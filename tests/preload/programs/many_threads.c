/* 5000 threads at once, each with an allocation of its own. Exit code 77: the system does not allow that many. */
#define _GNU_SOURCE
#include <pthread.h>

#include "check.h"

enum { kThreads = 5000 };

static pthread_barrier_t all;

static void* work(void* arg) {
  void* p = malloc(100);
  HIDE(p);
  if (p == NULL) *(int*)arg = 1;
  pthread_barrier_wait(&all);
  free(p);
  return NULL;
}

int main(void) {
  static pthread_t threads[kThreads];
  static int failed[kThreads];
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 65536);
  pthread_barrier_init(&all, NULL, kThreads);
  for (int i = 0; i < kThreads; ++i) {
    if (pthread_create(&threads[i], &attributes, work, &failed[i]) != 0) _exit(77);
  }
  for (int i = 0; i < kThreads; ++i) {
    pthread_join(threads[i], NULL);
    CHECK(!failed[i]);
  }
  puts("many_threads: passed");
  return 0;
}
