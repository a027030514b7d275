// Face over the C interface.
#include <bit>
#include <cstring>
#include <string>

#include "contract/face.hpp"
#include "extmem/extmem.h"

namespace extmem::test {
std::unique_ptr<Face> make_cpp_face();
namespace {

// ---- options to C ------------------------------------------------------------------------------------------

extmem_heap_t c(Heap heap) { return std::bit_cast<extmem_heap_t>(heap); }
extmem_region_id_t c(RegionId id) { return {id.slot, id.generation}; }

extmem_alloc_options_t c(const AllocOptions& from) {
  extmem_alloc_options_t to = EXTMEM_ALLOC_OPTIONS_INIT;
  to.align = from.align;
  to.nocross = from.nocross;
  to.os_page_size = from.os_page_size;
  to.min_offset = from.min_offset;
  to.max_offset = from.max_offset;
  to.region = c(from.region);
  to.numa_node = from.numa_node;
  to.tag = from.tag.index;
  to.dma_bits = from.dma_bits;
  to.placement = static_cast<std::uint8_t>(from.placement);
  to.iova_contiguous = from.iova_contiguous;
  to.zero = from.zero;
  return to;
}

extmem_backing_spec_t c(const BackingSpec& from) {
  extmem_backing_spec_t to = EXTMEM_BACKING_SPEC_INIT;
  to.length = from.length;
  to.os_page_size = from.os_page_size;
  to.path = from.path;
  to.kind = static_cast<std::uint32_t>(from.kind);
  to.fallback = static_cast<std::uint32_t>(from.fallback);
  to.iova_source = static_cast<std::uint32_t>(from.iova_source);
  to.numa_node = from.numa_node;
  to.create = from.create;
  to.unlink_on_remove = from.unlink_on_remove;
  to.thp = from.thp;
  to.prefault = from.prefault;
  to.lock = from.lock;
  to.allow_unstable_iova = from.allow_unstable_iova;
  if (from.progress) {  // lives as long as `from`, which outlives the call
    to.progress = [](std::uint64_t done, std::uint64_t total, void* arg) {
      return static_cast<const BackingSpec*>(arg)->progress(done, total);
    };
    to.progress_arg = const_cast<BackingSpec*>(&from);
  }
  return to;
}

// ---- reports from C ----------------------------------------------------------------------------------------

template <std::size_t N>
void copy_name(char (&to)[N], const char (&from)[N]) {
  std::memcpy(to, from, N);
}

RegionInfo cpp(const extmem_region_info_t& from) {
  RegionInfo to;
  to.id = {from.id.slot, from.id.generation};
  to.heap_id = from.heap_id;
  to.base = from.base;
  to.length = from.length;
  to.os_page_size = from.os_page_size;
  to.page_size = from.page_size;
  to.kind = static_cast<BackingKind>(from.kind);
  to.external = from.external;
  to.cpu_accessible = from.cpu_accessible;
  to.draining = from.draining;
  to.grown = from.grown;
  to.numa_node = from.numa_node;
  to.fd = from.fd;
  to.free_bytes = from.free_bytes;
  to.largest_free = from.largest_free;
  to.free_runs = from.free_runs;
  to.iova_runs = from.iova_runs;
  to.iova_table_bytes = from.iova_table_bytes;
  return to;
}

void cpp(const extmem_holder_report_t& from, HolderReport& to) {
  to = HolderReport{};
  to.count = from.count;
  to.more = from.more;
  to.total_count = from.total_count;
  to.total_bytes = from.total_bytes;
  for (std::size_t i = 0; i < from.count; ++i) {
    copy_name(to.holders[i].tag, from.holders[i].tag);
    to.holders[i].memzone = from.holders[i].memzone;
    to.holders[i].count = from.holders[i].count;
    to.holders[i].bytes = from.holders[i].bytes;
  }
}

HeapStats cpp(const extmem_heap_stats_t& from) {
  return {from.total_bytes,     from.used_bytes,   from.free_bytes,     from.cached_bytes,
          from.slab_free_bytes, from.largest_free, from.free_runs,      from.used_count,
          from.cached_count,    from.peak_bytes,   from.peak_error,     from.slabs,
          from.regions,         from.memzones,     from.metadata_bytes, from.fragmentation};
}

ObjectInfo cpp(const extmem_object_info_t& from) {
  return {from.base,     from.size,    from.heap_id, {from.region.slot, from.region.generation},
          Tag{from.tag}, from.memzone, from.held};
}

MemzoneInfo cpp(const extmem_memzone_info_t& from) {
  MemzoneInfo to;
  copy_name(to.name, from.name);
  to.addr = from.addr;
  to.length = from.length;
  to.iova = Iova{from.iova};
  to.os_page_size = from.os_page_size;
  to.heap_id = from.heap_id;
  to.numa_node = from.numa_node;
  to.ptr = RegionPtr{from.ptr};
  return to;
}

WalkEntry cpp(const extmem_walk_entry_t& from) {
  WalkEntry to{};
  to.kind = static_cast<WalkKind>(from.kind);
  to.heap_id = from.heap_id;
  to.region = {from.region.slot, from.region.generation};
  to.external = from.external;
  to.offset = from.offset;
  to.length = from.length;
  to.addr = from.addr;
  to.tag = Tag{from.tag};
  to.held = from.held;
  to.cached = from.cached;
  to.object_size = from.object_size;
  to.object_count = from.object_count;
  to.held_count = from.held_count;
  return to;
}

/// Appends what a C visitor is shown to the vector that `arg` is.
template <typename CType, typename CppType, CppType (*convert)(const CType&)>
int collect(const CType* value, void* arg) {
  static_cast<std::vector<CppType>*>(arg)->push_back(convert(*value));
  return 0;
}

HeapInfo heap_info(const extmem_heap_info_t& from) {
  HeapInfo to;
  copy_name(to.name, from.name);
  to.id = from.id;
  to.style = static_cast<Style>(from.style);
  to.regions = from.regions;
  return to;
}
IovaRun iova_run(const extmem_iova_run_t& from) { return {from.offset, from.length, Iova{from.iova}}; }
Breach breach(const extmem_breach_t& from) {
  return {from.what, from.heap_id, from.region_slot, from.where, from.expected, from.found};
}

class CFace final : public Face {
 public:
  ~CFace() override { close(); }
  int create(const DomainOptions& from) override {
    extmem_domain_options_t options = EXTMEM_DOMAIN_OPTIONS_INIT;
    options.max_regions = from.max_regions;
    options.max_heaps = from.max_heaps;
    options.max_memzones = from.max_memzones;
    options.max_tags = from.max_tags;
    options.max_threads = from.max_threads;
    options.small_metadata = from.small_metadata;
    options.large_metadata = from.large_metadata;
    return extmem_domain_create(&options, &domain_);
  }
  void close() override {
    if (domain_ != nullptr) extmem_domain_close(domain_);
    domain_ = nullptr;
  }
  [[nodiscard]] std::string message() const override { return extmem_last_error_message(); }

