// Face over the C++ interface.
#include <string>

#include "contract/face.hpp"

namespace extmem::test {
std::unique_ptr<Face> make_cpp_face();
namespace {

class CppFace final : public Face {
 public:
  int create(const DomainOptions& options) override {
    auto created = Domain::create(options);
    if (!created) return keep(created.error());
    domain_ = std::move(*created);
    return 0;
  }
  int open(const char* name, const OpenOptions& options) override {
    auto opened = Domain::open(name, options);
    if (!opened) return keep(opened.error());
    domain_ = std::move(*opened);
    return 0;
  }
  void close() override { domain_ = Domain(); }
  [[nodiscard]] std::string message() const override { return error_.message(); }

  using Face::create_heap;
  int create_heap(const char* name, const HeapOptions& options, Heap& heap) override {
    return put(domain_.create_heap(name, options), heap);
  }
  int find_heap(const char* name, Heap& heap) override { return put(domain_.find_heap(name), heap); }
  int heap_by_id(std::uint32_t id, Heap& heap) override { return put(domain_.heap_by_id(id), heap); }
  int heap_of_node(int node, Heap& heap) override { return put(domain_.heap_of_node(node), heap); }
  int destroy_heap(Heap heap, HolderReport* users) override { return put(domain_.destroy_heap(heap, users)); }
  int heap_info(Heap heap, HeapInfo& info) override { return put(heap.info(), info); }
  int list_heaps(std::vector<HeapInfo>& heaps) override {
    heaps.clear();
    return put(domain_.walk_heaps([&](const HeapInfo& info) { return heaps.push_back(info), true; }));
  }

  int add_region(Heap heap, const RegionSpec& spec, RegionId& region) override {
    return put(domain_.add_region(heap, spec), region);
  }
  int add_backing(Heap heap, const BackingSpec& spec, RegionId& region) override {
    return put(domain_.add_backing(heap, spec), region);
  }
  int remove_region(RegionId region, HolderReport* holders) override {
    return put(domain_.remove_region(region, holders));
  }
  int drain_region(RegionId region, std::chrono::nanoseconds timeout, HolderReport* holders) override {
    return put(domain_.drain_region(region, timeout, holders));
  }
  int undrain_region(RegionId region) override { return put(domain_.undrain_region(region)); }
  int region_info(RegionId region, RegionInfo& info) override {
    return put(domain_.region_info(region), info);
  }
  int region_file(RegionId region, RegionFile& file) override {
    return put(domain_.region_file(region), file);
  }
  int region_of(const void* p, RegionId& region) override { return put(domain_.region_of(p), region); }
  int add_listener(RegionListener listener, void* arg) override {
    return put(domain_.add_listener(listener, arg));
  }
  int list_regions(std::vector<RegionInfo>& regions) override {
    regions.clear();
    return put(domain_.walk_regions([&](const RegionInfo& info) { return regions.push_back(info), true; }));
  }
  int list_iova_runs(RegionId region, std::vector<IovaRun>& runs) override {
    runs.clear();
    return put(domain_.walk_iova_runs(region, [&](const IovaRun& run) { return runs.push_back(run), true; }));
  }

  int iova_of(const void* p, Iova& iova) override { return put(domain_.iova_of(p), iova); }
  int address_of(Iova iova, void*& p) override { return put(domain_.address_of(iova), p); }
  int iova_contiguous(const void* p, std::size_t n, bool& contiguous) override {
    return put(domain_.iova_contiguous(p, n), contiguous);
  }
  int iova_runs(const void* p, std::size_t n, std::span<IovaRun> runs, std::size_t& count) override {
    return put(domain_.iova_runs(p, n, runs), count);
  }
  int to_region_ptr(const void* p, RegionPtr& ptr) override { return put(domain_.to_region_ptr(p), ptr); }
  int from_region_ptr(RegionPtr ptr, void*& p) override { return put(domain_.from_region_ptr(ptr), p); }

