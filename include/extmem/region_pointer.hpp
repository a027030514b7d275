// Pointers for structures in shared regions.
//
// What it is: two ways to write a link into memory that several processes map, each at its own address.
//   region_pointer<T>  a RegionPtr with a type: names any byte of a domain; resolving it needs the Domain.
//   offset_pointer<T>  the distance from the pointer itself to what it points at: needs nothing, dereferences at the cost
//                      of an addition, and stays right at any address, as long as both lie in the *same region*. It is a
//                      random access iterator and a fancy pointer: std::vector and Boost's containers work with it where
//                      their allocator's pointer type is it.
// Thread-safety: values. Two threads that change one pointer need an order of their own.
// Invariants:
//  1. offset_pointer: distance 1 means null (nothing points at its own second byte); copying keeps the target, never the
//     distance.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <type_traits>

#include "extmem/domain.hpp"
#include "extmem/types.hpp"

namespace extmem {

/// A typed RegionPtr: trivially copyable, may lie in any region and name a byte of any other one.
template <typename T>
struct region_pointer {
  RegionPtr ptr{};

  /// The portable form of a pointer. Errors: EFAULT it is in no region of the domain.
  static Result<region_pointer> from(const Domain& domain, T* p) noexcept {
    if (p == nullptr) return region_pointer{};
    auto made = domain.to_region_ptr(p);
    if (!made) return made.error();
    return region_pointer{*made};
  }
  /// The pointer in this process; null for null. Errors: EFAULT the region is not mapped here, or gone.
  Result<T*> in(const Domain& domain) const noexcept {
    if (!ptr) return static_cast<T*>(nullptr);
    auto p = domain.from_region_ptr(ptr);
    if (!p) return p.error();
    return static_cast<T*>(*p);
  }
  constexpr explicit operator bool() const noexcept { return static_cast<bool>(ptr); }
  friend constexpr bool operator==(region_pointer, region_pointer) noexcept = default;
};

namespace detail {
struct NoObject;  // what a pointer to void points at: Boost wants a reference to something
}  // namespace detail

template <typename T>
class offset_pointer {
  static constexpr std::ptrdiff_t kNull = 1;

 public:
  using element_type = T;
  using value_type = std::remove_cv_t<T>;
  using difference_type = std::ptrdiff_t;
  using pointer = offset_pointer;
  using reference = std::conditional_t<std::is_void_v<T>, detail::NoObject, T>&;
  using iterator_category = std::random_access_iterator_tag;
  template <typename U>
  using rebind = offset_pointer<U>;

  offset_pointer() noexcept = default;
  offset_pointer(T* p) noexcept { set(p); }  // NOLINT: as a pointer does; null too, be it nullptr or 0
  offset_pointer(const offset_pointer& other) noexcept { set(other.get()); }
  template <typename U, typename = std::enable_if_t<std::is_convertible_v<U*, T*>>>
  offset_pointer(const offset_pointer<U>& other) noexcept {  // NOLINT
    set(other.get());
  }
  /// As static_cast does, from a pointer to void.
  template <typename U, typename = std::enable_if_t<std::is_void_v<U> && !std::is_void_v<T>>, typename = void>
  explicit offset_pointer(const offset_pointer<U>& other) noexcept {
    set(static_cast<T*>(other.get()));
  }
  offset_pointer& operator=(const offset_pointer& other) noexcept {
    set(other.get());
    return *this;
  }
  offset_pointer& operator=(T* p) noexcept {
    set(p);
    return *this;
  }
  ~offset_pointer() = default;

  [[nodiscard]] T* get() const noexcept {
    if (distance_ == kNull) return nullptr;
    return reinterpret_cast<T*>(reinterpret_cast<std::uintptr_t>(this) +
                                static_cast<std::uintptr_t>(distance_));
  }
  reference operator*() const noexcept { return *get(); }
  T* operator->() const noexcept { return get(); }
  reference operator[](std::ptrdiff_t i) const noexcept { return get()[i]; }
  explicit operator bool() const noexcept { return distance_ != kNull; }

