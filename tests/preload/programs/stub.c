// A program at fixed addresses that takes the address of malloc: the linker makes a stub, whose address is malloc's for everybody.
#include <stdio.h>
#include <stdlib.h>

int main(void) {
  void* (*volatile allocate)(size_t) = malloc;
  void* p = allocate(10);
  printf("stub: %s\n", p != NULL ? "passed" : "failed");
  free(p);
  return 0;
}
