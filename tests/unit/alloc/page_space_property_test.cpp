// Random requests with every constraint, against a naive page array and a naive search.
#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <ostream>

#include "unit/alloc/page_oracle.hpp"
#include "unit/alloc/page_world.hpp"
#include "unit/alloc/seed.hpp"

namespace extmem::alloc {
namespace {

enum class IovaMap { none, identity, runs, dense };

struct Shape {
  const char* name;
  std::uint32_t pages;
  unsigned page_shift;
  unsigned os_shift;
  IovaMap map;
  std::uint64_t phase;
};
std::ostream& operator<<(std::ostream& out, const Shape& shape) { return out << shape.name; }

std::vector<std::uint64_t> make_iovas(Random& random, const Shape& shape) {
  const std::uint64_t os_pages =
      base::align_up(std::uint64_t{shape.pages} << shape.page_shift, std::uint64_t{1} << shape.os_shift) >>
      shape.os_shift;
  std::vector<std::uint64_t> iovas(os_pages, PageOracle::kUnknown);
  if (shape.map == IovaMap::none) return iovas;
  std::uint64_t next = shape.map == IovaMap::identity ? shape.phase >> shape.os_shift : 0;
  std::uint64_t left = 0;
  bool known = true;
  for (auto& iova : iovas) {
    if (shape.map != IovaMap::identity && left == 0) {
      left = shape.map == IovaMap::dense ? 1 + below(random, 2) : 1 + below(random, 24);
      next = below(random, 4096);
      known = !one_in(random, 4);
    }
    if (known) iova = next << shape.os_shift;
    ++next;
    --left;
  }
  return iovas;
}

class Property : public ::testing::TestWithParam<Shape> {
 protected:
  Property()
      : seed_(seed_for(20240607)),
        random_(seed_),
        shape_(GetParam()),
        oracle_{shape_.page_shift, shape_.os_shift, make_iovas(random_, shape_),
                std::vector<bool>(shape_.pages)},
        world_(shape_.pages, shape_.page_shift, std::uint64_t{16} * oracle_.os_iovas.size() + 4096) {
    std::vector<Iova> iovas;
    for (const std::uint64_t iova : oracle_.os_iovas) iovas.push_back(Iova{iova});
    const auto plan = region::plan_iova_table(iovas, shape_.os_shift);
    EXPECT_TRUE(plan.ok());
    const std::uint64_t at = base::align_up(world_.iova_at(), 8);
    EXPECT_TRUE(
        region::build_iova_table(table_, *plan, std::span<const Iova>(iovas), world_.segment() + at, at)
            .ok());
  }

  [[nodiscard]] std::uint64_t page_size() const { return std::uint64_t{1} << shape_.page_shift; }

  SpanRequest random_request() {
    SpanRequest request;
    const std::uint64_t most = one_in(random_, 8) ? shape_.pages / 2 : one_in(random_, 3) ? 40 : 6;
    request.pages = static_cast<std::uint32_t>(1 + below(random_, most));
    request.bytes = (std::uint64_t{request.pages} << shape_.page_shift) -
                    (one_in(random_, 2) ? 0 : below(random_, page_size()));
    request.phase = shape_.phase;
    request.nocross_in_addresses = one_in(random_, 2);
    request.segment = world_.segment();
    request.iova = &table_;
    if (one_in(random_, 3)) request.align = std::uint64_t{1} << below(random_, shape_.page_shift + 6);
    if (one_in(random_, 3)) request.nocross = std::bit_ceil(request.bytes) << below(random_, 4);
    if (one_in(random_, 3)) request.iova_contiguous = true;
    if (one_in(random_, 4))
      request.dma_bits = static_cast<std::uint8_t>(shape_.os_shift + below(random_, 13) + 1);
    if (one_in(random_, 4)) {
      const std::uint64_t all = std::uint64_t{shape_.pages} << shape_.page_shift;
      request.min_offset = one_in(random_, 2) ? 0 : below(random_, all);
      request.max_offset = one_in(random_, 2) ? ~std::uint64_t{0} : request.min_offset + below(random_, all);
    }
    request.placement = static_cast<Placement>(below(random_, 3));
    request.high_end = one_in(random_, 2);
    return request;
  }

