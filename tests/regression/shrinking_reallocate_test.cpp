// What broke: a reallocation to a much smaller size always moved the object, and so failed where the heap was full (ENOMEM)
// or the CPU cannot reach the memory (ENOTSUP), although the object could have stayed.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>
#include <vector>

#include "extmem/extmem.hpp"

namespace extmem {
namespace {

class ShrinkingReallocate : public testing::TestWithParam<bool> {
 protected:
  static constexpr std::size_t kLength = std::size_t{4} << 20;
  void SetUp() override {
    memory_ = ::mmap(nullptr, kLength, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(memory_, MAP_FAILED);
    auto domain = Domain::create();
    ASSERT_TRUE(domain.ok());
    domain_ = std::move(*domain);
    auto heap = domain_.create_heap("h");
    ASSERT_TRUE(heap.ok());
    heap_ = *heap;
  }
  void TearDown() override {
    domain_ = Domain();
    ::munmap(memory_, kLength);
  }
  void add(std::size_t length) {
    RegionSpec spec;
    spec.base = memory_;
    spec.length = length;
    spec.cpu_accessible = GetParam();
    ASSERT_TRUE(domain_.add_region(heap_, spec).ok());
  }
  void shrink(void* p, std::size_t size) {
    const auto shrunk = heap_.reallocate(p, size);
    ASSERT_TRUE(shrunk.ok()) << "to " << size << ": " << shrunk.error().message();
    EXPECT_GE(*heap_.usable_size(*shrunk), size);
    EXPECT_EQ(*domain_.verify(), 0u);
    EXPECT_TRUE(heap_.deallocate(*shrunk).ok());
  }

  void* memory_ = nullptr;
  Domain domain_;
  Heap heap_;
};

TEST_P(ShrinkingReallocate, WorksInAFullSmallHeap) {
  add(8192);
  const auto p = heap_.allocate(8192);
  ASSERT_TRUE(p.ok());
  const auto shrunk = heap_.reallocate(*p, 100);
  ASSERT_TRUE(shrunk.ok()) << shrunk.error().message();
  EXPECT_EQ(*shrunk, *p);
  EXPECT_EQ(heap_.stats()->used_bytes, 128u) << "what it gave up is free";
  EXPECT_TRUE(heap_.deallocate(*shrunk).ok());
}

TEST_P(ShrinkingReallocate, WorksInAFullHeap) {
  for (const std::size_t size : {kLength, kLength / 2, std::size_t{20000}, std::size_t{1000}}) {
    TearDown();
    SetUp();
    add(kLength);
    std::vector<void*> given;
    for (auto p = heap_.allocate(size); p.ok(); p = heap_.allocate(size)) given.push_back(*p);
    ASSERT_FALSE(given.empty());
    // Full also for the small ones, but for what cannot be helped.
    std::vector<void*> small;
    for (const std::size_t more : {std::size_t{4096}, std::size_t{256}, std::size_t{16}}) {
      for (auto p = heap_.allocate(more); p.ok(); p = heap_.allocate(more)) small.push_back(*p);
    }
    shrink(given.back(), 16);
  }
}

TEST_P(ShrinkingReallocate, WorksWhereTheCpuCannotReach) {
  add(kLength);
  for (const std::size_t size : {std::size_t{100}, std::size_t{30000}, std::size_t{1} << 20}) {
    const auto p = heap_.allocate(size);
    ASSERT_TRUE(p.ok());
    shrink(*p, 16);
  }
}

TEST_P(ShrinkingReallocate, KeepsWhatItKeeps) {
  if (!GetParam()) return;  // needs memory that the CPU can read
  add(kLength);
  std::vector<void*> fillers;
  const auto p = heap_.allocate(std::size_t{1} << 20);
  ASSERT_TRUE(p.ok());
  for (auto more = heap_.allocate(16); more.ok(); more = heap_.allocate(16)) fillers.push_back(*more);
  std::memset(*p, 0x5a, std::size_t{1} << 20);
  const auto shrunk = heap_.reallocate(*p, 1000);
  ASSERT_TRUE(shrunk.ok()) << shrunk.error().message();
  for (std::size_t i = 0; i < 1000; ++i) ASSERT_EQ(static_cast<const char*>(*shrunk)[i], 0x5a) << i;
}

INSTANTIATE_TEST_SUITE_P(, ShrinkingReallocate, testing::Bool(),
                         [](const auto& test) { return test.param ? "Cpu" : "Device"; });

}  // namespace
}  // namespace extmem
