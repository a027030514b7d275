/* Heaps of external memory: making them, lending them memory, allocating from them; every error, in its order.
 *
 * It reads like a test of DPDK's own, and was run against DPDK 22.11 too; RTE_LIB_EXTMEM marks where extmem differs. */
#include <rte_eal.h>
#include <rte_malloc.h>
#include <rte_memory.h>
#include <rte_memzone.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "expect.h"

#define PAGE 4096u
#define LONGEST "a-name-of-thirty-one-characters"
#define TOO_LONG LONGEST "!"

static void* map(size_t length) {
  void* p = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  EXPECT(p != MAP_FAILED);
  return p;
}
static void* at(void* p, size_t offset) { return RTE_PTR_ADD(p, offset); }

static void test_names(void) {
  int socket, other;
  EXPECT(sizeof(LONGEST) == 32);
  EXPECT_FAILS(rte_malloc_heap_create(NULL), -1, EINVAL);
  EXPECT_FAILS(rte_malloc_heap_create(""), -1, EINVAL);
  EXPECT_FAILS(rte_malloc_heap_create(TOO_LONG), -1, EINVAL);
  EXPECT_FAILS(rte_malloc_heap_create("socket_0"), -1, EEXIST);
  EXPECT(rte_malloc_heap_create(LONGEST) == 0);
  EXPECT_FAILS(rte_malloc_heap_create(LONGEST), -1, EEXIST);
  EXPECT(rte_malloc_heap_create("node0") == 0);
  EXPECT_FAILS(rte_malloc_heap_create("node0"), -1, EEXIST);

  EXPECT_FAILS(rte_malloc_heap_get_socket(NULL), -1, EINVAL);
  EXPECT_FAILS(rte_malloc_heap_get_socket(""), -1, EINVAL);
  EXPECT_FAILS(rte_malloc_heap_get_socket(TOO_LONG), -1, EINVAL);
  EXPECT_FAILS(rte_malloc_heap_get_socket("nobody"), -1, ENOENT);
  EXPECT(rte_malloc_heap_get_socket("socket_0") == 0);
  socket = rte_malloc_heap_get_socket(LONGEST);
  other = rte_malloc_heap_get_socket("node0");
  EXPECT(socket >= 256 && other >= 256 && socket != other);
  rte_errno = 0;
  EXPECT(rte_malloc_heap_socket_is_external(SOCKET_ID_ANY) == 0);
  EXPECT(rte_malloc_heap_socket_is_external(0) == 0);
  EXPECT(rte_malloc_heap_socket_is_external(socket) == 1);
  EXPECT(rte_malloc_heap_socket_is_external(other) == 1);
  EXPECT(rte_malloc_heap_socket_is_external(31) == -1);
  EXPECT(rte_malloc_heap_socket_is_external(100000) == -1);
  EXPECT(rte_malloc_heap_socket_is_external(-2) == -1);
  EXPECT(rte_errno == 0);

  EXPECT_FAILS(rte_malloc_heap_destroy(NULL), -1, EINVAL);
  EXPECT_FAILS(rte_malloc_heap_destroy(""), -1, EINVAL);
  EXPECT_FAILS(rte_malloc_heap_destroy(TOO_LONG), -1, EINVAL);
  EXPECT_FAILS(rte_malloc_heap_destroy("nobody"), -1, ENOENT);
  EXPECT_FAILS(rte_malloc_heap_destroy("socket_0"), -1, EPERM);
  EXPECT(rte_malloc_heap_destroy(LONGEST) == 0);
  EXPECT(rte_malloc_heap_destroy("node0") == 0);
  EXPECT_FAILS(rte_malloc_heap_destroy("node0"), -1, ENOENT);
  EXPECT(rte_malloc_heap_socket_is_external(socket) == -1);

  /* An id is not used again. */
  EXPECT(rte_malloc_heap_create(LONGEST) == 0);
  EXPECT(rte_malloc_heap_get_socket(LONGEST) > other);
  EXPECT(rte_malloc_socket(NULL, 64, 0, rte_malloc_heap_get_socket(LONGEST)) == NULL); /* no memory yet */
  EXPECT(DPDK_NO_HUGE || rte_malloc_socket(NULL, 64, 0, socket) == NULL);
  EXPECT(rte_malloc_heap_destroy(LONGEST) == 0);
}

