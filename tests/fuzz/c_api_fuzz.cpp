// The C interface as a stream of operations: bytes become calls on a few heaps and regions, every answer is
// checked against a naive shadow, and verify() must agree at intervals.
//
// An input begins with two bytes (the heaps' styles, and which regions are there from the start); then each
// operation is one byte and its arguments. tests/fuzz/corpus/c_api_fuzz holds the seeds.
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <iterator>

#include "fuzz/shadow.hpp"

namespace extmem::fuzz {
namespace {

constexpr std::size_t kKiB = 1024;
constexpr std::size_t kHeaps = 3;  // two of the grounds, and one that grows
constexpr std::size_t kGrowing = 2;

std::byte* map(std::size_t length, int protection) {
  const std::size_t align = 64 * kKiB;
  void* p = ::mmap(nullptr, length + align, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  FUZZ_CHECK(p != MAP_FAILED);
  const auto start = reinterpret_cast<std::uintptr_t>(p);
  return static_cast<std::byte*>(p) + (align - start % align) % align;
}

/// Tiny; scattered IOVAs; large pages with a hole; device memory with one run; no IOVAs.
std::vector<Ground> make_grounds() {
  const auto ground = [](std::size_t length, std::size_t page, bool touchable) {
    return Ground{map(length, touchable ? PROT_READ | PROT_WRITE : PROT_NONE), length, page, touchable, {}};
  };
  std::vector<Ground> grounds;
  grounds.push_back(ground(8 * kKiB, 4 * kKiB, true));
  grounds.push_back(ground(256 * kKiB, 4 * kKiB, true));
  grounds.push_back(ground(1024 * kKiB, 64 * kKiB, true));
  grounds.push_back(ground(256 * kKiB, 4 * kKiB, false));
  grounds.push_back(ground(64 * kKiB, 4 * kKiB, true));
  for (std::size_t i = 0; i < 64; ++i)
    grounds[1].iovas.push_back(0x10000000 + (i / 3 * 5 + i % 3) * 4 * kKiB);
  for (std::size_t i = 0; i < 16; ++i) {
    grounds[2].iovas.push_back(i == 7 ? EXTMEM_BAD_IOVA : 0x1fffa0000 + i * 64 * kKiB);
  }
  for (std::size_t i = 0; i < 64; ++i) grounds[3].iovas.push_back(0x40000000 + i * 4 * kKiB);
  return grounds;
}

class Run {
 public:
  explicit Run(Reader& in) : in_(in), grounds_(lent()) {
    extmem_domain_options_t options = EXTMEM_DOMAIN_OPTIONS_INIT;
    options.max_regions = 256;  // more than those lent and 8192 KiB / 64 KiB grown ones: never full
    options.max_heaps = 64;
    options.max_memzones = 64;
    options.max_tags = 16;
    options.max_threads = 4;
    options.small_metadata = std::uint64_t{64} << 20;
    options.large_metadata = std::uint64_t{256} << 20;
    FUZZ_CHECK(extmem_domain_create(&options, &domain_) == 0);
    const std::uint8_t styles = in_.byte();
    for (std::size_t i = 0; i < kHeaps; ++i) make_heap(i, styles >> i & 1);
    const std::uint8_t present = in_.byte();
    for (std::size_t i = 0; i < grounds_.size(); ++i) {
      grounds_[i].added = grounds_[i].draining = false;
      grounds_[i].id = {};
      if (present >> i & 1) add_region(i, i % 2);
    }
    FUZZ_CHECK(extmem_tag_intern(domain_, "fuzz", &tag_) == 0);
  }
  ~Run() {
    for (auto& objects = shadow_.objects(); !objects.empty();) free_one(objects.begin());
    for (std::size_t i = 0; i < kHeaps; ++i) check_stats(i);
    verify();
    for (std::size_t i = 0; i < grounds_.size(); ++i) {
      if (grounds_[i].added) remove_region(i);
    }
    FUZZ_CHECK(extmem_domain_close(domain_) == 0);
  }
  void step() {
    switch (in_.below(20)) {
      case 0:
      case 1:
      case 2: {
        const std::size_t heap = in_.below(kHeaps);
        const std::size_t size = in_.size();
        void* p = extmem_malloc(heaps_[heap], size);
        take(p != nullptr ? 0 : extmem_last_error(), p, size, heap, nullptr);
        break;
      }
      case 3:
      case 4:
        allocate_constrained();
        break;
      case 5:
        allocate_raw();
        break;
      case 6:
      case 7:
      case 8:
        if (auto place = shadow_.pick(in_.below(65536), false); place != shadow_.objects().end())
          free_one(place);
        break;
      case 9:
        free_badly();
        break;
      case 10:
        reallocate();
        break;
      case 11:
        batch();
        break;
      case 12:
        zeroed();
        break;
      case 13:
        reserve_memzone();
        break;
      case 14:
        if (auto place = shadow_.pick(in_.below(65536), true); place != shadow_.objects().end())
          free_one(place);
        break;
      case 15:
        change_region();
        break;
      case 16:
        look_up();
        break;
      case 17:
        check_stats(in_.below(kHeaps));
        break;
      case 18:
        FUZZ_CHECK(extmem_heap_flush(heaps_[in_.below(kHeaps)]) == 0);
        break;
      default:
        verify();
    }
  }

 private:
  static std::vector<Ground>& lent() {
    static std::vector<Ground> grounds = make_grounds();
    return grounds;
  }

  // ---- heaps and regions -----------------------------------------------------------------------------------

  void make_heap(std::size_t i, bool exact) {
    extmem_heap_options_t options = EXTMEM_HEAP_OPTIONS_INIT;
    options.style = exact ? EXTMEM_STYLE_EXACT : EXTMEM_STYLE_BINNED;
    extmem_backing_spec_t backing = EXTMEM_BACKING_SPEC_INIT;
    if (i == kGrowing) {
      options.growth = &backing;
      options.growth_step = 64 * kKiB;
      options.growth_limit = 8192 * kKiB;
    }
    const std::string name = "heap" + std::to_string(i);
    FUZZ_CHECK(extmem_heap_create(domain_, name.c_str(), &options, &heaps_[i]) == 0);
    FUZZ_CHECK(extmem_heap_create(domain_, name.c_str(), &options, &heaps_[i]) == -EEXIST);
    exact_[i] = exact;
  }
  void add_region(std::size_t i, std::size_t heap) {
    Ground& ground = grounds_[i];
    extmem_region_spec_t spec = EXTMEM_REGION_SPEC_INIT;
    spec.base = ground.base;
    spec.length = ground.length;
    spec.os_page_size = ground.os_page_size;
    spec.cpu_accessible = ground.touchable;
    spec.iovas = ground.iovas.empty() ? nullptr : ground.iovas.data();
    spec.n_iovas = ground.iovas.size();
    const int rc = extmem_region_add(domain_, heaps_[heap], &spec, &ground.id);
    FUZZ_CHECK(rc == (ground.added ? -EEXIST : 0));
    if (rc == 0) {
      ground.added = true;
      ground.draining = false;
      ground.heap = heap;
    }
  }
  [[nodiscard]] bool in_use(const Ground& ground) const {
    return shadow_.any_in(reinterpret_cast<std::uintptr_t>(ground.base), ground.length);
  }
  void remove_region(std::size_t i) {
    Ground& ground = grounds_[i];
    extmem_holder_report_t report;
    const int rc = extmem_region_remove(domain_, ground.id, &report, sizeof(report));
    FUZZ_CHECK(rc == (!ground.added ? -ENOENT : in_use(ground) ? -EBUSY : 0));
    if (rc == -EBUSY) {
      FUZZ_CHECK(report.total_count > 0 && report.count > 0);
    }
    if (rc == 0) {
      ground.added = false;
      shadow_.forget_freed_in(reinterpret_cast<std::uintptr_t>(ground.base), ground.length);
    }
  }
  void change_region() {
    const std::size_t i = in_.below(grounds_.size());
    Ground& ground = grounds_[i];
    switch (in_.below(4)) {
      case 0:
        add_region(i, in_.below(2));
        break;
      case 1:
        if (ground.id.slot != 0) remove_region(i);
        break;
      case 2:
        if (ground.added) {
          const int rc = extmem_region_drain(domain_, ground.id, 0, nullptr, 0);
          FUZZ_CHECK(rc == (in_use(ground) ? -ETIMEDOUT : 0));
          ground.draining = true;
        }
        break;
      default:
        if (ground.added) {
          FUZZ_CHECK(extmem_region_undrain(domain_, ground.id) == 0);
          ground.draining = false;
        }
    }
  }
  const Ground* ground_of(const void* p, std::size_t size) const {
    for (const Ground& ground : grounds_) {
      if (ground.added && ground.contains(p, size)) return &ground;
    }
    return nullptr;
  }

  // ---- allocating ------------------------------------------------------------------------------------------

  /// Checks an answer of an allocating function and takes the object into the shadow.
  void take(int rc, void* p, std::size_t size, std::size_t heap, const extmem_alloc_options_t* options,
            const char* memzone = "", bool in_place = false) {
    if (rc != 0) {
      const int allowed[] = {-EINVAL, -ENOMEM, -EOVERFLOW, -ENOTSUP, -ENOENT, -E2BIG, -ENOSPC};
      FUZZ_CHECK(std::ranges::find(allowed, rc) != std::end(allowed));
      FUZZ_CHECK(std::strlen(extmem_last_error_message()) > 0);
      return;
    }
    FUZZ_CHECK(p != nullptr && size != 0);
    Object object{size, 0, heap, static_cast<std::uint8_t>(++patterns_ % 255 + 1), true, memzone};
    extmem_object_info_t info;
    FUZZ_CHECK(extmem_heap_find_owner(heaps_[heap], p, &info, sizeof(info)) == 0);
    FUZZ_CHECK(info.base == p && info.held && info.memzone == (*memzone != '\0') && info.size >= size);
    object.usable = info.size;
    if (const Ground* ground = ground_of(p, object.usable)) {
      FUZZ_CHECK(ground->heap == heap && (!ground->draining || in_place));
      object.touchable = ground->touchable;
      if (options != nullptr) check_constraints(*ground, p, size, *options);
    } else {
      FUZZ_CHECK(heap == kGrowing);
    }
    std::size_t align = exact_[heap] ? 64 : 16;
    if (options != nullptr && options->align != 0) align = options->align;
    FUZZ_CHECK(reinterpret_cast<std::uintptr_t>(p) % align == 0);
    if (options != nullptr && options->zero) {
      for (std::size_t i = 0; i < size; ++i) FUZZ_CHECK(static_cast<const std::uint8_t*>(p)[i] == 0);
    }
    shadow_.add(p, std::move(object));
  }
  static void check_constraints(const Ground& ground, const void* p, std::size_t size,
                                const extmem_alloc_options_t& options) {
    const auto offset = static_cast<std::size_t>(static_cast<const std::byte*>(p) - ground.base);
    FUZZ_CHECK(offset >= options.min_offset);
    FUZZ_CHECK(options.max_offset == 0 || offset + size <= options.max_offset);
    FUZZ_CHECK(options.region.slot == 0 || options.region.slot == ground.id.slot);
    FUZZ_CHECK(options.os_page_size == 0 || options.os_page_size == ground.os_page_size);
    if (options.iova_contiguous) FUZZ_CHECK(ground.contiguous(offset, size));
    if (options.dma_bits != 0) FUZZ_CHECK(ground.below(offset, size, options.dma_bits));
    if (options.nocross != 0) {
      // In addresses where that is asked for; else in IOVA space where that is known and asked for; else in offsets.
      std::uint64_t start = offset;
      if (options.nocross_in_addresses)
        start = reinterpret_cast<std::uintptr_t>(p);
      else if (options.iova_contiguous && ground.iova(offset) != EXTMEM_BAD_IOVA)
        start = ground.iova(offset);
      FUZZ_CHECK(start / options.nocross == (start + size - 1) / options.nocross);
    }
  }
  extmem_alloc_options_t constraints() {
    extmem_alloc_options_t options = EXTMEM_ALLOC_OPTIONS_INIT;
    const std::uint8_t which = in_.byte();
    const std::uint8_t more = in_.byte();
    if (which & 1) options.align = std::size_t{1} << in_.below(18);
    if (which & 2) options.nocross = std::size_t{1} << in_.below(22);
    if (which & 4) options.iova_contiguous = true;
    if (which & 8) options.dma_bits = static_cast<std::uint8_t>(in_.below(66));
    if (which & 16) options.placement = static_cast<std::uint8_t>(in_.below(3));
    if (which & 32) options.region = grounds_[in_.below(grounds_.size())].id;
    if (which & 64) options.os_page_size = more & 1 ? 4 * kKiB : 64 * kKiB;
    if (which & 128) options.tag = tag_;
    if (more & 2) options.min_offset = in_.below(65536) * 16;
    if (more & 4) options.max_offset = in_.below(65536) * 16;
    if (more & 8) options.zero = true;
    if (more & 16) options.numa_node = static_cast<int>(in_.below(3)) - 1;
    return options;
  }
  void allocate_constrained() {
    const std::size_t heap = in_.below(kHeaps);
    const std::size_t size = in_.size();
    const extmem_alloc_options_t options = constraints();
    void* p = nullptr;
    const int rc = extmem_heap_allocate(heaps_[heap], size, &options, &p);
    take(rc, p, size, heap, &options);
  }
  /// Options that are any bytes at all.
  void allocate_raw() {
    extmem_alloc_options_t options;
    std::array<std::uint8_t, sizeof(options)> bytes;
    in_.fill(bytes.data(), bytes.size());
    for (const std::size_t flag :
         {offsetof(extmem_alloc_options_t, iova_contiguous), offsetof(extmem_alloc_options_t, zero),
          offsetof(extmem_alloc_options_t, nocross_in_addresses), offsetof(extmem_alloc_options_t, in_place)})
      bytes[flag] &= 1;
    std::memcpy(&options, bytes.data(), sizeof(options));
    if (options.struct_size > sizeof(options)) options.struct_size = sizeof(options);
    const std::size_t heap = in_.below(kHeaps);
    const std::size_t size = in_.size();
    void* p = nullptr;
    const int rc = extmem_heap_allocate(heaps_[heap], size, &options, &p);
    take(rc, p, size, heap, &options);
  }
  void zeroed() {
    const std::size_t heap = in_.below(kHeaps);
    const std::size_t count = 1 + in_.below(8);
    const std::size_t size = in_.size();
    extmem_alloc_options_t options = EXTMEM_ALLOC_OPTIONS_INIT;
    void* p = nullptr;
    const int rc = extmem_heap_calloc(heaps_[heap], count, size, &options, &p);
    options.zero = true;
    take(rc, p, count * size, heap, &options);
  }
  void batch() {
    const std::size_t heap = in_.below(kHeaps);
    const std::size_t size = in_.size();
    std::array<void*, 40> out{};
    const std::size_t count = in_.below(out.size() + 1);
    const int rc = extmem_heap_allocate_batch(heaps_[heap], size, count, nullptr, out.data());
    for (std::size_t i = 0; i < count; ++i) take(rc, out[i], size, heap, nullptr);
  }
  void reserve_memzone() {
    const std::size_t heap = in_.below(kHeaps);
    const std::size_t length = in_.byte() < 20 ? 0 : in_.size();
    const extmem_alloc_options_t options = constraints();
    const std::string name = "zone" + std::to_string(in_.below(16));
    extmem_memzone_info_t zone;
    const int rc =
        extmem_memzone_reserve(domain_, heaps_[heap], name.c_str(), length, &options, &zone, sizeof(zone));
    if (rc == -EEXIST) {
      FUZZ_CHECK(extmem_memzone_find(domain_, name.c_str(), &zone, sizeof(zone)) == 0);
      return;
    }
    if (rc == 0) FUZZ_CHECK(zone.length >= length && name == zone.name);
    take(rc, rc == 0 ? zone.addr : nullptr, rc == 0 ? zone.length : 0, heap, &options, name.c_str());
  }

  // ---- freeing ---------------------------------------------------------------------------------------------

  void free_one(Shadow::Objects::iterator place) {
    void* p = reinterpret_cast<void*>(place->first);
    const Object object = place->second;
    shadow_.remove(place);
    if (!object.memzone.empty()) {
      FUZZ_CHECK(extmem_free(heaps_[object.heap], p) == -EPERM);
      FUZZ_CHECK(extmem_memzone_free(domain_, object.memzone.c_str()) == 0);
    } else if (object.size % 2 == 0) {
      FUZZ_CHECK(extmem_free(heaps_[object.heap], p) == 0);
    } else {
      FUZZ_CHECK(extmem_object_free(domain_, p) == 0);
    }
  }
  void free_badly() {
    const std::uint8_t kind = in_.byte();
    if (kind < 80 && !shadow_.freed().empty()) {
      void* p = reinterpret_cast<void*>(shadow_.freed()[in_.below(shadow_.freed().size())]);
      const int rc = extmem_object_free(domain_, p);
      // Its slab may have become another one since; the region may have been given back (growth).
      FUZZ_CHECK(rc == -EALREADY || rc == -EINVAL || (rc == -EFAULT && ground_of(p, 1) == nullptr));
    } else if (auto place = shadow_.pick(in_.below(65536), false);
               place != shadow_.objects().end() && kind < 160) {
      const std::size_t inside = 1 + in_.below(place->second.usable);
      auto* p = reinterpret_cast<std::byte*>(place->first) + inside;
      if (inside == place->second.usable) return;
      FUZZ_CHECK(extmem_object_free(domain_, p) == -EINVAL);
      FUZZ_CHECK(extmem_free(heaps_[(place->second.heap + 1) % kHeaps], p - inside) == -EFAULT);
    } else {
      std::uintptr_t address = 0;
      in_.fill(&address, sizeof(address));
      void* p = reinterpret_cast<void*>(address);
      if (address == 0 || shadow_.objects().contains(address)) return;
      const int rc = extmem_object_free(domain_, p);
      FUZZ_CHECK(rc == -EFAULT || rc == -EINVAL || rc == -EALREADY);
    }
  }
  void reallocate() {
    auto place = shadow_.pick(in_.below(65536), false);
    if (place == shadow_.objects().end()) return;
    const std::size_t size = in_.size();
    Object object = place->second;
    void* const old = reinterpret_cast<void*>(place->first);
    void* p = old;
    Shadow::check_content(place->first, object, object.usable);
    const int rc = extmem_heap_reallocate(heaps_[object.heap], size, nullptr, &p);
    if (rc != 0) {
      FUZZ_CHECK(p == old);
      FUZZ_CHECK(rc == -ENOMEM || rc == -EOVERFLOW || rc == -ENOTSUP || rc == -EINVAL);
      return;
    }
    Shadow::check_content(reinterpret_cast<std::uintptr_t>(p), object, std::min(object.usable, size));
    object.touchable = false;  // the old place is not ours any more: nothing to check there
    place->second = object;
    shadow_.remove(place);
    if (p == old) shadow_.forget_freed_in(reinterpret_cast<std::uintptr_t>(old), 1);
    take(0, p, size, object.heap, nullptr, "", p == old);
  }

  // ---- looking ---------------------------------------------------------------------------------------------

  void look_up() {
    auto place = shadow_.pick(in_.below(65536), in_.byte() % 2 == 0);
    if (place == shadow_.objects().end()) return;
    const auto& [start, object] = *place;
    auto* p = reinterpret_cast<std::byte*>(start);
    const std::size_t inside = in_.below(object.usable);
    extmem_object_info_t info;
    FUZZ_CHECK(extmem_object_find_owner(domain_, p + inside, &info, sizeof(info)) == 0);
    FUZZ_CHECK(info.base == p && info.size == object.usable && info.held);
    extmem_region_ptr_t ptr = 0;
    void* back = nullptr;
    FUZZ_CHECK(extmem_region_ptr_of_address(domain_, p + inside, &ptr) == 0);
    FUZZ_CHECK(extmem_region_ptr_to_address(domain_, ptr, &back) == 0 && back == p + inside);
    const Ground* ground = ground_of(p, object.usable);
    if (ground == nullptr) return;
    const auto offset = static_cast<std::size_t>(p - ground->base);
    extmem_iova_t iova = 0;
    FUZZ_CHECK(extmem_iova_of_address(domain_, p + inside, &iova) == 0);
    FUZZ_CHECK(iova == ground->iova(offset + inside));
    if (iova != EXTMEM_BAD_IOVA) {
      FUZZ_CHECK(extmem_iova_to_address(domain_, iova, &back) == 0 && back == p + inside);
    }
    std::array<extmem_iova_run_t, 16> runs;
    std::size_t count = 0;
    FUZZ_CHECK(extmem_iova_get_runs(domain_, p, object.usable, runs.data(), runs.size(), &count) == 0 &&
               count > 0);
    std::size_t covered = 0;
    for (std::size_t i = 0; i < std::min(count, runs.size()); ++i) {
      FUZZ_CHECK(runs[i].offset == covered && runs[i].iova == ground->iova(offset + covered));
      covered += runs[i].length;
    }
    FUZZ_CHECK(count > runs.size() || covered == object.usable);
  }
  void check_stats(std::size_t heap) {
    extmem_heap_stats_t stats;
    FUZZ_CHECK(extmem_heap_get_stats(heaps_[heap], &stats, sizeof(stats)) == 0);
    FUZZ_CHECK(stats.used_count == shadow_.count(heap));
    FUZZ_CHECK(stats.used_bytes == shadow_.bytes(heap));
    FUZZ_CHECK(stats.total_bytes ==
               stats.used_bytes + stats.free_bytes + stats.cached_bytes + stats.slab_free_bytes);
    FUZZ_CHECK(stats.largest_free <= stats.free_bytes && stats.peak_bytes >= stats.used_bytes);
  }
  void verify() {
    std::size_t breaches = 0;
    const auto report = [](const extmem_breach_t* breach, void*) {
      std::fprintf(
          stderr, "breach: %s (heap %u, region slot %u, at %llu: expected %llu, found %llu)\n", breach->what,
          breach->heap_id, breach->region_slot, static_cast<unsigned long long>(breach->where),
          static_cast<unsigned long long>(breach->expected), static_cast<unsigned long long>(breach->found));
    };
    FUZZ_CHECK(extmem_domain_verify(domain_, report, nullptr, &breaches) == 0);
    FUZZ_CHECK(breaches == 0);
  }

  Reader& in_;
  std::vector<Ground>& grounds_;
  Shadow shadow_;
  extmem_domain_t* domain_ = nullptr;
  std::array<extmem_heap_t, kHeaps> heaps_{};
  std::array<bool, kHeaps> exact_{};
  extmem_tag_t tag_ = 0;
  std::size_t patterns_ = 0;
};

}  // namespace
}  // namespace extmem::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  extmem::fuzz::Reader in(data, size);
  extmem::fuzz::Run run(in);
  for (int steps = 0; in.more() && steps < 2000; ++steps) run.step();
  return 0;
}
