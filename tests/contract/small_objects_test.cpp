// What the quick ways of small objects must not change: reallocation, and frees that go from region to region.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <random>
#include <vector>

#include "contract/memory.hpp"
#include "extmem/extmem.hpp"

namespace extmem::test {
namespace {

class SmallObjects : public testing::Test {
 protected:
  void SetUp() override {
    auto domain = Domain::create();
    ASSERT_TRUE(domain.ok());
    domain_ = std::move(*domain);
    heap_ = *domain_.create_heap("h");
    other_ = *domain_.create_heap("other");
  }
  RegionId add(Heap heap, const Memory& memory, bool cpu = true) {
    RegionSpec spec;
    spec.base = memory.base();
    spec.length = memory.length();
    spec.cpu_accessible = cpu;
    const auto region = domain_.add_region(heap, spec);
    EXPECT_TRUE(region.ok()) << region.error().message();
    return *region;
  }
  void expect_empty(Heap heap) {
    EXPECT_TRUE(heap.flush().ok());
    EXPECT_EQ(heap.stats()->used_count, 0u);
    EXPECT_EQ(*domain_.verify(), 0u);
  }

  Memory memory_[4]{Memory(4 * kMiB), Memory(4 * kMiB), Memory(4 * kMiB), Memory(4 * kMiB)};
  Domain domain_;
  Heap heap_, other_;
};

TEST_F(SmallObjects, KeepWhatWasWrittenAtEverySize) {
  add(heap_, memory_[0]);
  std::size_t size = 1;
  void* p = *heap_.allocate(size);
  fill(p, size, 0);
  std::mt19937 random(5);
  for (std::size_t i = 1; i < 3000; ++i) {
    const std::size_t next = 1 + random() % (std::size_t{1} << random() % 17);
    const auto now = heap_.reallocate(p, next);
    ASSERT_TRUE(now.ok()) << now.error().message();
    p = *now;
    ASSERT_TRUE(is_filled(p, std::min(size, next), i - 1));
    ASSERT_GE(*heap_.usable_size(p), next);
    size = next;
    fill(p, size, i);
    ASSERT_EQ(heap_.stats()->used_count, 1u);
  }
  EXPECT_TRUE(heap_.deallocate(p).ok());
  expect_empty(heap_);
}

// What grows beyond 32 KiB becomes a span, which grows on where it is, and shrinks there.
TEST_F(SmallObjects, GrowIntoSpans) {
  add(heap_, memory_[0]);
  void* p = *heap_.allocate(60 * kKiB);
  fill(p, 60 * kKiB, 1);
  p = *heap_.reallocate(p, 70 * kKiB);
  EXPECT_TRUE(is_filled(p, 60 * kKiB, 1));
  EXPECT_EQ(*heap_.usable_size(p), 72 * kKiB) << "whole pages, no class";
  EXPECT_EQ(*heap_.reallocate(p, 60 * kKiB), p);
  EXPECT_EQ(*heap_.usable_size(p), 60 * kKiB);
  AllocOptions options;
  options.in_place = true;
  EXPECT_EQ(*heap_.reallocate(p, 68 * kKiB, options), p);
  p = *heap_.reallocate(p, 100);
  EXPECT_TRUE(is_filled(p, 100, 1));
  EXPECT_LE(*heap_.usable_size(p), 112u);
  EXPECT_TRUE(heap_.deallocate(p).ok());
  expect_empty(heap_);
}

TEST_F(SmallObjects, KeepTheirTagUnlessAnotherIsGiven) {
  add(heap_, memory_[0]);
  const Tag a = *domain_.intern_tag("a");
  const Tag b = *domain_.intern_tag("b");
  AllocOptions options;
  options.tag = a;
  void* p = *heap_.allocate(100, options);
  for (const std::size_t size : {100u, 110u, 500u, 20u}) {
    p = *heap_.reallocate(p, size);
    EXPECT_EQ(heap_.owner_of(p)->tag, a) << size;
  }
  options.tag = b;
  p = *heap_.reallocate(p, 24, options);  // the size would fit where it is
  EXPECT_EQ(heap_.owner_of(p)->tag, b);
  EXPECT_TRUE(heap_.deallocate(p).ok());
  void* untagged = *heap_.allocate(100);
  untagged = *heap_.reallocate(untagged, 101, options);
  EXPECT_EQ(heap_.owner_of(untagged)->tag, b);
  EXPECT_TRUE(heap_.deallocate(untagged).ok());
  expect_empty(heap_);
}

TEST_F(SmallObjects, AreNotReallocatedByMistake) {
  add(heap_, memory_[0]);
  add(other_, memory_[1]);
  void* p = *heap_.allocate(100);
  void* keep = *heap_.allocate(100);  // so that the slab stays
  for (const std::size_t size : {100u, 400u}) {
    EXPECT_EQ(heap_.reallocate(static_cast<char*>(p) + 16, size).error().code(), EINVAL);
    EXPECT_EQ(other_.reallocate(p, size).error().code(), EFAULT);
    EXPECT_EQ(heap_.reallocate(memory_[2].base(), size).error().code(), EFAULT);
  }
  EXPECT_EQ(heap_.reallocate(p, 0).error().code(), EINVAL);
  EXPECT_TRUE(heap_.deallocate(p).ok());
  for (const std::size_t size : {100u, 400u}) EXPECT_EQ(heap_.reallocate(p, size).error().code(), EALREADY);
  EXPECT_TRUE(heap_.deallocate(keep).ok());
  expect_empty(heap_);
}

TEST_F(SmallObjects, StayWhereTheyAreWhenAsked) {
  add(heap_, memory_[0]);
  AllocOptions options;
  options.in_place = true;
  void* p = *heap_.allocate(100);
  EXPECT_EQ(*heap_.reallocate(p, 112, options), p);
  EXPECT_EQ(*heap_.reallocate(p, 10, options), p);
  EXPECT_EQ(heap_.reallocate(p, 113, options).error().code(), ENOMEM);
  EXPECT_TRUE(heap_.deallocate(p).ok());
  expect_empty(heap_);
}

TEST_F(SmallObjects, DoNotMoveWhereTheCpuCannotReach) {
  const Memory device(4 * kMiB, PROT_NONE);
  add(heap_, device, false);
  void* p = *heap_.allocate(100);
  EXPECT_EQ(*heap_.reallocate(p, 112), p);
  EXPECT_EQ(heap_.reallocate(p, 113).error().code(), ENOTSUP);
  EXPECT_EQ(*heap_.reallocate(p, 10), p);
  // Nor from there to where it can, nor back.
  add(heap_, memory_[0]);
  std::vector<void*> fillers;
  while (device.contains(p)) {
    fillers.push_back(p);
    p = *heap_.allocate(4096);
  }
  EXPECT_EQ(heap_.reallocate(fillers.back(), 8192).error().code(), ENOTSUP);
  EXPECT_TRUE(heap_.deallocate(fillers.front()).ok());
  fillers.erase(fillers.begin());
  EXPECT_TRUE(heap_.deallocate(p).ok());
  for (void* filler : fillers) EXPECT_TRUE(heap_.deallocate(filler).ok());
  expect_empty(heap_);
}

TEST_F(SmallObjects, MoveFromRegionToRegion) {
  for (int i = 0; i < 2; ++i) add(heap_, memory_[i]);
  std::vector<void*> objects;
  while (objects.empty() || memory_[0].contains(objects.back())) objects.push_back(*heap_.allocate(1000));
  void* in_first = objects.front();
  fill(in_first, 1000, 7);
  bool moved = false;
  for (std::size_t size = 1100; size < 30'000; size += size / 4) {
    void* now = *heap_.reallocate(in_first, size);
    moved |= memory_[1].contains(now);
    ASSERT_TRUE(is_filled(now, 1000, 7)) << size;
    ASSERT_EQ(heap_.stats()->used_count, objects.size());
    if (now != in_first) {
      ASSERT_EQ(heap_.deallocate(in_first).error().code(), EALREADY);
    }
    in_first = now;
  }
  EXPECT_TRUE(moved);
  objects.front() = in_first;
  for (void* object : objects) EXPECT_TRUE(heap_.deallocate(object).ok());
  expect_empty(heap_);
}

TEST_F(SmallObjects, AreFreedInWhicheverRegionTheyLie) {
  for (int i = 0; i < 3; ++i) add(heap_, memory_[i]);
  const RegionId last = add(other_, memory_[3]);
  std::vector<void*> objects;
  for (;;) {
    const auto p = heap_.allocate(1000);
    if (!p) break;
    objects.push_back(*p);
  }
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(std::any_of(objects.begin(), objects.end(), [&](void* p) { return memory_[i].contains(p); }));
  }
  void* foreign = *other_.allocate(1000);
  std::shuffle(objects.begin(), objects.end(), std::mt19937(3));
  for (std::size_t i = 0; i < objects.size(); ++i) {
    EXPECT_EQ(heap_.deallocate(foreign).error().code(),
              EFAULT);  // in between, so that its region is the last
    ASSERT_TRUE(heap_.deallocate(objects[i]).ok());
    if (i > 0) {
      ASSERT_EQ(heap_.deallocate(objects[i - 1]).error().code(), EALREADY);
    }
    if (i % 7 == 0) {
      ASSERT_EQ(heap_.deallocate(memory_[i % 3].base() + 4 * kMiB - 1).error().code() == 0, false);
    }
  }
  EXPECT_TRUE(other_.deallocate(foreign).ok());
  EXPECT_TRUE(domain_.remove_region(last).ok());
  EXPECT_EQ(heap_.deallocate(foreign).error().code(), EFAULT);
  expect_empty(heap_);
}

}  // namespace
}  // namespace extmem::test
