/* Walks over memory, lookups in it, the files behind it, registered memory, DMA masks.
 *
 * It was run against DPDK 22.11 too; RTE_LIB_EXTMEM marks where extmem differs. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <rte_eal.h>
#include <rte_eal_memconfig.h>
#include <rte_malloc.h>
#include <rte_memory.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "expect.h"

#define PAGE 4096u
#define PAGES 16u

static void* map(size_t length) {
  void* p = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  EXPECT(p != MAP_FAILED);
  return p;
}
static void* at(void* p, size_t offset) { return RTE_PTR_ADD(p, offset); }

/* What a walk has seen of the memory [base, base + PAGES * PAGE), and of all. */
struct seen {
  void* base;
  unsigned mine, external, all;
  int stop_after; /* calls; the callback then returns `with` */
  int with;
};
static struct seen look_for(void* base) {
  struct seen s;
  memset(&s, 0, sizeof s);
  s.base = base;
  return s;
}
static int after(struct seen* s) { return s->stop_after != 0 && --s->stop_after == 0 ? s->with : 0; }

static int see_page(const struct rte_memseg_list* msl, const struct rte_memseg* ms, void* arg) {
  struct seen* s = (struct seen*)arg;
  s->all++;
  EXPECT(ms->addr >= msl->base_va && ms->addr < RTE_PTR_ADD(msl->base_va, msl->len));
  EXPECT(ms->hugepage_sz == msl->page_sz && ms->len == msl->page_sz && ms->socket_id == msl->socket_id);
  EXPECT(rte_mem_virt2memseg(ms->addr, msl) == ms && rte_mem_virt2memseg(ms->addr, NULL) == ms);
  if (msl->external) s->external++;
  if (msl->base_va == s->base) {
    EXPECT(msl->external == 1 && msl->len == PAGES * PAGE);
    EXPECT(ms->addr == at(s->base, s->mine * PAGE));
    s->mine++;
  }
  return after(s);
}
static int see_area(const struct rte_memseg_list* msl, const struct rte_memseg* ms, size_t len, void* arg) {
  struct seen* s = (struct seen*)arg;
  s->all++;
  if (msl->base_va == s->base) {
    EXPECT(ms->addr == s->base && len == PAGES * PAGE);
    s->mine++;
  }
  return after(s);
}
static int see_list(const struct rte_memseg_list* msl, void* arg) {
  struct seen* s = (struct seen*)arg;
  s->all++;
  if (msl->external) s->external++;
  if (msl->base_va == s->base) {
    const struct rte_memseg* ms = (const struct rte_memseg*)rte_fbarray_get(&msl->memseg_arr, 3);
    EXPECT(msl->page_sz == PAGE && msl->memseg_arr.count == PAGES && msl->memseg_arr.len == PAGES);
    EXPECT(ms != NULL && ms->addr == at(s->base, 3 * PAGE));
    EXPECT(rte_fbarray_find_idx(&msl->memseg_arr, ms) == 3);
    s->mine++;
  }
  return after(s);
}

