/* CHECK: ends the program with a message where a condition does not hold. */
#ifndef EXTMEM_TESTS_PRELOAD_CHECK_H
#define EXTMEM_TESTS_PRELOAD_CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CHECK(condition)                                                             \
  do {                                                                               \
    if (!(condition)) {                                                              \
      fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
      _exit(1);                                                                      \
    }                                                                                \
  } while (0)

/* Hides a value from the optimiser, which knows what malloc does. */
#define HIDE(p) __asm__ volatile("" : "+r"(p) : : "memory")

#endif
