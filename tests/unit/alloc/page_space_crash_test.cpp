// Every operation of the page layer, cut short between any two of its stores: undoing it restores the state before.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <iterator>
#include <set>
#include <sstream>
#include <vector>

#include "unit/alloc/page_world.hpp"
#include "unit/alloc/seed.hpp"
#include "unit/shared/crash_watch.hpp"

namespace extmem::alloc {
namespace {

/// Whose descriptors say which pages are free and held: heads, tails and pages of slabs. The others are hints or
/// leftovers, which find_head() and check() never believe without asking such a one; but they would believe a head of a
/// held run or a slab anywhere.
std::vector<bool> deciding(PageWorld& world) {
  const std::uint32_t pages = world.space().pages;
  std::vector<bool> decides(pages, false);
  for (std::uint32_t page = 0; page < pages;) {
    const PageDesc& desc = world.allocator().desc(page);
    const bool head = desc.kind() == PageKind::free_head || desc.kind() == PageKind::held_head;
    const std::uint32_t length = head ? std::clamp(desc.length(), 1u, pages - page) : 1;
    decides[page] = decides[page + length - 1] = true;
    page += length;
  }
  for (std::uint32_t page = 0; page < pages; ++page) {
    const PageKind kind = world.allocator().desc(page).kind();
    if (kind == PageKind::held_head || kind == PageKind::slab) decides[page] = true;
  }
  return decides;
}

/// Where two states of a page space differ in what counts; "" when they agree.
std::string compare(PageWorld& before, PageWorld& now) {
  std::ostringstream text;
  PageSpace& a = before.space();
  PageSpace& b = now.space();
  if (a.free_pages != b.free_pages || a.free_runs != b.free_runs) text << "counters\n";
  if (a.row_bits != b.row_bits) text << "row bits\n";
  for (std::uint32_t row = 0; row < kBinRows; ++row) {
    if (a.column_bits[row] != b.column_bits[row]) text << "column bits of row " << row << '\n';
    for (std::uint32_t column = 0; column < kBinColumns; ++column) {
      if (a.heads[row][column] != b.heads[row][column])
        text << "head of bin " << row << ", " << column << '\n';
    }
  }
  const std::vector<bool> decided = deciding(before);
  const std::vector<bool> decides = deciding(now);
  for (std::uint32_t page = 0; page < a.pages; ++page) {
    const PageDesc& was = before.allocator().desc(page);
    const PageDesc& is = now.allocator().desc(page);
    if (!decided[page] && !decides[page]) continue;
    const bool link_counts = was.kind() != PageKind::free_tail && was.kind() != PageKind::slab;
    if (was.word0 != is.word0 || (link_counts && was.word1 != is.word1)) {
      text << "page " << page << std::hex << ": " << was.word0 << ' ' << was.word1 << " became " << is.word0
           << ' ' << is.word1 << std::dec << '\n';
    }
  }
  return text.str();
}

/// A space with free runs of several lengths between held runs, so that every case of coalescing and of bins occurs:
///   held 0..3 | free 4..9 | held 10 | held 11..20 | free 21 | held 22..29 | slab 30..33 | free 34..63
class PageCrash : public ::testing::Test {
 protected:
  PageCrash() {
    const std::uint32_t lengths[] = {4, 6, 1, 10, 1, 8, 4};
    std::uint32_t at = 0;
    for (const std::uint32_t length : lengths) {
      EXPECT_EQ(world_.allocate(length, 7), at);
      pieces_[at] = Piece{length, false, 0, 7};
      at += length;
    }
    for (const std::uint32_t page : {4u, 21u}) {
      world_.free(page, pieces_[page].length);
      pieces_.erase(page);
    }
    auto tx = world_.transaction();
    world_.allocator().make_slab(tx, 30, 4, 5);
    tx.commit();
    pieces_[30] = Piece{4, true, 5, 0};
    EXPECT_EQ(world_.differences(pieces_), "");
  }

  using Operation = std::function<void(PageWorld&, shared::Transaction&)>;

