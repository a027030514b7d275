#include "faces/dpdk_bridge/error.hpp"

#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "extmem/dpdk_bridge.h"

namespace extmem::faces::dpdk_bridge {
namespace {
constinit thread_local char last_message[kMessageSize] = "no error";
}  // namespace

int fail(int code, const char* format, ...) noexcept {
  std::va_list arguments;
  va_start(arguments, format);
  (void)std::vsnprintf(last_message, sizeof last_message, format, arguments);
  va_end(arguments);
  return -code;
}

int fail_as_extmem(int result) noexcept { return fail(-result, "%s", ::extmem_last_error_message()); }

Message::Message() noexcept { std::memcpy(text_, last_message, sizeof text_); }
int Message::again(int failed) const noexcept {
  std::memcpy(last_message, text_, sizeof text_);
  return failed;
}

}  // namespace extmem::faces::dpdk_bridge

const char* extmem_dpdk_last_error_message(void) { return extmem::faces::dpdk_bridge::last_message; }
