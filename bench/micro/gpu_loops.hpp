// The loops of gpu.cpp and gpu_torch.cpp: objects of one size allocated and freed by several threads, 16 at once.
//
// An allocator is a struct, one for each thread: get(p, size) allocates, free(live) frees 16, settle() ends a round.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "extmem/cuda.hpp"
#include "extmem/extmem.hpp"

namespace gpu_bench {

using extmem::Heap;
using extmem::cuda::Gpu;

inline constexpr std::size_t kLive = 16;
inline constexpr int kRounds = 7;
inline constexpr std::size_t kKiB = 1024, kMiB = 1024 * kKiB;

using Clock = std::chrono::steady_clock;
inline double ns_since(Clock::time_point begun) {
  return std::chrono::duration<double, std::nano>(Clock::now() - begun).count();
}
inline void must(bool good, const char* what) {
  if (good) return;
  std::fprintf(stderr, "gpu: %s failed, CUDA's status %d\n", what, extmem::cuda::last_status());
  std::exit(1);
}

using Live = std::array<void*, kLive>;
struct Extmem {
  Heap heap;
  bool get(void*& p, std::size_t size) {
    p = heap.allocate(size).value_or(nullptr);
    return p != nullptr;
  }
  void free(const Live& live) {
    for (void* const p : live) (void)heap.deallocate(p);
  }
  void settle() {}
};
/// Nanoseconds of `batches` batches.
template <typename Allocator>
double batches(Allocator& allocator, std::size_t size, int count) {
  Live live;
  const auto begun = Clock::now();
  for (int i = 0; i < count; ++i) {
    for (void*& p : live) must(allocator.get(p, size), "an allocation");
    allocator.free(live);
  }
  allocator.settle();
  return ns_since(begun);
}

/// Nanoseconds a pair.
template <typename Make>
double measure(const Gpu& gpu, const Make& make, std::size_t size, unsigned threads) {
  std::atomic<unsigned> ready{0}, done{0};
  std::atomic<int> go{0};
  std::atomic<int> count{0};
  std::vector<std::thread> all;
  for (unsigned t = 0; t < threads; ++t) {
    all.emplace_back([&] {
      const Gpu::Current current(gpu);
      auto allocator = make();
      (void)batches(allocator, size, 1);
      const double once = std::max(1.0, batches(allocator, size, 1));
      int unset = 0;  // the first thread says how many batches are about 10 ms
      (void)count.compare_exchange_strong(unset, std::max(1, static_cast<int>(10e6 / once / threads)));
      for (int round = 1; round <= kRounds; ++round) {
        ++ready;
        while (go.load() != round) std::this_thread::yield();
        (void)batches(allocator, size, count);
        ++done;
      }
    });
  }
  double best = 1e300;
  for (int round = 1; round <= kRounds; ++round) {
    while (ready != threads * static_cast<unsigned>(round)) std::this_thread::yield();
    const auto begun = Clock::now();
    go = round;
    while (done != threads * static_cast<unsigned>(round)) std::this_thread::yield();
    best = std::min(best, ns_since(begun) / (1.0 * threads * kLive * count));
  }
  for (std::thread& thread : all) thread.join();
  return best;
}

}  // namespace gpu_bench
