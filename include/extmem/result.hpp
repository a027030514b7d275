// Errors are values: Result<T> and Error.
//
// What it is: the one way in which a function of extmem fails. No exception crosses a public function and
// nothing aborts on bad input.
// Thread-safety: values; no shared state.
//
// An Error is one pointer to a static ErrorInfo that does not change any more, so making one costs nothing,
// allocates nothing, and a Result<void*> travels in two registers. Each failing check has an ErrorInfo of its
// own, whose message says what was wrong *and what to do about it*.
#pragma once

#include <cassert>
#include <type_traits>
#include <utility>

namespace extmem {

/// One kind of failure at one place. `code` is a positive errno value; the C interface returns -code.
struct ErrorInfo {
  int code;
  const char* message;
};

/// A failure. Compares equal to another by code. A default-constructed Error means "no failure".
class [[nodiscard]] Error {
 public:
  constexpr Error() noexcept = default;
  constexpr explicit Error(const ErrorInfo* info) noexcept : info_(info) {}

  /// The positive errno value that names the kind of failure; 0 when there is none.
  [[nodiscard]] constexpr int code() const noexcept { return info_ != nullptr ? info_->code : 0; }
  /// What was wrong and what to do about it: a constant string, never null.
  [[nodiscard]] constexpr const char* message() const noexcept {
    return info_ != nullptr ? info_->message : "no error";
  }
  [[nodiscard]] constexpr const ErrorInfo* info() const noexcept { return info_; }
  constexpr explicit operator bool() const noexcept { return info_ != nullptr; }
  friend constexpr bool operator==(Error a, Error b) noexcept { return a.code() == b.code(); }

 private:
  const ErrorInfo* info_ = nullptr;
};

/// A T, or the Error that explains why there is none.
/// Requires: T is default-constructible and movable (handles are: a default-constructed handle is empty).
template <typename T>
class [[nodiscard]] Result {
  static_assert(std::is_default_constructible_v<T>);

 public:
  using value_type = T;
  constexpr Result(T value) noexcept : value_(std::move(value)) {}           // NOLINT: implicit by design
  constexpr Result(Error error) noexcept : error_(error) { assert(error); }  // NOLINT: implicit by design

  [[nodiscard]] constexpr bool ok() const noexcept { return !error_; }
  constexpr explicit operator bool() const noexcept { return ok(); }
  [[nodiscard]] constexpr Error error() const noexcept { return error_; }
  /// Requires: ok().
  constexpr T& value() & noexcept {
    assert(ok());
    return value_;
  }
  constexpr const T& value() const& noexcept {
    assert(ok());
    return value_;
  }
  constexpr T&& value() && noexcept {
    assert(ok());
    return std::move(value_);
  }
  constexpr T& operator*() & noexcept { return value(); }
  constexpr const T& operator*() const& noexcept { return value(); }
  constexpr T&& operator*() && noexcept { return std::move(*this).value(); }
  constexpr T* operator->() noexcept { return &value(); }
  constexpr const T* operator->() const noexcept { return &value(); }
  constexpr T value_or(T other) const noexcept { return ok() ? value_ : std::move(other); }

 private:
  T value_{};
  Error error_{};
};

/// Success, or the Error that explains the failure.
template <>
class [[nodiscard]] Result<void> {
 public:
  using value_type = void;
  constexpr Result() noexcept = default;
  constexpr Result(Error error) noexcept : error_(error) {}  // NOLINT: implicit by design
  [[nodiscard]] constexpr bool ok() const noexcept { return !error_; }
  constexpr explicit operator bool() const noexcept { return ok(); }
  [[nodiscard]] constexpr Error error() const noexcept { return error_; }

 private:
  Error error_{};
};

}  // namespace extmem
