// Growth: in steps, up to the limit, only where it helps, and given back.
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>

#include "contract/memory.hpp"
#include "contract/state.hpp"

namespace extmem::test {
namespace {

class Growth : public testing::TestWithParam<std::tuple<FaceKind, Style>> {
 protected:
  Growth() : face_(make_face(std::get<0>(GetParam()))) {
    EXPECT_EQ(face_->create(DomainOptions{}), 0) << face_->message();
    options_.style = std::get<1>(GetParam());
    options_.growth.backing.kind = BackingKind::anonymous;
    options_.growth.step = 4 * kMiB;
    options_.growth.limit = 64 * kMiB;
  }
  ~Growth() override { expect_sound(*face_); }
  void create() { ASSERT_EQ(face_->create_heap("growing", options_, heap_), 0) << face_->message(); }
  HeapStats stats() {
    HeapStats s;
    EXPECT_EQ(face_->stats(heap_, s), 0) << face_->message();
    return s;
  }
  std::unique_ptr<Face> face_;
  HeapOptions options_;
  Heap heap_;
};

TEST_P(Growth, GoesInSteps) {
  create();
  EXPECT_EQ(stats().total_bytes, 0u);
  void* p = nullptr;
  ASSERT_EQ(face_->allocate(heap_, 64, p), 0) << face_->message();
  EXPECT_EQ(stats().total_bytes, 4 * kMiB);
  RegionId id;
  RegionInfo info;
  ASSERT_EQ(face_->region_of(p, id), 0);
  ASSERT_EQ(face_->region_info(id, info), 0);
  EXPECT_TRUE(info.grown);
  EXPECT_FALSE(info.external);
  void* large = nullptr;
  ASSERT_EQ(face_->allocate(heap_, 10 * kMiB, large), 0) << "larger than a step: " << face_->message();
  EXPECT_LE(stats().total_bytes, 4 * kMiB + 12 * kMiB);
  EXPECT_EQ(face_->deallocate(heap_, large), 0);
  EXPECT_EQ(face_->deallocate(heap_, p), 0);
}

TEST_P(Growth, GoesInSmallStepsToo) {
  for (const std::uint64_t step : {64 * kKiB, kMiB}) {
    options_.growth.step = step;
    create();
    void* p = nullptr;
    ASSERT_EQ(face_->allocate(heap_, 64, p), 0) << face_->message();
    EXPECT_EQ(stats().total_bytes, step);
    EXPECT_EQ(face_->deallocate(heap_, p), 0);
    ASSERT_EQ(face_->destroy_heap(heap_, nullptr), 0) << face_->message();
  }
}

TEST_P(Growth, ServesEveryThreadBelowTheLimit) {
  // Each growth is for one object, and others may take it: that must not make anybody fail below the limit.
  options_.growth.step = kMiB;
  options_.growth.limit = 1024 * kMiB;
  create();
  std::vector<std::thread> threads;
  std::atomic<int> refused{0};
  for (unsigned t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      std::vector<void*> given;
      for (int i = 0; i < 20; ++i) {
        void* p = nullptr;
        if (face_->allocate(heap_, 900 * kKiB, p) == 0) {
          given.push_back(p);
        } else {
          ++refused;
        }
      }
      for (void* p : given) EXPECT_EQ(face_->deallocate(heap_, p), 0);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(refused, 0);
}

TEST_P(Growth, StopsAtTheLimit) {
  create();
  std::vector<void*> given;
  void* p = nullptr;
  int rc = 0;
  while ((rc = face_->allocate(heap_, 512 * kKiB, p)) == 0) given.push_back(p);
  EXPECT_EQ(rc, -ENOMEM);
  EXPECT_LE(stats().total_bytes, 64 * kMiB);
  EXPECT_GE(given.size(), 112u) << "at least 56 MiB of 64";
  for (void* q : given) EXPECT_EQ(face_->deallocate(heap_, q), 0);
}

TEST_P(Growth, GivesEmptyRegionsBackButOne) {
  create();
  std::vector<void*> given(60, nullptr);
  for (void*& p : given) ASSERT_EQ(face_->allocate(heap_, 512 * kKiB, p), 0) << face_->message();
  EXPECT_GE(stats().regions, 7u);
  for (void* p : given) EXPECT_EQ(face_->deallocate(heap_, p), 0);
  ASSERT_EQ(face_->flush(heap_), 0);
  EXPECT_EQ(stats().regions, 1u);
  // And it grows again.
  for (void*& p : given) ASSERT_EQ(face_->allocate(heap_, 512 * kKiB, p), 0) << face_->message();
  for (void* p : given) EXPECT_EQ(face_->deallocate(heap_, p), 0);
}

TEST_P(Growth, GivesRegionsOfSmallObjectsBackWithoutAFlush) {
  create();
  std::vector<void*> given(120'000, nullptr);  // of more slabs than a thread keeps
  for (void*& p : given) ASSERT_EQ(face_->allocate(heap_, 500, p), 0) << face_->message();
  const std::uint64_t most = stats().regions;
  EXPECT_GE(most, 14u);
  for (void* p : given) EXPECT_EQ(face_->deallocate(heap_, p), 0);
  EXPECT_LE(stats().regions, 3u)
      << "one empty one is kept, and the slabs that the thread keeps lie in one or two";
}

TEST_P(Growth, RefusesPoliciesThatMakeNoSense) {
  const auto refused = [&](const HeapOptions& options, const char* what) {
    Heap heap;
    EXPECT_EQ(face_->create_heap("refused", options, heap), -EINVAL) << what;
  };
  HeapOptions bad = options_;
  bad.growth.limit = 0;
  refused(bad, "could never grow");
  bad = options_;
  bad.growth.backing.kind = static_cast<BackingKind>(99);
  refused(bad, "unknown kind");
  bad = options_;
  bad.growth.backing.fallback = static_cast<Fallback>(99);
  refused(bad, "unknown fallback");
  bad = options_;
  bad.growth.backing.iova_source = static_cast<IovaSource>(99);
  refused(bad, "unknown IOVA source");
}

TEST_P(Growth, KeepsRegionsWhereItIsToldTo) {
  options_.growth.give_back = false;
  create();
  std::vector<void*> given(60, nullptr);
  for (void*& p : given) ASSERT_EQ(face_->allocate(heap_, 512 * kKiB, p), 0) << face_->message();
  const std::uint64_t regions = stats().regions;
  for (void* p : given) EXPECT_EQ(face_->deallocate(heap_, p), 0);
  EXPECT_EQ(stats().regions, regions);
}

TEST_P(Growth, KeepsNothingWhereItIsToldTo) {
  options_.growth.keep_one = false;
  create();
  void* p = nullptr;
  ASSERT_EQ(face_->allocate(heap_, 2 * kMiB, p), 0) << face_->message();
  EXPECT_EQ(stats().regions, 1u);
  EXPECT_EQ(face_->deallocate(heap_, p), 0);
  EXPECT_EQ(stats().regions, 0u);
  EXPECT_EQ(stats().total_bytes, 0u);
}

TEST_P(Growth, DoesNotGrowWhereThatCannotHelp) {
  create();
  void* p = nullptr;
  ASSERT_EQ(face_->allocate(heap_, 64, p), 0);
  RegionId region;
  ASSERT_EQ(face_->region_of(p, region), 0);
  const auto refused = [&](std::size_t size, const AllocOptions& options, const char* what) {
    void* q = nullptr;
    expect_refused(
        *face_, ENOMEM, [&] { return face_->allocate(heap_, size, options, q); }, what);
  };
  AllocOptions options;
  options.region = region;
  refused(5 * kMiB, options, "only in a region that is full");
  options = AllocOptions{};
  options.dma_bits = 32;
  refused(64, options, "the backing has no IOVAs");
  options = AllocOptions{};
  options.iova_contiguous = true;
  refused(3 * kMiB, options, "the backing has no IOVAs");
  options = AllocOptions{};
  options.os_page_size = 2 * kMiB;
  refused(64, options, "the backing has another page size");
  options = AllocOptions{};
  options.numa_node = 4711;
  refused(64, options, "no region of this node comes");
  options = AllocOptions{};
  options.min_offset = std::uint64_t{1} << 40;
  refused(64, options, "beyond the end of any region");
  refused(65 * kMiB, AllocOptions{}, "larger than the limit");
  EXPECT_EQ(face_->deallocate(heap_, p), 0);
}

TEST_P(Growth, SurvivesThreadsThatFillAndEmptyIt) {
  options_.growth.step = kMiB;
  create();
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      for (std::size_t round = 0; round < 60; ++round) {
        std::vector<void*> given;
        for (std::size_t i = 0; i < 40; ++i) {
          void* p = nullptr;
          const std::size_t size = (i + t) % 3 == 0 ? 200 * kKiB : 3000;
          if (face_->allocate(heap_, size, p) != 0) continue;
          fill(p, 64, t);
          given.push_back(p);
        }
        for (void* p : given) {
          EXPECT_TRUE(is_filled(p, 64, t));
          EXPECT_EQ(face_->deallocate(heap_, p), 0) << face_->message();
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_EQ(face_->flush(heap_), 0);
  EXPECT_EQ(stats().used_count, 0u);
  EXPECT_LE(stats().regions, 1u);
}

INSTANTIATE_TEST_SUITE_P(, Growth,
                         testing::Combine(testing::Values(FaceKind::cpp, FaceKind::c),
                                          testing::Values(Style::binned, Style::exact)),
                         [](const auto& test) {
                           return std::string(name_of(std::get<0>(test.param))) +
                                  (std::get<1>(test.param) == Style::binned ? "_Binned" : "_Exact");
                         });

}  // namespace
}  // namespace extmem::test
