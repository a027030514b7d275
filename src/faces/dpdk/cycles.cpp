// How fast the cycle counter counts, and waiting.
#include <rte_cycles.h>
#include <rte_pause.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <ctime>

namespace {

constexpr std::uint64_t kMeasureNs = 20'000'000;

std::uint64_t now_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC_RAW, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * NS_PER_S + static_cast<std::uint64_t>(now.tv_nsec);
}

// Both clocks at one instant: of several readings the one between whose two looks at the counter least passed.
struct Instant {
  std::uint64_t cycles = 0;
  std::uint64_t ns = 0;
};
Instant read_both() {
  Instant best{};
  std::uint64_t least = UINT64_MAX;
  for (int i = 0; i < 16; ++i) {
    const std::uint64_t before = rte_rdtsc_precise();
    const std::uint64_t ns = now_ns();
    const std::uint64_t after = rte_rdtsc_precise();
    if (after - before < least) {
      least = after - before;
      best = {before + least / 2, ns};
    }
  }
  return best;
}

// What the processor itself says, or 0.
std::uint64_t told_hz() {
#if defined(__x86_64__)
  unsigned denominator = 0;
  unsigned numerator = 0;
  unsigned crystal_hz = 0;
  unsigned unused = 0;
  if (__get_cpuid_max(0, nullptr) >= 0x15 &&
      __get_cpuid(0x15, &denominator, &numerator, &crystal_hz, &unused) != 0 && denominator != 0 &&
      numerator != 0 && crystal_hz != 0) {
    return std::uint64_t{crystal_hz} * numerator / denominator;
  }
  return 0;
#elif defined(__aarch64__)
  std::uint64_t hz = 0;
  __asm__ volatile("mrs %0, cntfrq_el0" : "=r"(hz));
  return hz;
#else
  return NS_PER_S;
#endif
}

std::uint64_t measured_hz() {
  const Instant start = read_both();
  timespec rest{};
  rest.tv_nsec = kMeasureNs;
  while (::nanosleep(&rest, &rest) != 0 && errno == EINTR) {
  }
  const Instant end = read_both();
  return static_cast<std::uint64_t>(static_cast<double>(end.cycles - start.cycles) * NS_PER_S /
                                    static_cast<double>(end.ns - start.ns));
}

}  // namespace

extern "C" {

enum timer_source eal_timer_source = EAL_TIMER_TSC;
void (*rte_delay_us)(unsigned int us) = rte_delay_us_block;

uint64_t rte_get_tsc_hz(void) {
  static const uint64_t hz = [] {
    const uint64_t told = told_hz();
    return told != 0 ? told : measured_hz();
  }();
  return hz;
}

void rte_delay_us_block(unsigned int us) {
  const uint64_t start = now_ns();
  const uint64_t wait = uint64_t{us} * 1000;
  while (now_ns() - start < wait) rte_pause();
}

void rte_delay_us_sleep(unsigned int us) {
  timespec rest{};
  rest.tv_sec = static_cast<time_t>(us / US_PER_S);
  rest.tv_nsec = static_cast<long>(us % US_PER_S) * 1000;
  while (::nanosleep(&rest, &rest) != 0 && errno == EINTR) {
  }
}

void rte_delay_us_callback_register(void (*userfunc)(unsigned int)) {
  rte_delay_us = userfunc != nullptr ? userfunc : rte_delay_us_block;
}

}  // extern "C"
