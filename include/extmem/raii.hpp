// Handles that clean up after themselves: objects in a heap, heaps, regions and memzones for a scope.
//
// Thread-safety: one handle is used by one thread at a time; what it stands for is as safe as Heap and Domain.
// Invariants:
//  1. A handle owns at most one thing, and moving hands it over. An empty handle cleans up nothing.
//  2. A destructor cannot report: each type states what its destructor does when the clean-up is refused. Where
//     that matters, call the explicit function (remove, destroy, free) first; it reports, and keeps the handle
//     when it fails.
//  3. The Domain object outlives its handles and stays where it is (moving it leaves them dangling).
#pragma once

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <limits>
#include <memory>
#include <new>
#include <string_view>
#include <type_traits>
#include <utility>

#include "extmem/domain.hpp"
#include "extmem/heap.hpp"
#include "extmem/result.hpp"
#include "extmem/types.hpp"

namespace extmem {

/// Deleter of an object in a heap, for std::unique_ptr. Also of a derived object through a pointer to its base,
/// provided the base has a virtual destructor (and the program is compiled with RTTI).
/// A free that the heap refuses (the heap was destroyed, say) is ignored.
class HeapDeleter {
 public:
  constexpr HeapDeleter() noexcept = default;
  constexpr explicit HeapDeleter(Heap heap) noexcept : heap_(heap) {}

  template <typename T>
  void operator()(T* p) const noexcept {
    static_assert(!std::is_void_v<T> && sizeof(T) > 0, "the type must be complete where it is destroyed");
    void* start = const_cast<std::remove_cv_t<T>*>(p);
#if defined(__cpp_rtti)
    if constexpr (std::is_polymorphic_v<T>) start = dynamic_cast<void*>(const_cast<std::remove_cv_t<T>*>(p));
#endif
    std::destroy_at(p);
    Heap heap = heap_;
    (void)heap.deallocate(start);
  }
  [[nodiscard]] constexpr Heap heap() const noexcept { return heap_; }

 private:
  Heap heap_{};
};

/// Deleter of an array in a heap: it knows how many elements to destroy.
template <typename T>
class HeapArrayDeleter {
 public:
  constexpr HeapArrayDeleter() noexcept = default;
  constexpr HeapArrayDeleter(Heap heap, std::size_t count) noexcept : heap_(heap), count_(count) {}

  void operator()(T* p) const noexcept {
    std::destroy_n(p, count_);
    Heap heap = heap_;
    (void)heap.deallocate(const_cast<std::remove_cv_t<T>*>(p));
  }
  [[nodiscard]] constexpr Heap heap() const noexcept { return heap_; }
  [[nodiscard]] constexpr std::size_t count() const noexcept { return count_; }

