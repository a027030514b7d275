// Nothing is ever written into managed memory: a pattern in it survives everything but the zeros and the copies
// that the caller asks for.
#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "contract/memory.hpp"
#include "contract/state.hpp"

namespace extmem::test {
namespace {

constexpr std::size_t kLength = 8 * kMiB;

/// Every byte of the pattern depends on its offset, so that a moved copy is seen too.
void write_pattern(std::byte* base) {
  auto* words = reinterpret_cast<std::uint64_t*>(base);
  for (std::size_t i = 0; i < kLength / 8; ++i) words[i] = i * 0x9e3779b97f4a7c15u;
}
std::size_t changed_words(const std::byte* base) {
  const auto* words = reinterpret_cast<const std::uint64_t*>(base);
  std::size_t changed = 0;
  for (std::size_t i = 0; i < kLength / 8; ++i) changed += words[i] != i * 0x9e3779b97f4a7c15u ? 1 : 0;
  return changed;
}

class UntouchedMemory : public testing::TestWithParam<std::tuple<FaceKind, Style>> {};

TEST_P(UntouchedMemory, KeepsItsPattern) {
  const auto face = make_face(std::get<0>(GetParam()));
  const Memory memory(kLength);
  write_pattern(memory.base());
  Heap heap;
  HeapOptions options;
  options.style = std::get<1>(GetParam());
  ASSERT_EQ(face->create(DomainOptions{}), 0);
  ASSERT_EQ(face->create_heap("untouched", options, heap), 0);
  RegionSpec spec;
  spec.base = memory.base();
  spec.length = kLength;
  spec.iova_source = IovaSource::identity;
  RegionId region;
  ASSERT_EQ(face->add_region(heap, spec, region), 0) << face->message();
  Tag tag;
  ASSERT_EQ(face->intern_tag("pattern", tag), 0);

  const auto churn = [&](unsigned seed, int operations) {
    std::mt19937 random(seed);
    std::vector<void*> live;
    int zones = 0;
    for (int i = 0; i < operations; ++i) {
      AllocOptions how;
      how.tag = random() % 3 == 0 ? tag : Tag{};
      how.align = random() % 5 == 0 ? std::size_t{1} << (random() % 14) : 0;
      how.iova_contiguous = random() % 7 == 0;
      how.placement = static_cast<Placement>(random() % 3);
      const std::size_t size = 1 + random() % (random() % 20 == 0 ? 100 * kKiB : 2000);
      void* p = nullptr;
      switch (random() % 6) {
        case 0:
        case 1:
          if (face->allocate(heap, size, how, p) == 0) live.push_back(p);
          break;
        case 2:
          if (live.empty()) break;
          // Shrinking in place is asked for; growing may move, which copies, and that the caller asked for.
          std::swap(live[random() % live.size()], live.back());
          if (std::size_t usable = 0; face->usable_size(heap, live.back(), usable) == 0) {
            p = live.back();
            EXPECT_EQ(face->reallocate(heap, usable, {}, p), 0) << face->message();
            EXPECT_EQ(p, live.back());
          }
          break;
        case 3: {
          MemzoneInfo zone;
          how.tag = Tag{};  // a memzone has its name
          const std::string name = std::to_string(seed) + "." + std::to_string(zones++);
          if (face->reserve_memzone(heap, name.c_str(), size, how, zone) == 0 && zones % 4 != 0) {
            EXPECT_EQ(face->free_memzone(name.c_str()), 0);
          }
          break;
        }
        default:
          if (live.empty()) break;
          std::swap(live[random() % live.size()], live.back());
          EXPECT_EQ(face->deallocate(heap, live.back()), 0) << face->message();
          live.pop_back();
      }
    }
    for (void* p : live) EXPECT_EQ(face->deallocate(heap, p), 0);
  };
  std::thread other([&] { churn(2, 10000); });
  churn(1, 10000);
  other.join();
  EXPECT_EQ(changed_words(memory.base()), 0u) << "after allocating and freeing";

  std::vector<MemzoneInfo> zones;
  std::vector<WalkEntry> entries;
  HeapStats stats;
  EXPECT_EQ(face->list_memzones(zones), 0);
  EXPECT_EQ(face->walk(heap, true, entries), 0);
  EXPECT_EQ(face->stats(heap, stats), 0);
  expect_sound(*face);
  for (const MemzoneInfo& zone : zones) EXPECT_EQ(face->free_memzone(zone.name), 0);
  EXPECT_EQ(face->flush(heap), 0);
  EXPECT_EQ(face->drain_region(region, std::chrono::seconds(1), nullptr), 0) << face->message();
  EXPECT_EQ(face->remove_region(region, nullptr), 0) << face->message();
  face->close();
  EXPECT_EQ(changed_words(memory.base()), 0u) << "after removing the region and closing the domain";
}

INSTANTIATE_TEST_SUITE_P(, UntouchedMemory,
                         testing::Combine(testing::Values(FaceKind::cpp, FaceKind::c),
                                          testing::Values(Style::binned, Style::exact)),
                         [](const auto& test) {
                           return std::string(name_of(std::get<0>(test.param))) +
                                  (std::get<1>(test.param) == Style::binned ? "_Binned" : "_Exact");
                         });

}  // namespace
}  // namespace extmem::test
