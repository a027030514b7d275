// PausedHeap: a heap that stands still: its lock held, its other threads stopped between operations.
#pragma once

#include "alloc/core.hpp"
#include "base/error.hpp"

namespace extmem::heap {

class PausedHeap {
 public:
  PausedHeap(alloc::Core& core, std::uint32_t slot, alloc::HeapCore& heap) noexcept
      : core_(core), heap_(heap), slot_(slot), guard_(heap.lock, slot, core.process_shared()) {
    if (guard_.held()) core_.pause_all(slot_, heap_);
  }
  PausedHeap(const PausedHeap&) = delete;
  ~PausedHeap() {
    if (guard_.held()) core_.resume_all(slot_, heap_);
  }
  /// False: this thread holds the heap already (it is inside a walk's callback).
  [[nodiscard]] bool held() const noexcept { return guard_.held(); }
  static Error deadlock() noexcept {
    return EXTMEM_ERROR(EDEADLK, "this thread is inside a walk over the heap: do this after the walk");
  }

 private:
  alloc::Core& core_;
  alloc::HeapCore& heap_;
  std::uint32_t slot_;
  shared::LockGuard guard_;
};

}  // namespace extmem::heap
