// How the C functions fail: a negative errno value, and the message kept for extmem_last_error_message().
//
// Thread-safety: each thread has its own last error, in initial-exec thread-local storage (no malloc).
#pragma once

#include <cerrno>

#include "extmem/result.hpp"

namespace extmem::faces::c {

/// Keeps the error as this thread's last one. Requires: code > 0, message a constant string.
/// Returns: -code.
int fail(int code, const char* message) noexcept;
inline int fail(Error error) noexcept { return fail(error.code(), error.message()); }

/// 0, or what fail() returns.
inline int to_errno(const Result<void>& result) noexcept { return result.ok() ? 0 : fail(result.error()); }

}  // namespace extmem::faces::c

/// Fails with EINVAL and this message, which says the rule, unless `condition` holds.
#define EXTMEM_C_REQUIRE(condition, message)                            \
  do {                                                                  \
    if (!(condition)) return ::extmem::faces::c::fail(EINVAL, message); \
  } while (false)

/// Returns a failure (a negative value) of `call` from this function.
#define EXTMEM_C_TRY(call)                                     \
  do {                                                         \
    if (const int failed = (call); failed != 0) return failed; \
  } while (false)

/// The checks that nearly every function begins with.
#define EXTMEM_C_REQUIRE_DOMAIN(domain) \
  EXTMEM_C_REQUIRE((domain) != nullptr, "domain is NULL; pass what extmem_domain_create or _open gave")
#define EXTMEM_C_REQUIRE_HEAP(heap)         \
  EXTMEM_C_REQUIRE((heap).local != nullptr, \
                   "the heap handle is empty; pass what extmem_heap_create or _find gave")
#define EXTMEM_C_REQUIRE_OUT(pointer) \
  EXTMEM_C_REQUIRE((pointer) != nullptr, #pointer " is NULL; pass where the result is to be written")
#define EXTMEM_C_REQUIRE_NAME(name) EXTMEM_C_REQUIRE((name) != nullptr, "name is NULL; pass 1 to 63 bytes")
#define EXTMEM_C_REQUIRE_VISITOR(visit) \
  EXTMEM_C_REQUIRE((visit) != nullptr, "visit is NULL; pass the function that is to be called")
