// Taking memory away while threads allocate from it: drain, remove, and nothing is lost.
#include <extmem/extmem.hpp>

#include <sys/mman.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <random>
#include <thread>
#include <vector>

namespace {

constexpr std::size_t kLength = 32 << 20;
using std::chrono::milliseconds;

/// Allocates and frees at random until told to stop. Whatever it gets it writes to, and checks.
void load(extmem::Heap heap, const std::atomic<bool>& stop, std::atomic<long>& operations, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<unsigned*> live;
  while (!stop) {
    if (live.size() < 500 && random() % 2 == 0) {
      const auto p = heap.allocate(64 + random() % 4000);
      if (!p) continue;  // the region that is left may be full
      live.push_back(static_cast<unsigned*>(*p));
      *live.back() = seed;
    } else if (!live.empty()) {
      std::swap(live[random() % live.size()], live.back());
      if (*live.back() != seed || !heap.deallocate(live.back())) std::abort();
      live.pop_back();
    }
    ++operations;
  }
  for (unsigned* p : live) (void)heap.deallocate(p);
}

void* map() {
  void* p = ::mmap(nullptr, kLength, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return p == MAP_FAILED ? nullptr : p;
}

}  // namespace

int main() {
  auto domain = extmem::Domain::create();
  if (!domain) return 1;
  auto heap = domain->create_heap("busy");
  void* staying = map();
  void* leaving = map();
  if (!heap || staying == nullptr || leaving == nullptr) return 1;
  const auto first = domain->add_region(*heap, {.base = leaving, .length = kLength});
  if (!first) return 1;

  // A listener that maps memory for a device would do so here; it could also refuse.
  const auto listener = [](const extmem::RegionEvent& event, void*) {
    std::printf("  region of %lu MiB is %s\n", static_cast<unsigned long>(event.info.length >> 20),
                event.kind == extmem::RegionEventKind::added ? "added" : "going");
    return 0;
  };
  if (!domain->add_listener(listener, nullptr)) return 1;

  std::atomic<bool> stop{false};
  std::atomic<long> operations{0};
  std::array<std::thread, 2> threads;
  for (unsigned i = 0; i < threads.size(); ++i) {
    threads[i] = std::thread(load, *heap, std::cref(stop), std::ref(operations), i + 1);
  }
  std::this_thread::sleep_for(milliseconds(100));

  // One object that nobody frees for now: the drain names it.
  const auto tag = domain->intern_tag("forgotten");
  extmem::AllocOptions options;
  options.tag = *tag;
  options.region = *first;
  const auto kept = heap->allocate(1000, options);
  if (!kept) return 1;
  extmem::HolderReport report;
  const auto refused = domain->remove_region(*first, &report);
  std::printf("remove: %s\n", refused ? "?" : refused.error().message());
  if (refused) return 1;

  const auto second = domain->add_region(*heap, {.base = staying, .length = kLength});
  if (!second) return 1;
  const auto timed_out = domain->drain_region(*first, milliseconds(200), &report);
  for (std::size_t i = 0; i < report.count; ++i) {
    const extmem::Holder& holder = report.holders[i];
    std::printf("  held by \"%s\": %lu objects, %lu bytes\n", holder.tag,
                static_cast<unsigned long>(holder.count), static_cast<unsigned long>(holder.bytes));
  }
  if (timed_out) return 1;
  if (!heap->deallocate(*kept)) return 1;
  const auto drained = domain->drain_region(*first, std::chrono::seconds(20), &report);
  if (!drained) return std::fprintf(stderr, "drain: %s\n", drained.error().message()), 1;
  if (const auto removed = domain->remove_region(*first); !removed) {
    return std::fprintf(stderr, "remove: %s\n", removed.error().message()), 1;
  }
  ::munmap(leaving, kLength);  // it is ours again; the threads run on

  std::this_thread::sleep_for(milliseconds(100));
  stop = true;
  for (std::thread& thread : threads) thread.join();
  std::printf("%ld operations meanwhile\n", operations.load());
  const auto breaches = domain->verify();
  return breaches && *breaches == 0 && heap->stats()->used_count == 0 ? 0 : 1;
}
