// Mask: searches in a bitmap that other threads and processes may be changing.
//
// What it is: a view of one bit per element, bit i % 64 of word i / 64, in which either the ones (used) or the zeroes
// (free) count as "set". Every search goes word by word; runs inside a word are found by shifting the word over itself.
// Thread-safety: any thread, any time. A search sees each word as it is at one moment between call and return, not all
// words at the same moment; where nobody else changes the bitmap, the answers are exact.
// Ranges are [low, high) in elements; bits outside of the range are never looked at, so what is behind the last
// element does not matter. Requires everywhere: low < high.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>

namespace extmem::dpdk {

using MaskWord = std::atomic<std::uint64_t>;
static_assert(MaskWord::is_always_lock_free, "the bitmap is shared by processes");

inline constexpr std::uint64_t kNone = ~std::uint64_t{0};  ///< what a search returns that found nothing
inline constexpr std::uint64_t kAllOnes = ~std::uint64_t{0};

/// Elements in a row.
struct Run {
  std::uint64_t start = kNone;
  std::uint64_t length = 0;
};

class Mask {
 public:
  static Mask of_used(const MaskWord* words) noexcept { return Mask(words, 0); }
  static Mask of_free(const MaskWord* words) noexcept { return Mask(words, kAllOnes); }
  [[nodiscard]] Mask opposite() const noexcept { return Mask(words_, ~flip_); }

  /// The lowest set element, or kNone.
  [[nodiscard]] std::uint64_t first(std::uint64_t low, std::uint64_t high) const noexcept {
    const std::uint64_t last_word = (high - 1) / 64;
    std::uint64_t i = low / 64;
    std::uint64_t bits = word_in(i, low, high);
    while (bits == 0) {
      if (i == last_word) return kNone;
      i = skip_up(i, last_word) + 1;
      bits = word_in(i, low, high);
    }
    return i * 64 + lowest(bits);
  }

  /// The highest set element, or kNone.
  [[nodiscard]] std::uint64_t last(std::uint64_t low, std::uint64_t high) const noexcept {
    const std::uint64_t first_word = low / 64;
    std::uint64_t i = (high - 1) / 64;
    std::uint64_t bits = word_in(i, low, high);
    while (bits == 0) {
      if (i == first_word) return kNone;
      i = skip_down(i, first_word) - 1;
      bits = word_in(i, low, high);
    }
    return i * 64 + highest(bits);
  }

  /// How many elements in a row are set, from `low` upwards.
  [[nodiscard]] std::uint64_t length_up(std::uint64_t low, std::uint64_t high) const noexcept {
    const std::uint64_t end = opposite().first(low, high);
    return (end == kNone ? high : end) - low;
  }

  /// How many elements in a row are set, from `high - 1` downwards.
  [[nodiscard]] std::uint64_t length_down(std::uint64_t low, std::uint64_t high) const noexcept {
    const std::uint64_t end = opposite().last(low, high);
    return end == kNone ? high - low : high - 1 - end;
  }

  /// The start of the lowest `n` set elements in a row, or kNone. Requires: n > 0.
  [[nodiscard]] std::uint64_t first_run(std::uint64_t low, std::uint64_t high,
                                        std::uint64_t n) const noexcept {
    const std::uint64_t last_word = (high - 1) / 64;
    std::uint64_t run = 0;  // set elements that end where word i begins
    for (std::uint64_t i = low / 64; i <= last_word; ++i) {
      const std::uint64_t bits = word_in(i, low, high);
      if (bits == 0) {
        run = 0;
        i = skip_up(i, last_word);
        continue;
      }
      if (run + ones_at_bottom(bits) >= n) return i * 64 - run;
      if (n < 64) {
        if (const std::uint64_t starts = runs_of(bits, n); starts != 0) return i * 64 + lowest(starts);
      }
      run = bits == kAllOnes ? run + 64 : ones_at_top(bits);
    }
    return kNone;
  }

  /// The start of the highest `n` set elements in a row, or kNone. Requires: n > 0.
  [[nodiscard]] std::uint64_t last_run(std::uint64_t low, std::uint64_t high,
                                       std::uint64_t n) const noexcept {
    const std::uint64_t first_word = low / 64;
    std::uint64_t run = 0;  // set elements that begin where word i ends
    for (std::uint64_t i = (high - 1) / 64 + 1; i-- > first_word;) {
      const std::uint64_t bits = word_in(i, low, high);
      if (bits == 0) {
        run = 0;
        i = skip_down(i, first_word);
        continue;
      }
      if (run + ones_at_top(bits) >= n) return i * 64 + 64 + run - n;
      if (n < 64) {
        if (const std::uint64_t starts = runs_of(bits, n); starts != 0) return i * 64 + highest(starts);
      }
      run = bits == kAllOnes ? run + 64 : ones_at_bottom(bits);
    }
    return kNone;
  }

