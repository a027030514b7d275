// Worker for extmem: a heap of a private domain over plain 4 KiB memory.
//
// What it is: the public C++ functions, called through the dynamic linker like the other allocators'. Every
// result is checked, as an application would.
#include <extmem/version.h>
#include <extmem/extmem.hpp>

#include "worker_main.hpp"

namespace {

struct Extmem {
  static inline extmem::Domain domain;
  static inline extmem::Heap heap;
  static inline char* base = nullptr;
  static constexpr extmem::AllocOptions kContiguous{.iova_contiguous = true};

  static const char* open(const bench::Need& need) {
    auto made = extmem::Domain::create();
    if (!made) return made.error().message();
    domain = std::move(*made);
    const auto created = domain.create_heap("bench");
    if (!created) return created.error().message();
    heap = *created;
    base = static_cast<char*>(bench::map_memory(need.bytes, need.populate));
    const std::size_t length = need.bytes / need.regions;
    const std::size_t pages = length / bench::kPage;
    const auto iovas = bench::make_iovas(need.bytes / bench::kPage, need.iova);
    for (std::size_t i = 0; i < need.regions; ++i) {
      if (!region_add(base + i * length, length, iovas.empty() ? iovas : iovas.subspan(i * pages, pages))) {
        return "Domain::add_region failed";
      }
    }
    return nullptr;
  }
  static std::string version() { return EXTMEM_VERSION_STRING; }
  static void* managed_base() { return base; }

  static void* allocate(std::size_t n) { return heap.allocate(n).value_or(nullptr); }
  static void* zallocate(std::size_t n) { return heap.zalloc(n).value_or(nullptr); }
  static void* allocate_aligned(std::size_t n, std::size_t align) {
    return heap.allocate(n, align).value_or(nullptr);
  }
  static void deallocate(void* p) {
    if (!heap.deallocate(p)) bench::fail("Heap::deallocate");
  }
  static void* reallocate(void* p, std::size_t, std::size_t n) {
    return heap.reallocate(p, n).value_or(nullptr);
  }
  static void thread_begin() {}
  static void thread_end() {}

  static bool region_add(void* p, std::size_t length, std::span<const std::uint64_t> iovas) {
    // Iova is an enumeration over the same integer.
    const auto* table = reinterpret_cast<const extmem::Iova*>(iovas.data());
    return domain
        .add_region(
            heap, {.base = p, .length = length, .os_page_size = bench::kPage, .iovas = {table, iovas.size()}})
        .ok();
  }
  static bool region_remove(void* p, std::size_t) {
    const auto region = domain.region_of(p);
    return region && domain.remove_region(*region);
  }

  static std::uint64_t region_lookup(const void* p) { return domain.region_of(p).value_or({}).slot; }
  static std::uint64_t iova_lookup(const void* p) {
    return static_cast<std::uint64_t>(domain.iova_of(p).value_or(extmem::kBadIova));
  }

  static void* contiguous_allocate(std::size_t n) { return heap.allocate(n, kContiguous).value_or(nullptr); }
  static void contiguous_deallocate(void* p) { deallocate(p); }

  static bool zone_reserve(const char* name, std::size_t n) {
    return domain.reserve_memzone(heap, name, n).ok();
  }
  static const void* zone_lookup(const char* name) {
    const auto found = domain.find_memzone(name);
    return found ? found->addr : nullptr;
  }
  static bool zone_free(const char* name, const void*) { return domain.free_memzone(name).ok(); }
  static std::size_t max_zones() { return extmem::DomainOptions{}.max_memzones; }

  static std::size_t used_bytes() {
    const auto stats = heap.stats();
    return stats ? stats->total_bytes - stats->free_bytes : 0;
  }
  static std::size_t metadata_bytes() { return domain.metadata_resident_bytes(); }
};

}  // namespace

int main(int argc, char** argv) { return bench::worker_main<Extmem>(argc, argv); }
