// Statistics of heaps, and heaps in print.
#include <rte_malloc.h>

#include <cerrno>
#include <cinttypes>
#include <cstdarg>
#include <cstdio>
#include <string>

#include "faces/dpdk/memory_domain.hpp"
#include "faces/dpdk/memory_heaps.hpp"

namespace extmem::dpdk {
namespace {

/// Returns: 0, or an errno value.
int read_stats(Heap heap, rte_malloc_socket_stats& stats) noexcept {
  // Memory that is empty again, and that only threads' caches keep in the heap, goes first: as if there were no caches.
  (void)heap.flush();
  const auto now = heap.stats();
  if (!now) return now.error().code();
  stats.heap_totalsz_bytes = now->total_bytes;
  stats.heap_freesz_bytes = now->total_bytes - now->used_bytes;
  stats.greatest_free_size = now->largest_free;
  stats.free_count = static_cast<unsigned>(now->free_runs);
  stats.alloc_count = static_cast<unsigned>(now->used_count);
  stats.heap_allocsz_bytes = now->used_bytes;
  return 0;
}

/// Text that is printed when no lock is held any more.
class Text {
 public:
  __attribute__((format(printf, 2, 3))) void add(const char* format, ...) {
    char line[256];
    va_list arguments;
    va_start(arguments, format);
    const int length = std::vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (length > 0) text_.append(line);
  }
  void print(std::FILE* f) const { (void)std::fputs(text_.c_str(), f); }

 private:
  std::string text_;
};

void add_stats(Text& text, const ListedHeap& heap, std::size_t number) {
  rte_malloc_socket_stats stats{};
  if (read_stats(heap.heap, stats) != 0) return;
  text.add("Heap id:%zu\n", number);
  text.add("\tHeap name:%s\n", heap.name.c_str());
  text.add("\tHeap_size:%zu,\n", stats.heap_totalsz_bytes);
  text.add("\tFree_size:%zu,\n", stats.heap_freesz_bytes);
  text.add("\tAlloc_size:%zu,\n", stats.heap_allocsz_bytes);
  text.add("\tGreatest_free_size:%zu,\n", stats.greatest_free_size);
  text.add("\tAlloc_count:%u,\n", stats.alloc_count);
  text.add("\tFree_count:%u,\n", stats.free_count);
}

void add_contents(Text& text, const ListedHeap& heap, std::size_t number) {
  text.add("Heap id: %zu\n", number);
  text.add("Heap name: %s\n", heap.name.c_str());
  rte_malloc_socket_stats stats{};
  if (read_stats(heap.heap, stats) == 0)
    text.add("Heap size: 0x%zx\nHeap alloc count: %u\n", stats.heap_totalsz_bytes, stats.alloc_count);
  (void)heap.heap.walk([&](const WalkEntry& entry) {
    switch (entry.kind) {
      case WalkKind::region:
        text.add("\tmemory %p, %" PRIu64 " bytes%s\n", entry.addr, entry.length,
                 entry.external ? ", external" : "");
        break;
      case WalkKind::free_span:
        text.add("\t\t%p free %" PRIu64 "\n", entry.addr, entry.length);
        break;
      case WalkKind::held_span:
        text.add("\t\t%p %s %" PRIu64 "\n", entry.addr, entry.cached ? "cached" : "allocated", entry.length);
        break;
      case WalkKind::memzone:
        text.add("\t\t%p memzone %" PRIu64 " %s\n", entry.addr, entry.length, entry.name);
        break;
      case WalkKind::slab:
      case WalkKind::object:
        break;  // not in these heaps
    }
    return true;
  });
}

void print_heaps(std::FILE* f, void (*add)(Text&, const ListedHeap&, std::size_t)) {
  if (f == nullptr) return;
  Text text;
  std::size_t number = 0;
  for (const ListedHeap& heap : list_heaps()) add(text, heap, number++);
  text.print(f);
}

}  // namespace
}  // namespace extmem::dpdk

using namespace extmem::dpdk;

int rte_malloc_get_socket_stats(int socket, struct rte_malloc_socket_stats* socket_stats) {
  if (socket_stats == nullptr) return -1;
  const extmem::Heap heap = heap_of_socket(socket);
  return heap && read_stats(heap, *socket_stats) == 0 ? 0 : -1;
}

int rte_malloc_get_stats_from_heap(const char* heap_name, struct rte_malloc_socket_stats* stats) {
  if (!is_name(heap_name) || stats == nullptr) return fail(EINVAL);
  const extmem::Heap heap = heap_of_name(heap_name);
  if (!heap) return fail(ENOENT);
  const int failed = read_stats(heap, *stats);
  return failed == 0 ? 0 : fail(failed == ESTALE ? ENOENT : failed);
}

void rte_malloc_dump_stats(FILE* f, const char*) { print_heaps(f, add_stats); }

void rte_malloc_dump_heaps(FILE* f) { print_heaps(f, add_contents); }
