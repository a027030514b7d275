// Workloads that any allocator can do: pairs, churn, batches, growth, fragmented memory, producer and
// consumer.
//
// What it is: bodies for serve_bodies. One operation is one allocation and one deallocation, except in
// Growth (one reallocation). Whatever is allocated is touched: eight bytes at its start are written, as
// an application would. The arrays of live pointers are mapped directly, never allocated.
// Thread-safety: a body belongs to one thread.
#pragma once

#include <bit>

#include "harness.hpp"

namespace bench {

inline constexpr std::size_t kMinSize = 16;
inline constexpr std::size_t kBatch = 4096;
inline constexpr std::size_t kFragmentedFill = 256 * kMiB;
inline constexpr std::size_t kFragmentMean = 68 * 1024;

inline void* touched(void* p) {
  if (p == nullptr) fail("out of memory");
  *static_cast<volatile std::uint64_t*>(p) = 1;
  escape(p);
  return p;
}

/// Other objects of the same size that live meanwhile: enough that a pair does not empty and refill what
/// its allocator keeps per size (a slab, a page), as in any program that uses that size.
inline constexpr std::size_t kCompanions = 64;
inline constexpr std::size_t kCompanionBytes = 8 * kMiB;

/// Allocate, touch, free at once. With Zero: zeroed memory, by the allocator's own means.
template <class A, bool Zero = false>
class Pair {
 public:
  Pair(std::size_t size, std::size_t companions) : size_(size), companions_(companions) {
    for (std::size_t i = 0; i < companions_; ++i) live_[i] = touched(A::allocate(size_));
  }
  ~Pair() {
    for (std::size_t i = 0; i < companions_; ++i) A::deallocate(live_[i]);
  }
  Pair(const Pair&) = delete;
  Pair& operator=(const Pair&) = delete;
  static std::size_t companions_for(std::size_t size) {
    return std::min(kCompanions, kCompanionBytes / size);
  }
  std::uint64_t run(std::uint64_t n) {
    for (std::uint64_t i = 0; i < n; ++i) {
      void* p = touched(Zero ? A::zallocate(size_) : A::allocate(size_));
      A::deallocate(p);
    }
    return n;
  }

 private:
  std::size_t size_;
  std::size_t companions_;
  void* live_[kCompanions] = {};
};

/// A set of live objects of random sizes in [16, max]; an operation replaces a random one by another.
template <class A>
class Churn {
 public:
  Churn(std::size_t max, std::size_t live, unsigned seed)
      : range_(max - kMinSize + 1), rng_(seed + 1), live_(map_array<void*>(live)) {
    for (void*& p : live_) p = touched(A::allocate(random_size()));
  }
  ~Churn() {
    for (void* p : live_) A::deallocate(p);
  }
  Churn(const Churn&) = delete;
  Churn& operator=(const Churn&) = delete;
  /// Replaces every object ten times, as far as the time allows: the order of the first fill is gone by
  /// then.
  void warm(std::uint64_t limit_ns) {
    const std::uint64_t end = now_ns() + limit_ns;
    for (std::uint64_t n = 0; n < 10 * live_.size() && now_ns() < end; n += 1000) run(1000);
  }
  std::uint64_t run(std::uint64_t n) {
    for (std::uint64_t i = 0; i < n; ++i) {
      void*& slot = live_[rng_.below(live_.size())];
      A::deallocate(slot);
      slot = touched(A::allocate(random_size()));
    }
    return n;
  }

 private:
  std::size_t random_size() { return kMinSize + rng_.below(range_); }
  std::size_t range_;
  Rng rng_;
  std::span<void*> live_;
};

/// Allocates 4096 objects, then frees all of them in the same order.
template <class A>
class Batch {
 public:
  explicit Batch(std::size_t size) : size_(size), live_(map_array<void*>(kBatch)) {}
  std::uint64_t run(std::uint64_t n) {
    const std::uint64_t rounds = (n + kBatch - 1) / kBatch;
    for (std::uint64_t i = 0; i < rounds; ++i) {
      for (void*& p : live_) p = touched(A::allocate(size_));
      for (void* p : live_) A::deallocate(p);
    }
    return rounds * kBatch;
  }

 private:
  std::size_t size_;
  std::span<void*> live_;
};

/// Grows one object by half its size again and again, as a vector does, from 16 bytes to `size`; then
/// frees it. An operation is one reallocation (the first allocation and the free are spread over them).
template <class A>
class Growth {
 public:
  explicit Growth(std::size_t size) : size_(size) {}
  std::uint64_t run(std::uint64_t n) {
    std::uint64_t done = 0;
    while (done < n) {
      std::size_t now = kMinSize;
      void* p = touched(A::allocate(now));
      while (now < size_) {
        const std::size_t next = std::min(size_, now + now / 2);
        p = A::reallocate(p, now, next);
        if (p == nullptr) fail("out of memory");
        static_cast<volatile char*>(p)[now] = 1;  // the first new byte
        escape(p);
        now = next;
        ++done;
      }
      A::deallocate(p);
    }
    return done;
  }

 private:
  std::size_t size_;
};

/// Fills 256 MiB with objects of 34 to 102 KiB and frees a random half of them; the rest stays while this lives.
/// So large, because objects that share a slab leave holes that only their own size can use.
template <class A>
class Fragments {
 public:
  Fragments() : live_(map_array<void*>(kFragmentedFill / kFragmentMean)) {
    Rng rng(7);
    std::size_t n = 0;
    for (void*& p : live_) {
      p = A::allocate(kFragmentMean / 2 + rng.below(kFragmentMean));
      if (p == nullptr) break;
      touched(p);
      ++n;
    }
    if (n < live_.size() / 2) fail("could not fill half of the memory");
    for (void*& p : live_.first(n)) {
      if (rng.below(2) == 0) A::deallocate(std::exchange(p, nullptr));
    }
  }
  ~Fragments() {
    for (void* p : live_) {
      if (p != nullptr) A::deallocate(p);
    }
  }
  Fragments(const Fragments&) = delete;
  Fragments& operator=(const Fragments&) = delete;

