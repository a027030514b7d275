// CoreWorld: a Core over a control segment of its own, with imaginary regions (no memory stands behind them), and the
// little that the heap layer does around it: which call serves which size, and where a free goes.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "alloc/core.hpp"
#include "os/membarrier.hpp"

namespace extmem::alloc {

inline constexpr std::uint64_t kKiB = 1024;
inline constexpr std::uint64_t kMiB = 1024 * kKiB;
inline constexpr std::uint64_t kGiB = 1024 * kMiB;

constexpr shared::Geometry small_geometry() {
  shared::Geometry g{};
  g.max_regions = 16;
  g.max_heaps = 4;
  g.max_memzones = 1;
  g.max_tags = 64;
  g.max_threads = 32;
  g.max_caches = 40;
  g.max_slabs = 20000;
  g.small_bytes = 16 * kMiB;
  g.large_bytes = 64 * kMiB;
  return g;
}

struct RegionOptions {
  std::uint32_t flags = kRegionUsed | kRegionSlabs | kRegionCpu;
  std::uint64_t phase = 0;  // 0: an address that no other region of the world has
  std::uint32_t os_page_shift = 12;
  std::vector<Iova> iovas{};  // empty: none known
  std::int32_t node = kAnyNode;
};

class CoreWorld {
 public:
  static constexpr std::uint32_t kHeap = 2;

  explicit CoreWorld(const shared::Geometry& geometry = small_geometry(), bool membarrier = true) {
    shared::SegmentLayout layout;
    tables_ = CoreTables::place(layout, geometry);
    layout_bytes_ = layout.total_bytes();
    EXPECT_TRUE(segment_.create_private(layout, geometry).ok());
    core_.bind(segment_.base(), tables_, geometry, false, membarrier && os::membarrier_register(false));
    core_.format();
  }

  [[nodiscard]] Core& core() { return core_; }
  [[nodiscard]] HeapCore& heap(std::uint32_t id = kHeap) { return core_.heap(id); }
  [[nodiscard]] const CoreTables& tables() const { return tables_; }
  [[nodiscard]] std::uint64_t layout_bytes() const { return layout_bytes_; }
  [[nodiscard]] ThreadCache& cache(std::uint32_t slot, std::uint32_t heap = kHeap) {
    if (ThreadCache* found = core_.cache_of(slot, heap); found != nullptr) return *found;
    auto made = core_.make_cache(slot, heap);
    EXPECT_TRUE(made.ok()) << made.error().message();
    return **made;
  }

  /// A new region; returns its slot.
  std::uint32_t add_region(std::uint64_t length, unsigned page_shift = 12, RegionOptions options = {},
                           std::uint32_t heap = kHeap) {
    const std::uint32_t slot = ++regions_;
    RegionCore& r = core_.region(slot);
    r.flags = options.flags;
    r.generation = 1;
    r.heap = heap;
    r.os_page_shift = options.os_page_shift;
    r.node = options.node;
    r.length = length;
    r.phase = options.phase != 0 ? options.phase : std::uint64_t{slot} << 47;
    r.pages.page_shift = page_shift;
    r.pages.pages = static_cast<std::uint32_t>(length >> page_shift);
    r.page_table_bytes = page_table_bytes(r.pages.pages, page_shift);
    r.pages.descs_offset = large_metadata(r.page_table_bytes);
    const std::uint64_t os_pages = length >> options.os_page_shift;
    const auto plan = options.iovas.empty() ? region::plan_none(os_pages, options.os_page_shift)
                                            : region::plan_iova_table(options.iovas, options.os_page_shift);
    EXPECT_TRUE(plan.ok());
    const std::uint64_t at = plan->data_bytes == 0 ? 0 : large_metadata(plan->data_bytes);
    EXPECT_TRUE(region::build_iova_table(r.iova, *plan, options.iovas, segment_.base() + at, at).ok());
    (void)core_.attach_region(1, slot);
    return slot;
  }

  // ---- what the heap layer does --------------------------------------------------------------------------

  Result<std::uint64_t> allocate_span(std::uint32_t slot, std::uint64_t bytes,
                                      const SpanRequest& request = {}, std::uint16_t holder = kHolderUntagged,
                                      std::uint32_t heap = kHeap) {
    EXTMEM_TRY(span, core_.allocate_span(slot, heap, bytes, request, RegionFilter{}, holder));
    return make_ptr(span.region, std::uint64_t{span.page} << core_.region(span.region).pages.page_shift);
  }
  Result<std::uint64_t> allocate(std::uint32_t slot, std::uint64_t bytes,
                                 std::uint16_t holder = kHolderUntagged, std::uint32_t heap = kHeap) {
    if (bytes <= kMaxClassSize) {
      ThreadCache& mine = cache(slot, heap);
      if (holder == kHolderUntagged) {
        if (const std::uint64_t ptr = Core::pop(core_.fast_tables(), mine, magazine_of_last(bytes - 1));
            ptr != 0)
          return ptr;
      }
      auto small = core_.allocate_small(slot, mine, class_of(bytes), holder);
      if (small.ok() || small.error().code() != ENOTBLK) return small;
    }
    return allocate_span(slot, bytes, {}, holder, heap);
  }
  Result<void> free(std::uint32_t slot, std::uint64_t ptr) {
    const auto region = static_cast<std::uint32_t>(ptr >> 48);
    const std::uint64_t offset = ptr & ((std::uint64_t{1} << 48) - 1);
    const std::uint32_t heap = core_.region(region).heap;
    ThreadCache& mine = cache(slot, heap);
    const std::uint32_t link =
        core_.slab_map(core_.region(region))[offset >> slab_map_shift(core_.region(region).pages.pages,
                                                                      core_.region(region).pages.page_shift)];
    if (Core::free_fast(core_.fast_tables(), mine, link, ptr, ptr)) return {};
    for (;;) {
      auto small = core_.free_small(slot, mine, region, offset);
      if (small.ok() || small.error().code() != ENOTBLK) return small;
      auto span = core_.free_span(slot, heap, region, offset);
      if (span.ok() || span.error().code() != ENOTBLK) return span;
    }
  }
  std::uint64_t must_allocate(std::uint32_t slot, std::uint64_t bytes,
                              std::uint16_t holder = kHolderUntagged) {
    auto got = allocate(slot, bytes, holder);
    EXPECT_TRUE(got.ok()) << got.error().message();
    return got.value_or(0);
  }
  /// A span, whatever its length.
  std::uint64_t must_span(std::uint32_t slot, std::uint64_t bytes, std::uint16_t holder = kHolderUntagged) {
    auto got = allocate_span(slot, bytes, {}, holder);
    EXPECT_TRUE(got.ok()) << got.error().message();
    return got.value_or(0);
  }
  void must_free(std::uint32_t slot, std::uint64_t ptr) {
    const auto freed = free(slot, ptr);
    EXPECT_TRUE(freed.ok()) << freed.error().message();
  }
  int free_code(std::uint32_t slot, std::uint64_t ptr) { return free(slot, ptr).error().code(); }

