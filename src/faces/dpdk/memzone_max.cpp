// rte_memzone_max_set() and _get().
#include <rte_memzone.h>

#include <atomic>

#include "faces/dpdk/eal.hpp"

namespace {
std::atomic<std::size_t> most{RTE_MAX_MEMZONE};  // relaxed: set before rte_eal_init()
}

using namespace extmem::dpdk;

int rte_memzone_max_set(size_t max) {
  if (initialized()) return -1;
  most.store(max, std::memory_order_relaxed);
  return 0;
}

size_t rte_memzone_max_get(void) { return most.load(std::memory_order_relaxed); }
