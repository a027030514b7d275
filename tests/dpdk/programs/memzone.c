/* Memzones: every error in its order, their fields, biggest and bounded ones, many of them.
 *
 * It was run against DPDK 22.11 too; RTE_LIB_EXTMEM marks where extmem differs. */
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

static void test_errors(void) {
  const struct rte_memzone* mz = rte_memzone_reserve(LONGEST, 100, SOCKET_ID_ANY, 0);
  EXPECT(mz != NULL);
  EXPECT_FAILS(rte_memzone_reserve_bounded(TOO_LONG, SIZE_MAX, -2, 0, 3, 3), NULL, ENAMETOOLONG);
  EXPECT_FAILS(rte_memzone_reserve_bounded(LONGEST, SIZE_MAX, -2, 0, 3, 3), NULL, EEXIST);
  EXPECT_FAILS(rte_memzone_reserve_aligned("new", 100, SOCKET_ID_ANY, 0, 3), NULL, EINVAL);
  EXPECT_FAILS(rte_memzone_reserve_aligned("new", 100, SOCKET_ID_ANY, 0, 96), NULL, EINVAL);
  EXPECT_FAILS(rte_memzone_reserve("new", SIZE_MAX, SOCKET_ID_ANY, 0), NULL, EINVAL);
  EXPECT_FAILS(rte_memzone_reserve("new", SIZE_MAX - 62, SOCKET_ID_ANY, 0), NULL, EINVAL);
  EXPECT_FAILS(rte_memzone_reserve("new", SIZE_MAX - 63, SOCKET_ID_ANY, 0), NULL, ENOMEM);
  EXPECT_FAILS(rte_memzone_reserve_bounded("new", 100, SOCKET_ID_ANY, 0, 64, 96), NULL, EINVAL);
  EXPECT_FAILS(rte_memzone_reserve_bounded("new", 100, SOCKET_ID_ANY, 0, 64, 64), NULL,
               EINVAL); /* 128 > 64 */
  EXPECT_FAILS(rte_memzone_reserve_bounded("new", 0, SOCKET_ID_ANY, 0, 64, 32), NULL, EINVAL);
  EXPECT_FAILS(rte_memzone_reserve("new", 100, -2, 0), NULL, EINVAL);
#ifdef RTE_LIB_EXTMEM
  EXPECT_FAILS(rte_memzone_reserve("new", 100, 5000, 0), NULL, EINVAL);
  EXPECT_FAILS(rte_memzone_reserve("new", 100, SOCKET_ID_ANY, 0x80000000u), NULL, EINVAL);
  EXPECT_FAILS(rte_memzone_reserve(NULL, 100, SOCKET_ID_ANY, 0), NULL, EINVAL);
  EXPECT_FAILS(rte_memzone_reserve("new", (size_t)1 << 46, SOCKET_ID_ANY, 0), NULL, ENOMEM);
  EXPECT_FAILS(rte_memzone_reserve("new", (size_t)1 << 45, SOCKET_ID_ANY, 0), NULL, ENOMEM);
  EXPECT_FAILS(rte_memzone_lookup(NULL), NULL, ENOENT);
  EXPECT(rte_memzone_max_get() == 2560);
  EXPECT(rte_memzone_max_set(10) == -1); /* too late */
#endif
  EXPECT_FAILS(rte_memzone_lookup(TOO_LONG), NULL, ENOENT);
  EXPECT_FAILS(rte_memzone_lookup("new"), NULL, ENOENT);
  EXPECT(rte_memzone_lookup(LONGEST) == mz);
  EXPECT(rte_memzone_free(NULL) == -EINVAL);
  EXPECT(rte_memzone_free(mz) == 0);
  EXPECT(rte_memzone_free(mz) == -EINVAL);
  EXPECT(rte_memzone_lookup(LONGEST) == NULL);
}

