// What `extmem top` shows: rows for heaps, tags or processes, with what changed since the look before.
#pragma once

#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "faces/cli/look.hpp"

namespace extmem::cli {

enum class TopView : std::uint8_t { heaps, tags, processes };
enum class TopSort : std::uint8_t { bytes, rate, count, name };

struct TopRow {
  std::string domain;
  std::string heap;
  std::string label;        ///< the tag, or the process' name; empty in the view of heaps
  std::uint32_t pid = 0;    ///< processes only; 0: nobody's
  std::uint64_t bytes = 0;  ///< held
  std::uint64_t count = 0;  ///< objects
  std::uint64_t total = 0;  ///< the heap's memory; heaps only
  double byte_rate = 0;     ///< change of `bytes` per second
  double count_rate = 0;
  bool stable = true;
};

struct TopSums {
  std::size_t domains = 0;
  std::size_t heaps = 0;
  std::size_t processes = 0;
  std::size_t dead = 0;
  std::uint64_t total = 0;
  std::uint64_t held = 0;
};

class TopModel {
 public:
  /// `domains`: those to look at; empty: all that there are, at each look anew.
  TopModel(ShellOptions options, std::vector<std::string> domains, const Console& console)
      : options_(std::move(options)), wanted_(std::move(domains)), console_(console) {}

  /// Looks again, at what the view needs. Rates are those since the look before it. Throws Failure where none of the
  /// domains that were named can be looked at.
  void look(TopView view);
  /// The rows that contain the filter (upper and lower case are the same), sorted.
  [[nodiscard]] std::vector<TopRow> rows(TopSort sort, bool reversed, const std::string& filter) const;
  [[nodiscard]] const TopSums& sums() const { return sums_; }
  [[nodiscard]] const std::vector<std::string>& troubles() const { return troubles_; }

 private:
  struct Before {
    std::uint64_t bytes;
    std::uint64_t count;
  };
  void add(const DomainLook& domain, TopView view);

  ShellOptions options_;
  std::vector<std::string> wanted_;
  const Console& console_;
  std::map<std::string, Inspector> inspectors_;
  std::vector<TopRow> rows_;
  std::vector<std::string> troubles_;
  TopSums sums_;
  TopView view_ = TopView::heaps;
  std::map<std::string, Before> before_;
  std::chrono::steady_clock::time_point at_{};
};

}  // namespace extmem::cli