  using Face::allocate;
  int allocate(Heap heap, std::size_t size, const AllocOptions& options, void*& p) override {
    return put(heap.allocate(size, options), p);
  }
  int zalloc(Heap heap, std::size_t size, const AllocOptions& options, void*& p) override {
    return put(heap.zalloc(size, options), p);
  }
  int calloc(Heap heap, std::size_t count, std::size_t size, const AllocOptions& options, void*& p) override {
    return put(heap.calloc(count, size, options), p);
  }
  int reallocate(Heap heap, std::size_t size, const AllocOptions& options, void*& p) override {
    return put(heap.reallocate(p, size, options), p);
  }
  int deallocate(Heap heap, void* p) override { return put(heap.deallocate(p)); }
  int deallocate(void* p) override { return put(domain_.deallocate(p)); }
  int allocate_batch(Heap heap, std::size_t size, std::span<void*> out,
                     const AllocOptions& options) override {
    return put(heap.allocate_batch(size, out, options));
  }
  int deallocate_batch(Heap heap, std::span<void* const> pointers, std::size_t* first_bad) override {
    return put(heap.deallocate_batch(pointers, first_bad));
  }
  int usable_size(Heap heap, const void* p, std::size_t& size) override {
    return put(heap.usable_size(p), size);
  }
  int usable_size(const void* p, std::size_t& size) override { return put(domain_.usable_size(p), size); }
  int owner_of(Heap heap, const void* p, ObjectInfo& info) override { return put(heap.owner_of(p), info); }
  int owner_of(const void* p, ObjectInfo& info) override { return put(domain_.owner_of(p), info); }

  int stats(Heap heap, HeapStats& stats) override { return put(heap.stats(), stats); }
  int tag_stats(Heap heap, std::vector<TagStats>& stats) override {
    const auto count = heap.tag_stats({});
    if (!count) return keep(count.error());
    stats.assign(*count, TagStats{});
    return put(heap.tag_stats(stats));
  }
  int walk(Heap heap, bool objects, std::vector<WalkEntry>& entries) override {
    entries.clear();
    const auto visit = [&](const WalkEntry& entry) {
      entries.push_back(entry);
      entries.back().name = nullptr;  // valid in the callback only
      return true;
    };
    return put(heap.walk(visit, {objects}));
  }
  int verify(std::vector<Breach>& breaches) override {
    breaches.clear();
    return put(domain_.verify([&](const Breach& breach) { breaches.push_back(breach); }));
  }
  int flush(Heap heap) override { return put(heap.flush()); }

  int intern_tag(const char* name, Tag& tag) override { return put(domain_.intern_tag(name), tag); }
  int tag_name(Tag tag, std::string& name) override {
    const char* found = nullptr;
    const int rc = put(domain_.tag_name(tag), found);
    if (rc == 0) name = found;
    return rc;
  }

  int reserve_memzone(Heap heap, const char* name, std::size_t length, const AllocOptions& options,
                      MemzoneInfo& info) override {
    return put(domain_.reserve_memzone(heap, name, length, options), info);
  }
  int find_memzone(const char* name, MemzoneInfo& info) override {
    return put(domain_.find_memzone(name), info);
  }
  int free_memzone(const char* name) override { return put(domain_.free_memzone(name)); }
  int list_memzones(std::vector<MemzoneInfo>& memzones) override {
    memzones.clear();
    return put(
        domain_.walk_memzones([&](const MemzoneInfo& info) { return memzones.push_back(info), true; }));
  }
  int memzone_count(std::size_t& count) override { return count = domain_.memzone_count(), 0; }

  int remove(const char* name, const char* directory) override {
    return put(Domain::remove(name, directory));
  }
  int list(const char* directory, std::vector<DomainInfo>& domains) override {
    domains.clear();
    return put(
        Domain::list([&](const DomainInfo& info) { return domains.push_back(info), true; }, directory));
  }
  int is_named(bool& named) override { return named = domain_.is_named(), 0; }
  int participant(std::uint32_t& id) override { return id = domain_.participant(), 0; }
  int list_participants(std::vector<ParticipantInfo>& participants) override {
    participants.clear();
    return put(domain_.walk_participants(
        [&](const ParticipantInfo& info) { return participants.push_back(info), true; }));
  }
  int recover(RecoveryReport& report) override { return put(domain_.recover(), report); }
  int poll() override { return put(domain_.poll()); }
  int hand_over(const void* p, std::uint32_t participant) override {
    return put(domain_.hand_over(p, participant));
  }
  int attach_region_file(RegionId region, int fd, std::uint64_t offset) override {
    return put(domain_.attach_region_file(region, fd, offset));
  }
  int detach_region(RegionId region) override { return put(domain_.detach_region(region)); }
  int place_backings(std::uint64_t lowest) override { return put(domain_.place_backings(lowest)); }
  int attach_region(RegionId region, void* base) override { return put(domain_.attach_region(region, base)); }

 private:
  int keep(Error error) { return error_ = error, -error.code(); }
  template <typename T>
  int put(const Result<T>& result) {
    return result.ok() ? 0 : keep(result.error());
  }
  template <typename T>
  int put(const Result<T>& result, T& to) {
    if (!result) return keep(result.error());
    to = *result;
    return 0;
  }

  Domain domain_;
  static inline thread_local Error error_;  // as the C interface keeps it
};

}  // namespace

std::unique_ptr<Face> make_cpp_face() { return std::make_unique<CppFace>(); }

}  // namespace extmem::test
