// Face over the C interface.
#include <bit>
#include <string>

#include "contract/c_convert.hpp"
#include "contract/face.hpp"
#include "extmem/extmem.h"

namespace extmem::test {
std::unique_ptr<Face> make_cpp_face();
namespace {

class CFace final : public Face {
 public:
  ~CFace() override { close(); }
  int create(const DomainOptions& from) override {
    const extmem_domain_options_t options = c(from);
    return extmem_domain_create(&options, &domain_);
  }
  int open(const char* name, const OpenOptions& from) override {
    const extmem_domain_options_t sizes = c(from.sizes);
    extmem_open_options_t options = EXTMEM_OPEN_OPTIONS_INIT;
    options.sizes = &sizes;
    options.mode = static_cast<std::uint32_t>(from.mode);
    options.directory = from.directory;
    options.group = from.group;
    options.remove_when_last = from.remove_when_last;
    options.permanent = from.permanent;
    options.same_address = from.same_address;
    return extmem_domain_open(name, &options, &domain_);
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
    options.on_death = static_cast<std::uint8_t>(from.on_death);
    options.user_data = from.user_data;
    if (from.growth.step != 0) {
      options.growth = &growth;
      options.growth_step = from.growth.step;
      options.growth_limit = from.growth.limit;
      options.give_back = from.growth.give_back;
      options.keep_one = from.growth.keep_one;
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
  int heap_info(Heap heap, HeapInfo& info) override {
    extmem_heap_info_t out;
    const int rc = extmem_heap_get_info(c(heap), &out, sizeof(out));
    if (rc == 0) info = test::heap_info(out);
    return rc;
  }
  int list_heaps(std::vector<HeapInfo>& heaps) override {
    heaps.clear();
    return extmem_heap_list(domain_, collect<extmem_heap_info_t, HeapInfo, test::heap_info>, &heaps);
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
    spec.any_iovas = from.any_iovas;
    spec.alone_at_address = from.alone_at_address;
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
  int region_file(RegionId region, RegionFile& file) override {
    extmem_region_file_t out;
    const int rc = extmem_region_get_file(domain_, c(region), &out, sizeof(out));
    if (rc == 0) file = {out.fd, out.offset, out.length, static_cast<BackingKind>(out.kind)};
    return rc;
  }
  int region_of(const void* p, RegionId& region) override {
    return put_region(region, [&](auto* out) { return extmem_region_find(domain_, p, out); });
  }
  int add_listener(RegionListener listener, void* arg) override {
    listeners_.push_back(std::make_unique<Listener>(Listener{listener, arg}));
    return extmem_listener_add(
        domain_,
        [](const extmem_region_event_t* event, void* mine) {
          const auto* to = static_cast<const Listener*>(mine);
          return to->call(RegionEvent{static_cast<RegionEventKind>(event->kind), cpp(event->info),
                                      event->foreign, event->participant, event->pid},
                          to->arg);
        },
        listeners_.back().get());
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

  int remove(const char* name, const char* directory) override {
    return extmem_domain_remove(name, directory);
  }
  int list(const char* directory, std::vector<DomainInfo>& domains) override {
    domains.clear();
    return extmem_domain_list(directory, collect<extmem_domain_info_t, DomainInfo, domain_info>, &domains);
  }
  int is_named(bool& named) override { return extmem_domain_is_named(domain_, &named); }
  int participant(std::uint32_t& id) override { return extmem_domain_get_participant(domain_, &id); }
  int list_participants(std::vector<ParticipantInfo>& participants) override {
    participants.clear();
    return extmem_participant_walk(
        domain_, collect<extmem_participant_info_t, ParticipantInfo, participant_info>, &participants);
  }
  int recover(RecoveryReport& report) override {
    extmem_recovery_report_t out;
    const int rc = extmem_domain_recover(domain_, &out, sizeof(out));
    if (rc == 0) {
      report = {out.participants,  out.threads,          out.unfinished,    out.regions,
                out.freed_objects, out.freed_bytes,      out.kept_objects,  out.kept_bytes,
                out.nanoseconds,   out.withheld_objects, out.withheld_bytes};
    }
    return rc;
  }
  int poll() override { return extmem_domain_poll(domain_); }
  int hand_over(const void* p, std::uint32_t participant) override {
    return extmem_object_hand_over(domain_, p, participant);
  }
  int attach_region_file(RegionId region, int fd, std::uint64_t offset) override {
    return extmem_region_attach_file(domain_, c(region), fd, offset);
  }
  int attach_region(RegionId region, void* base) override {
    return extmem_region_attach(domain_, c(region), base);
  }
  int detach_region(RegionId region) override { return extmem_region_detach(domain_, c(region)); }
  int place_backings(std::uint64_t lowest) override { return extmem_domain_place_backings(domain_, lowest); }

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

  struct Listener {
    RegionListener call;
    void* arg;
  };
  extmem_domain_t* domain_ = nullptr;
  std::vector<std::unique_ptr<Listener>> listeners_;
};

}  // namespace

std::unique_ptr<Face> make_face(FaceKind kind) {
  if (kind == FaceKind::c) return std::make_unique<CFace>();
  return make_cpp_face();
}

}  // namespace extmem::test
