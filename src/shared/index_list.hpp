// Index list: which records of a table are unused. Unused records are chained through a link of their own; those
// never used lie above `high`. Guarded by a lock of the table's owner, changed through a Transaction.
#pragma once

#include <cstdint>

#include "base/relaxed.hpp"
#include "shared/transaction.hpp"

namespace extmem::shared {

struct IndexList {
  base::Relaxed<std::uint32_t> first;  // + 1; 0: none
  base::Relaxed<std::uint32_t> last;   // + 1; records are reused first-in-first-out
  base::Relaxed<std::uint32_t> high;   // records [high, capacity) were never used
  std::uint32_t capacity;

  static constexpr std::uint32_t kNone = 0xffffffff;

  /// An unused record, or kNone. `link(i)` is record i's link word.
  template <typename Link>
  std::uint32_t take(Transaction& tx, Link&& link) noexcept {
    if (const std::uint32_t head = first; head != 0) {
      const std::uint32_t next = link(head - 1).get();
      tx.set(first, next);
      if (next == 0) tx.set(last, 0);
      tx.set(link(head - 1), 0);
      return head - 1;
    }
    if (high >= capacity) return kNone;
    const std::uint32_t index = high;
    tx.set(high, index + 1);
    return index;
  }
  template <typename Link>
  void put(Transaction& tx, std::uint32_t index, Link&& link) noexcept {
    tx.set(link(index), 0);
    if (const std::uint32_t tail = last; tail != 0) {
      tx.set(link(tail - 1), index + 1);
    } else {
      tx.set(first, index + 1);
    }
    tx.set(last, index + 1);
  }
};

}  // namespace extmem::shared
