// IovaTable against a naive map: one IOVA per page in a vector. The property test prints its seeds;
// EXTMEM_SEED=n runs that one again.
#include "region/iova_table.hpp"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "unit/region/iova_table_cases.hpp"

namespace extmem::region {
namespace {

TEST(IovaTable, MatchesNaiveMapForEveryShape) {
  const char* wanted = std::getenv("EXTMEM_SEED");
  const std::uint64_t first = wanted != nullptr ? std::strtoull(wanted, nullptr, 0) : std::random_device{}();
  const std::uint64_t last = wanted != nullptr ? first : first + 399;
  std::printf("seeds %llu to %llu\n", static_cast<unsigned long long>(first),
              static_cast<unsigned long long>(last));
  unsigned forms = 0;
  for (std::uint64_t seed = first; seed <= last && !HasFailure(); ++seed) {
    SCOPED_TRACE("EXTMEM_SEED=" + std::to_string(seed));
    Random random(seed);
    const Shape shape = kShapes[seed % std::size(kShapes)];
    const unsigned shift = static_cast<unsigned>(12 + below(random, 19));
    const std::size_t count = 1 + below(random, below(random, 4) == 0 ? 3000 : 200);
    const std::vector<Iova> pages = make_pages(shape, count, shift, random);
    const Built built = build_pages(pages, shift, 8 * below(random, 100));
    forms |= 1u << static_cast<unsigned>(built.table.form);
    expect_matches(built, Naive{pages, shift}, random);
  }
  if (wanted == nullptr) {
    EXPECT_EQ(forms, 0x3fu) << "some form was never taken";
  }
}

TEST(IovaTable, MatchesNaiveMapForPagesOfOneByteToABigOne) {
  Random random(1);
  for (const unsigned shift : {0u, 1u, 6u, 11u, 34u, 47u}) {
    SCOPED_TRACE(shift);
    const std::vector<Iova> pages = make_pages(Shape::runs, 100, shift, random);
    expect_matches(build_pages(pages, shift), Naive{pages, shift}, random);
  }
}

TEST(IovaTable, MatchesNaiveMapWhereIovasAreNoMultiplesOfThePageSize) {
  const std::uint64_t first = std::random_device{}();
  std::printf("seeds from %llu\n", static_cast<unsigned long long>(first));
  unsigned forms = 0;
  for (std::uint64_t seed = first; seed < first + 300 && !HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    const unsigned shift = static_cast<unsigned>(1 + below(random, 30));
    const unsigned kept =
        static_cast<unsigned>(below(random, shift));  // low bits that are the same everywhere
    const std::uint64_t all = below(random, std::uint64_t{1} << kept);
    std::vector<Iova> pages =
        make_pages(kShapes[seed % std::size(kShapes)], 1 + below(random, 400), shift, random);
    // Runs move as a whole: by one amount, or each by its own.
    const bool one = below(random, 4) == 0;
    std::uint64_t by = all;
    for (std::size_t i = 0; i < pages.size(); ++i) {
      const auto iova = static_cast<std::uint64_t>(pages[i]);
      if (iova == kBad) continue;
      if (!one && below(random, 8) == 0)
        by = all + (below(random, std::uint64_t{1} << (shift - kept)) << kept);
      pages[i] = Iova{(iova & (kBad >> 1)) + by};  // below 2^64, moved
    }
    const Built built = build_pages(pages, shift, 64, IovaAlign::any);
    forms |= 1u << static_cast<unsigned>(built.table.form);
    expect_matches(built, Naive{pages, shift}, random);
  }
  EXPECT_EQ(forms & ~1u, 0x3eu) << "some form was never taken";
}

TEST(IovaTable, CostsNothingMoreWhereAllIovasLieBesidePagesByTheSame) {
  Random random(3);
  const std::vector<Iova> aligned = make_pages(Shape::scattered, 1024, 21, random);
  std::vector<Iova> beside;
  for (const Iova iova : aligned) beside.push_back(Iova{static_cast<std::uint64_t>(iova) + 0x1000});
  const Built built = build_pages(beside, 21, 64, IovaAlign::any);
  EXPECT_EQ(built.table.form, IovaForm::flat32);
  EXPECT_EQ(built.table.finer, 0u);
  EXPECT_EQ(built.table.data_bytes, build_pages(aligned, 21).table.data_bytes);
  expect_matches(built, Naive{beside, 21}, random);
}

TEST(IovaTable, TakesTheSmallestForm) {
  Random random(7);
  EXPECT_EQ(build_pages(make_pages(Shape::bad, 1000, 12, random), 12).table.form, IovaForm::none);
  EXPECT_EQ(build_pages(make_pages(Shape::ascending, 1000, 12, random), 12).table.form, IovaForm::linear);
  EXPECT_EQ(build_pages(make_pages(Shape::long_then_short, 1000, 12, random), 12).table.form,
            IovaForm::runs32);
  const Built scattered = build_pages(make_pages(Shape::scattered, 1024, 12, random), 12);
  EXPECT_EQ(scattered.table.form, IovaForm::flat32);
  EXPECT_EQ(scattered.table.data_bytes, 1024 * 4 + 1024 / 8);
  EXPECT_EQ(build_pages(make_pages(Shape::wide, 1000, 12, random), 12).table.form, IovaForm::flat64);
}

TEST(IovaTable, CostsNoDataWhenLinear) {
  constexpr std::uint64_t kPages = std::uint64_t{1} << 35;  // 2^47 bytes of 4 KiB pages
  constexpr std::uint64_t kBytes = std::uint64_t{1} << 47;
  for (const std::uint64_t base :
       {std::uint64_t{0}, std::uint64_t{0x7f00'0000'0000}, (~std::uint64_t{0} << 47) - 4096}) {
    SCOPED_TRACE(base);
    const auto plan = plan_linear(Iova{base}, kPages, 12);
    ASSERT_TRUE(plan.ok());
    EXPECT_EQ(plan->data_bytes, 0u);
    IovaTable table;
    ASSERT_TRUE(build_iova_table(table, *plan, std::span<const Iova>{}, nullptr, 0).ok());
    EXPECT_STREQ(check(table, nullptr, 0, kBytes), nullptr);
    EXPECT_STRNE(check(table, nullptr, 0, kBytes - 4096), nullptr);
    for (const std::uint64_t offset : {std::uint64_t{0}, std::uint64_t{4097}, kBytes / 2 + 5, kBytes - 1}) {
      EXPECT_EQ(lookup(table, nullptr, offset), Iova{base + offset});
      EXPECT_EQ(find(table, nullptr, {}, Iova{base + offset}), offset);
      expect_run(run_at(table, nullptr, offset), {0, kBytes, Iova{base}});
      expect_run(next_run(table, nullptr, offset, 1), {offset, kBytes - offset, Iova{base + offset}});
    }
    EXPECT_EQ(lookup(table, nullptr, kBytes), kBadIova);
    EXPECT_EQ(find(table, nullptr, {}, Iova{base + kBytes}), kNoOffset);
    EXPECT_EQ(find(table, nullptr, {}, Iova{base - 1}), kNoOffset);
    EXPECT_TRUE(contiguous(table, nullptr, 0, kBytes));
    EXPECT_TRUE(contiguous(table, nullptr, kBytes - 1, 1));
    EXPECT_FALSE(contiguous(table, nullptr, 1, kBytes));
    EXPECT_FALSE(contiguous(table, nullptr, 1, ~std::uint64_t{0}));
    EXPECT_FALSE(contiguous(table, nullptr, 0, 0));
    EXPECT_EQ(scatter_list(table, nullptr, 1, kBytes, {}), 0u);
    EXPECT_EQ(scatter_list(table, nullptr, 1, ~std::uint64_t{0}, {}), 0u);
    EXPECT_EQ(scatter_list(table, nullptr, 1, kBytes - 1, {}), 1u);
    EXPECT_EQ(max_run_length(table), kBytes);
    EXPECT_EQ(reverse_words(table), 0u);
  }
}

TEST(IovaTable, KeepsAHugeRegionWithHolesAsRuns) {
  constexpr std::uint64_t kBytes = std::uint64_t{1} << 47;
  constexpr std::uint64_t kPiece = std::uint64_t{1} << 40;
  std::vector<IovaRun> runs;  // 128 pieces, last first; two of three known, the last page of each bad
  for (std::uint64_t i = 0; i < 128; ++i) {
    runs.push_back({i * kPiece, kPiece / 2, i % 3 == 0 ? kBadIova : Iova{(200 - i) * kPiece}});
    runs.push_back({i * kPiece + kPiece / 2, kPiece / 2 - 4096,
                    i % 3 == 0 ? kBadIova : Iova{(200 - i) * kPiece + kPiece / 2}});
    runs.push_back({(i + 1) * kPiece - 4096, 4096, kBadIova});
  }
  const auto plan = plan_iova_runs(runs, 12);
  ASSERT_TRUE(plan.ok()) << plan.error().message();
  EXPECT_EQ(plan->table.form, IovaForm::runs64);
  EXPECT_LT(plan->data_bytes, 16384u);
  const Built built = build(*plan, std::span<const IovaRun>(runs));
  ASSERT_STREQ(check(built.table, built.segment(), built.bytes, kBytes), nullptr);
  std::vector<std::uint32_t> storage(reverse_words(built.table));
  const auto index = build_reverse(built.table, built.segment(), storage);
  ASSERT_TRUE(index.ok());
  EXPECT_STREQ(check_reverse(built.table, built.segment(), *index), nullptr);
  Random random(3);
  for (int i = 0; i < 20000; ++i) {
    const std::uint64_t offset =
        i % 2 == 0 ? below(random, kBytes) : below(random, 128) * kPiece + kPiece - 4097 + below(random, 3);
    const std::uint64_t piece = offset / kPiece;
    const bool known = piece % 3 != 0 && offset % kPiece < kPiece - 4096;
    const Iova iova = lookup(built.table, built.segment(), offset);
    ASSERT_EQ(iova, known ? Iova{(200 - piece) * kPiece + offset % kPiece} : kBadIova);
    if (!known) continue;
    ASSERT_EQ(find(built.table, built.segment(), *index, iova), offset);
    expect_run(run_at(built.table, built.segment(), offset),
               {piece * kPiece, kPiece - 4096, Iova{(200 - piece) * kPiece}});
  }
}

TEST(IovaTable, PlansTheSameFromRunsAsFromPages) {
  Random random(11);
  for (const Shape shape : kShapes) {
    const std::vector<Iova> pages = make_pages(shape, 777, 14, random);
    const Naive naive{pages, 14};
    std::vector<IovaRun> pieces;  // runs cut at random
    for (const IovaRun& run : naive.runs(0, naive.bytes())) {
      std::uint64_t done = 0;
      while (done < run.length) {
        const std::uint64_t length = (1 + below(random, (run.length - done) >> 14)) << 14;
        pieces.push_back(
            {run.offset + done, length,
             run.iova == kBadIova ? kBadIova : Iova{static_cast<std::uint64_t>(run.iova) + done}});
        done += length;
      }
    }
    const auto plan = plan_iova_runs(pieces, 14);
    ASSERT_TRUE(plan.ok());
    const Built from_runs = build(*plan, std::span<const IovaRun>(pieces));
    const Built from_pages = build_pages(pages, 14);
    EXPECT_EQ(std::memcmp(&from_runs.table, &from_pages.table, sizeof(IovaTable)), 0);
    expect_matches(from_runs, naive, random);
  }
}

TEST(IovaTable, RefusesBadInput) {
  const auto code = [](const Result<IovaPlan>& plan) { return plan.error().code(); };
  EXPECT_EQ(code(plan_iova_table({}, 12)), EINVAL);
  EXPECT_EQ(code(plan_iova_table(iovas({0}), 57)), EINVAL);
  EXPECT_EQ(code(plan_iova_table(iovas({0, 4096 + 8}), 12)), EINVAL);
  EXPECT_EQ(code(plan_iova_table(iovas({0, kBad - 1}), 12)), EINVAL);
  EXPECT_EQ(code(plan_iova_table(iovas({0, std::uint64_t{0} - 4096}), 12)), EOVERFLOW);
  EXPECT_EQ(code(plan_iova_table(iovas({std::uint64_t{0} - 8192, std::uint64_t{0} - 4096}), 12)), EOVERFLOW);
  EXPECT_EQ(code(plan_iova_table(iovas({std::uint64_t{0} - 4096, 0}), 12)), EOVERFLOW);
  EXPECT_TRUE(plan_iova_table(iovas({std::uint64_t{0} - 8192, kBad, 0}), 12).ok());
  EXPECT_EQ(code(plan_iova_table(iovas({0, 0}), 56)), EOVERFLOW);
  EXPECT_TRUE(plan_iova_table(iovas({0}), 56).ok());

  EXPECT_EQ(code(plan_linear(Iova{4096}, 0, 12)), EINVAL);
  EXPECT_EQ(code(plan_linear(Iova{4095}, 1, 12)), EINVAL);
  EXPECT_EQ(code(plan_linear(Iova{std::uint64_t{0} - 8192}, 2, 12)), EOVERFLOW);
  EXPECT_TRUE(plan_linear(Iova{std::uint64_t{0} - 8192}, 1, 12).ok());
  EXPECT_EQ(code(plan_linear(Iova{0}, (std::uint64_t{1} << 44) + 1, 12)), EOVERFLOW);
  EXPECT_EQ(code(plan_linear(Iova{0}, ~std::uint64_t{0}, 12)), EOVERFLOW);
  EXPECT_EQ(code(plan_none(0, 12)), EINVAL);
  EXPECT_EQ(code(plan_none(1, 64)), EINVAL);
  EXPECT_EQ(code(plan_none(~std::uint64_t{0}, 0)), EOVERFLOW);

  const auto runs_code = [&](std::vector<IovaRun> runs) { return code(plan_iova_runs(runs, 12)); };
  EXPECT_EQ(runs_code({}), EINVAL);
  EXPECT_EQ(runs_code({{4096, 4096, Iova{0}}}), EINVAL);
  EXPECT_EQ(runs_code({{0, 4096, Iova{0}}, {8192, 4096, Iova{0}}}), EINVAL);
  EXPECT_EQ(runs_code({{0, 0, Iova{0}}}), EINVAL);
  EXPECT_EQ(runs_code({{0, 5000, Iova{0}}}), EINVAL);
  EXPECT_EQ(runs_code({{0, 4096, Iova{1}}}), EINVAL);
  EXPECT_EQ(runs_code({{0, std::uint64_t{0} - 4096, Iova{0}}}), EOVERFLOW);
  EXPECT_EQ(runs_code({{0, 8192, Iova{std::uint64_t{0} - 4096}}}), EOVERFLOW);
}

TEST(IovaTable, RefusesInputThatChangedAfterThePlan) {
  Random random(5);
  for (const Shape shape : {Shape::scattered, Shape::runs, Shape::wide, Shape::few_wide}) {
    const std::vector<Iova> planned = make_pages(shape, 2000, 12, random);
    const auto plan = plan_iova_table(planned, 12);
    ASSERT_TRUE(plan.ok());
    const auto memory = std::make_unique<std::byte[]>(plan->data_bytes);
    const auto refused = [&](const std::vector<Iova>& pages) {
      IovaTable table;
      const auto built = build_iova_table(table, *plan, std::span<const Iova>(pages), memory.get(), 0);
      EXPECT_EQ(table.os_pages, 0u);
      return built.error().code();
    };
    for (const Shape other : kShapes) {
      EXPECT_EQ(refused(make_pages(other, 2000, 12, random)), EINVAL);
      EXPECT_EQ(refused(make_pages(other, 2001, 12, random)), EINVAL);
    }
    std::vector<Iova> changed = planned;
    changed[1000] = Iova{7};
    EXPECT_EQ(refused(changed), EINVAL);
    changed.resize(1000);
    EXPECT_EQ(refused(changed), EINVAL);
  }
}

TEST(IovaTable, AnswersNothingWhenZero) {
  const IovaTable table{};
  EXPECT_EQ(lookup(table, nullptr, 0), kBadIova);
  expect_run(run_at(table, nullptr, 0), {0, 0, kBadIova});
  expect_run(next_run(table, nullptr, 0, 0), {0, 0, kBadIova});
  EXPECT_FALSE(contiguous(table, nullptr, 0, 1));
  EXPECT_EQ(scatter_list(table, nullptr, 0, 1, {}), 0u);
  EXPECT_EQ(find(table, nullptr, {}, Iova{0}), kNoOffset);
  EXPECT_TRUE(for_each_run(table, nullptr, [](const IovaRun&) { return false; }));
  EXPECT_STRNE(check(table, nullptr, 0, 0), nullptr);
}

TEST(IovaTable, StopsAWalkWhenTheVisitorSaysSo) {
  const std::vector<Iova> pages = iovas({0x4000, 0x1000, kBad, 0x2000});
  const Built built = build_pages(pages, 12);
  int seen = 0;
  EXPECT_FALSE(for_each_run(built.table, built.segment(), [&](const IovaRun&) { return ++seen < 2; }));
  EXPECT_EQ(seen, 2);
}

TEST(IovaTable, ReverseFindsAllOverlappingRuns) {
  // A long run, with short ones inside its IOVAs: a search by start alone would miss the long one's tail.
  std::vector<Iova> pages;
  for (std::uint64_t i = 0; i < 100; ++i) pages.push_back(Iova{(1000 + i) << 12});
  for (std::uint64_t i = 0; i < 10; ++i) pages.push_back(Iova{(1005 + 7 * i) << 12});
  const Built built = build_pages(pages, 12);
  Random random(9);
  expect_matches(built, Naive{pages, 12}, random);
  std::vector<std::uint32_t> storage(reverse_words(built.table));
  const auto index = build_reverse(built.table, built.segment(), storage);
  ASSERT_TRUE(index.ok());
  EXPECT_EQ((*index)[0], 2u);
  for (std::uint64_t i = 0; i < 100; ++i) {
    EXPECT_NE(find(built.table, built.segment(), *index, Iova{(1000 + i) << 12}), kNoOffset);
  }
  EXPECT_EQ(find(built.table, built.segment(), *index, Iova{1100 << 12}), kNoOffset);
}

TEST(IovaTable, ReverseRefusesTooLittleStorage) {
  Random random(2);
  const Built built = build_pages(make_pages(Shape::scattered, 50, 12, random), 12);
  std::vector<std::uint32_t> storage(reverse_words(built.table) - 1);
  EXPECT_EQ(build_reverse(built.table, built.segment(), storage).error().code(), ENOSPC);
  EXPECT_EQ(build_reverse(built.table, built.segment(), {}).error().code(), ENOSPC);
}

}  // namespace
}  // namespace extmem::region
