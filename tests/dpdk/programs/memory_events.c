/* Memory event callbacks and allocation validators.
 *
 * DPDK has them with hugepages only, where this was run against it too; RTE_LIB_EXTMEM marks where extmem differs. */
#include <rte_eal.h>
#include <rte_malloc.h>
#include <rte_memory.h>
#include <rte_memzone.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "expect.h"

#define PAGE 4096u
#define PAGES 16u
#define NAME_63 "123456789012345678901234567890123456789012345678901234567890123"
#define NAME_64 NAME_63 "4"

struct heard {
  char who;
  enum rte_mem_event what;
  const void* addr;
  size_t len;
};
static struct heard heard[256];
static unsigned n_heard;

static void note(char who, enum rte_mem_event what, const void* addr, size_t len) {
  if (n_heard < RTE_DIM(heard)) {
    heard[n_heard].who = who;
    heard[n_heard].what = what;
    heard[n_heard].addr = addr;
    heard[n_heard].len = len;
  }
  n_heard++;
}
static void listen(enum rte_mem_event what, const void* addr, size_t len, void* arg) {
  note(*(char*)arg, what, addr, len);
  /* The memory is there: after it was added, before it goes. */
  EXPECT(rte_mem_virt2memseg_list(addr) != NULL);
}
static int is(unsigned i, char who, enum rte_mem_event what, const void* addr, size_t len) {
  return i < n_heard && heard[i].who == who && heard[i].what == what && heard[i].addr == addr &&
         heard[i].len == len;
}

static char a = 'a', b = 'b';

static void test_registration(void) {
  EXPECT_FAILS(rte_mem_event_callback_register(NULL, listen, &a), -1, EINVAL);
  EXPECT_FAILS(rte_mem_event_callback_register("", listen, &a), -1, EINVAL);
  EXPECT_FAILS(rte_mem_event_callback_register("x", NULL, &a), -1, EINVAL);
  EXPECT_FAILS(rte_mem_event_callback_register(NAME_64, listen, &a), -1, ENAMETOOLONG);
  EXPECT(rte_mem_event_callback_register(NAME_63, listen, &a) == 0);
  EXPECT_FAILS(rte_mem_event_callback_register(NAME_63, listen, &a), -1, EEXIST);
  EXPECT(rte_mem_event_callback_register(NAME_63, listen, &b) == 0); /* another argument */
  EXPECT(rte_mem_event_callback_register("x", listen, &a) == 0);     /* another name */
  EXPECT_FAILS(rte_mem_event_callback_unregister(NULL, &a), -1, EINVAL);
  EXPECT_FAILS(rte_mem_event_callback_unregister("", &a), -1, EINVAL);
  EXPECT_FAILS(rte_mem_event_callback_unregister(NAME_64, &a), -1, ENAMETOOLONG);
  EXPECT_FAILS(rte_mem_event_callback_unregister("y", &a), -1, ENOENT);
  EXPECT_FAILS(rte_mem_event_callback_unregister("x", &b), -1, ENOENT);
  EXPECT(rte_mem_event_callback_unregister(NAME_63, &a) == 0);
  EXPECT(rte_mem_event_callback_unregister(NAME_63, &b) == 0);
  EXPECT(rte_mem_event_callback_unregister("x", &a) == 0);
  EXPECT_FAILS(rte_mem_event_callback_unregister("x", &a), -1, ENOENT);
}