  using Face::create_heap;
  int create_heap(const char* name, const HeapOptions& from, Heap& heap) override {
    extmem_heap_options_t options = EXTMEM_HEAP_OPTIONS_INIT;
    const extmem_backing_spec_t growth = c(from.growth.backing);
    options.style = static_cast<std::uint32_t>(from.style);
    if (from.growth.step != 0) {
      options.growth = &growth;
      options.growth_step = from.growth.step;
      options.growth_limit = from.growth.limit;
      options.give_back = from.growth.give_back;
    }
    return put_heap(heap,
                    [&](extmem_heap_t* out) { return extmem_heap_create(domain_, name, &options, out); });
  }
  int find_heap(const char* name, Heap& heap) override {
    return put_heap(heap, [&](extmem_heap_t* out) { return extmem_heap_find(domain_, name, out); });
  }
  int heap_by_id(std::uint32_t id, Heap& heap) override {
    return put_heap(heap, [&](extmem_heap_t* out) { return extmem_heap_find_by_id(domain_, id, out); });
  }
  int heap_of_node(int node, Heap& heap) override {
    return put_heap(heap, [&](extmem_heap_t* out) { return extmem_heap_find_by_node(domain_, node, out); });
  }
  int destroy_heap(Heap heap, HolderReport* users) override {
    return with_report(users, [&](auto* report, std::size_t size) {
      return extmem_heap_destroy(domain_, c(heap), report, size);
    });
  }
  int list_heaps(std::vector<HeapInfo>& heaps) override {
    heaps.clear();
    return extmem_heap_list(domain_, collect<extmem_heap_info_t, HeapInfo, heap_info>, &heaps);
  }

