// What the searches and marks of fbarrays take: one source, a program on DPDK and one on extmem's DPDK interface.
//
//   cmake --preset bench && cmake --build --preset bench --target fbarray_dpdk fbarray_extmem
//   for i in 1 2 3; do for p in dpdk extmem; do build/bench/bench/fbarray_$p --no-huge --no-pci --no-telemetry -m 64; done; done
//
// Nanoseconds of one call on an array of 2^20 elements: the best of kSamples samples, each long enough to be timed. What is
// shared has a file; with --no-shconf nothing is shared.
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_fbarray.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>

namespace {

constexpr unsigned kLength = 1u << 20;
constexpr int kSamples = 50;
constexpr double kSampleNs = 200'000;

using Clock = std::chrono::steady_clock;

template <typename Call>
double best_ns(Call&& call) {
  std::uint64_t calls = 1;
  double best = 1e18;
  for (int sample = 0; sample < kSamples;) {
    const auto start = Clock::now();
    for (std::uint64_t i = 0; i < calls; ++i) call();
    const double ns = std::chrono::duration<double, std::nano>(Clock::now() - start).count();
    if (ns < kSampleNs && calls < (1u << 30)) {
      calls *= 2;  // too short to be timed
      continue;
    }
    best = std::min(best, ns / static_cast<double>(calls));
    if (++sample >= 5 && ns > 100 * kSampleNs) break;  // calls of many milliseconds: five samples do
  }
  return best;
}

volatile int sink;
void row(const char* what, double ns) { std::printf("%-64s %12.0f\n", what, ns); }

/// Marks every element, or frees every one, or marks runs of `used` with `gap` between them; those from `end` on stay free.
void fill(rte_fbarray& array, unsigned used, unsigned gap, unsigned end) {
  for (unsigned i = 0; i < kLength; ++i) {
    const bool mark = i < end && used != 0 && i % (used + gap) < used;
    (void)(mark ? rte_fbarray_set_used(&array, i) : rte_fbarray_set_free(&array, i));
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (rte_eal_init(argc, argv) < 0) {
    std::printf("rte_eal_init: %s\n", rte_strerror(rte_errno));
    return 1;
  }
  rte_fbarray array;
  if (rte_fbarray_init(&array, "bench", kLength, 8) != 0) {
    std::printf("rte_fbarray_init: %s\n", rte_strerror(rte_errno));
    return 1;
  }
#ifdef RTE_LIB_EXTMEM
  std::printf("extmem, nanoseconds a call\n");
#else
  std::printf("DPDK, nanoseconds a call\n");
#endif
  row("find_next_n_free(0, 512), nothing used",
      best_ns([&] { sink = rte_fbarray_find_next_n_free(&array, 0, 512); }));
  fill(array, 1, 1, kLength - 1024);
  row("the same, every second element used, room at the end",
      best_ns([&] { sink = rte_fbarray_find_next_n_free(&array, 0, 512); }));
  row("find_next_n_free(0, 32), the same",
      best_ns([&] { sink = rte_fbarray_find_next_n_free(&array, 0, 32); }));
  row("find_biggest_free(0), the same", best_ns([&] { sink = rte_fbarray_find_biggest_free(&array, 0); }));
  fill(array, 100, 100, kLength - 1024);
  row("find_next_n_free(0, 512), rows of 100 used and 100 free",
      best_ns([&] { sink = rte_fbarray_find_next_n_free(&array, 0, 512); }));
  row("find_biggest_free(0), the same", best_ns([&] { sink = rte_fbarray_find_biggest_free(&array, 0); }));
  fill(array, 1, 0, kLength - 600);
  row("find_next_n_free(0, 512), used up to the last 600",
      best_ns([&] { sink = rte_fbarray_find_next_n_free(&array, 0, 512); }));
  row("find_next_free(0), the same", best_ns([&] { sink = rte_fbarray_find_next_free(&array, 0); }));
  fill(array, 0, 1, 0);
  row("set_used and set_free of one element", best_ns([&] {
        sink = rte_fbarray_set_used(&array, 77);
        sink = rte_fbarray_set_free(&array, 77);
      }));
  (void)rte_fbarray_destroy(&array);
  (void)rte_eal_cleanup();
  return 0;
}
