// docs/format.md says of each field that it names where it lies. (Its sizes and tables: format_doc_test.cpp.)
#include <gtest/gtest.h>

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <regex>
#include <string>
#include <vector>

#include "alloc/core.hpp"
#include "alloc/span_magazines.hpp"
#include "heap/records.hpp"
#include "shared/control_segment.hpp"

namespace extmem::heap {
namespace {

using alloc::HeapCore;
using alloc::RegionCore;
using alloc::Slab;
using alloc::SpanMagazines;
using alloc::ThreadCache;

std::vector<std::string> page() {
  const auto root = std::filesystem::path(__FILE__).parent_path().parent_path().parent_path().parent_path();
  std::ifstream file(root / "docs/format.md");
  EXPECT_TRUE(file.good());
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

struct Field {
  const char* section;  // how the line before the table begins
  const char* name;
  std::size_t at;
};
#define FIELD(section, type, field) \
  Field { section, #field, offsetof(type, field) }
#define DIRECTORY(field) FIELD("`Directory`, 136", Directory, field)
#define HEAP(field) FIELD("`HeapCore`, 768", HeapCore, field)
#define REGION(field) FIELD("`RegionCore`, 1,344", RegionCore, field)
#define SLAB(field) FIELD("`Slab`, 64", Slab, field)
#define CACHE(field) FIELD("`ThreadCache`, 63,616", ThreadCache, field)
#define SPANS(field) \
  Field { "In an exact heap `SpanMagazines`", #field, SpanMagazines::kAt + offsetof(SpanMagazines, field) }

const Field kFields[] = {
    DIRECTORY(region_lock),
    DIRECTORY(heaps),
    DIRECTORY(tags),
    DIRECTORY(memzones),
    DIRECTORY(regions),
    DIRECTORY(holders),
    DIRECTORY(epoch),
    DIRECTORY(next_file),
    DIRECTORY(memzone_count),
    DIRECTORY(node_heaps),
    DIRECTORY(slots_high),
    DIRECTORY(withheld),
    DIRECTORY(next_place),
    HEAP(exact),
    HEAP(first_region),
    HEAP(regions),
    HEAP(first_cache),
    HEAP(caches),
    HEAP(most_caches),
    HEAP(slab_count),
    HEAP(span_count),
    HEAP(span_pages_bytes),
    HEAP(out_bytes),
    HEAP(out_peak),
    HEAP(all_slabs),
    HEAP(partial),
    HEAP(sharing),
    HEAP(tags),
    HEAP(torn),
    HEAP(untold),
    HEAP(emptied),
    HEAP(slab_regions),
    HEAP(open_caches),
    HEAP(closed_frees),
    HEAP(hits),
    HEAP(disturbed),
    HEAP(backoff),
    HEAP(full_to),
    HEAP(full_pages),
    HEAP(tight),
    REGION(flags),
    REGION(generation),
    REGION(heap),
    REGION(next),
    REGION(os_page_shift),
    REGION(node),
    REGION(length),
    REGION(phase),
    REGION(drained),
    REGION(changing),
    REGION(page_table_bytes),
    REGION(iova_offset),
    REGION(iova_bytes),
    REGION(served),
    REGION(asked),
    REGION(rank),
    SLAB(first),
    SLAB(reciprocal),
    SLAB(home),
    SLAB(objects),
    SLAB(keeper),
    SLAB(first_state),
    SLAB(magazine),
    SLAB(size_class),
    SLAB(returned_next),
    SLAB(free),
    SLAB(hint),
    SLAB(flags),
    SLAB(returned),
    SLAB(units),
    SLAB(lowest),
    SLAB(list_next),
    SLAB(list_prev),
    SLAB(all_next),
    SLAB(all_prev),
    CACHE(home),
    CACHE(held),
    CACHE(cached),
    CACHE(slot),
    CACHE(heap),
    CACHE(next),
    CACHE(used),
    CACHE(out_delta),
    CACHE(magazines),
    CACHE(own),
    CACHE(empty),
    CACHE(entered),
    CACHE(out_counts),
    CACHE(patience),
    CACHE(whole_patience),
    CACHE(wholly),
    CACHE(returned),
    CACHE(outboxes),
    SPANS(level),
    SPANS(top),
    SPANS(floor),
    SPANS(hits),
    SPANS(owner),
    SPANS(open),
    SPANS(asked),
};

/// "1,336"
std::string with_comma(std::size_t at) {
  std::string text = std::to_string(at);
  if (text.size() > 3) text.insert(text.size() - 3, ",");
  return text;
}

/// Whether a row "| 12, 16 | ... name ... |" of the table behind that line names the field at its place.
bool says(const std::vector<std::string>& lines, const Field& field) {
  const std::regex place("[ |]" + with_comma(field.at) + "[ ,]");
  const std::regex name("\\b" + std::string(field.name) + "\\b");
  bool inside = false;
  bool in_table = false;
  for (const std::string& line : lines) {
    inside = inside || line.starts_with(field.section);
    if (!inside) continue;
    if (line.starts_with("|")) {
      in_table = true;
      const std::size_t second = line.find('|', 1);
      if (std::regex_search(line.substr(0, second), place) && std::regex_search(line.substr(second), name))
        return true;
    } else if (in_table) {
      return false;
    }
  }
  return false;
}

TEST(FormatFields, AreWhereThePageSays) {
  const std::vector<std::string> lines = page();
  for (const Field& field : kFields)
    EXPECT_TRUE(says(lines, field)) << field.section << " bytes: " << field.name << " is at "
                                    << with_comma(field.at);
}

TEST(FormatFields, AreOfThisAbi) {
  const std::string abi = "`kSegmentAbi` (" + std::to_string(shared::kSegmentAbi) + ")";
  bool named = false;
  for (const std::string& line : page()) named |= line.find(abi) != std::string::npos;
  EXPECT_TRUE(named) << abi;
}

}  // namespace
}  // namespace extmem::heap
