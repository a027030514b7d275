// NUMA: which nodes there are, binding memory to one, finding where memory lies.
//
// What it is: raw mbind, move_pages and get_mempolicy calls, and sysfs. Not libnuma: it reads files with
// stdio and allocates in a library constructor, which the preload face could not bear, and we need three
// calls of it.
// Thread-safety: any thread, any time. No allocation.
//
// Invariants:
//  1. There is always at least one node; without NUMA in the kernel it is node 0.
//  2. Where one node holds all memory, binding to it succeeds without asking the kernel (containers often
//     forbid the call), and binding to any other node is an error.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "extmem/result.hpp"

namespace extmem::os {

inline constexpr int kMaxNumaNodes = 1024;  ///< node ids are below this: the most that Linux can be built for

/// A set of node ids, in ascending order: index 0 is the lowest id.
class NodeSet {
 public:
  constexpr void add(int id) noexcept {
    if (in_range(id)) words_[word(id)] |= bit(id);
  }
  [[nodiscard]] constexpr bool contains(int id) const noexcept {
    return in_range(id) && (words_[word(id)] & bit(id)) != 0;
  }
  [[nodiscard]] constexpr int count() const noexcept {
    int count = 0;
    for (const std::uint64_t w : words_) count += std::popcount(w);
    return count;
  }
  /// Returns: the id of the node with this index, or -1.
  [[nodiscard]] constexpr int id_at(int index) const noexcept {
    for (int id = 0; index >= 0 && id < kMaxNumaNodes; ++id) {
      if (contains(id) && index-- == 0) return id;
    }
    return -1;
  }
  /// Returns: the index of the node with this id, or -1.
  [[nodiscard]] constexpr int index_of(int id) const noexcept {
    if (!contains(id)) return -1;
    int index = std::popcount(words_[word(id)] & (bit(id) - 1));
    for (std::size_t w = 0; w < word(id); ++w) index += std::popcount(words_[w]);
    return index;
  }
  [[nodiscard]] constexpr const std::uint64_t* words() const noexcept { return words_.data(); }
  [[nodiscard]] constexpr std::uint64_t* words() noexcept { return words_.data(); }

 private:
  static constexpr bool in_range(int id) noexcept { return id >= 0 && id < kMaxNumaNodes; }
  static constexpr std::size_t word(int id) noexcept { return static_cast<std::size_t>(id) / 64; }
  static constexpr std::uint64_t bit(int id) noexcept { return std::uint64_t{1} << (id % 64); }

  std::array<std::uint64_t, kMaxNumaNodes / 64> words_{};
};

/// The nodes that are online, with processors, memory or both. Never empty.
NodeSet numa_nodes() noexcept;

/// The nodes that have memory (CXL and other memory-only nodes included). Never empty.
NodeSet numa_memory_nodes() noexcept;

/// The node of the processor that runs this now.
int current_node() noexcept;

/// What to do with pages that are there already and lie on another node.
enum class PresentPages : std::uint8_t {
  leave,  ///< the binding holds for pages that come later
  move,   ///< move them; it is an error if one cannot be moved
};

/// Binds [p, p + bytes) to `node`: from now on its pages come from that node or not at all.
/// Requires: `p` is page-aligned and the range is mapped.
/// Errors: EINVAL for a node without memory, or one that the cpuset forbids; EFAULT for a range that is not
/// mapped; EIO where a present page lies elsewhere and cannot be moved; EPERM where a filter forbids the
/// call.
Result<void> numa_bind(void* p, std::size_t bytes, int node, PresentPages present) noexcept;

/// Finds the node of the page that holds `p`, without touching it.
/// Errors: ENOENT where no page is there yet (touch or pre-fault it first); EFAULT for an unmapped address.
Result<int> numa_node_of(const void* p) noexcept;

}  // namespace extmem::os
