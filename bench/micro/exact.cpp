// Exact heaps beside binned ones and DPDK's rte_malloc: pairs of one size, and churn, by one thread and by two.
//
//   cmake --preset release && cmake --build --preset release && g++ -std=c++20 -O2 -Iinclude bench/micro/exact.cpp
//       $(pkg-config --cflags --libs libdpdk) -DWITH_DPDK -Lbuild/release/lib -lextmem -Wl,-rpath,$PWD/build/release/lib
//       -o /tmp/exact && /tmp/exact
//
// Without -DWITH_DPDK (and pkg-config) it leaves rte_malloc out. Nanoseconds of one allocation and one free, as one thread
// sees it: median of interleaved rounds (one of each in turn, so that a slow moment of the machine hits all alike), ± half
// the interquartile range. Where two threads work at once on one heap, the mean of both.
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#ifdef WITH_DPDK
#include <rte_eal.h>
#include <rte_malloc.h>
#endif

#include "extmem/extmem.hpp"

using namespace extmem;
using Clock = std::chrono::steady_clock;

namespace {

constexpr int kRounds = 21;
constexpr auto kSlice = std::chrono::milliseconds(20);

void bind_to(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<unsigned>(cpu) % static_cast<unsigned>(sysconf(_SC_NPROCESSORS_ONLN)), &set);
  (void)sched_setaffinity(0, sizeof set, &set);
}

/// Runs step(n) until the slice is over: nanoseconds of each of the operations that it does.
template <typename Step>
double timed(Step&& step) {
  std::uint64_t n = 0;
  const auto start = Clock::now();
  do {
    for (int i = 0; i < 500; ++i) step(n++);
  } while (Clock::now() - start < kSlice);
  return std::chrono::duration<double, std::nano>(Clock::now() - start).count() / static_cast<double>(n);
}

template <typename Alloc, typename Free>
double pairs(std::size_t size, Alloc&& alloc, Free&& release) {
  return timed([&](std::uint64_t) {
    void* p = alloc(size);
    *static_cast<volatile char*>(p) = 1;
    release(p);
  });
}

/// Replaces one of 10,000 objects, by chance, by another of 16 bytes to 8 KiB.
template <typename Alloc, typename Free>
double churn(std::uint64_t seed, Alloc&& alloc, Free&& release) {
  constexpr std::size_t kObjects = 10'000;
  std::mt19937_64 random(seed);
  std::vector<std::size_t> sizes(65'536);
  for (auto& size : sizes) size = 16 + random() % (8192 - 16);
  std::vector<void*> held(kObjects);
  for (auto& p : held) p = alloc(sizes[random() % sizes.size()]);
  std::uint64_t x = seed | 1;
  const double ns = timed([&](std::uint64_t n) {
    x = x * 6364136223846793005u + 1442695040888963407u;
    void*& p = held[(x >> 33) % kObjects];
    release(p);
    p = alloc(sizes[n % sizes.size()]);
    *static_cast<volatile char*>(p) = 1;
  });
  for (void* p : held) release(p);
  return ns;
}

struct Subject {
  const char* name;
  std::function<double(std::size_t size, int thread)> run;  // size 0: churn
};

template <typename Alloc, typename Free>
Subject subject(const char* name, Alloc alloc, Free release) {
  return Subject{name, [=](std::size_t size, int thread) {
                   Alloc a = alloc;  // each thread its own
                   Free f = release;
                   return size != 0 ? pairs(size, a, f) : churn(static_cast<std::uint64_t>(thread) + 7, a, f);
                 }};
}

Subject heap_subject(const char* name, Heap heap) {
  return subject(
      name,
      [heap](std::size_t size) mutable -> void* {
        auto p = heap.allocate(size);
        if (!p) std::abort();
        return *p;
      },
      [heap](void* p) mutable {
        if (!heap.deallocate(p)) std::abort();
      });
}

double on_threads(Subject& subject, std::size_t size, int threads) {
  if (threads == 1) {
    bind_to(0);
    return subject.run(size, 0);
  }
  std::vector<double> ns(static_cast<std::size_t>(threads));
  std::vector<std::thread> all;
  for (int t = 0; t < threads; ++t) {
    all.emplace_back([&, t] {
      bind_to(t);
      ns[static_cast<std::size_t>(t)] = subject.run(size, t);
    });
  }
  for (std::thread& thread : all) thread.join();
  double sum = 0;
  for (const double one : ns) sum += one;
  return sum / threads;
}

}  // namespace

int main() {
  auto domain = Domain::create();
  if (!domain) return 1;
  BackingSpec spec;
  spec.length = 512u << 20;
  spec.prefault = true;
  HeapOptions exact;
  exact.style = Style::exact;
  Heap heaps[] = {*domain->create_heap("exact", exact), *domain->create_heap("binned")};
  std::vector<Subject> subjects{heap_subject("exact", heaps[0]), heap_subject("binned", heaps[1])};
  for (Heap& heap : heaps) {
    if (!domain->add_backing(heap, spec)) return 1;
  }
#ifdef WITH_DPDK
  const char* args[] = {"exact",
                        "--no-huge",
                        "--no-shconf",
                        "--no-pci",
                        "--no-telemetry",
                        "--iova-mode=va",
                        "--log-level=critical",
                        "-m",
                        "512",
                        "-l",
                        "0"};
  if (rte_eal_init(static_cast<int>(std::size(args)), const_cast<char**>(args)) < 0) return 1;
  const auto release = [](void* p) { rte_free(p); };
  subjects.push_back(subject(
      "rte_malloc", [](std::size_t size) { return rte_malloc(nullptr, size, 0); }, release));
#endif
  std::printf("%-22s %4s", "workload", "thr");
  for (const Subject& subject : subjects) std::printf(" %18s", subject.name);
  std::printf("\n");
  for (const std::size_t size : {64u, 256u, 1024u, 2048u, 4096u, 0u}) {
    for (const int threads : {1, 2}) {
      std::vector<std::vector<double>> samples(subjects.size());
      for (int round = 0; round <= kRounds; ++round) {
        for (std::size_t i = 0; i < subjects.size(); ++i) {
          const double ns = on_threads(subjects[i], size, threads);
          if (round != 0) samples[i].push_back(ns);  // the first one warms up
        }
      }
      std::printf("%-22s %4d",
                  size == 0 ? "churn 16 B..8 KiB" : ("pair " + std::to_string(size) + " B").c_str(), threads);
      for (auto& sample : samples) {
        std::sort(sample.begin(), sample.end());
        std::printf(" %9.2f ns ±%3.0f%%", sample[kRounds / 2],
                    50 * (sample[kRounds * 3 / 4] - sample[kRounds / 4]) / sample[kRounds / 2]);
      }
      std::printf("\n");
      std::fflush(stdout);
    }
  }
}
