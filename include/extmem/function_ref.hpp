// FunctionRef: a callable passed by reference, for callbacks that do not outlive the call.
//
// Two words, no allocation (std::function may allocate). Requires: the callable lives as long as the FunctionRef.
#pragma once

#include <memory>
#include <type_traits>
#include <utility>

namespace extmem {

template <typename Signature>
class FunctionRef;

template <typename R, typename... Args>
class FunctionRef<R(Args...)> {
 public:
  constexpr FunctionRef() noexcept = default;
  template <typename F>
  requires(
      !std::is_same_v<std::remove_cvref_t<F>, FunctionRef> && std::is_invocable_r_v<R, F&, Args...> &&
      !std::is_function_v<std::remove_pointer_t<std::remove_cvref_t<F>>> &&
      std::is_object_v<std::remove_reference_t<
          F>>) constexpr FunctionRef(F&& f) noexcept  // NOLINT: implicit by design, like std::function_ref
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(f)))),
        call_([](void* object, Args... args) -> R {
          return static_cast<R>(
              (*static_cast<std::remove_reference_t<F>*>(object))(std::forward<Args>(args)...));
        }) {}
  /// A function, or a pointer to one, which is kept by value; a null pointer is no callable.
  template <typename F>
  requires(std::is_function_v<std::remove_pointer_t<std::decay_t<F>>>&&
               std::is_invocable_r_v<R, std::decay_t<F>, Args...>) FunctionRef(F&& f)
  noexcept  // NOLINT: as above
      : object_(reinterpret_cast<void*>(static_cast<std::decay_t<F>>(f))),
        call_([](void* function, Args... args) -> R {
          return static_cast<R>(reinterpret_cast<std::decay_t<F>>(function)(std::forward<Args>(args)...));
        }) {
    if (object_ == nullptr) call_ = nullptr;
  }
  constexpr explicit operator bool() const noexcept { return call_ != nullptr; }
  R operator()(Args... args) const { return call_(object_, std::forward<Args>(args)...); }

 private:
  void* object_ = nullptr;
  R (*call_)(void*, Args...) = nullptr;
};

}  // namespace extmem
