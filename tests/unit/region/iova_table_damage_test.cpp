// IovaTable with damaged data, a damaged index or a hostile record: check() finds it, and no query leaves the data.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>

#include "region/iova_table.hpp"
#include "unit/region/iova_table_cases.hpp"

namespace extmem::region {
namespace {

/// Every query must end, stay inside the region and make progress, whatever the data holds.
void expect_sane(const Built& built, std::span<const std::uint32_t> index, Random& random) {
  const std::uint64_t covered = covered_bytes(built.table);
  std::uint64_t end = 0;
  for_each_run(built.table, built.segment(), [&](const IovaRun& run) {
    EXPECT_EQ(run.offset, end);
    EXPECT_GT(run.length, 0u);
    end = run.offset + run.length;
    return true;
  });
  EXPECT_EQ(end, covered);
  for (int i = 0; i < 30; ++i) {
    const std::uint64_t offset = below(random, covered);
    const Iova iova = lookup(built.table, built.segment(), offset);
    const IovaRun run = run_at(built.table, built.segment(), offset);
    EXPECT_LE(run.offset, offset);
    EXPECT_GT(run.offset + run.length, offset);
    EXPECT_LE(run.offset + run.length, covered);
    next_run(built.table, built.segment(), offset, below(random, covered));
    scatter_list(built.table, built.segment(), offset, covered - offset, {});
    for (const Iova wanted : {iova, Iova{random()}, Iova{built.table.iova_base + below(random, covered)}}) {
      const std::uint64_t found = find(built.table, built.segment(), index, wanted);
      EXPECT_TRUE(found == kNoOffset || found < covered);
    }
  }
}

TEST(IovaTableDamage, StaysInsideItsDataWhenDataIsDamaged) {
  for (std::uint64_t seed = 1; seed <= 600 && !HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    Built built =
        build_pages(make_pages(kShapes[seed % std::size(kShapes)], 1 + below(random, 500), 12, random), 12);
    std::vector<std::uint32_t> storage(reverse_words(built.table));
    auto index = build_reverse(built.table, built.segment(), storage);
    ASSERT_TRUE(index.ok());
    if (built.table.data_bytes == 0) continue;
    const std::vector<std::byte> before(built.segment(), built.segment() + built.bytes);
    for (std::uint64_t i = 1 + below(random, 20); i > 0; --i) {
      built.memory[64 + below(random, built.table.data_bytes)] = static_cast<std::byte>(random());
    }
    if (built.breach() == nullptr) check_reverse(built.table, built.segment(), *index);
    expect_sane(built, *index, random);

    std::vector<std::uint32_t> again(reverse_words(built.table));  // an index of damaged data
    index = build_reverse(built.table, built.segment(), again);
    ASSERT_TRUE(index.ok());
    expect_sane(built, *index, random);

    std::copy(before.begin(), before.end(), built.memory.get());  // a damaged index of good data
    for (std::uint64_t i = 1 + below(random, 5); i > 0; --i) {
      again[below(random, index->size())] = static_cast<std::uint32_t>(random());
    }
    check_reverse(built.table, built.segment(), *index);
    expect_sane(built, *index, random);
  }
}

TEST(IovaTableDamage, CheckFindsEveryDamagedByteOfTheRecord) {
  for (std::uint64_t seed = 1; seed <= 66; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    const Built built =
        build_pages(make_pages(kShapes[seed % std::size(kShapes)], 2 + below(random, 300), 12, random), 12);
    for (std::size_t byte = 0; byte < sizeof(IovaTable); ++byte) {
      // A shifted range of IOVAs is another valid table of the same shape: only a change of its extent is a breach.
      const bool shifts_iovas = built.table.form == IovaForm::linear && byte >= 40 && byte < 56;
      if (shifts_iovas) continue;
      for (unsigned bit = 0; bit < 8; ++bit) {
        IovaTable damaged = built.table;
        reinterpret_cast<unsigned char*>(&damaged)[byte] ^= static_cast<unsigned char>(1u << bit);
        const char* breach = check(damaged, built.segment(), built.bytes, covered_bytes(built.table));
        if (breach != nullptr) continue;
        // Few buckets may be right under two shifts; then the answers are too.
        EXPECT_EQ(byte, offsetof(IovaTable, bucket_shift)) << bit;
        for (std::uint64_t offset = 0; offset < covered_bytes(built.table); offset += 4096) {
          EXPECT_EQ(lookup(damaged, built.segment(), offset), lookup(built.table, built.segment(), offset));
        }
      }
    }
  }
}

TEST(IovaTableDamage, CheckFindsDamageOfTheStructure) {
  Random random(4);
  const Built runs = build_pages(make_pages(Shape::long_then_short, 800, 12, random), 12);
  ASSERT_EQ(runs.table.form, IovaForm::runs32);
  const std::uint64_t padding = runs.table.data_bytes - (runs.table.run_count + 1) * 8 -
                                ((((runs.table.os_pages - 1) >> runs.table.bucket_shift) + 2) * 4);
  const Built flat = build_pages(make_pages(Shape::scattered, 800, 12, random), 12);
  ASSERT_EQ(flat.table.form, IovaForm::flat32);
  for (const Built* built : {&runs, &flat}) {
    ASSERT_STREQ(built->breach(), nullptr);
    for (std::uint64_t byte = 64; byte < built->bytes; ++byte) {
      // Of runs: the first page of run 0, the sentinel and the buckets; another boundary or frame between two
      // runs may give another valid table.
      if (built == &runs && byte >= 64 + 4 && byte < 64 + runs.table.run_count * 8) continue;
      if (built == &runs && byte >= built->bytes - padding) continue;
      // Of flat: the bitmap.
      if (built == &flat && byte < 64 + 800 * 4) continue;
      for (unsigned bit = 0; bit < 8; ++bit) {
        built->memory[byte] ^= static_cast<std::byte>(1u << bit);
        EXPECT_STRNE(built->breach(), nullptr) << byte << ' ' << bit;
        built->memory[byte] ^= static_cast<std::byte>(1u << bit);
      }
    }
  }
}

TEST(IovaTableDamage, CheckTrustsNoRecord) {
  Random random(6);
  const Built built = build_pages(make_pages(Shape::runs, 400, 12, random), 12);
  for (int i = 0; i < 200000; ++i) {
    IovaTable hostile = built.table;
    auto* bytes = reinterpret_cast<unsigned char*>(&hostile);
    for (std::uint64_t k = 1 + below(random, 6); k > 0; --k)
      bytes[below(random, sizeof hostile)] = static_cast<unsigned char>(random());
    hostile.form = static_cast<IovaForm>(below(random, 7));
    const bool own = hostile.os_page_shift < 64 && below(random, 2) == 0;
    const std::uint64_t region = covered_bytes(own ? hostile : built.table);
    check(hostile, built.segment(), built.bytes, region);
  }
}

}  // namespace
}  // namespace extmem::region