  offset_pointer& operator+=(std::ptrdiff_t n) noexcept {
    distance_ += n * static_cast<std::ptrdiff_t>(sizeof(T));
    return *this;
  }
  offset_pointer& operator-=(std::ptrdiff_t n) noexcept { return *this += -n; }
  offset_pointer& operator++() noexcept { return *this += 1; }
  offset_pointer& operator--() noexcept { return *this -= 1; }
  offset_pointer operator++(int) noexcept {
    const offset_pointer before(*this);
    ++*this;
    return before;
  }
  offset_pointer operator--(int) noexcept {
    const offset_pointer before(*this);
    --*this;
    return before;
  }
  friend offset_pointer operator+(const offset_pointer& p, std::ptrdiff_t n) noexcept {
    return offset_pointer(p.get() + n);
  }
  friend offset_pointer operator+(std::ptrdiff_t n, const offset_pointer& p) noexcept {
    return offset_pointer(p.get() + n);
  }
  friend offset_pointer operator-(const offset_pointer& p, std::ptrdiff_t n) noexcept {
    return offset_pointer(p.get() - n);
  }
  friend std::ptrdiff_t operator-(const offset_pointer& a, const offset_pointer& b) noexcept {
    return a.get() - b.get();
  }
  friend bool operator==(const offset_pointer& a, const offset_pointer& b) noexcept {
    return a.get() == b.get();
  }
  friend bool operator==(const offset_pointer& a, std::nullptr_t) noexcept { return !a; }
  friend std::strong_ordering operator<=>(const offset_pointer& a, const offset_pointer& b) noexcept {
    return std::compare_three_way{}(a.get(), b.get());
  }

  /// For std::pointer_traits.
  template <typename U = T>
  static offset_pointer pointer_to(std::enable_if_t<!std::is_void_v<U>, U>& object) noexcept {
    return offset_pointer(std::addressof(object));
  }

 private:
  void set(T* p) noexcept {
    distance_ = p == nullptr ? kNull
                             : static_cast<std::ptrdiff_t>(reinterpret_cast<std::uintptr_t>(p) -
                                                           reinterpret_cast<std::uintptr_t>(this));
  }
  std::ptrdiff_t distance_ = kNull;
};

/// An STL allocator over a heap whose pointers are offset_pointers: what a container made with it holds can be read by every
/// process that maps the region, if the container object itself lies there too. `region` pins all of it to one region.
/// Requires: the domain's handle outlives it in this process; a process that changes the container makes its own.
template <typename T>
class shared_allocator {
 public:
  using value_type = T;
  using pointer = offset_pointer<T>;
  using const_pointer = offset_pointer<const T>;
  using void_pointer = offset_pointer<void>;
  using const_void_pointer = offset_pointer<const void>;
  using size_type = std::size_t;
  using difference_type = std::ptrdiff_t;

  explicit shared_allocator(Heap heap, RegionId region = {}) noexcept : heap_(heap), region_(region) {}
  template <typename U>
  shared_allocator(const shared_allocator<U>& other) noexcept
      : heap_(other.heap()), region_(other.region()) {}  // NOLINT

  /// Throws std::bad_alloc, as the standard wants.
  pointer allocate(std::size_t n) {
    AllocOptions options;
    options.align = alignof(T);
    options.region = region_;
    if (n == 0) n = 1;
    if (n > static_cast<std::size_t>(-1) / sizeof(T)) throw std::bad_alloc();
    auto p = heap_.allocate(n * sizeof(T), options);
    if (!p) throw std::bad_alloc();
    return pointer(static_cast<T*>(*p));
  }
  void deallocate(pointer p, std::size_t) noexcept { (void)heap_.deallocate(p.get()); }
  [[nodiscard]] Heap heap() const noexcept { return heap_; }
  [[nodiscard]] RegionId region() const noexcept { return region_; }
  template <typename U>
  friend bool operator==(const shared_allocator& a, const shared_allocator<U>& b) noexcept {
    return a.heap_ == b.heap();
  }

 private:
  Heap heap_;
  RegionId region_;
};

}  // namespace extmem
