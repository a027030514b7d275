/* Large objects: right in what they hold, in a fork's child too (not with the argument "alone"); and, with the argument "lean", no
   more memory than the program touches. */
#define _GNU_SOURCE
#include <malloc.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

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

static unsigned value_at(size_t i, unsigned seed) { return (unsigned)(i * 2654435761u) + seed; }

static void fill(unsigned* p, size_t bytes, unsigned seed) {
  for (size_t i = 0; i < bytes / sizeof *p; ++i) p[i] = value_at(i, seed);
}

static void check_filled(const unsigned* p, size_t bytes, unsigned seed) {
  for (size_t i = 0; i < bytes / sizeof *p; ++i) CHECK(p[i] == value_at(i, seed));
}

/* Objects of up to 6 MiB that grow and shrink at random; half-way also in the child of a fork, which has its own. */
static void resize_at_random(int with_child) {
  enum { kObjects = 8, kSteps = 300 };
  unsigned* objects[kObjects] = {NULL};
  size_t bytes[kObjects] = {0};
  pid_t child = -1;
  unsigned long state = 12345;
  for (unsigned step = 0; step < kSteps; ++step) {
    state = state * 6364136223846793005ul + 1442695040888963407ul;
    const size_t at = (state >> 33) % kObjects;
    const size_t wanted = 4 + (state >> 40) % (6 * kMiB / 4) * 4;
    objects[at] = realloc(objects[at], wanted);
    CHECK(objects[at] != NULL);
    check_filled(objects[at], bytes[at] < wanted ? bytes[at] : wanted, (unsigned)at + (child == 0 ? 100 : 0));
    bytes[at] = wanted;
    fill(objects[at], wanted, (unsigned)at + (child == 0 ? 100 : 0));
    if (with_child && step == kSteps / 2) {
      fflush(NULL);
      child = fork();
      CHECK(child >= 0);
      for (unsigned i = 0; child == 0 && i < kObjects; ++i) {
        check_filled(objects[i], bytes[i], i);
        fill(objects[i], bytes[i], i + 100);
      }
    }
  }
  for (unsigned i = 0; i < kObjects; ++i) {
    check_filled(objects[i], bytes[i], i + (child == 0 ? 100 : 0));
    free(objects[i]);
  }
  if (child == 0) _exit(0);
  if (!with_child) return;
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
}

/* An object with no room behind it takes its pages along: none is brought in for it. */
static void take_pages_along(void) {
  const int dontunmap = 4; /* MREMAP_DONTUNMAP */
  char* pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(pages != MAP_FAILED);
  if (mremap(pages, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED | dontunmap, pages + 4096) == MAP_FAILED)
    return;
  void* behind = malloc(2 * kMiB);
  unsigned* p = malloc(16 * kMiB);
  CHECK(behind != NULL && p != NULL);
  fill(p, 16 * kMiB, 5);
  struct rusage before, after;
  getrusage(RUSAGE_SELF, &before);
  unsigned* now = realloc(p, 24 * kMiB);
  check_filled(now, 16 * kMiB, 5);
  getrusage(RUSAGE_SELF, &after);
  CHECK(now != p);
  CHECK(after.ru_minflt - before.ru_minflt < 100);
  free(now);
  free(behind);
}

int main(int argc, char** argv) {
  const int lean = argc > 1 && strcmp(argv[1], "lean") == 0;
  zeroes();
  if (!lean) {
    unsigned char* p = grow(48);
    p = realloc(p, kMiB);
    CHECK(p != NULL && holds(p, kMiB, 0));
    free(p);
    resize_at_random(argc == 1);
    puts("large: passed");
    return 0;
  }
  take_pages_along();
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
