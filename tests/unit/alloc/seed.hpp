// The seed of the random tests: printed when a test fails, replayed with EXTMEM_SEED.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <random>
#include <string>

namespace extmem::alloc {

using Random = std::mt19937_64;

/// The seed for one test: EXTMEM_SEED, else `usual`. A fixed one makes failures repeat; other seeds are for long runs.
inline std::uint64_t seed_for(std::uint64_t usual) {
  const char* given = std::getenv("EXTMEM_SEED");
  return given != nullptr ? std::strtoull(given, nullptr, 0) : usual;
}
inline std::string replay_hint(std::uint64_t seed) {
  return "replay with EXTMEM_SEED=" + std::to_string(seed);
}

/// A number in [0, n).
inline std::uint64_t below(Random& random, std::uint64_t n) {
  return std::uniform_int_distribution<std::uint64_t>(0, n - 1)(random);
}
/// True once in n calls, on average.
inline bool one_in(Random& random, std::uint64_t n) { return below(random, n) == 0; }

}  // namespace extmem::alloc
