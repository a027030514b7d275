// What the ring tests share: memory that forked children share, rings in it, numbered elements.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "extmem/ring.hpp"

namespace extmem::shared::test {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#elif defined(__has_feature)
inline constexpr bool kSanitized = __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
inline constexpr bool kSanitized = false;
#endif

/// Zeroed memory that stays shared with the children of a fork.
class SharedMemory {
 public:
  explicit SharedMemory(std::size_t bytes) : bytes_(bytes) {
    void* const got = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (got == MAP_FAILED) std::abort();
    base_ = static_cast<std::byte*>(got);
  }
  SharedMemory(const SharedMemory&) = delete;
  ~SharedMemory() { ::munmap(base_, bytes_); }
  [[nodiscard]] std::byte* base() const { return base_; }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }

 private:
  std::byte* base_;
  std::size_t bytes_;
};

inline RegionPtr element(std::uint64_t number) { return RegionPtr{(std::uint64_t{1} << 48) + number}; }
inline std::uint64_t number_of(RegionPtr ptr) { return ptr.offset(); }

/// A ring in memory of its own.
class RingWorld {
 public:
  RingWorld(RingKind kind, std::size_t capacity) : memory_(*Ring::bytes_for(kind, capacity)) {
    if (!Ring::create(memory_.base(), memory_.bytes(), kind, capacity)) std::abort();
  }
  [[nodiscard]] Ring attach(std::uint32_t participant) const {
    return *Ring::attach(memory_.base(), memory_.bytes(), participant);
  }
  [[nodiscard]] std::byte* base() const { return memory_.base(); }
  [[nodiscard]] std::size_t bytes() const { return memory_.bytes(); }

 private:
  SharedMemory memory_;
};

/// The numbers in the ring, oldest first.
inline std::vector<std::uint64_t> content(const Ring& ring) {
  std::vector<std::uint64_t> numbers;
  const auto walked = ring.walk([&](const RingEntry& entry) {
    numbers.push_back(number_of(entry.ptr));
    return true;
  });
  EXPECT_TRUE(walked) << walked.error().message();
  return numbers;
}

/// Runs recover() with a predicate that calls `dead` dead. Returns: the orphans.
template <typename IsDead>
std::vector<RingOrphan> recovered(const Ring& ring, IsDead dead) {
  std::vector<RingOrphan> orphans;
  const auto done = ring.recover(
      {.is_dead = dead, .on_orphan = [&](const RingOrphan& orphan) { orphans.push_back(orphan); }});
  EXPECT_TRUE(done) << done.error().message();
  if (done) {
    EXPECT_EQ(done->orphans, orphans.size());
  }
  return orphans;
}

inline std::string kind_name(RingKind kind) { return kind == RingKind::spsc ? "Spsc" : "Mpmc"; }

/// A number from the environment, else `usual`.
inline std::uint64_t environment_number(const char* name, std::uint64_t usual) {
  const char* const given = std::getenv(name);
  return given != nullptr ? std::strtoull(given, nullptr, 0) : usual;
}

#define EXPECT_FAILS(result, errno_value)                                                        \
  do {                                                                                           \
    const auto& failed = (result);                                                               \
    EXPECT_EQ(failed.error().code(), (errno_value)) << #result ": " << failed.error().message(); \
  } while (false)

}  // namespace extmem::shared::test
