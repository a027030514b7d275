// A thread that allocated in the last round of its exit handlers left its slot taken for ever: after max_threads of them every
// further thread got ENOSPC. When that was mended such slots, and the memory in their caches, were still left until none
// was free; and each new thread looked at all of them.
#include <gtest/gtest.h>
#include <pthread.h>

#include <thread>

#include "contract/runtime_directory.hpp"
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

/// One after the other.
void run_threads(int n) {
  allocated = 0;
  ASSERT_EQ(::pthread_key_create(&key, &at_exit), 0);
  for (int i = 0; i < n; ++i) {
    std::thread([&] {
      auto p = the_heap->allocate(64);
      ASSERT_TRUE(p) << i << ": " << p.error().message();
      ASSERT_TRUE(the_heap->deallocate(*p));
      ASSERT_EQ(::pthread_setspecific(key, &key), 0);
    }).join();
  }
  EXPECT_GE(allocated, n);
  ASSERT_EQ(::pthread_key_delete(key), 0);
}

TEST(SlotsOfEndedThreads, AreUsedAgainWhenNoneIsFree) {
  auto domain = extmem::Domain::create({.max_threads = 4});
  ASSERT_TRUE(domain) << domain.error().message();
  auto heap = domain->create_heap("heap");
  ASSERT_TRUE(heap);
  ASSERT_TRUE(domain->add_backing(*heap, {.length = 4 << 20}));
  the_heap = &*heap;
  run_threads(40);
  auto breaches = domain->verify();
  ASSERT_TRUE(breaches);
  EXPECT_EQ(*breaches, 0u);
  EXPECT_EQ(heap->stats()->used_count, 0u);
}

void memory_comes_back(extmem::Domain& domain) {
  auto heap = domain.create_heap("heap");
  ASSERT_TRUE(heap);
  ASSERT_TRUE(domain.add_backing(*heap, {.length = 64 << 20}));
  the_heap = &*heap;
  run_threads(600);
  // One at a time was alive; each slot that is left holds a slab.
  EXPECT_LT(heap->stats()->slabs, 100u);
  auto breaches = domain.verify();
  ASSERT_TRUE(breaches);
  EXPECT_EQ(*breaches, 0u);
}

TEST(SlotsOfEndedThreads, GiveTheirMemoryBackLongBeforeThat) {
  auto domain = extmem::Domain::create();
  ASSERT_TRUE(domain) << domain.error().message();
  memory_comes_back(*domain);
}

TEST(SlotsOfEndedThreads, GiveTheirMemoryBackToOtherProcessesToo) {
  const extmem::test::RuntimeDirectory directory;
  extmem::OpenOptions options;
  options.directory = directory.c_str();
  auto domain = extmem::Domain::open("d", options);
  ASSERT_TRUE(domain) << domain.error().message();
  memory_comes_back(*domain);
}

}  // namespace