static void test_memory_errors(void) {
  void* memory = map(64 * PAGE);
  rte_iova_t iovas[64];
  unsigned i;
  for (i = 0; i < 64; i++) iovas[i] = (rte_iova_t)i * PAGE;
  EXPECT(rte_malloc_heap_create("h") == 0);

  /* add: EINVAL before everything else */
  EXPECT_FAILS(rte_malloc_heap_memory_add(NULL, memory, 16 * PAGE, NULL, 0, PAGE), -1, EINVAL);
  EXPECT_FAILS(rte_malloc_heap_memory_add("", memory, 16 * PAGE, NULL, 0, PAGE), -1, EINVAL);
  EXPECT_FAILS(rte_malloc_heap_memory_add(TOO_LONG, memory, 16 * PAGE, NULL, 0, PAGE), -1, EINVAL);
  EXPECT_FAILS(rte_malloc_heap_memory_add("nobody", NULL, 16 * PAGE, NULL, 0, PAGE), -1, EINVAL);
  EXPECT_FAILS(rte_malloc_heap_memory_add("h", memory, 16 * PAGE, NULL, 0, 0), -1, EINVAL);
  EXPECT_FAILS(rte_malloc_heap_memory_add("h", memory, 16 * PAGE, NULL, 0, 3 * PAGE), -1, EINVAL);
#ifdef RTE_LIB_EXTMEM /* DPDK takes it */
  EXPECT_FAILS(rte_malloc_heap_memory_add("h", memory, 0, NULL, 0, PAGE), -1, EINVAL);
#endif
  EXPECT_FAILS(rte_malloc_heap_memory_add("h", memory, 16 * PAGE + 64, NULL, 0, PAGE), -1, EINVAL);
  EXPECT_FAILS(rte_malloc_heap_memory_add("h", at(memory, 64), 16 * PAGE, NULL, 0, PAGE), -1, EINVAL);
  EXPECT_FAILS(rte_malloc_heap_memory_add("socket_0", memory, 16 * PAGE, iovas, 15, PAGE), -1, EINVAL);
  EXPECT_FAILS(rte_malloc_heap_memory_add("h", memory, 16 * PAGE, iovas, 17, PAGE), -1, EINVAL);
  EXPECT_FAILS(rte_malloc_heap_memory_add("nobody", memory, 16 * PAGE, NULL, 0, PAGE), -1, ENOENT);
  EXPECT_FAILS(rte_malloc_heap_memory_add("socket_0", memory, 16 * PAGE, NULL, 0, PAGE), -1, EPERM);
  EXPECT(rte_malloc_heap_memory_add("h", memory, 16 * PAGE, NULL, 12345, PAGE) ==
         0);          /* n_pages does not matter */
#ifdef RTE_LIB_EXTMEM /* DPDK does not look for overlaps but of the very same range */
  EXPECT_FAILS(rte_malloc_heap_memory_add("h", memory, 16 * PAGE, NULL, 0, PAGE), -1, EEXIST);
  EXPECT_FAILS(rte_malloc_heap_memory_add("h", at(memory, 15 * PAGE), 2 * PAGE, NULL, 0, PAGE), -1, EEXIST);
  EXPECT_FAILS(rte_extmem_register(at(memory, 4 * PAGE), PAGE, NULL, 0, PAGE), -1, EEXIST);
#endif

  /* remove, attach, detach */
  EXPECT_FAILS(rte_malloc_heap_memory_remove(NULL, memory, 16 * PAGE), -1, EINVAL);
  EXPECT_FAILS(rte_malloc_heap_memory_remove("", memory, 16 * PAGE), -1, EINVAL);
  EXPECT_FAILS(rte_malloc_heap_memory_remove(TOO_LONG, memory, 16 * PAGE), -1, EINVAL);
  EXPECT_FAILS(rte_malloc_heap_memory_remove("nobody", NULL, 16 * PAGE), -1, EINVAL);
  EXPECT_FAILS(rte_malloc_heap_memory_remove("nobody", memory, 0), -1, EINVAL);
  EXPECT_FAILS(rte_malloc_heap_memory_remove("nobody", memory, 16 * PAGE), -1, ENOENT);
  EXPECT_FAILS(rte_malloc_heap_memory_remove("socket_0", memory, 16 * PAGE), -1, EPERM);
  EXPECT_FAILS(rte_malloc_heap_memory_remove("h", at(memory, PAGE), 16 * PAGE), -1, ENOENT);
  EXPECT_FAILS(rte_malloc_heap_memory_remove("h", memory, 15 * PAGE), -1, ENOENT);
  EXPECT_FAILS(rte_malloc_heap_memory_attach(NULL, memory, 16 * PAGE), -1, EINVAL);
  EXPECT_FAILS(rte_malloc_heap_memory_attach("h", NULL, 16 * PAGE), -1, EINVAL);
  EXPECT_FAILS(rte_malloc_heap_memory_attach("h", memory, 0), -1, EINVAL);
  EXPECT_FAILS(rte_malloc_heap_memory_attach("nobody", memory, 16 * PAGE), -1, ENOENT);
  EXPECT_FAILS(rte_malloc_heap_memory_attach("socket_0", memory, 16 * PAGE), -1, EPERM);
  EXPECT_FAILS(rte_malloc_heap_memory_attach("h", memory, 15 * PAGE), -1, ENOENT);
  EXPECT_FAILS(rte_malloc_heap_memory_attach("h", memory, 16 * PAGE), -1, EEXIST);
  EXPECT_FAILS(rte_malloc_heap_memory_detach(TOO_LONG, memory, 16 * PAGE), -1, EINVAL);
  EXPECT_FAILS(rte_malloc_heap_memory_detach("h", NULL, 16 * PAGE), -1, EINVAL);
  EXPECT_FAILS(rte_malloc_heap_memory_detach("h", memory, 0), -1, EINVAL);
  EXPECT_FAILS(rte_malloc_heap_memory_detach("nobody", memory, 16 * PAGE), -1, ENOENT);
  EXPECT_FAILS(rte_malloc_heap_memory_detach("socket_0", memory, 16 * PAGE), -1, EPERM);
  EXPECT_FAILS(rte_malloc_heap_memory_detach("h", at(memory, PAGE), 16 * PAGE), -1, ENOENT);

  EXPECT_FAILS(rte_malloc_heap_destroy("h"), -1, EBUSY);
  {
    void* p = rte_malloc_socket(NULL, 1, 0, rte_malloc_heap_get_socket("h"));
    EXPECT(p != NULL);
    EXPECT_FAILS(rte_malloc_heap_destroy("h"), -1, EBUSY);
    EXPECT_FAILS(rte_malloc_heap_memory_remove("h", memory, 16 * PAGE), -1, EBUSY);
    EXPECT(rte_malloc_validate(p, NULL) == 0);
    rte_free(p);
  }
#ifdef RTE_LIB_EXTMEM /* in DPDK only a process that did not add the memory may do this */
  EXPECT(rte_malloc_heap_memory_detach("h", memory, 16 * PAGE) == 0);
  EXPECT_FAILS(rte_malloc_heap_memory_detach("h", memory, 16 * PAGE), -1, ENOENT);
  EXPECT(rte_malloc_socket(NULL, 1, 0, rte_malloc_heap_get_socket("h")) == NULL);
  EXPECT(rte_malloc_heap_memory_attach("h", memory, 16 * PAGE) == 0);
#endif
  EXPECT(rte_malloc_heap_memory_remove("h", memory, 16 * PAGE) == 0);
  EXPECT_FAILS(rte_malloc_heap_memory_remove("h", memory, 16 * PAGE), -1, ENOENT);
  EXPECT(rte_malloc_heap_destroy("h") == 0);
  munmap(memory, 64 * PAGE);
}

