/* A program that allocates until it gets nothing, and then frees all: up to the limit, exactly, and back to what was.
 *
 * run: --no-huge --in-memory -m 16 --socket-limit 48 */
#include <rte_eal.h>
#include <rte_malloc.h>
#include <rte_memory.h>
#include <rte_memzone.h>
#include <stdint.h>

#include "expect.h"

#define MIB ((size_t)1 << 20)

/* Each object begins with the address of the one before. */
static void* take_all(size_t size, size_t* bytes) {
  void** last = NULL;
  for (;;) {
    void** p = (void**)rte_malloc(NULL, size, 0);
    if (p == NULL) return last;
    *p = last;
    last = p;
    *bytes += size;
  }
}
static void free_all(void* last) {
  while (last != NULL) {
    void* before = *(void**)last;
    rte_free(last);
    last = before;
  }
}

int main(int argc, char** argv) {
  const size_t sizes[] = {64, 4096, MIB, 3 * MIB, 32 * MIB};
  struct rte_malloc_socket_stats before, now;
  const struct rte_memzone* mz;
  unsigned i;
  if (rte_eal_init(argc, argv) < 0) {
    printf("rte_eal_init: %s\n", rte_strerror(rte_errno));
    return 1;
  }
  EXPECT(rte_malloc_get_socket_stats(0, &before) == 0 && before.heap_totalsz_bytes == 16 * MIB);
  for (i = 0; i < RTE_DIM(sizes); i++) {
    size_t bytes = 0;
    void* last = take_all(sizes[i], &bytes);
    EXPECT(rte_malloc_get_socket_stats(0, &now) == 0);
    EXPECT(now.heap_totalsz_bytes <= 48 * MIB && now.heap_allocsz_bytes == bytes);
    EXPECT(sizes[i] > MIB || bytes == 48 * MIB); /* steps of growth are multiples of these */
    EXPECT(now.greatest_free_size < sizes[i]);
    EXPECT_FAILS(rte_memzone_reserve("zone", sizes[i], SOCKET_ID_ANY, 0), NULL, ENOMEM);
    free_all(last);
    EXPECT(rte_malloc_get_socket_stats(0, &now) == 0 && memcmp(&before, &now, sizeof now) == 0);
  }
  /* The biggest memzone is a piece that is there: nothing grows for it. */
  mz = rte_memzone_reserve("biggest", 0, SOCKET_ID_ANY, 0);
  EXPECT(mz != NULL && mz->len == 16 * MIB);
  EXPECT(rte_memzone_free(mz) == 0);
  EXPECT(rte_malloc(NULL, 32 * MIB + 64, 0) == NULL);
  EXPECT(rte_eal_cleanup() == 0);
  return failures != 0;
}