static void test_external(void) {
  void* memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  EXPECT(memory != MAP_FAILED);
  EXPECT(rte_mem_event_callback_register("events", listen, &a) == 0);
  EXPECT(rte_mem_event_callback_register("events", listen, &b) == 0);
  EXPECT(rte_malloc_heap_create("h") == 0);
  n_heard = 0;
  EXPECT(rte_malloc_heap_memory_add("h", memory, PAGES * PAGE, NULL, 0, PAGE) == 0);
  EXPECT(n_heard == 2 && is(0, 'a', RTE_MEM_EVENT_ALLOC, memory, PAGES * PAGE));
  EXPECT(is(1, 'b', RTE_MEM_EVENT_ALLOC, memory, PAGES * PAGE));
  n_heard = 0;
  {
    void* p = rte_malloc_socket(NULL, 64, 0, rte_malloc_heap_get_socket("h"));
    EXPECT(p != NULL);
    EXPECT_FAILS(rte_malloc_heap_memory_remove("h", memory, PAGES * PAGE), -1, EBUSY);
#ifdef RTE_LIB_EXTMEM
    EXPECT(n_heard == 0); /* what fails has told nobody; DPDK tells before it looks */
#endif
    rte_free(p);
  }
  n_heard = 0;
  EXPECT(rte_malloc_heap_memory_remove("h", memory, PAGES * PAGE) == 0);
  EXPECT(n_heard == 2 && is(0, 'a', RTE_MEM_EVENT_FREE, memory, PAGES * PAGE));
  EXPECT(is(1, 'b', RTE_MEM_EVENT_FREE, memory, PAGES * PAGE));
  n_heard = 0;
  EXPECT(rte_extmem_register(memory, PAGES * PAGE, NULL, 0, PAGE) == 0);
  EXPECT(rte_extmem_unregister(memory, PAGES * PAGE) == 0);
  EXPECT(n_heard == 0); /* registered memory has no events */
  EXPECT(rte_malloc_heap_destroy("h") == 0);
  EXPECT(rte_mem_event_callback_unregister("events", &a) == 0);
  EXPECT(rte_mem_event_callback_unregister("events", &b) == 0);
  munmap(memory, PAGES * PAGE);
}

static const size_t large = (size_t)80 << 20;

static void test_growth(void) {
  void* p;
  EXPECT(rte_mem_event_callback_register("events", listen, &a) == 0);
  n_heard = 0;
  p = rte_malloc(NULL, 100, 0);
  EXPECT(n_heard == 0); /* there is memory from the start */
  rte_free(p);
  EXPECT(n_heard == 0);
  p = rte_malloc(NULL, large, 0);
  EXPECT(p != NULL && n_heard >= 1 && heard[0].what == RTE_MEM_EVENT_ALLOC);
  EXPECT(heard[0].addr <= p);
  n_heard = 0;
  rte_free(p);
  EXPECT(n_heard >= 1 && heard[0].what == RTE_MEM_EVENT_FREE);
  EXPECT(rte_mem_event_callback_unregister("events", &a) == 0);
}

static void mark(const void* addr, size_t len, uint32_t flags) {
  size_t done;
  for (done = 0; done < len; done += rte_mem_virt2memseg_list(addr)->page_sz)
    rte_mem_virt2memseg(RTE_PTR_ADD(addr, done), NULL)->flags = flags;
}
static void keep(enum rte_mem_event what, const void* addr, size_t len, void* arg) {
  if (what == RTE_MEM_EVENT_ALLOC) mark(addr, len, RTE_MEMSEG_FLAG_DO_NOT_FREE);
  note(*(char*)arg, what, addr, len);
}

/* What a program marks so is not given back. */
static void test_keeping(void) {
  struct rte_malloc_socket_stats before, now;
  struct heard grown;
  void *p, *q;
  EXPECT(rte_malloc_get_socket_stats(0, &before) == 0);
  EXPECT(rte_mem_event_callback_register("keep", keep, &a) == 0);
  n_heard = 0;
  p = rte_malloc(NULL, large, 0);
  EXPECT(p != NULL && n_heard == 1);
  grown = heard[0];
  rte_free(p);
  EXPECT(n_heard == 1);
  EXPECT(rte_malloc_get_socket_stats(0, &now) == 0);
  EXPECT(now.heap_totalsz_bytes == before.heap_totalsz_bytes + grown.len &&
         now.alloc_count == before.alloc_count);
  p = rte_malloc(NULL, large, 0); /* from what was kept */
  EXPECT(p != NULL && n_heard == 1);
  mark(grown.addr, grown.len, 0);
  q = rte_malloc(NULL, 1000, 0);
  rte_free(q);
  rte_free(p);
  EXPECT(n_heard == 2 && is(1, 'a', RTE_MEM_EVENT_FREE, grown.addr, grown.len));
  EXPECT(rte_malloc_get_socket_stats(0, &now) == 0 && memcmp(&before, &now, sizeof now) == 0);
  EXPECT(rte_mem_event_callback_unregister("keep", &a) == 0);
}

