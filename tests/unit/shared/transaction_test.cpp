#include "shared/transaction.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "unit/shared/crash_watch.hpp"

namespace extmem::shared {
namespace {

struct Words {
  Journal journal;
  base::Relaxed<std::uint64_t> wide;
  base::Relaxed<std::int64_t> negative;
  base::Relaxed<std::uint32_t> middle;
  base::Relaxed<std::uint16_t> narrow;
  base::Relaxed<std::uint16_t> neighbour;
};

class TransactionTest : public ::testing::Test {
 protected:
  TransactionTest() {
    words_->wide = 0x1122334455667788;
    words_->negative = -5;
    words_->middle = 0xa0b0c0d0;
    words_->narrow = 0x1234;
    words_->neighbour = 0x5678;
  }
  [[nodiscard]] std::byte* base() const { return reinterpret_cast<std::byte*>(words_.get()); }
  void change_all(Transaction& tx) {
    tx.set(words_->wide, 1);
    tx.add(words_->negative, -1);
    tx.set(words_->middle, 2);
    tx.set(words_->narrow, 3);
    tx.add(words_->middle, 4);
    tx.set(words_->wide, ~std::uint64_t{0});
  }
  void expect_old() const {
    EXPECT_EQ(words_->wide, 0x1122334455667788u);
    EXPECT_EQ(words_->negative, -5);
    EXPECT_EQ(words_->middle, 0xa0b0c0d0u);
    EXPECT_EQ(words_->narrow, 0x1234u);
    EXPECT_EQ(words_->neighbour, 0x5678u);
    EXPECT_EQ(words_->journal.count, 0u);
  }
  std::unique_ptr<Words> words_ = std::make_unique<Words>();
};

TEST_F(TransactionTest, CommittedChangesStay) {
  {
    Transaction tx(base(), words_->journal);
    change_all(tx);
    EXPECT_EQ(words_->middle, 6u);
    tx.commit();
    EXPECT_EQ(words_->journal.count, 0u);
  }
  EXPECT_EQ(words_->wide, ~std::uint64_t{0});
  EXPECT_EQ(words_->negative, -6);
  EXPECT_EQ(words_->middle, 6u);
  EXPECT_EQ(words_->narrow, 3u);
  EXPECT_EQ(words_->neighbour, 0x5678u);
}

TEST_F(TransactionTest, EndsWithoutACommitAsIfNothingHadBeen) {
  {
    Transaction tx(base(), words_->journal);
    change_all(tx);
  }
  expect_old();
}

TEST_F(TransactionTest, GoesOnAfterARollback) {
  Transaction tx(base(), words_->journal);
  change_all(tx);
  tx.rollback();
  expect_old();
  tx.set(words_->narrow, 9);
  tx.commit();
  EXPECT_EQ(words_->narrow, 9u);
}

TEST_F(TransactionTest, JournalsOnlyWordsThatChange) {
  Transaction tx(base(), words_->journal);
  tx.set(words_->narrow, 0x1234);
  EXPECT_EQ(words_->journal.count, 0u);
  EXPECT_EQ(tx.room(), kJournalCapacity);
  tx.set(words_->narrow, 1);
  tx.set(words_->narrow, 0x1234);
  EXPECT_EQ(tx.room(), kJournalCapacity - 2);
}

TEST_F(TransactionTest, HoldsAsManyWordsAsItSays) {
  Transaction tx(base(), words_->journal);
  while (tx.room() > 0) tx.add(words_->wide, 1);
  EXPECT_EQ(words_->wide, 0x1122334455667788u + kJournalCapacity);
  tx.rollback();
  expect_old();
}

// At every point between two stores, a cleaner that knows only the bytes restores the old state; and so it does when it
// is itself cut short anywhere and begins again.
TEST_F(TransactionTest, IsUndoneFromAnyPointEvenByACleanerThatDies) {
  struct alignas(64) Bytes {
    std::byte bytes[sizeof(Words)];
  };
  const auto undone = [&](const Bytes& start) {
    Bytes copy = start;
    auto* const words = reinterpret_cast<Words*>(copy.bytes);
    undo(copy.bytes, words->journal);
    return words->wide == 0x1122334455667788 && words->negative == -5 && words->middle == 0xa0b0c0d0 &&
           words->narrow == 0x1234 && words->neighbour == 0x5678 && words->journal.count == 0;
  };
  std::vector<Bytes> dead;
  Transaction tx(base(), words_->journal);
  {
    const CrashWatch watch([&](std::string_view) {
      dead.emplace_back();
      std::memcpy(dead.back().bytes, base(), sizeof(Words));
    });
    change_all(tx);
  }
  EXPECT_EQ(dead.size(), 12u);  // before and after each of six stores
  for (const Bytes& bytes : dead) EXPECT_TRUE(undone(bytes));
  std::vector<Bytes> dead_cleaners;
  Bytes cleaned = dead.back();
  {
    const CrashWatch watch([&](std::string_view name) {
      EXPECT_EQ(name, "undo.step");
      dead_cleaners.push_back(cleaned);
    });
    undo(cleaned.bytes, reinterpret_cast<Words*>(cleaned.bytes)->journal);
  }
  EXPECT_EQ(dead_cleaners.size(), 6u);
  for (const Bytes& bytes : dead_cleaners) EXPECT_TRUE(undone(bytes));
  tx.rollback();
  expect_old();
}

}  // namespace
}  // namespace extmem::shared