  /// Runs the operation on a copy of the world, cut short at every point; then leaves each word out of the journal in
  /// turn, which must show.
  void survives(const Operation& operation) {
    PageWorld world = world_;
    int points = 0;
    PageWorld last = world_;  // the state at the end, not committed
    auto tx = world.transaction();
    {
      const shared::CrashWatch watch([&](std::string_view name) {
        ++points;
        last = world;
        PageWorld copy = world;
        shared::undo(copy.segment(), copy.journal());
        ASSERT_EQ(copy.journal().count.load(), 0u);
        ASSERT_EQ(compare(world_, copy), "") << name << ", point " << points;
        ASSERT_EQ(copy.breaches(pieces_), "") << name << ", point " << points;
        ASSERT_EQ(copy.differences(pieces_), "") << name << ", point " << points;
      });
      operation(world, tx);
      base::crash_point("transaction.complete");  // as commit() passes it
    }
    ASSERT_GT(points, 0);
    tx.rollback();
    ASSERT_EQ(compare(world_, world), "");
    ASSERT_EQ(world.differences(pieces_), "");
    every_word_matters(last);
  }

  void every_word_matters(PageWorld& unfinished) {
    const std::uint32_t entries = unfinished.journal().count;
    std::set<std::uint64_t> seen;
    int detected = 0;
    for (std::uint32_t i = 0; i < entries; ++i) {
      const shared::JournalEntry entry = unfinished.journal().entries[i];
      if (!seen.insert(entry.where).second)
        continue;  // only the first entry of a word holds the value to restore
      PageWorld copy = unfinished;
      for (std::uint32_t j = i; j < entries;
           ++j) {  // as if the word had never been journaled: the entry, and any
        shared::JournalEntry& same = copy.journal().entries[j];  // later one, names the scratch word instead
        if (same.where == entry.where) same.where = scratch_of(copy) << 8 | (entry.where & 0xff);
      }
      shared::undo(copy.segment(), copy.journal());
      if (word_at(copy, entry.where) == word_at(world_, entry.where))
        continue;  // it was changed back by itself
      const auto offset = static_cast<std::ptrdiff_t>(entry.where >> 8);
      const std::ptrdiff_t in_descs = offset - static_cast<std::ptrdiff_t>(copy.space().descs_offset);
      if (in_descs >= 0) {
        const auto page = static_cast<std::uint32_t>(in_descs / 16);
        if (!deciding(world_)[page] && !deciding(copy)[page]) continue;
        const PageKind kind = world_.allocator().desc(page).kind();
        if (in_descs % 16 == 8 && (kind == PageKind::free_tail || kind == PageKind::slab)) continue;
      }
      EXPECT_NE(compare(world_, copy), "") << "entry " << i << " of " << entries;
      ++detected;
    }
    EXPECT_GE(detected, 3);
  }

  static std::uint64_t scratch_of(PageWorld& world) {
    auto* scratch = &world.journal().entries[shared::kJournalCapacity - 1].old;
    return static_cast<std::uint64_t>(reinterpret_cast<std::byte*>(scratch) - world.segment());
  }
  static std::uint64_t word_at(PageWorld& world, std::uint64_t where) {
    std::uint64_t word = 0;
    std::memcpy(&word, world.segment() + (where >> 8), where & 0xff);
    return word;
  }