 private:
  Heap heap_{};
  std::size_t count_ = 0;
};

template <typename T>
using HeapUnique = std::unique_ptr<T, HeapDeleter>;
template <typename T>
using HeapUniqueArray = std::unique_ptr<T[], HeapArrayDeleter<T>>;

/// Makes a T in the heap's memory. Also throws what T's constructor throws; then nothing stays allocated.
/// Requires: memory that the CPU can reach. Errors: those of Heap::allocate.
template <typename T, typename... Args>
requires(!std::is_array_v<T>) Result<HeapUnique<T>> make_unique_in(Heap heap, Args&&... args)
noexcept(std::is_nothrow_constructible_v<T, Args...>) {
  const auto memory = heap.allocate(sizeof(T), alignof(T));
  if (!memory) return memory.error();
  struct Guard {  // frees when the constructor throws
    Heap heap;
    void* memory;
    ~Guard() {
      if (memory != nullptr) (void)heap.deallocate(memory);
    }
  } guard{heap, *memory};
  T* made = ::new (guard.memory) T(std::forward<Args>(args)...);
  guard.memory = nullptr;
  return HeapUnique<T>(made, HeapDeleter(heap));
}

namespace detail {
inline constexpr ErrorInfo kArrayTooLong{
    EOVERFLOW, "the array's length times its element's size overflows; ask for less"};
}  // namespace detail

/// Makes an array of `count` value-initialised elements in the heap's memory: make_unique_in<int[]>(heap, 100).
/// Requires: memory that the CPU can reach. Errors: those of Heap::allocate (count 0: EINVAL); EOVERFLOW.
template <typename T>
requires std::is_unbounded_array_v<T> Result<HeapUniqueArray<std::remove_extent_t<T>>> make_unique_in(
    Heap heap, std::size_t count)
noexcept(std::is_nothrow_default_constructible_v<std::remove_extent_t<T>>) {
  using Element = std::remove_extent_t<T>;
  if (count > std::numeric_limits<std::size_t>::max() / sizeof(Element)) return Error(&detail::kArrayTooLong);
  const auto memory = heap.allocate(count * sizeof(Element), alignof(Element));
  if (!memory) return memory.error();
  struct Guard {  // destroys what was made, and frees, when a constructor throws
    Heap heap;
    Element* elements;
    std::size_t made = 0;
    ~Guard() {
      if (elements == nullptr) return;
      std::destroy_n(elements, made);
      (void)heap.deallocate(elements);
    }
  } guard{heap, static_cast<Element*>(*memory)};
  for (; guard.made < count; ++guard.made) ::new (static_cast<void*>(guard.elements + guard.made)) Element();
  return HeapUniqueArray<Element>(std::exchange(guard.elements, nullptr),
                                  HeapArrayDeleter<Element>(heap, count));
}

/// A heap that goes with the scope. Destroyed after the regions in it: declare it before their handles.
/// When the destructor is refused (EBUSY: a region is still in it) the heap stays, until the domain is closed.
class ScopedHeap {
 public:
  /// Errors: those of Domain::create_heap.
  static Result<ScopedHeap> create(Domain& domain, std::string_view name,
                                   const HeapOptions& options = {}) noexcept {
    const auto heap = domain.create_heap(name, options);
    if (!heap) return heap.error();
    return ScopedHeap(domain, *heap);
  }
  constexpr ScopedHeap() noexcept = default;
  /// Takes over a heap that exists.
  ScopedHeap(Domain& domain, Heap heap) noexcept : domain_(&domain), heap_(heap) {}
  ScopedHeap(ScopedHeap&& other) noexcept : domain_(other.domain_), heap_(other.release()) {}
  ScopedHeap& operator=(ScopedHeap&& other) noexcept {
    ScopedHeap taken(std::move(other));
    std::swap(domain_, taken.domain_);
    std::swap(heap_, taken.heap_);
    return *this;
  }
  ~ScopedHeap() { (void)destroy(); }

  [[nodiscard]] explicit operator bool() const noexcept { return static_cast<bool>(heap_); }
  [[nodiscard]] Heap get() const noexcept { return heap_; }
  [[nodiscard]] Heap* operator->() noexcept { return &heap_; }
  [[nodiscard]] Heap operator*() const noexcept { return heap_; }
  /// Destroys the heap now; on errors the handle keeps it. Errors: those of Domain::destroy_heap.
  Result<void> destroy(HolderReport* users = nullptr) noexcept {
    if (!heap_) return {};
    const auto destroyed = domain_->destroy_heap(heap_, users);
    if (destroyed) (void)release();
    return destroyed;
  }
  /// Lets go of the heap without destroying it.
  Heap release() noexcept { return std::exchange(heap_, Heap{}); }

