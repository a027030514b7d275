// PausedHeap: a heap that stands still: its lock held, its other threads stopped between operations.
#pragma once

#include <optional>

#include "alloc/core.hpp"
#include "alloc/heap_guard.hpp"
#include "base/error.hpp"
#include "heap/ordered_guard.hpp"

namespace extmem::heap {

class PausedHeap {
 public:
  /// An exact heap's threads have given back what they had cached, unless the caller wants to see just that.
  enum class Spans : std::uint8_t { returned, as_they_are };
  PausedHeap(alloc::Core& core, std::uint32_t slot, std::uint32_t heap,
             Spans spans = Spans::returned) noexcept
      : core_(core), heap_(core.heap(heap)), slot_(slot), rank_(core, slot, Rank::heap) {
    if (!rank_.allowed()) return;
    if (core_.alone()) {
      error_ = Error{};
      core_.settle_tags_paused(heap);
      return;
    }
    guard_.emplace(core, slot, heap);
    if (!guard_->held()) {
      error_ = guard_->refused(deadlock());
    } else if (auto paused = core_.pause_all(slot_, heap_); !paused) {
      error_ = paused.error();
    } else {
      error_ = Error{};
      core_.settle_tags_paused(heap);
      if (spans == Spans::returned) core_.flush_spans_paused(slot, heap);
    }
  }
  PausedHeap(const PausedHeap&) = delete;
  ~PausedHeap() {
    if (held() && !core_.alone()) core_.resume_all(slot_, heap_);
  }
  /// False: this thread holds this heap or another already (it is inside a walk's callback), or a stopped process
  /// keeps the lock or does not stand still.
  [[nodiscard]] bool held() const noexcept { return !error_; }
  [[nodiscard]] Error refused() const noexcept { return error_; }
  static Error deadlock() noexcept {
    return EXTMEM_ERROR(EDEADLK, "this thread is inside a walk over the heap: do this after the walk");
  }

 private:
  alloc::Core& core_;
  alloc::HeapCore& heap_;
  std::uint32_t slot_;
  RankHeld rank_;
  std::optional<alloc::HeapGuard> guard_;
  Error error_ = deadlock();
};

}  // namespace extmem::heap
