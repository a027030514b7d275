// What the stress tests share: threads that run for a while, objects with content, one place for the first failure.
//
//   EXTMEM_STRESS_SECONDS   how long each test runs; the default is short
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "extmem/extmem.hpp"

namespace extmem::stress {

using Random = std::mt19937_64;
inline std::uint64_t below(Random& random, std::uint64_t n) {
  return std::uniform_int_distribution<std::uint64_t>(0, n - 1)(random);
}
inline bool one_in(Random& random, std::uint64_t n) { return below(random, n) == 0; }

inline constexpr std::uint64_t kKiB = 1024;
inline constexpr std::uint64_t kMiB = 1024 * kKiB;

/// A run of several threads for a limited time.
class Stress {
 public:
  Stress() {
    const char* const seconds = std::getenv("EXTMEM_STRESS_SECONDS");
    length_ =
        std::chrono::milliseconds(seconds != nullptr ? std::strtoll(seconds, nullptr, 10) * 1000 : 1500);
  }
  /// Runs each body on a thread of its own until the time is over and all have returned. On a loaded machine longer, until
  /// `enough` (which any of the threads may ask) has happened; the test fails where that does not come.
  template <typename... Bodies>
  void run_until(const std::function<bool()>& enough, Bodies&&... bodies) {
    enough_ = enough;
    end_ = std::chrono::steady_clock::now() + length_;
    std::array threads{std::thread([&] { bodies(); })...};
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(first_failure_, "");
    EXPECT_TRUE(enough() || failed_) << "not in " << kPatience.count() << " s";
  }
  template <typename... Bodies>
  void run(Bodies&&... bodies) {
    run_until([] { return true; }, bodies...);
  }
  [[nodiscard]] bool going() const {
    if (failed_) return false;
    const auto now = std::chrono::steady_clock::now();
    return now < end_ || (now < end_ + kPatience && !enough_());
  }

  /// Notes a failure unless `good`; all threads then stop. Returns `good`.
  bool check(bool good, const std::string& what) {
    if (!good) {
      const std::lock_guard lock(mutex_);
      if (!failed_.exchange(true)) first_failure_ = what;
    }
    return good;
  }
  template <typename T>
  bool check(const Result<T>& result, const std::string& what) {
    return result.ok() || check(false, what + ": " + result.error().message());
  }
  /// The heap, or the domain, verifies; and its bytes add up.
  void check_heap(Heap heap) {
    std::string text;
    const auto breaches = heap.verify([&](const Breach& breach) {
      text += std::string(breach.what) + " at " + std::to_string(breach.where) + ": " +
              std::to_string(breach.expected) + " expected, " + std::to_string(breach.found) + " found\n";
    });
    check(breaches, "verify");
    check(breaches.value_or(1) == 0, text);
    const auto stats = heap.stats();
    if (!check(stats, "stats")) return;
    check(stats->total_bytes ==
              stats->used_bytes + stats->free_bytes + stats->cached_bytes + stats->slab_free_bytes,
          "the bytes do not add up");
  }
  /// Nothing is held any more, and flushing gives every byte back.
  void check_empty(Heap heap) {
    check(heap.flush(), "flush");
    check_heap(heap);
    const auto stats = heap.stats();
    if (!check(stats, "stats")) return;
    check(stats->used_count == 0 && stats->used_bytes == 0, "objects are left");
    check(stats->cached_bytes == 0 && stats->slabs == 0 && stats->free_bytes == stats->total_bytes,
          "memory is left");
  }

 private:
  static constexpr std::chrono::seconds kPatience{100};
  std::chrono::milliseconds length_{};
  std::function<bool()> enough_;
  std::chrono::steady_clock::time_point end_;
  std::atomic<bool> failed_{false};
  std::mutex mutex_;
  std::string first_failure_;
};

/// Address space with memory behind it.
class Arena {
 public:
  explicit Arena(std::uint64_t bytes)
      : bytes_(bytes),
        base_(::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                     0)) {
    if (base_ == MAP_FAILED) std::abort();
  }
  Arena(const Arena&) = delete;
  ~Arena() { ::munmap(base_, bytes_); }
  [[nodiscard]] std::byte* at(std::uint64_t offset) const { return static_cast<std::byte*>(base_) + offset; }
  [[nodiscard]] RegionSpec spec(std::uint64_t offset, std::uint64_t length) const {
    RegionSpec spec;
    spec.base = at(offset);
    spec.length = length;
    return spec;
  }
  /// Makes a part untouchable, as if it were unmapped; or usable again.
  void protect(std::uint64_t offset, std::uint64_t length, bool usable) const {
    if (::mprotect(at(offset), length, usable ? PROT_READ | PROT_WRITE : PROT_NONE) != 0) std::abort();
  }

 private:
  std::uint64_t bytes_;
  void* base_;
};

