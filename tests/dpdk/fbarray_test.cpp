// fbarrays in one process: errors and their order, every search against a model, counts under many threads.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rte_errno.h>
#include <rte_fbarray.h>

#include <climits>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>

#include "dpdk/fbarray_model.hpp"
#include "faces/dpdk/fbarray.hpp"

namespace {

using extmem::dpdk::destroy_private_array;
using extmem::dpdk::init_private_array;

static_assert(offsetof(rte_fbarray, name) == 0 && offsetof(rte_fbarray, count) == 64 &&
              offsetof(rte_fbarray, len) == 68 && offsetof(rte_fbarray, elt_sz) == 72 &&
              offsetof(rte_fbarray, data) == 80 && offsetof(rte_fbarray, rwlock) == 88 &&
              sizeof(rte_fbarray) == 96);

class Fbarray : public ::testing::Test {
 protected:
  void make(unsigned len, unsigned elt_sz = 8) {
    destroy_private_array(&array_);
    ASSERT_EQ(init_private_array(&array_, "test", len, elt_sz), 0) << rte_errno;
  }
  void TearDown() override { destroy_private_array(&array_); }
  template <typename Call>
  static int error_of(Call&& call) {
    rte_errno = 0;
    return call() == -1 ? rte_errno : 0;
  }
  rte_fbarray array_{};
};

TEST_F(Fbarray, MakingOneReportsBadArgumentsInOrder) {
  const std::string longest(RTE_FBARRAY_NAME_LEN - 1, 'n');
  const std::string too_long(RTE_FBARRAY_NAME_LEN, 'n');
  const auto error = [&](rte_fbarray* array, const char* name, unsigned len, unsigned elt_sz) {
    return error_of([&] { return init_private_array(array, name, len, elt_sz); });
  };
  EXPECT_EQ(error(nullptr, "a", 1, 1), EINVAL);
  EXPECT_EQ(error(&array_, nullptr, 1, 1), EINVAL);
  EXPECT_EQ(error(&array_, "a", 0, 1), EINVAL);
  EXPECT_EQ(error(&array_, "a", 1, 0), EINVAL);
  EXPECT_EQ(error(&array_, "a", unsigned{INT_MAX} + 1, 1), EINVAL);
  EXPECT_EQ(error(&array_, too_long.c_str(), 0, 1), EINVAL) << "the length is looked at before the name's";
  EXPECT_EQ(error(&array_, too_long.c_str(), 1, 1), ENAMETOOLONG);
  EXPECT_EQ(array_.data, nullptr) << "a failure leaves the struct alone";
  EXPECT_EQ(error_of([&] { return init_private_array(&array_, longest.c_str(), 1, 1); }), 0);
  EXPECT_EQ(array_.name, longest);
}

TEST_F(Fbarray, EveryFunctionRefusesWhatIsNotInTheArray) {
  make(100);
  using Plain = int (*)(rte_fbarray*, unsigned);
  for (const Plain call :
       {&rte_fbarray_set_used, &rte_fbarray_set_free, &rte_fbarray_is_used, &rte_fbarray_find_next_free,
        &rte_fbarray_find_next_used, &rte_fbarray_find_prev_free, &rte_fbarray_find_prev_used,
        &rte_fbarray_find_contig_free, &rte_fbarray_find_contig_used, &rte_fbarray_find_rev_contig_free,
        &rte_fbarray_find_rev_contig_used, &rte_fbarray_find_biggest_free, &rte_fbarray_find_biggest_used,
        &rte_fbarray_find_rev_biggest_free, &rte_fbarray_find_rev_biggest_used}) {
    EXPECT_EQ(error_of([&] { return call(nullptr, 0); }), EINVAL);
    EXPECT_EQ(error_of([&] { return call(&array_, 100); }), EINVAL);
    EXPECT_EQ(error_of([&] { return call(&array_, UINT_MAX); }), EINVAL);
  }
  using WithN = int (*)(rte_fbarray*, unsigned, unsigned);
  for (const WithN call : {&rte_fbarray_find_next_n_free, &rte_fbarray_find_next_n_used,
                           &rte_fbarray_find_prev_n_free, &rte_fbarray_find_prev_n_used}) {
    EXPECT_EQ(error_of([&] { return call(nullptr, 0, 1); }), EINVAL);
    EXPECT_EQ(error_of([&] { return call(&array_, 100, 1); }), EINVAL);
    EXPECT_EQ(error_of([&] { return call(&array_, 0, 0); }), EINVAL);
    EXPECT_EQ(error_of([&] { return call(&array_, 0, 101); }), EINVAL);
  }
  rte_errno = 0;
  EXPECT_EQ(rte_fbarray_get(&array_, 100), nullptr);
  EXPECT_EQ(rte_errno, EINVAL);
  EXPECT_EQ(rte_fbarray_get(nullptr, 0), nullptr);
  EXPECT_EQ(array_.count, 0u);
}

TEST_F(Fbarray, AddressesAndIndicesGoBothWays) {
  make(1000, 24);
  auto* const data = static_cast<char*>(array_.data);
  for (const unsigned i : {0u, 1u, 500u, 999u}) {
    EXPECT_EQ(rte_fbarray_get(&array_, i), data + 24 * i);
    EXPECT_EQ(rte_fbarray_find_idx(&array_, data + 24 * i), int(i));
    EXPECT_EQ(rte_fbarray_find_idx(&array_, data + 24 * i + 23), int(i)) << "an address inside";
  }
  EXPECT_EQ(error_of([&] { return rte_fbarray_find_idx(&array_, data - 1); }), EINVAL);
  EXPECT_EQ(error_of([&] { return rte_fbarray_find_idx(&array_, data + 24 * 1000); }), EINVAL);
  EXPECT_EQ(error_of([&] { return rte_fbarray_find_idx(&array_, nullptr); }), EINVAL);
  EXPECT_EQ(error_of([&] { return rte_fbarray_find_idx(nullptr, data); }), EINVAL);
  EXPECT_EQ(std::count(data, data + 24 * 1000, '\0'), 24 * 1000);
}

// 32-bit arithmetic ends at 4 GiB of elements; the marks of 341 GiB of 4 KiB pages are as many.
TEST_F(Fbarray, SizesAreCountedInSixtyFourBits) {
  make(100'000'000, 4096);
  auto* const last = static_cast<char*>(rte_fbarray_get(&array_, 99'999'999));
  EXPECT_EQ(last - static_cast<char*>(array_.data), 99'999'999L * 4096);
  std::memset(last, 7, 4096);
  EXPECT_EQ(rte_fbarray_find_idx(&array_, last + 4095), 99'999'999);
  EXPECT_EQ(rte_fbarray_set_used(&array_, 99'999'999), 0);
  EXPECT_EQ(rte_fbarray_find_next_used(&array_, 99'990'000), 99'999'999);
  EXPECT_EQ(rte_fbarray_find_prev_n_free(&array_, 99'999'999, 99'999'999), 0);
}

TEST_F(Fbarray, MarkingTwiceChangesNothing) {
  make(100);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(rte_fbarray_set_used(&array_, 64), 0);
    EXPECT_EQ(array_.count, 1u);
    EXPECT_EQ(rte_fbarray_is_used(&array_, 64), 1);
  }
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(rte_fbarray_set_free(&array_, 64), 0);
    EXPECT_EQ(array_.count, 0u);
    EXPECT_EQ(rte_fbarray_is_used(&array_, 64), 0);
  }
}

