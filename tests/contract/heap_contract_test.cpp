// What every heap promises, through every way in and on every ground.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <numeric>
#include <random>
#include <thread>

#include "contract/ground.hpp"
#include "contract/state.hpp"
#include "contract/way.hpp"

namespace extmem::test {
namespace {

struct Piece {
  void* p;
  std::size_t size;
};

class HeapContract : public testing::TestWithParam<std::tuple<WayKind, Ground>> {
 protected:
  HeapContract()
      : site_(face_of(std::get<0>(GetParam())), std::get<1>(GetParam())),
        way_(make_way(std::get<0>(GetParam()), site_.heap)) {}

  [[nodiscard]] Face& face() { return *site_.face; }
  [[nodiscard]] Heap heap() const { return site_.heap; }
  [[nodiscard]] const Ground& ground() const { return site_.ground; }
  [[nodiscard]] Way& way() { return *way_; }

  /// Where the CPU can reach the memory, writes a pattern to an object; checks it later.
  void write(const Piece& piece, std::size_t seed) {
    if (ground().cpu_accessible) fill(piece.p, piece.size, seed);
  }
  void expect_written(const Piece& piece, std::size_t seed) {
    if (ground().cpu_accessible) {
      EXPECT_TRUE(is_filled(piece.p, piece.size, seed)) << "at " << piece.p << " + " << piece.size;
    }
  }
  HeapStats stats() {
    HeapStats s;
    EXPECT_EQ(face().stats(heap(), s), 0) << face().message();
    EXPECT_EQ(s.total_bytes, s.used_bytes + s.free_bytes + s.cached_bytes + s.slab_free_bytes);
    return s;
  }
  HeapStats flushed_stats() {
    EXPECT_EQ(face().flush(heap()), 0) << face().message();
    return stats();
  }
  void expect_empty() {
    const HeapStats s = flushed_stats();
    EXPECT_EQ(s.used_bytes, 0u);
    EXPECT_EQ(s.used_count, 0u);
    EXPECT_EQ(s.cached_bytes, 0u);
    EXPECT_EQ(s.slabs, 0u);
    EXPECT_EQ(s.free_bytes, s.total_bytes);
  }
  std::vector<Piece> fill_up(std::size_t size) {
    std::vector<Piece> pieces;
    while (void* p = way().allocate(size)) pieces.push_back({p, size});
    return pieces;
  }
  void free_all(std::vector<Piece>& pieces) {
    for (const Piece& piece : pieces) way().deallocate(piece.p, piece.size);
    pieces.clear();
  }