static void test_fields(void) {
  const struct rte_memzone *mz, *other;
  mz = rte_memzone_reserve("zone", 100, 0, 0);
  EXPECT(mz != NULL);
  if (mz == NULL) return;
  EXPECT(strcmp(mz->name, "zone") == 0 && mz->len == 128 && mz->flags == 0);
  EXPECT((uintptr_t)mz->addr % 64 == 0 && mz->addr_64 == (uintptr_t)mz->addr);
  EXPECT(mz->iova == rte_malloc_virt2iova(mz->addr));
  EXPECT(mz->hugepage_sz == rte_mem_virt2memseg_list(mz->addr)->page_sz);
  EXPECT(mz->socket_id == rte_mem_virt2memseg_list(mz->addr)->socket_id);
  EXPECT(rte_malloc_validate(mz->addr, NULL) == 0);
  memset(mz->addr, 0xff, mz->len);
  other = rte_memzone_reserve_aligned("aligned", 1, SOCKET_ID_ANY, 0, 1 << 16);
  EXPECT(other != NULL && (uintptr_t)other->addr % (1 << 16) == 0 && other->len == 64);
  EXPECT(rte_memzone_free(other) == 0);
  other = rte_memzone_reserve_aligned("aligned", 1, SOCKET_ID_ANY, 0, 0);
  EXPECT(other != NULL && other->len == 64);
  EXPECT(rte_memzone_free(other) == 0);
  other = rte_memzone_reserve_bounded("bounded", 3000, SOCKET_ID_ANY, 0, 64, 4096);
  EXPECT(other != NULL && (uintptr_t)other->addr / 4096 == ((uintptr_t)other->addr + other->len - 1) / 4096);
  EXPECT(rte_memzone_free(other) == 0);
  other = rte_memzone_reserve_bounded("bounded", 0, SOCKET_ID_ANY, 0, 64, 8192);
  EXPECT(other != NULL && other->len == 8192 && (uintptr_t)other->addr % 8192 == 0);
  EXPECT(rte_memzone_free(other) == 0);
  other = rte_memzone_reserve("contiguous", 1 << 20, SOCKET_ID_ANY, RTE_MEMZONE_IOVA_CONTIG);
  EXPECT(other != NULL && other->iova == rte_malloc_virt2iova(other->addr));
  EXPECT(rte_memzone_free(other) == 0);
  EXPECT(rte_memzone_lookup("zone") == mz);
  EXPECT(rte_memzone_free(mz) == 0);
#ifdef RTE_LIB_EXTMEM
  EXPECT(mz->addr == NULL && mz->name[0] == '\0'); /* as in DPDK, but there the place may be used again */
  mz = rte_memzone_reserve("", 100, SOCKET_ID_ANY, 0);
  EXPECT(mz != NULL && mz->name[0] == '\0' && rte_memzone_lookup("") == mz);
  EXPECT_FAILS(rte_memzone_reserve("", 100, SOCKET_ID_ANY, 0), NULL, EEXIST);
  EXPECT(rte_memzone_free(mz) == 0);
  EXPECT(rte_memzone_lookup("") == NULL);
#endif
}

static void test_pages(void) {
  void* p = rte_malloc(NULL, 64, 0);
  const uint64_t page = rte_mem_virt2memseg_list(p)->page_sz;
  const struct rte_memzone* mz;
  rte_free(p);
  mz = rte_memzone_reserve("2M", 100, SOCKET_ID_ANY, RTE_MEMZONE_2MB);
  EXPECT((mz != NULL) == (page == RTE_PGSIZE_2M));
  if (mz != NULL) EXPECT(mz->hugepage_sz == RTE_PGSIZE_2M && rte_memzone_free(mz) == 0);
  EXPECT_FAILS(rte_memzone_reserve("16G", 100, SOCKET_ID_ANY, RTE_MEMZONE_16GB), NULL, ENOMEM);
  mz = rte_memzone_reserve("16G", 100, SOCKET_ID_ANY, RTE_MEMZONE_16GB | RTE_MEMZONE_SIZE_HINT_ONLY);
  EXPECT(mz != NULL && mz->hugepage_sz == page);
  EXPECT(rte_memzone_free(mz) == 0);
}

static void test_biggest(void) {
  struct rte_malloc_socket_stats before, now;
  void* memory = mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  const struct rte_memzone *mz, *second;
  void* p;
  int socket;
  if (DPDK_NO_HUGE) return; /* there the biggest piece is all of socket_0, whatever heap was asked for */
  EXPECT(memory != MAP_FAILED);
  EXPECT(rte_malloc_heap_create("h") == 0);
  socket = rte_malloc_heap_get_socket("h");
  EXPECT_FAILS(rte_memzone_reserve("biggest", 0, socket, 0), NULL, ENOMEM); /* no memory yet */
  EXPECT(rte_malloc_heap_memory_add("h", memory, 64 * PAGE, NULL, 0, PAGE) == 0);
  EXPECT(rte_malloc_get_socket_stats(socket, &before) == 0);
  mz = rte_memzone_reserve("biggest", 0, socket, 0);
  EXPECT(mz != NULL);
  if (mz == NULL) return;
  EXPECT(mz->len <= before.greatest_free_size && mz->len + 4 * 64 >= before.greatest_free_size);
#ifdef RTE_LIB_EXTMEM
  EXPECT(mz->len == before.greatest_free_size && mz->len == 64 * PAGE && mz->addr == memory);
#endif
  EXPECT_FAILS(rte_memzone_reserve("second", 0, socket, 0), NULL, ENOMEM);
  EXPECT(rte_malloc_socket(NULL, 1, 0, socket) == NULL);
  EXPECT_FAILS(rte_malloc_heap_memory_remove("h", memory, 64 * PAGE), -1, EBUSY);
  EXPECT(rte_memzone_free(mz) == 0);
  p = rte_malloc_socket(NULL, 10 * PAGE, 0, socket);
  EXPECT(rte_malloc_get_socket_stats(socket, &now) == 0);
#ifdef RTE_LIB_EXTMEM
  second =
      rte_memzone_reserve("second", 0, socket, RTE_MEMZONE_16GB); /* external heaps do not look at pages */
  EXPECT(second != NULL && second->len == now.greatest_free_size);
#else
  second = rte_memzone_reserve("second", 0, socket, 0);
  EXPECT(second != NULL && second->len <= now.greatest_free_size);
#endif
  EXPECT(second->socket_id == socket && second->hugepage_sz == PAGE && second->iova == RTE_BAD_IOVA);
  EXPECT(rte_memzone_free(second) == 0);
  rte_free(p);
  EXPECT(rte_malloc_get_socket_stats(socket, &now) == 0);
  EXPECT(memcmp(&before, &now, sizeof now) == 0);
  EXPECT(rte_malloc_heap_memory_remove("h", memory, 64 * PAGE) == 0);
  EXPECT(rte_malloc_heap_destroy("h") == 0);
  munmap(memory, 64 * PAGE);
}

