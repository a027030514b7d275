// What the IovaTable tests share: tables of every shape, and the naive map that says what they must answer.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <numeric>
#include <random>
#include <span>
#include <vector>

#include "region/iova_scan.hpp"
#include "region/iova_table.hpp"

namespace extmem::region {

using Random = std::mt19937_64;

inline std::uint64_t below(Random& random, std::uint64_t n) {
  return std::uniform_int_distribution<std::uint64_t>(0, n - 1)(random);
}

inline std::vector<Iova> iovas(std::initializer_list<std::uint64_t> values) {
  std::vector<Iova> result;
  for (const std::uint64_t value : values) result.push_back(Iova{value});
  return result;
}

/// A table in a segment that ends where its data ends, so that a sanitizer sees every read beyond it.
struct Built {
  IovaTable table{};
  std::uint64_t bytes = 0;
  std::unique_ptr<std::byte[]> memory{};
  [[nodiscard]] const std::byte* segment() const { return memory.get(); }
  [[nodiscard]] const char* breach() const { return check(table, segment(), bytes, covered_bytes(table)); }
};

template <typename Input>
Built build(const IovaPlan& plan, const Input& input, std::uint64_t data_offset = 64) {
  Built built;
  built.bytes = data_offset + plan.data_bytes;
  built.memory = std::make_unique<std::byte[]>(built.bytes);
  std::fill_n(built.memory.get(), built.bytes, std::byte{0xa5});  // the data need not be zero
  EXPECT_TRUE(build_iova_table(built.table, plan, input, built.memory.get() + data_offset, data_offset).ok());
  for (std::uint64_t i = 0; i < data_offset; ++i) EXPECT_EQ(built.memory[i], std::byte{0xa5});
  return built;
}

inline Built build_pages(const std::vector<Iova>& pages, unsigned shift, std::uint64_t data_offset = 64,
                         IovaAlign align = IovaAlign::os_page) {
  const auto plan = plan_iova_table(pages, shift, align);
  EXPECT_TRUE(plan.ok()) << plan.error().message();
  return build(*plan, std::span<const Iova>(pages), data_offset);
}

/// The truth: what a table over `pages` must answer, computed page by page.
struct Naive {
  const std::vector<Iova>& pages;
  unsigned shift;

