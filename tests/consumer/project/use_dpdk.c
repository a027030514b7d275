/* A program for DPDK: it starts, and finds its own arguments and its lcores. */
#include <stdio.h>
#include <string.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_version.h>

int main(int argc, char** argv) {
  int taken = rte_eal_init(argc, argv);
  if (taken < 0) {
    printf("rte_eal_init: %s\n", rte_strerror(rte_errno));
    return 1;
  }
  argc -= taken;
  argv += taken;
  printf("%s on %u lcores\n", rte_version(), rte_lcore_count());
  if (argc != 2 || strcmp(argv[1], "argument") != 0 || rte_lcore_id() != rte_get_main_lcore()) return 1;
  return rte_eal_cleanup();
}
