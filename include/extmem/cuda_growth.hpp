// Growth: a heap that takes more of a GPU's memory when it needs it. Part of extmem/cuda.hpp.
//
// What it is: allocations of a heap that add another piece of the GPU's memory (Memory::device) where the heap has none left, up
// to a limit. What a GrowthPolicy does for backings, which extmem can map by itself and a GPU's memory not. Freeing is the
// heap's, as ever; trim() gives back what is empty.
// Thread-safety: any thread may call any function; one ends it.
// Invariants:
//  1. bytes() is the sum of the pieces' lengths and never above the limit.
//  2. Each piece is exactly one region of the heap. A piece goes only when its region could be removed.
//  3. It stays where it is; Gpu and Domain outlive it and stay where they are.
#pragma once

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <new>
#include <utility>

#include "extmem/cuda_memory.hpp"
#include "extmem/domain.hpp"
#include "extmem/heap.hpp"
#include "extmem/types.hpp"

namespace extmem::cuda {

namespace detail {
inline constexpr ErrorInfo kLimit{
    ENOMEM,
    "no free memory of the heap fits, and the limit of its growth on the GPU does not allow as much more"};
inline constexpr ErrorInfo kNoNote{ENOMEM,
                                   "no memory of the host for the note of another piece of the GPU's"};
}  // namespace detail

struct GrowthOptions {
  std::size_t step = std::size_t{256} << 20;  ///< bytes of a piece, or the allocation's size if larger
  std::uint64_t limit = ~std::uint64_t{0};    ///< most bytes at any time
};

class Growth {
 public:
  Growth(Domain& domain, const Gpu& gpu, Heap heap, const GrowthOptions& options = {}) noexcept
      : domain_(domain), gpu_(gpu), heap_(heap), options_(options) {}
  Growth(const Growth&) = delete;
  Growth& operator=(const Growth&) = delete;
  /// Gives back what is empty. A piece in which something is held stays a region, and is lost to the GPU until the process ends:
  /// free everything first.
  ~Growth() {
    (void)trim();
    while (first_ != nullptr) (void)std::exchange(first_, first_->next);
  }

  /// As Heap::allocate, from memory that is added where none is left. Where an allocation asks for what no further piece
  /// has (a region, a window, IOVAs below a mask) none is added for good.
  /// Errors: those of Heap::allocate; ENOMEM the limit, or the GPU has no more; those of Domain::add_region.
  Result<void*> allocate(std::size_t size, const AllocOptions& options = {}) noexcept {
    bool ours = false;  // this call has added a piece
    int in_vain = 0;    // such pieces that were not used and yet did not help
    for (;;) {
      // Acquire: pairs with the release in grow(), so that whoever sees the number finds the memory.
      const std::uint64_t seen = growths_.load(std::memory_order_acquire);
      auto p = heap_.allocate(size, options);
      if (p || p.error().code() != ENOMEM || options.region) return p;
      if (ours) {
        // Others may have used the piece up, or given it back unused: then there is nothing to give back, and another is
        // added. One that is unused has not what is asked for; or it was used in between, so that counts the second time.
        auto freed = trim();
        if (!freed || (*freed != 0 && ++in_vain == 2)) return p;
      }
      auto grown = grow(size, std::max<std::size_t>(options.align, 64), seen);
      if (!grown) return grown.error();
      ours = *grown;
    }
  }

  /// Gives back the pieces in which nothing is held. Returns how many bytes that were.
  Result<std::uint64_t> trim() noexcept {
    if (auto flushed = heap_.flush(); !flushed) return flushed.error();
    const std::lock_guard<std::mutex> guard(lock_);
    std::uint64_t freed = 0;
    for (Piece** link = &first_; *link != nullptr;) {
      Piece* const piece = *link;
      if (!domain_.remove_region(piece->region)) {
        link = &piece->next;
        continue;
      }
      freed += piece->memory.length();
      *link = piece->next;
      delete piece;
    }
    // Relaxed: a figure; who changes it holds the lock.
    bytes_.store(bytes_.load(std::memory_order_relaxed) - freed, std::memory_order_relaxed);
    return freed;
  }
  /// Bytes of the GPU that it has now.
  [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_.load(std::memory_order_relaxed); }

 private:
  struct Piece {
    Memory memory;
    RegionId region{};
    Piece* next = nullptr;
  };

  /// Adds a piece, unless somebody else has since `seen`. Returns whether this call did.
  Result<bool> grow(std::size_t size, std::size_t align, std::uint64_t seen) noexcept {
    const std::lock_guard<std::mutex> guard(lock_);
    if (growths_.load(std::memory_order_relaxed) != seen) return false;
    constexpr std::uint64_t kUnit = std::uint64_t{2} << 20;  // Memory::device rounds up to it
    const std::uint64_t room = (options_.limit - bytes()) / kUnit * kUnit;
    if (size > room || align > room - size) return Error(&detail::kLimit);
    const std::uint64_t wanted = std::max<std::uint64_t>(options_.step, size + align);
    auto* const piece = new (std::nothrow) Piece;
    if (piece == nullptr) return Error(&detail::kNoNote);
    auto memory = Memory::device(gpu_, std::min(wanted, room));
    auto region = memory ? domain_.add_region(heap_, memory->spec()) : Result<RegionId>(memory.error());
    if (!region) {
      delete piece;
      return region.error();
    }
    piece->memory = std::move(*memory);
    piece->region = *region;
    piece->next = first_;
    first_ = piece;
    bytes_.store(bytes() + piece->memory.length(), std::memory_order_relaxed);
    growths_.fetch_add(1, std::memory_order_release);  // pairs with the acquire in allocate()
    return true;
  }

  Domain& domain_;
  const Gpu& gpu_;
  Heap heap_;
  const GrowthOptions options_;
  std::mutex lock_;
  Piece* first_ = nullptr;  // guarded by lock_, as what it leads to
  std::atomic<std::uint64_t> bytes_{0}, growths_{0};
};

}  // namespace extmem::cuda
