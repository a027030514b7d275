// What every search of rte_fbarray.h must answer, worked out one element at a time from a vector of bools.
//
// Uses nothing but the header, so that it compiles against DPDK as well (fbarray_reference.cpp).
#pragma once

#include <rte_errno.h>
#include <rte_fbarray.h>

#include <cstdint>
#include <functional>
#include <random>
#include <sstream>
#include <string>
#include <vector>

namespace fbarray_model {

using Bits = std::vector<bool>;

struct Answer {
  int value;
  int error;  // 0: any
  bool operator==(const Answer& other) const {
    return value == other.value && (value >= 0 || error == other.error);
  }
};

inline Answer none(bool used) { return {-1, used ? ENOENT : ENOSPC}; }

inline Answer next(const Bits& bits, std::int64_t start, bool used) {
  for (std::int64_t i = start; i < std::int64_t(bits.size()); ++i)
    if (bits[std::size_t(i)] == used) return {int(i), 0};
  return none(used);
}
inline Answer prev(const Bits& bits, std::int64_t start, bool used) {
  for (std::int64_t i = start; i >= 0; --i)
    if (bits[std::size_t(i)] == used) return {int(i), 0};
  return none(used);
}
inline Answer contig(const Bits& bits, std::int64_t start, bool used) {
  std::int64_t i = start;
  while (i < std::int64_t(bits.size()) && bits[std::size_t(i)] == used) ++i;
  return {int(i - start), 0};
}
inline Answer rev_contig(const Bits& bits, std::int64_t start, bool used) {
  std::int64_t i = start;
  while (i >= 0 && bits[std::size_t(i)] == used) --i;
  return {int(start - i), 0};
}
inline Answer next_n(const Bits& bits, std::int64_t start, std::int64_t n, bool used) {
  if (n == 0 || n > std::int64_t(bits.size())) return {-1, EINVAL};
  std::int64_t run = 0;
  for (std::int64_t i = start; i < std::int64_t(bits.size()); ++i) {
    run = bits[std::size_t(i)] == used ? run + 1 : 0;
    if (run == n) return {int(i - n + 1), 0};
  }
  return none(used);
}
inline Answer prev_n(const Bits& bits, std::int64_t start, std::int64_t n, bool used) {
  if (n == 0 || n > std::int64_t(bits.size())) return {-1, EINVAL};
  std::int64_t run = 0;
  for (std::int64_t i = start; i >= 0; --i) {
    run = bits[std::size_t(i)] == used ? run + 1 : 0;
    if (run == n) return {int(i), 0};
  }
  return none(used);
}
inline Answer biggest(const Bits& bits, std::int64_t start, bool used) {
  std::int64_t best = 0, at = -1;
  for (std::int64_t i = start; i < std::int64_t(bits.size());) {
    const std::int64_t length = contig(bits, i, used).value;
    if (length > best) {
      best = length;
      at = i;
    }
    i += length + 1;
  }
  return at < 0 ? none(used) : Answer{int(at), 0};
}
inline Answer rev_biggest(const Bits& bits, std::int64_t start, bool used) {
  std::int64_t best = 0, at = -1;
  for (std::int64_t i = start; i >= 0;) {
    const std::int64_t length = rev_contig(bits, i, used).value;
    if (length > best) {
      best = length;
      at = i - length + 1;
    }
    i -= length + 1;
  }
  return at < 0 ? none(used) : Answer{int(at), 0};
}

/// An answer that is not the model's.
struct Difference {
  std::string function;
  Answer got, expected;
  std::size_t len;
  unsigned start = 0, n = 0;

