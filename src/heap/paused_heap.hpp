// PausedHeap: a heap that stands still: its lock held, its other threads stopped between operations.
#pragma once

#include "alloc/core.hpp"
#include "base/error.hpp"
#include "heap/ordered_guard.hpp"

namespace extmem::heap {

class PausedHeap {
 public:
  PausedHeap(alloc::Core& core, std::uint32_t slot, alloc::HeapCore& heap) noexcept
      : core_(core), heap_(heap), slot_(slot), rank_(core, slot, Rank::heap) {
    held_ = rank_.allowed() && heap_.lock.lock(slot_, core_.process_shared());
    if (held_) core_.pause_all(slot_, heap_);
  }
  PausedHeap(const PausedHeap&) = delete;
  ~PausedHeap() {
    if (!held_) return;
    core_.resume_all(slot_, heap_);
    heap_.lock.unlock(core_.process_shared());
  }
  /// False: this thread holds this heap or another already (it is inside a walk's callback).
  [[nodiscard]] bool held() const noexcept { return held_; }
  static Error deadlock() noexcept {
    return EXTMEM_ERROR(EDEADLK, "this thread is inside a walk over the heap: do this after the walk");
  }

 private:
  alloc::Core& core_;
  alloc::HeapCore& heap_;
  std::uint32_t slot_;
  RankHeld rank_;
  bool held_ = false;
};

}  // namespace extmem::heap