  void try_allocate() {
    const SpanRequest request = random_request();
    const bool high = request.placement == Placement::high;
    const auto expected = oracle_.find(request, high);
    const std::uint32_t probed = world_.allocator().probe(request);
    const auto holder = static_cast<std::uint16_t>(below(random_, 65536));
    const std::uint32_t got = world_.allocate(request, holder);
    ASSERT_EQ(got, probed);
    ASSERT_EQ(got != kNoPage, expected.has_value())
        << request.pages << " pages, " << request.bytes << " bytes, align " << request.align << ", nocross "
        << request.nocross << ", contiguous " << request.iova_contiguous << ", dma " << int{request.dma_bits}
        << ", window " << request.min_offset << ".." << request.max_offset << ", naive "
        << expected.value_or(kNoPage);
    if (got == kNoPage) {
      ++refused_;
      return;
    }
    ++served_;
    ASSERT_TRUE(oracle_.legal(request, got, request.bytes)) << "page " << got;
    ASSERT_GE(oracle_.free_pages_from(got), request.pages);
    if (request.placement != Placement::any) {
      ASSERT_EQ(got, *expected);
    }
    pieces_[got] = Piece{request.pages, false, 0, holder};
    mark(got, request.pages, true);
  }

  void free_one(Pieces::iterator run) {
    world_.free(run->first, run->second.length);
    mark(run->first, run->second.length, false);
    pieces_.erase(run);
  }

  void resize_one(Pieces::iterator run) {
    auto& [page, what] = *run;
    if (what.slab) return;
    const std::uint32_t behind = oracle_.free_pages_from(page + what.length);
    auto pages = world_.allocator();
    ASSERT_EQ(pages.free_after(page, what.length), behind);
    auto tx = world_.transaction();
    if (behind != 0 && one_in(random_, 2)) {
      const auto more = static_cast<std::uint32_t>(1 + below(random_, behind));
      pages.grow(tx, page, what.length, more);
      mark(page + what.length, more, true);
      what.length += more;
    } else if (what.length > 1) {
      const auto left = static_cast<std::uint32_t>(1 + below(random_, what.length - 1));
      pages.shrink(tx, page, what.length, left);
      mark(page + left, what.length - left, false);
      what.length = left;
    }
    tx.commit();
  }

  void make_slab(Pieces::iterator run) {
    auto& [page, what] = *run;
    if (what.slab || what.length > 64) return;
    what.slab = true;
    what.slab_index = ++slabs_;
    auto tx = world_.transaction();
    world_.allocator().make_slab(tx, page, what.length, what.slab_index);
    tx.commit();
  }

  void check_biggest() {
    SpanRequest request = random_request();
    if (request.nocross != 0)
      request.nocross = std::uint64_t{1} << (shape_.page_shift - 2 + below(random_, 10));
    const auto biggest = world_.allocator().biggest(request);
    ASSERT_EQ(biggest.bytes, oracle_.biggest(request))
        << "align " << request.align << ", nocross " << request.nocross << ", contiguous "
        << request.iova_contiguous << ", dma " << int{request.dma_bits} << ", window " << request.min_offset
        << ".." << request.max_offset;
    if (biggest.bytes == 0) return;
    ASSERT_TRUE(oracle_.legal(request, biggest.page, biggest.bytes)) << "page " << biggest.page;
    ASSERT_GE(std::uint64_t{oracle_.free_pages_from(biggest.page)} << shape_.page_shift, biggest.bytes);
  }