/* The smallest heaps that make sense, of two pages. */
static void test_small_heap(void) {
  struct rte_malloc_socket_stats before, now;
  void* memory = map(2 * PAGE);
  rte_iova_t iovas[2] = {0x10000000, 0x20000000};
  const rte_iova_t copied[2] = {0x10000000, 0x20000000};
  int socket;
  char *p, *q;
  size_t usable = 0;
  memset(memory, 0xa5, 2 * PAGE);
  EXPECT(rte_malloc_heap_create("small") == 0);
  socket = rte_malloc_heap_get_socket("small");
  EXPECT(rte_malloc_get_socket_stats(socket, &before) == 0);
  EXPECT(before.heap_totalsz_bytes == 0 && before.free_count == 0 && before.greatest_free_size == 0);
  EXPECT(rte_malloc_heap_memory_add("small", memory, 2 * PAGE, iovas, 2, PAGE) == 0);
  memset(iovas, 0, sizeof iovas); /* the table was copied */
  EXPECT(rte_malloc_get_socket_stats(socket, &before) == 0);
  EXPECT(before.heap_totalsz_bytes == 2 * PAGE);
  EXPECT(before.free_count == 1 && before.alloc_count == 0 && before.heap_allocsz_bytes == 0);
  EXPECT(before.heap_freesz_bytes == before.heap_totalsz_bytes);

  p = (char*)rte_zmalloc_socket("x", 1000, 0, socket);
  EXPECT(p != NULL && p >= (char*)memory && p + 1000 <= (char*)memory + 2 * PAGE);
  if (p == NULL) return;
  for (size_t i = 0; i < 1000; i++) EXPECT(p[i] == 0);
  EXPECT(rte_malloc_validate(p, &usable) == 0);
  EXPECT(usable >= 1000 && usable < 1000 + 64);
  EXPECT((uintptr_t)p % 64 == 0);
  EXPECT(rte_malloc_virt2iova(p) == copied[((uintptr_t)p - (uintptr_t)memory) / PAGE] + (uintptr_t)p % PAGE);
  rte_free(p);
  EXPECT(rte_malloc_socket("x", 0, 64, socket) == NULL && rte_malloc_socket("x", 64, 48, socket) == NULL);
  p = (char*)rte_malloc_socket("x", 1024, 64, socket);
  q = (char*)rte_malloc_socket("x", 1024, 64, socket);
  EXPECT(p != NULL && q != NULL && q < p); /* from the high end downwards */
  EXPECT(rte_malloc_get_socket_stats(socket, &now) == 0);
  EXPECT(now.alloc_count == 2 && now.free_count == 1);
  EXPECT(now.heap_totalsz_bytes == now.heap_freesz_bytes + now.heap_allocsz_bytes);
#ifdef RTE_LIB_EXTMEM
  EXPECT(rte_malloc_validate(p, &usable) == 0 && usable == 1024);
  EXPECT(now.heap_allocsz_bytes == 2048);
  EXPECT(q + 1024 == p);
#endif
  rte_free(p);
  rte_free(q);
  EXPECT(rte_malloc_get_socket_stats(socket, &now) == 0);
  EXPECT(memcmp(&now, &before, sizeof now) == 0);
#ifdef RTE_LIB_EXTMEM
  p = (char*)rte_malloc_socket("x", 2 * PAGE, 0, socket); /* every byte of it */
  EXPECT(p == memory);
  EXPECT(rte_malloc_socket("x", 1, 0, socket) == NULL);
  rte_free(p);
  EXPECT(rte_malloc_socket("x", 2 * PAGE + 1, 0, socket) == NULL);
  /* Nothing was written to the memory but the zeros. */
  EXPECT(((unsigned char*)memory)[0] == 0xa5);
#endif
  EXPECT(rte_malloc_heap_memory_remove("small", memory, 2 * PAGE) == 0);
  EXPECT(rte_malloc_heap_destroy("small") == 0);
  munmap(memory, 2 * PAGE);
}