static void test_walks(void* memory, int expect_heap, int socket) {
  struct seen s = look_for(memory);
  struct rte_memseg_list* list;
  struct rte_memseg* ms;
  EXPECT(rte_memseg_walk(see_page, &s) == 0);
  EXPECT(s.mine == PAGES && s.external >= PAGES && s.all > s.external); /* the internal heap is there too */
  s = look_for(memory);
  EXPECT(rte_memseg_walk_thread_unsafe(see_page, &s) == 0 && s.mine == PAGES);
  s = look_for(memory);
  s.stop_after = 2;
  s.with = 17;
  EXPECT(rte_memseg_walk(see_page, &s) == 17 && s.all == 2);
  s = look_for(memory);
  s.stop_after = 1;
  s.with = -1;
  EXPECT(rte_memseg_walk(see_page, &s) == -1 && s.all == 1);
  s = look_for(memory);
  EXPECT(rte_memseg_contig_walk(see_area, &s) == 0 && s.mine == 1 && s.all >= 2);
  s = look_for(memory);
  EXPECT(rte_memseg_contig_walk_thread_unsafe(see_area, &s) == 0 && s.mine == 1);
  s = look_for(memory);
  s.stop_after = 1;
  s.with = 5;
  EXPECT(rte_memseg_contig_walk(see_area, &s) == 5 && s.all == 1);
  s = look_for(memory);
  EXPECT(rte_memseg_list_walk(see_list, &s) == 0 && s.mine == 1 && s.external >= 1);
  s = look_for(memory);
  EXPECT(rte_memseg_list_walk_thread_unsafe(see_list, &s) == 0 && s.mine == 1);
  s = look_for(memory);
  s.stop_after = 1;
  s.with = 3;
  EXPECT(rte_memseg_list_walk(see_list, &s) == 3 && s.all == 1);
#ifdef RTE_LIB_EXTMEM
  EXPECT_FAILS(rte_memseg_walk(NULL, NULL), -1, EINVAL);
  EXPECT_FAILS(rte_memseg_contig_walk(NULL, NULL), -1, EINVAL);
  EXPECT_FAILS(rte_memseg_list_walk(NULL, NULL), -1, EINVAL);
#endif

  list = rte_mem_virt2memseg_list(at(memory, PAGES * PAGE - 1));
  EXPECT(list != NULL && list->base_va == memory && list->external == 1);
  EXPECT(list->heap == (unsigned)expect_heap && list->socket_id == socket);
  ms = rte_mem_virt2memseg(at(memory, 5 * PAGE + 100), NULL);
  EXPECT(ms != NULL && ms->addr == at(memory, 5 * PAGE) && ms->iova == RTE_BAD_IOVA);
  EXPECT(rte_mem_virt2memseg(at(memory, 5 * PAGE + 100), list) == ms);
  EXPECT(rte_mem_virt2memseg_list(&list) == NULL);
  EXPECT(rte_mem_virt2memseg(&list, NULL) == NULL);
  EXPECT(rte_mem_virt2memseg_list(NULL) == NULL);
#ifdef RTE_LIB_EXTMEM
  {
    void* p = rte_malloc(NULL, 64, 0);
    EXPECT(rte_mem_virt2memseg(p, list) == NULL); /* not in this list */
    EXPECT(rte_mem_virt2memseg_list(at(memory, PAGES * PAGE)) != list);
    rte_free(p);
  }
#endif
}

