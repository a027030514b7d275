// DPDK's rte_malloc in the test of bench/kill/kill_main.hpp: a heap over external memory, a primary and a secondary.
//
// "look" must not wait for the heap's lock, which a dead process may hold for ever. DPDK's own checks take it, so the
// heap is read where it lies: in front of each element are its heap, its neighbours, its free list, its state and its size.
// These offsets are those of DPDK 22.11. open() compares what is read with what DPDK says of the quiet heap, and
// refuses another layout. Torn is: the elements do not cover the memory one after the other, a neighbour's pointer is
// wrong, or the free elements are not those of the free lists. A wrong counter, or free neighbours that were not
// merged, do not count.
#include <sched.h>

#include <set>

#include "../dpdk_shared.hpp"
#include "kill_main.hpp"

namespace {

using dpdk_shared::kBase;

int socket_id = 0;

/// A word of an element or of the heap, as another process may have left it.
std::uint64_t word(std::uint64_t at) { return *reinterpret_cast<const volatile std::uint64_t*>(at); }

struct Element {
  static constexpr std::uint64_t kHeader = 128;
  enum State : std::uint32_t { free = 0, busy = 1 };

  std::uint64_t heap, previous, next, free_next, free_back, size;
  std::uint32_t state;

  explicit Element(std::uint64_t at)
      : heap(word(at)),
        previous(word(at + 8)),
        next(word(at + 16)),
        free_next(word(at + 24)),
        free_back(word(at + 32)),
        size(word(at + 56)),
        state(static_cast<std::uint32_t>(word(at + 48))) {}

  static bool can_be_at(std::uint64_t at) {
    return at % 64 == 0 && at >= kBase && at <= kBase + kill_bench::kHeapBytes - kHeader;
  }
};

struct Heads {
  static constexpr std::uint64_t kFirst = 8, kCount = 13;
};

struct Books {
  std::size_t busy = 0;
  std::uint64_t free_bytes = 0;
  std::string wrong;
};

Books read_heap() {
  Books books;
  auto torn = [&](const char* what) {
    books.wrong = what;
    return books;
  };
  const std::uint64_t heap = Element(kBase).heap;
  std::set<std::uint64_t> free_ones;
  std::uint64_t previous = 0;
  for (std::uint64_t at = kBase; at != 0;) {
    if (!Element::can_be_at(at)) return torn("the chain of elements leaves the memory");
    const Element element(at);
    if (element.heap != heap) return torn("an element names another heap");
    if (element.previous != previous) return torn("an element does not name the one before it");
    const std::uint64_t end = at + element.size;
    if (element.size < 64 || end <= at || end > kBase + kill_bench::kHeapBytes)
      return torn("an element's size cannot be");
    const std::uint64_t expected = end == kBase + kill_bench::kHeapBytes ? 0 : end;
    if (element.next != expected) return torn("an element does not end where the next one begins");
    if (element.state == Element::free) {
      free_ones.insert(at);
      books.free_bytes += element.size;
    } else if (element.state == Element::busy) {
      ++books.busy;
    } else {
      return torn("an element has no valid state");
    }
    previous = at;
    at = element.next;
  }
  for (std::uint64_t list = 0; list < Heads::kCount; ++list) {
    std::uint64_t back = heap + Heads::kFirst + 8 * list;
    for (std::uint64_t at = word(back); at != 0;) {
      if (!Element::can_be_at(at)) return torn("a free list leaves the memory");
      const Element element(at);
      if (free_ones.erase(at) != 1) return torn("a free list has what is no free element, or has it twice");
      if (element.free_back != back) return torn("a free list does not lead back");
      back = at + 24;
      at = element.free_next;
    }
  }
  if (!free_ones.empty()) return torn("a free element is in no free list");
  return books;
}

struct External {
  static std::string open(bool create, const char* name, const char* file) {
    cpu_set_t cpus;  // EAL binds its thread to one; the loops' threads may run anywhere
    if (sched_getaffinity(0, sizeof cpus, &cpus) != 0) return "sched_getaffinity";
    int cpu = 0;
    while (!CPU_ISSET(static_cast<unsigned>(cpu), &cpus)) ++cpu;
    if (const std::string reason =
            dpdk_shared::open(create, name, file, kill_bench::kHeapBytes, cpu, socket_id);
        !reason.empty())
      return reason;
    if (sched_setaffinity(0, sizeof cpus, &cpus) != 0) return "sched_setaffinity";
    return create ? compare_layout() : "";
  }
  static void* allocate(std::size_t n) { return rte_malloc_socket(nullptr, n, 0, socket_id); }
  static bool release(void* p) {
    rte_free(p);
    return true;
  }
  static bool zone_reserve(const char* name) {
    return rte_memzone_reserve(name, 4096, socket_id, 0) != nullptr;
  }
  static bool zone_free(const char* name) {
    const rte_memzone* zone = rte_memzone_lookup(name);
    return zone != nullptr && rte_memzone_free(zone) == 0;
  }
  static std::string look(std::size_t held) {
    const Books books = read_heap();
    if (!books.wrong.empty()) return "torn " + books.wrong;
    if (books.busy < held) return "torn an object of the survivor is free";
    return "sound " + std::to_string(books.busy - held);
  }

 private:
  static std::string compare_layout() {
    std::array<void*, 3> objects{allocate(64), allocate(1000), allocate(5000)};
    rte_free(objects[1]);
    rte_malloc_socket_stats stats{};
    if (rte_malloc_get_socket_stats(socket_id, &stats) != 0) return "rte_malloc_get_socket_stats";
    const Books books = read_heap();
    rte_free(objects[0]);
    rte_free(objects[2]);
    if (!books.wrong.empty() || books.busy != 2 || stats.alloc_count != 2 ||
        books.free_bytes != stats.heap_freesz_bytes)
      return "the heap of this DPDK is not laid out as that of 22.11";
    return "";
  }
};

}  // namespace

int main(int argc, char** argv) { return kill_bench::Process<External>().run(argc, argv); }
