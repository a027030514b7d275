// What this machine offers the demo: processors, memory, hugepages, and whether physical addresses can be read.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace extmem::cli {

struct HugePool {
  std::uint64_t page_size = 0;
  std::uint64_t total = 0;
  std::uint64_t free = 0;  ///< pages that nobody has mapped or reserved
};

struct Machine {
  std::string kernel;
  unsigned cpus = 1;
  unsigned numa_nodes = 1;
  std::uint64_t memory_total = 0;
  std::uint64_t memory_available = 0;
  std::vector<HugePool> pools;  ///< smallest page size first
  bool thp_anonymous = false;   ///< madvise(MADV_HUGEPAGE) means something for anonymous memory
  bool thp_shmem = false;       ///< ... for memfd and tmpfs
  bool root = false;
  bool physical = false;  ///< /proc/self/pagemap shows frame numbers

  static Machine look();
};

}  // namespace extmem::cli
