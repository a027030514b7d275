// "Every function may be called by any thread at any time": regions, heaps and memzones come and go while other
// threads allocate, look up, walk and verify. Meant for ThreadSanitizer as well; a hang ends by the test's timeout.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <string>
#include <thread>

#include "contract/memory.hpp"
#include "contract/state.hpp"
#include "extmem/heap_map.hpp"

namespace extmem::test {
namespace {

using Clock = std::chrono::steady_clock;

class ConcurrentCalls : public testing::Test {
 public:
  ConcurrentCalls() {
    heap_ = *domain_.create_heap("shared");
    EXPECT_TRUE(domain_.add_region(heap_, spec(staying_)));
  }
  ~ConcurrentCalls() override {
    EXPECT_EQ(domain_.verify().value_or(99), 0u);
    EXPECT_EQ(heap_.stats()->used_count, 0u);
  }
  static RegionSpec spec(const Memory& memory) {
    RegionSpec spec;
    spec.base = memory.base();
    spec.length = memory.length();
    spec.iova_source = IovaSource::identity;
    return spec;
  }
  /// Runs every function again and again, each in a thread of its own, for a while.
  static void run(const std::vector<std::function<void(unsigned round)>>& functions) {
    const auto end = Clock::now() + std::chrono::milliseconds(700);
    std::vector<std::thread> threads;
    for (const auto& function : functions) {
      threads.emplace_back([&function, end] {
        for (unsigned round = 0; Clock::now() < end; ++round) function(round);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  std::function<void(unsigned)> add_and_remove_regions() {
    return [this](unsigned round) {
      const auto region = domain_.add_region(heap_, spec(coming_and_going_));
      ASSERT_TRUE(region) << region.error().message();
      EXPECT_TRUE(domain_.region_info(*region));
      if (round % 3 == 0) (void)domain_.remove_region(*region);
      const auto drained = domain_.drain_region(*region, std::chrono::seconds(20));
      EXPECT_TRUE(drained || drained.error().code() == ENOENT) << drained.error().message();
      const auto removed = domain_.remove_region(*region);
      EXPECT_TRUE(removed || removed.error().code() == ENOENT) << removed.error().message();
    };
  }
  std::function<void(unsigned)> allocate_and_look_up() {
    return [this](unsigned round) {
      Heap heap = heap_;
      const auto p = heap.allocate(1 + round * 37 % 20000);
      if (!p) return;  // full for the moment
      EXPECT_TRUE(domain_.iova_of(*p));
      EXPECT_EQ(domain_.address_of(Iova{reinterpret_cast<std::uintptr_t>(*p)}).value_or(nullptr), *p);
      EXPECT_EQ(domain_.from_region_ptr(domain_.to_region_ptr(*p).value_or(RegionPtr{})).value_or(nullptr),
                *p);
      EXPECT_TRUE(domain_.owner_of(*p)->held);
      const auto region = domain_.region_of(*p);
      EXPECT_TRUE(region && domain_.region_info(*region));
      EXPECT_TRUE(domain_.deallocate(*p));
    };
  }
  std::function<void(unsigned)> come_and_go_with_heaps() {
    return [this](unsigned round) {
      const std::string name = "heap " + std::to_string(round % 5);
      const auto heap = domain_.create_heap(name);
      ASSERT_TRUE(heap) << heap.error().message();
      EXPECT_TRUE(domain_.find_heap(name));
      const auto destroyed = domain_.destroy_heap(*heap);
      EXPECT_TRUE(destroyed) << destroyed.error().message();
    };
  }
  std::function<void(unsigned)> reserve_memzones(const std::string& prefix) {
    return [this, prefix](unsigned round) {
      const std::string name = prefix + std::to_string(round % 7);
      const auto zone = domain_.reserve_memzone(heap_, name, 100 + round % 9000);
      if (!zone) return;
      EXPECT_TRUE(domain_.find_memzone(name));
      EXPECT_TRUE(domain_.free_memzone(name));
    };
  }
  std::function<void(unsigned)> look_around() {
    return [this](unsigned round) {
      EXPECT_TRUE(domain_.walk_regions([](const RegionInfo&) { return true; }));
      EXPECT_TRUE(domain_.walk_memzones([](const MemzoneInfo&) { return true; }));
      EXPECT_TRUE(domain_.walk_heaps([](const HeapInfo& info) {
        EXPECT_LT(std::string(info.name, sizeof(info.name)).find('\0'), sizeof(info.name));
        return true;
      }));
      const auto stats = heap_.stats();
      EXPECT_EQ(stats->total_bytes,
                stats->used_bytes + stats->free_bytes + stats->cached_bytes + stats->slab_free_bytes);
      if (round % 8 == 0) {
        EXPECT_TRUE(heap_.walk([](const WalkEntry&) { return true; }, {true}));
        EXPECT_EQ(domain_.verify().value_or(99), 0u);
        EXPECT_TRUE(write_heap_map(domain_, [](std::string_view) { return true; }));
      }
    };
  }

  Memory staying_{2 * kMiB};
  Memory coming_and_going_{2 * kMiB};
  Domain domain_ = std::move(*Domain::create());
  Heap heap_;
};

TEST_F(ConcurrentCalls, RegionsComeAndGoUnderLookups) {
  run({add_and_remove_regions(), allocate_and_look_up(), allocate_and_look_up(), look_around()});
}

TEST_F(ConcurrentCalls, RegionsAreAskedForWhileTheyLeave) {
  // The region of an address, and what is asked by id: an answer of the one that is there, or a refusal.
  std::atomic<std::uint64_t> id{0};
  const auto come_and_go = [&](unsigned round) {
    RegionSpec half = spec(coming_and_going_);
    if (round % 2 != 0) {
      half.base = coming_and_going_.base() + kMiB;
      half.length = kMiB;
    }
    const auto region = domain_.add_region(round % 3 == 0 ? heap_ : *domain_.find_heap("node0"), half);
    ASSERT_TRUE(region) << region.error().message();
    id = std::uint64_t{region->slot} << 32 | region->generation;
    const auto removed = domain_.remove_region(*region);
    EXPECT_TRUE(removed) << removed.error().message();
  };
  const auto ask = [&](unsigned round) {
    std::byte* p = coming_and_going_.base() + (round * 4099) % (2 * kMiB);
    const auto region = domain_.region_of(p);
    EXPECT_TRUE(region || region.error().code() == EFAULT);
    const std::uint64_t seen = id;
    const RegionId asked{static_cast<std::uint32_t>(seen >> 32), static_cast<std::uint32_t>(seen)};
    const auto info = domain_.region_info(asked);
    if (!info) {
      EXPECT_EQ(info.error().code(), ENOENT);
    } else {
      EXPECT_EQ(info->id, asked);
      EXPECT_TRUE(info->length == kMiB || info->length == 2 * kMiB);
      EXPECT_EQ(info->free_bytes, info->length);
      EXPECT_EQ(info->largest_free, info->length);
    }
    std::uint64_t covered = 0;
    const auto runs =
        domain_.walk_iova_runs(asked, [&](const IovaRun& run) { return covered += run.length, true; });
    EXPECT_TRUE(!runs || covered == kMiB || covered == 2 * kMiB) << covered;
  };
  run({come_and_go, ask, ask});
}

TEST_F(ConcurrentCalls, HeapsComeAndGoUnderWalks) {
  run({come_and_go_with_heaps(), look_around(), reserve_memzones("a"), allocate_and_look_up()});
}

TEST_F(ConcurrentCalls, ListenersMayAllocateAndLookUp) {
  // Inside a listener what could hang is refused; everything else works, and nothing hangs.
  const auto listener = [](const RegionEvent& event, void* arg) {
    auto* self = static_cast<ConcurrentCalls*>(arg);
    Heap heap = self->heap_;
    if (const auto p = heap.allocate(100)) (void)heap.deallocate(*p);
    (void)self->domain_.iova_of(event.info.base);
    (void)self->domain_.find_memzone("a1");
    (void)self->domain_.find_heap("heap 1");
    (void)self->domain_.intern_tag("from a listener");
    (void)self->domain_.reserve_memzone(heap, "of the listener", 64);
    (void)self->domain_.free_memzone("of the listener");
    (void)heap.stats();
    return 0;
  };
  ASSERT_TRUE(domain_.add_listener(listener, this));
  run({add_and_remove_regions(), come_and_go_with_heaps(), reserve_memzones("a"), reserve_memzones("b")});
  EXPECT_TRUE(domain_.remove_listener(listener, this));
}

TEST_F(ConcurrentCalls, GrowingHeapsReserveMemzonesUnderListeners) {
  HeapOptions growing;
  growing.growth.step = kMiB;
  growing.growth.limit = 16 * kMiB;
  Heap grower = *domain_.create_heap("grower", growing);
  const auto listener = [](const RegionEvent&, void* arg) {
    (void)static_cast<ConcurrentCalls*>(arg)->domain_.find_memzone("z");
    return 0;
  };
  ASSERT_TRUE(domain_.add_listener(listener, this));
  const auto grow = [&](unsigned round) {
    const std::string name = "big " + std::to_string(round % 3);
    if (domain_.reserve_memzone(grower, name, 3 * kMiB)) (void)domain_.free_memzone(name);
  };
  run({grow, add_and_remove_regions()});
  EXPECT_TRUE(domain_.remove_listener(listener, this));
}

TEST_F(ConcurrentCalls, OthersGoOnWhileABackingIsPrefaulted) {
  // Pre-faulting may take minutes: nobody else waits for it. (Were a lock held, the join would never return.)
  int called = 0;
  const auto others = [&](std::uint64_t, std::uint64_t) {
    if (called++ == 0) {
      std::thread([&] {
        const auto region = domain_.add_region(heap_, spec(coming_and_going_));
        ASSERT_TRUE(region) << region.error().message();
        EXPECT_TRUE(domain_.region_info(*region));
        EXPECT_TRUE(domain_.address_of(Iova{reinterpret_cast<std::uintptr_t>(coming_and_going_.base())}));
        EXPECT_TRUE(domain_.walk_regions([](const RegionInfo&) { return true; }));
        EXPECT_TRUE(domain_.remove_region(*region));
      }).join();
    }
    return false;
  };
  BackingSpec backing;
  backing.length = 8 * kMiB;
  backing.prefault = true;
  backing.progress = others;
  const auto region = domain_.add_backing(heap_, backing);
  ASSERT_TRUE(region) << region.error().message();
  EXPECT_GT(called, 0);
}

TEST_F(ConcurrentCalls, ListenersSeeTheRegionTheyHearOf) {
  // What a listener that maps memory for a device needs works inside it.
  struct Seen {
    Domain* domain;
    std::uint64_t bytes = 0;
    bool ok = false;
  } seen{&domain_};
  const auto listener = [](const RegionEvent& event, void* arg) {
    auto* s = static_cast<Seen*>(arg);
    const auto map = [s](const IovaRun& run) { return s->bytes += run.length, true; };
    s->ok = s->domain->walk_iova_runs(event.info.id, map).ok() &&
            s->domain->region_info(event.info.id).ok() && s->domain->iova_of(event.info.base).ok() &&
            s->domain->to_region_ptr(event.info.base).ok();
    return 0;
  };
  ASSERT_TRUE(domain_.add_listener(listener, &seen));
  const auto region = domain_.add_region(heap_, spec(coming_and_going_));
  ASSERT_TRUE(region) << region.error().message();
  EXPECT_TRUE(seen.ok);
  EXPECT_EQ(seen.bytes, coming_and_going_.length());
  seen.ok = false;
  ASSERT_TRUE(domain_.remove_region(*region));
  EXPECT_TRUE(seen.ok) << "also while it is removed";
  EXPECT_TRUE(domain_.remove_listener(listener, &seen));
}

// The destroying thread's own cache may become any thread's at once.
TEST_F(ConcurrentCalls, AStaleHandleTakesNothingFromTheCacheThatAnotherThreadGot) {
  auto gone = domain_.create_heap("gone");
  const auto region = domain_.add_region(*gone, spec(coming_and_going_));
  ASSERT_TRUE(region) << region.error().message();
  ASSERT_TRUE(gone->deallocate(gone->allocate(64).value_or(nullptr)));
  ASSERT_TRUE(domain_.remove_region(*region));
  ASSERT_TRUE(domain_.destroy_heap(*gone));
  std::atomic<int> step = 0;
  std::thread other([&] {
    auto next = domain_.create_heap("next");
    const auto again = domain_.add_region(*next, spec(coming_and_going_));
    ASSERT_TRUE(again) << again.error().message();
    ASSERT_TRUE(next->deallocate(next->allocate(64).value_or(nullptr)));
    for (step = 1; step != 2;) std::this_thread::yield();
    EXPECT_EQ(domain_.verify().value_or(99), 0u);
    EXPECT_TRUE(domain_.remove_region(*again));
    EXPECT_TRUE(domain_.destroy_heap(*next));
  });
  while (step != 1) std::this_thread::yield();
  for (int i = 0; i < 100; ++i) EXPECT_EQ(gone->allocate(64).error().code(), ESTALE);
  step = 2;
  other.join();
}

}  // namespace
}  // namespace extmem::test
