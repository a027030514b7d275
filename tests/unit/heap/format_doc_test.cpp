// docs/format.md draws the control segment: its tables, sizes and offsets are those of the code.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>

#include "alloc/core.hpp"
#include "extmem/types.hpp"
#include "heap/records.hpp"

namespace extmem::heap {
namespace {

/// "1,234,567"
std::string with_commas(std::uint64_t value) {
  std::string text = std::to_string(value);
  for (auto at = static_cast<std::ptrdiff_t>(text.size()) - 3; at > 0; at -= 3) {
    text.insert(static_cast<std::size_t>(at), ",");
  }
  return text;
}

class FormatDoc : public ::testing::Test {
 protected:
  FormatDoc() {
    const auto root = std::filesystem::path(__FILE__).parent_path().parent_path().parent_path().parent_path();
    std::ifstream file(root / "docs/format.md");
    page_.assign(std::istreambuf_iterator<char>(file), {});
  }
  void expect(const std::string& text) {
    EXPECT_NE(page_.find(text), std::string::npos) << "docs/format.md should say: " << text;
  }
  void expect_size(const char* record, std::size_t bytes) {
    expect("`" + std::string(record) + "`, " + with_commas(bytes) + " bytes");
  }
  void expect_table(std::uint64_t offset, const char* what, std::uint64_t record, std::uint64_t bytes) {
    std::ostringstream begin;
    begin << "| 0x" << std::hex << offset << " | " << what << std::dec << " | " << with_commas(record)
          << " |";
    const std::size_t at = page_.find(begin.str());
    ASSERT_NE(at, std::string::npos) << "docs/format.md should have a row that begins: " << begin.str();
    const std::string row = page_.substr(at, page_.find('\n', at) - at);
    EXPECT_NE(row.find(" " + with_commas(bytes) + " |"), std::string::npos)
        << with_commas(bytes) << " in: " << row;
  }

  std::string page_;
};

TEST_F(FormatDoc, NamesTheSizeOfEachRecord) {
  expect_size("SegmentHeader", sizeof(shared::SegmentHeader));
  expect_size("IndexList", sizeof(shared::IndexList));
  expect_size("ThreadSlot", sizeof(shared::ThreadSlot));
  expect_size("Directory", sizeof(Directory));
  expect_size("HeapRecord", sizeof(HeapRecord));
  expect_size("TagName", sizeof(TagName));
  expect_size("HolderRecord", sizeof(HolderRecord));
  expect_size("MemzoneRecord", sizeof(MemzoneRecord));
  expect_size("Participant", sizeof(shared::Participant));
  expect_size("RegionShare", sizeof(RegionShare));
  expect_size("HeapCore", sizeof(alloc::HeapCore));
  expect_size("RegionCore", sizeof(alloc::RegionCore));
  expect_size("PageSpace", sizeof(alloc::PageSpace));
  expect_size("TagRecord", sizeof(alloc::TagRecord));
  expect_size("Slab", sizeof(alloc::Slab));
  expect_size("ThreadCache", sizeof(alloc::ThreadCache));
  expect_size("CoreRoots", sizeof(alloc::CoreRoots));
  expect_size("MetaSpace", sizeof(alloc::MetaSpace));
}

TEST_F(FormatDoc, NamesTheOffsetOfEachTable) {
  // As DomainState::place_tables computes and places them.
  const DomainOptions o;
  shared::Geometry g{};
  g.max_regions = o.max_regions;
  g.max_heaps = o.max_heaps;
  g.max_memzones = o.max_memzones;
  g.max_tags = o.max_tags;
  g.max_threads = o.max_threads;
  g.max_caches =
      static_cast<std::uint32_t>(std::min<std::uint64_t>(65536, std::uint64_t{o.max_threads} * o.max_heaps));
  g.small_bytes = o.small_metadata;
  g.large_bytes = o.large_metadata;
  g.max_slabs = static_cast<std::uint32_t>(std::min<std::uint64_t>(g.small_bytes / 64, 1u << 26));

  shared::SegmentLayout layout;
  const auto placed = [&](const char* what, std::uint64_t size, std::uint64_t count) {
    expect_table(layout.place(size, count), what, size, size * count);
  };
  placed("`Directory`", sizeof(Directory), 1);
  placed("`Participant`", sizeof(shared::Participant), shared::kMaxParticipants + 1);
  placed("heads of heap names", 4, std::bit_ceil(g.max_heaps));
  placed("heads of tag names", 4, std::bit_ceil(g.max_tags));
  placed("heads of memzone names", 4, std::bit_ceil(g.max_memzones));
  placed("heads of memzones by pointer", 4, std::bit_ceil(g.max_memzones));
  placed("`HeapRecord`", sizeof(HeapRecord), g.max_heaps);
  placed("`TagName`", sizeof(TagName), g.max_tags);
  placed("`HolderRecord`", sizeof(HolderRecord), std::uint64_t{g.max_tags} * 4 + alloc::kFirstTagHolder);
  placed("`MemzoneRecord`", sizeof(MemzoneRecord), g.max_memzones);
  placed("`RegionShare`", sizeof(RegionShare), g.max_regions + 1);
  const std::uint64_t mapped = std::uint64_t{shared::kMaxParticipants + 1} * (g.max_regions + 1);
  expect_table(layout.place(4, mapped, 4096), "mapped", 4, 4 * mapped);

  const alloc::CoreTables t = alloc::CoreTables::place(layout, g);
  const auto table = [&](std::uint64_t offset, const char* what, std::uint64_t size, std::uint64_t count) {
    expect_table(offset, what, size, size * count);
  };
  table(t.roots, "`CoreRoots`", sizeof(alloc::CoreRoots), 1);
  table(t.heaps, "`HeapCore`", sizeof(alloc::HeapCore), g.max_heaps);
  table(t.regions, "`RegionCore`", sizeof(alloc::RegionCore), g.max_regions + 1);
  table(t.tag_records, "`TagRecord`", sizeof(alloc::TagRecord), std::uint64_t{g.max_tags} * 4 + 1024);
  table(t.slots, "`ThreadSlot`", sizeof(shared::ThreadSlot), g.max_threads + 1);
  table(t.cache_rows, "cache rows", 4, std::uint64_t{g.max_threads + 1} * g.max_heaps);
  table(t.caches, "`ThreadCache`", sizeof(alloc::ThreadCache), g.max_caches);
  table(t.slabs, "`Slab`", sizeof(alloc::Slab), std::uint64_t{g.max_slabs} + 1);
  table(t.small_descs, "descriptors of the small area", sizeof(alloc::PageDesc),
        g.small_bytes >> alloc::kSmallPageShift);
  table(t.small_area, "small area: state words", 1, g.small_bytes);
  table(t.large_descs, "descriptors of the large area", sizeof(alloc::PageDesc),
        g.large_bytes >> alloc::kLargePageShift);
  table(t.large_area, "large area: page tables, IOVA tables", 1, g.large_bytes);
  std::ostringstream total;
  total << "Together 0x" << std::hex << layout.total_bytes() << " bytes";
  expect(total.str());
}

}  // namespace
}  // namespace extmem::heap
