// RegionIndex: against a map of intervals, with many regions in a granule and huge ones, and while a writer is at work.
#include "heap/region_index.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "os/mapping.hpp"

namespace extmem::heap {
namespace {

constexpr std::uint64_t kGranule = RegionIndex::kGranuleBytes;

class World {
 public:
  explicit World(std::uint32_t slots) : locals_(slots + 1), entries_(3 * (slots + 1)) {
    map_ = *os::reserve(RegionIndex::kMapBytes);
    EXPECT_TRUE(os::commit(map_, RegionIndex::kMapBytes));
    index.bind(entries_.data(), slots, reinterpret_cast<RegionIndex::Granule*>(map_), locals_.data(), nullptr,
               sequence_, 2);
    for (std::uint32_t slot = slots; slot > 0; --slot) free_.push_back(slot);
  }
  ~World() { os::unmap(map_, RegionIndex::kMapBytes); }
  World(const World&) = delete;

  /// The slot, or 0 where another region is in the way or no slot is left.
  std::uint32_t add(std::uintptr_t base, std::uint64_t length) {
    if (free_.empty() || index.overlapping(base, length) != 0) return 0;
    const std::uint32_t slot = free_.back();
    free_.pop_back();
    locals_[slot].base = base;
    locals_[slot].length = length;
    locals_[slot].slot = slot;
    index.insert(base, length, slot);
    regions[base] = {length, slot};
    return slot;
  }
  void remove(std::uintptr_t base) {
    index.erase(base);
    free_.push_back(regions.at(base).slot);
    regions.erase(base);
  }
  [[nodiscard]] std::uint32_t expected(std::uintptr_t address) const {
    auto at = regions.upper_bound(address);
    if (at == regions.begin()) return 0;
    --at;
    return address - at->first < at->second.length ? at->second.slot : 0;
  }
  [[nodiscard]] std::uint32_t found(std::uintptr_t address) const {
    std::uint64_t sequence = 0;
    return index.find(address, sequence);
  }
  /// Every edge of every region, and of the granules around.
  void check() const {
    for (const auto& [base, region] : regions) {
      for (const std::uintptr_t edge : {base, base + region.length, base / kGranule * kGranule,
                                        (base + region.length) / kGranule * kGranule}) {
        for (const std::uintptr_t address : {edge - 1, edge, edge + 1})
          ASSERT_EQ(found(address), expected(address)) << std::hex << address;
      }
    }
  }

  struct Region {
    std::uint64_t length = 0;
    std::uint32_t slot = 0;
  };
  std::map<std::uintptr_t, Region> regions;
  RegionIndex index;