 private:
  Domain* domain_ = nullptr;
  Heap heap_{};
};

/// A region that goes with the scope.
/// When the destructor is refused (EBUSY: something in it is still held; or a listener needs it) the region stays in
/// the domain, draining: nothing new is placed in it, and what is held stays valid. Who lent the memory must not
/// unmap it then; remove() or drain_and_remove() first tells.
class ScopedRegion {
 public:
  /// Errors: those of Domain::add_region.
  static Result<ScopedRegion> add(Domain& domain, Heap heap, const RegionSpec& spec) noexcept {
    const auto region = domain.add_region(heap, spec);
    if (!region) return region.error();
    return ScopedRegion(domain, *region);
  }
  /// Errors: those of Domain::add_backing.
  static Result<ScopedRegion> add(Domain& domain, Heap heap, const BackingSpec& spec) noexcept {
    const auto region = domain.add_backing(heap, spec);
    if (!region) return region.error();
    return ScopedRegion(domain, *region);
  }
  constexpr ScopedRegion() noexcept = default;
  /// Takes over a region that exists.
  ScopedRegion(Domain& domain, RegionId region) noexcept : domain_(&domain), region_(region) {}
  ScopedRegion(ScopedRegion&& other) noexcept : domain_(other.domain_), region_(other.release()) {}
  ScopedRegion& operator=(ScopedRegion&& other) noexcept {
    ScopedRegion taken(std::move(other));
    std::swap(domain_, taken.domain_);
    std::swap(region_, taken.region_);
    return *this;
  }
  ~ScopedRegion() {
    if (!remove()) (void)domain_->drain_region(region_, std::chrono::nanoseconds(0));
  }

  [[nodiscard]] explicit operator bool() const noexcept { return static_cast<bool>(region_); }
  [[nodiscard]] RegionId id() const noexcept { return region_; }
  /// Removes the region now; on errors the handle keeps it. Errors: those of Domain::remove_region.
  Result<void> remove(HolderReport* holders = nullptr) noexcept {
    if (!region_) return {};
    const auto removed = domain_->remove_region(region_, holders);
    if (removed) (void)release();
    return removed;
  }
  /// Waits until nothing in the region is held, then removes it; on errors the handle keeps it.
  /// Errors: those of Domain::drain_region and Domain::remove_region.
  Result<void> drain_and_remove(std::chrono::nanoseconds timeout, HolderReport* holders = nullptr) noexcept {
    if (!region_) return {};
    if (const auto drained = domain_->drain_region(region_, timeout, holders); !drained) return drained;
    return remove(holders);
  }
  /// Lets go of the region without removing it.
  RegionId release() noexcept { return std::exchange(region_, RegionId{}); }

 private:
  Domain* domain_ = nullptr;
  RegionId region_{};
};

/// A memzone that goes with the scope. The destructor frees the memzone of that name; where somebody else has freed it
/// before, nothing happens. (Freeing is never refused, there is no EBUSY.)
class ScopedMemzone {
 public:
  /// Errors: those of Domain::reserve_memzone.
  static Result<ScopedMemzone> reserve(Domain& domain, Heap heap, std::string_view name, std::size_t length,
                                       const AllocOptions& options = {}) noexcept {
    const auto zone = domain.reserve_memzone(heap, name, length, options);
    if (!zone) return zone.error();
    return ScopedMemzone(domain, *zone);
  }
  constexpr ScopedMemzone() noexcept = default;
  /// Takes over a memzone that exists.
  ScopedMemzone(Domain& domain, const MemzoneInfo& info) noexcept : domain_(&domain), info_(info) {}
  ScopedMemzone(ScopedMemzone&& other) noexcept : domain_(other.domain_), info_(other.release()) {}
  ScopedMemzone& operator=(ScopedMemzone&& other) noexcept {
    ScopedMemzone taken(std::move(other));
    std::swap(domain_, taken.domain_);
    std::swap(info_, taken.info_);
    return *this;
  }
  ~ScopedMemzone() { (void)free(); }

  [[nodiscard]] explicit operator bool() const noexcept { return info_.addr != nullptr; }
  [[nodiscard]] const MemzoneInfo& operator*() const noexcept { return info_; }
  [[nodiscard]] const MemzoneInfo* operator->() const noexcept { return &info_; }
  /// Frees the memzone now; on errors the handle keeps it, except where it is gone. Errors: those of
  /// Domain::free_memzone.
  Result<void> free() noexcept {
    if (info_.addr == nullptr) return {};
    const auto freed = domain_->free_memzone(info_.name);
    if (freed || freed.error().code() == ENOENT) (void)release();
    return freed;
  }
  /// Lets go of the memzone without freeing it.
  MemzoneInfo release() noexcept { return std::exchange(info_, MemzoneInfo{}); }

 private:
  Domain* domain_ = nullptr;
  MemzoneInfo info_{};
};

}  // namespace extmem
