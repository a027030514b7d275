// extmem in the test of bench/kill/kill_main.hpp: a heap of a named domain.
//
// "look" recovers what the dead process left, has every invariant verified, and compares the books: what is used must
// be what the survivor holds and the memzones, which stay when a process dies, and not an object more.
#include "extmem/extmem.hpp"

#include <optional>

#include "kill_main.hpp"

namespace {

using namespace extmem;

std::optional<Domain> domain;
Heap heap;

struct Shared {
  static std::string open(bool create, const char* name, const char*) {
    OpenOptions options;
    options.mode = create ? OpenMode::create_only : OpenMode::open_only;
    options.remove_when_last = true;
    auto opened = Domain::open(name, options);
    if (!opened) return opened.error().message();
    domain.emplace(std::move(*opened));
    auto found = create ? domain->create_heap("heap") : domain->find_heap("heap");
    if (!found) return found.error().message();
    heap = *found;
    if (!create) return "";
    BackingSpec memory;
    memory.kind = BackingKind::anonymous;
    memory.length = kill_bench::kHeapBytes;
    const auto added = domain->add_backing(heap, memory);
    return added ? "" : added.error().message();
  }
  static void* allocate(std::size_t n) {
    const auto p = heap.allocate(n);
    return p ? *p : nullptr;
  }
  static bool release(void* p) { return static_cast<bool>(heap.deallocate(p)); }
  static bool zone_reserve(const char* name) {
    return static_cast<bool>(domain->reserve_memzone(heap, name, 4096));
  }
  static bool zone_free(const char* name) { return static_cast<bool>(domain->free_memzone(name)); }

  static std::string look(std::size_t held) {
    const auto recovered = domain->recover();
    if (!recovered) return std::string("torn recover: ") + recovered.error().message();
    std::string first;
    const auto breaches = domain->verify([&](const Breach& breach) {
      if (first.empty()) first = breach.what;
    });
    if (!breaches) return std::string("torn verify: ") + breaches.error().message();
    if (*breaches != 0) return "torn " + first;
    const auto stats = heap.stats();
    if (!stats) return std::string("torn stats: ") + stats.error().message();
    if (stats->total_bytes !=
        stats->used_bytes + stats->free_bytes + stats->cached_bytes + stats->slab_free_bytes) {
      return "torn the bytes do not add up";
    }
    if (stats->used_count < held) return "torn an object of the survivor is free";
    if (stats->used_count > held + domain->memzone_count())
      return "torn objects of the dead process are left";
    return "sound " + std::to_string(stats->used_count - held);
  }
};

}  // namespace

int main(int argc, char** argv) { return kill_bench::Process<Shared>().run(argc, argv); }
