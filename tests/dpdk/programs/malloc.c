/* rte_malloc() and its family on internal heaps, which grow by themselves.
 *
 * It was run against DPDK 22.11 too; RTE_LIB_EXTMEM marks where extmem differs. */
#include <pthread.h>
#include <rte_eal.h>
#include <rte_lcore.h>
#include <rte_malloc.h>
#include <rte_memory.h>
#include <stdint.h>
#include <stdlib.h>

#include "expect.h"

static int is_zero(const void* p, size_t length) {
  const unsigned char* byte = (const unsigned char*)p;
  size_t i;
  for (i = 0; i < length; i++)
    if (byte[i] != 0) return 0;
  return 1;
}

static void test_sizes_and_alignments(void) {
  size_t sizes[] = {1, 63, 64, 65, 1000, 4096, 100000, 1 << 20};
  const unsigned aligns[] = {0, 1, 2, 16, 64, 128, 4096, 1 << 16};
  unsigned i, j;
  for (i = 0; i < RTE_DIM(sizes); i++) {
    for (j = 0; j < RTE_DIM(aligns); j++) {
      size_t usable = 0;
      void* p = rte_malloc("x", sizes[i], aligns[j]);
      EXPECT(p != NULL);
      if (p == NULL) continue;
      EXPECT((uintptr_t)p % 64 == 0 && (aligns[j] == 0 || (uintptr_t)p % aligns[j] == 0));
      EXPECT(rte_malloc_validate(p, &usable) == 0);
#ifdef RTE_LIB_EXTMEM /* DPDK may give more */
      EXPECT(usable == RTE_CACHE_LINE_ROUNDUP(sizes[i]));
#endif
      memset(p, 0xa5, sizes[i]);
      rte_free(p);
      p = rte_zmalloc("x", sizes[i], aligns[j]);
      EXPECT(p != NULL && is_zero(p, sizes[i]));
      memset(p, 0xa5, sizes[i]);
      rte_free(p);
      p = rte_calloc_socket("x", sizes[i], 3, aligns[j], 0);
      EXPECT(p != NULL && is_zero(p, sizes[i] * 3));
      rte_free(p);
    }
  }
}

static void test_what_fails(void) {
  volatile size_t half = SIZE_MAX / 2, most = SIZE_MAX;
  size_t size;
  int on_stack = 0;
  EXPECT_FAILS(rte_malloc("x", 0, 0), NULL, 0);
  EXPECT_FAILS(rte_zmalloc("x", 0, 64), NULL, 0);
  EXPECT_FAILS(rte_malloc("x", 64, 3), NULL, 0);
  EXPECT_FAILS(rte_malloc("x", 64, 96), NULL, 0);
  EXPECT_FAILS(rte_calloc("x", 0, 8, 0), NULL, 0);
#ifdef RTE_LIB_EXTMEM
  EXPECT_FAILS(rte_malloc_socket("x", 64, 0, 5000), NULL, 0);
  EXPECT_FAILS(rte_malloc_socket("x", 64, 0, -2), NULL, 0);
  EXPECT_FAILS(rte_malloc_socket("x", 64, 0, 31), NULL, 0); /* DPDK with --no-huge takes any socket for any */
  EXPECT_FAILS(rte_calloc("x", half, 3, 0), NULL, 0);
  EXPECT_FAILS(rte_malloc("x", most, 0), NULL, 0);
  EXPECT_FAILS(rte_malloc("x", half, 0), NULL, 0);
  EXPECT(rte_malloc_set_limit("x", 1000) == 0);
  rte_free(&on_stack); /* only logged */
#endif
  RTE_SET_USED(half);
  RTE_SET_USED(most);
  RTE_SET_USED(on_stack);
  EXPECT(rte_malloc_validate(NULL, &size) == -1);
  rte_free(NULL);
  {
    char* p = (char*)rte_malloc(NULL, 1000, 0);
    EXPECT(rte_malloc_validate(p, NULL) == 0);
#ifdef RTE_LIB_EXTMEM
    EXPECT(rte_malloc_validate(p + 64, &size) == -1);
    EXPECT(rte_malloc_validate(p + 1, &size) == -1);
    rte_free(p + 64); /* logged */
    EXPECT(rte_malloc_validate(p, NULL) == 0);
#endif
    EXPECT(rte_malloc_virt2iova(p) == (rte_iova_t)(uintptr_t)p || rte_eal_iova_mode() == RTE_IOVA_PA);
    rte_free(p);
#ifdef RTE_LIB_EXTMEM
    EXPECT(rte_malloc_validate(p, &size) == -1);
    rte_free(p); /* logged */
#endif
  }
}

