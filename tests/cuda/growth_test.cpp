// extmem/cuda_growth.hpp: a heap that takes more of a GPU's memory when it needs it.
#include "extmem/cuda_growth.hpp"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "cuda/fixture.hpp"

namespace extmem::cuda {
namespace {

TEST_F(Cuda, GrowthAddsAPieceWhereNoneIsLeftAndGivesItBack) {
  Heap heap = *domain_.create_heap("h");
  {
    Growth growth(domain_, gpu_, heap, {.step = 4 * kMiB, .limit = 16 * kMiB});
    EXPECT_EQ(growth.bytes(), 0u);
    std::vector<void*> objects;
    for (int i = 0; i < 7; ++i) {
      auto p = growth.allocate(2 * kMiB - 4096);
      ASSERT_TRUE(p.ok()) << p.error().message();
      ASSERT_TRUE(gpu_.fill(*p, static_cast<unsigned char>(i), 2 * kMiB - 4096).ok());
      objects.push_back(*p);
    }
    EXPECT_EQ(growth.bytes(), 16 * kMiB);
    EXPECT_EQ(heap.stats()->total_bytes, 16 * kMiB);
    for (int i = 0; i < 7; ++i)
      EXPECT_EQ(content(objects[static_cast<std::size_t>(i)], 10),
                std::vector<unsigned char>(10, static_cast<unsigned char>(i)));
    // The limit holds, for what fits into no piece too, and says so.
    EXPECT_EQ(growth.allocate(3 * kMiB).error().info(), &detail::kLimit);
    EXPECT_EQ(growth.allocate(64 * kMiB).error().code(), ENOMEM);
    EXPECT_EQ(growth.allocate(0).error().code(), EINVAL);
    EXPECT_EQ(growth.bytes(), 16 * kMiB);
    EXPECT_TRUE(heap.deallocate(objects[0]).ok());
    EXPECT_TRUE(heap.deallocate(objects[1]).ok());
    EXPECT_EQ(*growth.trim(), 4 * kMiB);
    EXPECT_EQ(growth.bytes(), 12 * kMiB);
    objects.erase(objects.begin(), objects.begin() + 2);
    EXPECT_TRUE(heap.deallocate_batch(objects).ok());
  }
  EXPECT_EQ(heap.stats()->regions, 0u) << "its end gives back what is empty";
}

TEST_F(Cuda, GrowthTakesAPieceForALargeAllocation) {
  Heap heap = *domain_.create_heap("h");
  Growth growth(domain_, gpu_, heap, {.step = 2 * kMiB});
  auto p = growth.allocate(33 * kMiB, {.align = 8 * kMiB});
  ASSERT_TRUE(p.ok()) << p.error().message();
  EXPECT_EQ(device_ptr(*p) % (8 * kMiB), 0u);
  EXPECT_EQ(growth.bytes(), 42 * kMiB);
  EXPECT_TRUE(heap.deallocate(*p).ok());
}

TEST_F(Cuda, GrowthThatHelpsNotIsTakenBack) {
  Heap heap = *domain_.create_heap("h");
  Growth growth(domain_, gpu_, heap, {.step = 2 * kMiB});
  AllocOptions low;
  low.dma_bits = 20;
  EXPECT_EQ(growth.allocate(100, low).error().code(), ENOMEM);
  EXPECT_EQ(growth.bytes(), 0u);
  EXPECT_EQ(ranges(), 0u);
  {
    const Failing failing("cuMemAlloc_v2", 2);
    EXPECT_EQ(growth.allocate(100).error().code(), ENOMEM);
    EXPECT_EQ(last_status(), 2);
  }
  const auto refuse = [](const RegionEvent& event, void*) {
    return event.kind == RegionEventKind::added ? EPERM : 0;
  };
  ASSERT_TRUE(domain_.add_listener(refuse, nullptr).ok());
  EXPECT_EQ(growth.allocate(100).error().code(), EPERM);
  EXPECT_EQ(ranges(), 0u) << "what was refused is not kept";
}

TEST_F(Cuda, GrowthFromManyThreadsAddsNoMoreThanIsNeeded) {
  Heap heap = *domain_.create_heap("h");
  Growth growth(domain_, gpu_, heap, {.step = 2 * kMiB, .limit = 64 * kMiB});
  std::vector<std::thread> threads;
  std::vector<std::vector<void*>> objects(4);
  for (auto& own : objects)
    threads.emplace_back([&growth, &own] {
      for (int i = 0; i < 40; ++i) {
        auto p = growth.allocate(200'000);
        ASSERT_TRUE(p.ok()) << p.error().message();
        own.push_back(*p);
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(growth.bytes(), 40 * kMiB) << "160 objects of 200 kB, ten to a piece";
  EXPECT_EQ(*domain_.verify(), 0u);
  for (auto& own : objects) EXPECT_TRUE(heap.deallocate_batch(own).ok());
  EXPECT_TRUE(growth.trim().ok());
  EXPECT_EQ(growth.bytes(), 0u);
}

}  // namespace
}  // namespace extmem::cuda
