// Who verifies while another thread stands in the middle of adding or removing a region finds no breach: neither one who
// waits for the locks, nor one who only looks.
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <future>
#include <string>
#include <string_view>
#include <thread>

#include "base/crash_point.hpp"
#include "contract/memory.hpp"
#include "contract/runtime_directory.hpp"
#include "extmem/domain.hpp"
#include "extmem/inspect.hpp"

namespace extmem::test {
namespace {

thread_local bool changing = false;
std::atomic<int> steps{0};      // that the changing thread has made
std::atomic<int> permitted{0};  // that it may make

void step(const char* name) {
  if (!changing || std::string_view(name) != "transaction.changed") return;
  const int mine = ++steps;
  while (permitted.load() < mine) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

class VerifyDuringChanges : public testing::Test {
 protected:
  VerifyDuringChanges() {
    OpenOptions options;
    options.directory = directory_.c_str();
    options.sizes.small_metadata = 16 << 20;
    options.sizes.large_metadata = 64 << 20;
    auto opened = Domain::open("d", options);
    EXPECT_TRUE(opened) << opened.error().message();
    domain_ = std::move(*opened);
    heap_ = *domain_.create_heap("h");
    auto inspector = Inspector::open("d", directory_.c_str());
    EXPECT_TRUE(inspector) << inspector.error().message();
    inspector_ = std::move(*inspector);
    base::crash_point_hook = &step;
  }
  ~VerifyDuringChanges() override { base::crash_point_hook = nullptr; }

  /// Makes the change in a thread of its own, which stands still after each of its steps while others verify.
  template <typename Change>
  int verify_during(Change change) {
    steps = permitted = 0;
    std::atomic<bool> done{false};
    std::thread thread([&] {
      changing = true;
      change();
      done = true;
    });
    int stood = 0;
    std::future<Result<std::size_t>> waits;
    const auto finish = [&] {
      const auto waited = waits.get();
      EXPECT_TRUE(waited || waited.error().code() == ETIMEDOUT)
          << waited.error().message();  // a slow machine
    };
    while (!done) {
      if (steps.load() == permitted.load()) {
        std::this_thread::yield();
        continue;
      }
      SCOPED_TRACE(++stood);
      // It waits for a lock until the change is complete, or it would be wrong by now.
      if (!waits.valid()) {
        waits = std::async(std::launch::async, [&] {
          return domain_.verify([](const Breach& b) { ADD_FAILURE() << "verify: " << b.what; });
        });
      }
      std::size_t unstable = 0;
      const auto looks =
          inspector_.verify([](const Breach& b) { ADD_FAILURE() << "inspector: " << b.what; }, &unstable);
      EXPECT_TRUE(looks) << looks.error().message();
      if (waits.wait_for(std::chrono::milliseconds(5)) == std::future_status::ready) finish();
      ++permitted;
    }
    if (waits.valid()) finish();
    thread.join();
    return stood;
  }

  RuntimeDirectory directory_;
  Domain domain_;
  Heap heap_;
  Inspector inspector_;
};

TEST_F(VerifyDuringChanges, OfRegions) {
  BackingSpec spec;
  spec.kind = BackingKind::memfd;
  spec.length = 4 * kMiB;
  RegionId region;
  const int added = verify_during([&] {
    auto result = domain_.add_backing(heap_, spec);
    EXPECT_TRUE(result) << result.error().message();
    if (result) region = *result;
  });
  EXPECT_GT(added, 5);
  const int removed = verify_during([&] {
    const auto result = domain_.remove_region(region);
    EXPECT_TRUE(result) << result.error().message();
  });
  EXPECT_GT(removed, 5);
}

}  // namespace
}  // namespace extmem::test
