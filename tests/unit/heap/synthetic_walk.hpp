// Walks that no heap made: what the heap map is drawn from when a test needs full control over it.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <random>
#include <string>

#include "extmem/heap_map.hpp"
#include "heap/heap_map_model.hpp"
#include "heap/heap_map_render.hpp"
#include "heap/heap_map_writer.hpp"

namespace extmem::test {

using heap::map::Model;
using heap::map::Plot;

inline constexpr std::uint64_t kKiB = 1024, kMiB = 1024 * kKiB, kGiB = 1024 * kMiB, kTiB = 1024 * kGiB;

class SyntheticDomain {
 public:
  SyntheticDomain() : model_(std::make_unique<Model>()) { model_->reset(); }

  RegionId region(std::uint32_t heap, std::uint64_t length, bool external, BackingKind kind,
                  std::uint64_t os_page = 4 * kKiB) {
    RegionInfo info;
    info.id = RegionId{++slots_, 1};
    info.heap_id = heap;
    info.length = length;
    info.os_page_size = os_page;
    info.external = external;
    info.kind = kind;
    info.numa_node = 0;
    info.largest_free = length / 3;
    model_->add_region(info);
    return info.id;
  }
  void heap(std::uint32_t id, const char* name, std::uint64_t total) {
    auto& row = model_->heaps[model_->heap_count++];
    row = {};
    row.info.id = id;
    std::snprintf(row.info.name, sizeof row.info.name, "%s", name);
    row.known = true;
    row.stats.total_bytes = total;
    row.stats.used_bytes = total / 2;
    row.stats.peak_bytes = total / 3 * 2;
    row.stats.fragmentation = 0.17;
  }
  void tag(std::uint16_t index, std::uint64_t live) { model_->add_tag(Tag{index}, live); }
  void layout(HeapMapFormat format, const HeapMapOptions& options = {}) {
    const auto layout =
        format == HeapMapFormat::svg ? heap::map::svg_layout(*model_) : heap::map::text_layout(options);
    model_->layout(layout.max_bar, layout.min_bar, layout.unit);
  }
  void span(RegionId id, WalkKind kind, std::uint64_t offset, std::uint64_t length, std::uint16_t tag = 0,
            const char* name = nullptr) {
    WalkEntry entry{};
    entry.kind = kind;
    entry.region = id;
    entry.offset = offset;
    entry.length = length;
    entry.tag = Tag{tag};
    entry.held = kind != WalkKind::free_span;
    entry.name = name;
    model_->add(entry);
  }
  void slab(RegionId id, std::uint64_t offset, std::uint64_t length, std::uint32_t size, double held,
            double cached, std::uint16_t tag) {
    WalkEntry entry{};
    entry.kind = WalkKind::slab;
    entry.region = id;
    entry.offset = offset;
    entry.length = length;
    entry.object_size = size;
    entry.object_count = static_cast<std::uint32_t>(length / size);
    entry.held_count = static_cast<std::uint32_t>(held * entry.object_count);
    model_->add(entry);
    std::uniform_real_distribution<double> part(0, 1);
    for (std::uint32_t i = 0; i < entry.object_count; ++i) {
      WalkEntry object{};
      object.kind = WalkKind::object;
      object.region = id;
      object.offset = offset + std::uint64_t{i} * size;
      object.length = size;
      object.tag = Tag{tag};
      const double dice = part(random_);
      object.held = dice < held;
      object.cached = !object.held && dice < held + cached;
      model_->add(object);
    }
  }
  void iova(RegionId id, std::uint64_t offset, std::uint64_t length, std::uint64_t iova) {
    for (std::uint32_t i = 0; i < model_->plot_count; ++i) {
      if (model_->plots[i].info.id == id)
        model_->add_iova_run(model_->plots[i], IovaRun{offset, length, Iova{iova}});
    }
  }
  std::string draw(const HeapMapOptions& options) {
    for (std::uint32_t i = 0; i < model_->ranked_count; ++i) {
      auto& ranked = model_->ranked[i];
      if (ranked.name[0] == '\0') {
        std::snprintf(ranked.name, sizeof ranked.name, "tag-%u", static_cast<unsigned>(ranked.tag.index));
      }
    }
    model_->finish();
    std::string all;
    auto sink = [&](std::string_view chunk) {
      all += chunk;
      return true;
    };
    heap::map::Writer out(sink);
    if (options.format == HeapMapFormat::svg) {
      heap::map::render_svg(*model_, options, out);
    } else {
      heap::map::render_text(*model_, options, out);
    }
    out.flush();
    return all;
  }
  Model& model() { return *model_; }
  std::mt19937_64& random() { return random_; }

