// What goes beyond allocate and free, through both faces and on every ground.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <thread>

#include "contract/ground.hpp"
#include "contract/state.hpp"

namespace extmem::test {
namespace {

using std::chrono::milliseconds;

class FaceContract : public testing::TestWithParam<std::tuple<FaceKind, Ground>> {
 protected:
  FaceContract() : site_(std::get<0>(GetParam()), std::get<1>(GetParam())) {}
  [[nodiscard]] Face& face() { return *site_.face; }
  [[nodiscard]] Heap heap() const { return site_.heap; }
  [[nodiscard]] const Ground& ground() const { return site_.ground; }
  void* allocate(std::size_t size, const AllocOptions& options = {}) {
    void* p = nullptr;
    EXPECT_EQ(face().allocate(heap(), size, options, p), 0) << face().message();
    return p;
  }
  Site site_;
};

TEST_P(FaceContract, AllocatesBatchesWholeOrNotAtAll) {
  std::array<void*, 20> batch{};
  ASSERT_EQ(face().allocate_batch(heap(), 48, batch, {}), 0) << face().message();
  for (void* p : batch) EXPECT_NE(p, nullptr);
  HeapStats s;
  ASSERT_EQ(face().stats(heap(), s), 0);
  EXPECT_EQ(s.used_count, batch.size());
  ASSERT_EQ(face().deallocate_batch(heap(), batch, nullptr), 0) << face().message();

  std::vector<void*> many(ground().bytes / 64 + 100, nullptr);  // more than the heap holds
  expect_refused(
      face(), ENOMEM, [&] { return face().allocate_batch(heap(), 64, many, {}); }, "too many");
}

TEST_P(FaceContract, FreesTheOthersOfABatchWithABadPointer) {
  std::array<void*, 6> batch{};
  ASSERT_EQ(face().allocate_batch(heap(), 100, batch, {}), 0) << face().message();
  void* kept = batch[3];
  batch[3] = static_cast<std::byte*>(kept) + 16;
  std::size_t bad = 99;
  EXPECT_EQ(face().deallocate_batch(heap(), batch, &bad), -EINVAL);
  EXPECT_EQ(bad, 3u);
  HeapStats s;
  ASSERT_EQ(face().stats(heap(), s), 0);
  EXPECT_EQ(s.used_count, 1u);
  EXPECT_EQ(face().deallocate(heap(), kept), 0) << face().message();
}

TEST_P(FaceContract, ZeroesWhenAsked) {
  for (const std::size_t size : {100u, 1500u}) {
    void* p = nullptr;
    if (!ground().cpu_accessible) {
      expect_refused(
          face(), ENOTSUP, [&] { return face().zalloc(heap(), size, {}, p); }, "zalloc");
      expect_refused(
          face(), ENOTSUP, [&] { return face().calloc(heap(), 2, size, {}, p); }, "calloc");
      continue;
    }
    p = allocate(size);
    std::memset(p, 0xa5, size);
    ASSERT_EQ(face().deallocate(heap(), p), 0);
    const std::vector<char> zeros(size, 0);
    AllocOptions zero;
    zero.zero = true;
    void* q = nullptr;
    ASSERT_EQ(face().zalloc(heap(), size, {}, p), 0) << face().message();
    ASSERT_EQ(face().calloc(heap(), 2, size / 2, {}, q), 0) << face().message();
    EXPECT_EQ(std::memcmp(p, zeros.data(), size), 0);
    EXPECT_EQ(std::memcmp(q, zeros.data(), size), 0);
    std::memset(p, 0x5a, size);
    ASSERT_EQ(face().deallocate(heap(), p), 0);
    ASSERT_EQ(face().deallocate(heap(), q), 0);
    p = allocate(size, zero);
    EXPECT_EQ(std::memcmp(p, zeros.data(), size), 0);
    ASSERT_EQ(face().deallocate(heap(), p), 0);
  }
}

TEST_P(FaceContract, ReallocatesKeepingTheContents) {
  void* p = nullptr;
  ASSERT_EQ(face().reallocate(heap(), 100, {}, p), 0) << face().message();  // of nullptr: allocates
  ASSERT_NE(p, nullptr);
  if (ground().cpu_accessible) {
    std::size_t known = 100;
    fill(p, known, 7);
    for (const std::size_t size : {120u, 900u, 1024u, 50u, 2000u, 10u}) {
      ASSERT_EQ(face().reallocate(heap(), size, {}, p), 0) << size << ' ' << face().message();
      known = std::min(known, size);
      EXPECT_TRUE(is_filled(p, known, 7)) << size;
    }
  } else {
    std::size_t usable = 0;
    ASSERT_EQ(face().usable_size(heap(), p, usable), 0);
    ASSERT_EQ(face().reallocate(heap(), usable, {}, p), 0) << "fits in place: " << face().message();
    void* blocker = allocate(usable);
    void* q = p;
    const int rc = face().reallocate(heap(), usable * 40, {}, q);
    EXPECT_TRUE(rc == 0 || rc == -ENOTSUP) << rc << ' ' << face().message();
    if (rc == 0) {
      EXPECT_EQ(q, p) << "moved memory that the CPU cannot reach";
    }
    ASSERT_EQ(face().deallocate(heap(), blocker), 0);
  }
  void* q = p;
  EXPECT_LT(face().reallocate(heap(), ground().bytes * 2, {}, q), 0);
  EXPECT_EQ(q, p) << "a failed reallocation has changed the pointer";
  EXPECT_EQ(face().deallocate(heap(), p), 0) << face().message();
}

TEST_P(FaceContract, ZeroesWhatReallocationAddsWhenAsked) {
  AllocOptions zero;
  zero.zero = true;
  void* p = nullptr;
  if (!ground().cpu_accessible) {
    void* q = p = allocate(100);
    EXPECT_EQ(face().reallocate(heap(), 2000, zero, q), -ENOTSUP) << face().message();
    EXPECT_EQ(q, p);
    ASSERT_EQ(face().deallocate(heap(), p), 0);
    return;
  }
  // Dirty memory all over, so that what is zero was zeroed.
  void* dirty = allocate(ground().bytes / 4);
  fill(dirty, ground().bytes / 4, 99);
  ASSERT_EQ(face().deallocate(heap(), dirty), 0);
  ASSERT_EQ(face().reallocate(heap(), 100, {}, p), 0) << face().message();
  std::size_t usable = 0;
  ASSERT_EQ(face().usable_size(heap(), p, usable), 0);
  fill(p, usable, 7);
  for (const std::size_t size : {usable + 1, usable + 500, std::size_t{1024}}) {
    ASSERT_EQ(face().reallocate(heap(), size, zero, p), 0) << size << ' ' << face().message();
    EXPECT_TRUE(is_filled(p, usable, 7)) << size;
    const auto* bytes = static_cast<const unsigned char*>(p);
    EXPECT_TRUE(std::all_of(bytes + usable, bytes + size, [](unsigned char byte) { return byte == 0; }))
        << size;
    ASSERT_EQ(face().usable_size(heap(), p, usable), 0);
    fill(p, usable, 7);
  }
  ASSERT_EQ(face().deallocate(heap(), p), 0);
}

TEST_P(FaceContract, KeepsAccountsByTag) {
  Tag red;
  Tag blue;
  Tag again;
  ASSERT_EQ(face().intern_tag("red", red), 0) << face().message();
  ASSERT_EQ(face().intern_tag("blue", blue), 0) << face().message();
  ASSERT_EQ(face().intern_tag("red", again), 0) << face().message();
  EXPECT_EQ(red, again);
  EXPECT_NE(red, blue);
  std::string name;
  ASSERT_EQ(face().tag_name(blue, name), 0);
  EXPECT_EQ(name, "blue");

  AllocOptions options;
  std::vector<void*> reds;
  options.tag = red;
  for (int i = 0; i < 5; ++i) reds.push_back(allocate(100, options));
  options.tag = blue;
  void* one_blue = allocate(1200, options);
  void* untagged = allocate(64);

  const auto live_of = [&](Tag tag) {
    std::vector<TagStats> stats;
    EXPECT_EQ(face().tag_stats(heap(), stats), 0) << face().message();
    for (const TagStats& s : stats) {
      if (s.tag == tag) return std::pair(s.live_count, s.live_bytes);
    }
    return std::pair<std::uint64_t, std::uint64_t>(0, 0);
  };
  std::size_t usable = 0;
  ASSERT_EQ(face().usable_size(reds[0], usable), 0);
  EXPECT_EQ(live_of(red), std::pair(std::uint64_t{5}, 5 * std::uint64_t{usable}));
  EXPECT_EQ(live_of(blue).first, 1u);
  EXPECT_EQ(live_of(Tag{}).first, 1u);

  ObjectInfo info;
  ASSERT_EQ(face().owner_of(reds[0], info), 0);
  EXPECT_EQ(info.tag, red);
  for (void* p : reds) EXPECT_EQ(face().deallocate(p), 0);
  EXPECT_EQ(live_of(red), std::pair(std::uint64_t{0}, std::uint64_t{0}));
  EXPECT_EQ(face().deallocate(one_blue), 0);
  EXPECT_EQ(face().deallocate(untagged), 0);
}

TEST_P(FaceContract, FindsTheOwnerOfAnyPointer) {
  std::byte* p = static_cast<std::byte*>(allocate(500));
  for (const std::size_t offset : {0u, 1u, 250u, 499u}) {
    ObjectInfo info;
    ASSERT_EQ(face().owner_of(heap(), p + offset, info), 0) << face().message();
    EXPECT_EQ(info.base, p);
    EXPECT_GE(info.size, 500u);
    EXPECT_EQ(info.heap_id, heap().id());
    EXPECT_TRUE(info.held);
    EXPECT_FALSE(info.memzone);
  }
  ASSERT_EQ(face().deallocate(p), 0) << face().message();  // by the domain, whichever heap it is
  ObjectInfo info;
  ASSERT_EQ(face().owner_of(p, info), 0) << face().message();
  EXPECT_FALSE(info.held);
}

TEST_P(FaceContract, RoundTripsRegionPointers) {
  std::byte* p = static_cast<std::byte*>(allocate(500));
  RegionPtr ptr;
  void* back = nullptr;
  ASSERT_EQ(face().to_region_ptr(p + 123, ptr), 0) << face().message();
  EXPECT_TRUE(ptr);
  ASSERT_EQ(face().from_region_ptr(ptr, back), 0) << face().message();
  EXPECT_EQ(back, p + 123);
  ASSERT_EQ(face().deallocate(p), 0);
}

TEST_P(FaceContract, DrainsAndRemovesEveryRegion) {
  std::vector<void*> objects;
  for (int i = 0; i < 20; ++i) objects.push_back(allocate(100));
  std::vector<RegionInfo> regions;
  ASSERT_EQ(face().list_regions(regions), 0);
  ASSERT_FALSE(regions.empty());
  std::uint64_t held = 0;
  for (const RegionInfo& region : regions) {
    HolderReport report;
    const int rc = face().drain_region(region.id, milliseconds(1), &report);
    if (rc != 0) {
      EXPECT_EQ(rc, -ETIMEDOUT) << face().message();
      held += report.total_count;
    }
  }
  EXPECT_EQ(held, objects.size());
  if (ground().heap_options.growth.step == 0) {
    void* p = nullptr;
    EXPECT_EQ(face().allocate(heap(), 16, p), -ENOMEM) << "allocated from a draining region";
  }
  for (void* p : objects) EXPECT_EQ(face().deallocate(heap(), p), 0) << face().message();
  for (const RegionInfo& region : regions) {
    EXPECT_EQ(face().drain_region(region.id, milliseconds(1000), nullptr), 0) << face().message();
    EXPECT_EQ(face().remove_region(region.id, nullptr), 0) << face().message();
    RegionInfo info;
    EXPECT_EQ(face().region_info(region.id, info), -ENOENT);
  }
  HeapStats s;
  ASSERT_EQ(face().stats(heap(), s), 0);
  EXPECT_EQ(s.total_bytes, 0u);
}

TEST_P(FaceContract, UndrainsARegion) {
  void* first = allocate(64);
  RegionId region;
  ASSERT_EQ(face().region_of(first, region), 0);
  EXPECT_EQ(face().drain_region(region, milliseconds(0), nullptr), -ETIMEDOUT);
  RegionInfo info;
  ASSERT_EQ(face().region_info(region, info), 0);
  EXPECT_TRUE(info.draining);
  ASSERT_EQ(face().undrain_region(region), 0) << face().message();
  ASSERT_EQ(face().region_info(region, info), 0);
  EXPECT_FALSE(info.draining);
  AllocOptions there;
  there.region = region;
  void* second = allocate(64, there);
  ASSERT_EQ(face().deallocate(first), 0);
  ASSERT_EQ(face().deallocate(second), 0);
}

TEST_P(FaceContract, NamesTheHoldersOfARegion) {
  Tag tag;
  ASSERT_EQ(face().intern_tag("holder", tag), 0);
  AllocOptions options;
  options.tag = tag;
  void* tagged = allocate(200, options);
  RegionId region;
  ASSERT_EQ(face().region_of(tagged, region), 0);
  options = AllocOptions{};
  options.region = region;
  void* untagged = allocate(64, options);
  MemzoneInfo zone;
  ASSERT_EQ(face().reserve_memzone(heap(), "kept", 256, options, zone), 0) << face().message();
  HolderReport report;
  EXPECT_EQ(face().remove_region(region, &report), -EBUSY);
  EXPECT_FALSE(face().message().empty());
  EXPECT_EQ(report.total_count, 3u);
  std::uint64_t bytes = 0;
  std::vector<std::string> names;
  for (std::size_t i = 0; i < report.count; ++i) {
    const Holder& holder = report.holders[i];
    EXPECT_EQ(holder.count, 1u);
    bytes += holder.bytes;
    names.push_back(holder.memzone ? "memzone" : holder.tag);
  }
  EXPECT_EQ(bytes, report.total_bytes);
  EXPECT_THAT(names, testing::UnorderedElementsAre("holder", "", "memzone"));
  EXPECT_EQ(face().destroy_heap(heap(), &report), -EBUSY);
  EXPECT_EQ(report.total_count, 3u);
  EXPECT_EQ(face().deallocate(tagged), 0);
  EXPECT_EQ(face().deallocate(untagged), 0);
  EXPECT_EQ(face().free_memzone("kept"), 0);
}

INSTANTIATE_TEST_SUITE_P(, FaceContract,
                         testing::Combine(testing::Values(FaceKind::cpp, FaceKind::c),
                                          testing::ValuesIn(grounds())),
                         [](const auto& test) {
                           return std::string(name_of(std::get<0>(test.param))) + "_" +
                                  std::get<1>(test.param).name;
                         });

}  // namespace
}  // namespace extmem::test