static void test_registered(void) {
  void* memory = map(PAGES * PAGE);
  rte_iova_t iovas[PAGES];
  unsigned i;
  struct rte_memseg_list* list;
  int first;
  for (i = 0; i < PAGES; i++) iovas[i] = 0x40000000 + (rte_iova_t)(PAGES - i) * 0x100000;
  memset(memory, 0xa5, PAGES * PAGE);
  EXPECT_FAILS(rte_extmem_register(NULL, PAGES * PAGE, NULL, 0, PAGE), -1, EINVAL);
  EXPECT_FAILS(rte_extmem_register(memory, 0, NULL, 0, PAGE), -1, EINVAL);
  EXPECT_FAILS(rte_extmem_register(memory, PAGES * PAGE, NULL, 0, 0), -1, EINVAL);
  EXPECT_FAILS(rte_extmem_register(memory, PAGES * PAGE, NULL, 0, 3 * PAGE), -1, EINVAL);
  EXPECT_FAILS(rte_extmem_register(memory, PAGES * PAGE - 64, NULL, 0, PAGE), -1, EINVAL);
  EXPECT_FAILS(rte_extmem_register(at(memory, 64), PAGES * PAGE - PAGE, NULL, 0, PAGE), -1, EINVAL);
  EXPECT_FAILS(rte_extmem_register(memory, PAGES * PAGE, iovas, PAGES - 1, PAGE), -1, EINVAL);
  EXPECT_FAILS(rte_extmem_unregister(NULL, PAGES * PAGE), -1, EINVAL);
  EXPECT_FAILS(rte_extmem_unregister(memory, 0), -1, EINVAL);
  EXPECT_FAILS(rte_extmem_unregister(memory, PAGES * PAGE), -1, ENOENT);
  EXPECT_FAILS(rte_extmem_attach(NULL, PAGES * PAGE), -1, EINVAL);
  EXPECT_FAILS(rte_extmem_attach(memory, 0), -1, EINVAL);
  EXPECT_FAILS(rte_extmem_attach(memory, PAGES * PAGE), -1, ENOENT);
  EXPECT_FAILS(rte_extmem_detach(NULL, PAGES * PAGE), -1, EINVAL);
  EXPECT_FAILS(rte_extmem_detach(memory, 0), -1, EINVAL);
  EXPECT_FAILS(rte_extmem_detach(memory, PAGES * PAGE), -1, ENOENT);

  EXPECT(rte_extmem_register(memory, PAGES * PAGE, NULL, 77, PAGE) == 0);
  EXPECT_FAILS(rte_extmem_register(memory, PAGES * PAGE, NULL, 0, PAGE), -1, EEXIST);
  list = rte_mem_virt2memseg_list(memory);
  EXPECT(list != NULL && list->socket_id >= 256);
  if (list == NULL) return;
  first = list->socket_id;
  test_walks(memory, 0, first);
  EXPECT(rte_malloc_heap_socket_is_external(first) == -1); /* it is no heap's */
#ifdef RTE_LIB_EXTMEM
  EXPECT(rte_malloc_socket(NULL, 64, 0, first) == NULL); /* DPDK with --no-huge takes any socket for any */
  EXPECT_FAILS(rte_extmem_register(at(memory, PAGE), PAGE, NULL, 0, PAGE), -1, EEXIST);
  EXPECT_FAILS(rte_extmem_attach(memory, PAGES * PAGE), -1, EEXIST);
  EXPECT_FAILS(rte_memseg_get_fd(rte_mem_virt2memseg(memory, NULL)), -1, ENOTSUP);
#endif
  EXPECT_FAILS(rte_extmem_unregister(memory, PAGES * PAGE - PAGE), -1, ENOENT);
  EXPECT(rte_extmem_unregister(memory, PAGES * PAGE) == 0);
  EXPECT_FAILS(rte_extmem_unregister(memory, PAGES * PAGE), -1, ENOENT);
  EXPECT(rte_mem_virt2memseg_list(memory) == NULL);

  EXPECT(rte_extmem_register(memory, PAGES * PAGE, iovas, PAGES, PAGE) == 0);
  memset(iovas, 0, sizeof iovas);
  EXPECT(rte_mem_virt2memseg_list(memory)->socket_id > first); /* an id is not used again */
  EXPECT(rte_mem_virt2memseg(at(memory, 2 * PAGE), NULL)->iova ==
         0x40000000 + (rte_iova_t)(PAGES - 2) * 0x100000);
#ifdef RTE_LIB_EXTMEM
  EXPECT(rte_mem_iova2virt(0x40000000 + (rte_iova_t)(PAGES - 2) * 0x100000 + 5) == at(memory, 2 * PAGE + 5));
#endif
  EXPECT(rte_extmem_unregister(memory, PAGES * PAGE) == 0);
  EXPECT(*(unsigned char*)memory == 0xa5); /* never touched */

#ifdef RTE_LIB_EXTMEM
  EXPECT(rte_malloc_heap_create("h") == 0); /* DPDK would unregister the heap's memory */
  EXPECT(rte_malloc_heap_memory_add("h", memory, PAGES * PAGE, NULL, 0, PAGE) == 0);
  EXPECT_FAILS(rte_extmem_unregister(memory, PAGES * PAGE), -1, ENOENT);
  EXPECT(rte_malloc_heap_memory_remove("h", memory, PAGES * PAGE) == 0);
  EXPECT(rte_malloc_heap_destroy("h") == 0);
#endif
  munmap(memory, PAGES * PAGE);
}

