// Scanning IOVAs: four at a time, one by one, and with bad pages looked for give the same; and it is what is there.
#include "region/iova_scan.hpp"

#include <gtest/gtest.h>

#include <cstdio>
#include <string>

#include "unit/region/iova_table_cases.hpp"

namespace extmem::region {
namespace {

template <typename Word>
struct Flat {
  explicit Flat(std::size_t pages) : words(pages), starts((pages + 63) / 64) {}
  std::vector<Word> words;
  std::vector<std::uint64_t> starts;
};

void expect_same(const Scan& scan, const Scan& expected) {
  EXPECT_EQ(scan.next, expected.next);
  EXPECT_EQ(scan.runs, expected.runs);
  EXPECT_EQ(scan.digest, expected.digest);
}
void expect_same_facts(const Scan& scan, const Scan& expected) {
  expect_same(scan, expected);
  EXPECT_EQ(scan.length, expected.length);
  EXPECT_EQ(scan.longest, expected.longest);
  EXPECT_EQ(scan.lowest, expected.lowest);
  EXPECT_EQ(scan.highest, expected.highest);
  EXPECT_EQ(scan.set_bits, expected.set_bits);
  EXPECT_EQ(scan.common_bits, expected.common_bits);
  EXPECT_EQ(scan.bad, expected.bad);
}

/// All pages the way that asks each whether it is bad, in blocks.
template <bool kFacts, typename Emit>
Scan scan_carefully(const std::vector<Iova>& pages, std::uint64_t size, Emit emit) {
  Scan scan{.next = ~static_cast<std::uint64_t>(pages[0])};
  for (std::size_t page = 0; page < pages.size(); page += kBlock) {
    const auto count = static_cast<unsigned>(std::min<std::size_t>(kBlock, pages.size() - page));
    scan_block<kFacts, false>(scan, pages, page, count, size, emit);
  }
  return scan;
}

template <typename Word>
void expect_all_ways_agree(const std::vector<Iova>& pages, const IovaTable& table) {
  const std::uint64_t size = std::uint64_t{1} << table.os_page_shift;
  Flat<Word> expected(pages.size());
  const auto emit = [&](Flat<Word>& flat) {
    return EmitFlat<Word>{Frames(table), flat.words.data(), flat.starts.data()};
  };
  const Scan facts = scan_carefully<true>(pages, size, EmitNothing{});
  const Scan flat = scan_carefully<false>(pages, size, emit(expected));
  expect_same(flat, facts);
  for (const bool wide : {false, can_scan_wide()}) {
    SCOPED_TRACE(wide);
    expect_same_facts(scan_pages<true>(pages, size, EmitNothing{}, wide), facts);
    Flat<Word> written(pages.size());
    expect_same(scan_pages<false>(pages, size, emit(written), wide), flat);
    EXPECT_EQ(written.words, expected.words);
    EXPECT_EQ(written.starts, expected.starts);
  }
}

TEST(IovaScan, SaysTheSameWhicheverWayItGoes) {
  const char* wanted = std::getenv("EXTMEM_SEED");
  const std::uint64_t first = wanted != nullptr ? std::strtoull(wanted, nullptr, 0) : std::random_device{}();
  const std::uint64_t last = wanted != nullptr ? first : first + 499;
  std::printf("seeds %llu to %llu; four at a time: %s\n", static_cast<unsigned long long>(first),
              static_cast<unsigned long long>(last), can_scan_wide() ? "yes" : "no AVX2 here");
  for (std::uint64_t seed = first; seed <= last && !HasFailure(); ++seed) {
    SCOPED_TRACE("EXTMEM_SEED=" + std::to_string(seed));
    Random random(seed);
    const auto shift = static_cast<unsigned>(6 + below(random, 25));
    std::vector<Iova> pages =
        make_pages(kShapes[seed % std::size(kShapes)], 1 + below(random, 700), shift, random);
    // Some blocks have a bad page, some do not.
    for (std::uint64_t bad = below(random, 4); bad > 0; --bad) pages[below(random, pages.size())] = kBadIova;
    const Scan facts = scan_carefully<true>(pages, std::uint64_t{1} << shift, EmitNothing{});
    IovaTable table;
    table.os_page_shift = static_cast<std::uint8_t>(shift);
    table.finer = static_cast<std::uint8_t>(below(random, 3));
    table.iova_base = facts.longest == 0 ? 0 : facts.lowest;
    expect_all_ways_agree<std::uint32_t>(pages, table);
    expect_all_ways_agree<std::uint64_t>(pages, table);
  }
}

TEST(IovaScan, CountsTheLongestRunThatLiesAcrossBlocksOrInOne) {
  Random random(5);
  for (const std::size_t begin : {0u, 1u, 62u, 63u, 64u, 65u, 127u, 200u}) {
    for (const std::size_t length : {1u, 2u, 3u, 5u, 31u, 62u, 63u, 64u, 65u, 66u, 129u, 400u}) {
      SCOPED_TRACE(std::to_string(begin) + " " + std::to_string(length));
      std::vector<Iova> pages = make_pages(Shape::strided, begin + length + below(random, 100), 12, random);
      for (std::size_t i = 0; i < length; ++i) pages[begin + i] = Iova{(std::uint64_t{1} << 50) + i * 4096};
      for (const bool wide : {false, can_scan_wide()})
        EXPECT_EQ(scan_pages<true>(pages, 4096, EmitNothing{}, wide).longest, length);
    }
  }
}

TEST(IovaScan, TellsAChangeOfOnePageAndOfPagesThatChangePlaces) {
  Random random(6);
  const std::vector<Iova> pages = make_pages(Shape::scattered, 300, 12, random);
  const Scan before = scan_pages<true>(pages, 4096, EmitNothing{});
  for (std::size_t i = 0; i < pages.size(); ++i) {
    std::vector<Iova> changed = pages;
    changed[i] = Iova{static_cast<std::uint64_t>(changed[i]) ^ (std::uint64_t{1} << below(random, 64))};
    EXPECT_NE(scan_pages<true>(changed, 4096, EmitNothing{}).digest, before.digest);
    changed = pages;
    std::swap(changed[i], changed[(i + 1 + below(random, pages.size() - 1)) % pages.size()]);
    EXPECT_NE(scan_pages<true>(changed, 4096, EmitNothing{}).digest, before.digest);
  }
}

}  // namespace
}  // namespace extmem::region