  // ---- looking ---------------------------------------------------------------------------------------------

  /// Every breach of a heap as text, "" when all is well. `slot`: the caller's.
  std::string breaches(std::uint32_t slot = 1, std::uint32_t heap_id = kHeap) {
    std::ostringstream text;
    HeapCore& h = heap(heap_id);
    const shared::LockGuard guard(h.lock, slot, false);
    EXPECT_TRUE(guard.held());
    (void)core_.pause_all(slot, h);
    (void)core_.check_heap_locked(
        heap_id, [&](const char* what, std::uint64_t where, std::uint64_t expected, std::uint64_t found) {
          text << what << " at " << where << ": " << expected << " expected, " << found << " found\n";
        });
    core_.resume_all(slot, h);
    return text.str();
  }

  void flush(std::uint32_t slot, bool unbias = false, std::uint32_t heap_id = kHeap) {
    const shared::LockGuard guard(heap(heap_id).lock, slot, false);
    (void)core_.flush_all_locked(slot, heap_id, unbias);
  }
  void set_draining(std::uint32_t region, bool draining, std::uint32_t slot = 1) {
    const shared::LockGuard guard(heap(core_.region(region).heap).lock, slot, false);
    (void)core_.set_draining_locked(slot, region, draining);
  }

  /// Flushes everything; then nothing of the heap may be used any more.
  std::string leftovers(std::uint32_t slot = 1, std::uint32_t heap_id = kHeap) {
    flush(slot, true, heap_id);
    std::ostringstream text;
    text << breaches(slot, heap_id);
    HeapCore& h = heap(heap_id);
    for (std::uint32_t region = h.first_region; region != 0; region = core_.region(region).next) {
      const PageSpace& pages = core_.region(region).pages;
      if (pages.free_pages != pages.pages)
        text << pages.pages - pages.free_pages << " pages of region " << region << " used\n";
      if (pages.free_runs != 1) text << "region " << region << " has " << pages.free_runs << " free runs\n";
    }
    if (h.slab_count != 0) text << h.slab_count << " slabs\n";
    if (out_bytes(heap_id) != 0) text << out_bytes(heap_id) << " bytes out\n";
    const PageSpace& states = core_.roots().small.pages;
    if (h.slab_count == 0 && heap_id == kHeap && states.free_pages != states.pages)
      text << "metadata leaked\n";
    return text.str();
  }
  /// Bytes that the heap says are outside: held, or in a magazine.
  std::int64_t out_bytes(std::uint32_t heap_id = kHeap) {
    std::int64_t bytes =
        heap(heap_id).out_bytes.load() + static_cast<std::int64_t>(heap(heap_id).span_pages_bytes.get());
    for (std::uint32_t link = heap(heap_id).first_cache; link != 0; link = core_.cache(link - 1).next) {
      bytes += core_.cache(link - 1).out_delta;
    }
    return bytes;
  }

  struct TagCounts {
    std::int64_t bytes = 0;
    std::int64_t count = 0;
    std::int64_t peak = 0;
  };
  TagCounts tag_counts(std::uint16_t holder, std::uint32_t slot = 1) {
    HeapCore& h = heap();
    const shared::LockGuard guard(h.lock, slot, false);
    (void)core_.pause_all(slot, h);
    for (std::uint32_t link = h.first_cache; link != 0; link = core_.cache(link - 1).next) {
      core_.spill_tags_locked(core_.cache(link - 1));
    }
    core_.resume_all(slot, h);
    const TagRecord* const tag = core_.find_tag_locked(h, holder);
    return tag == nullptr ? TagCounts{} : TagCounts{tag->bytes, tag->count, tag->peak};
  }

 private:
  std::uint64_t large_metadata(std::uint64_t bytes) {
    auto tx = core_.transaction(1);
    const std::uint64_t at = allocate_meta(segment_.base(), core_.roots().large, tx, bytes);
    EXPECT_NE(at, 0u);
    tx.commit();
    return at;
  }

  CoreTables tables_{};
  std::uint64_t layout_bytes_ = 0;
  shared::ControlSegment segment_;
  Core core_;
  std::uint32_t regions_ = 0;
};

}  // namespace extmem::alloc
