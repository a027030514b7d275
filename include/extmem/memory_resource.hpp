// Standard containers on a heap: a std::pmr::memory_resource and an allocator.
//
// Here, and only here, extmem throws: the standard's allocators have no other way to fail. What a heap answers
// with an Error becomes std::bad_alloc (std::bad_array_new_length where a length overflows).
// A program that is compiled without exceptions or without RTTI does not get these two.
// Thread-safety: that of Heap: any thread at any time.
// Requires: memory that the CPU can reach; the heap lives longer than the containers.
#pragma once

#if defined(__cpp_exceptions) && defined(__cpp_rtti)

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory_resource>
#include <new>
#include <type_traits>

#include "extmem/heap.hpp"
#include "extmem/types.hpp"

namespace extmem {

namespace detail {

/// size 0 is one byte: the standard's allocators give a pointer for it too.
inline void* allocate_or_throw(Heap heap, std::size_t size, std::size_t align, const AllocOptions& options) {
  AllocOptions wanted = options;
  wanted.align = std::max(options.align, align);
  const auto allocated = heap.allocate(std::max<std::size_t>(size, 1), wanted);
  if (!allocated) throw std::bad_alloc();
  return *allocated;
}

}  // namespace detail

/// A heap as std::pmr::memory_resource. Two are equal when they stand for the same heap: what one allocated the
/// other may free.
class HeapResource final : public std::pmr::memory_resource {
 public:
  /// Every allocation is made with `options` (a tag, say); alignment is the larger of theirs and the caller's.
  explicit HeapResource(Heap heap, const AllocOptions& options = {}) noexcept
      : heap_(heap), options_(options) {}

  [[nodiscard]] Heap heap() const noexcept { return heap_; }
  /// How many frees the heap has refused: 0 in a correct program. pmr's deallocate has no other way to tell.
  [[nodiscard]] std::uint64_t refused_frees() const noexcept {
    return refused_.load(std::memory_order_relaxed);
  }

 private:
  void* do_allocate(std::size_t bytes, std::size_t alignment) override {
    return detail::allocate_or_throw(heap_, bytes, alignment, options_);
  }
  void do_deallocate(void* p, std::size_t, std::size_t) override {
    if (!heap_.deallocate(p)) refused_.fetch_add(1, std::memory_order_relaxed);
  }
  [[nodiscard]] bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override {
    const auto* resource = dynamic_cast<const HeapResource*>(&other);
    return resource != nullptr && resource->heap_ == heap_;
  }

  Heap heap_;
  AllocOptions options_;
  std::atomic<std::uint64_t> refused_{0};
};

/// A heap as allocator of the standard's containers. Pointers are raw pointers.
/// Propagation: moving and swapping containers moves the heap along, so that both cost O(1) and stay valid between
/// heaps; copy assignment keeps the target in the heap that it is in; a copy-constructed container uses the source's.
template <typename T>
class StlAllocator {
 public:
  using value_type = T;
  using size_type = std::size_t;
  using difference_type = std::ptrdiff_t;
  using propagate_on_container_move_assignment = std::true_type;
  using propagate_on_container_swap = std::true_type;
  using propagate_on_container_copy_assignment = std::false_type;
  using is_always_equal = std::false_type;

  explicit StlAllocator(Heap heap, Tag tag = {}) noexcept : heap_(heap), tag_(tag) {}
  template <typename U>
  StlAllocator(const StlAllocator<U>& other) noexcept
      : heap_(other.heap()), tag_(other.tag()) {}  // NOLINT: rebind

  [[nodiscard]] T* allocate(std::size_t n) {
    if (n > std::numeric_limits<std::size_t>::max() / sizeof(T)) throw std::bad_array_new_length();
    AllocOptions options;
    options.tag = tag_;
    return static_cast<T*>(detail::allocate_or_throw(heap_, n * sizeof(T), alignof(T), options));
  }
  /// Requires: p came from an equal allocator. A free that the heap refuses is ignored.
  void deallocate(T* p, std::size_t) noexcept { (void)heap_.deallocate(p); }

  [[nodiscard]] Heap heap() const noexcept { return heap_; }
  [[nodiscard]] Tag tag() const noexcept { return tag_; }
  template <typename U>
  friend bool operator==(const StlAllocator& a, const StlAllocator<U>& b) noexcept {
    return a.heap() == b.heap();
  }

 private:
  Heap heap_;
  Tag tag_;
};

}  // namespace extmem

#endif  // exceptions and RTTI