static void test_realloc(void) {
  char *p, *q, *r;
  size_t usable, i;
  p = (char*)rte_realloc(NULL, 100, 0);
  EXPECT(p != NULL);
  for (i = 0; i < 100; i++) p[i] = (char)i;
  q = (char*)rte_realloc(p, 100000, 0);
  EXPECT(q != NULL);
  for (i = 0; i < 100; i++) EXPECT(q[i] == (char)i);
  q = (char*)rte_realloc(q, 50, 64);
  EXPECT(q != NULL);
  for (i = 0; i < 50; i++) EXPECT(q[i] == (char)i);
  q = (char*)rte_realloc(q, 50, 8192); /* another alignment */
  EXPECT(q != NULL && (uintptr_t)q % 8192 == 0);
  for (i = 0; i < 50; i++) EXPECT(q[i] == (char)i);
#ifdef RTE_LIB_EXTMEM                     /* DPDK rounds the alignment up */
  EXPECT(rte_realloc(q, 50, 48) == NULL); /* and q is still there */
#endif
  EXPECT(rte_malloc_validate(q, NULL) == 0);
  EXPECT(rte_realloc(q, 0, 0) == NULL);

  /* Into the neighbour that was allocated before, up to the last byte of it. */
  p = (char*)rte_malloc(NULL, 4096, 64);
  q = (char*)rte_malloc(NULL, 1024, 64);
  EXPECT(p != NULL && q != NULL && q < p);
  memset(q, 0x5a, 1024);
  rte_free(p);
  r = (char*)rte_realloc(q, 1024 + 4096, 64);
  EXPECT(r == q && r[0] == 0x5a && r[1023] == 0x5a);
#ifdef RTE_LIB_EXTMEM
  EXPECT(rte_malloc_validate(r, &usable) == 0 && usable == 1024 + 4096);
#endif
  r = (char*)rte_realloc(r, 64, 64); /* shrinks in place */
  EXPECT(r == q);
#ifdef RTE_LIB_EXTMEM /* DPDK keeps too small a rest */
  EXPECT(rte_malloc_validate(r, &usable) == 0 && usable == 64);
#endif
  r = (char*)rte_realloc_socket(r, 128, 64, 0);
  EXPECT(r == q);
  rte_free(r);
#ifdef RTE_LIB_EXTMEM
  p = (char*)rte_malloc(NULL, 64, 0);
  EXPECT_FAILS(rte_realloc_socket(p, 128, 64, 5000), NULL, 0);
  EXPECT(rte_malloc_validate(p, &usable) == 0 && usable == 64);
  rte_free(p);
#endif
}