  PageWorld world_{64, 12};
  Pieces pieces_;
};

SpanRequest request_of(std::uint32_t pages, Placement placement = Placement::any, bool high = false) {
  SpanRequest request;
  request.pages = pages;
  request.bytes = std::uint64_t{pages} << 12;
  request.placement = placement;
  request.high_end = high;
  return request;
}

TEST_F(PageCrash, AllocateAWholeRun) {
  survives([](PageWorld& world, shared::Transaction& tx) {
    ASSERT_EQ(world.allocator().allocate(tx, request_of(6), 3), 4u);
  });
}
TEST_F(PageCrash, AllocateTheOnlyFreePage) {
  survives([](PageWorld& world, shared::Transaction& tx) {
    ASSERT_EQ(world.allocator().allocate(tx, request_of(1), 3), 21u);
  });
}
TEST_F(PageCrash, AllocateTheFrontOfARun) {
  survives([](PageWorld& world, shared::Transaction& tx) {
    ASSERT_EQ(world.allocator().allocate(tx, request_of(9), 3), 34u);
  });
}
TEST_F(PageCrash, AllocateTheBackOfARun) {
  survives([](PageWorld& world, shared::Transaction& tx) {
    ASSERT_EQ(world.allocator().allocate(tx, request_of(9, Placement::any, true), 3), 55u);
  });
}
TEST_F(PageCrash, AllocateTheMiddleOfARun) {
  survives([](PageWorld& world, shared::Transaction& tx) {
    SpanRequest request = request_of(7);
    request.align = 16 << 12;
    ASSERT_EQ(world.allocator().allocate(tx, request, 3), 48u);
  });
}
// Runs of 20 and 21 pages share a bin: such a run changes its length without leaving it.
TEST_F(PageCrash, AllocateTheBackOfARunThatStaysInItsBin) {
  ASSERT_EQ(world_.allocate(9), 34u);
  pieces_[34] = Piece{9};
  survives([](PageWorld& world, shared::Transaction& tx) {
    ASSERT_EQ(world.allocator().largest_free(), 21u);
    SpanRequest request = request_of(1, Placement::high);
    ASSERT_EQ(world.allocator().allocate(tx, request, 3), 63u);
  });
}
TEST_F(PageCrash, FreeBehindAFreeRunThatStaysInItsBin) {
  ASSERT_EQ(world_.allocate(9), 34u);
  pieces_[34] = Piece{9};
  ASSERT_EQ(world_.allocate(request_of(1, Placement::high)), 63u);
  pieces_[63] = Piece{1};
  ASSERT_EQ(world_.allocator().largest_free(), 20u);
  survives([](PageWorld& world, shared::Transaction& tx) { world.allocator().free(tx, 63, 1); });
}
TEST_F(PageCrash, FreeBetweenHeldRuns) {
  const std::uint32_t page = world_.allocate(1);  // 21: now both neighbours of 22..29 are used
  pieces_[page] = Piece{1};
  survives([](PageWorld& world, shared::Transaction& tx) { world.allocator().free(tx, 22, 8); });
}
TEST_F(PageCrash, FreeBehindAFreeRun) {
  survives([](PageWorld& world, shared::Transaction& tx) { world.allocator().free(tx, 10, 1); });
}
TEST_F(PageCrash, FreeBeforeAFreeRun) {
  survives([](PageWorld& world, shared::Transaction& tx) { world.allocator().free(tx, 11, 10); });
}
TEST_F(PageCrash, FreeASlabBeforeAFreeRun) {
  survives([](PageWorld& world, shared::Transaction& tx) {
    for (std::uint32_t page = 30; page < 34; ++page) tx.set(world.allocator().desc(page).word0, 0);
    world.allocator().free(tx, 30, 4);
  });
}
TEST_F(PageCrash, FreeBetweenFreeRuns) {
  world_.free(11, 10);  // then 10 is the only held page between free ones
  pieces_.erase(11);
  survives([](PageWorld& world, shared::Transaction& tx) { world.allocator().free(tx, 10, 1); });
}
TEST_F(PageCrash, GrowIntoAWholeRun) {
  survives([](PageWorld& world, shared::Transaction& tx) { world.allocator().grow(tx, 0, 4, 6); });
}
TEST_F(PageCrash, GrowIntoPartOfARun) {
  survives([](PageWorld& world, shared::Transaction& tx) { world.allocator().grow(tx, 0, 4, 3); });
}
TEST_F(PageCrash, GrowByOnePage) {
  survives([](PageWorld& world, shared::Transaction& tx) { world.allocator().grow(tx, 0, 4, 1); });
}
TEST_F(PageCrash, GrowOverTheOnlyFreePage) {
  survives([](PageWorld& world, shared::Transaction& tx) { world.allocator().grow(tx, 11, 10, 1); });
}
TEST_F(PageCrash, GrowOverARunThatHasANeighbourInItsBin) {
  // Its descriptor's links must survive, though a mark is put over them: page 4 is the first multiple of four.
  pieces_[world_.allocate(1)] = Piece{1};
  {
    auto tx = world_.transaction();
    world_.allocator().shrink(tx, 11, 10, 4);
    tx.commit();
  }
  pieces_[11].length = 4;
  ASSERT_EQ(world_.differences(pieces_), "");  // free: 4..9, 15..20, 34..63
  survives([](PageWorld& world, shared::Transaction& tx) { world.allocator().grow(tx, 0, 4, 6); });
}
TEST_F(PageCrash, GrowOverTheLastRunOfABin) {
  world_.free(11,
              10);  // joins 21: the only run of its bin, so its links are zero, and the mark's value is not
  pieces_.erase(11);
  survives([](PageWorld& world, shared::Transaction& tx) { world.allocator().grow(tx, 10, 1, 5); });
}
TEST_F(PageCrash, ShrinkBeforeAHeldRun) {
  survives([](PageWorld& world, shared::Transaction& tx) { world.allocator().shrink(tx, 22, 8, 3); });
}
TEST_F(PageCrash, ShrinkBeforeAFreeRunToOnePage) {
  survives([](PageWorld& world, shared::Transaction& tx) { world.allocator().shrink(tx, 11, 10, 1); });
}
TEST_F(PageCrash, MakeASlab) {
  survives([](PageWorld& world, shared::Transaction& tx) { world.allocator().make_slab(tx, 11, 10, 9); });
}
TEST_F(PageCrash, AllocateShrinkAndMakeASlab) {  // as one transaction, as new slabs do
  survives([](PageWorld& world, shared::Transaction& tx) {
    ASSERT_EQ(world.allocator().allocate(tx, request_of(16), 0), 34u);
    world.allocator().shrink(tx, 34, 16, 15);
    world.allocator().make_slab(tx, 34, 15, 9);
  });
}
TEST_F(PageCrash, SetHolder) {
  PageWorld world = world_;
  auto tx = world.transaction();
  world.allocator().set_holder(tx, 11, 4242);
  EXPECT_EQ(world.allocator().desc(11).holder(), 4242);
  EXPECT_EQ(world.allocator().desc(11).length(), 10u);
  tx.rollback();
  EXPECT_EQ(compare(world_, world), "");
}

// The undo itself is cut short, and then done again from the start.
TEST_F(PageCrash, UndoCutShortAnywhere) {
  PageWorld world = world_;
  auto tx = world.transaction();
  world.allocator().grow(tx, 0, 4, 3);
  world.allocator().free(tx, 11, 10);
  PageWorld unfinished = world;
  int points = 0;
  {
    const shared::CrashWatch watch([&](std::string_view) {
      ++points;
      PageWorld copy = unfinished;
      shared::undo(copy.segment(), copy.journal());
      ASSERT_EQ(compare(world_, copy), "") << "point " << points;
    });
    shared::undo(unfinished.segment(), unfinished.journal());
  }
  EXPECT_GT(points, 10);
}

TEST_F(PageCrash, RandomOperations) {
  const std::uint64_t seed = seed_for(99);
  SCOPED_TRACE(replay_hint(seed));
  Random random(seed);
  Pieces pieces_after = pieces_;
  for (int step = 0; step < 120 && !HasFailure(); ++step) {
    SCOPED_TRACE(step);
    const auto piece = std::next(pieces_.begin(), static_cast<std::ptrdiff_t>(below(random, pieces_.size())));
    const std::uint32_t page = piece->first;
    const Piece what = piece->second;
    const std::uint32_t behind = world_.allocator().free_after(page, what.length);
    Operation operation;
    switch (below(random, 4)) {
      case 0: {
        SpanRequest request = request_of(static_cast<std::uint32_t>(1 + below(random, 9)),
                                         static_cast<Placement>(below(random, 3)), one_in(random, 2));
        if (one_in(random, 2)) request.align = std::uint64_t{4096} << below(random, 5);
        const std::uint32_t at = world_.allocator().probe(request);
        if (at == kNoPage) continue;
        operation = [=](PageWorld& world, shared::Transaction& tx) {
          world.allocator().allocate(tx, request, 11);
        };
        pieces_after[at] = Piece{request.pages, false, 0, 11};
        break;
      }
      case 1:
        if (what.slab || pieces_.size() < 3) continue;
        operation = [=](PageWorld& world, shared::Transaction& tx) {
          world.allocator().free(tx, page, what.length);
        };
        pieces_after.erase(page);
        break;
      case 2: {
        if (what.slab || behind == 0) continue;
        const auto more = static_cast<std::uint32_t>(1 + below(random, behind));
        operation = [=](PageWorld& world, shared::Transaction& tx) {
          world.allocator().grow(tx, page, what.length, more);
        };
        pieces_after[page].length += more;
        break;
      }
      default: {
        if (what.slab || what.length == 1) continue;
        const auto left = static_cast<std::uint32_t>(1 + below(random, what.length - 1));
        operation = [=](PageWorld& world, shared::Transaction& tx) {
          world.allocator().shrink(tx, page, what.length, left);
        };
        pieces_after[page].length = left;
      }
    }
    survives(operation);
    auto tx = world_.transaction();
    operation(world_, tx);
    tx.commit();
    pieces_ = pieces_after;
    ASSERT_EQ(world_.differences(pieces_), "");
  }
}

}  // namespace
}  // namespace extmem::alloc
