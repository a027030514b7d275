// A thread that allocated in the last round of its exit handlers left its slot taken for ever: after max_threads of them every
// further thread got ENOSPC.
#include <gtest/gtest.h>
#include <pthread.h>

#include <thread>

#include "extmem/extmem.hpp"

namespace {

extmem::Heap* the_heap = nullptr;
pthread_key_t key;
int allocated = 0;

/// Runs in every round that there is, and allocates in each.
void at_exit(void* value) {
  if (auto p = the_heap->allocate(100)) {
    ++allocated;
    (void)the_heap->deallocate(*p);
  }
  ASSERT_EQ(::pthread_setspecific(key, value), 0);
}

}  // namespace

TEST(SlotsOfEndedThreads, AreUsedAgainWhenNoneIsFree) {
  auto domain = extmem::Domain::create({.max_threads = 4});
  ASSERT_TRUE(domain) << domain.error().message();
  auto heap = domain->create_heap("heap");
  ASSERT_TRUE(heap);
  ASSERT_TRUE(domain->add_backing(*heap, {.length = 4 << 20}));
  the_heap = &*heap;
  ASSERT_EQ(::pthread_key_create(&key, &at_exit), 0);
  constexpr int kThreads = 40;
  for (int i = 0; i < kThreads; ++i) {
    std::thread([&] {
      auto p = heap->allocate(64);
      ASSERT_TRUE(p) << i << ": " << p.error().message();
      ASSERT_TRUE(heap->deallocate(*p));
      ASSERT_EQ(::pthread_setspecific(key, &key), 0);
    }).join();
  }
  EXPECT_GE(allocated, kThreads);
  ASSERT_EQ(::pthread_key_delete(key), 0);
  auto breaches = domain->verify();
  ASSERT_TRUE(breaches);
  EXPECT_EQ(*breaches, 0u);
  EXPECT_EQ(heap->stats()->used_count, 0u);
}