  [[nodiscard]] std::string text() const {
    std::ostringstream out;
    out << function << " len " << len << " start " << start << " n " << n << ": " << got.value
        << " (rte_errno " << got.error << "), expected " << expected.value << " (" << expected.error << ")";
    return out.str();
  }
};
using Report = std::function<void(const Difference&)>;

/// Compares the answers of every search at `start`, and for `n` where it takes one.
inline void compare(rte_fbarray* array, const Bits& bits, unsigned start, unsigned n, const Report& report) {
  const auto one = [&](const char* name, const Answer& expected, auto&& call) {
    rte_errno = 0;
    const int got = call();
    const Answer answer{got, rte_errno};
    if (answer == expected) return;
    report(Difference{name, answer, expected, bits.size(), start, n});
  };
  using Plain = int (*)(rte_fbarray*, unsigned);
  using WithN = int (*)(rte_fbarray*, unsigned, unsigned);
  const auto plain = [&](const char* name, const Answer& expected, Plain call) {
    one(name, expected, [&] { return call(array, start); });
  };
  const auto with_n = [&](const char* name, const Answer& expected, WithN call) {
    one(name, expected, [&] { return call(array, start, n); });
  };
  plain("find_next_free", next(bits, start, false), rte_fbarray_find_next_free);
  plain("find_next_used", next(bits, start, true), rte_fbarray_find_next_used);
  plain("find_prev_free", prev(bits, start, false), rte_fbarray_find_prev_free);
  plain("find_prev_used", prev(bits, start, true), rte_fbarray_find_prev_used);
  with_n("find_next_n_free", next_n(bits, start, n, false), rte_fbarray_find_next_n_free);
  with_n("find_next_n_used", next_n(bits, start, n, true), rte_fbarray_find_next_n_used);
  with_n("find_prev_n_free", prev_n(bits, start, n, false), rte_fbarray_find_prev_n_free);
  with_n("find_prev_n_used", prev_n(bits, start, n, true), rte_fbarray_find_prev_n_used);
  plain("find_contig_free", contig(bits, start, false), rte_fbarray_find_contig_free);
  plain("find_contig_used", contig(bits, start, true), rte_fbarray_find_contig_used);
  plain("find_rev_contig_free", rev_contig(bits, start, false), rte_fbarray_find_rev_contig_free);
  plain("find_rev_contig_used", rev_contig(bits, start, true), rte_fbarray_find_rev_contig_used);
  plain("find_biggest_free", biggest(bits, start, false), rte_fbarray_find_biggest_free);
  plain("find_biggest_used", biggest(bits, start, true), rte_fbarray_find_biggest_used);
  plain("find_rev_biggest_free", rev_biggest(bits, start, false), rte_fbarray_find_rev_biggest_free);
  plain("find_rev_biggest_used", rev_biggest(bits, start, true), rte_fbarray_find_rev_biggest_used);
}

/// Marks elements and compares, `rounds` times, with patterns and places that the seed chooses.
/// Requires: the array is all free.
inline void run(rte_fbarray* array, std::uint64_t seed, unsigned rounds, unsigned searches,
                const Report& report) {
  std::mt19937_64 random(seed);
  const unsigned len = array->len;
  Bits bits(len, false);
  const auto below = [&](std::uint64_t limit) { return unsigned(random() % limit); };
  // Places near the edges of words are where mistakes are.
  const auto place = [&] {
    if (below(2) == 0) return below(len);
    const std::int64_t edge = std::int64_t{64} * below(len / 64 + 1) + std::int64_t(below(3)) - 1;
    return unsigned(edge < 0 ? 0 : edge >= std::int64_t(len) ? len - 1 : edge);
  };
  for (unsigned round = 0; round < rounds; ++round) {
    const unsigned pattern = below(6);
    const unsigned bound = below(2) == 0 ? 4 : below(2) == 0 ? 70 : 300;
    if (pattern <= 1) {  // all of one kind, so that the next rounds start from there
      for (unsigned i = 0; i < len; ++i) bits[i] = pattern == 1;
    } else if (pattern == 2) {  // random rows
      for (unsigned i = 0; i < len;) {
        const bool used = below(2) == 0;
        for (unsigned end = i + 1 + below(bound); i < end && i < len; ++i) bits[i] = used;
      }
    } else {  // a few changes
      for (unsigned k = 1 + below(4); k > 0; --k) {
        const bool used = below(2) == 0;
        unsigned i = place();
        for (const unsigned end = i + 1 + below(bound); i < end && i < len; ++i) bits[i] = used;
      }
    }
    std::uint64_t count = 0;
    for (unsigned i = 0; i < len; ++i) {
      count += bits[i] ? 1u : 0u;
      if ((rte_fbarray_is_used(array, i) == 1) == bits[i]) continue;
      if ((bits[i] ? rte_fbarray_set_used : rte_fbarray_set_free)(array, i) != 0)
        report(Difference{bits[i] ? "set_used" : "set_free", {-1, rte_errno}, {0, 0}, len, i});
    }
    if (array->count != count) report(Difference{"count", {int(array->count), 0}, {int(count), 0}, len});
    for (unsigned k = 0; k < searches; ++k) {
      const unsigned n = below(8) == 0 ? 1 + below(len) : 1 + below(bound + 66);
      compare(array, bits, k == 0 ? 0 : k == 1 ? len - 1 : place(), below(64) == 0 ? 0 : n, report);
    }
  }
}

}  // namespace fbarray_model
