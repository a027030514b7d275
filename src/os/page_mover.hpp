// PageMover: large objects that change their place, by moving page tables instead of bytes.
//
// What it is: mremap of whole pages of private anonymous memory from one place to another, both of which stay mapped. The
// pages go with it, so their physical addresses do not change, but those behind each of the two places do: not for memory
// that devices or other processes reach. Where it is not worth it, or cannot be done, nothing happens and the caller copies.
// Thread-safety: any thread, at once; the two places are the caller's. No allocation; errno is not changed.
//
// Invariants:
//  1. There is no instant at which either place is not mapped, so that no other thread's mmap can get into it; but for the
//     kernel running out of memory for its own tables, and then `Moved` says what became of it.
//  2. Memory that is locked (mlock, mlockall) stays as it is: the kernel would take the lock off what lies around the object.
//  3. The kernel keeps each moved piece as a mapping of its own. When a quarter of all mappings that a process may have
//     (vm.max_map_count) is taken, whoever took them, nothing is moved.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace extmem::os {

/// What came of a move.
struct Moved {
  std::size_t bytes =
      0;  ///< moved, from the front; the caller copies the rest. Their old place reads as zero
  bool place_lost = false;  ///< nothing was moved, and the new place must never be used nor given back
  bool old_place_lost =
      false;  ///< the same of the old place, which must not be copied from either: all was moved
};

class PageMover {
 public:
  static constexpr std::size_t kLeast = std::size_t{1} << 20;  // less gains little, and costs mappings
  /// mremap's shape, for tests that stand in for the kernel: (from, bytes, flags, to).
  using Remap = void* (*)(void*, std::size_t, int, void*) noexcept;
  static void* call_mremap(void* from, std::size_t bytes, int flags, void* to) noexcept;

  /// `unlooked`: mappings that are made before their number is looked at; `most`: when nothing is moved any more, 0: by the
  /// kernel's limit.
  constexpr explicit PageMover(Remap remap = &call_mremap, std::int64_t unlooked = 2048,
                               std::uint64_t most = 0) noexcept
      : remap_(remap), most_(most), left_(unlooked) {}

  /// Moves [from, from + bytes) to `to`, whose content goes: where it is long, and most of `to` is not in memory. (Else copying
  /// costs less than bringing in anew, later, the pages that a move throws away.)
  /// Requires: both are private anonymous memory without any advice or NUMA policy and do not overlap; neither is in use by
  /// others.
  Moved move(std::byte* to, std::byte* from, std::size_t bytes) noexcept;

 private:
  [[nodiscard]] bool may_split() noexcept;
  enum class Step : std::uint8_t { done, refused, across_mappings, place_lost };
  /// `bytes`, or how many of them there are up to where a mapping is known to end.
  [[nodiscard]] std::size_t known_piece(const std::byte* at, std::size_t bytes) const noexcept;
  void remember_end(const std::byte* at) noexcept;
  void forget_ends(const std::byte* p, std::size_t bytes) noexcept;
  Step move_one(std::byte* to, std::byte* from, std::size_t bytes) noexcept;
  bool renew(std::byte* p, std::size_t bytes) noexcept;

  Remap remap_;
  std::uint64_t most_;
  // All relaxed: numbers only. Where moved pieces end, which is a hint: a wrong one costs a call or two.
  static constexpr std::uint32_t kEnds = 256;
  std::atomic<std::uintptr_t> ends_[kEnds]{};
  std::atomic<std::uint32_t> next_end_{0};
  std::atomic<std::int64_t> left_;     // mappings that may be made before the next count
  std::atomic<std::int64_t> skip_{0};  // moves that are refused before the next count
};

}  // namespace extmem::os
