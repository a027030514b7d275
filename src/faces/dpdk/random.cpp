// Pseudo-random numbers: xoshiro256** (Blackman and Vigna, 2018), seeded through SplitMix64 (Steele, Lea and Flood, 2014).
#include <rte_lcore.h>
#include <rte_random.h>
#include <sys/random.h>

#include <array>
#include <atomic>
#include <bit>
#include <cstdint>

namespace {

// The seed, and how often there was a new one. Release on the number after the seed was stored, acquire before it is
// read; both are read again where rte_srand() came between.
std::atomic<std::uint64_t> seed{0};
std::atomic<std::uint64_t> seed_number{0};
// Threads that are no lcore get numbers above every lcore's id. Relaxed: only the number matters.
std::atomic<std::uint64_t> next_thread{RTE_MAX_LCORE};

struct Sequence {
  std::array<std::uint64_t, 4> state{};
  std::uint64_t seed_number = 0;  // 0: not begun
  std::uint64_t thread = 0;       // 0: no number yet
};
thread_local Sequence sequence{};

std::uint64_t split_mix(std::uint64_t& state) {
  state += 0x9e3779b97f4a7c15;
  std::uint64_t z = state;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
  z = (z ^ z >> 27) * 0x94d049bb133111eb;
  return z ^ z >> 31;
}

void begin(Sequence& s) {
  std::uint64_t number = seed_number.load(std::memory_order_acquire);
  if (number == 0) {
    std::uint64_t random = 0;
    if (::getrandom(&random, sizeof(random), 0) != sizeof(random)) random = rte_get_main_lcore() + 1;
    // Of two threads that come first, one seeds.
    std::uint64_t none = 0;
    seed.compare_exchange_strong(none, random, std::memory_order_relaxed);
    seed_number.compare_exchange_strong(number, 1, std::memory_order_acq_rel);
    number = seed_number.load(std::memory_order_acquire);
  }
  std::uint64_t thread = rte_lcore_id();
  if (thread == LCORE_ID_ANY) {
    if (s.thread == 0) s.thread = next_thread.fetch_add(1, std::memory_order_relaxed);
    thread = s.thread;
  }
  std::uint64_t mix = seed.load(std::memory_order_relaxed);
  std::uint64_t state = split_mix(mix) + thread;
  for (std::uint64_t& word : s.state) word = split_mix(state);
  s.seed_number = number;
}

std::uint64_t next() {
  Sequence& s = sequence;
  // Acquire: a new seed is read together with its number.
  if (s.seed_number == 0 || s.seed_number != seed_number.load(std::memory_order_acquire)) begin(s);
  auto& x = s.state;
  const std::uint64_t result = std::rotl(x[1] * 5, 7) * 9;
  const std::uint64_t t = x[1] << 17;
  x[2] ^= x[0];
  x[3] ^= x[1];
  x[1] ^= x[2];
  x[0] ^= x[3];
  x[2] ^= t;
  x[3] = std::rotl(x[3], 45);
  return result;
}

}  // namespace

extern "C" {

void rte_srand(uint64_t seedval) {
  seed.store(seedval, std::memory_order_relaxed);
  seed_number.fetch_add(1, std::memory_order_acq_rel);
}

uint64_t rte_rand(void) { return next(); }

uint64_t rte_rand_max(uint64_t upper_bound) {
  if (upper_bound < 2) return 0;
  // As many bits as the bound needs; again where they exceed it, which is less often than not.
  const uint64_t mask = UINT64_MAX >> std::countl_zero(upper_bound - 1);
  uint64_t number = 0;
  do {
    number = next() & mask;
  } while (number >= upper_bound);
  return number;
}

double rte_drand(void) { return static_cast<double>(next() >> 11) * 0x1p-53; }

}  // extern "C"
