// "Below the faces no malloc": after a domain was made, everything that the two interfaces offer runs while malloc
// ends the program, in old threads and in new ones.
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "extmem/extmem.h"
#include "extmem/extmem.hpp"
#include "interposed.hpp"

namespace {

using extmem::test::MallocAllowed;
constexpr std::size_t kMiB = std::size_t{1} << 20;

/// A check that allocates nothing.
void require(bool ok, const char* what, int line) {
  if (ok) return;
  extmem::test::allow_malloc();
  std::fprintf(stderr, "aborting_malloc.cpp:%d: %s; last C error: %s\n", line, what,
               extmem_last_error_message());
  std::exit(1);
}
#define REQUIRE(condition) require((condition), #condition, __LINE__)

std::byte* map(std::size_t length, int protection) {
  void* p = ::mmap(nullptr, length, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  REQUIRE(p != MAP_FAILED);
  return static_cast<std::byte*>(p);
}

// ---- the C++ interface -------------------------------------------------------------------------------------

void use_heap(extmem::Heap heap, bool cpu, bool alone = true) {
  std::array<void*, 300> objects{};
  for (std::size_t round = 0; round < 3; ++round) {
    for (std::size_t i = 0; i < objects.size(); ++i) {
      const std::size_t size = i % 50 == 0 ? 40000 : 1 + i * 7;
      const auto p = heap.allocate(size);
      REQUIRE(p.ok());
      objects[i] = *p;
    }
    for (void* p : objects) REQUIRE(heap.deallocate(p).ok());
  }
  REQUIRE(heap.allocate_batch(64, objects).ok());
  REQUIRE(heap.deallocate_batch(objects).ok());
  extmem::AllocOptions options;
  options.align = 4096;
  options.nocross = 16384;
  options.placement = extmem::Placement::high;
  auto p = heap.allocate(5000, options);
  REQUIRE(p.ok());
  if (cpu) {
    p = heap.reallocate(*p, 20000);
    REQUIRE(p.ok());
    const auto zeroed = heap.zalloc(1000);
    REQUIRE(zeroed.ok() && heap.deallocate(*zeroed).ok());
  }
  REQUIRE(heap.usable_size(*p).ok());
  REQUIRE(heap.owner_of(*p).ok());
  REQUIRE(heap.deallocate(*p).ok());
  // With other threads about, the memory may be theirs by now: then this would be a free of their object.
  if (alone) REQUIRE(heap.deallocate(*p).error().code() == EALREADY);
  REQUIRE(heap.deallocate(&p).error().code() == EFAULT);
  REQUIRE(heap.allocate(SIZE_MAX).error().code() == EOVERFLOW);
  REQUIRE(heap.allocate(std::size_t{1} << 40).error().code() == ENOMEM);
}

void look_at(extmem::Domain& domain, extmem::Heap heap) {
  REQUIRE(heap.stats().ok());
  std::array<extmem::TagStats, 8> tags;
  REQUIRE(heap.tag_stats(tags).ok());
  std::size_t seen = 0;
  const auto visit = [&](const extmem::WalkEntry&) { return ++seen, true; };
  REQUIRE(heap.walk(visit, {true}).ok() && seen > 0);
  REQUIRE(heap.flush().ok());
  REQUIRE(heap.verify().value_or(99) == 0);
  REQUIRE(domain.verify().value_or(99) == 0);
  std::size_t bytes = 0;
  const auto sink = [&](std::string_view chunk) { return bytes += chunk.size(), true; };
  REQUIRE(extmem::write_heap_map(domain, sink).ok());
  REQUIRE(extmem::write_heap_map(domain, sink, {extmem::HeapMapFormat::svg}).ok() && bytes > 0);
  REQUIRE(domain.walk_heaps([](const extmem::HeapInfo&) { return true; }).ok());
  REQUIRE(domain.walk_regions([](const extmem::RegionInfo&) { return true; }).ok());
  REQUIRE(domain.walk_memzones([](const extmem::MemzoneInfo&) { return true; }).ok());
  REQUIRE(domain.metadata_resident_bytes() > 0);
}

void use_domain(extmem::Domain& domain, std::byte* memory, bool cpu, extmem::Style style) {
  auto heap = domain.create_heap(cpu ? "cpu" : "device", {style, {}});
  REQUIRE(heap.ok());
  REQUIRE(domain.find_heap(heap->name()).ok());
  static int heard = 0;
  const auto listener = [](const extmem::RegionEvent&, void*) { return ++heard, 0; };
  REQUIRE(domain.add_listener(listener, nullptr).ok());
  extmem::RegionSpec spec;
  spec.base = memory;
  spec.length = 8 * kMiB;
  spec.cpu_accessible = cpu;
  spec.iova_source = extmem::IovaSource::identity;
  const auto region = domain.add_region(*heap, spec);
  REQUIRE(region.ok());
  use_heap(*heap, cpu);
  const auto tag = domain.intern_tag("a tag");
  REQUIRE(tag.ok() && domain.tag_name(*tag).ok());
  for (const char* name : {"zone one", "zone two"}) {
    REQUIRE(domain.reserve_memzone(*heap, name, 100000).ok());
    REQUIRE(domain.find_memzone(name).ok());
  }
  const auto p = heap->allocate(30000);
  REQUIRE(p.ok());
  std::array<extmem::IovaRun, 4> runs;
  REQUIRE(domain.iova_runs(*p, 30000, runs).value_or(0) == 1);
  REQUIRE(domain.iova_contiguous(*p, 30000).value_or(false));
  REQUIRE(domain.address_of(*domain.iova_of(*p)).value_or(nullptr) == *p);
  REQUIRE(domain.from_region_ptr(*domain.to_region_ptr(*p)).value_or(nullptr) == *p);
  look_at(domain, *heap);
  extmem::HolderReport holders;
  REQUIRE(domain.remove_region(*region, &holders).error().code() == EBUSY);
  REQUIRE(domain.drain_region(*region, std::chrono::milliseconds(1), &holders).error().code() == ETIMEDOUT);
  REQUIRE(domain.undrain_region(*region).ok());
  REQUIRE(domain.deallocate(*p).ok());
  for (const char* name : {"zone one", "zone two"}) REQUIRE(domain.free_memzone(name).ok());
  REQUIRE(domain.drain_region(*region, std::chrono::seconds(1), &holders).ok());
  REQUIRE(domain.remove_region(*region).ok());
  REQUIRE(domain.remove_listener(listener, nullptr).ok() && heard >= 2);
  REQUIRE(domain.destroy_heap(*heap).ok());
}

void use_backings(extmem::Domain& domain) {
  auto heap = domain.create_heap("backed");
  REQUIRE(heap.ok());
  for (const extmem::BackingKind kind : {extmem::BackingKind::anonymous, extmem::BackingKind::memfd,
                                         extmem::BackingKind::shm, extmem::BackingKind::file}) {
    extmem::BackingSpec spec;
    spec.kind = kind;
    spec.length = 2 * kMiB;
    spec.prefault = true;
    spec.thp = kind == extmem::BackingKind::anonymous;
    spec.unlink_on_remove = true;
    // Names of this process: the same program runs beside it, with the other library.
    char path[64];
    if (kind == extmem::BackingKind::shm)
      std::snprintf(path, sizeof path, "/extmem_aborting_malloc-%d", ::getpid());
    if (kind == extmem::BackingKind::file)
      std::snprintf(path, sizeof path, "/tmp/extmem_aborting_malloc-%d", ::getpid());
    if (kind == extmem::BackingKind::shm || kind == extmem::BackingKind::file) spec.path = path;
    const auto region = domain.add_backing(*heap, spec);
    REQUIRE(region.ok());
    use_heap(*heap, true);
    REQUIRE(domain.remove_region(*region).ok());
  }
  extmem::BackingSpec refused;
  refused.length = std::size_t{1} << 47;
  REQUIRE(!domain.add_backing(*heap, refused).ok());
  extmem::HeapOptions growing;
  growing.growth.step = kMiB;
  growing.growth.limit = 16 * kMiB;
  const auto grower = domain.create_heap("grower", growing);
  REQUIRE(grower.ok());
  use_heap(*grower, true);
  REQUIRE(domain.destroy_heap(*heap).ok());
}

// ---- the C interface ---------------------------------------------------------------------------------------

void use_c(extmem_domain_t* domain, std::byte* memory) {
  extmem_heap_t heap;
  REQUIRE(extmem_heap_create(domain, "c", nullptr, &heap) == 0);
  extmem_region_spec_t spec = EXTMEM_REGION_SPEC_INIT;
  spec.base = memory;
  spec.length = 8 * kMiB;
  extmem_region_id_t region;
  const auto listener = [](const extmem_region_event_t*, void*) { return 0; };
  REQUIRE(extmem_listener_add(domain, listener, nullptr) == 0);
  REQUIRE(extmem_region_add(domain, heap, &spec, &region) == 0);
  void* p = extmem_malloc(heap, 100);
  REQUIRE(p != nullptr);
  REQUIRE(extmem_free(heap, p) == 0);
  REQUIRE(extmem_free(heap, p) == -EALREADY);
  REQUIRE(std::strlen(extmem_last_error_message()) > 0);
  extmem_alloc_options_t options = EXTMEM_ALLOC_OPTIONS_INIT;
  options.align = 8192;
  REQUIRE(extmem_heap_allocate(heap, 5000, &options, &p) == 0);
  extmem_heap_stats_t stats;
  REQUIRE(extmem_heap_get_stats(heap, &stats, sizeof(stats)) == 0);
  std::array<extmem_tag_stats_t, 4> tags;
  std::size_t count = 0;
  REQUIRE(extmem_heap_get_tag_stats(heap, tags.data(), tags.size(), &count) == 0);
  extmem_memzone_info_t zone;
  REQUIRE(extmem_memzone_reserve(domain, heap, "zone", 0, nullptr, &zone, sizeof(zone)) == 0);
  REQUIRE(extmem_memzone_free(domain, "zone") == 0);
  extmem_holder_report_t report;
  REQUIRE(extmem_region_remove(domain, region, &report, sizeof(report)) == -EBUSY);
  REQUIRE(extmem_heap_walk(
              heap, nullptr, [](const extmem_walk_entry_t*, void*) { return 0; }, nullptr) == 0);
  REQUIRE(extmem_domain_write_map(
              domain, nullptr, [](const char*, std::size_t, void*) { return 0; }, nullptr) == 0);
  REQUIRE(extmem_free(heap, p) == 0);
  REQUIRE(extmem_region_drain(domain, region, 1000000000, &report, sizeof(report)) == 0);
  REQUIRE(extmem_region_remove(domain, region, nullptr, 0) == 0);
  REQUIRE(extmem_listener_remove(domain, listener, nullptr) == 0);
  REQUIRE(extmem_heap_destroy(domain, heap, nullptr, 0) == 0);
}

// ---- threads -----------------------------------------------------------------------------------------------

struct Worker {
  extmem::Heap heap;
  std::atomic<bool>* go;
  pthread_t thread;
};

void* work(void* arg) {
  auto* worker = static_cast<Worker*>(arg);
  worker->go->wait(false);
  for (int round = 0; round < 20; ++round) use_heap(worker->heap, true, false);
  (void)extmem_malloc(extmem_heap_t{}, 1);  // first use of this thread's last error
  return nullptr;
}

void start(Worker& worker) {
  const MallocAllowed creating_a_thread;  // pthread_create allocates the thread's TLS
  REQUIRE(pthread_create(&worker.thread, nullptr, work, &worker) == 0);
}

}  // namespace

int main(int argc, char** argv) {
  auto created = extmem::Domain::create();
  REQUIRE(created.ok());
  extmem::Domain domain = std::move(*created);
  extmem_domain_t* c_domain = nullptr;
  REQUIRE(extmem_domain_create(nullptr, &c_domain) == 0);
  std::byte* memory = map(8 * kMiB, PROT_READ | PROT_WRITE);
  std::byte* untouchable = map(8 * kMiB, PROT_NONE);
  std::byte* shared_memory = map(64 * kMiB, PROT_READ | PROT_WRITE);
  std::atomic<bool> go{false};
  std::array<Worker, 2> before{};
  for (Worker& worker : before) worker.go = &go;
  for (Worker& worker : before) start(worker);
  std::puts("warm");  // stdio has its buffer

  extmem::test::forbid_malloc();
  if (argc > 1 && std::string_view(argv[1]) == "--malloc-once") {
    void* volatile p = std::malloc(1);
    std::free(p);
  }
  use_domain(domain, memory, true, extmem::Style::binned);
  use_domain(domain, memory, true, extmem::Style::exact);
  use_domain(domain, untouchable, false, extmem::Style::binned);
  use_backings(domain);
  use_c(c_domain, memory);

  auto heap = domain.create_heap("shared");
  REQUIRE(heap.ok());
  extmem::RegionSpec spec;
  spec.base = shared_memory;
  spec.length = 64 * kMiB;
  REQUIRE(domain.add_region(*heap, spec).ok());
  for (Worker& worker : before) worker.heap = *heap;
  go = true;
  go.notify_all();
  std::array<Worker, 4> after{};
  for (Worker& worker : after) {
    worker.heap = *heap;
    worker.go = &go;
    start(worker);
  }
  for (Worker& worker : before) REQUIRE(pthread_join(worker.thread, nullptr) == 0);
  for (Worker& worker : after) REQUIRE(pthread_join(worker.thread, nullptr) == 0);
  look_at(domain, *heap);
  REQUIRE(heap->stats()->used_count == 0);
  domain = extmem::Domain();
  REQUIRE(extmem_domain_close(c_domain) == 0);
  extmem::test::allow_malloc();
  std::puts("ok: no malloc below the faces");
  return 0;
}
