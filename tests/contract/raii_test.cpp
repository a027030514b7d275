// Handles that clean up: objects, heaps, regions, memzones; and what they do when the clean-up is refused.
#include <gtest/gtest.h>

#include <stdexcept>

#include "contract/memory.hpp"
#include "extmem/raii.hpp"

namespace extmem::test {
namespace {

struct Counted {
  static inline int alive = 0;
  int value;
  explicit Counted(int v = 0) : value(v) {
    if (v < 0 || alive == throw_at) throw std::runtime_error("refused to be made");
    ++alive;
  }
  virtual ~Counted() { --alive; }
  static inline int throw_at = -1;
};
struct Other {
  virtual ~Other() = default;
  long other = 7;
};
struct Derived : Other, Counted {  // Counted is not at offset 0
  explicit Derived(int v) : Counted(v) {}
};

class Raii : public testing::Test {
 protected:
  Raii() {
    Counted::alive = 0;
    Counted::throw_at = -1;
    heap_ = *domain_.create_heap("raii");
    region_ = *domain_.add_region(heap_, spec(memory_));
  }
  ~Raii() override {
    EXPECT_EQ(Counted::alive, 0);
    EXPECT_EQ(heap_.stats()->used_bytes, 0u);
    EXPECT_EQ(domain_.verify().value_or(99), 0u);
  }
  static RegionSpec spec(const Memory& memory) {
    RegionSpec spec;
    spec.base = memory.base();
    spec.length = memory.length();
    return spec;
  }
  Memory memory_{kMiB};
  Memory lent_{kMiB};
  Domain domain_ = std::move(*Domain::create());
  Heap heap_;
  RegionId region_;
};

TEST_F(Raii, ObjectIsDestroyedAndFreed) {
  {
    auto made = make_unique_in<Counted>(heap_, 42);
    ASSERT_TRUE(made) << made.error().message();
    EXPECT_EQ((*made)->value, 42);
    EXPECT_TRUE(memory_.contains(made->get()));
    EXPECT_EQ(made->get_deleter().heap(), heap_);
    EXPECT_EQ(Counted::alive, 1);
  }
  EXPECT_EQ(Counted::alive, 0);
}

TEST_F(Raii, DerivedObjectIsFreedThroughItsBase) {
  auto derived = make_unique_in<Derived>(heap_, 5);
  ASSERT_TRUE(derived);
  HeapUnique<Counted> base = std::move(*derived);
  EXPECT_EQ(base->value, 5);
  base.reset();
  EXPECT_EQ(heap_.stats()->used_bytes, 0u) << "freed with the address of the base, not of the object";
}

TEST_F(Raii, ObjectKeepsItsAlignment) {
  struct alignas(4096) Page {
    char bytes[4096];
  };
  const auto page = make_unique_in<Page>(heap_);
  ASSERT_TRUE(page);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(page->get()) % 4096, 0u);
}

TEST_F(Raii, ThrowingConstructorLeavesNothing) {
  EXPECT_THROW((void)make_unique_in<Counted>(heap_, -1), std::runtime_error);
  EXPECT_EQ(heap_.stats()->used_bytes, 0u);
  Counted::throw_at = 3;
  EXPECT_THROW((void)make_unique_in<Counted[]>(heap_, 5), std::runtime_error);
  EXPECT_EQ(Counted::alive, 0);
  EXPECT_EQ(heap_.stats()->used_bytes, 0u);
}

TEST_F(Raii, ArrayIsDestroyedAndFreed) {
  {
    auto array = make_unique_in<Counted[]>(heap_, 10);
    ASSERT_TRUE(array) << array.error().message();
    EXPECT_EQ(Counted::alive, 10);
    (*array)[9].value = 3;
    EXPECT_EQ(array->get_deleter().count(), 10u);
    const auto zeros = make_unique_in<int[]>(heap_, 100);
    ASSERT_TRUE(zeros);
    for (std::size_t i = 0; i < 100; ++i) EXPECT_EQ((*zeros)[i], 0);
  }
  EXPECT_EQ(Counted::alive, 0);
}

TEST_F(Raii, FailureIsAnError) {
  EXPECT_EQ(make_unique_in<Counted>(Heap(*domain_.create_heap("no memory"))).error().code(), ENOMEM);
  EXPECT_EQ(make_unique_in<int[]>(heap_, 0).error().code(), EINVAL);
  EXPECT_EQ(make_unique_in<int[]>(heap_, SIZE_MAX / 2).error().code(), EOVERFLOW);
  EXPECT_EQ(make_unique_in<int[]>(heap_, 2 * kMiB).error().code(), ENOMEM);
  EXPECT_STRNE(make_unique_in<int[]>(heap_, SIZE_MAX / 2).error().message(), "");
}

TEST_F(Raii, HeapGoesWithTheScope) {
  {
    auto scoped = ScopedHeap::create(domain_, "scoped");
    ASSERT_TRUE(scoped) << scoped.error().message();
    EXPECT_STREQ((*scoped)->name(), "scoped");
    EXPECT_EQ(ScopedHeap::create(domain_, "scoped").error().code(), EEXIST);
  }
  EXPECT_EQ(domain_.find_heap("scoped").error().code(), ENOENT);
}

TEST_F(Raii, HeapStaysWhileARegionIsInIt) {
  {
    auto scoped = ScopedHeap::create(domain_, "busy");
    ASSERT_TRUE(scoped);
    ASSERT_TRUE(domain_.add_region(scoped->get(), spec(lent_)));
    EXPECT_EQ(scoped->destroy().error().code(), EBUSY);
    EXPECT_TRUE(*scoped) << "on errors the handle keeps it";
  }
  EXPECT_TRUE(domain_.find_heap("busy"));
}

TEST_F(Raii, RegionGoesWithTheScope) {
  RegionId id;
  {
    auto region = ScopedRegion::add(domain_, heap_, spec(lent_));
    ASSERT_TRUE(region) << region.error().message();
    id = region->id();
    EXPECT_TRUE(domain_.region_info(id));
  }
  EXPECT_EQ(domain_.region_info(id).error().code(), ENOENT);
  BackingSpec backing;
  backing.length = 64 * kKiB;
  {
    auto region = ScopedRegion::add(domain_, heap_, backing);
    ASSERT_TRUE(region) << region.error().message();
    id = region->id();
  }
  EXPECT_EQ(domain_.region_info(id).error().code(), ENOENT);
}

TEST_F(Raii, BusyRegionStaysAndDrains) {
  void* held = nullptr;
  RegionId id;
  {
    auto region = ScopedRegion::add(domain_, heap_, spec(lent_));
    ASSERT_TRUE(region);
    id = region->id();
    AllocOptions there;
    there.region = id;
    held = heap_.allocate(100, there).value_or(nullptr);
    ASSERT_NE(held, nullptr);
    HolderReport report;
    EXPECT_EQ(region->remove(&report).error().code(), EBUSY);
    EXPECT_EQ(report.total_count, 1u);
    EXPECT_EQ(region->drain_and_remove(std::chrono::milliseconds(1), &report).error().code(), ETIMEDOUT);
    ASSERT_TRUE(domain_.undrain_region(id));
  }
  const auto info = domain_.region_info(id);
  ASSERT_TRUE(info) << "removed although it was in use";
  EXPECT_TRUE(info->draining);
  EXPECT_TRUE(heap_.usable_size(held)) << "what is held stays valid";
  EXPECT_TRUE(heap_.deallocate(held));
  ScopedRegion again(domain_, id);
  EXPECT_TRUE(again.drain_and_remove(std::chrono::seconds(1)));
  EXPECT_FALSE(again);
}

TEST_F(Raii, MemzoneGoesWithTheScope) {
  {
    auto zone = ScopedMemzone::reserve(domain_, heap_, "scoped", 4096);
    ASSERT_TRUE(zone) << zone.error().message();
    EXPECT_TRUE(memory_.contains((*zone)->addr));
    EXPECT_EQ(domain_.memzone_count(), 1u);
  }
  EXPECT_EQ(domain_.memzone_count(), 0u);
  auto zone = ScopedMemzone::reserve(domain_, heap_, "scoped", 4096);
  ASSERT_TRUE(zone);
  ASSERT_TRUE(domain_.free_memzone("scoped"));
  EXPECT_EQ(zone->free().error().code(), ENOENT);
  EXPECT_FALSE(*zone) << "gone is gone";
}

TEST_F(Raii, HandlesMove) {
  auto zone = std::move(*ScopedMemzone::reserve(domain_, heap_, "moved", 64));
  ScopedMemzone second = std::move(zone);
  EXPECT_FALSE(zone);  // NOLINT: moved-from handles are empty
  EXPECT_TRUE(second);
  second = ScopedMemzone();
  EXPECT_EQ(domain_.memzone_count(), 0u);

  auto heap = std::move(*ScopedHeap::create(domain_, "moved"));
  heap = std::move(*ScopedHeap::create(domain_, "moved too"));
  EXPECT_FALSE(domain_.find_heap("moved"));
  const Heap released = heap.release();
  EXPECT_FALSE(heap);
  EXPECT_TRUE(domain_.destroy_heap(released));

  auto region = std::move(*ScopedRegion::add(domain_, heap_, spec(lent_)));
  ScopedRegion taken(std::move(region));
  const RegionId id = taken.id();
  taken = ScopedRegion();
  EXPECT_FALSE(domain_.region_info(id));
}

}  // namespace
}  // namespace extmem::test
