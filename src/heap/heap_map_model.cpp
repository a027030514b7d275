#include "heap/heap_map_model.hpp"

#include <algorithm>
#include <cstring>

namespace extmem::heap::map {

void Model::reset() noexcept {
  plot_count = heap_count = ranked_count = tags_seen = 0;
  regions_left_out = bytes_left_out = free_left_out = heaps_total = metadata_bytes = 0;
  objects = true;
  last_plot_ = 0;
  std::memset(bytes, 0, sizeof bytes);
  std::memset(columns_, 0, sizeof columns_);
  std::memset(live_, 0, sizeof live_);
  std::memset(kind_, kOtherTags, sizeof kind_);
  std::fill(std::begin(ranked), std::end(ranked), Ranked{});
}

void Model::add_region(const RegionInfo& info) noexcept {
  Plot* plot = nullptr;
  if (plot_count < kHeapMapMaxRegions) {
    plot = &plots[plot_count++];
  } else {
    plot = std::min_element(plots, plots + plot_count,
                            [](const Plot& a, const Plot& b) { return a.info.length < b.info.length; });
    const RegionInfo& dropped = plot->info.length < info.length ? plot->info : info;
    ++regions_left_out;
    bytes_left_out += dropped.length;
    free_left_out += dropped.free_bytes;
    if (&dropped == &info) return;
  }
  *plot = Plot{};
  plot->info = info;
}

void Model::add_tag(Tag tag, std::uint64_t live_bytes) noexcept { live_[tag.index] += live_bytes; }

void Model::layout(std::uint32_t max_bar, std::uint32_t min_bar, std::uint32_t unit) noexcept {
  std::sort(plots, plots + plot_count, [](const Plot& a, const Plot& b) {
    return a.info.heap_id != b.info.heap_id ? a.info.heap_id < b.info.heap_id
                                            : a.info.id.slot < b.info.id.slot;
  });
  std::uint64_t longest = 1;
  for (std::uint32_t i = 0; i < plot_count; ++i) longest = std::max(longest, plots[i].info.length);
  const std::uint32_t most = plot_count > 0 ? kColumns / plot_count : kColumns;
  std::uint32_t next = 0;
  for (std::uint32_t i = 0; i < plot_count; ++i) {
    Plot& plot = plots[i];
    const double share = static_cast<double>(plot.info.length) / static_cast<double>(longest);
    const auto scaled = static_cast<std::uint32_t>(share * max_bar + 0.5);
    plot.bar = std::clamp(scaled, min_bar, max_bar) / unit * unit;
    plot.widened = scaled + unit < min_bar;
    plot.columns = std::min(plot.bar / unit, most);
    if (plot.info.length < plot.columns) plot.columns = static_cast<std::uint32_t>(plot.info.length);
    plot.first_column = next;
    next += plot.columns;
  }

  kind_[0] = kUntagged;
  for (std::uint32_t tag = 1; tag < kTags; ++tag) {
    if (live_[tag] == 0) continue;
    ++tags_seen;
    // A place among the first, by insertion: what falls off the end keeps the colour of the others.
    std::uint32_t place = ranked_count;
    while (place > 0 && ranked[place - 1].live_bytes < live_[tag]) --place;
    if (place == kTagColors) continue;
    ranked_count = std::min(ranked_count + 1, kTagColors);
    for (std::uint32_t i = ranked_count - 1; i > place; --i) ranked[i] = ranked[i - 1];
    ranked[place] = Ranked{};
    ranked[place].tag = Tag{static_cast<std::uint16_t>(tag)};
    ranked[place].live_bytes = live_[tag];
  }
  for (std::uint32_t i = 0; i < ranked_count; ++i) kind_[ranked[i].tag.index] = static_cast<std::uint8_t>(i);
}

Plot* Model::plot_of(RegionId id) noexcept {
  if (last_plot_ < plot_count && plots[last_plot_].info.id == id) return &plots[last_plot_];
  for (std::uint32_t i = 0; i < plot_count; ++i) {
    if (plots[i].info.id == id) return &plots[last_plot_ = i];
  }
  return nullptr;
}

Kind Model::kind_of(Tag tag) const noexcept { return static_cast<Kind>(kind_[tag.index]); }

std::uint32_t Model::column_at(const Plot& plot, std::uint64_t offset) const noexcept {
  const double guess = static_cast<double>(offset) / static_cast<double>(plot.info.length) * plot.columns;
  std::uint32_t i = std::min(static_cast<std::uint32_t>(guess), plot.columns - 1);
  while (i > 0 && column_start(plot, i) > offset) --i;
  while (i + 1 < plot.columns && column_start(plot, i + 1) <= offset) ++i;
  return i;
}

template <typename F>
void Model::spread(Plot& plot, std::uint64_t offset, std::uint64_t length, F&& visit) noexcept {
  if (plot.columns == 0 || offset >= plot.info.length) return;
  const std::uint64_t end = offset + std::min(length, plot.info.length - offset);
  for (std::uint32_t i = column_at(plot, offset); offset < end; ++i) {
    const std::uint64_t stop = i + 1 < plot.columns ? std::min(end, column_start(plot, i + 1)) : end;
    visit(columns_[plot.first_column + i], stop - offset);
    offset = stop;
  }
}

void Model::put(Plot& plot, std::uint64_t offset, std::uint64_t length, Kind kind) noexcept {
  spread(plot, offset, length, [&](Column& column, std::uint64_t n) { column.bytes[kind] += n; });
}

void Model::move(Plot& plot, std::uint64_t offset, std::uint64_t length, Kind from, Kind to) noexcept {
  spread(plot, offset, length, [&](Column& column, std::uint64_t n) {
    n = std::min(n, column.bytes[from]);
    column.bytes[from] -= n;
    column.bytes[to] += n;
  });
}

// Moves `part` bytes, spread evenly over [offset, offset + length).
void Model::move_share(Plot& plot, std::uint64_t offset, std::uint64_t length, std::uint64_t part, Kind from,
                       Kind to) noexcept {
  part = std::min(part, length);
  std::uint64_t passed = 0;
  std::uint64_t moved = 0;
  spread(plot, offset, length, [&](Column& column, std::uint64_t n) {
    passed += n;
    const double share = static_cast<double>(passed) / static_cast<double>(length);
    const auto goal = passed == length ? part : static_cast<std::uint64_t>(share * static_cast<double>(part));
    const std::uint64_t now = std::min(goal - std::min(goal, moved), column.bytes[from]);
    column.bytes[from] -= now;
    column.bytes[to] += now;
    moved += now;
  });
}

void Model::add_slab(Plot& plot, const WalkEntry& entry) noexcept {
  spread(plot, entry.offset, entry.length, [&](Column& column, std::uint64_t n) {
    column.bytes[kSlabFree] += n;
    if (column.slab_object_size == entry.object_size) {
      column.slab_weight += n;
    } else if (column.slab_weight >= n) {
      column.slab_weight -= n;
    } else {
      column.slab_weight = n - column.slab_weight;
      column.slab_object_size = entry.object_size;
    }
  });
  if (!objects) {
    const std::uint64_t held = std::uint64_t{entry.held_count} * entry.object_size;
    move_share(plot, entry.offset, entry.length, held, kSlabFree, kOtherTags);
  }
}

void Model::add_zone(Plot& plot, const WalkEntry& entry) noexcept {
  put(plot, entry.offset, entry.length, kMemzone);
  ++plot.zones_seen;
  Zone* zone = nullptr;
  if (plot.zone_count < Plot::kZones) {
    zone = &plot.zones[plot.zone_count++];
  } else {
    zone = std::min_element(plot.zones, plot.zones + plot.zone_count,
                            [](const Zone& a, const Zone& b) { return a.length < b.length; });
    if (zone->length >= entry.length) return;
  }
  zone->offset = entry.offset;
  zone->length = entry.length;
  zone->name[0] = '\0';
  if (entry.name != nullptr) {
    const std::size_t n = strnlen(entry.name, kMaxNameLength);
    std::memcpy(zone->name, entry.name, n);
    zone->name[n] = '\0';
  }
}

void Model::add(const WalkEntry& entry) noexcept {
  Plot* plot = plot_of(entry.region);
  if (plot == nullptr) return;
  switch (entry.kind) {
    case WalkKind::region:
      break;
    case WalkKind::free_span:
      put(*plot, entry.offset, entry.length, kFree);
      break;
    case WalkKind::held_span:
      put(*plot, entry.offset, entry.length, kind_of(entry.tag));
      break;
    case WalkKind::memzone:
      add_zone(*plot, entry);
      break;
    case WalkKind::slab:
      add_slab(*plot, entry);
      break;
    case WalkKind::object:
      if (entry.held) {
        move(*plot, entry.offset, entry.length, kSlabFree, kind_of(entry.tag));
      } else if (entry.cached) {
        move(*plot, entry.offset, entry.length, kSlabFree, kCached);
      }
      break;
  }
}

void Model::add_iova_run(Plot& plot, const IovaRun& run) noexcept {
  if (run.iova == kBadIova) return;
  if (plot.run_count < Plot::kRuns) plot.runs[plot.run_count++] = run;
  const bool odd = (plot.iova_runs++ & 1) != 0;
  plot.iova_known += run.length;
  bool first = true;
  spread(plot, run.offset, run.length, [&](Column& column, std::uint64_t n) {
    column.iova_known += n;
    column.iova_odd = odd;
    if (first) ++column.iova_starts;
    first = false;
  });
}

void Model::sum(const Plot& plot, std::uint32_t from, std::uint32_t to,
                std::uint64_t (&sums)[kKinds]) const noexcept {
  std::fill(std::begin(sums), std::end(sums), std::uint64_t{0});
  for (std::uint32_t i = from; i < to && i < plot.columns; ++i) {
    for (std::uint32_t kind = 0; kind < kKinds; ++kind) sums[kind] += column(plot, i).bytes[kind];
  }
}

void Model::finish() noexcept {
  std::fill(std::begin(bytes), std::end(bytes), std::uint64_t{0});
  for (std::uint32_t i = 0; i < plot_count; ++i) {
    Plot& plot = plots[i];
    sum(plot, 0, plot.columns, plot.bytes);
    for (std::uint32_t kind = 0; kind < kKinds; ++kind) bytes[kind] += plot.bytes[kind];
    std::sort(plot.zones, plot.zones + plot.zone_count,
              [](const Zone& a, const Zone& b) { return a.offset < b.offset; });
  }
  for (std::uint32_t i = 0; i < ranked_count; ++i) ranked[i].live_bytes = bytes[i];
}

}  // namespace extmem::heap::map