  /// Fills a region the way a mixed load does: slabs, spans, holes, a memzone at the end.
  void fill(RegionId id, std::uint64_t length, std::uint64_t granule, const char* zone) {
    std::uniform_int_distribution<std::uint64_t> dice(0, 99);
    std::uint64_t at = 0;
    const std::uint64_t end = zone != nullptr ? length - length / 10 : length;
    while (at < end) {
      const std::uint64_t roll = dice(random_);
      std::uint64_t n = granule * (1 + dice(random_) % 12);
      n = n < end - at ? n : end - at;
      const auto tag_index = static_cast<std::uint16_t>(dice(random_) % 11);
      if (roll < 50) {
        const auto size = static_cast<std::uint32_t>(std::uint64_t{32} << (at * 8 / length));
        slab(id, at, n, size, static_cast<double>(dice(random_)) / 100, 0.1, tag_index);
      } else if (roll < 72) {
        span(id, WalkKind::held_span, at, n, tag_index);
      } else {
        span(id, WalkKind::free_span, at, n * 3 < end - at ? n * 3 : end - at);
        n = n * 3 < end - at ? n * 3 : end - at;
      }
      at += n;
    }
    if (zone != nullptr) span(id, WalkKind::memzone, end, length - end, 0, zone);
  }

 private:
  std::unique_ptr<Model> model_;
  std::uint32_t slots_ = 0;
  std::mt19937_64 random_{20260801};
};

/// Three heaps and five regions with everything that the map can show.
inline void make_gallery(SyntheticDomain& d, HeapMapFormat format, const HeapMapOptions& options = {}) {
  const RegionId huge = d.region(2, 64 * kMiB, false, BackingKind::hugetlb, 2 * kMiB);
  const RegionId plain = d.region(2, 24 * kMiB, false, BackingKind::anonymous);
  const RegionId lent = d.region(2, 6 * kMiB, true, BackingKind::external);
  const RegionId file = d.region(3, 32 * kMiB, false, BackingKind::file);
  const RegionId tiny = d.region(5, 8 * kKiB, true, BackingKind::external);
  d.heap(2, "packets", 94 * kMiB);
  d.heap(3, "storage <&\x1b[31m>", 32 * kMiB);
  d.heap(5, "tiny", 8 * kKiB);
  for (std::uint16_t tag = 0; tag < 11; ++tag) d.tag(tag, (20u - tag) * kMiB);
  d.layout(format, options);
  d.fill(huge, 50 * kMiB, 64 * kKiB, nullptr);
  d.span(huge, WalkKind::memzone, 50 * kMiB, 256 * kKiB, 0, "rx-ring-0");
  d.span(huge, WalkKind::memzone, 50 * kMiB + 256 * kKiB, 256 * kKiB, 0, "rx-ring-1");
  d.span(huge, WalkKind::free_span, 50 * kMiB + 512 * kKiB, kMiB / 2);
  d.span(huge, WalkKind::memzone, 51 * kMiB, 512 * kKiB, 0, "tx-ring-with-a-longer-name");
  d.span(huge, WalkKind::free_span, 51 * kMiB + 512 * kKiB, 4 * kMiB + kMiB / 2);
  d.span(huge, WalkKind::memzone, 56 * kMiB, 8 * kMiB, 0, "dma-buffer");
  for (std::uint64_t i = 0; i < 32; ++i) d.iova(huge, i * 2 * kMiB, 2 * kMiB, 0x1c0000000 + i * 3 * kMiB);
  d.fill(plain, 24 * kMiB, 16 * kKiB, "log");
  for (std::uint64_t i = 0; i < 6144; ++i) d.iova(plain, i * 4 * kKiB, 4 * kKiB, 0x2c0000000 + i * 12 * kKiB);
  d.fill(lent, 6 * kMiB, 16 * kKiB, "<&\"'>");
  d.iova(lent, 0, 4 * kMiB, 0x7f0000000000);
  d.fill(file, 32 * kMiB, 128 * kKiB, nullptr);
  d.span(tiny, WalkKind::held_span, 0, 1 * kKiB, 3);
  d.span(tiny, WalkKind::free_span, 1 * kKiB, 5 * kKiB);
  d.span(tiny, WalkKind::held_span, 6 * kKiB, 2 * kKiB, 1);
  d.iova(tiny, 0, 8 * kKiB, 0x7f0000000000);
}

}  // namespace extmem::test