  Site site_;
  std::unique_ptr<Way> way_;
};

TEST_P(HeapContract, GivesDistinctAlignedMemoryInsideItsRegions) {
  std::map<const std::byte*, std::size_t> given;
  std::vector<Piece> pieces;
  const std::size_t least_align = ground().heap_options.style == Style::exact ? 64 : 16;
  for (const std::size_t size : {1u, 8u, 16u, 17u, 40u, 64u, 100u, 128u, 500u, 1000u, 1024u, 1500u}) {
    void* p = way().allocate(size);
    ASSERT_NE(p, nullptr) << size;
    pieces.push_back({p, size});
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(p) % least_align, 0u) << size;
    RegionId region;
    RegionInfo info;
    ASSERT_EQ(face().region_of(p, region), 0) << face().message();
    ASSERT_EQ(face().region_info(region, info), 0) << face().message();
    EXPECT_EQ(info.heap_id, heap().id());
    EXPECT_GE(p, info.base);
    EXPECT_LE(static_cast<std::byte*>(p) + size, static_cast<std::byte*>(info.base) + info.length);
    std::size_t usable = 0;
    ASSERT_EQ(face().usable_size(heap(), p, usable), 0) << face().message();
    EXPECT_GE(usable, size);
    given[static_cast<std::byte*>(p)] = usable;
  }
  const std::byte* end = nullptr;
  for (const auto& [start, usable] : given) {
    EXPECT_LE(end, start) << "two objects overlap";
    end = start + usable;
  }
  free_all(pieces);
  expect_empty();
}

TEST_P(HeapContract, KeepsContentsUntilFreed) {
  std::mt19937 random(20240601);
  std::vector<std::pair<Piece, std::size_t>> live;
  for (std::size_t round = 0; round < 2000; ++round) {
    const std::size_t size = 1 + random() % (round % 50 == 0 ? ground().max_object / 4 : 300);
    if (void* p = live.size() < 40 ? way().allocate(size) : nullptr) {
      live.push_back({{p, size}, round});
      write(live.back().first, round);
    } else if (!live.empty()) {
      const std::size_t i = random() % live.size();
      expect_written(live[i].first, live[i].second);
      way().deallocate(live[i].first.p, live[i].first.size);
      live[i] = live.back();
      live.pop_back();
    }
  }
  for (const auto& [piece, seed] : live) {
    expect_written(piece, seed);
    way().deallocate(piece.p, piece.size);
  }
  expect_empty();
}

TEST_P(HeapContract, HonoursAlignment) {
  for (std::size_t align = 1; align <= ground().max_object; align *= 2) {
    const std::size_t size = std::max<std::size_t>(align / 2, 8);
    void* p = way().allocate(size, align);
    if (align > kOsPage && p == nullptr) continue;  // the regions need not hold such an address
    ASSERT_NE(p, nullptr) << align;
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(p) % align, 0u);
    way().deallocate(p, size, align);
  }
  expect_empty();
}

TEST_P(HeapContract, FillsUpAndCanBeFilledAgain) {
  for (const std::size_t size : {std::size_t{64}, ground().max_object}) {
    std::vector<Piece> pieces = fill_up(size);
    ASSERT_FALSE(pieces.empty()) << size;
    const std::size_t first = pieces.size();
    // What could not be given cannot be had without a free one either; with one it can.
    EXPECT_EQ(way().allocate(size), nullptr);
    way().deallocate(pieces.back().p, size);
    pieces.back().p = way().allocate(size);
    EXPECT_NE(pieces.back().p, nullptr) << size;
    free_all(pieces);
    pieces = fill_up(size);
    EXPECT_EQ(pieces.size(), first) << "objects of " << size << " bytes";
    free_all(pieces);
    expect_empty();
  }
}

TEST_P(HeapContract, ReachesNearlyAllOfItsMemory) {
  std::vector<Piece> pieces = fill_up(64);
  const HeapStats s = stats();
  EXPECT_EQ(s.used_count, pieces.size());
  EXPECT_GE(static_cast<double>(s.used_bytes), 0.95 * static_cast<double>(ground().bytes));
  free_all(pieces);
}

TEST_P(HeapContract, RefusesWhatIsTooLarge) {
  const std::string before = state_of(face());
  for (const std::size_t size : {ground().bytes + 1, std::size_t{1} << 40, std::size_t{1} << 47, SIZE_MAX / 2,
                                 SIZE_MAX - 4096, SIZE_MAX}) {
    EXPECT_EQ(way().allocate(size), nullptr) << size;
  }
  EXPECT_EQ(state_of(face()), before);
}

TEST_P(HeapContract, CountsWhatIsHeld) {
  std::vector<Piece> pieces;
  std::uint64_t bytes = 0;
  for (const std::size_t size : {24u, 24u, 100u, 700u, 1200u}) {
    pieces.push_back({way().allocate(size), size});
    ASSERT_NE(pieces.back().p, nullptr);
    std::size_t usable = 0;
    ASSERT_EQ(face().usable_size(heap(), pieces.back().p, usable), 0);
    bytes += usable;
    const HeapStats s = stats();
    EXPECT_EQ(s.used_count, pieces.size());
    EXPECT_EQ(s.used_bytes, bytes);
    EXPECT_GE(s.peak_bytes, bytes);
  }
  free_all(pieces);
  EXPECT_EQ(stats().used_bytes, 0u);
  EXPECT_EQ(stats().used_count, 0u);
  const HeapStats s = stats();
  EXPECT_GE(s.peak_bytes, bytes);
  EXPECT_LE(s.peak_bytes, bytes + s.peak_error);
  EXPECT_LE(s.peak_error, s.peak_bytes - s.used_bytes) << "a peak below what is in use now";
}