/* Placement from the high end downwards, and growth into the neighbour, whatever was freed before and in which order. */
static void test_placement(void) {
  const size_t sizes[] = {64, 1024, 2048};
  char *a[50], *p, *q, *r;
  unsigned s, n, i;
  for (s = 0; s < RTE_DIM(sizes); s++) {
    for (n = 2; n <= 50; n += 48) {
      for (i = 0; i < n; i++) a[i] = (char*)rte_malloc_socket(NULL, i % 2 ? 1024 : sizes[s], 0, 0);
      for (i = 0; i < n; i++) rte_free(a[i]);
      p = (char*)rte_malloc_socket(NULL, sizes[s], 0, 0);
      q = (char*)rte_malloc_socket(NULL, 1024, 0, 0);
      EXPECT(p == a[0] && q == a[1] && q < p);
      rte_free(p);
      r = (char*)rte_realloc_socket(q, sizes[s] + 1024, 64, 0);
      EXPECT(r == q);
      rte_free(r);
      /* A row that was freed backwards comes back as it was. */
      for (i = 0; i < n; i++) a[i] = (char*)rte_malloc_socket(NULL, 1024, 0, 0);
      for (i = n; i-- > 0;) rte_free(a[i]);
      for (i = 0; i < n; i++) {
        p = (char*)rte_malloc_socket(NULL, 1024, 0, 0);
        EXPECT(p == a[i]);
      }
      for (i = 0; i < n; i++) rte_free(a[i]);
    }
  }
}

/* What was there before is there again when all has been freed, in every figure. */
static void test_statistics(void) {
  struct rte_malloc_socket_stats before, now, again;
  void* given[200];
  unsigned i, round;
  EXPECT(rte_malloc_get_socket_stats(-1, &now) == -1);
  EXPECT(rte_malloc_get_socket_stats(31, &now) == -1);
  EXPECT(rte_malloc_get_socket_stats(5000, &now) == -1);
  EXPECT(rte_malloc_get_socket_stats(0, &before) == 0);
  EXPECT(before.heap_totalsz_bytes == before.heap_freesz_bytes + before.heap_allocsz_bytes);
  for (round = 0; round < 2; round++) {
    for (i = 0; i < RTE_DIM(given); i++)
      given[i] = rte_malloc_socket(NULL, 1 + i * 37 % 5000, i % 3 ? 0 : 256, 0);
    for (i = 0; i < RTE_DIM(given); i++) EXPECT(given[i] != NULL);
    EXPECT(rte_malloc_get_socket_stats(0, &now) == 0);
    EXPECT(now.alloc_count == before.alloc_count + RTE_DIM(given));
    EXPECT(now.heap_totalsz_bytes == now.heap_freesz_bytes + now.heap_allocsz_bytes);
    if (round == 0) {
      for (i = 0; i < RTE_DIM(given); i++)
        rte_free(given[i * 77 % RTE_DIM(given)]); /* 77 and 200: all of them */
    } else {
      for (i = RTE_DIM(given); i-- > 0;) rte_free(given[i]);
    }
    EXPECT(rte_malloc_get_socket_stats(0, &now) == 0);
    EXPECT(memcmp(&before, &now, sizeof now) == 0);
  }
  /* One allocation leaves as many free pieces as it found, also after frees of the same size. */
  for (i = 0; i < 2; i++) given[i] = rte_malloc_socket(NULL, 1000, 0, 0);
  for (i = 0; i < 2; i++) rte_free(given[i]);
  given[0] = rte_malloc_socket(NULL, 1000, 0, 0);
  EXPECT(rte_malloc_get_socket_stats(0, &now) == 0);
  EXPECT(now.free_count == before.free_count);
  rte_free(given[0]);
  /* A second allocation next to the first leaves the number of free pieces as it was. */
  given[0] = rte_malloc_socket(NULL, 1000, 0, 0);
  EXPECT(rte_malloc_get_socket_stats(0, &now) == 0);
  given[1] = rte_malloc_socket(NULL, 1000, 0, 0);
  EXPECT(rte_malloc_get_socket_stats(0, &again) == 0);
  EXPECT(now.free_count == again.free_count && again.alloc_count == now.alloc_count + 1);
  EXPECT(again.heap_allocsz_bytes - now.heap_allocsz_bytes >= 1024);
#ifdef RTE_LIB_EXTMEM
  EXPECT(again.heap_allocsz_bytes - now.heap_allocsz_bytes == 1024);
  EXPECT(now.heap_allocsz_bytes - before.heap_allocsz_bytes == 1024);
#endif
  rte_free(given[1]);
  rte_free(given[0]);
  EXPECT(rte_malloc_get_socket_stats(0, &now) == 0);
  EXPECT(memcmp(&before, &now, sizeof now) == 0);
}

