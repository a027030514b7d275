// Worker for DPDK's rte_malloc. Built on an external heap ("dpdk"), and with BENCH_DPDK_MAIN_HEAP on the main heap of the
// EAL's own memory ("dpdk-main"); and both once more, as they are, against extmem's own DPDK interface ("extmem-dpdk",
// "extmem-dpdk-main").
//
// What it is: EAL without hugepages (but for `contiguous`), shared configuration or devices. The external heap gets plain 4 KiB
// memory, as the other region allocators do; the main heap is memory that EAL maps at start.
// Fairness: rte_free zeroes what it frees (rte_zmalloc counts on it), from 64 KiB up most of its cost;
// compare "zeroed_pair" where that matters. Freed regions: rte_malloc_heap_memory_add zeroes all that it
// is given.
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_malloc.h>
#include <rte_memory.h>
#include <rte_memzone.h>
#include <rte_version.h>

#include <fstream>

#include "worker_main.hpp"

namespace {

constexpr const char* kHeap = "bench";
#ifdef RTE_LIB_EXTMEM
constexpr std::size_t kMaxZones = 150'000;
#else
/// A few memzones belong to EAL itself.
constexpr std::size_t kMaxZones = RTE_MAX_MEMZONE - 60;
#endif

/// Whether there are so many free hugepages of 2 MiB.
bool has_hugepages(unsigned wanted) {
  std::ifstream file("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
  unsigned free = 0;
  return file >> free && free >= wanted;
}

/// Starts EAL on the worker's first CPU with `mib` MiB of memory of its own. Returns nullptr or what failed.
/// `checks_iovas`: with hugepages, for without them DPDK takes any memory to be IOVA-contiguous and does not look.
const char* start_eal(std::size_t mib, bool checks_iovas = false) {
  if (checks_iovas && !has_hugepages(static_cast<unsigned>(mib / 2)))
    bench::skip("needs hugepages: with --no-huge DPDK takes any memory to be IOVA-contiguous");
  std::vector<std::string> args{"bench",
                                checks_iovas ? "--in-memory" : "--no-huge",
                                "--no-shconf",
                                "--no-pci",
                                "--no-telemetry",
                                "--iova-mode=va",
                                "--log-level=critical",
                                "-m",
                                std::to_string(mib),
                                "-l",
                                std::to_string(bench::allowed_cpus().front())};
  std::vector<char*> argv;
  for (auto& a : args) argv.push_back(a.data());
#ifdef RTE_LIB_EXTMEM
  if (rte_memzone_max_set(kMaxZones) != 0) return "rte_memzone_max_set failed";
#endif
  return rte_eal_init(static_cast<int>(argv.size()), argv.data()) < 0 ? "rte_eal_init failed" : nullptr;
}

/// The main heap: what rte_malloc takes when nothing is said.
struct MainHeap {
  static inline int socket = SOCKET_ID_ANY;

  static const char* open(const bench::Need& need) { return start_eal(need.bytes / bench::kMiB + 64); }
  static std::string version() { return rte_version(); }
  static void* allocate(std::size_t n) { return rte_malloc_socket(nullptr, n, 0, socket); }
  static void* zallocate(std::size_t n) { return rte_zmalloc_socket(nullptr, n, 0, socket); }
  static void* allocate_aligned(std::size_t n, std::size_t align) {
    return rte_malloc_socket(nullptr, n, static_cast<unsigned>(align), socket);
  }
  static void deallocate(void* p) { rte_free(p); }
  static void* reallocate(void* p, std::size_t, std::size_t n) { return rte_realloc_socket(p, n, 0, socket); }
  static void thread_begin() {}
  static void thread_end() {}

  static bool zone_reserve(const char* name, std::size_t n) {
    return rte_memzone_reserve(name, n, socket, 0) != nullptr;
  }
  static const void* zone_lookup(const char* name) { return rte_memzone_lookup(name); }
  static bool zone_free(const char*, const void* found) {
    return rte_memzone_free(static_cast<const rte_memzone*>(found)) == 0;
  }
  static std::size_t max_zones() { return kMaxZones; }

  static std::size_t used_bytes() {
    rte_malloc_socket_stats stats{};
    rte_malloc_get_socket_stats(socket == SOCKET_ID_ANY ? 0 : socket, &stats);
    return stats.heap_allocsz_bytes;
  }
};

/// A heap of its own over external memory.
struct ExternalHeap : MainHeap {
  static inline char* base = nullptr;

  static const char* open(const bench::Need& need) {
    const bool contiguous = need.iova == bench::IovaShape::runs;
    if (const char* reason = start_eal(contiguous ? 16 : 64, contiguous); reason != nullptr) return reason;
    if (rte_malloc_heap_create(kHeap) != 0) return "rte_malloc_heap_create failed";
    base = static_cast<char*>(bench::map_memory(need.bytes, need.populate));
    const std::size_t length = need.bytes / need.regions;
    const std::size_t pages = length / bench::kPage;
    const auto iovas = bench::make_iovas(need.bytes / bench::kPage, need.iova);
    for (std::size_t i = 0; i < need.regions; ++i) {
      if (!region_add(base + i * length, length, iovas.empty() ? iovas : iovas.subspan(i * pages, pages))) {
        return "rte_malloc_heap_memory_add failed";
      }
    }
    socket = rte_malloc_heap_get_socket(kHeap);
    return socket < 0 ? "rte_malloc_heap_get_socket failed" : nullptr;
  }
  static void* managed_base() { return base; }

  static bool region_add(void* p, std::size_t length, std::span<const std::uint64_t> iovas) {
    // The function takes the table as non-const but only reads it.
    auto* table = iovas.empty() ? nullptr : const_cast<std::uint64_t*>(iovas.data());
    const auto pages = static_cast<unsigned>(length / bench::kPage);
    return rte_malloc_heap_memory_add(kHeap, p, length, table, pages, bench::kPage) == 0;
  }
  static bool region_remove(void* p, std::size_t length) {
    return rte_malloc_heap_memory_remove(kHeap, p, length) == 0;
  }

  /// The memseg list is DPDK's region. rte_mem_virt2iova knows nothing of external memory's table, so the
  /// lookup goes through the memseg, as its drivers do.
  static std::uint64_t region_lookup(const void* p) {
    return reinterpret_cast<std::uintptr_t>(rte_mem_virt2memseg_list(p));
  }
  static std::uint64_t iova_lookup(const void* p) {
    const rte_memseg* segment = rte_mem_virt2memseg(p, nullptr);
    return segment->iova + (reinterpret_cast<std::uintptr_t>(p) - segment->addr_64);
  }

  /// Only memzones can be IOVA-contiguous in public functions, so a reservation stands for the allocation.
  static void* contiguous_allocate(std::size_t n) {
    const rte_memzone* zone =
        rte_memzone_reserve_aligned("contiguous", n, socket, RTE_MEMZONE_IOVA_CONTIG, RTE_CACHE_LINE_SIZE);
    return const_cast<rte_memzone*>(zone);
  }
  static void contiguous_deallocate(void* handle) { rte_memzone_free(static_cast<rte_memzone*>(handle)); }
};

#ifdef BENCH_DPDK_MAIN_HEAP
using Dpdk = MainHeap;
#else
using Dpdk = ExternalHeap;
#endif

}  // namespace

int main(int argc, char** argv) { return bench::worker_main<Dpdk>(argc, argv); }
