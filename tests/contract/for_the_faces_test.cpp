// Reallocating in place only, where backings are placed, and letting go of memory that others keep: what the DPDK face is
// made with.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cerrno>
#include <vector>

#include "contract/memory.hpp"
#include "contract/runtime_directory.hpp"
#include "extmem/domain.hpp"

namespace extmem::test {
namespace {

TEST(ReallocatingInPlace, NeverMoves) {
  auto domain = Domain::create();
  ASSERT_TRUE(domain);
  HeapOptions options;
  options.style = Style::exact;
  auto heap = domain->create_heap("exact", options);
  ASSERT_TRUE(heap);
  BackingSpec spec;
  spec.length = 64 * kKiB;
  ASSERT_TRUE(domain->add_backing(*heap, spec));
  auto first = heap->allocate(1024);
  auto second = heap->allocate(1024);  // below the first: placed from the high end
  ASSERT_TRUE(first && second);
  AllocOptions in_place;
  in_place.in_place = true;
  auto grown = heap->reallocate(*second, 2048, in_place);
  ASSERT_FALSE(grown);
  EXPECT_EQ(grown.error().code(), ENOMEM);
  EXPECT_EQ(*heap->usable_size(*second), 1024u) << "nothing has changed";
  ASSERT_TRUE(heap->deallocate(*first));
  grown = heap->reallocate(*second, 2048, in_place);
  ASSERT_TRUE(grown) << grown.error().message();
  EXPECT_EQ(*grown, *second);
  in_place.align = 32 * kKiB;
  grown = heap->reallocate(*second, 512, in_place);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(*second) % in_place.align == 0, grown.ok());
  in_place.align = 0;
  grown = heap->reallocate(*second, 64, in_place);
  ASSERT_TRUE(grown);
  EXPECT_EQ(*grown, *second);
  ASSERT_TRUE(heap->deallocate(*second));
}

TEST(PlacedBackings, LieAboveTheAddressAndAboveEachOther) {
  auto domain = Domain::create();
  ASSERT_TRUE(domain);
  EXPECT_EQ(domain->place_backings(4096).error().code(), EINVAL);
  EXPECT_EQ(domain->place_backings((std::uint64_t{1} << 46) + 2 * kMiB).error().code(), EINVAL);
  constexpr std::uint64_t kLowest = std::uint64_t{1} << 45;
  // Something is in the way.
  void* const taken =
      ::mmap(reinterpret_cast<void*>(kLowest), 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(taken, MAP_FAILED);
  ASSERT_TRUE(domain->place_backings(kLowest));
  auto heap = domain->create_heap("placed");
  ASSERT_TRUE(heap);
  std::uint64_t after = kLowest;
  std::vector<RegionId> regions;
  for (const BackingKind kind : {BackingKind::memfd, BackingKind::anonymous, BackingKind::memfd}) {
    BackingSpec spec;
    spec.kind = kind;
    spec.length = 3 * kMiB;
    auto region = domain->add_backing(*heap, spec);
    ASSERT_TRUE(region) << region.error().message();
    regions.push_back(*region);
    const auto base = reinterpret_cast<std::uint64_t>(domain->region_info(*region)->base);
    EXPECT_GE(base, after);
    EXPECT_LT(base, kLowest + (std::uint64_t{1} << 42));
    EXPECT_EQ(base % (2 * kMiB), 0u);
    after = base + spec.length;
  }
  ASSERT_TRUE(domain->place_backings(0));
  BackingSpec spec;
  spec.length = 3 * kMiB;
  auto anywhere = domain->add_backing(*heap, spec);
  ASSERT_TRUE(anywhere);
  EXPECT_GT(reinterpret_cast<std::uint64_t>(domain->region_info(*anywhere)->base),
            kLowest + (std::uint64_t{1} << 42));
  ::munmap(taken, 4096);
}

class Detaching : public testing::TestWithParam<Style> {
 protected:
  RuntimeDirectory directory_;
};

int count(const RegionEvent& event, void* arg) {
  auto& events = *static_cast<std::vector<RegionEvent>*>(arg);
  events.push_back(event);
  return 0;
}
int refuse(const RegionEvent& event, void*) { return event.kind == RegionEventKind::removing ? EPERM : 0; }

TEST_P(Detaching, LeavesTheMemoryToTheHeap) {
  OpenOptions options;
  options.directory = directory_.c_str();
  options.same_address = true;
  auto domain = Domain::open("d", options);
  ASSERT_TRUE(domain) << domain.error().message();
  HeapOptions heap_options;
  heap_options.style = GetParam();
  auto heap = domain->create_heap("h", heap_options);
  ASSERT_TRUE(heap);
  const Memory memory(4 * kMiB);
  RegionSpec spec;
  spec.base = memory.base();
  spec.length = 4 * kMiB;
  auto region = domain->add_region(*heap, spec);
  ASSERT_TRUE(region) << region.error().message();
  auto kept = heap->allocate(100);
  ASSERT_TRUE(kept);
  for (int i = 0; i < 100; ++i) {  // something for the magazines
    auto p = heap->allocate(64);
    ASSERT_TRUE(p && heap->deallocate(*p));
  }
  ASSERT_TRUE(domain->add_listener(refuse, nullptr));
  EXPECT_EQ(domain->detach_region(*region).error().code(), EPERM);
  ASSERT_TRUE(domain->remove_listener(refuse, nullptr));
  std::vector<RegionEvent> events;
  ASSERT_TRUE(domain->add_listener(count, &events));
  ASSERT_TRUE(domain->detach_region(*region));
  EXPECT_EQ(domain->detach_region(*region).error().code(), ENOENT);
  EXPECT_EQ(heap->allocate(64).error().code(), ENOMEM);
  EXPECT_EQ(domain->usable_size(*kept).error().code(), EFAULT);
  EXPECT_EQ(heap->stats()->used_count, 1u);
  EXPECT_EQ(domain->remove_region(*region).error().code(), EBUSY);
  EXPECT_EQ(domain->attach_region(*region, static_cast<char*>(spec.base) + (1u << 30)).error().code(),
            EINVAL);
  ASSERT_TRUE(domain->attach_region(*region, spec.base));
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0].kind, RegionEventKind::removing);
  EXPECT_EQ(events[1].kind, RegionEventKind::added);
  EXPECT_TRUE(events[1].foreign) << "this process has not added it now";
  ASSERT_TRUE(heap->deallocate(*kept));
  auto p = heap->allocate(64);
  ASSERT_TRUE(p && heap->deallocate(*p));
  EXPECT_EQ(*domain->verify(), 0u);
  ASSERT_TRUE(domain->detach_region(*region));
  ASSERT_TRUE(domain->remove_region(*region)) << "by a process that has it not attached";
  EXPECT_EQ(*domain->verify(), 0u);
}
TEST_P(Detaching, KeepsTheAddressesForWhoWantsThemAlone) {
  OpenOptions options;
  options.directory = directory_.c_str();
  auto domain = Domain::open("d", options);
  ASSERT_TRUE(domain) << domain.error().message();
  HeapOptions heap_options;
  heap_options.style = GetParam();
  auto heap = domain->create_heap("h", heap_options);
  ASSERT_TRUE(heap);
  const Memory memory(4 * kMiB);
  RegionSpec spec;
  spec.base = memory.base();
  spec.length = 2 * kMiB;
  auto region = domain->add_region(*heap, spec);
  ASSERT_TRUE(region) << region.error().message();
  RegionSpec alone = spec;
  alone.alone_at_address = true;
  const auto added_at = [&](std::size_t offset, std::size_t length) {
    alone.base = static_cast<char*>(spec.base) + offset;
    alone.length = length;
    const auto added = domain->add_region(*heap, alone);
    if (!added) return added.error().code();
    EXPECT_TRUE(domain->remove_region(*added));
    return 0;
  };
  for (int i = 0; i < 5000; ++i) {  // more often than there can be regions
    ASSERT_TRUE(domain->detach_region(*region));
    if (i < 4999) {
      ASSERT_TRUE(domain->attach_region(*region, spec.base));
    }
  }
  EXPECT_EQ(added_at(0, 2 * kMiB), EEXIST);
  EXPECT_EQ(added_at(kMiB, 2 * kMiB), EEXIST);
  EXPECT_EQ(added_at(kMiB, kMiB / 2), EEXIST);
  EXPECT_EQ(added_at(0, 4 * kMiB), EEXIST);
  EXPECT_EQ(added_at(2 * kMiB, kMiB), 0);
  auto beside = domain->add_region(*heap, spec);
  ASSERT_TRUE(beside) << "who does not ask for it: " << beside.error().message();
  ASSERT_TRUE(domain->remove_region(*beside));
  ASSERT_TRUE(domain->remove_region(*region));
  EXPECT_EQ(added_at(0, 2 * kMiB), 0) << "it is gone";
}

INSTANTIATE_TEST_SUITE_P(Styles, Detaching, testing::Values(Style::binned, Style::exact),
                         [](const auto& style) { return style.param == Style::exact ? "Exact" : "Binned"; });

TEST(DetachingWhereItMakesNoSense, IsRefused) {
  auto domain = Domain::create();
  ASSERT_TRUE(domain);
  auto heap = domain->create_heap("h");
  BackingSpec spec;
  spec.length = kMiB;
  auto region = domain->add_backing(*heap, spec);
  ASSERT_TRUE(region);
  EXPECT_EQ(domain->detach_region(*region).error().code(), ENOTSUP);
}

}  // namespace
}  // namespace extmem::test