static void test_heap_memory(void) {
  void* memory = map(PAGES * PAGE);
  EXPECT(rte_malloc_heap_create("walked") == 0);
  EXPECT(rte_malloc_heap_memory_add("walked", memory, PAGES * PAGE, NULL, 0, PAGE) == 0);
  test_walks(memory, 1, rte_malloc_heap_get_socket("walked"));
  EXPECT(rte_malloc_heap_memory_remove("walked", memory, PAGES * PAGE) == 0);
  EXPECT(rte_malloc_heap_destroy("walked") == 0);
  EXPECT(rte_mem_virt2memseg_list(memory) == NULL);
  munmap(memory, PAGES * PAGE);
}

static void test_internal(void) {
  void* p = rte_malloc(NULL, 100, 0);
  struct rte_memseg_list* list = rte_mem_virt2memseg_list(p);
  struct rte_memseg* ms = rte_mem_virt2memseg(p, list);
  struct rte_memseg not_one;
  size_t offset = 1;
  int fd;
  EXPECT(list != NULL && ms != NULL && list->external == 0 && list->heap == 1 && list->socket_id == 0);
  if (ms == NULL) return;
  EXPECT(rte_mem_virt2iova(p) == (rte_iova_t)(uintptr_t)p || rte_eal_iova_mode() == RTE_IOVA_PA);
  EXPECT(rte_mem_iova2virt(rte_malloc_virt2iova(p)) == p);
  EXPECT(rte_mem_lock_page(p) == 0);
  EXPECT(rte_eal_get_physmem_size() >= 64u << 20);
  EXPECT(rte_memory_get_nrank() == 0);
  memset(&not_one, 0, sizeof not_one);
  EXPECT_FAILS(rte_memseg_get_fd(NULL), -1, EINVAL);
  EXPECT_FAILS(rte_memseg_get_fd(&not_one), -1, EINVAL);
  EXPECT_FAILS(rte_memseg_get_fd_offset(NULL, &offset), -1, EINVAL);
  EXPECT_FAILS(rte_memseg_get_fd_offset(ms, NULL), -1, EINVAL);
  fd = rte_memseg_get_fd(ms);
#ifdef RTE_LIB_EXTMEM
  EXPECT(fd >= 0);
#endif
  if (fd >= 0) {
    char* mapped;
    EXPECT(rte_memseg_get_fd_thread_unsafe(ms) == fd);
    EXPECT(rte_memseg_get_fd_offset(ms, &offset) == 0);
    EXPECT(rte_memseg_get_fd_offset_thread_unsafe(ms, &offset) == 0);
    strcpy((char*)p, "seen through the file");
    mapped = (char*)mmap(NULL, ms->len, PROT_READ, MAP_SHARED, fd, (off_t)offset);
    EXPECT(mapped != MAP_FAILED);
    EXPECT(strcmp(mapped + ((uintptr_t)p - ms->addr_64), "seen through the file") == 0);
    munmap(mapped, ms->len);
  }
  rte_free(p);
#ifdef RTE_LIB_EXTMEM
  EXPECT_FAILS(rte_memseg_get_fd(ms + 100000), -1, EINVAL);
#endif
}

#ifdef RTE_LIB_EXTMEM
/* External memory in a shared mapping of a file that is still open here. */
static void test_external_fd(void) {
  const int fd = memfd_create("external", MFD_CLOEXEC);
  size_t offset = 0;
  char* memory;
  struct rte_memseg* ms;
  EXPECT(fd >= 0 && ftruncate(fd, 32 * PAGE) == 0);
  memory = (char*)mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 4 * PAGE);
  EXPECT(memory != MAP_FAILED);
  EXPECT(rte_extmem_register(memory, PAGES * PAGE, NULL, 0, PAGE) == 0);
  ms = rte_mem_virt2memseg(memory + 2 * PAGE, NULL);
  EXPECT(rte_memseg_get_fd(ms) == fd);
  EXPECT(rte_memseg_get_fd_offset(ms, &offset) == 0 && offset == 6 * PAGE);
  close(fd);
  EXPECT_FAILS(rte_memseg_get_fd(ms), -1, ENOTSUP);
  EXPECT_FAILS(rte_memseg_get_fd_offset(ms, &offset), -1, ENOTSUP);
  EXPECT(rte_extmem_unregister(memory, PAGES * PAGE) == 0);
  munmap(memory, PAGES * PAGE);
}