  [[nodiscard]] std::uint64_t bytes() const { return std::uint64_t{pages.size()} << shift; }
  [[nodiscard]] std::uint64_t page_iova(std::uint64_t page) const {
    return static_cast<std::uint64_t>(pages[page]);
  }
  [[nodiscard]] Iova at(std::uint64_t offset) const {
    const std::uint64_t iova = page_iova(offset >> shift);
    return iova == kBad ? kBadIova : Iova{iova + (offset & ((std::uint64_t{1} << shift) - 1))};
  }
  [[nodiscard]] bool joined(std::uint64_t page) const {  // with the page before it
    const std::uint64_t before = page_iova(page - 1);
    return page_iova(page) == (before == kBad ? kBad : before + (std::uint64_t{1} << shift));
  }
  [[nodiscard]] std::vector<IovaRun> runs(std::uint64_t offset, std::uint64_t length) const {
    std::vector<IovaRun> result;
    for (std::uint64_t at_byte = offset; at_byte < offset + length;) {
      const std::uint64_t page = at_byte >> shift;
      const std::uint64_t end = std::min((page + 1) << shift, offset + length);
      if (at_byte != offset && joined(page)) {
        result.back().length += end - at_byte;
      } else {
        result.push_back({at_byte - offset, end - at_byte, at(at_byte)});
      }
      at_byte = end;
    }
    return result;
  }
};

inline void expect_run(const IovaRun& found, const IovaRun& expected) {
  EXPECT_EQ(found.offset, expected.offset);
  EXPECT_EQ(found.length, expected.length);
  EXPECT_EQ(found.iova, expected.iova);
}

inline void expect_facts(const Built& built, const Naive& naive, const std::vector<IovaRun>& runs) {
  ASSERT_STREQ(built.breach(), nullptr);
  EXPECT_EQ(covered_bytes(built.table), naive.bytes());
  EXPECT_EQ(run_count(built.table), runs.size());
  std::uint64_t longest = 0;
  std::uint64_t lowest = kBad;
  std::uint64_t highest = kBad;
  bool bad = false;
  for (const IovaRun& run : runs) {
    if (run.iova == kBadIova) {
      bad = true;
      continue;
    }
    const std::uint64_t last = static_cast<std::uint64_t>(run.iova) + (run.length - 1);
    longest = std::max(longest, run.length);
    lowest = std::min(lowest, static_cast<std::uint64_t>(run.iova));
    highest = highest == kBad ? last : std::max(highest, last);
  }
  EXPECT_EQ(max_run_length(built.table), longest);
  EXPECT_EQ(has_bad(built.table), bad);
  EXPECT_EQ(lowest_iova(built.table), Iova{lowest});
  EXPECT_EQ(highest_iova(built.table), Iova{highest});
}

inline void expect_ranges(const Built& built, const Naive& naive, const std::vector<IovaRun>& runs,
                          Random& random) {
  const IovaTable& table = built.table;
  for (int i = 0; i < 60; ++i) {
    const std::uint64_t offset = below(random, naive.bytes());
    const std::uint64_t most = std::min(naive.bytes() - offset, (1 + below(random, 80)) << naive.shift);
    const std::uint64_t length = 1 + below(random, most);
    const std::vector<IovaRun> expected = naive.runs(offset, length);

    const IovaRun part = run_from(table, built.segment(), offset, length);
    expect_run(part, {offset, expected[0].length, expected[0].iova});
    EXPECT_EQ(contiguous(table, built.segment(), offset, length),
              expected.size() == 1 && expected[0].iova != kBadIova);

    std::vector<IovaRun> out(below(random, expected.size() + 2));
    EXPECT_EQ(scatter_list(table, built.segment(), offset, length, out), expected.size());
    for (std::size_t k = 0; k < std::min(out.size(), expected.size()); ++k) expect_run(out[k], expected[k]);

    const std::uint64_t wanted = below(random, 4) == 0 ? below(random, naive.bytes()) : length;
    IovaRun next{naive.bytes(), 0, kBadIova};
    for (const IovaRun& run : runs) {
      const std::uint64_t end = run.offset + run.length;
      const std::uint64_t start = std::max(run.offset, offset);
      if (run.iova == kBadIova || end <= offset || end - start < wanted) continue;
      next = {start, end - start, Iova{static_cast<std::uint64_t>(run.iova) + (start - run.offset)}};
      break;
    }
    expect_run(next_run(table, built.segment(), offset, wanted), next);
  }
}

inline void expect_reverse(const Built& built, const Naive& naive, Random& random) {
  const IovaTable& table = built.table;
  std::vector<std::uint32_t> storage(reverse_words(table));
  const auto index = build_reverse(table, built.segment(), storage);
  ASSERT_TRUE(index.ok());
  ASSERT_STREQ(check_reverse(table, built.segment(), *index), nullptr);

  const auto expect_found = [&](std::uint64_t iova, bool known) {
    for (const auto& with : {*index, std::span<const std::uint32_t>{}}) {
      const std::uint64_t offset = find(table, built.segment(), with, Iova{iova});
      if (!known) {
        EXPECT_EQ(offset, kNoOffset);
      } else {
        ASSERT_LT(offset, naive.bytes());
        EXPECT_EQ(naive.at(offset), Iova{iova});
      }
    }
  };
  std::vector<std::uint64_t> sorted;
  for (const Iova iova : naive.pages) {
    if (iova != kBadIova) sorted.push_back(static_cast<std::uint64_t>(iova));
  }
  std::sort(sorted.begin(), sorted.end());
  const std::uint64_t size = std::uint64_t{1} << naive.shift;
  for (int i = 0; i < 60; ++i) {
    const std::uint64_t offset = below(random, naive.bytes());
    const Iova iova = naive.at(offset);
    if (iova != kBadIova) expect_found(static_cast<std::uint64_t>(iova), true);
    // Around the pages' edges and at random, most of them unknown.
    std::uint64_t guess = random();
    if (!sorted.empty() && i % 4 != 0)
      guess = sorted[below(random, sorted.size())] + size * below(random, 3) - 1;
    const auto after = std::upper_bound(sorted.begin(), sorted.end(), guess);
    expect_found(guess, guess != kBad && after != sorted.begin() && guess - *(after - 1) < size);
  }
  expect_found(kBad, false);
}

inline void expect_matches(const Built& built, const Naive& naive, Random& random) {
  const std::vector<IovaRun> runs = naive.runs(0, naive.bytes());
  expect_facts(built, naive, runs);
  if (testing::Test::HasFailure()) return;
  const IovaTable& table = built.table;

  std::size_t seen = 0;
  EXPECT_TRUE(for_each_run(table, built.segment(), [&](const IovaRun& run) {
    expect_run(run, runs[seen++]);
    return true;
  }));
  EXPECT_EQ(seen, runs.size());
  for (const IovaRun& run : runs) {
    const std::uint64_t first = run.offset >> naive.shift;
    const std::uint64_t last = (run.offset + run.length - 1) >> naive.shift;
    for (const std::uint64_t page : {first, first + below(random, last - first + 1), last}) {
      expect_run(run_at(table, built.segment(),
                        (page << naive.shift) + below(random, std::uint64_t{1} << naive.shift)),
                 run);
    }
  }
  for (std::uint64_t page = 0; page < naive.pages.size(); ++page) {
    const std::uint64_t offset = (page << naive.shift) + below(random, std::uint64_t{1} << naive.shift);
    EXPECT_EQ(lookup(table, built.segment(), offset), naive.at(offset));
  }
  EXPECT_EQ(lookup(table, built.segment(), naive.bytes()), kBadIova);
  EXPECT_EQ(lookup(table, built.segment(), ~std::uint64_t{0}), kBadIova);
  expect_run(run_at(table, built.segment(), naive.bytes()), {naive.bytes(), 0, kBadIova});
  expect_ranges(built, naive, runs, random);
  expect_reverse(built, naive, random);
}

enum class Shape {
  constant,
  ascending,
  reversed,
  strided,
  scattered,
  bad,
  alternating,
  runs,
  long_then_short,
  wide,
  few_wide
};
inline constexpr Shape kShapes[] = {Shape::constant,    Shape::ascending, Shape::reversed,
                                    Shape::strided,     Shape::scattered, Shape::bad,
                                    Shape::alternating, Shape::runs,      Shape::long_then_short,
                                    Shape::wide,        Shape::few_wide};

/// Frame numbers (times the page size) of `count` pages; kBad for bad. `limit`: frames are below it.
inline std::vector<Iova> make_pages(Shape shape, std::size_t count, unsigned shift, Random& random) {
  const std::uint64_t limit = (~std::uint64_t{0} >> shift);  // the last frame is not legal
  const std::uint64_t base = below(random, std::min<std::uint64_t>(limit / 2, std::uint64_t{1} << 30));
  std::vector<std::uint64_t> frames(count);
  const auto make_runs = [&](std::size_t from, std::uint64_t longest, std::uint64_t range,
                             unsigned bad_of_8) {
    for (std::size_t i = from; i < count;) {
      const std::uint64_t length = std::min<std::uint64_t>(count - i, 1 + below(random, longest));
      const bool is_bad = below(random, 8) < bad_of_8;
      const std::uint64_t first = below(random, range - length);
      for (std::uint64_t k = 0; k < length; ++k, ++i) frames[i] = is_bad ? kBad : first + k;
    }
  };
  switch (shape) {
    case Shape::constant:
      std::fill(frames.begin(), frames.end(), base);
      break;
    case Shape::ascending:
      std::iota(frames.begin(), frames.end(), base);
      break;
    case Shape::reversed:
      for (std::size_t i = 0; i < count; ++i) frames[i] = base + count - i;
      break;
    case Shape::strided:
      for (std::size_t i = 0; i < count; ++i) frames[i] = base + 3 * i;
      break;
    case Shape::scattered:
      std::iota(frames.begin(), frames.end(), base);
      std::shuffle(frames.begin(), frames.end(), random);
      break;
    case Shape::bad:
      std::fill(frames.begin(), frames.end(), kBad);
      break;
    case Shape::alternating:
      for (std::size_t i = 0; i < count; ++i) frames[i] = i % 2 == 0 ? base + i : kBad;
      break;
    case Shape::runs:
      make_runs(0, 1 + below(random, 200), limit < 1u << 20 ? limit : 1u << 20, 2);
      break;
    case Shape::long_then_short:
      std::iota(frames.begin(), frames.end(), base);
      make_runs(count - count / 8, 2, limit < 1u << 24 ? limit : 1u << 24, 1);
      break;
    case Shape::wide:
      make_runs(0, 3, limit, 1);
      break;
    case Shape::few_wide:
      make_runs(0, 300, limit, 1);
      break;
  }
  std::vector<Iova> pages;
  for (const std::uint64_t frame : frames) pages.push_back(frame == kBad ? kBadIova : Iova{frame << shift});
  return pages;
}

}  // namespace extmem::region
