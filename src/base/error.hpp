// How the layers make an Error: EXTMEM_ERROR for a check of ours, EXTMEM_SYS_ERROR for a failed system call.
//
// Both give an Error that points at static data, so that failing never allocates (see result.hpp).
#pragma once

#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>

#include "extmem/result.hpp"

/// An Error with this errno value and this message. The message says what was wrong and what to do.
#define EXTMEM_ERROR(errno_value, text)                                \
  ([]() noexcept -> ::extmem::Error {                                  \
    static constexpr ::extmem::ErrorInfo kInfo{(errno_value), (text)}; \
    return ::extmem::Error(&kInfo);                                    \
  }())

/// An Error for a system call that failed with `errno_variable` (known only at run time), with this message.
#define EXTMEM_SYS_ERROR(errno_variable, text)                  \
  ([](int errno_now) noexcept -> ::extmem::Error {              \
    static constinit ::extmem::base::SystemErrors made_here;    \
    return ::extmem::Error(&made_here.of((errno_now), (text))); \
  }(errno_variable))

#define EXTMEM_CONCAT_(a, b) a##b
#define EXTMEM_CONCAT(a, b) EXTMEM_CONCAT_(a, b)

/// Returns the error of `expr` (a Result) from this function, or binds `name` to its value.
#define EXTMEM_TRY(name, expr)                           \
  auto EXTMEM_CONCAT(try_result_, __LINE__) = (expr);    \
  if (!EXTMEM_CONCAT(try_result_, __LINE__)) {           \
    return EXTMEM_CONCAT(try_result_, __LINE__).error(); \
  }                                                      \
  auto& name = *EXTMEM_CONCAT(try_result_, __LINE__)

/// Returns the error of `expr` (a Result<void>, or a Result whose value is not wanted) from this function.
#define EXTMEM_TRY_VOID(expr)                                             \
  do {                                                                    \
    if (auto try_result = (expr); !try_result) return try_result.error(); \
  } while (false)

namespace extmem::base {

inline constexpr std::size_t kErrnoCount = 134;  // EHWPOISON (133) is Linux's last

/// The failures of one system call: an ErrorInfo for every errno value, each filled in when it first happens. As constant data each
/// would hold its message's address, and the loader would write 6,700 of these at the start of every program.
class SystemErrors {
 public:
  const ErrorInfo& of(int errno_now, const char* message) noexcept {
    const int code = errno_now > 0 && static_cast<std::size_t>(errno_now) < kErrnoCount ? errno_now : EIO;
    ErrorInfo& info = infos_[static_cast<std::size_t>(code)];
    // Each word is written once, by whoever is first. Release and acquire pair with each other: all see both words.
    int no_code = 0;
    (void)std::atomic_ref(info.code).compare_exchange_strong(no_code, code, std::memory_order_acq_rel);
    const char* no_message = nullptr;
    (void)std::atomic_ref(info.message)
        .compare_exchange_strong(no_message, message, std::memory_order_acq_rel);
    return info;
  }

 private:
  std::array<ErrorInfo, kErrnoCount> infos_{};
};

}  // namespace extmem::base
