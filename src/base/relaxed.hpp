// Relaxed<T>: a field that threads without the lock may read while its writer writes.
//
// Loads and stores are plain moves; the type only says that a torn or reordered read is impossible or harmless.
// Whatever orders such a field with others (a lock, a busy word) is said where it is declared.
#pragma once

#include <atomic>

namespace extmem::base {

template <typename T>
class Relaxed {
 public:
  constexpr Relaxed() noexcept = default;
  constexpr Relaxed(T value) noexcept : value_(value) {}  // NOLINT: reads like the field it is
  Relaxed(const Relaxed& other) noexcept : value_(other.get()) {}
  Relaxed& operator=(const Relaxed& other) noexcept {
    set(other.get());
    return *this;
  }
  [[nodiscard]] T get() const noexcept { return value_.load(std::memory_order_relaxed); }
  void set(T value) noexcept { value_.store(value, std::memory_order_relaxed); }
  operator T() const noexcept { return get(); }  // NOLINT
  /// The value where nobody can be writing it: a plain load, which a compiler may make part of another instruction.
  [[nodiscard]] T stable() const noexcept {
    static_assert(sizeof(value_) == sizeof(T));
    return *reinterpret_cast<const T*>(&value_);
  }
  Relaxed& operator=(T value) noexcept {
    set(value);
    return *this;
  }
  /// Not a read-modify-write: for fields with one writer at a time.
  void add(T value) noexcept { set(static_cast<T>(get() + value)); }

  std::atomic<T>& atomic() noexcept { return value_; }
  const std::atomic<T>& atomic() const noexcept { return value_; }

 private:
  std::atomic<T> value_{};
};

}  // namespace extmem::base
