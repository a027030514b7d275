// Memory that a test owns and lends to heaps.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstddef>
#include <cstring>
#include <utility>

namespace extmem::test {

inline constexpr std::size_t kKiB = 1024;
inline constexpr std::size_t kMiB = 1024 * kKiB;
inline constexpr std::size_t kOsPage = 4 * kKiB;

/// An anonymous mapping, unmapped at the end of the scope.
class Memory {
 public:
  Memory() = default;
  explicit Memory(std::size_t length, int protection = PROT_READ | PROT_WRITE, std::size_t align = kOsPage)
      : mapped_length_(length + align), length_(length) {
    mapped_ = ::mmap(nullptr, mapped_length_, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    EXPECT_NE(mapped_, MAP_FAILED);
    const auto address = reinterpret_cast<std::uintptr_t>(mapped_);
    base_ = static_cast<std::byte*>(mapped_) + ((align - address % align) % align);
  }
  Memory(Memory&& other) noexcept { swap(other); }
  Memory& operator=(Memory&& other) noexcept { return swap(other), *this; }
  ~Memory() {
    if (mapped_ != nullptr) ::munmap(mapped_, mapped_length_);
  }

  [[nodiscard]] std::byte* base() const { return base_; }
  [[nodiscard]] std::size_t length() const { return length_; }
  [[nodiscard]] bool contains(const void* p) const {
    return !std::less<>{}(p, static_cast<const void*>(base_)) &&
           std::less<>{}(p, static_cast<const void*>(base_ + length_));
  }

 private:
  void swap(Memory& other) {
    std::swap(mapped_, other.mapped_);
    std::swap(mapped_length_, other.mapped_length_);
    std::swap(base_, other.base_);
    std::swap(length_, other.length_);
  }
  void* mapped_ = nullptr;
  std::size_t mapped_length_ = 0;
  std::byte* base_ = nullptr;
  std::size_t length_ = 0;
};

/// Fills an object with a pattern of its own, and checks that nobody else has written to it.
inline void fill(void* p, std::size_t size, std::size_t seed) {
  std::memset(p, static_cast<int>(seed * 37 % 251 + 1), size);
}
[[nodiscard]] inline bool is_filled(const void* p, std::size_t size, std::size_t seed) {
  const auto* bytes = static_cast<const unsigned char*>(p);
  const auto expected = static_cast<unsigned char>(seed * 37 % 251 + 1);
  for (std::size_t i = 0; i < size; ++i) {
    if (bytes[i] != expected) return false;
  }
  return true;
}

}  // namespace extmem::test