static void test_iovas(void) {
  enum { PAGES = 8 };
  void* memory = map(PAGES * PAGE);
  /* pages 0-1 and 4-6 are runs; 3 is bad */
  rte_iova_t iovas[PAGES] = {0x100000, 0x101000, 0x300000, RTE_BAD_IOVA,
                             0x500000, 0x501000, 0x502000, 0x900000};
  const struct rte_memzone* mz;
  int socket;
  if (DPDK_NO_HUGE) return; /* there every table is taken for contiguous */
  EXPECT(rte_malloc_heap_create("iovas") == 0);
  socket = rte_malloc_heap_get_socket("iovas");
  EXPECT(rte_malloc_heap_memory_add("iovas", memory, PAGES * PAGE, iovas, PAGES, PAGE) == 0);
  EXPECT(rte_mem_iova2virt(0x501010) == at(memory, 5 * PAGE + 0x10));
  EXPECT(rte_mem_iova2virt(0x503000) == NULL);
  EXPECT(rte_mem_iova2virt(RTE_BAD_IOVA) == NULL);
  mz = rte_memzone_reserve_aligned("run", 2 * PAGE, socket, RTE_MEMZONE_IOVA_CONTIG, PAGE);
  EXPECT(mz != NULL);
  if (mz != NULL) {
    EXPECT(mz->addr == at(memory, 4 * PAGE) || mz->addr == at(memory, 5 * PAGE));
    EXPECT(mz->iova == rte_malloc_virt2iova(mz->addr));
    EXPECT(mz->socket_id == socket && mz->hugepage_sz == PAGE && mz->len == 2 * PAGE);
    EXPECT(rte_memzone_free(mz) == 0);
  }
  EXPECT_FAILS(rte_memzone_reserve("run", 4 * PAGE, socket, RTE_MEMZONE_IOVA_CONTIG), NULL, ENOMEM);
  mz = rte_memzone_reserve("any", 5 * PAGE, socket, 0);
  EXPECT(mz != NULL);
  EXPECT(rte_memzone_free(mz) == 0);
#ifdef RTE_LIB_EXTMEM
  mz = rte_memzone_reserve("run", 3 * PAGE, socket, RTE_MEMZONE_IOVA_CONTIG);
  EXPECT(mz != NULL && mz->addr == at(memory, 4 * PAGE) && mz->iova == 0x500000);
  EXPECT(rte_memzone_free(mz) == 0);
#endif
  EXPECT(rte_malloc_heap_memory_remove("iovas", memory, PAGES * PAGE) == 0);

  /* Without a table: inside one page all is contiguous, over two nothing is. */
  EXPECT(rte_malloc_heap_memory_add("iovas", memory, PAGES * PAGE, NULL, 0, PAGE) == 0);
  mz = rte_memzone_reserve("inside", 1024, socket, RTE_MEMZONE_IOVA_CONTIG);
  EXPECT(mz != NULL && mz->iova == RTE_BAD_IOVA);
  EXPECT(rte_memzone_free(mz) == 0);
  EXPECT_FAILS(rte_memzone_reserve("over", PAGE + 64, socket, RTE_MEMZONE_IOVA_CONTIG), NULL, ENOMEM);
  {
    void* p = rte_malloc_socket(NULL, 64, 0, socket);
    EXPECT(p != NULL && rte_malloc_virt2iova(p) == RTE_BAD_IOVA);
    rte_free(p);
  }
  EXPECT(rte_malloc_heap_memory_remove("iovas", memory, PAGES * PAGE) == 0);
  EXPECT(rte_malloc_heap_destroy("iovas") == 0);
  munmap(memory, PAGES * PAGE);
}