 private:
  std::vector<RegionLocal> locals_;
  std::vector<RegionIndex::Entry> entries_;
  std::vector<std::uint32_t> free_;
  std::byte* map_ = nullptr;
  std::atomic<std::uint64_t> sequence_{0};
};

TEST(RegionIndex, FindsNothingWhereNothingIs) {
  World world(4);
  for (const std::uintptr_t address : {std::uintptr_t{0}, std::uintptr_t{1} << 46, ~std::uintptr_t{0}})
    EXPECT_EQ(world.found(address), 0u);
}

TEST(RegionIndex, TellsSeveralRegionsOfAGranuleApart) {
  for (std::uint32_t count = 1; count <= 8; ++count) {
    World world(16);
    const std::uintptr_t start = kGranule * 5;
    for (std::uint32_t i = 0; i < count; ++i)
      ASSERT_NE(world.add(start + i * 8192 + 4096, 4096 + i % 2 * 4096), 0u);
    world.check();
    for (std::uint32_t i = 0; i < count; ++i) {
      world.remove(start + i * 8192 + 4096);
      world.check();
    }
    EXPECT_EQ(world.found(start + 4096), 0u);
  }
}

TEST(RegionIndex, FindsHugeRegionsAndTheirNeighbours) {
  World world(8);
  const std::uintptr_t start = kGranule * 100 + 12288;
  ASSERT_NE(world.add(start, std::uint64_t{1} << 40), 0u);
  ASSERT_NE(world.add(start + (std::uint64_t{1} << 40), 4096), 0u);
  ASSERT_NE(world.add(start - 4096, 4096), 0u);
  world.check();
  for (std::uint64_t offset = 0; offset < std::uint64_t{1} << 40; offset += kGranule / 2 * 3)
    ASSERT_EQ(world.found(start + offset), world.expected(start + offset));
  world.remove(start);
  world.check();
  EXPECT_EQ(world.found(start + kGranule), 0u);
}

TEST(RegionIndex, FindsRegionsBeyondTheMap) {
  World world(4);
  const std::uintptr_t end = kGranule * RegionIndex::kGranules;
  ASSERT_NE(world.add(end - 4096, 8192), 0u);  // across its end
  ASSERT_NE(world.add(end * 2, kGranule), 0u);
  world.check();
  world.remove(end - 4096);
  world.remove(end * 2);
  EXPECT_EQ(world.found(end), 0u);
}

TEST(RegionIndex, ForgetsAllWhenCleared) {
  World world(4);
  ASSERT_NE(world.add(kGranule, kGranule * 3), 0u);
  world.index.clear();
  world.regions.clear();
  EXPECT_EQ(world.found(kGranule), 0u);
  EXPECT_EQ(world.found(kGranule * 2), 0u);
}

TEST(RegionIndex, TakesRegionsThatComeAtOneEndAndGoAtTheOther) {
  for (const bool down : {false, true}) {
    for (const std::uint32_t most : {1u, 2u, 3u, 8u, 15u, 16u}) {
      SCOPED_TRACE(std::to_string(down) + " " + std::to_string(most));
      World world(16);
      const auto base_of = [&](std::uint32_t i) { return kGranule * 100 + (down ? 500 - i : i) * 8192; };
      for (std::uint32_t i = 0; i < 200; ++i) {
        if (i >= most) world.remove(base_of(i - most));
        ASSERT_NE(world.add(base_of(i), 4096), 0u);
        world.check();
      }
    }
  }
}

TEST(RegionIndex, AgreesWithAMapOfIntervals) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  World world(300);
  std::vector<std::uintptr_t> bases;
  for (int round = 0; round < 3000; ++round) {
    if (random() % 5 < 3 || bases.empty()) {
      const std::uintptr_t base = kGranule * 1000 + random() % (kGranule * 24) / 4096 * 4096;
      const std::uint64_t length = (1 + (random() % (1u << random() % 16))) * 4096;
      if (world.add(base, length) != 0) bases.push_back(base);
    } else {
      std::swap(bases[random() % bases.size()], bases.back());
      world.remove(bases.back());
      bases.pop_back();
    }
    for (int i = 0; i < 20; ++i) {
      const std::uintptr_t address = kGranule * 999 + random() % (kGranule * 28);
      ASSERT_EQ(world.found(address), world.expected(address));
    }
    if (round % 100 == 0) world.check();
  }
}

// What stays is found at any time, and nothing is found where nothing ever was.
TEST(RegionIndex, ReadersAreRightWhileRegionsComeAndGo) {
  World world(64);
  const std::uintptr_t start = kGranule * 7;
  std::vector<std::pair<std::uintptr_t, std::uint32_t>> stay;
  for (std::uint32_t i = 0; i < 8; ++i) {
    const std::uintptr_t base = start + i * (kGranule / 2) + 4096;
    stay.emplace_back(base, world.add(base, 8192));
  }
  std::atomic<bool> stop{false};  // relaxed: the join orders the rest
  std::atomic<std::uint64_t> wrong{0};
  std::vector<std::thread> readers;
  for (unsigned t = 0; t < 2; ++t) {
    readers.emplace_back([&, t] {
      std::mt19937_64 random(t);
      while (!stop.load(std::memory_order_relaxed)) {
        const auto& [base, slot] = stay[random() % stay.size()];
        if (world.found(base + random() % 8192) != slot || world.found(base - 1) != 0)
          wrong.fetch_add(1, std::memory_order_relaxed);
      }
    });
  }
  std::mt19937_64 random(9);
  std::vector<std::uintptr_t> bases;
  for (int round = 0; round < 4000; ++round) {
    const std::uintptr_t base = start + random() % (kGranule * 4) / 4096 * 4096 + 16384;
    const std::uint64_t length = (1 + random() % 2048) * 4096;
    bool before_one = false;  // the byte before what stays is nobody's
    for (const auto& region : stay) before_one |= base < region.first && region.first - base <= length;
    if (!before_one && world.add(base, length) != 0) bases.push_back(base);
    if (bases.size() > 20 || (random() % 2 == 0 && !bases.empty())) {
      std::swap(bases[random() % bases.size()], bases.back());
      world.remove(bases.back());
      bases.pop_back();
    }
  }
  stop.store(true, std::memory_order_relaxed);
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(wrong.load(), 0u);
  world.check();
}

}  // namespace
}  // namespace extmem::heap