/// An object that was filled when it was allocated, and is looked at before it is freed.
struct Held {
  unsigned char* at = nullptr;
  std::uint64_t size = 0;
  std::uint64_t seed = 0;

  [[nodiscard]] unsigned char content(std::uint64_t i) const {
    return static_cast<unsigned char>((seed + i * 0x9e3779b97f4a7c15u) >> 56);
  }
  /// Calls fn(i) for bytes at both ends.
  template <typename Fn>
  void for_each_sample(std::uint64_t size_now, Fn&& fn) const {
    for (std::uint64_t i = 0; i < size_now; i = i == 63 && size_now > 128 ? size_now - 64 : i + 1) fn(i);
  }
  void fill() {
    for_each_sample(size, [&](std::uint64_t i) { at[i] = content(i); });
  }
  [[nodiscard]] bool intact() const {
    bool good = true;
    for_each_sample(size, [&](std::uint64_t i) { good &= at[i] == content(i); });
    return good;
  }
};

inline std::uint64_t random_size(Random& random) {
  const std::uint64_t dice = below(random, 100);
  return 1 + below(random, dice == 0 ? 200 * kKiB : dice < 10 ? 20 * kKiB : 600);
}

/// One thread's random work on a heap: allocates, resizes, frees, and gives objects to other threads by `places`.
class Worker {
 public:
  using Places = std::vector<std::atomic<Held*>>;

  Worker(Stress& stress, Heap heap, std::uint64_t seed, Places* places = nullptr, std::vector<Tag> tags = {})
      : stress_(stress), heap_(heap), random_(seed), places_(places), tags_(std::move(tags)) {}
  Worker(const Worker&) = delete;
  ~Worker() { free_all(); }

  void step(std::size_t most_held = 400) {
    const std::uint64_t dice = below(random_, 100);
    if (held_.empty() || (dice < 52 && held_.size() < most_held)) {
      allocate();
    } else if (dice < 60) {
      reallocate(pick());
    } else if (dice < 75 && places_ != nullptr) {
      give();
    } else {
      free_last(pick());
    }
  }
  void free_all() {
    while (!held_.empty()) free_last(held_.size() - 1);
  }
  [[nodiscard]] std::uint64_t served() const { return served_; }
  Random& random() { return random_; }

  void free(const Held& object) {
    stress_.check(object.intact(), "the content of an object changed");
    stress_.check(heap_.deallocate(object.at), "deallocate");
  }

 private:
  [[nodiscard]] std::size_t pick() { return below(random_, held_.size()); }
  void allocate() {
    AllocOptions options;
    if (!tags_.empty() && one_in(random_, 2)) options.tag = tags_[below(random_, tags_.size())];
    if (one_in(random_, 10)) options.align = std::uint64_t{16} << below(random_, 9);
    Held object;
    object.size = random_size(random_);
    const auto got = one_in(random_, 2) ? heap_.allocate(object.size) : heap_.allocate(object.size, options);
    if (!got.ok()) {
      stress_.check(got.error().code() == ENOMEM, std::string("allocate: ") + got.error().message());
      return;
    }
    ++served_;
    object.at = static_cast<unsigned char*>(*got);
    object.seed = random_();
    object.fill();
    held_.push_back(object);
  }
  void reallocate(std::size_t which) {
    Held& object = held_[which];
    Held wanted = object;
    wanted.size = random_size(random_);
    const auto got = heap_.reallocate(object.at, wanted.size);
    if (!got.ok()) {
      stress_.check(got.error().code() == ENOMEM, std::string("reallocate: ") + got.error().message());
      return;
    }
    wanted.at = static_cast<unsigned char*>(*got);
    bool good = true;
    object.for_each_sample(
        object.size, [&](std::uint64_t i) { good &= i >= wanted.size || wanted.at[i] == object.content(i); });
    stress_.check(good, "reallocate lost content");
    object = wanted;
    object.fill();
  }
  void give() {
    Held* const given = new Held(take(pick()));
    Held* const taken =
        (*places_)[below(random_, places_->size())].exchange(given, std::memory_order_acq_rel);
    if (taken == nullptr) return;
    free(*taken);
    delete taken;
  }
  Held take(std::size_t which) {
    std::swap(held_[which], held_.back());
    const Held object = held_.back();
    held_.pop_back();
    return object;
  }
  void free_last(std::size_t which) { free(take(which)); }

  Stress& stress_;
  Heap heap_;
  Random random_;
  Places* places_;
  std::vector<Tag> tags_;
  std::vector<Held> held_;
  std::uint64_t served_ = 0;
};

inline void free_places(Stress& stress, Heap heap, Worker::Places& places) {
  Worker worker(stress, heap, 0);
  for (auto& place : places) {
    if (Held* const left = place.exchange(nullptr); left != nullptr) {
      worker.free(*left);
      delete left;
    }
  }
}

}  // namespace extmem::stress
