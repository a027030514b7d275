// Callbacks that call back: what would break the order of locks is refused at once, not only when it would hang.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstddef>

#include "extmem/domain.hpp"

namespace extmem {
namespace {

constexpr std::size_t kLength = std::size_t{4} << 20;

class CallbacksAndLocks : public ::testing::Test {
 protected:
  void SetUp() override {
    memory_ = ::mmap(nullptr, kLength, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(memory_, MAP_FAILED);
    auto domain = Domain::create();
    ASSERT_TRUE(domain.ok());
    domain_ = std::move(*domain);
    auto heap = domain_.create_heap("callbacks");
    ASSERT_TRUE(heap.ok());
    heap_ = *heap;
  }
  void TearDown() override {
    domain_ = Domain();
    ::munmap(memory_, kLength);
  }
  Result<RegionId> add() {
    RegionSpec spec;
    spec.base = memory_;
    spec.length = kLength;
    return domain_.add_region(heap_, spec);
  }

  void* memory_ = nullptr;
  Domain domain_;
  Heap heap_;
};

TEST_F(CallbacksAndLocks, AWalkOverAHeapMayNotWalkRegions) {
  ASSERT_TRUE(add().ok());
  int code = 0;
  ASSERT_TRUE(heap_
                  .walk([&](const WalkEntry&) {
                    code = domain_.walk_regions([](const RegionInfo&) { return true; }).error().code();
                    return false;
                  })
                  .ok());
  EXPECT_EQ(code, EDEADLK);
}

TEST_F(CallbacksAndLocks, AWalkOverAHeapMayNotTakeStatisticsOfAnother) {
  ASSERT_TRUE(add().ok());
  auto other = domain_.create_heap("other");
  ASSERT_TRUE(other.ok());
  int code = 0;
  ASSERT_TRUE(heap_
                  .walk([&](const WalkEntry&) {
                    code = other->stats().error().code();
                    return false;
                  })
                  .ok());
  EXPECT_EQ(code, EDEADLK);
}

TEST_F(CallbacksAndLocks, AListenerMayNotLookUpMemzones) {
  struct Seen {
    Domain* domain;
    int code = 0;
  } seen{&domain_};
  const RegionListener listener = [](const RegionEvent& event, void* arg) {
    auto& mine = *static_cast<Seen*>(arg);
    if (event.kind == RegionEventKind::added) mine.code = mine.domain->find_memzone("zone").error().code();
    return 0;
  };
  ASSERT_TRUE(domain_.add_listener(listener, &seen).ok());
  ASSERT_TRUE(add().ok());
  EXPECT_EQ(seen.code, EDEADLK);
  ASSERT_TRUE(domain_.remove_listener(listener, &seen).ok());
}

TEST_F(CallbacksAndLocks, ClosingADomainGivesListenersNoVote) {
  static int heard;
  static int added_again;
  heard = added_again = 0;
  const RegionListener refuses = [](const RegionEvent& event, void*) {
    if (event.kind == RegionEventKind::removing) return ++heard, EBUSY;
    ++added_again;
    return 0;
  };
  int one = 0;
  int two = 0;
  ASSERT_TRUE(add().ok());
  ASSERT_TRUE(domain_.add_listener(refuses, &one).ok());
  ASSERT_TRUE(domain_.add_listener(refuses, &two).ok());
  domain_ = Domain();
  EXPECT_EQ(heard, 2);
  EXPECT_EQ(added_again, 0);
}

TEST_F(CallbacksAndLocks, ARefusedDestroyKeepsGrownRegions) {
  HeapOptions options;
  options.growth.step = 4u << 20;
  options.growth.limit = 64u << 20;
  auto heap = domain_.create_heap("grows", options);
  ASSERT_TRUE(heap.ok());
  auto p = heap->allocate(100);
  ASSERT_TRUE(p.ok());
  ASSERT_TRUE(heap->deallocate(*p).ok());
  RegionSpec spec;
  spec.base = memory_;
  spec.length = kLength;
  auto lent = domain_.add_region(*heap, spec);
  ASSERT_TRUE(lent.ok());
  const auto before = heap->stats();
  EXPECT_EQ(domain_.destroy_heap(*heap).error().code(), EBUSY);
  EXPECT_EQ(heap->stats()->regions, before->regions);
  ASSERT_TRUE(domain_.remove_region(*lent).ok());
  EXPECT_TRUE(domain_.destroy_heap(*heap).ok());
}

}  // namespace
}  // namespace extmem