static int add_and_remove(const struct rte_memseg_list* msl, void* arg) {
  void* memory = *(void**)arg;
  void* p = rte_malloc(NULL, 1000, 0);
  RTE_SET_USED(msl);
  EXPECT(p != NULL);
  rte_free(p);
  EXPECT(rte_malloc_heap_memory_add("h", memory, PAGES * PAGE, NULL, 0, PAGE) == 0);
  EXPECT_FAILS(rte_malloc_heap_memory_remove("h", memory, PAGES * PAGE), -1, EDEADLK);
  p = rte_malloc(NULL, (size_t)100 << 20, 0); /* grows */
  EXPECT(p != NULL);
  rte_free(p); /* and stays until nobody walks */
  EXPECT(rte_mem_virt2memseg_list(p) != NULL);
  return 1;
}

static void test_inside_a_walk(void) {
  void* memory = map(PAGES * PAGE);
  struct rte_malloc_socket_stats before, now;
  void* p;
  EXPECT(rte_malloc_get_socket_stats(0, &before) == 0);
  EXPECT(rte_malloc_heap_create("h") == 0);
  EXPECT(rte_memseg_list_walk(add_and_remove, &memory) == 1);
  EXPECT(rte_malloc_heap_memory_remove("h", memory, PAGES * PAGE) == 0);
  EXPECT(rte_malloc_heap_destroy("h") == 0);
  p = rte_malloc(NULL, (size_t)100 << 20, 0);
  EXPECT(p != NULL);
  rte_free(p);
  EXPECT(rte_malloc_get_socket_stats(0, &now) == 0);
  EXPECT(before.heap_totalsz_bytes == now.heap_totalsz_bytes);
  munmap(memory, PAGES * PAGE);
}

static void test_locks(void) {
  void* memory = map(PAGES * PAGE);
  struct seen s = look_for(memory);
  EXPECT(rte_extmem_register(memory, PAGES * PAGE, NULL, 0, PAGE) == 0);
  rte_mcfg_mem_read_lock();
  rte_mcfg_mem_read_lock();
  EXPECT(rte_memseg_walk(see_page, &s) == 0 && s.mine == PAGES);
  EXPECT_FAILS(rte_extmem_unregister(memory, PAGES * PAGE), -1, EDEADLK);
  rte_mcfg_mem_read_unlock();
  rte_mcfg_mem_read_unlock();
  rte_mcfg_mem_write_lock();
  s = look_for(memory);
  EXPECT(rte_memseg_walk(see_page, &s) == 0 && s.mine == PAGES);
  EXPECT(rte_extmem_unregister(memory, PAGES * PAGE) == 0);
  rte_mcfg_mem_write_unlock();
  munmap(memory, PAGES * PAGE);
}
#endif

