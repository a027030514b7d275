#include "shared/index_list.hpp"

#include <gtest/gtest.h>

#include <deque>
#include <memory>
#include <random>
#include <vector>

namespace extmem::shared {
namespace {

constexpr std::uint32_t kCapacity = 20;

struct Table {
  Journal journal;
  IndexList list;
  base::Relaxed<std::uint32_t> links[kCapacity];
};

class IndexListTest : public ::testing::Test {
 protected:
  IndexListTest() { table_->list.capacity = kCapacity; }
  [[nodiscard]] Transaction transaction() {
    return Transaction(reinterpret_cast<std::byte*>(table_.get()), table_->journal);
  }
  std::uint32_t take(bool commit = true) {
    auto tx = transaction();
    const std::uint32_t index = table_->list.take(
        tx, [&](std::uint32_t i) -> auto& { return table_->links[i]; });
    if (commit) tx.commit();
    return index;
  }
  void put(std::uint32_t index, bool commit = true) {
    auto tx = transaction();
    table_->list.put(
        tx, index, [&](std::uint32_t i) -> auto& { return table_->links[i]; });
    if (commit) tx.commit();
  }
  std::unique_ptr<Table> table_ = std::make_unique<Table>();
};

TEST_F(IndexListTest, GivesEachIndexOnceAndThenNone) {
  for (std::uint32_t i = 0; i < kCapacity; ++i) EXPECT_EQ(take(), i);
  EXPECT_EQ(take(), IndexList::kNone);
  EXPECT_EQ(take(), IndexList::kNone);
  put(7);
  EXPECT_EQ(take(), 7u);
  EXPECT_EQ(take(), IndexList::kNone);
}

TEST_F(IndexListTest, AnEmptyTableHasNone) {
  table_->list.capacity = 0;
  EXPECT_EQ(take(), IndexList::kNone);
}

TEST_F(IndexListTest, ReusesFirstInFirstOut) {
  for (std::uint32_t i = 0; i < 5; ++i) (void)take();
  for (const std::uint32_t index : {3u, 0u, 4u}) put(index);
  EXPECT_EQ(take(), 3u);
  put(1);
  EXPECT_EQ(take(), 0u);
  EXPECT_EQ(take(), 4u);
  EXPECT_EQ(take(), 1u);
  EXPECT_EQ(take(), 5u);
}

TEST_F(IndexListTest, ChangesNothingWithoutACommit) {
  for (std::uint32_t i = 0; i < 3; ++i) (void)take();
  put(1);
  EXPECT_EQ(take(false), 1u);
  EXPECT_EQ(take(false), 1u);
  put(2, false);
  EXPECT_EQ(take(), 1u);
  EXPECT_EQ(take(false), 3u);
  EXPECT_EQ(take(), 3u);
}

TEST_F(IndexListTest, AgreesWithAModelAfterRandomUse) {
  std::mt19937 random(7);
  std::deque<std::uint32_t> unused;
  std::uint32_t high = 0;
  std::vector<std::uint32_t> taken;
  for (int step = 0; step < 20'000; ++step) {
    const bool commit = random() % 3 != 0;
    if (taken.empty() || random() % 2 == 0) {
      const std::uint32_t expected = !unused.empty()    ? unused.front()
                                     : high < kCapacity ? high
                                                        : IndexList::kNone;
      ASSERT_EQ(take(commit), expected) << step;
      if (!commit || expected == IndexList::kNone) continue;
      if (!unused.empty()) {
        unused.pop_front();
      } else {
        ++high;
      }
      taken.push_back(expected);
    } else {
      const std::size_t which = random() % taken.size();
      put(taken[which], commit);
      if (!commit) continue;
      unused.push_back(taken[which]);
      taken.erase(taken.begin() + static_cast<std::ptrdiff_t>(which));
    }
  }
}

}  // namespace
}  // namespace extmem::shared