/* A new memzone gets the lowest place that is free. DPDK's own test compares the addresses. */
static void test_places(void) {
  const struct rte_memzone* first = rte_memzone_reserve("first", 64, SOCKET_ID_ANY, 0);
  const struct rte_memzone* second = rte_memzone_reserve("second", 64, SOCKET_ID_ANY, 0);
  const struct rte_memzone* third = rte_memzone_reserve("third", 64, SOCKET_ID_ANY, 0);
  const struct rte_memzone* again;
  EXPECT(first < second && second < third);
  EXPECT(rte_memzone_free(first) == 0);
  EXPECT(rte_memzone_free(second) == 0);
  again = rte_memzone_reserve("again", 64, SOCKET_ID_ANY, 0);
  EXPECT(again == first);
  EXPECT(rte_memzone_reserve("and again", 64, SOCKET_ID_ANY, 0) == second);
  EXPECT(rte_memzone_free(third) == 0);
  EXPECT(rte_memzone_free(second) == 0);
  EXPECT(rte_memzone_free(again) == 0);
}

static unsigned walked, walked_mine;
static void count(const struct rte_memzone* mz, void* arg) {
  walked++;
  if (strncmp(mz->name, (const char*)arg, strlen((const char*)arg)) == 0) walked_mine++;
  EXPECT(rte_memzone_lookup(mz->name) == mz);
}

static void test_many(void) {
  static const struct rte_memzone* zones[3000];
  static char text[1 << 20];
  struct rte_malloc_socket_stats before, now;
  unsigned n = 0, i, others;
  char name[RTE_MEMZONE_NAMESIZE];
  FILE* f;
  walked = 0;
  {
    char prefix[] = "many-";
    rte_memzone_walk(count, prefix);
    others = walked;
    EXPECT(rte_malloc_get_socket_stats(0, &before) == 0);
    rte_errno = 0;
    for (n = 0; n < RTE_DIM(zones); n++) {
      snprintf(name, sizeof name, "many-%u", n);
      zones[n] = rte_memzone_reserve(name, 64, 0, 0);
      if (zones[n] == NULL) break;
    }
    if (n + others != 2560) printf("%u and %u\n", n, others);
    EXPECT(n + others == 2560 && rte_errno == ENOSPC);
    EXPECT_FAILS(rte_memzone_reserve(TOO_LONG, 64, 0, 0), NULL, ENOSPC);
    walked = walked_mine = 0;
    rte_memzone_walk(count, prefix);
    EXPECT(walked == 2560 && walked_mine == n);
  }
  for (i = 0; i < n; i++) {
    snprintf(name, sizeof name, "many-%u", i);
    EXPECT(rte_memzone_lookup(name) == zones[i]);
  }
  f = fmemopen(text, sizeof text, "w");
  rte_memzone_dump(f);
  fclose(f);
  EXPECT(strstr(text, "name:<many-2000>, len:0x") != NULL);
  EXPECT(strstr(text, "\nphysical segments used:\n  addr: 0x") != NULL);
  for (i = 0; i < n; i++) EXPECT(rte_memzone_free(zones[i]) == 0);
  EXPECT(rte_malloc_get_socket_stats(0, &now) == 0);
  EXPECT(memcmp(&before, &now, sizeof now) == 0);
}

int main(int argc, char** argv) {
  if (rte_eal_init(argc, argv) < 0) {
    printf("rte_eal_init: %s\n", rte_strerror(rte_errno));
    return 1;
  }
  test_errors();
  test_fields();
  test_pages();
  test_biggest();
  test_places();
  test_many();
  EXPECT(rte_eal_cleanup() == 0);
  return failures != 0;
}
