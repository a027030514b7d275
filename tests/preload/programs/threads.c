/* Threads: frees of others' memory, many short threads, allocation in destructors of thread-local data, pthread_exit,
   signals in between, and a library that comes and goes. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/time.h>

#include "check.h"

enum { kThreads = 4, kSlots = 4096, kRounds = 60000 };
static _Atomic(unsigned char*) slots[kSlots];
static atomic_long signals;
static pthread_key_t key;

static void on_signal(int number) {
  (void)number;
  atomic_fetch_add(&signals, 1);
}

/* An object begins with its size and is filled with the low byte of it. */
static unsigned char* make(uint32_t size) {
  unsigned char* p = malloc(size);
  CHECK(p != NULL);
  memcpy(p, &size, 4);
  memset(p + 4, (int)(size & 0xff), size - 4);
  return p;
}
static void drop(unsigned char* p) {
  if (p == NULL) return;
  uint32_t size;
  memcpy(&size, p, 4);
  for (uint32_t i = 4; i < size; ++i) CHECK(p[i] == (size & 0xff));
  free(p);
}

static void* churn(void* arg) {
  uint64_t state = (uint64_t)(uintptr_t)arg * 0x9e3779b97f4a7c15u + 1;
  for (int i = 0; i < kRounds; ++i) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    const uint32_t size =
        state % 1000 == 0 ? 4 + (uint32_t)(state >> 20) % 200000 : 4 + (uint32_t)(state >> 20) % 900;
    drop(atomic_exchange(&slots[state % kSlots], make(size)));
  }
  return NULL;
}

/* Destructors of thread-local data run late, and may allocate again. */
static void at_thread_end(void* value) {
  const int left = *(int*)value;
  free(value);
  drop(make(100 + (uint32_t)left));
  if (left > 0) {
    int* next = malloc(sizeof *next);
    CHECK(next != NULL);
    *next = left - 1;
    CHECK(pthread_setspecific(key, next) == 0);
  }
}
static void* short_life(void* arg) {
  int* value = malloc(sizeof *value);
  CHECK(value != NULL);
  *value = 3;
  CHECK(pthread_setspecific(key, value) == 0);
  unsigned char* p = make(64 + (uint32_t)(uintptr_t)arg % 500);
  if ((uintptr_t)arg % 2 == 0) pthread_exit(p);
  return p;
}

int main(int argc, char** argv) {
  const struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
  CHECK(sigaction(SIGPROF, &action, NULL) == 0);
  const struct itimerval often = {.it_interval = {0, 1000}, .it_value = {0, 1000}};
  CHECK(setitimer(ITIMER_PROF, &often, NULL) == 0);
  CHECK(pthread_key_create(&key, at_thread_end) == 0);

  pthread_t threads[kThreads];
  for (uintptr_t t = 0; t < kThreads; ++t)
    CHECK(pthread_create(&threads[t], NULL, churn, (void*)(t + 1)) == 0);
  for (int i = 0; argc > 1 && i < 50; ++i) {
    void* library = dlopen(argv[1], RTLD_NOW);
    CHECK(library != NULL);
    char* (*text)(void) = (char* (*)(void))(uintptr_t)dlsym(library, "made_text");
    char* made = text();
    CHECK(strcmp(made, "made in a library") == 0);
    CHECK(dlclose(library) == 0);
    free(made);
  }
  for (int t = 0; t < kThreads; ++t) CHECK(pthread_join(threads[t], NULL) == 0);
  for (int i = 0; i < kSlots; ++i) drop(slots[i]);

  for (uintptr_t round = 0; round < 3000; ++round) {
    pthread_t few[4];
    for (uintptr_t t = 0; t < 4; ++t)
      CHECK(pthread_create(&few[t], NULL, short_life, (void*)(round + t)) == 0);
    for (int t = 0; t < 4; ++t) {
      void* p;
      CHECK(pthread_join(few[t], &p) == 0);
      drop(p);
    }
  }
  printf("threads: passed, %ld signals\n", atomic_load(&signals));
  return 0;
}
