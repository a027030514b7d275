// What broke: a thread remembered the domain of the exact heap that it had used last by where its control segment lay. When that
// domain was closed and the next one's segment came to lie there, a free by Domain::deallocate went into whichever thread's
// cache had the old one's place: it cleared the word that says that this thread is in the middle of an operation.
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <thread>

#include "extmem/extmem.hpp"
#include "heap/domain_state.hpp"

namespace extmem {
namespace {

constexpr HeapOptions kExact{.style = Style::exact};

/// Makes the calling thread the first to have a cache in the domain, in an exact heap; its address.
alloc::ThreadCache* use(Domain& domain) {
  auto heap = domain.create_heap("exact", kExact);
  EXPECT_TRUE(heap && domain.add_backing(*heap, {.length = 1u << 20}));
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(heap->deallocate(heap->allocate(1000).value_or(nullptr)));
  return heap::thread_memory.cache;
}

TEST(FreesAfterAnotherDomain, LeaveOthersCachesAlone) {
  for (int round = 0; round < 20; ++round) {
    const alloc::ThreadCache* old = nullptr;
    {
      auto domain = Domain::create();
      ASSERT_TRUE(domain);
      old = use(*domain);
    }
    auto domain = Domain::create();
    ASSERT_TRUE(domain);
    alloc::ThreadCache* cache = nullptr;
    std::atomic<int> step = 0;
    std::thread other([&] {
      cache = use(*domain);
      EXPECT_TRUE(cache->gate.try_enter());  // as if it were preempted there
      for (step = 1; step != 2;) std::this_thread::yield();
      EXPECT_TRUE(cache->gate.busy());
      cache->gate.leave();
    });
    while (step != 1) std::this_thread::yield();
    const bool same_place = cache == old;
    int anything = 0;
    EXPECT_EQ(domain->deallocate(&anything).error().code(), EFAULT);
    step = 2;
    other.join();
    if (same_place) return;
  }
  std::printf("no two domains came to lie at one address\n");
}

}  // namespace
}  // namespace extmem
