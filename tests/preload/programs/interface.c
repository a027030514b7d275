/* Every function of malloc's family: sizes, alignments, errors, errno, contents. */
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <string.h>

#include "check.h"

static int all_are(const unsigned char* p, size_t n, unsigned char value) {
  for (size_t i = 0; i < n; ++i) {
    if (p[i] != value) return 0;
  }
  return 1;
}

static void sizes(void) {
  for (size_t size = 0; size < 70000; size = size < 300 ? size + 1 : size * 9 / 8) {
    unsigned char* p = malloc(size);
    CHECK(p != NULL);
    CHECK((uintptr_t)p % 16 == 0);
    const size_t usable = malloc_usable_size(p);
    CHECK(usable >= size);
    memset(p, 0xa5, usable); /* all of it is ours */
    unsigned char* q = malloc(size);
    CHECK(q != NULL && q != p);
    memset(q, 0x5a, malloc_usable_size(q));
    CHECK(all_are(p, usable, 0xa5));
    free(p);
    free(q);
    unsigned char* z = calloc(1, size); /* recycled memory, zeroed */
    CHECK(z != NULL && all_are(z, size, 0));
    free(z);
  }
  unsigned char* big = calloc(3, 10000000);
  CHECK(big != NULL && all_are(big, 30000000, 0));
  memset(big, 1, 30000000);
  free(big);
  big = calloc(30000000, 1);
  CHECK(big != NULL && all_are(big, 30000000, 0));
  free(big);
}

static void errors(void) {
  size_t huge = PTRDIFF_MAX;
  HIDE(huge);
  errno = 0;
  CHECK(malloc(huge) == NULL && errno == ENOMEM);
  errno = 0;
  CHECK(malloc(huge + 1) == NULL && errno == ENOMEM);
  errno = 0;
  size_t most = SIZE_MAX;
  HIDE(most);
  CHECK(malloc(most) == NULL && errno == ENOMEM);
  errno = 0;
  CHECK(calloc(most / 2, 3) == NULL && errno == ENOMEM);
  errno = 0;
  char* p = malloc(10);
  CHECK(p != NULL);
  strcpy(p, "intact");
  CHECK(realloc(p, huge) == NULL && errno == ENOMEM);
  errno = 0;
  CHECK(reallocarray(p, most / 2, 3) == NULL && errno == ENOMEM);
  CHECK(strcmp(p, "intact") == 0);
  free(p);
  errno = 77;
  free(malloc(100));
  free(NULL);
  char* large = malloc(1 << 20);
  HIDE(large);
  free(large);
  CHECK(errno == 77); /* free leaves it alone */
  void* out = p;
  CHECK(posix_memalign(&out, 3, 8) == EINVAL);
  CHECK(posix_memalign(&out, 4, 8) == EINVAL); /* below sizeof(void*) */
  CHECK(posix_memalign(&out, 0, 8) == EINVAL);
  CHECK(posix_memalign(&out, 64, huge) == ENOMEM);
  CHECK(out == p && errno == 77); /* neither is touched */
  errno = 0;
  CHECK(memalign(64, huge) == NULL && errno == ENOMEM);
  errno = 0;
  CHECK(pvalloc(most) == NULL && errno == ENOMEM);
  CHECK(malloc_usable_size(NULL) == 0);
}

static void alignments(void) {
  for (size_t align = 8; align <= (1u << 22); align *= 2) {
    for (size_t size = 1; size < 100000; size = size * 7 + 1) {
      void* p = NULL;
      CHECK(posix_memalign(&p, align, size) == 0 && (uintptr_t)p % align == 0);
      memset(p, 7, size);
      void* q = aligned_alloc(align, size);
      CHECK(q != NULL && (uintptr_t)q % align == 0);
      void* r = memalign(align, size);
      CHECK(r != NULL && (uintptr_t)r % align == 0);
      CHECK(all_are(p, size, 7));
      free(p);
      free(q);
      free(r);
    }
  }
  void* v = valloc(100);
  CHECK(v != NULL && (uintptr_t)v % 4096 == 0);
  free(v);
  v = pvalloc(4097);
  CHECK(v != NULL && (uintptr_t)v % 4096 == 0 && malloc_usable_size(v) >= 8192);
  free(v);
  v = memalign(48, 100); /* no power of two: rounded up to one */
  CHECK(v != NULL && (uintptr_t)v % 64 == 0);
  free(v);
  void* zero = NULL;
  CHECK(posix_memalign(&zero, 64, 0) == 0);
  free(zero);
}

static void resizing(void) {
  unsigned char* p = NULL;
  size_t size = 0;
  for (size_t next = 1; next < 5000000; next = next * 5 / 4 + 3) {
    p = realloc(p, next);
    CHECK(p != NULL);
    for (size_t i = 0; i < size; ++i) CHECK(p[i] == (unsigned char)(i * 31));
    for (size_t i = size; i < next; ++i) p[i] = (unsigned char)(i * 31);
    size = next;
  }
  while (size > 1) {
    size = size * 2 / 3;
    p = reallocarray(p, size, 1);
    CHECK(p != NULL);
    for (size_t i = 0; i < size; ++i) CHECK(p[i] == (unsigned char)(i * 31));
  }
  CHECK(realloc(p, 0) == NULL); /* frees */
  p = realloc(NULL, 0);
  CHECK(p != NULL);
  free(p);
}

static void looking(void) {
  const struct mallinfo2 before = mallinfo2();
  enum { kCount = 1000, kSize = 1024 };
  void* p[kCount];
  for (int i = 0; i < kCount; ++i) CHECK((p[i] = malloc(kSize)) != NULL);
  const struct mallinfo2 during = mallinfo2();
  CHECK(during.uordblks >= before.uordblks + kCount * kSize);
  CHECK(during.uordblks + during.fordblks == during.arena);
  for (int i = 0; i < kCount; ++i) free(p[i]);
  const struct mallinfo2 after = mallinfo2();
  CHECK(after.uordblks == before.uordblks);
  (void)malloc_trim(0);
  CHECK(mallinfo2().uordblks == before.uordblks);
  char text[4096] = {0};
  FILE* stream = fmemopen(text, sizeof text - 1, "w");
  CHECK(stream != NULL);
  CHECK(malloc_info(1, stream) == EINVAL);
  CHECK(malloc_info(0, stream) == 0);
  fclose(stream);
  char total[64];
  snprintf(total, sizeof total, "<system type=\"current\" size=\"%zu\"/>", after.arena);
  CHECK(strstr(text, "<malloc version=\"1\">") == text && strstr(text, total) != NULL);
  CHECK(mallopt(M_MMAP_THRESHOLD, 1 << 20) == 1);
}

int main(void) {
  sizes();
  errors();
  alignments();
  resizing();
  looking();
  puts("interface: passed");
  return 0;
}
