// How the layers make an Error: EXTMEM_ERROR for a check of ours, EXTMEM_SYS_ERROR for a failed system call.
//
// Both give an Error that points at read-only data, so that failing never allocates (see result.hpp).
#pragma once

#include <array>
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
#define EXTMEM_SYS_ERROR(errno_variable, text)                                        \
  ([](int errno_now) noexcept -> ::extmem::Error {                                    \
    static constexpr auto kInfos = ::extmem::base::error_infos_for_every_errno(text); \
    return ::extmem::Error(&kInfos[::extmem::base::errno_index(errno_now)]);          \
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

constexpr std::array<ErrorInfo, kErrnoCount> error_infos_for_every_errno(const char* message) noexcept {
  std::array<ErrorInfo, kErrnoCount> infos{};
  for (std::size_t i = 0; i < kErrnoCount; ++i) {
    infos[i] = ErrorInfo{i == 0 ? EIO : static_cast<int>(i), message};
  }
  return infos;
}

constexpr std::size_t errno_index(int errno_now) noexcept {
  return errno_now > 0 && static_cast<std::size_t>(errno_now) < kErrnoCount
             ? static_cast<std::size_t>(errno_now)
             : std::size_t{EIO};
}

}  // namespace extmem::base
