// A model of an exact heap of one region, without any cache: for the tests of Core and of the public interface.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <map>

namespace extmem::test {

/// What an exact heap promises, said naively: which bytes are held, by offset. Everything that can be seen follows from that.
class ExactModel {
 public:
  explicit ExactModel(std::uint64_t bytes) : bytes_(bytes) {}

  [[nodiscard]] std::map<std::uint64_t, std::uint64_t> free_runs() const {
    std::map<std::uint64_t, std::uint64_t> runs;
    std::uint64_t at = 0;
    for (const auto& [offset, length] : held) {
      if (offset > at) runs[at] = offset - at;
      at = offset + length;
    }
    if (at < bytes_) runs[at] = bytes_ - at;
    return runs;
  }
  [[nodiscard]] std::uint64_t longest() const {
    std::uint64_t most = 0;
    for (const auto& [offset, length] : free_runs()) most = std::max(most, length);
    return most;
  }
  /// Where a span of this length may be placed: at the high end of a run of the lowest bin that has one long enough.
  [[nodiscard]] bool may_place(std::uint64_t offset, std::uint64_t length) const {
    std::uint64_t chosen = 0;
    std::uint64_t lowest = ~std::uint64_t{0};
    std::uint64_t of_lengths_bin = 0;
    for (const auto& [begin, run] : free_runs()) {
      if (bin(run) == bin(length)) ++of_lengths_bin;
      if (run < length) continue;
      lowest = std::min(lowest, bin(run));
      if (offset + length == begin + run) chosen = bin(run);
    }
    // In the bin of the length itself some runs are too short, and only the first eight are tried.
    return chosen == lowest || (chosen != 0 && lowest == bin(length) && of_lengths_bin > 8);
  }
  std::map<std::uint64_t, std::uint64_t> held;

 private:
  static std::uint64_t bin(std::uint64_t bytes) {
    const std::uint64_t pages = bytes / 64;
    if (pages < 8) return pages;
    const unsigned high = static_cast<unsigned>(std::bit_width(pages)) - 1;
    return (high - 2) * 8 + (pages >> (high - 3) & 7);
  }
  std::uint64_t bytes_;
};

}  // namespace extmem::test