TEST_P(HeapContract, WalkAgreesWithStatistics) {
  std::vector<Piece> pieces;
  for (std::size_t i = 0; i < 30; ++i) {
    const std::size_t size = 16 + i * 8;
    void* p = way().allocate(size);
    ASSERT_NE(p, nullptr);
    pieces.push_back({p, size});
  }
  for (std::size_t i = 0; i < 10; ++i) {
    way().deallocate(pieces.back().p, pieces.back().size);
    pieces.pop_back();
  }
  std::vector<WalkEntry> entries;
  ASSERT_EQ(face().walk(heap(), true, entries), 0) << face().message();
  const HeapStats s = stats();
  std::uint64_t free = 0;
  std::uint64_t held = 0;
  std::uint64_t cached = 0;
  std::uint64_t regions = 0;
  std::vector<const void*> held_addresses;
  for (const WalkEntry& entry : entries) {
    EXPECT_EQ(entry.heap_id, heap().id());
    if (entry.kind == WalkKind::region) ++regions;
    if (entry.kind == WalkKind::free_span) free += entry.length;
    if (entry.kind == WalkKind::held_span || (entry.kind == WalkKind::object && entry.held)) {
      held += entry.length;
      held_addresses.push_back(entry.addr);
    }
    if (entry.cached) cached += entry.length;
  }
  EXPECT_EQ(regions, s.regions);
  EXPECT_EQ(free, s.free_bytes);
  EXPECT_EQ(held, s.used_bytes);
  EXPECT_EQ(cached, s.cached_bytes);
  std::vector<const void*> expected;
  for (const Piece& piece : pieces) expected.push_back(piece.p);
  EXPECT_THAT(held_addresses, testing::UnorderedElementsAreArray(expected));
  free_all(pieces);
}

TEST_P(HeapContract, RefusesASecondFree) {
  for (const std::size_t size : {std::size_t{48}, ground().max_object}) {
    void* p = way().allocate(size);
    void* other = way().allocate(48);
    ASSERT_NE(p, nullptr);
    ASSERT_NE(other, nullptr);
    way().deallocate(p, size);
    const std::string before = state_of(face());
    way().deallocate(p, size);  // pmr and STL cannot report; nothing may change
    EXPECT_EQ(state_of(face()), before);
    EXPECT_EQ(face().deallocate(heap(), p), -EALREADY);
    void* a = way().allocate(48);
    void* b = way().allocate(48);
    EXPECT_NE(a, b) << "one object was given twice";
    for (void* q : {other, a, b}) way().deallocate(q, 48);
  }
  expect_empty();
}

TEST_P(HeapContract, RefusesInteriorAndForeignPointers) {
  int local = 0;
  void* p = way().allocate(600);
  ASSERT_NE(p, nullptr);
  const std::string before = state_of(face());
  for (const std::size_t offset : {1u, 8u, 16u, 64u, 599u}) {
    way().deallocate(static_cast<std::byte*>(p) + offset, 600);
    EXPECT_EQ(face().deallocate(heap(), static_cast<std::byte*>(p) + offset), -EINVAL) << offset;
  }
  way().deallocate(&local, sizeof(local));
  EXPECT_EQ(face().deallocate(heap(), &local), -EFAULT);
  EXPECT_EQ(state_of(face()), before);
  way().deallocate(p, 600);
  expect_empty();
}

