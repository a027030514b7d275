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

// The first walk: which regions there are, and which heaps they belong to.
Result<void> collect_regions(const Domain& domain, const HeapMapOptions& options,
                             map::Model& model) noexcept {
  EXTMEM_TRY_VOID(domain.walk_regions([&](const RegionInfo& info) {
    if (!options.heap || info.heap_id == options.heap.id()) model.add_region(info);
    return true;
  }));
  return domain.walk_heaps([&](const HeapInfo& info) {
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

// Sums the tags of all heaps. A heap that went in the meantime is drawn as unknown, and is no error.
Result<void> collect_heaps(const Domain& domain, Scratch& scratch) noexcept {
  map::Model& model = scratch.model;
  for (std::uint32_t i = 0; i < model.heap_count; ++i) {
    map::HeapRow& row = model.heaps[i];
    auto heap = domain.heap_by_id(row.info.id);
    if (!heap) continue;
    auto stats = heap->stats();
    if (!stats) continue;
    row.stats = *stats;
    row.known = true;
    auto count = heap->tag_stats(scratch.tags);
    if (!count) return count.error();
    for (std::size_t t = 0; t < *count && t < kTagBatch; ++t)
      model.add_tag(scratch.tags[t].tag, scratch.tags[t].live_bytes);
  }
  return {};
}

void name_tags(const Domain& domain, map::Model& model) noexcept {
  for (std::uint32_t i = 0; i < model.ranked_count; ++i) {
    map::Model::Ranked& ranked = model.ranked[i];
    auto name = domain.tag_name(ranked.tag);
    if (name) std::memcpy(ranked.name, *name, strnlen(*name, kMaxNameLength));
  }
}

Result<void> walk_all(const Domain& domain, map::Model& model) noexcept {
  const WalkOptions walk{.objects = model.objects};
  for (std::uint32_t i = 0; i < model.heap_count; ++i) {
    auto heap = domain.heap_by_id(model.heaps[i].info.id);
    if (!heap) continue;
    const auto walked = heap->walk(
        [&](const WalkEntry& entry) {
          model.add(entry);
          return true;
        },
        walk);
    if (!walked && walked.error().code() != ESTALE) return walked.error();
  }
  for (std::uint32_t i = 0; i < model.plot_count; ++i) {
    map::Plot& plot = model.plots[i];
    const auto walked = domain.walk_iova_runs(plot.info.id, [&](const IovaRun& run) {
      model.add_iova_run(plot, run);
      return true;
    });
    if (!walked && walked.error().code() != ENOENT) return walked.error();
  }
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
  EXTMEM_TRY(mapping, ScratchMapping::create());
  Scratch& scratch = *mapping;
  map::Model& model = scratch.model;
  model.reset();
  model.objects = options.objects;
  model.metadata_bytes = domain.metadata_resident_bytes();
  EXTMEM_TRY_VOID(collect_regions(domain, options, model));
  EXTMEM_TRY_VOID(collect_heaps(domain, scratch));
  const map::Layout layout =
      options.format == HeapMapFormat::svg ? map::svg_layout(model) : map::text_layout(options);
  model.layout(layout.max_bar, layout.min_bar, layout.unit);
  name_tags(domain, model);
  EXTMEM_TRY_VOID(walk_all(domain, model));
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

}  // namespace extmem