/* Any numbers will do as IOVAs: no multiples of the page size, the same one twice, overlapping. */
static void test_any_iovas(void) {
  enum { PAGES = 8, LARGE = 16 * PAGE };
  static const rte_iova_t tables[][PAGES] = {
      {1, 2, 3, 4, 5, 6, 7, 8},
      {0x1000, 0x11000, 0x21000, 0x31000, 0x51000, 0x61000, RTE_BAD_IOVA, 0},
      {0xfff, 0xfff, 0xfff, 0x7fffffffffffff, 0xdeadbeef, 5, RTE_BAD_IOVA, 77},
      {1ull << 63, 3, (1ull << 63) + LARGE, 3 + LARGE, 1, 1 + LARGE, 1 + 2 * LARGE, RTE_BAD_IOVA},
  };
  char* const memory = (char*)RTE_PTR_ALIGN(map((PAGES + 1) * LARGE), LARGE);
  unsigned t, i;
  EXPECT(rte_malloc_heap_create("any") == 0);
  for (t = 0; t < RTE_DIM(tables); t++) {
    rte_iova_t table[PAGES];
    const rte_iova_t* iovas = tables[t];
    void* p;
    memcpy(table, iovas, sizeof table);
    EXPECT(rte_malloc_heap_memory_add("any", memory, PAGES * LARGE, table, PAGES, LARGE) == 0);
    for (i = 0; i < PAGES; i++) {
      const struct rte_memseg* ms = rte_mem_virt2memseg(memory + i * LARGE + 5, NULL);
      EXPECT(ms != NULL && ms->addr == memory + i * LARGE && ms->iova == iovas[i] && ms->len == LARGE);
    }
    p = rte_malloc_socket(NULL, 64, 0, rte_malloc_heap_get_socket("any")); /* in the last page */
    EXPECT(p != NULL);
    EXPECT(rte_malloc_virt2iova(p) ==
           (iovas[PAGES - 1] == RTE_BAD_IOVA ? RTE_BAD_IOVA : iovas[PAGES - 1] + (uintptr_t)p % LARGE));
    rte_free(p);
    if (!DPDK_NO_HUGE) {
      EXPECT(rte_mem_iova2virt(iovas[4] + 9) != NULL);
      EXPECT(t == 0 || t == 3 || rte_mem_iova2virt(iovas[4] + 9) == memory + 4 * LARGE + 9);
      if (t == 3) { /* pages 4 to 6 are a run, pages 0 and 2 are none */
        const struct rte_memzone* mz =
            rte_memzone_reserve("run", 2 * LARGE, rte_malloc_heap_get_socket("any"), RTE_MEMZONE_IOVA_CONTIG);
        EXPECT(mz != NULL && mz->iova == iovas[4] + (size_t)((char*)mz->addr - (memory + 4 * LARGE)));
        EXPECT(rte_memzone_free(mz) == 0);
      }
    }
    EXPECT(rte_malloc_heap_memory_remove("any", memory, PAGES * LARGE) == 0);
    memcpy(table, iovas, sizeof table);
    EXPECT(rte_extmem_register(memory, PAGES * LARGE, table, PAGES, LARGE) == 0);
    EXPECT(rte_mem_virt2memseg(memory + 3 * LARGE, NULL)->iova == iovas[3]);
    EXPECT(rte_extmem_unregister(memory, PAGES * LARGE) == 0);
  }
  EXPECT(rte_malloc_heap_destroy("any") == 0);
}

