/* Large objects: right in what they hold; and, with the argument "lean", no more memory than the program touches. */
#include <malloc.h>
#include <string.h>

#include "check.h"

enum { kMiB = 1 << 20 };

static size_t status_bytes(const char* name) {
  char line[256];
  unsigned long kib = 0;
  FILE* file = fopen("/proc/self/status", "r");
  CHECK(file != NULL);
  while (fgets(line, sizeof line, file) != NULL) {
    if (strncmp(line, name, strlen(name)) == 0) kib = strtoul(line + strlen(name) + 1, NULL, 10);
  }
  fclose(file);
  CHECK(kib != 0);
  return kib * 1024;
}

static int holds(const unsigned char* p, size_t bytes, unsigned char value) {
  return bytes == 0 || (p[0] == value && memcmp(p, p + 1, bytes - 1) == 0);
}

/* What was dirty comes back as zero, whatever part of it is in memory, wherever it begins and ends. */
static void zeroes(void) {
  for (size_t size = 200 * 1024 + 1; size < 40u * kMiB; size = size * 3 + 4097) {
    for (int round = 0; round < 4; ++round) {
      unsigned char* p = malloc(size);
      CHECK(p != NULL);
      memset(p, 0xee, round == 0 ? size : round == 1 ? size / 3 : round == 2 ? 1 : size - 1);
      p[size - 1] = 0xee;
      free(p);
      p = calloc(1, size);
      CHECK(p != NULL);
      CHECK(holds(p, size, 0));
      memset(p, 0xdd, size / 2);
      free(p);
    }
  }
}

/* By steps, with others between that take what is free. */
static unsigned char* grow(size_t mib) {
  unsigned char* p = NULL;
  void* others[1024];
  for (size_t i = 0; i < mib; ++i) {
    p = realloc(p, (i + 1) * kMiB + 13);
    CHECK(p != NULL);
    memset(p + i * kMiB, (int)i & 0xff, kMiB + 13);
    others[i] = malloc(3000);
    CHECK(others[i] != NULL);
  }
  for (size_t i = 0; i < mib; ++i) {
    CHECK(holds(p + i * kMiB, kMiB, (unsigned char)i));
    free(others[i]);
  }
  return p;
}

int main(int argc, char** argv) {
  const int lean = argc > 1 && strcmp(argv[1], "lean") == 0;
  zeroes();
  if (!lean) {
    unsigned char* p = grow(48);
    p = realloc(p, kMiB);
    CHECK(p != NULL && holds(p, kMiB, 0));
    free(p);
    puts("large: passed");
    return 0;
  }
  const size_t before = status_bytes("VmRSS");
  unsigned char* sparse = calloc(2048, kMiB);
  CHECK(sparse != NULL);
  for (size_t i = 0; i < 2048; i += 128) CHECK(sparse[i * kMiB] == 0);
  CHECK(status_bytes("VmRSS") < before + 32u * kMiB);
  free(sparse);

  unsigned char* p = grow(192); /* quick too: without room behind it each step would copy all of it */
  CHECK(status_bytes("VmHWM") < before + 192u * kMiB * 5 / 4);
  const size_t full = status_bytes("VmRSS");
  void* last = malloc(300 * 1024);
  free(p);
  CHECK(malloc_trim(0) == 1);
  CHECK(status_bytes("VmRSS") < full - 150u * kMiB);
  /* and what was given back is there again */
  p = grow(16);
  free(p);
  free(last);
  puts("large: passed");
  return 0;
}
