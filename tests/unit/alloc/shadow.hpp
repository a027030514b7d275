// Shadow: who holds which granule of a region, so that a test finds memory that is handed out twice.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

namespace extmem::alloc {

class Shadow {
 public:
  /// `granule`: what sizes are multiples of, or rounded to, in the heap under test.
  Shadow(std::uint64_t bytes, std::uint64_t granule)
      : granule_(granule), holders_(std::make_unique<std::atomic<std::uint32_t>[]>(bytes / granule)) {}
  /// False: part of it was held already.
  bool take(std::uint64_t ptr, std::uint64_t bytes, std::uint32_t slot) {
    return change(ptr, bytes, 0, slot);
  }
  /// False: part of it was not held by this slot.
  bool give(std::uint64_t ptr, std::uint64_t bytes, std::uint32_t slot) {
    return change(ptr, bytes, slot, 0);
  }

 private:
  bool change(std::uint64_t ptr, std::uint64_t bytes, std::uint32_t from, std::uint32_t to) {
    bool good = true;
    const std::uint64_t first = (ptr & ((std::uint64_t{1} << 48) - 1)) / granule_;
    const std::uint64_t end = first + (bytes + granule_ - 1) / granule_;
    for (std::uint64_t i = first; i < end; ++i)
      good &= holders_[i].exchange(to, std::memory_order_relaxed) == from;  // relaxed: each is a count of one
    return good;
  }
  std::uint64_t granule_;
  std::unique_ptr<std::atomic<std::uint32_t>[]> holders_;
};

}  // namespace extmem::alloc