/* Several pieces of memory in one heap; SOCKET_ID_ANY keeps away from it. */
static void test_pieces(void) {
  void *first = map(16 * PAGE), *second = map(16 * PAGE);
  struct rte_malloc_socket_stats stats;
  void* given[64];
  unsigned n = 0;
  int socket, in_first = 0, in_second = 0;
  EXPECT(rte_malloc_heap_create("pieces") == 0);
  socket = rte_malloc_heap_get_socket("pieces");
  EXPECT(rte_malloc_heap_memory_add("pieces", first, 16 * PAGE, NULL, 0, PAGE) == 0);
  EXPECT(rte_malloc_heap_memory_add("pieces", second, 16 * PAGE, NULL, 0, PAGE) == 0);
  EXPECT(rte_malloc_get_socket_stats(socket, &stats) == 0);
  EXPECT(stats.heap_totalsz_bytes == 32 * PAGE);
  while (n < 64 && (given[n] = rte_malloc_socket(NULL, 3 * PAGE, 0, socket)) != NULL) {
    if (given[n] >= first && given[n] < at(first, 16 * PAGE)) in_first++;
    if (given[n] >= second && given[n] < at(second, 16 * PAGE)) in_second++;
    n++;
  }
  EXPECT(in_first >= 5 && in_second >= 5 && in_first + in_second == (int)n);
  {
    void* p = rte_malloc(NULL, 64, 0);
    EXPECT(p != NULL && rte_malloc_heap_socket_is_external(rte_mem_virt2memseg_list(p)->socket_id) == 0);
    rte_free(p);
  }
  EXPECT_FAILS(rte_malloc_heap_memory_remove("pieces", first, 16 * PAGE), -1, EBUSY);
  while (n > 0) rte_free(given[--n]);
  EXPECT(rte_malloc_heap_memory_remove("pieces", first, 16 * PAGE) == 0);
  EXPECT(rte_malloc_get_socket_stats(socket, &stats) == 0);
  EXPECT(stats.heap_totalsz_bytes == 16 * PAGE && stats.alloc_count == 0);
  EXPECT(rte_malloc_heap_memory_remove("pieces", second, 16 * PAGE) == 0);
  EXPECT(rte_malloc_heap_destroy("pieces") == 0);
  munmap(first, 16 * PAGE);
  munmap(second, 16 * PAGE);
}

