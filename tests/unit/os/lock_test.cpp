#include "os/lock.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "os/kernel_text.hpp"
#include "os/mapping.hpp"
#include "unit/os/child.hpp"

namespace extmem::os {
namespace {

// Kilobytes that this process has locked.
std::uint64_t locked_kilobytes() {
  std::array<char, 8192> buffer;
  const auto text = read_text("/proc/self/status", buffer);
  return text ? number_after(*text, "VmLck:").value_or(0) : 0;
}

std::string lock_as_nobody(rlim_t limit, std::size_t bytes, int expected, const char* word) {
  REQUIRE(test::drop_privileges());
  const Result<std::byte*> p = reserve(bytes);
  REQUIRE_OK(p);
  REQUIRE_OK(commit(*p, bytes));
  rlimit now{};
  REQUIRE(::getrlimit(RLIMIT_MEMLOCK, &now) == 0);
  if (now.rlim_max < limit) return "skip: the hard limit RLIMIT_MEMLOCK is lower than the test needs";
  REQUIRE(test::set_limit(RLIMIT_MEMLOCK, limit));
  REQUIRE(memlock_limit() == limit);
  for (const LockMode mode : {LockMode::now, LockMode::on_touch}) {
    const Result<void> locked = lock_memory(*p, bytes, mode);
    REQUIRE_ERROR(locked, expected);
    if (expected == 0) {
      REQUIRE(locked_kilobytes() == bytes / 1024);
      unlock_memory(*p, bytes);
      REQUIRE(test::kSanitized || locked_kilobytes() == 0);
    } else {
      REQUIRE(std::strstr(locked.error().message(), word) != nullptr);
    }
  }
  return "";
}

TEST(Lock, WithinTheLimitSucceeds) {
  RUN_IN_CHILD([] { return lock_as_nobody(64 << 10, 16 << 10, 0, ""); });
}

TEST(Lock, BeyondTheLimitNamesIt) {
  RUN_IN_CHILD([] { return lock_as_nobody(64 << 10, 128 << 10, ENOMEM, "RLIMIT_MEMLOCK"); });
}

TEST(Lock, WithALimitOfZeroNamesIt) {
  RUN_IN_CHILD([] { return lock_as_nobody(0, 16 << 10, EPERM, "RLIMIT_MEMLOCK is 0"); });
}

TEST(Lock, OfUnmappedMemoryDoesNotBlameTheLimit) {
  RUN_IN_CHILD([] {
    const Result<std::byte*> p = reserve(page_size());
    REQUIRE_OK(p);
    unmap(*p, page_size());
    const Result<void> locked = lock_memory(*p, page_size(), LockMode::now);
    REQUIRE_ERROR(locked, ENOMEM);
    REQUIRE(std::strstr(locked.error().message(), "not mapped") != nullptr);
    return std::string();
  });
}

}  // namespace
}  // namespace extmem::os