  int add_region(Heap heap, const RegionSpec& from, RegionId& region) override {
    std::vector<extmem_iova_t> iovas;
    for (const Iova iova : from.iovas) iovas.push_back(static_cast<extmem_iova_t>(iova));
    extmem_region_spec_t spec = EXTMEM_REGION_SPEC_INIT;
    spec.base = from.base;
    spec.length = from.length;
    spec.os_page_size = from.os_page_size;
    spec.iovas = iovas.empty() ? nullptr : iovas.data();
    spec.n_iovas = iovas.size();
    spec.iova_source = static_cast<std::uint32_t>(from.iova_source);
    spec.numa_node = from.numa_node;
    spec.allow_unstable_iova = from.allow_unstable_iova;
    spec.cpu_accessible = from.cpu_accessible;
    return put_region(region, [&](auto* out) { return extmem_region_add(domain_, c(heap), &spec, out); });
  }
  int add_backing(Heap heap, const BackingSpec& from, RegionId& region) override {
    const extmem_backing_spec_t spec = c(from);
    return put_region(region,
                      [&](auto* out) { return extmem_region_add_backing(domain_, c(heap), &spec, out); });
  }
  int remove_region(RegionId region, HolderReport* holders) override {
    return with_report(holders, [&](auto* report, std::size_t size) {
      return extmem_region_remove(domain_, c(region), report, size);
    });
  }
  int drain_region(RegionId region, std::chrono::nanoseconds timeout, HolderReport* holders) override {
    return with_report(holders, [&](auto* report, std::size_t size) {
      return extmem_region_drain(domain_, c(region), static_cast<std::uint64_t>(timeout.count()), report,
                                 size);
    });
  }
  int undrain_region(RegionId region) override { return extmem_region_undrain(domain_, c(region)); }
  int region_info(RegionId region, RegionInfo& info) override {
    extmem_region_info_t out;
    const int rc = extmem_region_get_info(domain_, c(region), &out, sizeof(out));
    if (rc == 0) info = cpp(out);
    return rc;
  }
  int region_of(const void* p, RegionId& region) override {
    return put_region(region, [&](auto* out) { return extmem_region_find(domain_, p, out); });
  }
  int list_regions(std::vector<RegionInfo>& regions) override {
    regions.clear();
    return extmem_region_list(domain_, collect<extmem_region_info_t, RegionInfo, cpp>, &regions);
  }
  int list_iova_runs(RegionId region, std::vector<IovaRun>& runs) override {
    runs.clear();
    return extmem_region_list_iova_runs(domain_, c(region), collect<extmem_iova_run_t, IovaRun, iova_run>,
                                        &runs);
  }

  int iova_of(const void* p, Iova& iova) override {
    extmem_iova_t out = 0;
    const int rc = extmem_iova_of_address(domain_, p, &out);
    if (rc == 0) iova = Iova{out};
    return rc;
  }
  int address_of(Iova iova, void*& p) override {
    return extmem_iova_to_address(domain_, static_cast<extmem_iova_t>(iova), &p);
  }
  int iova_contiguous(const void* p, std::size_t n, bool& contiguous) override {
    return extmem_iova_is_contiguous(domain_, p, n, &contiguous);
  }
  int iova_runs(const void* p, std::size_t n, std::span<IovaRun> runs, std::size_t& count) override {
    std::vector<extmem_iova_run_t> out(runs.size());
    const int rc =
        extmem_iova_get_runs(domain_, p, n, out.empty() ? nullptr : out.data(), out.size(), &count);
    for (std::size_t i = 0; rc == 0 && i < std::min(count, out.size()); ++i) runs[i] = iova_run(out[i]);
    return rc;
  }
  int to_region_ptr(const void* p, RegionPtr& ptr) override {
    return extmem_region_ptr_of_address(domain_, p, &ptr.bits);
  }
  int from_region_ptr(RegionPtr ptr, void*& p) override {
    return extmem_region_ptr_to_address(domain_, ptr.bits, &p);
  }

  using Face::allocate;
  int allocate(Heap heap, std::size_t size, const AllocOptions& from, void*& p) override {
    const auto options = c(from);
    return extmem_heap_allocate(c(heap), size, &options, &p);
  }
  int zalloc(Heap heap, std::size_t size, const AllocOptions& from, void*& p) override {
    const auto options = c(from);
    return extmem_heap_zalloc(c(heap), size, &options, &p);
  }
  int calloc(Heap heap, std::size_t count, std::size_t size, const AllocOptions& from, void*& p) override {
    const auto options = c(from);
    return extmem_heap_calloc(c(heap), count, size, &options, &p);
  }
  int reallocate(Heap heap, std::size_t size, const AllocOptions& from, void*& p) override {
    const auto options = c(from);
    return extmem_heap_reallocate(c(heap), size, &options, &p);
  }
  int deallocate(Heap heap, void* p) override { return extmem_free(c(heap), p); }
  int deallocate(void* p) override { return extmem_object_free(domain_, p); }
  int allocate_batch(Heap heap, std::size_t size, std::span<void*> out, const AllocOptions& from) override {
    const auto options = c(from);
    return extmem_heap_allocate_batch(c(heap), size, out.size(), &options, out.data());
  }
  int deallocate_batch(Heap heap, std::span<void* const> pointers, std::size_t* first_bad) override {
    return extmem_heap_deallocate_batch(c(heap), pointers.size(), pointers.data(), first_bad);
  }
  int usable_size(Heap heap, const void* p, std::size_t& size) override {
    return extmem_heap_get_usable_size(c(heap), p, &size);
  }
  int usable_size(const void* p, std::size_t& size) override {
    return extmem_object_get_usable_size(domain_, p, &size);
  }
  int owner_of(Heap heap, const void* p, ObjectInfo& info) override {
    extmem_object_info_t out;
    const int rc = extmem_heap_find_owner(c(heap), p, &out, sizeof(out));
    if (rc == 0) info = cpp(out);
    return rc;
  }
  int owner_of(const void* p, ObjectInfo& info) override {
    extmem_object_info_t out;
    const int rc = extmem_object_find_owner(domain_, p, &out, sizeof(out));
    if (rc == 0) info = cpp(out);
    return rc;
  }