#ifdef RTE_LIB_EXTMEM
/* Very many pieces: full ones are passed over, and used again as soon as something is freed in them, the first added first. */
static void test_many_pieces(void) {
  enum { PIECES = 300, LENGTH = 2 * PAGE, SIZE = 1024, EACH = LENGTH / SIZE };
  static char* given[PIECES * EACH];
  static char* pieces[PIECES];
  char* memory = (char*)map((size_t)PIECES * 2 * LENGTH);
  struct rte_malloc_socket_stats stats;
  unsigned n = 0, i;
  int socket;
  char* p;
  EXPECT(rte_malloc_heap_create("many") == 0);
  socket = rte_malloc_heap_get_socket("many");
  for (i = 0; i < PIECES; i++) { /* not in the order of their addresses */
    pieces[i] = memory + (size_t)(i * 7 % PIECES) * 2 * LENGTH;
    EXPECT(rte_malloc_heap_memory_add("many", pieces[i], LENGTH, NULL, 0, PAGE) == 0);
  }
  while (n < PIECES * EACH && (p = (char*)rte_malloc_socket(NULL, SIZE, 0, socket)) != NULL) {
    EXPECT(p == pieces[n / EACH] + LENGTH - (n % EACH + 1) * SIZE);
    given[n++] = p;
  }
  EXPECT(n == PIECES * EACH);
  EXPECT(rte_malloc_socket(NULL, 64, 0, socket) == NULL);
  rte_free(given[250 * EACH + 3]);
  rte_free(given[40 * EACH + 1]);
  rte_free(given[100 * EACH]);
  EXPECT(rte_malloc_socket(NULL, SIZE, 0, socket) == given[40 * EACH + 1]);
  EXPECT(rte_malloc_socket(NULL, SIZE, 0, socket) == given[100 * EACH]);
  EXPECT(rte_malloc_socket(NULL, SIZE / 2, 0, socket) == given[250 * EACH + 3] + SIZE / 2);
  p = (char*)rte_realloc(given[20 * EACH + 4], SIZE / 2, 0); /* the rest of it is free */
  EXPECT(p == given[20 * EACH + 4]);
  EXPECT(rte_malloc_socket(NULL, SIZE / 2, 0, socket) == p + SIZE / 2);
  EXPECT(rte_malloc_socket(NULL, SIZE / 2, 0, socket) == given[250 * EACH + 3]);
  EXPECT(rte_malloc_socket(NULL, 64, 0, socket) == NULL);
  rte_free(p + SIZE / 2);
  rte_free(given[250 * EACH + 3] + SIZE / 2);
  for (i = 0; i < n; i++) rte_free(given[i]);
  EXPECT(rte_malloc_get_socket_stats(socket, &stats) == 0);
  EXPECT(stats.alloc_count == 0 && stats.free_count == PIECES && stats.greatest_free_size == LENGTH);
  for (i = 0; i < PIECES; i++) { /* taken away here and there */
    unsigned k = i * 11 % PIECES;
    EXPECT(rte_malloc_heap_memory_remove("many", pieces[k], LENGTH) == 0);
    p = (char*)rte_malloc_socket(NULL, SIZE, 0, socket);
    EXPECT((p != NULL) == (i + 1 < PIECES));
    rte_free(p);
  }
  EXPECT(rte_malloc_heap_destroy("many") == 0);
  munmap(memory, (size_t)PIECES * 2 * LENGTH);
}

