/* A heap that is full: ENOMEM, never a crash; and everything can be had again after it was freed. Run with a limit of 64 MiB. */
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "check.h"

int main(void) {
  for (size_t size = 16; size <= (8u << 20); size *= 8) {
    void** first = NULL;
    size_t count = 0;
    for (;;) {
      errno = 0;
      void** p = malloc(size);
      if (p == NULL) break;
      memset(p, 0x77, size);
      *p = first;
      first = p;
      ++count;
    }
    CHECK(errno == ENOMEM);
    CHECK(count * size > (40u << 20)); /* most of it was given */
    CHECK(count * size <= (64u << 20));
    while (first != NULL) {
      void** next = *first;
      free(first);
      first = next;
    }
  }
  puts("limit: passed");
  return 0;
}
