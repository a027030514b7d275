#include "extmem/heap_map.hpp"

#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

#include "base/error.hpp"
#include "heap/heap_map_model.hpp"
#include "heap/heap_map_render.hpp"
#include "heap/heap_map_writer.hpp"
#include "os/mapping.hpp"

namespace extmem {
namespace {

namespace map = heap::map;

constexpr std::size_t kTagBatch = 8192;

struct Scratch {
  map::Model model;
  TagStats tags[kTagBatch];
};

class ScratchMapping {
 public:
  static Result<ScratchMapping> create() noexcept {
    EXTMEM_TRY(memory, os::reserve(sizeof(Scratch)));
    if (auto done = os::commit(memory, sizeof(Scratch)); !done) {
      os::unmap(memory, sizeof(Scratch));
      return done.error();
    }
    ScratchMapping mapping;
    mapping.scratch_ = ::new (memory) Scratch;
    return mapping;
  }
  ScratchMapping() noexcept = default;
  ScratchMapping(ScratchMapping&& other) noexcept : scratch_(std::exchange(other.scratch_, nullptr)) {}
  ScratchMapping& operator=(ScratchMapping&&) = delete;
  ~ScratchMapping() { os::unmap(scratch_, scratch_ != nullptr ? sizeof(Scratch) : 0); }
  Scratch& operator*() const noexcept { return *scratch_; }

 private:
  Scratch* scratch_ = nullptr;
};

// What a map is drawn of: a domain of this process, or one that is looked at from outside. Both have walk_regions,
// walk_heaps, stats, tag_stats, walk, walk_iova_runs and name_tags.
class FromDomain {
 public:
  explicit FromDomain(const Domain& domain) noexcept : domain_(domain) {}
  Result<void> walk_regions(FunctionRef<bool(const RegionInfo&)> visit) noexcept {
    return domain_.walk_regions(visit);
  }
  Result<void> walk_heaps(FunctionRef<bool(const HeapInfo&)> visit) noexcept {
    return domain_.walk_heaps(visit);
  }
  Result<HeapStats> stats(std::uint32_t id) noexcept {
    EXTMEM_TRY(heap, domain_.heap_by_id(id));
    return heap.stats();
  }
  Result<std::size_t> tag_stats(std::uint32_t id, std::span<TagStats> out) noexcept {
    EXTMEM_TRY(heap, domain_.heap_by_id(id));
    return heap.tag_stats(out);
  }
  Result<void> walk(std::uint32_t id, FunctionRef<bool(const WalkEntry&)> visit,
                    const WalkOptions& options) noexcept {
    EXTMEM_TRY(heap, domain_.heap_by_id(id));
    return heap.walk(visit, options);
  }
  Result<void> walk_iova_runs(RegionId id, FunctionRef<bool(const IovaRun&)> visit) noexcept {
    return domain_.walk_iova_runs(id, visit);
  }
  void name_tags(map::Model& model) noexcept {
    for (std::uint32_t i = 0; i < model.ranked_count; ++i) {
      map::Model::Ranked& ranked = model.ranked[i];
      auto name = domain_.tag_name(ranked.tag);
      if (name) std::memcpy(ranked.name, *name, strnlen(*name, kMaxNameLength));
    }
  }

 private:
  const Domain& domain_;
};

class FromInspector {
 public:
  explicit FromInspector(Inspector& inspector) noexcept : inspector_(inspector) {}
  Result<void> walk_regions(FunctionRef<bool(const RegionInfo&)> visit) noexcept {
    return inspector_.walk_regions(visit);
  }
  Result<void> walk_heaps(FunctionRef<bool(const HeapInfo&)> visit) noexcept {
    return inspector_.walk_heaps(visit);
  }
  Result<HeapStats> stats(std::uint32_t id) noexcept {
    bool stable = true;
    return inspector_.stats(id, &stable);
  }
  Result<std::size_t> tag_stats(std::uint32_t id, std::span<TagStats> out) noexcept {
    bool stable = true;
    return inspector_.tag_stats(id, out, &stable);
  }
  Result<void> walk(std::uint32_t id, FunctionRef<bool(const WalkEntry&)> visit,
                    const WalkOptions& options) noexcept {
    bool stable = true;
    return inspector_.walk(id, visit, options, &stable);
  }
  Result<void> walk_iova_runs(RegionId id, FunctionRef<bool(const IovaRun&)> visit) noexcept {
    auto walked = inspector_.walk_iova_runs(id, visit);
    if (!walked && walked.error().code() == EAGAIN) return {};  // drawn without
    return walked;
  }
  void name_tags(map::Model& model) noexcept {
    (void)inspector_.walk_tags([&](Tag tag, const char* name) {
      for (std::uint32_t i = 0; i < model.ranked_count; ++i) {
        if (model.ranked[i].tag == tag)
          std::memcpy(model.ranked[i].name, name, strnlen(name, kMaxNameLength));
      }
      return true;
    });
  }