static void test_dma_mask(void) {
  void* memory = map(PAGES * PAGE);
  rte_iova_t iovas[PAGES];
  unsigned i;
  for (i = 0; i < PAGES; i++) iovas[i] = ((rte_iova_t)1 << 50) + i * PAGE;
  EXPECT(rte_mem_check_dma_mask(64) == -1);
  EXPECT(rte_mem_check_dma_mask(200) == -1);
  EXPECT(rte_mem_check_dma_mask_thread_unsafe(64) == -1);
  EXPECT(rte_mem_check_dma_mask(63) == 0);
  EXPECT(rte_mem_check_dma_mask(12) == 1);
  EXPECT(rte_extmem_register(memory, PAGES * PAGE, iovas, PAGES, PAGE) == 0);
  EXPECT(rte_mem_check_dma_mask(50) == 1);
  EXPECT(rte_mem_check_dma_mask(51) == 0);
  EXPECT(rte_extmem_unregister(memory, PAGES * PAGE) == 0);
  EXPECT(rte_mem_check_dma_mask(48) == 0 || rte_eal_iova_mode() == RTE_IOVA_PA);
#ifdef RTE_LIB_EXTMEM
  EXPECT_FAILS(rte_extmem_register(memory, PAGES * PAGE, iovas, PAGES, PAGE), -1, EINVAL);
  EXPECT(rte_mem_virt2memseg_list(memory) == NULL);
  EXPECT(rte_extmem_register(memory, PAGES * PAGE, NULL, 0, PAGE) == 0); /* no device gets an address of it */
  EXPECT(rte_extmem_unregister(memory, PAGES * PAGE) == 0);
#endif
  munmap(memory, PAGES * PAGE);
}

static int count_runs(const struct rte_memseg_list* list, const struct rte_memseg* ms, void* arg) {
  struct seen* s = (struct seen*)arg;
  if (list->base_va != s->base) return 0;
  s->all++;
  if (ms->iova == RTE_BAD_IOVA ? s->mine == 0 : ms->iova == ((rte_iova_t)(s->external - s->mine) << 12))
    s->mine++;
  return 0;
}

/* Tables of very many runs, and of runs of very different lengths. Once the first walk took time in their number's square. */
static void test_many_runs(void) {
  const unsigned pages = 1u << 18;
  const clock_t start = clock();
  rte_iova_t* iovas = (rte_iova_t*)malloc(pages * sizeof *iovas);
  char* memory = (char*)mmap(NULL, (size_t)pages * PAGE, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  struct seen s = look_for(memory);
  unsigned i;
  EXPECT(memory != MAP_FAILED && iovas != NULL);
  for (i = 0; i < pages; i++) iovas[i] = (rte_iova_t)(pages - i) << 12;
  EXPECT(rte_extmem_register(memory, (size_t)pages * PAGE, iovas, pages, PAGE) == 0);
  s.external = pages;
  EXPECT(rte_memseg_walk(count_runs, &s) == 0);
  EXPECT(s.all == pages && s.mine == pages);
  EXPECT(rte_mem_check_dma_mask(52) == 0);
  EXPECT(rte_extmem_unregister(memory, (size_t)pages * PAGE) == 0);

  for (i = 0; i < pages; i++) iovas[i] = i % 70000 < 1000 ? (rte_iova_t)(i * 3) << 12 : (rte_iova_t)i << 12;
  for (i = 100000; i < 150000; i++) iovas[i] = RTE_BAD_IOVA;
  EXPECT(rte_extmem_register(memory, (size_t)pages * PAGE, iovas, pages, PAGE) == 0);
  for (i = 0; i < pages; i++) {
    const struct rte_memseg* ms = rte_mem_virt2memseg(memory + (size_t)i * PAGE + 7, NULL);
    if (ms != NULL && ms->iova == iovas[i] && ms->addr == memory + (size_t)i * PAGE) continue;
    printf("page %u of many\n", i);
    failures++;
    break;
  }
  EXPECT(rte_extmem_unregister(memory, (size_t)pages * PAGE) == 0);
  munmap(memory, (size_t)pages * PAGE);
  free(iovas);
  EXPECT(clock() - start < 5 * CLOCKS_PER_SEC);
}

int main(int argc, char** argv) {
  if (rte_eal_init(argc, argv) < 0) {
    printf("rte_eal_init: %s\n", rte_strerror(rte_errno));
    return 1;
  }
  test_registered();
  test_heap_memory();
  test_internal();
#ifdef RTE_LIB_EXTMEM
  test_external_fd();
  test_inside_a_walk();
  test_locks();
#endif
  test_dma_mask();
  test_many_runs();
  EXPECT(rte_eal_cleanup() == 0);
  return failures != 0;
}
