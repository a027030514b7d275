// How the bridge's functions fail: a negative errno value, and a message kept for extmem_dpdk_last_error_message().
//
// Thread-safety: each thread has its own message. Unlike libextmem's, it may name a device, so it is formatted into a buffer
// of the thread.
#pragma once

#include <cerrno>
#include <cstddef>
#include <new>

namespace extmem::faces::dpdk_bridge {

inline constexpr std::size_t kMessageSize = 256;

/// Keeps the message (printf's format) as this thread's last one. Requires: code > 0. Returns: -code.
[[gnu::format(printf, 2, 3)]] int fail(int code, const char* format, ...) noexcept;
/// Keeps what libextmem says about the failure `result` of one of its functions. Returns: result.
int fail_as_extmem(int result) noexcept;

/// Keeps a message while what follows a failure may fail too.
class Message {
 public:
  Message() noexcept;
  /// Makes the message this thread's last one again. Returns: failed.
  int again(int failed) const noexcept;

 private:
  char text_[kMessageSize];
};

/// Runs `body`, which returns 0 or what fail() returns, and turns running out of memory into ENOMEM.
template <typename Body>
int guarded(Body&& body) noexcept {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return fail(ENOMEM, "malloc has no memory for the bridge's own tables");
  }
}

}  // namespace extmem::faces::dpdk_bridge

/// Fails with EINVAL and this message, which says the rule, unless `condition` holds.
#define BRIDGE_REQUIRE(condition, message)                                        \
  do {                                                                            \
    if (!(condition)) return ::extmem::faces::dpdk_bridge::fail(EINVAL, message); \
  } while (false)

/// Returns a failure (a negative value) of `call` from this function.
#define BRIDGE_TRY(call)                                       \
  do {                                                         \
    if (const int failed = (call); failed != 0) return failed; \
  } while (false)

/// The checks that nearly every function begins with.
#define BRIDGE_REQUIRE_EAL()                                                                 \
  do {                                                                                       \
    if (!::extmem::faces::dpdk_bridge::eal_runs()) {                                         \
      return ::extmem::faces::dpdk_bridge::fail(                                             \
          ENODEV, "EAL does not run in this process: call rte_eal_init with success first"); \
    }                                                                                        \
  } while (false)
#define BRIDGE_REQUIRE_DOMAIN(domain) \
  BRIDGE_REQUIRE((domain) != nullptr, "domain is NULL; pass what extmem_domain_create or _open gave")
#define BRIDGE_REQUIRE_HEAP(heap)         \
  BRIDGE_REQUIRE((heap).local != nullptr, \
                 "the heap handle is empty; pass what extmem_heap_create or _find gave")
#define BRIDGE_REQUIRE_OUT(pointer) \
  BRIDGE_REQUIRE((pointer) != nullptr, #pointer " is NULL; pass where the result is to be written")
