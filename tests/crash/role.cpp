#include "crash/role.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "crash/inside.hpp"

namespace extmem::crash {

void Role::complain(const char* what, const Error& error) {
  std::snprintf(log_.trouble, sizeof log_.trouble, "%s: %d %s", what, error.code(), error.message());
  _exit(8);
}

void Role::open() {
  OpenOptions options;
  options.mode = OpenMode::open_only;
  options.directory = directory_.c_str();
  domain_ = must(Domain::open(name_, options), "open");
  small_ = must(domain_.find_heap("small"), "find small");
  exact_ = must(domain_.find_heap("exact"), "find exact");
  kept_ = must(domain_.find_heap("kept"), "find kept");
  kept_exact_ = must(domain_.find_heap("kept exact"), "find kept exact");
  grown_ = must(domain_.find_heap("grown"), "find grown");
}

void Role::close() { domain_ = Domain{}; }

Entry* Role::empty_entry() {
  for (std::uint32_t n = 0; n < kEntries; ++n) {
    const std::uint32_t i = next_entry_++ % kEntries;
    if (patient_ && i < 32) continue;  // where the harness lends
    Entry& entry = log_.entry[i];
    Of nobody = Of::nobody;
    if (entry.of.load(std::memory_order_relaxed) != Of::nobody) continue;
    if (!entry.of.compare_exchange_strong(nobody, Of::allocating)) continue;
    std::uint32_t used = log_.entries.load();
    while (used <= i && !log_.entries.compare_exchange_weak(used, i + 1)) {
    }
    return &entry;
  }
  return nullptr;
}

void Role::note(Entry& entry, void* p, std::uint32_t size) {
  entry.ptr = must(domain_.to_region_ptr(p), "to_region_ptr").bits;
  entry.size = size;
  entry.kept = mine_heap_ == kept_.id() || mine_heap_ == kept_exact_.id();
  entry.seed = entry.ptr * 0x2545f4914f6cdd1du ^ static_cast<std::uint64_t>(::getpid());
  fill(p, size, entry.seed);
  entry.of.store(Of::held, std::memory_order_release);
}

Entry* Role::allocate(Heap heap, std::uint32_t size, const AllocOptions& options) {
  Entry* entry = empty_entry();
  mine_heap_ = heap.id();
  const bool plain = options.tag.index == 0;
  auto p = inside(log_, [&] { return plain ? heap.allocate(size) : heap.allocate(size, options); });
  if (!p && p.error().code() == ENOMEM && patient_) {  // others have it now
    entry->of.store(Of::nobody);
    return nullptr;
  }
  note(*entry, must(std::move(p), "allocate"), size);
  mine_.push_back(entry);
  return entry;
}

void Role::free(Heap heap, Entry& entry) {
  void* p = must(domain_.from_region_ptr(RegionPtr{entry.ptr}), "from_region_ptr");
  if (!intact(p, entry.size, entry.seed)) complain("an object of the child is not intact", Error{});
  entry.of.store(Of::freeing, std::memory_order_release);
  must(inside(log_, [&] { return heap.deallocate(p); }), "deallocate");
  entry.of.store(Of::nobody, std::memory_order_release);
  if (!mine_.empty() && mine_.back() == &entry) {
    mine_.pop_back();
  } else {
    std::erase(mine_, &entry);
  }
}

void Role::free_lent(std::uint32_t most) {
  for (std::uint32_t i = 0; i < log_.entries && most != 0; ++i) {
    if (log_.entry[i].of != Of::lent) continue;
    free(small_, log_.entry[i]);
    --most;
  }
}

void Role::free_all(Heap heap) {
  while (!mine_.empty()) free(heap, *mine_.back());
}

void Role::reallocate(Heap heap, Entry& entry, std::uint32_t size) {
  void* p = must(domain_.from_region_ptr(RegionPtr{entry.ptr}), "from_region_ptr");
  entry.of.store(Of::freeing, std::memory_order_release);
  mine_heap_ = heap.id();
  auto moved = inside(log_, [&] { return heap.reallocate(p, size); });
  if (!moved && moved.error().code() == ENOMEM && patient_) {
    entry.of.store(Of::held);
    return;
  }
  void* now = must(std::move(moved), "reallocate");
  if (!begins_intact(now, entry.size, size, entry.seed))
    complain("a reallocated object is not intact", Error{});
  note(entry, now, size);
}

void Role::hand_over(Entry& entry) {
  void* p = must(domain_.from_region_ptr(RegionPtr{entry.ptr}), "from_region_ptr");
  entry.of.store(Of::handing, std::memory_order_release);
  must(inside(log_, [&] { return domain_.hand_over(p, log_.harness); }), "hand_over");
  entry.of.store(Of::handed, std::memory_order_release);
  std::erase(mine_, &entry);
}

void Role::reserve(Heap heap, std::uint32_t zone, std::uint32_t length) {
  ZoneEntry& z = log_.zone[zone];
  std::snprintf(z.name, sizeof z.name, "zone%u", zone);
  z.length = length;
  z.is.store(ZoneIs::reserving, std::memory_order_release);
  auto reserved = inside(log_, [&] { return domain_.reserve_memzone(heap, z.name, length); });
  if (!reserved && reserved.error().code() == ENOMEM && patient_) {
    z.is.store(ZoneIs::none);
    return;
  }
  must(std::move(reserved), "reserve_memzone");
  z.is.store(ZoneIs::reserved, std::memory_order_release);
}

void Role::unreserve(std::uint32_t zone) {
  ZoneEntry& z = log_.zone[zone];
  z.is.store(ZoneIs::freeing, std::memory_order_release);
  must(inside(log_, [&] { return domain_.free_memzone(z.name); }), "free_memzone");
  z.is.store(ZoneIs::none, std::memory_order_release);
}

RegionId Role::add_backing(Heap heap, std::uint64_t length) {
  BackingSpec spec;
  spec.length = length;
  return must(domain_.add_backing(heap, spec), "add_backing");
}

RegionId Role::add_file(Heap heap, std::uint64_t length) {
  const std::string path = directory_ + "/" + kFile;
  BackingSpec spec;
  spec.kind = BackingKind::file;
  spec.path = path.c_str();
  spec.unlink_on_remove = true;
  spec.length = length;
  return must(domain_.add_backing(heap, spec), "add_backing");
}

RegionId Role::add_external(std::uint64_t length) {
  RegionSpec spec;
  spec.base = ::mmap(nullptr, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  spec.length = length;
  spec.cpu_accessible = false;
  return must(domain_.add_region(small_, spec), "add_region");
}

}  // namespace extmem::crash
