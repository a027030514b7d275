/* run: --in-memory --no-pci --no-telemetry
 *
 * Without -m and --socket-mem there is one hugepage from the start, so that small allocations neither map nor unmap. */
#include <rte_eal.h>
#include <rte_malloc.h>
#include <rte_memory.h>

#include "expect.h"

static unsigned heard;
static void hear(enum rte_mem_event what, const void* addr, size_t len, void* arg) {
  (void)what, (void)addr, (void)len, (void)arg;
  heard++;
}

int main(int argc, char** argv) {
  struct rte_malloc_socket_stats before, now;
  size_t page;
  void* p;
  int i;
  if (rte_eal_init(argc, argv) < 0) {
    printf("needs two free hugepages: %s\n", rte_strerror(rte_errno));
    return 77;
  }
  EXPECT(rte_malloc_get_socket_stats((int)rte_socket_id(), &before) == 0);
  p = rte_malloc(NULL, 64, 0);
  if (before.heap_totalsz_bytes == 0 || p == NULL) {
    printf("needs two free hugepages: others took them\n");
    return 77;
  }
  page = (size_t)rte_mem_virt2memseg_list(p)->page_sz;
  EXPECT(before.heap_totalsz_bytes == page);
  rte_free(p);
  EXPECT(rte_mem_event_callback_register("hear", hear, NULL) == 0);
  for (i = 0; i < 1000; i++) {
    p = rte_malloc(NULL, 4096, 0);
    EXPECT(p != NULL);
    rte_free(p);
  }
  EXPECT(heard == 0);
  p = rte_malloc(NULL, page, 0); /* in the first page there is room for all of it */
  EXPECT(p != NULL && heard == 0);
  EXPECT(rte_malloc_get_socket_stats((int)rte_socket_id(), &now) == 0 && now.heap_freesz_bytes == 0);
  rte_free(p);
  EXPECT(rte_malloc_get_socket_stats((int)rte_socket_id(), &now) == 0);
  EXPECT(memcmp(&before, &now, sizeof now) == 0);
  EXPECT(rte_eal_cleanup() == 0);
  return failures != 0;
}
