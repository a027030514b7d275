// Several threads on one domain: regions that come and go under load, memzones by name, heaps made and destroyed.
#include "stress/stress.hpp"

namespace extmem::stress {
namespace {

class DomainStress : public ::testing::Test {
 protected:
  DomainStress() {
    auto made = Domain::create();
    EXPECT_TRUE(made.ok());
    domain_ = std::move(*made);
    heap_ = *domain_.create_heap("heap");
  }
  void check_domain() {
    std::string text;
    const auto breaches =
        domain_.verify([&](const Breach& breach) { text += std::string(breach.what) + '\n'; });
    stress_.check(breaches, "verify");
    stress_.check(breaches.value_or(1) == 0, text);
  }
  Stress stress_;
  Domain domain_;
  Heap heap_;
};

TEST_F(DomainStress, RegionsAreDrainedAndRemovedUnderLoad) {
  constexpr std::uint64_t kLength = 8 * kMiB;
  constexpr std::uint64_t kRegions = 4;
  const Arena arena(kRegions * kLength);
  std::vector<RegionId> regions(kRegions);
  for (std::uint64_t i = 0; i < kRegions; ++i)
    regions[i] = *domain_.add_region(heap_, arena.spec(i * kLength, kLength));
  std::atomic<int> removed{0};
  std::atomic<int> refused{0};
  Worker::Places places(16);
  const auto work = [&](std::uint64_t seed) {
    Worker worker(stress_, heap_, seed, &places);
    // Everything is freed now and then, and the places are turned over all the time: so every drain succeeds in the end.
    while (stress_.going()) {
      for (int i = 0; i < 400 && stress_.going(); ++i) worker.step(100);
      worker.free_all();
      free_places(stress_, heap_, places);
    }
  };
  const auto control = [&] {
    Random random(7);
    while (stress_.going()) {
      const std::uint64_t which = below(random, kRegions);
      HolderReport holders;
      const auto direct = domain_.remove_region(regions[which], &holders);
      if (!direct.ok()) {
        stress_.check(direct.error().code() == EBUSY && holders.total_count > 0, direct.error().message());
        ++refused;
        const auto drained = domain_.drain_region(regions[which], std::chrono::milliseconds(200), &holders);
        if (!drained.ok()) {
          stress_.check(drained.error().code() == ETIMEDOUT, drained.error().message());
          stress_.check(domain_.undrain_region(regions[which]), "undrain");
          continue;
        }
        stress_.check(domain_.remove_region(regions[which]), "a drained region is empty");
      }
      ++removed;
      arena.protect(which * kLength, kLength, false);  // whoever still touches it crashes
      std::this_thread::sleep_for(std::chrono::microseconds(below(random, 500)));
      arena.protect(which * kLength, kLength, true);
      const auto added = domain_.add_region(heap_, arena.spec(which * kLength, kLength));
      if (!stress_.check(added, "add")) return;
      regions[which] = *added;
    }
  };
  const auto look = [&] {
    while (stress_.going()) {
      stress_.check_heap(heap_);
      stress_.check(domain_.walk_regions([](const RegionInfo&) { return true; }), "walk_regions");
      int anything = 0;
      const auto foreign = heap_.deallocate(&anything);
      stress_.check(foreign.error().code() == EFAULT, "a foreign pointer");
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
  };
  stress_.run_until([&] { return removed > 3; }, [&] { work(1); }, [&] { work(2); }, control, look);
  free_places(stress_, heap_, places);
  stress_.check_empty(heap_);
  check_domain();
  for (const RegionId region : regions) EXPECT_TRUE(domain_.remove_region(region).ok());
}

TEST_F(DomainStress, MemzonesComeAndGoByName) {
  const Arena arena(16 * kMiB);
  ASSERT_TRUE(domain_.add_region(heap_, arena.spec(0, 8 * kMiB)).ok());
  ASSERT_TRUE(
      domain_
          .add_region(*domain_.create_heap("exact", {.style = Style::exact}), arena.spec(8 * kMiB, 8 * kMiB))
          .ok());
  const Heap heaps[] = {heap_, *domain_.find_heap("exact")};
  constexpr std::uint64_t kNames = 40;
  std::atomic<int> reserved{0};
  std::atomic<int> lost{0};
  std::atomic<int> freed{0};
  const auto work = [&](std::uint64_t seed) {
    Random random(seed);
    while (stress_.going()) {
      const std::string name = "zone " + std::to_string(below(random, kNames));
      const std::uint64_t dice = below(random, 10);
      if (dice < 4) {
        const std::uint64_t length = random_size(random);
        AllocOptions options;
        options.align = std::uint64_t{64} << below(random, 7);
        const auto got = domain_.reserve_memzone(heaps[below(random, 2)], name, length, options);
        if (got.ok()) {
          ++reserved;
          stress_.check(got->length == length && name == got->name, "another memzone than the one asked for");
          stress_.check(reinterpret_cast<std::uintptr_t>(got->addr) % options.align == 0, "alignment");
        } else {
          stress_.check(got.error().code() == EEXIST, got.error().message());
          ++lost;
        }
      } else if (dice < 7) {
        const auto found = domain_.find_memzone(name);
        stress_.check(found.ok() ? name == found->name : found.error().code() == ENOENT, "find_memzone");
      } else {
        const auto gone = domain_.free_memzone(name);
        stress_.check(gone.ok() || gone.error().code() == ENOENT, gone.error().message());
        if (gone.ok()) ++freed;
      }
    }
  };
  const auto look = [&] {
    while (stress_.going()) {
      check_domain();
      std::uint64_t zones = 0;
      stress_.check(domain_.walk_memzones([&](const MemzoneInfo& info) {
        zones += info.length > 0 && info.addr != nullptr ? 1u : 1000u;
        return true;
      }),
                    "walk_memzones");
      stress_.check(zones <= kNames, "more memzones than names");
      for (const Heap& heap : heaps) {
        const auto walked = heap.walk([&](const WalkEntry& entry) {
          if (entry.kind == WalkKind::memzone)
            stress_.check(entry.name != nullptr, "a memzone without a name");
          return true;
        });
        stress_.check(walked, "walk");
      }
    }
  };
  stress_.run_until([&] { return reserved > 50 && lost > 0; }, [&] { work(1); }, [&] { work(2); }, look);
  EXPECT_EQ(static_cast<int>(domain_.memzone_count()), reserved - freed);
  for (std::uint64_t i = 0; i < kNames; ++i) (void)domain_.free_memzone("zone " + std::to_string(i));
  for (const Heap& heap : heaps) stress_.check_empty(heap);
  check_domain();
}

// One thread makes and destroys a heap; others use whatever handle they last saw, which may be stale, beside a heap
// that stays. A cache that was taken from them must not be used by two.
TEST_F(DomainStress, HeapsAreDestroyedWhileOthersHoldTheirHandles) {
  const Arena arena(16 * kMiB);
  ASSERT_TRUE(domain_.add_region(heap_, arena.spec(0, 8 * kMiB)).ok());
  std::mutex mutex;
  Heap current = *domain_.create_heap("short-lived");
  std::atomic<int> lives{0};
  std::atomic<std::uint64_t> used{0};
  const auto make = [&] {
    while (stress_.going()) {
      Heap heap;
      {
        const std::lock_guard lock(mutex);
        heap = current;
      }
      const auto region = domain_.add_region(heap, arena.spec(8 * kMiB, 8 * kMiB));
      if (!stress_.check(region, "add")) return;
      std::this_thread::sleep_for(std::chrono::microseconds(300));
      const auto drained = domain_.drain_region(*region, std::chrono::seconds(60));
      if (!stress_.check(drained, "drain") || !stress_.check(domain_.remove_region(*region), "remove"))
        return;
      if (!stress_.check(domain_.destroy_heap(heap), "destroy")) return;
      const auto made = domain_.create_heap("short-lived");
      if (!stress_.check(made, "create")) return;
      const std::lock_guard lock(mutex);
      current = *made;
      ++lives;
    }
  };
  const auto work = [&](std::uint64_t seed) {
    Worker worker(stress_, heap_, seed);
    while (stress_.going()) {
      Heap heap;
      {
        const std::lock_guard lock(mutex);
        heap = current;
      }
      for (int i = 0; i < 30; ++i) {
        worker.step(50);
        const auto got = heap.allocate(1 + below(worker.random(), 3000));
        if (got.ok()) {
          ++used;
          std::memset(*got, 0x5a, 1);
          stress_.check(heap.deallocate(*got), "deallocate");
        } else {
          const int code = got.error().code();
          stress_.check(code == ENOMEM || code == ESTALE, got.error().message());
        }
      }
    }
  };
  stress_.run_until([&] { return lives > 5 && used > 100; }, make, [&] { work(1); }, [&] { work(2); });
  check_domain();
  stress_.check_empty(heap_);
}

// A region is being removed, its listener takes its time, and meanwhile another thread lets allocations use it again.
TEST_F(DomainStress, ARegionThatIsBeingRemovedStaysDrained) {
  constexpr std::uint64_t kLength = 2 * kMiB;
  const Arena arena(2 * kLength);
  ASSERT_TRUE(domain_.add_region(heap_, arena.spec(0, kLength)).ok());
  std::mutex mutex;
  RegionId region = *domain_.add_region(heap_, arena.spec(kLength, kLength));
  const RegionListener slow = [](const RegionEvent&, void*) {
    std::this_thread::sleep_for(std::chrono::microseconds(100));
    return 0;
  };
  ASSERT_TRUE(domain_.add_listener(slow, nullptr).ok());
  std::atomic<int> removed{0};
  const auto remove = [&] {
    while (stress_.going()) {
      const auto gone = domain_.remove_region(region);
      if (!gone.ok()) {
        stress_.check(gone.error().code() == EBUSY, gone.error().message());
        continue;
      }
      ++removed;
      arena.protect(kLength, kLength, false);  // whoever was given memory there crashes
      std::this_thread::sleep_for(std::chrono::microseconds(50));
      arena.protect(kLength, kLength, true);
      const auto added = domain_.add_region(heap_, arena.spec(kLength, kLength));
      if (!stress_.check(added, "add")) return;
      const std::lock_guard lock(mutex);
      region = *added;
    }
  };
  const auto undrain = [&] {
    while (stress_.going()) {
      RegionId now;
      {
        const std::lock_guard lock(mutex);
        now = region;
      }
      const auto undrained = domain_.undrain_region(now);
      stress_.check(undrained.ok() || undrained.error().code() == ENOENT, undrained.error().message());
    }
  };
  const auto work = [&] {
    Worker worker(stress_, heap_, 5);
    while (stress_.going()) {
      // More than the other region holds, so that this one is used; then nothing, so that it can go.
      for (int i = 0; i < 600 && stress_.going(); ++i) worker.step(400);
      worker.free_all();
    }
  };
  stress_.run_until([&] { return removed > 0; }, remove, undrain, work);
  stress_.check_empty(heap_);
  ASSERT_TRUE(domain_.remove_listener(slow, nullptr).ok());
}

// Regions and memzones asked for through handles of heaps that go: they must not come to the next heap of that id.
TEST_F(DomainStress, StaleHandlesAddNothing) {
  const Arena arena(8 * kMiB);
  std::mutex mutex;
  std::atomic<std::uint64_t> names{0};
  Heap current = *domain_.create_heap("0");
  std::atomic<std::uint64_t> stale{0};
  std::atomic<bool> wanting{false};  // the heap is to go: no new regions meanwhile
  const auto latest = [&] {
    const std::lock_guard lock(mutex);
    return current;
  };
  const auto remake = [&] {
    while (stress_.going()) {
      const auto gone = domain_.destroy_heap(current);
      if (!gone.ok()) {
        stress_.check(gone.error().code() == EBUSY, gone.error().message());
        wanting = true;
        std::this_thread::yield();
        continue;
      }
      const auto made = domain_.create_heap(std::to_string(++names));
      if (!stress_.check(made, "create")) return;
      const std::lock_guard lock(mutex);
      current = *made;
      wanting = false;
    }
  };
  const auto add = [&](std::uint64_t part) {
    Random random(part);
    while (stress_.going()) {
      const Heap heap = latest();
      // With few processors the heap would hold a region of somebody's all the time. And so the handle is soon stale.
      while (wanting && stress_.going()) std::this_thread::yield();
      const auto region = domain_.add_region(heap, arena.spec(part * 4 * kMiB, 1 * kMiB));
      if (!region.ok()) {
        stress_.check(region.error().code() == ESTALE, region.error().message());
        ++stale;
        continue;
      }
      const auto info = domain_.region_info(*region);
      stress_.check(info.ok() && info->heap_id == heap.id(), "the region came to another heap");
      stress_.check(std::strlen(heap.name()) > 0, "the heap of a region has a name");
      const std::string zone = "zone " + std::to_string(part);
      const auto reserved = domain_.reserve_memzone(heap, zone, 5000);
      // The heap holds a region of ours: so it cannot have been destroyed.
      if (stress_.check(reserved, "reserve")) stress_.check(domain_.free_memzone(zone), "free");
      stress_.check(heap.stats(), "the heap of a region lives");
      // The other thread's memzone may lie in it, for a moment.
      auto removed = domain_.remove_region(*region);
      while (!removed.ok() && removed.error().code() == EBUSY) removed = domain_.remove_region(*region);
      stress_.check(removed, "remove");
    }
  };
  stress_.run_until([&] { return stale > 0 && names > 5; }, remake, [&] { add(0); }, [&] { add(1); });
  check_domain();
}

TEST_F(DomainStress, GrowingHeapsGrowAndGiveBack) {
  HeapOptions options;
  options.growth.backing.kind = BackingKind::anonymous;
  options.growth.step = 1 * kMiB;
  options.growth.limit = 16 * kMiB;
  Heap heap = *domain_.create_heap("growing", options);
  const auto work = [&](std::uint64_t seed) {
    Worker worker(stress_, heap, seed);
    while (stress_.going()) {
      for (int i = 0; i < 500 && stress_.going(); ++i) worker.step(300);
      worker.free_all();
    }
  };
  const auto look = [&] {
    while (stress_.going()) {
      stress_.check_heap(heap);
      stress_.check(heap.stats().value_or(HeapStats{}).total_bytes <= 16 * kMiB,
                    "the heap grew beyond its limit");
      if (!stress_.check(heap.flush(), "flush")) return;
      std::this_thread::sleep_for(std::chrono::microseconds(500));
    }
  };
  stress_.run([&] { work(1); }, [&] { work(2); }, look);
  stress_.check_empty(heap);
  check_domain();
  EXPECT_LE(heap.stats()->regions, 1u);
  EXPECT_TRUE(domain_.destroy_heap(heap).ok());
}

}  // namespace
}  // namespace extmem::stress
