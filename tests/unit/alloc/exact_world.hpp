// ExactWorld: a CoreWorld whose heap is exact, with what the heap layer does around the span magazines.
#pragma once

#include "alloc/span_magazines.hpp"
#include "unit/alloc/core_world.hpp"

namespace extmem::alloc {

inline constexpr std::uint64_t kPlaceMask = (std::uint64_t{1} << 48) - 1;  // of a RegionPtr: the offset

class ExactWorld : public CoreWorld {
 public:
  explicit ExactWorld(bool membarrier = true) : CoreWorld(small_geometry(), membarrier) { heap().exact = 1; }

  std::uint32_t add_region(std::uint64_t length) {
    return CoreWorld::add_region(length, kSpanUnitShift, {.flags = kRegionUsed | kRegionCpu});
  }
  /// `hit`: whether it came from the magazine.
  Result<std::uint64_t> allocate(std::uint32_t slot, std::uint64_t bytes,
                                 std::uint16_t holder = kHolderUntagged, bool* hit = nullptr) {
    if (hit != nullptr) *hit = false;
    ThreadCache* mine = core().cache_of(slot, kHeap);
    if (mine != nullptr && holder == kHolderUntagged && bytes - 1 < kMaxCachedSpan) {
      if (const std::uint64_t ptr = pop_span(*mine, ((bytes - 1) >> kSpanUnitShift) + 1); ptr != 0) {
        if (hit != nullptr) *hit = true;
        return ptr;
      }
    }
    if (mine != nullptr && holder == kHolderUntagged && slot % 2 == 1) {  // the others go the general way
      if (const std::uint64_t ptr = core().allocate_plain_span(mine->slot, mine->heap, mine, bytes); ptr != 0)
        return ptr;
    }
    SpanRequest request;
    request.align = 64;
    request.high_end = true;
    return allocate_span(slot, base::align_up(bytes, 64), request, holder);
  }
  Result<void> free(std::uint32_t slot, std::uint64_t ptr) {
    const auto region = static_cast<std::uint32_t>(ptr >> 48);
    const std::uint64_t offset = ptr & kPlaceMask;
    if (ThreadCache* mine = core().cache_of(slot, kHeap); mine == nullptr) {
      (void)cache(slot);
    } else {
      if (push_span(*mine, ptr, sequence_, 0)) return {};
      const auto page = static_cast<std::uint32_t>(offset >> kSpanUnitShift);
      if (offset % 64 == 0 && slot % 2 == 1 && core().free_plain_span(*mine, region, page)) return {};
    }
    return core().free_span(slot, kHeap, region, offset);
  }
  std::uint64_t must_allocate(std::uint32_t slot, std::uint64_t bytes) {
    auto got = allocate(slot, bytes);
    EXPECT_TRUE(got.ok()) << got.error().message();
    return got.value_or(0);
  }
  void must_free(std::uint32_t slot, std::uint64_t ptr) {
    const auto freed = free(slot, ptr);
    EXPECT_TRUE(freed.ok()) << freed.error().message();
  }
  int free_code(std::uint32_t slot, std::uint64_t ptr) { return free(slot, ptr).error().code(); }
  /// Makes the slot's cache, and opens it.
  void begin(std::uint32_t slot) { must_free(slot, must_allocate(slot, 64)); }

  [[nodiscard]] PageDesc& head(std::uint64_t ptr) {
    const auto region = static_cast<std::uint32_t>(ptr >> 48);
    return core().pages(region).desc(static_cast<std::uint32_t>((ptr & kPlaceMask) >> kSpanUnitShift));
  }
  [[nodiscard]] SpanMagazines& spans(std::uint32_t slot) { return SpanMagazines::of(cache(slot)); }
  [[nodiscard]] std::uint32_t cached(std::uint32_t slot) { return spans(slot).cached(); }

 private:
  const std::atomic<std::uint64_t> sequence_{0};
};

}  // namespace extmem::alloc