static unsigned asked;
static size_t asked_limit, asked_length;
static int answer;
static int validate(int socket, size_t limit, size_t length) {
  EXPECT(socket == 0);
  asked++;
  asked_limit = limit;
  asked_length = length;
  return answer;
}

static void test_validators(void) {
  struct rte_malloc_socket_stats before, now;
  void* p;
  EXPECT_FAILS(rte_mem_alloc_validator_register(NULL, validate, 0, 0), -1, EINVAL);
  EXPECT_FAILS(rte_mem_alloc_validator_register("", validate, 0, 0), -1, EINVAL);
  EXPECT_FAILS(rte_mem_alloc_validator_register("v", NULL, 0, 0), -1, EINVAL);
  EXPECT_FAILS(rte_mem_alloc_validator_register("v", validate, -1, 0), -1, EINVAL);
  EXPECT_FAILS(rte_mem_alloc_validator_register(NAME_64, validate, 0, 0), -1, ENAMETOOLONG);
  EXPECT_FAILS(rte_mem_alloc_validator_unregister(NULL, 0), -1, EINVAL);
  EXPECT_FAILS(rte_mem_alloc_validator_unregister("", 0), -1, EINVAL);
  EXPECT_FAILS(rte_mem_alloc_validator_unregister("v", -1), -1, EINVAL);
  EXPECT_FAILS(rte_mem_alloc_validator_unregister(NAME_64, 0), -1, ENAMETOOLONG);
  EXPECT_FAILS(rte_mem_alloc_validator_unregister("v", 0), -1, ENOENT);

  EXPECT(rte_malloc_get_socket_stats(0, &before) == 0);
  EXPECT(rte_mem_alloc_validator_register("v", validate, 0, before.heap_totalsz_bytes + 1000) == 0);
  EXPECT_FAILS(rte_mem_alloc_validator_register("v", validate, 0, 5), -1, EEXIST);
  EXPECT(rte_mem_alloc_validator_register("v", validate, 1, 0) == 0); /* another socket: never asked */
  p = rte_malloc(NULL, 100, 0);
  EXPECT(p != NULL && asked == 0);
  rte_free(p);
  answer = -1;
  EXPECT(rte_malloc(NULL, large, 0) == NULL);
  EXPECT(asked >= 1 && asked_limit == before.heap_totalsz_bytes + 1000);
  EXPECT(asked_length >= before.heap_totalsz_bytes + large);
  EXPECT(rte_malloc_get_socket_stats(0, &now) == 0 && memcmp(&before, &now, sizeof now) == 0);
  answer = asked = 0;
  p = rte_malloc(NULL, large, 0);
  EXPECT(p != NULL && asked >= 1);
  rte_free(p);
  EXPECT(rte_mem_alloc_validator_unregister("v", 0) == 0);
  EXPECT_FAILS(rte_mem_alloc_validator_unregister("v", 0), -1, ENOENT);
  EXPECT(rte_mem_alloc_validator_unregister("v", 1) == 0);
  asked = 0;
  EXPECT(rte_mem_alloc_validator_register(NAME_63, validate, 0, (size_t)1 << 40) == 0);
  p = rte_malloc(NULL, large, 0);
  EXPECT(p != NULL && asked == 0); /* far below the limit */
  rte_free(p);
  EXPECT(rte_mem_alloc_validator_unregister(NAME_63, 0) == 0);
}

