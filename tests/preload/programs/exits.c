// Ways out of a program, for a heap that keeps what killed ones held. Its argument says which.
#define _GNU_SOURCE
#include <pthread.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

extern char** environ;

static char* kept_to_the_end;

// Runs after the library's own: memory works to the very end.
__attribute__((destructor(101))) static void late(void) {
  if (kept_to_the_end == NULL) return;
  for (int i = 0; i < 1000; ++i) {
    char* p = malloc((size_t)i * 7 + 1);
    CHECK(p != NULL);
    memset(p, i, (size_t)i * 7 + 1);
    free(p);
  }
  CHECK(kept_to_the_end[999] == 'k');
  free(kept_to_the_end);
}

static void at_exit(void) { free(malloc(100)); }

static void* churn(void* unused) {
  for (;;) free(malloc(5000));
  return unused;
}

int main(int argc, char** argv) {
  const char* how = argc > 1 ? argv[1] : "";
  char* volatile held = malloc(100000);
  CHECK(held != NULL);
  if (strcmp(how, "quick") == 0) quick_exit(7);
  if (strcmp(how, "abort") == 0) abort();
  if (strcmp(how, "late") == 0) {
    kept_to_the_end = malloc(1000);
    memset(kept_to_the_end, 'k', 1000);
    CHECK(atexit(&at_exit) == 0);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, &churn, NULL) == 0);
    return 0;
  }
  if (strcmp(how, "children") == 0) {  // whose ends are not the parent's
    char* const arguments[] = {(char*)(size_t) "nowhere", NULL};
    const pid_t child = vfork();
    if (child == 0) {
      execve("/nowhere", arguments, environ);
      _exit(127);
    }
    int status = 0;
    CHECK(child > 0 && waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 127);
    pid_t spawned;
    CHECK(posix_spawn(&spawned, "/nowhere", NULL, NULL, arguments, environ) != 0);
    CHECK(system("exit 3") != -1);
    pause();
  }
  return 1;
}