TEST_F(Fbarray, MarksManyElementsAtOnce) {
  std::mt19937_64 random(17);
  make(1000);
  fbarray_model::Bits bits(1000, false);
  for (int i = 0; i < 2000; ++i) {
    const unsigned start = unsigned(random() % 1000), n = unsigned(1 + random() % (1000 - start));
    const bool used = random() % 2 == 0;
    ASSERT_EQ(extmem::dpdk::mark_elements(array_, start, n, used), 0);
    std::fill_n(bits.begin() + start, n, used);
    ASSERT_EQ(array_.count, unsigned(std::count(bits.begin(), bits.end(), true)));
    fbarray_model::compare(
        &array_, bits, unsigned(random() % 1000), 1 + unsigned(random() % 200),
        [](const fbarray_model::Difference& difference) { ADD_FAILURE() << difference.text(); });
  }
}

class FbarrayModel : public Fbarray, public ::testing::WithParamInterface<unsigned> {};

TEST_P(FbarrayModel, EverySearchAnswersAsTheModel) {
  const unsigned len = GetParam();
  const char* const given = std::getenv("EXTMEM_TEST_SEED");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 0) : std::random_device{}();
  SCOPED_TRACE("EXTMEM_TEST_SEED=" + std::to_string(seed));
  make(len);
  const bool large = len > 10'000;
  int differences = 0;
  fbarray_model::run(&array_, seed, large ? 4 : 400, large ? 4 : 20,
                     [&](const fbarray_model::Difference& difference) {
                       if (++differences <= 10) ADD_FAILURE() << difference.text();
                     });
  EXPECT_EQ(differences, 0);
}
INSTANTIATE_TEST_SUITE_P(Lengths, FbarrayModel,
                         ::testing::Values(1, 2, 63, 64, 65, 127, 128, 129, 1000, 1'000'000));

TEST_F(Fbarray, ThreadsThatShareWordsCountRight) {
  make(256);
  constexpr unsigned kThreads = 4;
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937_64 random(t);
      for (int i = 0; i < 50'000; ++i) {
        const unsigned index = unsigned(random() % 64) * kThreads + t;
        (random() % 2 == 0 ? rte_fbarray_set_used : rte_fbarray_set_free)(&array_, index);
        if (rte_fbarray_is_used(&array_, index) < 0 || rte_fbarray_find_biggest_free(&array_, t) == -2)
          return;
      }
      for (unsigned i = 0; i < 64; ++i)
        (i % 4 <= t ? rte_fbarray_set_used : rte_fbarray_set_free)(&array_, i * kThreads + t);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(array_.count, 16u * (1 + 2 + 3 + 4));
  EXPECT_EQ(rte_fbarray_find_next_n_used(&array_, 0, 4), 0);
  EXPECT_EQ(rte_fbarray_find_contig_used(&array_, 0), 4);
}

TEST_F(Fbarray, DumpShowsRowsOfUsedElements) {
  make(300, 16);
  ASSERT_EQ(extmem::dpdk::mark_elements(array_, 60, 10, true), 0);
  rte_fbarray_set_used(&array_, 299);
  char text[1000] = {};
  FILE* const file = ::fmemopen(text, sizeof(text), "w");
  rte_fbarray_dump_metadata(&array_, file);
  std::fclose(file);
  EXPECT_STREQ(text,
               "File-backed array: test\nsize: 300 occupied: 11 elt_sz: 16\n  used: 60 to 69\n  used: 299\n");
  rte_errno = 0;
  rte_fbarray_dump_metadata(nullptr, stderr);
  EXPECT_EQ(rte_errno, EINVAL);
}

}  // namespace