static void test_by_name(void) {
  void* memory = map(16 * PAGE);
  struct rte_malloc_socket_stats stats;
  const struct rte_memzone* mz;
  volatile size_t half = SIZE_MAX / 2; /* the compiler would warn of the constant */
  char* p;
  EXPECT(rte_malloc_heap_create("named") == 0);
  EXPECT(rte_malloc_heap_memory_add("named", memory, 16 * PAGE, NULL, 0, PAGE) == 0);
  p = (char*)rte_malloc_from_heap("named", "x", 100, 0);
  EXPECT(p >= (char*)memory && p < (char*)memory + 16 * PAGE);
  rte_free(p);
  p = (char*)rte_zmalloc_from_heap("named", "x", 100, 256);
  EXPECT(p != NULL && (uintptr_t)p % 256 == 0 && p[0] == 0 && p[99] == 0);
  EXPECT(rte_malloc_get_stats_from_heap("named", &stats) == 0);
  EXPECT(stats.alloc_count == 1 && stats.heap_allocsz_bytes == 128);
  rte_free(p);
  p = (char*)rte_calloc_from_heap("named", "x", 10, 10, 0);
  EXPECT(p != NULL && p[99] == 0);
  rte_free(p);
  EXPECT(rte_calloc_from_heap("named", "x", half, 3, 0) == NULL);
  EXPECT_FAILS(rte_malloc_from_heap("nobody", "x", 100, 0), NULL, 0);
  EXPECT_FAILS(rte_malloc_from_heap(NULL, "x", 100, 0), NULL, 0);
  EXPECT_FAILS(rte_malloc_from_heap("named", "x", 0, 0), NULL, 0);
  EXPECT_FAILS(rte_malloc_from_heap("named", "x", 100, 3), NULL, 0);
  p = (char*)rte_malloc_from_heap("socket_0", "x", 100, 0);
  EXPECT(p != NULL);
  rte_free(p);
  EXPECT_FAILS(rte_malloc_get_stats_from_heap(NULL, &stats), -1, EINVAL);
  EXPECT_FAILS(rte_malloc_get_stats_from_heap("named", NULL), -1, EINVAL);
  EXPECT_FAILS(rte_malloc_get_stats_from_heap("nobody", &stats), -1, ENOENT);
  mz = rte_memzone_reserve_from_heap("zone", "named", 100, 0);
  EXPECT(mz != NULL && mz->addr >= memory && mz->addr < at(memory, 16 * PAGE) && mz->len == 128);
  EXPECT_FAILS(rte_memzone_reserve_aligned_from_heap("zone", "named", 100, 0, 64), NULL, EEXIST);
  EXPECT(rte_memzone_free(mz) == 0);
  mz = rte_memzone_reserve_aligned_from_heap("zone", "named", 100, 0, PAGE);
  EXPECT(mz != NULL && (uintptr_t)mz->addr % PAGE == 0);
  EXPECT(rte_memzone_free(mz) == 0);
  mz = rte_memzone_reserve_bounded_from_heap("zone", "named", 1000, 0, 64, 1024);
  EXPECT(mz != NULL && (uintptr_t)mz->addr / 1024 == ((uintptr_t)mz->addr + 999) / 1024);
  EXPECT(rte_memzone_free(mz) == 0);
  EXPECT_FAILS(rte_memzone_reserve_from_heap("zone", "nobody", 100, 0), NULL, EINVAL);
  EXPECT(rte_malloc_heap_memory_remove("named", memory, 16 * PAGE) == 0);
  EXPECT(rte_malloc_heap_destroy("named") == 0);
  munmap(memory, 16 * PAGE);
}
#endif

int main(int argc, char** argv) {
  if (rte_eal_init(argc, argv) < 0) {
    printf("rte_eal_init: %s\n", rte_strerror(rte_errno));
    return 1;
  }
  test_names();
  test_memory_errors();
  test_small_heap();
  test_iovas();
  test_any_iovas();
  test_pieces();
#ifdef RTE_LIB_EXTMEM
  test_many_pieces();
  test_by_name();
#endif
  EXPECT(rte_eal_cleanup() == 0);
  return failures != 0;
}
