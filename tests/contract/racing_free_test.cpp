// Many threads free the same pointer at once: exactly one succeeds, whoever it is, and the others are told so.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <thread>

#include "contract/memory.hpp"
#include "contract/state.hpp"

namespace extmem::test {
namespace {

constexpr std::size_t kThreads = 4;

/// Lets all threads go at the same time, again and again. Spins: the frees must meet, and sleeping parts them.
class StartLine {
 public:
  void wait() {
    const unsigned round = round_.load();
    if (waiting_.fetch_add(1) + 1 == kThreads) {
      waiting_ = 0;
      round_.fetch_add(1);
      return;
    }
    while (round_.load() == round) std::this_thread::yield();
  }

 private:
  std::atomic<std::size_t> waiting_{0};
  std::atomic<unsigned> round_{0};
};

struct Case {
  const char* name;
  Style style;
  std::size_t size;
  int rounds;
  bool by_domain;  ///< every other thread frees through the domain
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

class RacingFree : public testing::TestWithParam<std::tuple<FaceKind, Case>> {};

TEST_P(RacingFree, OneSucceeds) {
  const Case& c = std::get<1>(GetParam());
  const auto face = make_face(std::get<0>(GetParam()));
  const Memory memory(4 * kMiB);
  Heap heap;
  RegionId region;
  HeapOptions options;
  options.style = c.style;
  ASSERT_EQ(face->create(DomainOptions{}), 0);
  ASSERT_EQ(face->create_heap("raced", options, heap), 0);
  RegionSpec spec;
  spec.base = memory.base();
  spec.length = memory.length();
  ASSERT_EQ(face->add_region(heap, spec, region), 0);

  StartLine line;
  std::atomic<void*> target{nullptr};
  std::atomic<int> freed{0};
  std::atomic<int> refused{0};
  std::atomic<int> other{0};
  std::atomic<int> wrong_rounds{0};
  const auto race = [&](std::size_t t) {
    for (int round = 0; round < c.rounds; ++round) {
      const bool allocates = static_cast<std::size_t>(round) % kThreads == t;  // each thread in its turn
      if (allocates) {
        void* p = nullptr;
        if (face->allocate(heap, c.size, p) != 0) ++other;
        target = p;
      }
      line.wait();
      void* p = target;
      const int rc = c.by_domain && t % 2 == 0 ? face->deallocate(p) : face->deallocate(heap, p);
      (rc == 0 ? freed : rc == -EALREADY ? refused : other)++;
      line.wait();
      if (allocates && freed.exchange(0) != 1) ++wrong_rounds;
      line.wait();
    }
  };
  std::array<std::thread, kThreads> threads;
  for (std::size_t t = 0; t < kThreads; ++t) threads[t] = std::thread(race, t);
  for (std::thread& thread : threads) thread.join();

  EXPECT_EQ(wrong_rounds, 0) << "rounds in which not exactly one free succeeded";
  EXPECT_EQ(other, 0) << "answers other than 0 and EALREADY";
  EXPECT_EQ(refused, c.rounds * static_cast<int>(kThreads - 1));
  expect_sound(*face);
  HeapStats s;
  ASSERT_EQ(face->flush(heap), 0);
  ASSERT_EQ(face->stats(heap, s), 0);
  EXPECT_EQ(s.used_bytes, 0u);
  EXPECT_EQ(s.free_bytes, s.total_bytes);
}

INSTANTIATE_TEST_SUITE_P(
    , RacingFree,
    testing::Combine(testing::Values(FaceKind::cpp, FaceKind::c),
                     testing::Values(Case{"BinnedSmall", Style::binned, 64, 4000, false},
                                     Case{"BinnedSmallByDomain", Style::binned, 64, 2000, true},
                                     Case{"BinnedMedium", Style::binned, 6000, 2000, false},
                                     Case{"BinnedSpan", Style::binned, 300 * kKiB, 2000, false},
                                     Case{"ExactSmall", Style::exact, 64, 4000, false},
                                     Case{"ExactLarge", Style::exact, 100 * kKiB, 2000, true})),
    [](const auto& test) {
      return std::string(name_of(std::get<0>(test.param))) + "_" + std::get<1>(test.param).name;
    });

}  // namespace
}  // namespace extmem::test
