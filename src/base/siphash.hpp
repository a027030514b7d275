// SipHash-2-4 of one word: a number that tells nothing of the key that it is made with.
// Source: Aumasson, Bernstein: "SipHash: a fast short-input PRF", 2012. Pure function; no OS, no allocation.
#pragma once

#include <bit>
#include <cstdint>
#include <initializer_list>

namespace extmem::base {

/// The hash of the eight bytes of `word` (its lowest first) under the key of two words.
constexpr std::uint64_t siphash(std::uint64_t key0, std::uint64_t key1, std::uint64_t word) noexcept {
  std::uint64_t a = 0x736f6d6570736575u ^ key0, b = 0x646f72616e646f6du ^ key1;
  std::uint64_t c = 0x6c7967656e657261u ^ key0, d = 0x7465646279746573u ^ key1;
  const auto rounds = [&](int count) {
    for (; count != 0; --count) {
      a += b, b = std::rotl(b, 13) ^ a, a = std::rotl(a, 32);
      c += d, d = std::rotl(d, 16) ^ c;
      a += d, d = std::rotl(d, 21) ^ a;
      c += b, b = std::rotl(b, 17) ^ c, c = std::rotl(c, 32);
    }
  };
  constexpr std::uint64_t kLength = std::uint64_t{sizeof word} << 56;
  for (const std::uint64_t part : {word, kLength}) {
    d ^= part;
    rounds(2);
    a ^= part;
  }
  c ^= 0xff;
  rounds(4);
  return a ^ b ^ c ^ d;
}

}  // namespace extmem::base
