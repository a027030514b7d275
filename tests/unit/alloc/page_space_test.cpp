#include "alloc/page_space.hpp"

#include <gtest/gtest.h>

#include <functional>

#include "unit/alloc/page_world.hpp"
#include "unit/alloc/seed.hpp"

namespace extmem::alloc {
namespace {

TEST(PageSpace, BeginsAsOneFreeRun) {
  for (const std::uint32_t pages : {1u, 2u, 3u, 7u, 8u, 9u, 4096u}) {
    PageWorld world(pages, 12);
    EXPECT_EQ(world.breaches(), "") << pages;
    EXPECT_EQ(world.differences({}), "") << pages;
    EXPECT_EQ(world.allocator().largest_free(), pages);
    EXPECT_GE(world.allocator().largest_free_bound(), pages);
  }
}

TEST(PageSpace, GivesAllAndNothingMore) {
  PageWorld world(8192 / 64, 6);  // the smallest legal region: 8 KiB
  EXPECT_EQ(world.allocate(129), kNoPage);
  EXPECT_EQ(world.allocate(128), 0u);
  EXPECT_EQ(world.allocate(1), kNoPage);
  EXPECT_EQ(world.allocator().largest_free(), 0u);
  EXPECT_EQ(world.allocator().largest_free_bound(), 0u);
  EXPECT_EQ(world.breaches(), "");
  world.free(0, 128);
  EXPECT_EQ(world.differences({}), "");
}

TEST(PageSpace, TakesFromTheEndThatIsAskedFor) {
  PageWorld world(100, 12);
  SpanRequest request;
  request.pages = 10;
  request.bytes = 40960;
  request.high_end = true;
  EXPECT_EQ(world.allocate(request), 90u);
  request.high_end = false;
  EXPECT_EQ(world.allocate(request), 0u);
  request.placement = Placement::high;
  EXPECT_EQ(world.allocate(request), 80u);
  request.placement = Placement::low;
  EXPECT_EQ(world.allocate(request), 10u);
}

TEST(PageSpace, MergesWithBothNeighboursWhenFreed) {
  PageWorld world(30, 12);
  for (const std::uint32_t expected : {0u, 10u, 20u}) ASSERT_EQ(world.allocate(10), expected);
  world.free(0, 10);
  world.free(20, 10);
  EXPECT_EQ(world.space().free_runs, 2u);
  world.free(10, 10);
  EXPECT_EQ(world.space().free_runs, 1u);
  EXPECT_EQ(world.differences({}), "");
}

// A bin holds runs of several lengths; the search may stop early in it, but must not miss the one that fits.
TEST(PageSpace, FindsTheOneLongEnoughRunOfACrowdedBin) {
  PageWorld world(8000, 12);
  // Lengths 64..71 share a bin: forty runs of 64 pages and one of 70, put into the bin first and so found last.
  std::vector<std::uint32_t> runs;
  for (int i = 0; i < 41; ++i) {
    runs.push_back(world.allocate(i == 0 ? 70 : 64));
    ASSERT_NE(world.allocate(1), kNoPage);
  }
  const std::uint32_t rest = world.allocator().largest_free();
  ASSERT_NE(world.allocate(rest), kNoPage);
  for (std::size_t i = 0; i < runs.size(); ++i) world.free(runs[i], i == 0 ? 70 : 64);
  EXPECT_EQ(world.allocator().largest_free(), 70u);
  EXPECT_EQ(world.allocate(66), runs[0]);
  EXPECT_EQ(world.allocate(66), kNoPage);
}

TEST(PageSpace, FindsTheHeadOfEveryPageOfALongRun) {
  Random random(seed_for(5));
  constexpr std::uint32_t kPages = 1 << 20;
  PageWorld world(kPages, 12);
  const std::uint32_t before = world.allocate(12345);
  const std::uint32_t run = world.allocate(700'001, 77);
  ASSERT_EQ(run, 12345u);
  for (int i = 0; i < 20'000; ++i) {
    const auto page = static_cast<std::uint32_t>(run + below(random, 700'001));
    ASSERT_EQ(world.allocator().find_head(page), run) << page;
  }
  EXPECT_EQ(world.allocator().find_head(run - 1), before);
  EXPECT_EQ(world.allocator().find_head(run + 700'001), kNoPage);
  EXPECT_EQ(world.allocator().find_head(kPages - 1), kNoPage);
  EXPECT_EQ(world.allocator().desc(run).holder(), 77);
  world.free(run, 700'001);
  EXPECT_EQ(world.allocator().find_head(run + 4096), kNoPage);  // its marks are believed no more
}

TEST(PageSpace, OldMarksNeverNameAnotherRun) {
  PageWorld world(64, 12);
  Pieces pieces;
  ASSERT_EQ(world.allocate(64), 0u);  // marks everywhere, naming page 0
  world.free(0, 64);
  for (const std::uint32_t length : {5u, 9u, 17u, 2u, 1u}) {
    const std::uint32_t page = world.allocate(length);
    ASSERT_NE(page, kNoPage);
    pieces[page] = Piece{length};
    ASSERT_EQ(world.differences(pieces), "");
  }
}

TEST(PageSpace, GrowsAndShrinksInPlace) {
  PageWorld world(40, 12);
  Pieces pieces;
  ASSERT_EQ(world.allocate(10, 5), 0u);
  pieces[0] = Piece{10, false, 0, 5};
  const auto resize = [&](std::uint32_t length) {
    auto tx = world.transaction();
    const std::uint32_t now = pieces[0].length;
    if (length > now) {
      world.allocator().grow(tx, 0, now, length - now);
    } else {
      world.allocator().shrink(tx, 0, now, length);
    }
    tx.commit();
    pieces[0].length = length;
    ASSERT_EQ(world.breaches(), "") << length;
    ASSERT_EQ(world.differences(pieces), "") << length;
  };
  for (const std::uint32_t length : {11u, 12u, 3u, 2u, 1u, 2u, 40u, 39u, 1u, 40u, 20u}) {
    ASSERT_NO_FATAL_FAILURE(resize(length));
  }
  ASSERT_EQ(world.allocate(5), 20u);
  EXPECT_EQ(world.allocator().free_after(0, 20), 0u);
  EXPECT_EQ(world.allocator().free_after(20, 5), 15u);
}

TEST(PageSpace, ServesARegionOfTwoToThe47Bytes) {
  constexpr unsigned kShift = 27;  // 128 MiB pages, so that the descriptors of a test stay small
  PageWorld world(1u << 20, kShift);
  SpanRequest request;
  request.pages = 8;
  request.bytes = std::uint64_t{8} << kShift;
  request.phase = std::uint64_t{1} << 46;
  request.placement = Placement::high;
  EXPECT_EQ(world.allocate(request), (1u << 20) - 8);
  request.align = std::uint64_t{1} << 40;
  request.placement = Placement::low;
  request.min_offset = 1;
  EXPECT_EQ(std::uint64_t{world.allocate(request)} << kShift, std::uint64_t{1} << 40);
  request.min_offset = (std::uint64_t{1} << 46) + 1;
  request.nocross = std::uint64_t{1} << 30;
  EXPECT_EQ(std::uint64_t{world.allocate(request)} << kShift,
            (std::uint64_t{1} << 46) + (std::uint64_t{1} << 40));
  EXPECT_EQ(world.breaches(), "");
}

TEST(PageSpace, ARegionWhoseTableCoversNothingHasNoIova) {
  PageWorld world(16, 12);
  region::IovaTable nothing;
  SpanRequest request;
  request.pages = 1;
  request.bytes = 4096;
  request.iova = &nothing;
  request.segment = world.segment();
  request.iova_contiguous = true;
  EXPECT_EQ(world.allocate(request), kNoPage);
  request.iova = nullptr;
  EXPECT_EQ(world.allocate(request), kNoPage);
  EXPECT_EQ(world.allocator().biggest(request).bytes, 0u);
}

// ---- check() finds every kind of damage ----------------------------------------------------------------------

struct Damage {
  const char* name;
  const char* breach;  // part of what check() must say
  std::function<void(PageWorld&)> make;
};

class PageSpaceDamage : public ::testing::TestWithParam<Damage> {};

TEST_P(PageSpaceDamage, IsReported) {
  PageWorld world(64, 12);  // held 0..9 | free 10..19 | held 20..24 | slab 25..29 | free 30..63
  Pieces pieces;
  for (const std::uint32_t length : {10u, 10u, 5u, 5u}) ASSERT_NE(world.allocate(length), kNoPage);
  world.free(10, 10);
  pieces[25] = Piece{5, true, 3, 0};
  {
    auto tx = world.transaction();
    world.allocator().make_slab(tx, 25, 5, 3);
    tx.commit();
  }
  ASSERT_EQ(world.breaches(pieces), "");
  GetParam().make(world);
  EXPECT_NE(world.breaches(pieces).find(GetParam().breach), std::string::npos) << world.breaches(pieces);
}

constexpr auto pack = PageDesc::pack;
INSTANTIATE_TEST_SUITE_P(
    Kinds, PageSpaceDamage,
    ::testing::Values(
        Damage{"head_too_long", "the tail of a run agrees",
               [](PageWorld& w) { w.allocator().desc(0).word0 = pack(PageKind::held_head, 11, 0); }},
        Damage{"head_longer_than_the_space", "the runs tile the space",
               [](PageWorld& w) { w.allocator().desc(30).word0 = pack(PageKind::free_head, 35, 0); }},
        Damage{"head_of_length_zero", "the runs tile the space",
               [](PageWorld& w) { w.allocator().desc(20).word0 = pack(PageKind::held_head, 0, 0); }},
        Damage{"tail_lost", "the tail of a run agrees",
               [](PageWorld& w) { w.allocator().desc(19).word0 = 0; }},
        Damage{"head_lost", "a run begins where the one before ends",
               [](PageWorld& w) { w.allocator().desc(20).word0 = 0; }},
        Damage{"held_freed_without_merging", "no two free runs are neighbours",
               [](PageWorld& w) {
                 w.allocator().desc(20).word0 = pack(PageKind::free_head, 5, 0);
                 w.allocator().desc(24).word0 = pack(PageKind::free_tail, 5, 0);
               }},
        Damage{"slab_page_of_another", "every page of a slab names the slab",
               [](PageWorld& w) { w.allocator().desc(27).word0 = pack(PageKind::slab, 4, 0); }},
        Damage{"slab_unknown", "the runs tile the space",
               [](PageWorld& w) {
                 for (std::uint32_t i = 25; i < 30; ++i)
                   w.allocator().desc(i).word0 = pack(PageKind::slab, 4, 0);
               }},
        Damage{"free_pages_wrong", "free_pages counts", [](PageWorld& w) { w.space().free_pages.add(1); }},
        Damage{"free_runs_wrong", "free_runs counts", [](PageWorld& w) { w.space().free_runs.add(1); }},
        Damage{"bin_emptied", "a bin's bit says", [](PageWorld& w) { w.space().heads[1][2] = 0; }},
        Damage{"run_in_no_bin", "every free run is in a bin",
               [](PageWorld& w) {
                 w.space().heads[1][2] = 0;
                 w.space().column_bits[1] = 0;
                 w.space().row_bits = w.space().row_bits & ~2u;
               }},
        Damage{"column_bit_of_an_empty_bin", "a bin's bit says",
               [](PageWorld& w) { w.space().column_bits[1] = w.space().column_bits[1] | 1u; }},
        Damage{"row_bit_of_an_empty_row", "a row's bit says",
               [](PageWorld& w) { w.space().row_bits = w.space().row_bits | 1u << 20; }},
        Damage{"run_in_the_wrong_bin", "a run is in the bin of its length",
               [](PageWorld& w) { std::swap(w.space().heads[1][2], w.space().heads[3][0]); }},
        Damage{"bin_links_broken", "a bin's list is doubly linked",
               [](PageWorld& w) { w.allocator().desc(10).word1 = std::uint64_t{9} << 32; }},
        Damage{"bin_list_with_a_loop", "the bins' lists hold the free runs once",
               [](PageWorld& w) { w.allocator().desc(10).word1 = 11; }},
        Damage{"bin_list_leads_outside", "the bins' lists hold the free runs once",
               [](PageWorld& w) { w.allocator().desc(10).word1 = 65; }}),
    [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace extmem::alloc