 private:
  std::span<void*> live_;
};

/// Pairs of a larger size in the holes of a fragmented heap; with Contiguous: of one IOVA run each.
template <class A, bool Contiguous = false>
class FragmentedPair {
 public:
  explicit FragmentedPair(std::size_t size) : size_(size) {}
  std::uint64_t run(std::uint64_t n) {
    for (std::uint64_t i = 0; i < n; ++i) {
      if constexpr (Contiguous) {
        void* handle = A::contiguous_allocate(size_);
        if (handle == nullptr) fail("no IOVA-contiguous memory found");
        escape(handle);
        A::contiguous_deallocate(handle);
      } else {
        void* p = touched(A::allocate(size_));
        A::deallocate(p);
      }
    }
    return n;
  }

 private:
  std::size_t size_;
  Fragments<A> fragments_;
};

/// One producer allocates, one consumer frees: every free is of another thread's object. They share a
/// ring of 1024 pointers, published sixteen at a time so that the ring costs little.
class Ring {
 public:
  static constexpr std::uint64_t kSlots = 1024;
  static constexpr std::uint64_t kStep = 16;

  template <class A>
  void produce(std::size_t size, std::uint64_t n) {
    std::uint64_t at = head_.load(std::memory_order_relaxed);
    for (const std::uint64_t end = at + n; at < end; at += kStep) {
      while (at + kStep - tail_.load(std::memory_order_acquire) > kSlots) relax_cpu();
      for (std::uint64_t i = 0; i < kStep; ++i) slots_[(at + i) % kSlots] = touched(A::allocate(size));
      head_.store(at + kStep, std::memory_order_release);
    }
  }
  template <class A>
  void consume(std::uint64_t n) {
    std::uint64_t at = tail_.load(std::memory_order_relaxed);
    for (const std::uint64_t end = at + n; at < end; at += kStep) {
      while (head_.load(std::memory_order_acquire) < at + kStep) relax_cpu();
      for (std::uint64_t i = 0; i < kStep; ++i) A::deallocate(slots_[(at + i) % kSlots]);
      tail_.store(at + kStep, std::memory_order_release);
    }
  }

 private:
  alignas(128) std::atomic<std::uint64_t> head_{0};
  alignas(128) std::atomic<std::uint64_t> tail_{0};
  alignas(128) void* slots_[kSlots] = {};
};

/// Serves the producer/consumer workload: ns per object from the start to the last free.
template <class A>
void serve_producer_consumer(const Options& options, const std::vector<int>& cpus) {
  Crew<A> crew(2, cpus);
  auto* ring = new (map_memory(64 * 1024, true)) Ring;
  const auto pass = [&](std::uint64_t n) {
    std::uint64_t start[2] = {};
    std::uint64_t end[2] = {};
    bool undisturbed[2] = {};
    crew.run([&](unsigned i) {
      const Watch watch;
      start[i] = now_ns();
      if (i == 0) {
        ring->template produce<A>(options.size, n);
      } else {
        ring->template consume<A>(n);
      }
      end[i] = now_ns();
      undisturbed[i] = watch.undisturbed();
    });
    const std::uint64_t ns = std::max(end[0], end[1]) - std::min(start[0], start[1]);
    return Timing{static_cast<double>(ns), static_cast<double>(n), undisturbed[0] && undisturbed[1]};
  };
  std::uint64_t n = Ring::kStep;
  while (pass(n).ns < static_cast<double>(kSliceNs)) n *= 2;
  serve([&] {
    pass(n);
    Slices slices(options.sample_ns);
    while (!slices.enough()) {
      const Timing t = pass(n);
      slices.add(t.undisturbed, t.ns, t.ops, {t.ns});
    }
    return Sample{{{"time", slices.mean()}}, slices.quality()};
  });
}

/// How much resident memory `count` live objects of `size` bytes cost beyond their bytes, all of them
/// written.
template <class A>
void serve_memory(const Options& options, const std::vector<int>& cpus) {
  Crew<A> crew(1, cpus);
  const auto live = map_array<void*>(options.count);
  serve([&] {
    [[maybe_unused]] std::size_t used = 0;
    [[maybe_unused]] std::size_t metadata = 0;
    if constexpr (HasUsage<A>) used = A::used_bytes();
    if constexpr (HasMetadata<A>) metadata = A::metadata_bytes();
    const std::size_t resident = resident_bytes();
    for (void*& p : live) std::memset(touched(p = A::allocate(options.size)), 1, options.size);
    const double bytes = static_cast<double>(options.size * options.count);
    std::vector<Result> results{
        {"resident", (static_cast<double>(resident_bytes()) - static_cast<double>(resident)) / bytes - 1}};
    if constexpr (HasMetadata<A>) {
      results.push_back({"metadata", static_cast<double>(A::metadata_bytes()) / bytes});
      results.push_back({"metadata_growth", static_cast<double>(A::metadata_bytes() - metadata) / bytes});
    }
    if constexpr (HasUsage<A>) {
      results.push_back({"in_memory", static_cast<double>(A::used_bytes() - used) / bytes - 1});
    }
    for (void* p : live) A::deallocate(p);
    return Sample{std::move(results)};
  });
}

}  // namespace bench
