// What the heap map draws: regions cut into columns, each column with the shares of what lies in it.
//
// What it is: a walk goes in entry by entry (add), and comes out as a picture's worth of numbers, whatever the
// length of the walk. It knows no heap and no domain: tests fill it from walks that they make up.
// Thread-safety: an object belongs to one thread.
// Invariants:
//  1. Of each column, the sum of the shares never exceeds the column's bytes.
//  2. All memory is inside Model: about 3 MiB, which is why it lives in a mapping and never on a stack.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "extmem/heap_map.hpp"
#include "extmem/types.hpp"

namespace extmem::heap::map {

inline constexpr std::uint32_t kTagColors = 8;  ///< tags with a colour of their own: those that hold the most

/// What a byte can be, in the order in which a column is stacked, from the bottom up.
enum Kind : std::uint8_t {
  kTag0 = 0,
  kOtherTags = kTagColors,
  kUntagged,
  kMemzone,
  kCached,
  kSlabFree,
  kFree,
  kKinds,
};
inline constexpr std::uint32_t kUsedKinds = kCached;  ///< kinds below this one are held by somebody

struct Column {
  std::uint64_t bytes[kKinds];
  std::uint64_t slab_weight;  ///< majority vote over the sizes of the slabs' objects
  std::uint32_t slab_object_size;
  std::uint32_t iova_starts;  ///< runs of known IOVAs that begin here
  std::uint64_t iova_known;
  bool iova_odd;  ///< the last run here has an odd number: neighbours get different shades
};

struct Zone {
  char name[kMaxNameLength + 1];
  std::uint64_t offset;
  std::uint64_t length;
};

struct Plot {
  static constexpr std::uint32_t kZones = 24;
  static constexpr std::uint32_t kRuns = 3;
  RegionInfo info;
  std::uint32_t first_column = 0;
  std::uint32_t columns = 0;
  std::uint32_t bar = 0;  ///< drawn length
  bool widened = false;   ///< too short for the scale, drawn longer
  std::uint64_t bytes[kKinds] = {};
  std::uint64_t iova_runs = 0;   ///< of known IOVAs
  std::uint64_t iova_known = 0;  ///< bytes
  std::uint64_t zones_seen = 0;
  std::uint32_t zone_count = 0;
  std::uint32_t run_count = 0;
  IovaRun runs[kRuns];  ///< the first ones
  Zone zones[kZones];   ///< the longest ones, by offset once finish() was called
};

struct HeapRow {
  HeapInfo info;
  HeapStats stats;
  bool known = false;  ///< false: it went while the map was being made
};

class Model {
 public:
  static constexpr std::uint32_t kColumns = 12288;
  static constexpr std::uint32_t kTags = 65536;

  /// To be called first; the object's memory may hold anything.
  void reset() noexcept;
  /// Offers a region: the kHeapMapMaxRegions largest ones are kept.
  void add_region(const RegionInfo& info) noexcept;
  void add_tag(Tag tag, std::uint64_t live_bytes) noexcept;
  /// To be called when all regions and tags were offered: gives each bar its length (in units of the output, at
  /// most max_bar and at least min_bar of them) and its columns (of `unit` units each), and each tag its colour.
  void layout(std::uint32_t max_bar, std::uint32_t min_bar, std::uint32_t unit) noexcept;
  void add(const WalkEntry& entry) noexcept;
  void add_iova_run(Plot& plot, const IovaRun& run) noexcept;
  void finish() noexcept;

  /// Where column i begins, as an offset into the region.
  [[nodiscard]] static std::uint64_t column_start(const Plot& plot, std::uint32_t i) noexcept {
    // lengths stay below 2^48 and columns below 2^14
    return plot.columns == 0
               ? 0
               : plot.info.length / plot.columns * i + plot.info.length % plot.columns * i / plot.columns;
  }
  [[nodiscard]] const Column& column(const Plot& plot, std::uint32_t i) const noexcept {
    return columns_[plot.first_column + i];
  }
  /// Sums columns [from, to) into `bytes`.
  void sum(const Plot& plot, std::uint32_t from, std::uint32_t to,
           std::uint64_t (&bytes)[kKinds]) const noexcept;

  struct Ranked {
    Tag tag{};
    char name[kMaxNameLength + 1] = {};
    std::uint64_t live_bytes = 0;
  };
  std::uint32_t plot_count = 0;
  std::uint32_t heap_count = 0;
  std::uint32_t ranked_count = 0;
  std::uint32_t tags_seen = 0;  ///< with live bytes, the untagged not counted
  std::uint64_t regions_left_out = 0;
  std::uint64_t bytes_left_out = 0;
  std::uint64_t free_left_out = 0;
  std::uint64_t heaps_total = 0;
  std::uint64_t metadata_bytes = 0;
  bool objects = true;             ///< the walk shows objects
  Plot plots[kHeapMapMaxRegions];  ///< by heap, then by slot, once layout() was called
  HeapRow heaps[kHeapMapMaxRegions];
  Ranked ranked[kTagColors];
  std::uint64_t bytes[kKinds];  ///< of all plots

 private:
  [[nodiscard]] Plot* plot_of(RegionId id) noexcept;
  [[nodiscard]] Kind kind_of(Tag tag) const noexcept;
  [[nodiscard]] std::uint32_t column_at(const Plot& plot, std::uint64_t offset) const noexcept;
  /// Visits the columns that [offset, offset + length) touches, with the bytes of it in each.
  template <typename F>
  void spread(Plot& plot, std::uint64_t offset, std::uint64_t length, F&& visit) noexcept;
  void put(Plot& plot, std::uint64_t offset, std::uint64_t length, Kind kind) noexcept;
  void move(Plot& plot, std::uint64_t offset, std::uint64_t length, Kind from, Kind to) noexcept;
  void move_share(Plot& plot, std::uint64_t offset, std::uint64_t length, std::uint64_t part, Kind from,
                  Kind to) noexcept;
  void add_slab(Plot& plot, const WalkEntry& entry) noexcept;
  void add_zone(Plot& plot, const WalkEntry& entry) noexcept;

  std::uint32_t last_plot_ = 0;
  Column columns_[kColumns];
  std::uint64_t live_[kTags];
  std::uint8_t kind_[kTags];
};

}  // namespace extmem::heap::map
