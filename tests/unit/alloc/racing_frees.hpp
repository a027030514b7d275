// Objects that several threads free at once: each free succeeds exactly once, the others are told so.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace extmem::alloc {

class RacingFrees {
 public:
  explicit RacingFrees(std::size_t count) : objects(count), successes_(count) {}
  /// Before each race, when all objects are allocated.
  void begin() {
    for (auto& n : successes_) n = 0;
  }
  /// A free of one of the objects by a thread of the world.
  template <typename World>
  void free(World& world, std::uint32_t slot, std::size_t which) {
    const int code = world.free_code(slot, objects[which]);
    if (code == 0) {
      ++successes_[which];
    } else if (code != EALREADY) {
      ++other_codes_;
    }
  }
  /// After each race.
  void expect_each_once() const {
    for (const auto& n : successes_) EXPECT_EQ(n.load(), 1);
    EXPECT_EQ(other_codes_, 0) << "answers other than EALREADY";
  }

  std::vector<std::uint64_t> objects;

 private:
  std::vector<std::atomic<int>> successes_;
  std::atomic<int> other_codes_{0};
};

}  // namespace extmem::alloc