TEST_P(HeapContract, IsSharedByThreads) {
  constexpr std::size_t kThreads = 4;
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(static_cast<unsigned>(t));
      std::vector<std::pair<Piece, std::size_t>> live;
      for (std::size_t round = 0; round < 3000; ++round) {
        const std::size_t size = 1 + random() % 200;
        if (void* p = live.size() < 12 && random() % 2 == 0 ? way().allocate(size) : nullptr) {
          live.push_back({{p, size}, round * kThreads + t});
          write(live.back().first, live.back().second);
        } else if (!live.empty()) {
          const auto [piece, seed] = live[random() % live.size()];
          if (ground().cpu_accessible && !is_filled(piece.p, piece.size, seed)) ++wrong;
          std::erase_if(live, [q = piece.p](const auto& other) { return other.first.p == q; });
          way().deallocate(piece.p, piece.size);
        }
      }
      for (const auto& [piece, seed] : live) {
        if (ground().cpu_accessible && !is_filled(piece.p, piece.size, seed)) ++wrong;
        way().deallocate(piece.p, piece.size);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0) << "objects that somebody else wrote to";
  expect_empty();
}

TEST_P(HeapContract, TakesBackWhatAnotherThreadAllocated) {
  std::vector<Piece> pieces;
  std::thread([&] { pieces = fill_up(64); }).join();
  ASSERT_FALSE(pieces.empty());
  const std::size_t first = pieces.size();
  free_all(pieces);
  expect_empty();
  pieces = fill_up(64);
  EXPECT_EQ(pieces.size(), first);
  free_all(pieces);
}

TEST_P(HeapContract, ASleepingThreadPinsNothing) {
  // A thread that has cached free objects and then does nothing must not make an allocation fail.
  std::atomic<bool> stop{false};
  std::atomic<bool> ready{false};
  std::thread sleeper([&] {
    std::vector<Piece> pieces = fill_up(64);
    free_all(pieces);
    ready = true;
    ready.notify_all();
    stop.wait(false);
  });
  ready.wait(false);
  void* p = way().allocate(ground().max_object);
  EXPECT_NE(p, nullptr);
  if (p != nullptr) way().deallocate(p, ground().max_object);
  stop = true;
  stop.notify_all();
  sleeper.join();
  expect_empty();
}

TEST_P(HeapContract, HoldsMemzonesBesideObjects) {
  void* object = way().allocate(100);
  ASSERT_NE(object, nullptr);
  MemzoneInfo zone;
  ASSERT_EQ(face().reserve_memzone(heap(), "zone", 1000, {}, zone), 0) << face().message();
  EXPECT_GE(zone.length, 1000u);
  EXPECT_STREQ(zone.name, "zone");
  EXPECT_EQ(zone.heap_id, heap().id());
  const HeapStats with = stats();
  EXPECT_EQ(with.memzones, 1u);
  EXPECT_EQ(with.used_count, 2u);
  way().deallocate(zone.addr, 1000);  // refused: it is a memzone's
  EXPECT_EQ(face().deallocate(heap(), zone.addr), -EPERM);
  MemzoneInfo found;
  ASSERT_EQ(face().find_memzone("zone", found), 0);
  EXPECT_EQ(found.addr, zone.addr);
  ASSERT_EQ(face().free_memzone("zone"), 0);
  EXPECT_EQ(face().find_memzone("zone", found), -ENOENT);
  way().deallocate(object, 100);
  expect_empty();
}

TEST_P(HeapContract, GivesTheBiggestPieceAsMemzone) {
  void* object = way().allocate(100);
  ASSERT_NE(object, nullptr);
  const std::uint64_t largest = flushed_stats().largest_free;
  MemzoneInfo zone;
  ASSERT_EQ(face().reserve_memzone(heap(), "all", 0, {}, zone), 0) << face().message();
  EXPECT_EQ(zone.length, largest);
  EXPECT_EQ(face().free_memzone("all"), 0);
  way().deallocate(object, 100);
  expect_empty();
}

INSTANTIATE_TEST_SUITE_P(
    , HeapContract,
    testing::Combine(testing::Values(WayKind::cpp, WayKind::c, WayKind::pmr, WayKind::stl),
                     testing::ValuesIn(grounds())),
    [](const auto& test) { return name_of(std::get<0>(test.param)) + "_" + std::get<1>(test.param).name; });

}  // namespace
}  // namespace extmem::test