#ifdef RTE_LIB_EXTMEM
static int see(const struct rte_memseg_list* msl, void* arg) {
  RTE_SET_USED(msl);
  ++*(int*)arg;
  return 0;
}

/* In DPDK most of this would never return. */
static void do_everything(enum rte_mem_event what, const void* addr, size_t len, void* arg) {
  int lists = 0;
  char* p = (char*)rte_malloc(NULL, 1000, 0);
  EXPECT(p != NULL);
  if (p != NULL) memset(p, 1, 1000);
  rte_free(p);
  p = (char*)rte_malloc_from_heap("h", NULL, 64, 0);
  rte_free(p);
  EXPECT(rte_malloc(NULL, (size_t)1 << 30, 0) == NULL); /* it would have to grow */
  EXPECT(rte_memseg_list_walk(see, &lists) == 0 && lists >= 2);
  EXPECT(rte_memseg_list_walk_thread_unsafe(see, &lists) == 0);
  EXPECT(rte_mem_check_dma_mask(63) == 0);
  EXPECT(rte_mem_virt2memseg(addr, NULL) != NULL && rte_mem_virt2memseg_list(addr)->len == len);
  EXPECT_FAILS(rte_malloc_heap_create("other"), -1, EDEADLK);
  EXPECT_FAILS(rte_malloc_heap_destroy("h"), -1, EDEADLK);
  EXPECT_FAILS(rte_malloc_heap_memory_remove("h", (void*)(uintptr_t)addr, len), -1, EDEADLK);
  EXPECT_FAILS(rte_memzone_reserve("zone", 64, SOCKET_ID_ANY, 0), NULL, EDEADLK);
  EXPECT_FAILS(rte_memzone_lookup("zone"), NULL, EDEADLK);
  {
    void* more = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT_FAILS(rte_malloc_heap_memory_add("h", more, PAGE, NULL, 0, PAGE), -1, EDEADLK);
    EXPECT_FAILS(rte_extmem_register(more, PAGE, NULL, 0, PAGE), -1, EDEADLK);
    munmap(more, PAGE);
  }
  EXPECT(rte_mem_event_callback_register("from inside", listen, &b) == 0);
  EXPECT(rte_mem_event_callback_unregister("from inside", &b) == 0);
  note(*(char*)arg, what, addr, len);
}

static void test_inside(void) {
  void* memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  EXPECT(memory != MAP_FAILED);
  EXPECT(rte_malloc_heap_create("h") == 0);
  EXPECT(rte_mem_event_callback_register("everything", do_everything, &a) == 0);
  n_heard = 0;
  EXPECT(rte_malloc_heap_memory_add("h", memory, PAGES * PAGE, NULL, 0, PAGE) == 0);
  EXPECT(n_heard == 1);
  EXPECT(rte_malloc_heap_memory_remove("h", memory, PAGES * PAGE) == 0);
  EXPECT(n_heard == 2);
  EXPECT(rte_mem_event_callback_unregister("everything", &a) == 0);
  EXPECT(rte_malloc_heap_destroy("h") == 0);
  munmap(memory, PAGES * PAGE);
}
#endif

int main(int argc, char** argv) {
  if (rte_eal_init(argc, argv) < 0) {
    printf("rte_eal_init: %s\n", rte_strerror(rte_errno));
    return 1;
  }
  if (DPDK_NO_HUGE) { /* there are no events there, and nothing grows */
    EXPECT_FAILS(rte_mem_event_callback_register("a", listen, &a), -1, ENOTSUP);
    EXPECT_FAILS(rte_mem_alloc_validator_register("a", validate, 0, 0), -1, ENOTSUP);
    return failures != 0;
  }
  test_registration();
  test_external();
  test_growth();
  test_keeping();
  test_validators();
#ifdef RTE_LIB_EXTMEM
  test_inside();
#endif
  EXPECT(rte_eal_cleanup() == 0);
  return failures != 0;
}