 private:
  Inspector& inspector_;
};

constexpr std::uint32_t kEveryHeap = ~std::uint32_t{0};

// The first walk: which regions there are, and which heaps they belong to.
template <typename Source>
Result<void> collect_regions(Source& source, std::uint32_t only, map::Model& model) noexcept {
  EXTMEM_TRY_VOID(source.walk_regions([&](const RegionInfo& info) {
    if (only == kEveryHeap || info.heap_id == only) model.add_region(info);
    return true;
  }));
  return source.walk_heaps([&](const HeapInfo& info) {
    ++model.heaps_total;
    bool drawn = false;
    for (std::uint32_t i = 0; i < model.plot_count && !drawn; ++i)
      drawn = model.plots[i].info.heap_id == info.id;
    if (drawn && model.heap_count < kHeapMapMaxRegions) {
      map::HeapRow& row = model.heaps[model.heap_count++];
      row = map::HeapRow{};
      row.info = info;
    }
    return true;
  });
}

bool gone(Error error) noexcept { return error.code() == ESTALE || error.code() == ENOENT; }

// Sums the tags of all heaps. A heap that went in the meantime is drawn as unknown, and is no error.
template <typename Source>
Result<void> collect_heaps(Source& source, Scratch& scratch) noexcept {
  map::Model& model = scratch.model;
  for (std::uint32_t i = 0; i < model.heap_count; ++i) {
    map::HeapRow& row = model.heaps[i];
    auto stats = source.stats(row.info.id);
    if (!stats) continue;
    row.stats = *stats;
    row.known = true;
    auto count = source.tag_stats(row.info.id, scratch.tags);
    if (!count && !gone(count.error())) return count.error();
    for (std::size_t t = 0; count && t < *count && t < kTagBatch; ++t)
      model.add_tag(scratch.tags[t].tag, scratch.tags[t].live_bytes);
  }
  return {};
}

template <typename Source>
Result<void> walk_all(Source& source, map::Model& model) noexcept {
  const WalkOptions walk{.objects = model.objects};
  for (std::uint32_t i = 0; i < model.heap_count; ++i) {
    const auto walked = source.walk(
        model.heaps[i].info.id,
        [&](const WalkEntry& entry) {
          model.add(entry);
          return true;
        },
        walk);
    if (!walked && !gone(walked.error())) return walked.error();
  }
  for (std::uint32_t i = 0; i < model.plot_count; ++i) {
    map::Plot& plot = model.plots[i];
    const auto walked = source.walk_iova_runs(plot.info.id, [&](const IovaRun& run) {
      model.add_iova_run(plot, run);
      return true;
    });
    if (!walked && walked.error().code() != ENOENT) return walked.error();
  }
  return {};
}

template <typename Source>
Result<void> write_map(Source& source, FunctionRef<bool(std::string_view)> sink,
                       const HeapMapOptions& options, std::uint32_t only,
                       std::uint64_t metadata_bytes) noexcept {
  EXTMEM_TRY(mapping, ScratchMapping::create());
  Scratch& scratch = *mapping;
  map::Model& model = scratch.model;
  model.reset();
  model.objects = options.objects;
  model.metadata_bytes = metadata_bytes;
  EXTMEM_TRY_VOID(collect_regions(source, only, model));
  EXTMEM_TRY_VOID(collect_heaps(source, scratch));
  const map::Layout layout =
      options.format == HeapMapFormat::svg ? map::svg_layout(model) : map::text_layout(options);
  model.layout(layout.max_bar, layout.min_bar, layout.unit);
  source.name_tags(model);
  EXTMEM_TRY_VOID(walk_all(source, model));
  model.finish();

  map::Writer out(sink);
  if (options.format == HeapMapFormat::svg) {
    map::render_svg(model, options, out);
  } else {
    map::render_text(model, options, out);
  }
  if (!out.flush())
    return EXTMEM_ERROR(ECANCELED, "the heap map's sink stopped: the picture is not complete");
  return {};
}

}  // namespace

Result<void> write_heap_map(const Domain& domain, FunctionRef<bool(std::string_view)> sink,
                            const HeapMapOptions& options) noexcept {
  if (!domain || !sink) {
    return EXTMEM_ERROR(EINVAL,
                        "the heap map needs an open domain and a sink; the one or the other is empty");
  }
  if (options.heap) {
    EXTMEM_TRY(living, domain.heap_by_id(options.heap.id()));
    if (living != options.heap)
      return EXTMEM_ERROR(ESTALE, "the heap to draw was destroyed, or belongs to another domain");
  }
  FromDomain source(domain);
  return write_map(source, sink, options, options.heap ? options.heap.id() : kEveryHeap,
                   domain.metadata_resident_bytes());
}

Result<void> write_heap_map(Inspector& inspector, FunctionRef<bool(std::string_view)> sink,
                            const HeapMapOptions& options, std::string_view heap) noexcept {
  if (!inspector || !sink) {
    return EXTMEM_ERROR(EINVAL,
                        "the heap map needs an open inspector and a sink; the one or the other is empty");
  }
  std::uint32_t only = kEveryHeap;
  if (!heap.empty()) {
    EXTMEM_TRY_VOID(inspector.walk_heaps([&](const HeapInfo& info) {
      if (heap == info.name) only = info.id;
      return only == kEveryHeap;
    }));
    if (only == kEveryHeap) return EXTMEM_ERROR(ENOENT, "the domain has no heap of that name to draw");
  }
  FromInspector source(inspector);
  return write_map(source, sink, options, only, inspector.metadata_resident_bytes());
}

}  // namespace extmem
