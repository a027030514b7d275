// What broke: add_backing looked for an aligned address, gave it back and asked for it again. Several threads that did so
// at once took each other's addresses until one of them gave up with EAGAIN.
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "extmem/extmem.hpp"

namespace extmem {
namespace {

TEST(BackingsFromManyThreads, AreAllMapped) {
  auto domain = Domain::create();
  ASSERT_TRUE(domain.ok());
  std::atomic<int> refused{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      auto heap = domain->create_heap("h" + std::to_string(t));
      if (!heap) {
        ++refused;
        return;
      }
      for (int i = 0; i < 300; ++i) {
        BackingSpec spec;
        spec.kind = i % 2 == 0 ? BackingKind::anonymous : BackingKind::memfd;
        spec.length = 2 << 20;
        const auto region = domain->add_backing(*heap, spec);
        if (!region) {
          ++refused;
          ADD_FAILURE() << region.error().message();
          return;
        }
        const auto p = heap->allocate(100);
        if (!p || !heap->deallocate(*p) || !domain->remove_region(*region)) ++refused;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(refused, 0);
  EXPECT_EQ(*domain->verify(), 0u);
}

}  // namespace
}  // namespace extmem
