// Exact heaps: nobody can tell that threads take again what they have freed, by any figure, address or failure.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <atomic>
#include <barrier>
#include <cerrno>
#include <cstdlib>
#include <functional>
#include <random>
#include <semaphore>
#include <set>
#include <thread>
#include <vector>

#include "extmem/extmem.hpp"
#include "model/exact_model.hpp"

namespace extmem::test {
namespace {

constexpr std::uint64_t rounded(std::uint64_t bytes) { return (bytes + 63) / 64 * 64; }

/// A domain with one exact heap over memory that nobody may touch.
class ExactHeap : public ::testing::Test {
 protected:
  static constexpr std::uint64_t kBytes = 256 * 1024;
  ExactHeap() {
    auto domain = Domain::create();
    EXPECT_TRUE(domain.ok());
    domain_ = std::move(*domain);
    HeapOptions options;
    options.style = Style::exact;
    heap_ = *domain_.create_heap("exact", options);
    base_ = static_cast<std::byte*>(
        ::mmap(nullptr, kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    RegionSpec spec;
    spec.base = base_;
    spec.length = kBytes;
    auto region = domain_.add_region(heap_, spec);
    EXPECT_TRUE(region.ok());
    region_ = *region;
  }
  ~ExactHeap() override {
    domain_ = Domain{};
    ::munmap(base_, kBytes);
  }
  [[nodiscard]] std::uint64_t offset_of(const void* p) const {
    return static_cast<std::uint64_t>(static_cast<const std::byte*>(p) - base_);
  }
  [[nodiscard]] void* at(std::uint64_t offset) const { return base_ + offset; }
  void* must_allocate(std::size_t size) {
    auto p = heap_.allocate(size);
    EXPECT_TRUE(p.ok()) << p.error().message();
    return p.value_or(nullptr);
  }
  void expect_sound() {
    EXPECT_EQ(domain_
                  .verify([](const Breach& breach) {
                    ADD_FAILURE() << breach.what << ": " << breach.expected << " expected, " << breach.found;
                  })
                  .value_or(1),
              0u);
  }
  /// Takes a thread as far as that it caches.
  void begin() { EXPECT_TRUE(heap_.deallocate(must_allocate(64)).ok()); }

  Domain domain_;
  Heap heap_;
  std::byte* base_ = nullptr;
  RegionId region_{};
};

std::uint64_t seed_for(std::uint64_t usual) {
  const char* given = std::getenv("EXTMEM_SEED");
  return given != nullptr ? std::strtoull(given, nullptr, 0) : usual;
}

TEST_F(ExactHeap, RandomOperationsAgreeWithAModelWithoutCaches) {
  const std::uint64_t seed = seed_for(std::random_device{}());
  SCOPED_TRACE("replay with EXTMEM_SEED=" + std::to_string(seed));
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  std::mt19937_64 random(seed);
  const auto below = [&](std::uint64_t n) {
    return std::uniform_int_distribution<std::uint64_t>(0, n - 1)(random);
  };
  // A second thread does what it is told, one thing after the other.
  std::function<void()> work;
  std::binary_semaphore told{0};
  std::binary_semaphore done{0};
  std::atomic<bool> over{false};  // relaxed: the semaphore carries it
  std::thread helper([&] {
    for (told.acquire(); !over; told.acquire()) {
      work();
      done.release();
    }
  });
  const auto on = [&](bool other, std::function<void()> what) {
    if (!other) return what();
    work = std::move(what);
    told.release();
    done.acquire();
  };

  ExactModel model(kBytes);
  Tag tag = *domain_.intern_tag("tagged");
  std::uint64_t peak = 0;
  std::uint64_t used = 0;
  std::uint64_t recycled = 0;
  // What was freed at each length and may still be cached.
  std::map<std::uint64_t, std::vector<std::uint64_t>> freed;
  const auto took = [&](void* p, std::uint64_t bytes) {
    const std::uint64_t offset = offset_of(p);
    auto& mine = freed[bytes];
    const auto found = std::find(mine.begin(), mine.end(), offset);
    if (found != mine.end() && model.held.find(offset) == model.held.end()) {
      mine.erase(found);
      ++recycled;
    } else {
      EXPECT_TRUE(model.may_place(offset, bytes)) << bytes << " bytes at " << offset;
      freed.clear();
    }
    EXPECT_TRUE(model.held.emplace(offset, bytes).second);
    used += bytes;
    peak = std::max(peak, used);
  };
  const auto look = [&] {
    const HeapStats s = *heap_.stats();
    const auto runs = model.free_runs();
    ASSERT_EQ(s.total_bytes, kBytes);
    ASSERT_EQ(s.used_bytes, used);
    ASSERT_EQ(s.used_count, model.held.size());
    ASSERT_EQ(s.free_bytes, kBytes - used);
    ASSERT_EQ(s.free_runs, runs.size());
    ASSERT_EQ(s.largest_free, model.longest());
    ASSERT_EQ(s.cached_bytes, 0u);
    ASSERT_EQ(s.cached_count, 0u);
    ASSERT_EQ(s.slabs, 0u);
    ASSERT_EQ(s.peak_bytes, peak);
    ASSERT_EQ(s.peak_error, 0u);
    const RegionInfo info = *domain_.region_info(region_);
    ASSERT_EQ(info.free_bytes, s.free_bytes);
    ASSERT_EQ(info.free_runs, s.free_runs);
    ASSERT_EQ(info.largest_free, s.largest_free);
    std::uint64_t end = 0;
    std::uint64_t held = 0;
    ASSERT_TRUE(heap_
                    .walk([&](const WalkEntry& entry) {
                      if (entry.kind == WalkKind::region) return true;
                      EXPECT_EQ(entry.offset, end);
                      end = entry.offset + entry.length;
                      const auto mine = model.held.find(entry.offset);
                      EXPECT_EQ(entry.held, mine != model.held.end());
                      if (entry.held && mine != model.held.end()) {
                        EXPECT_EQ(entry.length, mine->second);
                      }
                      held += entry.held ? 1 : 0;
                      return true;
                    })
                    .ok());
    ASSERT_EQ(held, model.held.size());
    freed.clear();
  };

  bool zone = false;
  std::uint64_t usual = 64;
  for (int step = 0; step < 40'000 && !HasFailure(); ++step) {
    if (below(100) == 0) usual = 1 + below(1000);
    const bool other = below(64) == 0;
    const std::uint64_t size = below(10) == 0 ? 1 + below(12'000) : usual;
    const std::uint64_t bytes = rounded(size);
    const std::uint64_t what = below(1000);
    if (what < (step % 4000 < 2000 ? 560u : 400u)) {
      on(other, [&] {
        AllocOptions options;
        if (what % 50 == 0) options.tag = tag;
        auto p = what % 3 == 0   ? heap_.allocate(size, std::size_t{64})
                 : what % 3 == 1 ? heap_.allocate(size, options)
                                 : heap_.allocate(size);
        if (p) return took(*p, bytes);
        EXPECT_EQ(p.error().code(), ENOMEM);
        EXPECT_LT(model.longest(), bytes);
        freed.clear();
      });
    } else if (what < 970) {
      if (model.held.empty()) continue;
      auto which = model.held.lower_bound(below(kBytes));
      if (which == model.held.end()) which = model.held.begin();
      const std::uint64_t offset = which->first;
      const std::uint64_t length = which->second;
      ObjectInfo info = *heap_.owner_of(at(offset));
      EXPECT_TRUE(info.held);
      EXPECT_EQ(info.size, length);
      if (info.memzone) continue;
      model.held.erase(which);
      used -= length;
      on(other, [&] {
        EXPECT_TRUE(heap_.deallocate(at(offset)).ok());
        EXPECT_EQ(heap_.deallocate(at(offset)).error().code(), EALREADY);
      });
      EXPECT_FALSE(heap_.owner_of(at(offset))->held);
      if (length <= 4096) freed[length].push_back(offset);
    } else if (what < 985) {
      if (model.held.empty()) continue;
      auto which = model.held.lower_bound(below(kBytes));
      if (which == model.held.end()) which = model.held.begin();
      const std::uint64_t offset = which->first;
      const std::uint64_t length = which->second;
      if (heap_.owner_of(at(offset))->memzone) continue;
      std::uint64_t room = length;
      const auto runs = model.free_runs();
      if (const auto behind = runs.find(offset + length); behind != runs.end()) room += behind->second;
      if (room < bytes) continue;  // it would have to move, and the bytes cannot be copied
      on(other, [&] {
        auto p = heap_.reallocate(at(offset), size);
        ASSERT_TRUE(p.ok()) << p.error().message();
        EXPECT_EQ(*p, at(offset));
      });
      which->second = bytes;
      used += bytes - length;
      peak = std::max(peak, used);
      if (bytes > length) freed.clear();
    } else if (what < 990) {
      if (zone) {
        const MemzoneInfo info = *domain_.find_memzone("zone");
        const std::uint64_t offset = offset_of(info.addr);
        freed[model.held[offset]].push_back(offset);
        used -= model.held[offset];
        model.held.erase(offset);
        EXPECT_TRUE(domain_.free_memzone("zone").ok());
        zone = false;
      } else {
        // Length 0: the biggest piece that there is.
        const std::uint64_t longest = model.longest();
        auto info = domain_.reserve_memzone(heap_, "zone", below(2) == 0 ? 0 : 700);
        if (!info) {
          EXPECT_EQ(info.error().code(), ENOMEM);
          continue;
        }
        zone = true;
        EXPECT_TRUE(info->length == longest || info->length == 700);
        freed.clear();
        took(info->addr, rounded(info->length));
      }
    }
    if (below(step % 8000 < 4000 ? 8 : 200) == 0) look();
    if (below(500) == 0) expect_sound();
  }
  over = true;
  told.release();
  helper.join();
  EXPECT_GT(recycled, 3000u);
  if (zone) {
    model.held.erase(offset_of(domain_.find_memzone("zone")->addr));
    EXPECT_TRUE(domain_.free_memzone("zone").ok());
  }
  for (const auto& [offset, length] : model.held) EXPECT_TRUE(heap_.deallocate(at(offset)).ok());
  EXPECT_TRUE(domain_.remove_region(region_).ok());
}

TEST_F(ExactHeap, FreeingASetRestoresEveryFigure) {
  begin();
  const HeapStats before = *heap_.stats();
  std::vector<void*> held;
  for (std::size_t i = 0; i < 200; ++i) held.push_back(must_allocate(1 + i * 7 % 1000));
  for (std::size_t i = 0; i < held.size(); ++i) EXPECT_TRUE(heap_.deallocate(held[i * 77 % 200]).ok());
  const HeapStats after = *heap_.stats();
  EXPECT_EQ(after.free_bytes, before.free_bytes);
  EXPECT_EQ(after.free_runs, before.free_runs);
  EXPECT_EQ(after.largest_free, before.largest_free);
  EXPECT_EQ(after.used_bytes, before.used_bytes);
  EXPECT_EQ(after.used_count, before.used_count);
  EXPECT_EQ(after.metadata_bytes, before.metadata_bytes);
}

TEST_F(ExactHeap, RegionsWithCachedSpansCanBeRemovedAndHeapsDestroyed) {
  begin();
  void* p = must_allocate(64);
  EXPECT_TRUE(heap_.deallocate(p).ok());
  std::thread([&] {
    begin();
    EXPECT_TRUE(heap_.deallocate(must_allocate(128)).ok());
    HolderReport report;
    EXPECT_TRUE(domain_.remove_region(region_, &report).ok());
    EXPECT_EQ(report.count, 0u);
    EXPECT_TRUE(domain_.destroy_heap(heap_).ok());
  }).join();
  EXPECT_EQ(heap_.allocate(64).error().code(), ESTALE);
  EXPECT_EQ(heap_.deallocate(p).error().code(), ESTALE);
}

// A heap is destroyed and its record serves a heap of the other style, while threads still have the old one in mind.
TEST_F(ExactHeap, ItsCachesServeHeapsOfTheOtherStyleAfterwards) {
  for (int round = 0; round < 6; ++round) {
    HeapOptions options;
    options.style = round % 2 == 0 ? Style::exact : Style::binned;
    Heap heap = *domain_.create_heap("other", options);
    BackingSpec spec;
    spec.length = 4u << 20;
    const RegionId region = *domain_.add_backing(heap, spec);
    for (int i = 0; i < 200; ++i) {
      void* p = *heap.allocate(64u + static_cast<unsigned>(i) % 3 * 100);
      EXPECT_TRUE(heap.deallocate(p).ok());
      EXPECT_EQ(heap.deallocate(p).error().code(), EALREADY);
    }
    std::thread([&] { EXPECT_TRUE(heap.deallocate(*heap.allocate(64)).ok()); }).join();
    expect_sound();
    EXPECT_TRUE(domain_.remove_region(region).ok());
    EXPECT_TRUE(domain_.destroy_heap(heap).ok());
    EXPECT_EQ(heap.allocate(64).error().code(), ESTALE);
  }
}

TEST_F(ExactHeap, SpansOfTwoHeapsAndTwoRegionsKeepApart) {
  HeapOptions options;
  options.style = Style::exact;
  Heap second = *domain_.create_heap("second", options);
  BackingSpec spec;
  spec.length = 1u << 20;
  ASSERT_TRUE(domain_.add_backing(second, spec).ok());
  ASSERT_TRUE(domain_.add_backing(second, spec).ok());
  begin();
  EXPECT_TRUE(second.deallocate(*second.allocate(64)).ok());
  std::vector<void*> held;
  for (int i = 0; i < 300; ++i) {
    held.push_back(must_allocate(64));
    held.push_back(*second.allocate(4096));
  }
  std::set<void*> distinct(held.begin(), held.end());
  EXPECT_EQ(distinct.size(), held.size());
  for (int round = 0; round < 3; ++round) {
    for (std::size_t i = 0; i < held.size(); ++i) {
      Heap mine = i % 2 == 0 ? heap_ : second;
      Heap other = i % 2 == 0 ? second : heap_;
      EXPECT_EQ(other.deallocate(held[i]).error().code(), EFAULT);
      EXPECT_TRUE(mine.deallocate(held[i]).ok());
      EXPECT_EQ(mine.deallocate(held[i]).error().code(), EALREADY);
    }
    for (std::size_t i = 0; i < held.size(); ++i)
      held[i] = i % 2 == 0 ? must_allocate(64) : *second.allocate(4096);
    distinct = std::set<void*>(held.begin(), held.end());
    EXPECT_EQ(distinct.size(), held.size());
    expect_sound();
  }
  for (std::size_t i = 0; i < held.size(); ++i)
    EXPECT_TRUE((i % 2 == 0 ? heap_ : second).deallocate(held[i]).ok());
}

TEST_F(ExactHeap, ZeroedMemoryIsZeroAlsoTheSecondTime) {
  BackingSpec spec;
  spec.length = 1u << 20;
  HeapOptions options;
  options.style = Style::exact;
  Heap heap = *domain_.create_heap("zeroed", options);
  ASSERT_TRUE(domain_.add_backing(heap, spec).ok());
  for (int i = 0; i < 5; ++i) {
    auto* p = static_cast<unsigned char*>(*heap.zalloc(500));
    for (int b = 0; b < 500; ++b) ASSERT_EQ(p[b], 0);
    std::fill_n(p, 500, static_cast<unsigned char>(0xff));
    EXPECT_TRUE(heap.deallocate(p).ok());
  }
  // Memory that the CPU cannot reach is not zeroed, whether or not it is cached.
  RegionSpec device;
  device.base = ::mmap(nullptr, kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  device.length = kBytes;
  device.cpu_accessible = false;
  Heap far = *domain_.create_heap("device", options);
  ASSERT_TRUE(domain_.add_region(far, device).ok());
  EXPECT_TRUE(far.deallocate(*far.allocate(64)).ok());
  EXPECT_TRUE(far.deallocate(*far.allocate(64)).ok());
  EXPECT_EQ(far.zalloc(64).error().code(), ENOTSUP);
  EXPECT_EQ(far.stats()->used_count, 0u);
}

// Memory that growth has added goes with the last object in it, at once, as if nothing were ever cached.
TEST_F(ExactHeap, GivesBackWhatGrewAsSoonAsItIsFree) {
  HeapOptions options;
  options.style = Style::exact;
  options.growth.step = 1u << 20;
  options.growth.limit = 16u << 20;
  options.growth.keep_one = false;
  Heap heap = *domain_.create_heap("growing", options);
  const auto regions = [&] { return heap.info()->regions; };
  for (int round = 0; round < 5; ++round) {
    std::vector<void*> held;
    for (int i = 0; i < 700; ++i) held.push_back(*heap.allocate(4096));
    EXPECT_EQ(regions(), 3u);
    for (int i = 0; i < 100; ++i) EXPECT_TRUE(heap.deallocate(*heap.allocate(64)).ok());
    for (void* p : held) {
      EXPECT_TRUE(heap.deallocate(p).ok());
      EXPECT_EQ(heap.deallocate(p).error().code() == EALREADY || heap.deallocate(p).error().code() == EFAULT,
                true);
    }
    EXPECT_EQ(regions(), 0u);
  }
}

// The domain's own deallocate finds the heap by itself.
TEST_F(ExactHeap, TheDomainFreesAsTheHeapDoes) {
  begin();
  std::vector<void*> held;
  for (int round = 0; round < 4; ++round) {
    for (int i = 0; i < 20; ++i) held.push_back(must_allocate(64u << i % 7));
    for (void* p : held) {
      EXPECT_EQ(domain_.deallocate(static_cast<std::byte*>(p) + 1).error().code(), EINVAL);
      EXPECT_TRUE(domain_.deallocate(p).ok());
      EXPECT_EQ(domain_.deallocate(p).error().code(), EALREADY);
      EXPECT_EQ(heap_.deallocate(p).error().code(), EALREADY);
    }
    held.clear();
    EXPECT_TRUE(domain_.deallocate(nullptr).ok());
    expect_sound();
  }
  EXPECT_EQ(heap_.stats()->used_count, 0u);
}

// Of a pointer that two threads free at the same time one free succeeds, whoever allocated it.
TEST_F(ExactHeap, OfTwoRacingFreesOneSucceeds) {
  std::barrier sync(2);
  std::atomic<void*> shared{nullptr};
  std::atomic<int> freed{0};
  std::atomic<int> refused{0};
  constexpr int kRounds = 4000;
  const auto body = [&](int self) {
    begin();
    for (int round = 0; round < kRounds; ++round) {
      if (round % 64 == 0) {  // so that some spans are biased: an open cache
        for (int i = 0; i < 300; ++i) EXPECT_TRUE(heap_.deallocate(must_allocate(64)).ok());
      }
      if (round % 2 == self) shared = must_allocate(64);
      sync.arrive_and_wait();
      auto result = heap_.deallocate(shared);
      if (result) {
        ++freed;
      } else {
        EXPECT_EQ(result.error().code(), EALREADY);
        ++refused;
      }
      sync.arrive_and_wait();
    }
  };
  std::thread other([&] { body(1); });
  body(0);
  other.join();
  EXPECT_EQ(freed, kRounds);
  EXPECT_EQ(refused, kRounds);
  EXPECT_EQ(heap_.stats()->used_count, 0u);
  expect_sound();
}

}  // namespace
}  // namespace extmem::test
