// HeapGuard: a heap's lock for a scope.
#pragma once

#include "alloc/core.hpp"

namespace extmem::alloc {

/// Holds a heap's lock for a scope, and repairs the heap first where a dead holder left it torn.
/// Requires: check held() before relying on it.
class HeapGuard {
 public:
  HeapGuard(Core& core, std::uint32_t slot, std::uint32_t heap) noexcept
      : lock_(core.heap(heap).lock), peers_(core.peers()) {
    locked_ = lock_.lock(slot, peers_);
    if (locked_ > shared::Locked::inherited) {
      if (locked_ == shared::Locked::stuck) error_ = shared::stuck_error(peers_, lock_.holder());
      return;
    }
    if (locked_ == shared::Locked::yes && core.heap(heap).torn == 0) [[likely]]
      return;
    if (auto repaired = core.repair_heap_locked(slot, heap); !repaired) {
      error_ = repaired.error();  // it stays marked as torn: the next one tries again
      locked_ = shared::Locked::stuck;
      lock_.unlock(peers_);
    }
  }
  HeapGuard(const HeapGuard&) = delete;
  ~HeapGuard() {
    if (held()) lock_.unlock(peers_);
  }
  [[nodiscard]] bool held() const noexcept { return locked_ <= shared::Locked::inherited; }
  /// Why it is not held: `if_mine` where this thread has it already, else ETIMEDOUT.
  [[nodiscard]] Error refused(Error if_mine) const noexcept {
    return locked_ == shared::Locked::stuck ? error_ : if_mine;
  }

 private:
  shared::Lock& lock_;
  shared::Peers peers_;
  shared::Locked locked_;
  Error error_{};
};

}  // namespace extmem::alloc
