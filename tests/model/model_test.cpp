// Random operations over the public interface against a naive allocator.
//
//   EXTMEM_SEED          the seed of a run that failed
//   EXTMEM_MODEL_STEPS   how many steps; millions find what thousands do not
#include <gtest/gtest.h>

#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <thread>

#include "model/checks.hpp"
#include "model/object_ops.hpp"
#include "model/region_ops.hpp"

namespace extmem::model {
namespace {

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define EXTMEM_MODEL_SLOW
#endif
#endif
#if defined(EXTMEM_MODEL_SLOW)
constexpr std::uint64_t kUsualSteps = 150'000;
#else
constexpr std::uint64_t kUsualSteps = 1'000'000;
#endif

std::uint64_t number_of(const char* variable, std::uint64_t usual) {
  const char* const text = std::getenv(variable);
  return text != nullptr ? std::strtoull(text, nullptr, 0) : usual;
}

void step(Model& m) {
  // Fill for a while, then empty for a while: full, fragmented and empty heaps all occur.
  const bool filling = m.served / 3000 % 2 == 0 && m.objects.size() < 6000;
  const std::uint64_t dice = below(m.random, 1000);
  if (dice < (filling ? 520u : 330u)) return op_allocate(m);
  if (dice < 760) return op_free(m);
  if (dice < 830) return op_reallocate(m);
  if (dice < 850) return op_look(m);
  if (dice < 900) return op_bad_free(m);
  if (dice < (filling ? 915u : 903u)) return op_batch(m);
  if (dice < 930) return op_free_batch(m);
  if (dice < 950) return op_reserve(m);
  if (dice < 980) return op_zone(m);
  if (dice < 985) return op_add_region(m);
  if (dice < 993) return op_remove_or_drain(m);
  if (dice < 996) return op_bad_request(m);
  if (dice < 997) {
    MODEL_CHECK(m.heaps[below(m.random, kHeaps)].flush().ok(), "flush");
    return m.learn_grown_regions();
  }
  if (dice < 998) return op_short_lived_heap(m);
}

/// Threads that take turns: each has caches of its own, so objects are freed by others than those who took them, but
/// only one runs at a time, so the model needs no lock.
class Turns {
 public:
  template <typename Segment>
  void run(std::size_t threads, Segment&& segment) {
    std::vector<std::thread> all;
    for (std::size_t me = 0; me < threads; ++me) {
      all.emplace_back([&, me] {
        std::unique_lock lock(mutex_);
        for (;;) {
          changed_.wait(lock, [&] { return turn_ == me || done_; });
          if (done_) return;
          try {
            done_ = !segment(turn_);
          } catch (const Mismatch& mismatch) {
            ADD_FAILURE() << mismatch.what();
            done_ = true;
          }
          changed_.notify_all();
        }
      });
    }
    for (std::thread& thread : all) thread.join();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t turn_ = 0;
  bool done_ = false;
};

void run_model(std::uint64_t seed, std::uint64_t steps) {
  constexpr std::size_t kThreads = 3;
  std::uint64_t done = 0;
  Model m(seed);
  try {
    for (std::size_t i = 0; i < 12; ++i) op_add_region(m);
    Turns().run(kThreads, [&](std::size_t& turn) {
      try {
        for (std::uint64_t left = 1 + below(m.random, 600); left > 0 && done < steps; --left, ++done) step(m);
        if (one_in(m.random, 5)) check_all(m);
      } catch (const Mismatch& mismatch) {
        throw Mismatch("step " + std::to_string(done) + ": " + mismatch.what());
      }
      turn = below(m.random, kThreads);
      return done < steps;
    });
    if (::testing::Test::HasFailure()) return;
    check_all(m);
    // Everything goes back: then every region can be removed, and nothing is left.
    while (!m.zones.empty()) op_zone(m);
    while (!m.live.empty()) op_free(m);
    check_all(m);
    for (const Region& region : m.regions) {
      if (!region.grown) MODEL_CHECK(m.domain.remove_region(region.id).ok(), "the region should be empty");
    }
    std::erase_if(m.regions, [](const Region& region) { return !region.grown; });
    MODEL_CHECK(m.heaps[kGrowing].flush().ok(), "flush");
    m.learn_grown_regions();
    MODEL_CHECK(m.regions.size() <= 1, "the growing heap keeps one region at most");
    check_all(m);
    EXPECT_GT(m.served, steps / 10);
    EXPECT_GT(m.refused, steps / 1000);
  } catch (const Mismatch& mismatch) {
    ADD_FAILURE() << "step " << done << ": " << mismatch.what();
  }
}

TEST(Model, AgreesWithANaiveAllocator) {
  const std::uint64_t seed = number_of("EXTMEM_SEED", std::random_device{}());
  const std::uint64_t steps = number_of("EXTMEM_MODEL_STEPS", kUsualSteps);
  std::printf("seed %llu, %llu steps: replay with EXTMEM_SEED=%llu EXTMEM_MODEL_STEPS=%llu\n",
              static_cast<unsigned long long>(seed), static_cast<unsigned long long>(steps),
              static_cast<unsigned long long>(seed), static_cast<unsigned long long>(steps));
  std::fflush(stdout);  // a crash must not swallow it
  run_model(seed, steps);
  if (HasFailure()) std::printf("replay with EXTMEM_SEED=%llu\n", static_cast<unsigned long long>(seed));
}

// The same steps every time, in every build: what a change breaks shows at once.
TEST(Model, AgreesForFixedSeeds) {
  for (const std::uint64_t seed : {1u, 2u, 3u, 4u}) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    run_model(seed, 10'000);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace extmem::model
