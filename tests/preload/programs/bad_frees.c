/* Wrong frees are told and ignored; the heap goes on. */
#include <stdint.h>
#include <string.h>

#include "check.h"

int main(void) {
  char* p = malloc(100);
  char* kept = malloc(100);
  CHECK(p != NULL && kept != NULL);
  strcpy(kept, "intact");
  uintptr_t twice = (uintptr_t)p;
  HIDE(twice);
  free(p);
  free((void*)twice); /* again */
  uintptr_t inside = (uintptr_t)kept + 8;
  HIDE(inside);
  free((void*)inside); /* interior */
  static char foreign[64];
  uintptr_t other = (uintptr_t)foreign;
  HIDE(other);
  free((void*)other); /* foreign */
  CHECK(strcmp(kept, "intact") == 0);
  char* a = malloc(100);
  char* b = malloc(100);
  CHECK(a != NULL && b != NULL && a != b && a != kept && b != kept);
  free(a);
  free(b);
  free(kept);
  puts("bad_frees: passed");
  return 0;
}