  int stats(Heap heap, HeapStats& stats) override {
    extmem_heap_stats_t out;
    const int rc = extmem_heap_get_stats(c(heap), &out, sizeof(out));
    if (rc == 0) stats = cpp(out);
    return rc;
  }
  int tag_stats(Heap heap, std::vector<TagStats>& stats) override {
    std::size_t count = 0;
    int rc = extmem_heap_get_tag_stats(c(heap), nullptr, 0, &count);
    if (rc != 0) return rc;
    std::vector<extmem_tag_stats_t> out(count);
    rc = extmem_heap_get_tag_stats(c(heap), out.empty() ? nullptr : out.data(), count, &count);
    if (rc != 0) return rc;
    stats.clear();
    for (const auto& from : out) {
      TagStats to;
      copy_name(to.name, from.name);
      to.tag = Tag{from.tag};
      to.live_bytes = from.live_bytes;
      to.live_count = from.live_count;
      to.peak_bytes = from.peak_bytes;
      to.peak_error = from.peak_error;
      stats.push_back(to);
    }
    return 0;
  }
  int walk(Heap heap, bool objects, std::vector<WalkEntry>& entries) override {
    entries.clear();
    extmem_walk_options_t options = EXTMEM_WALK_OPTIONS_INIT;
    options.objects = objects;
    return extmem_heap_walk(c(heap), &options, collect<extmem_walk_entry_t, WalkEntry, cpp>, &entries);
  }
  int verify(std::vector<Breach>& breaches) override {
    breaches.clear();
    std::size_t count = 0;
    return extmem_domain_verify(
        domain_,
        [](const extmem_breach_t* found, void* arg) {
          static_cast<std::vector<Breach>*>(arg)->push_back(breach(*found));
        },
        &breaches, &count);
  }
  int flush(Heap heap) override { return extmem_heap_flush(c(heap)); }

  int intern_tag(const char* name, Tag& tag) override { return extmem_tag_intern(domain_, name, &tag.index); }
  int tag_name(Tag tag, std::string& name) override {
    const char* found = nullptr;
    const int rc = extmem_tag_get_name(domain_, tag.index, &found);
    if (rc == 0) name = found;
    return rc;
  }

  int reserve_memzone(Heap heap, const char* name, std::size_t length, const AllocOptions& from,
                      MemzoneInfo& info) override {
    const auto options = c(from);
    extmem_memzone_info_t out;
    const int rc = extmem_memzone_reserve(domain_, c(heap), name, length, &options, &out, sizeof(out));
    if (rc == 0) info = cpp(out);
    return rc;
  }
  int find_memzone(const char* name, MemzoneInfo& info) override {
    extmem_memzone_info_t out;
    const int rc = extmem_memzone_find(domain_, name, &out, sizeof(out));
    if (rc == 0) info = cpp(out);
    return rc;
  }
  int free_memzone(const char* name) override { return extmem_memzone_free(domain_, name); }
  int list_memzones(std::vector<MemzoneInfo>& memzones) override {
    memzones.clear();
    return extmem_memzone_list(domain_, collect<extmem_memzone_info_t, MemzoneInfo, cpp>, &memzones);
  }
  int memzone_count(std::size_t& count) override { return extmem_memzone_get_count(domain_, &count); }

 private:
  template <typename Call>
  static int put_heap(Heap& heap, Call call) {
    extmem_heap_t out{};
    const int rc = call(&out);
    if (rc == 0) heap = std::bit_cast<Heap>(out);
    return rc;
  }
  template <typename Call>
  static int put_region(RegionId& region, Call call) {
    extmem_region_id_t out{};
    const int rc = call(&out);
    if (rc == 0) region = {out.slot, out.generation};
    return rc;
  }
  template <typename Call>
  static int with_report(HolderReport* report, Call call) {
    if (report == nullptr) return call(static_cast<extmem_holder_report_t*>(nullptr), std::size_t{0});
    extmem_holder_report_t out{};
    const int rc = call(&out, sizeof(out));
    cpp(out, *report);
    return rc;
  }

  extmem_domain_t* domain_ = nullptr;
};

}  // namespace

std::unique_ptr<Face> make_face(FaceKind kind) {
  if (kind == FaceKind::c) return std::make_unique<CFace>();
  return make_cpp_face();
}

}  // namespace extmem::test
