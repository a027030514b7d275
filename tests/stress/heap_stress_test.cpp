// Several threads on one heap: remote frees, threads that end with full caches, tags, and those who look meanwhile.
#include "stress/stress.hpp"

namespace extmem::stress {
namespace {

class HeapStress : public ::testing::TestWithParam<Style> {
 protected:
  HeapStress() {
    auto made = Domain::create();
    EXPECT_TRUE(made.ok());
    domain_ = std::move(*made);
    heap_ = *domain_.create_heap("heap", {.style = GetParam()});
    EXPECT_TRUE(domain_.add_region(heap_, arena_.spec(0, 24 * kMiB)).ok());
    EXPECT_TRUE(domain_.add_region(heap_, arena_.spec(24 * kMiB, 8 * kMiB)).ok());
    for (const char* name : {"red", "green", "blue"}) tags_.push_back(*domain_.intern_tag(name));
  }
  Stress stress_;
  Arena arena_{32 * kMiB};
  Domain domain_;
  Heap heap_;
  std::vector<Tag> tags_;
};
INSTANTIATE_TEST_SUITE_P(Styles, HeapStress, ::testing::Values(Style::binned, Style::exact),
                         [](const auto& test) { return test.param == Style::binned ? "Binned" : "Exact"; });

TEST_P(HeapStress, ObjectsTravelBetweenThreads) {
  Worker::Places places(128);
  std::atomic<std::uint64_t> served{0};
  const auto work = [&](std::uint64_t seed) {
    Worker worker(stress_, heap_, seed, &places, tags_);
    for (std::uint64_t told = 0; stress_.going(); told = worker.served()) {
      worker.step();
      served += worker.served() - told;
    }
  };
  stress_.run_until([&] { return served > 1000; }, [&] { work(1); }, [&] { work(2); }, [&] { work(3); });
  free_places(stress_, heap_, places);
  stress_.check_empty(heap_);
}

TEST_P(HeapStress, ThreadsEndWithFullCaches) {
  Worker::Places places(64);
  std::atomic<int> lives{0};
  const auto generations = [&](std::uint64_t seed) {
    for (std::uint64_t life = 0; stress_.going(); ++life) {
      std::thread([&] {
        Worker worker(stress_, heap_, seed + life * 10, &places, tags_);
        for (int i = 0; i < 300 && stress_.going(); ++i) worker.step(100);
      }).join();
      ++lives;
    }
  };
  stress_.run_until([&] { return lives > 20; }, [&] { generations(1); }, [&] { generations(2); },
                    [&] { generations(3); });
  free_places(stress_, heap_, places);
  stress_.check_empty(heap_);
}

TEST_P(HeapStress, OthersLookMeanwhile) {
  Worker::Places places(64);
  std::atomic<int> looks{0};
  const auto work = [&](std::uint64_t seed) {
    Worker worker(stress_, heap_, seed, &places, tags_);
    while (stress_.going()) worker.step();
  };
  const auto look = [&] {
    Random random(9);
    while (stress_.going()) {
      stress_.check_heap(heap_);
      std::uint64_t walked = 0;
      std::uint64_t total = 0;
      stress_.check(heap_.walk(
                        [&](const WalkEntry& entry) {
                          if (entry.kind == WalkKind::region) {
                            total += entry.length;
                          } else if (entry.kind != WalkKind::object && entry.object_size == 0) {
                            walked += entry.length;
                          } else if (entry.kind == WalkKind::slab) {
                            walked += entry.length;
                          }
                          return true;
                        },
                        {.objects = one_in(random, 2)}),
                    "walk");
      stress_.check(walked == total,
                    "a walk met " + std::to_string(walked) + " bytes of " + std::to_string(total));
      std::vector<TagStats> tags(8);
      const auto n = heap_.tag_stats(tags);
      stress_.check(n, "tag_stats");
      for (std::size_t i = 0; i < n.value_or(0); ++i) {
        stress_.check(
            tags[i].live_bytes <= 32 * kMiB && (tags[i].live_count == 0) == (tags[i].live_bytes == 0),
            "a tag's counters are wrong");
      }
      if (one_in(random, 4)) stress_.check(heap_.flush(), "flush");
      ++looks;
    }
  };
  stress_.run_until([&] { return looks > 5; }, [&] { work(1); }, [&] { work(2); }, look);
  free_places(stress_, heap_, places);
  stress_.check_empty(heap_);
  std::vector<TagStats> tags(8);
  const std::size_t n = heap_.tag_stats(tags).value_or(0);
  for (std::size_t i = 0; i < n; ++i) EXPECT_EQ(tags[i].live_bytes, 0u) << tags[i].name;
}

TEST_P(HeapStress, OfRacingFreesExactlyOneSucceeds) {
  constexpr std::size_t kObjects = 64;
  std::vector<std::atomic<void*>> offered(kObjects);
  std::atomic<std::uint64_t> frees{0};
  std::atomic<std::uint64_t> taken{0};
  // A slot's object is freed by whoever takes one of its two tickets; the frees race. The slots are filled anew only
  // when all are done, so that no address is used again between the two. The object is looked up only with a ticket in
  // hand: one looked up before may be of the round before, and then nobody frees the slot's.
  constexpr int kTickets = 2;
  std::vector<std::atomic<int>> tries(kObjects);
  std::vector<std::atomic<int>> done(kObjects);
  for (std::atomic<int>& of_slot : tries) of_slot = kTickets;
  const auto work = [&](std::uint64_t seed) {
    Random random(seed);
    while (stress_.going()) {
      const std::size_t i = below(random, kObjects);
      // The load lets a slot that has no tickets be, so that the count does not run away.
      if (tries[i].load(std::memory_order_relaxed) >= kTickets ||
          tries[i].fetch_add(1, std::memory_order_acq_rel) >= kTickets)
        continue;
      void* p = offered[i].load(std::memory_order_relaxed);  // came with the ticket
      const auto freed = heap_.deallocate(p);
      if (freed.ok()) {
        ++frees;
      } else {
        stress_.check(freed.error().code() == EALREADY || freed.error().code() == EINVAL,
                      freed.error().message());
      }
      done[i].fetch_add(1, std::memory_order_acq_rel);
    }
  };
  const auto refill = [&] {
    Random random(99);
    std::vector<bool> filled(kObjects);
    while (stress_.going()) {
      bool all_done = true;
      for (std::size_t i = 0; i < kObjects; ++i)
        all_done &= !filled[i] || done[i].load(std::memory_order_acquire) == kTickets;
      if (!all_done) {
        std::this_thread::yield();
        continue;
      }
      stress_.check(taken == frees, "of two frees of one object not exactly one succeeded");
      for (std::size_t i = 0; i < kObjects; ++i) {
        const auto got = heap_.allocate(1 + below(random, one_in(random, 8) ? 50'000 : 500));
        if (!stress_.check(got, "allocate")) return;
        ++taken;
        offered[i].store(*got, std::memory_order_relaxed);
      }
      for (std::size_t i = 0; i < kObjects; ++i) {
        filled[i] = true;
        done[i] = 0;
        tries[i].store(0, std::memory_order_release);  // read by those who take a ticket
      }
    }
  };
  stress_.run_until([&] { return taken > kObjects; }, [&] { work(1); }, [&] { work(2); }, refill);
  stress_.check_heap(heap_);
}

}  // namespace
}  // namespace extmem::stress
