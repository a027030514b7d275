// A program that closes every descriptor, as daemons do, and opens others: they get the numbers of those that the heap's memory had.
// Giving that memory back must leave them alone.
#define _GNU_SOURCE
#include <fcntl.h>
#include <malloc.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

enum { kBlocks = 6, kDescriptors = 20 };

int main(void) {
  static const size_t kBytes = (size_t)40 << 20;
  char* blocks[kBlocks];
  for (int i = 0; i < kBlocks; ++i) {  // regions of their own
    blocks[i] = malloc(kBytes);
    CHECK(blocks[i] != NULL);
    memset(blocks[i], i + 1, kBytes);
  }
  closefrom(3);
  int opened[kDescriptors];
  for (int i = 0; i < kDescriptors; ++i) {
    opened[i] = open("/dev/null", O_RDWR);
    CHECK(opened[i] >= 0);
  }
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    for (int i = 0; i < kBlocks; ++i) {
      if (blocks[i][0] != i + 1 || blocks[i][kBytes - 1] != i + 1) _exit(1);
      free(blocks[i]);
    }
    malloc_trim(0);
    for (int i = 0; i < kDescriptors; ++i) {
      if (fcntl(opened[i], F_GETFD) < 0) _exit(2);
    }
    _exit(0);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  const size_t before = mallinfo2().arena;
  for (int i = 0; i < kBlocks; ++i) free(blocks[i]);
  malloc_trim(0);
  CHECK(mallinfo2().arena < before);
  for (int i = 0; i < kDescriptors; ++i) CHECK(fcntl(opened[i], F_GETFD) >= 0);
  puts("closed_descriptors: passed");
  return 0;
}
