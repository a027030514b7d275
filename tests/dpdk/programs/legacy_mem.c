/* run: --in-memory --legacy-mem --no-pci --no-telemetry
 *
 * Heaps that do not grow have all free hugepages where no amount was asked for. */
#include <rte_eal.h>
#include <rte_malloc.h>
#include <rte_memory.h>

#include "expect.h"

int main(int argc, char** argv) {
  struct rte_malloc_socket_stats stats;
  void* p;
  if (rte_eal_init(argc, argv) < 0) { /* also where others take the pages meanwhile */
    printf("needs free hugepages: %s\n", rte_strerror(rte_errno));
    return 77;
  }
  EXPECT(rte_malloc_get_socket_stats((int)rte_socket_id(), &stats) == 0);
  EXPECT(stats.heap_totalsz_bytes != 0 && stats.heap_freesz_bytes == stats.heap_totalsz_bytes);
  p = rte_malloc(NULL, stats.greatest_free_size, 0);
  EXPECT(p != NULL);
  EXPECT(rte_malloc(NULL, 64, 0) == NULL || rte_socket_count() > 1);
  rte_free(p);
  EXPECT(rte_eal_cleanup() == 0);
  return failures != 0;
}
