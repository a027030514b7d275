// The text of --help.
#include <cstdio>

#include "faces/dpdk/options.hpp"

namespace extmem::dpdk {

void print_usage(const char* program, rte_usage_hook_t application) {
  std::printf("\nUsage: %s [options] [-- the program's own]\n\n", program);
  std::fputs(
      "Lcores:\n"
      "  -l LIST, -c MASK        processors, one lcore on each: 0-3,7 or 0x8f\n"
      "  --lcores MAP            lcores and the processors of each: 0-3,(4,5)@0\n"
      "  --main-lcore ID         which lcore is the main one (default: the lowest)\n"
      "  -s MASK, -S LIST        lcores that are set aside\n"
      "Memory:\n"
      "  -m MIB                  internal memory to have from the start\n"
      "  --socket-mem MIB,...    the same, for each socket\n"
      "  --socket-limit MIB,...  the most that each socket's heap may grow to; 0: no limit\n"
      "  --no-huge               pages of the system's size instead of hugepages\n"
      "  --huge-dir DIR          where hugetlbfs is mounted\n"
      "  --legacy-mem            internal heaps do not grow\n"
      "  --match-allocations     give memory back only as it was taken\n"
      "  --single-file-segments  accepted\n"
      "  --huge-unlink[=existing|always|never]\n"
      "  --base-virtaddr ADDR    where to map\n"
      "  --iova-mode pa|va       what the IOVAs of internal memory are (default: va)\n"
      "  -n CHANNELS, -r RANKS   what rte_memory_get_nchannel() and _nrank() answer\n"
      "Processes:\n"
      "  --file-prefix NAME      processes that share memory have the same (default: rte)\n"
      "  --proc-type primary|secondary|auto\n"
      "  --in-memory, --no-shconf  share nothing\n"
      "Others:\n"
      "  --log-level LEVEL | PATTERN:LEVEL | EXPRESSION,LEVEL | help\n"
      "  -v                      print the version\n"
      "  -h, --help              this text\n"
      "Accepted, without meaning here: -a, -b, -d, --vdev, --no-pci, --no-hpet, --[no-]telemetry, --syslog,\n"
      "  --trace*, --create-uio-dev, --vfio-intr, --vfio-vf-token, --vmware-tsc-map, --mbuf-pool-ops-name,\n"
      "  --force-max-simd-bitwidth, --huge-worker-stack\n",
      stdout);
  if (application != nullptr) {
    std::printf("\n===== Application Usage =====\n\n");
    application(program);
  }
}

}  // namespace extmem::dpdk