  void check_largest() {
    std::uint32_t largest = 0;
    for (std::uint32_t page = 0; page < shape_.pages; ++page)
      largest = std::max(largest, oracle_.free_pages_from(page));
    ASSERT_EQ(world_.allocator().largest_free(), largest);
    ASSERT_GE(world_.allocator().largest_free_bound(), largest);
  }

  Pieces::iterator any_piece() {
    return std::next(pieces_.begin(), static_cast<std::ptrdiff_t>(below(random_, pieces_.size())));
  }

  void mark(std::uint32_t page, std::uint32_t length, bool used) {
    for (std::uint32_t i = 0; i < length; ++i) oracle_.used[page + i] = used;
  }

  std::uint64_t seed_;
  Random random_;
  Shape shape_;
  PageOracle oracle_;
  PageWorld world_;
  region::IovaTable table_{};
  Pieces pieces_;
  std::uint32_t slabs_ = 0;
  int served_ = 0;
  int refused_ = 0;
};

TEST_P(Property, PlacesWhatANaiveSearchCanPlaceAndNothingElse) {
  SCOPED_TRACE(replay_hint(seed_));
  constexpr int kSteps = 2000;
  for (int step = 0; step < kSteps; ++step) {
    SCOPED_TRACE(step);
    // Fill for a while, then empty for a while, so that full, fragmented and empty spaces all occur.
    const bool filling = step / 150 % 2 == 0;
    const std::uint64_t dice = below(random_, 10);
    if (pieces_.empty() || (filling ? dice < 6 : dice < 3)) {
      ASSERT_NO_FATAL_FAILURE(try_allocate());
    } else if (dice == 9) {
      ASSERT_NO_FATAL_FAILURE(resize_one(any_piece()));
    } else if (dice == 8 && one_in(random_, 3)) {
      make_slab(any_piece());
    } else {
      free_one(any_piece());
    }
    if (step % 20 == 0) {
      ASSERT_NO_FATAL_FAILURE(check_biggest());
    }
    if (step % 50 == 0) {
      ASSERT_NO_FATAL_FAILURE(check_largest());
      ASSERT_EQ(world_.breaches(pieces_), "");
      ASSERT_EQ(world_.differences(pieces_), "");
    }
  }
  EXPECT_GT(served_, kSteps / 25);    // the test would prove nothing if most requests were refused,
  EXPECT_GT(refused_, kSteps / 100);  // or none
  while (!pieces_.empty()) free_one(any_piece());
  EXPECT_EQ(world_.differences({}), "");
  EXPECT_EQ(world_.breaches(), "");
  EXPECT_EQ(world_.space().free_runs, 1u);
  EXPECT_EQ(world_.allocator().largest_free(), shape_.pages);
}

constexpr std::uint64_t kMiB = 1 << 20;
INSTANTIATE_TEST_SUITE_P(
    Shapes, Property,
    ::testing::Values(Shape{"tiny_pages_one_os_page", 128, 6, 13, IovaMap::runs, 64 * kMiB},
                      Shape{"tiny_pages_with_runs", 512, 6, 12, IovaMap::runs, 3 * kMiB},
                      Shape{"pages_like_os_pages_no_iova", 200, 12, 12, IovaMap::none, 5 * 4096},
                      Shape{"pages_like_os_pages_identity", 300, 12, 12, IovaMap::identity, 77 * 4096},
                      Shape{"pages_like_os_pages_with_runs", 300, 12, 12, IovaMap::runs, 77 * 4096},
                      Shape{"pages_like_os_pages_dense", 200, 12, 12, IovaMap::dense, 0},
                      Shape{"pages_in_hugepages", 700, 12, 21, IovaMap::runs, 6 * kMiB},
                      Shape{"pages_larger_than_os_pages", 120, 15, 12, IovaMap::runs, 96 * 1024},
                      Shape{"one_page", 1, 12, 12, IovaMap::identity, 4096},
                      Shape{"two_to_the_47_bytes", 512, 38, 38, IovaMap::runs, std::uint64_t{1} << 40}),
    [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace extmem::alloc