#ifdef RTE_LIB_EXTMEM
static void test_sensitive(void) {
  unsigned char* p = (unsigned char*)rte_malloc(NULL, 256, 0);
  unsigned char secret[8] = {1, 2, 3, 4, 5, 6, 7, 8}, same[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  EXPECT(p != NULL);
  memset(p, 0xa5, 256);
  rte_free_sensitive(p);
  EXPECT(is_zero(p, 256)); /* the memory of the heap is still mapped */
  rte_free_sensitive(NULL);
  EXPECT(rte_memeq_timingsafe(secret, same, 8));
  same[7] = 0;
  EXPECT(!rte_memeq_timingsafe(secret, same, 8));
  EXPECT(rte_memeq_timingsafe(secret, same, 7));
  EXPECT(rte_memeq_timingsafe(secret, same, 0));
  rte_memzero_explicit(secret, 4);
  EXPECT(is_zero(secret, 4) && secret[4] == 5);
}

/* What the machine has left, in bytes; or 0. */
static size_t available(void) {
  FILE* f = fopen("/proc/meminfo", "r");
  unsigned long kibibytes = 0;
  char line[128];
  while (f != NULL && fgets(line, sizeof line, f) != NULL &&
         sscanf(line, "MemAvailable: %lu", &kibibytes) != 1)
    continue;
  if (f != NULL) fclose(f);
  return (size_t)kibibytes << 10;
}

/* Beyond the 64 MiB that the heap begins with. */
static void test_growth(void) {
  struct rte_malloc_socket_stats before, now;
  const size_t large = (size_t)100 << 20;
  char *p, *q;
  EXPECT(rte_malloc_get_socket_stats(0, &before) == 0);
  p = (char*)rte_malloc(NULL, large, 0);
  EXPECT(p != NULL);
  if (p == NULL) return;
  p[0] = p[large - 1] = 1;
  EXPECT(rte_malloc_get_socket_stats(0, &now) == 0);
  EXPECT(now.heap_totalsz_bytes >= before.heap_totalsz_bytes + large);
  EXPECT(rte_mem_virt2memseg_list(p)->external == 0);
  EXPECT(rte_eal_get_physmem_size() == now.heap_totalsz_bytes);
  q = (char*)rte_zmalloc(NULL, large, 4096);
  EXPECT(q != NULL && (uintptr_t)q % 4096 == 0 && q[0] == 0 && q[large - 1] == 0);
  rte_free(p);
  rte_free(q);
  EXPECT(rte_malloc_get_socket_stats(0, &now) == 0);
  EXPECT(memcmp(&before, &now, sizeof now) == 0); /* it was given back */
  EXPECT(rte_malloc(NULL, available() / 5 * 4, 0) ==
         NULL); /* as much would leave the system without memory */
}
#endif

static void* churn(void* arg) {
  uint32_t random = (uint32_t)(uintptr_t)arg;
  unsigned char* held[64];
  size_t sizes[64];
  unsigned i, round;
  int* bad = (int*)calloc(1, sizeof *bad);
  memset(held, 0, sizeof held);
  for (round = 0; round < 20000; round++) {
    random = random * 1664525u + 1013904223u;
    i = random >> 26;
    if (held[i] != NULL) {
      if (held[i][0] != (unsigned char)i || held[i][sizes[i] - 1] != (unsigned char)i) ++*bad;
      rte_free(held[i]);
      held[i] = NULL;
    } else {
      sizes[i] = 1 + (random >> 8) % 3000;
      held[i] = (unsigned char*)rte_malloc(NULL, sizes[i], 0);
      if (held[i] == NULL) {
        ++*bad;
        continue;
      }
      held[i][0] = held[i][sizes[i] - 1] = (unsigned char)i;
    }
  }
  for (i = 0; i < 64; i++) rte_free(held[i]);
  return bad;
}

static void test_threads(void) {
  struct rte_malloc_socket_stats before, now;
  pthread_t threads[4];
  uintptr_t i;
  EXPECT(rte_malloc_get_socket_stats(0, &before) == 0);
  for (i = 0; i < 4; i++) EXPECT(pthread_create(&threads[i], NULL, churn, (void*)(i + 1)) == 0);
  for (i = 0; i < 4; i++) {
    void* bad = NULL;
    EXPECT(pthread_join(threads[i], &bad) == 0);
    EXPECT(bad != NULL && *(int*)bad == 0);
    free(bad);
  }
  EXPECT(rte_malloc_get_socket_stats(0, &now) == 0);
  EXPECT(memcmp(&before, &now, sizeof now) == 0);
}

enum { CROWD = 1500 }; /* once there was room for 1,024 threads at a time */
static pthread_barrier_t all_there;
static void* one_of_a_crowd(void* arg) {
  char* p = (char*)rte_malloc(NULL, 100, 0);
  if (p != NULL) p[99] = 1;
  pthread_barrier_wait(&all_there);
  rte_free(p);
  return p == NULL ? NULL : arg;
}
static void test_crowd(void) {
  static pthread_t threads[CROWD];
  struct rte_malloc_socket_stats before, now;
  pthread_attr_t small;
  unsigned i, good = 0;
  EXPECT(rte_malloc_get_socket_stats(0, &before) == 0);
  EXPECT(pthread_barrier_init(&all_there, NULL, CROWD) == 0);
  EXPECT(pthread_attr_init(&small) == 0 && pthread_attr_setstacksize(&small, 1 << 17) == 0);
  for (i = 0; i < CROWD; i++) {
    if (pthread_create(&threads[i], &small, one_of_a_crowd, threads) == 0) continue;
    printf("this machine does not allow %d threads\n", CROWD);
    exit(77);
  }
  for (i = 0; i < CROWD; i++) {
    void* result = NULL;
    EXPECT(pthread_join(threads[i], &result) == 0);
    good += result != NULL;
  }
  EXPECT(good == CROWD);
  EXPECT(rte_malloc_get_socket_stats(0, &now) == 0);
  EXPECT(memcmp(&before, &now, sizeof now) == 0);
}

static void test_dumps(void) {
  static char text[1 << 20];
  FILE* f = fmemopen(text, sizeof text, "w");
  void* p = rte_malloc("named", 12345, 0);
  EXPECT(f != NULL && p != NULL);
  rte_malloc_dump_stats(f, NULL);
  rte_malloc_dump_heaps(f);
  rte_dump_physmem_layout(f);
  fclose(f);
  EXPECT(strstr(text, "Heap name:socket_0") != NULL);
  EXPECT(strstr(text, "Greatest_free_size:") != NULL);
  EXPECT(strstr(text, "Heap id: 0\n") != NULL);
  EXPECT(strstr(text, "Heap size: 0x") != NULL);
  EXPECT(strstr(text, "Heap alloc count: ") != NULL);
  EXPECT(strstr(text, "Segment ") != NULL);
  rte_free(p);
}

int main(int argc, char** argv) {
  if (rte_eal_init(argc, argv) < 0) {
    printf("rte_eal_init: %s\n", rte_strerror(rte_errno));
    return 1;
  }
  test_sizes_and_alignments();
  test_what_fails();
  test_realloc();
  test_placement();
  test_realloc();
  test_statistics();
#ifdef RTE_LIB_EXTMEM
  test_sensitive();
  test_growth();
#endif
  test_threads();
  test_dumps();
  test_crowd();
  EXPECT(rte_eal_cleanup() == 0);
  return failures != 0;
}