  /// The longest run; of several equally long ones the lowest. Its start is kNone where nothing is set.
  [[nodiscard]] Run longest_from_low(std::uint64_t low, std::uint64_t high) const noexcept {
    Run best;
    std::uint64_t run = 0;  // as in first_run
    for (std::uint64_t i = low / 64; i <= (high - 1) / 64; ++i) {
      const std::uint64_t bits = word_in(i, low, high);
      const std::uint64_t length = run + ones_at_bottom(bits);
      if (length > best.length) best = Run{i * 64 - run, length};
      if (bits == kAllOnes) {
        run += 64;
        continue;
      }
      // A run that reaches the word's top counts with what is here: if more of it follows, it grows there.
      for (std::uint64_t starts = longer_runs(bits, best.length); starts != 0; starts &= starts >> 1)
        best = Run{i * 64 + lowest(starts), best.length + 1};
      run = ones_at_top(bits);
    }
    return best;
  }

  /// The longest run; of several equally long ones the highest. Its start is kNone where nothing is set.
  [[nodiscard]] Run longest_from_high(std::uint64_t low, std::uint64_t high) const noexcept {
    Run best;
    std::uint64_t run = 0;  // as in last_run
    for (std::uint64_t i = (high - 1) / 64 + 1; i-- > low / 64;) {
      const std::uint64_t bits = word_in(i, low, high);
      const std::uint64_t here = ones_at_top(bits);
      if (run + here > best.length) best = Run{i * 64 + 64 - here, run + here};
      if (bits == kAllOnes) {
        run += 64;
        continue;
      }
      for (std::uint64_t starts = longer_runs(bits, best.length); starts != 0; starts &= starts >> 1)
        best = Run{i * 64 + highest(starts), best.length + 1};
      run = ones_at_bottom(bits);
    }
    return best;
  }

  /// How many elements are set.
  [[nodiscard]] std::uint64_t total(std::uint64_t low, std::uint64_t high) const noexcept {
    std::uint64_t sum = 0;
    for (std::uint64_t i = low / 64; i <= (high - 1) / 64; ++i)
      sum += static_cast<std::uint64_t>(std::popcount(word_in(i, low, high)));
    return sum;
  }

 private:
  Mask(const MaskWord* words, std::uint64_t flip) noexcept : words_(words), flip_(flip) {}

  [[nodiscard]] std::uint64_t word(std::uint64_t i) const noexcept {
    // Acquire: pairs with the release of change_words() (fbarray.cpp), so that whoever finds an element used sees what
    // was written to it before it was marked.
    return words_[i].load(std::memory_order_acquire) ^ flip_;
  }
  /// Word i without the bits outside of [low, high).
  [[nodiscard]] std::uint64_t word_in(std::uint64_t i, std::uint64_t low, std::uint64_t high) const noexcept {
    std::uint64_t bits = word(i);
    if (i == low / 64) bits &= kAllOnes << low % 64;
    if (i == (high - 1) / 64) bits &= kAllOnes >> (63 - (high - 1) % 64);
    return bits;
  }

  /// Goes from word i over words without set elements that lie between it and the last one of the range, four at a time:
  /// the processor can load them side by side. Returns: the last word gone over, i if none.
  [[nodiscard]] std::uint64_t skip_up(std::uint64_t i, std::uint64_t last_word) const noexcept {
    while (i + 4 < last_word && (word(i + 1) | word(i + 2) | word(i + 3) | word(i + 4)) == 0) i += 4;
    return i;
  }
  [[nodiscard]] std::uint64_t skip_down(std::uint64_t i, std::uint64_t first_word) const noexcept {
    while (i > first_word + 4 && (word(i - 1) | word(i - 2) | word(i - 3) | word(i - 4)) == 0) i -= 4;
    return i;
  }

  static std::uint64_t lowest(std::uint64_t bits) noexcept {
    return static_cast<std::uint64_t>(std::countr_zero(bits));
  }
  static std::uint64_t highest(std::uint64_t bits) noexcept {
    return 63u - static_cast<std::uint64_t>(std::countl_zero(bits));
  }
  static std::uint64_t ones_at_bottom(std::uint64_t bits) noexcept {
    return static_cast<std::uint64_t>(std::countr_one(bits));
  }
  static std::uint64_t ones_at_top(std::uint64_t bits) noexcept {
    return static_cast<std::uint64_t>(std::countl_one(bits));
  }
  /// A one at each bit where `n` ones in a row begin. Doubles the length with each step. Requires: 0 < n < 64.
  static std::uint64_t runs_of(std::uint64_t bits, std::uint64_t n) noexcept {
    for (std::uint64_t have = 1; have < n && bits != 0;) {
      const std::uint64_t step = std::min(have, n - have);
      bits &= bits >> step;
      have += step;
    }
    return bits;
  }
  static std::uint64_t longer_runs(std::uint64_t bits, std::uint64_t than) noexcept {
    return than < 63 ? runs_of(bits, than + 1) : 0;
  }

  const MaskWord* words_;
  std::uint64_t flip_;
};

}  // namespace extmem::dpdk
