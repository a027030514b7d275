// What a domain looks like from outside, to compare before and after a call that must change nothing.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ostream>
#include <sstream>
#include <string>
#include <vector>

#include "contract/face.hpp"

namespace extmem::test {

/// Every heap, its statistics and tags, every region, every memzone, as text. Peaks are left out: they may be
/// raised by an attempt (they are upper bounds).
inline std::string state_of(Face& face) {
  std::ostringstream out;
  std::vector<HeapInfo> heaps;
  EXPECT_EQ(face.list_heaps(heaps), 0) << face.message();
  for (const HeapInfo& info : heaps) {
    Heap heap;
    EXPECT_EQ(face.heap_by_id(info.id, heap), 0) << face.message();
    EXPECT_EQ(face.flush(heap), 0) << face.message();
    HeapStats s;
    EXPECT_EQ(face.stats(heap, s), 0) << face.message();
    EXPECT_EQ(s.total_bytes, s.used_bytes + s.free_bytes + s.cached_bytes + s.slab_free_bytes) << info.name;
    out << "heap " << info.id << ' ' << info.name << " total " << s.total_bytes << " used " << s.used_bytes
        << " free " << s.free_bytes << " cached " << s.cached_bytes << " slab_free " << s.slab_free_bytes
        << " largest " << s.largest_free << " runs " << s.free_runs << " count " << s.used_count << " slabs "
        << s.slabs << " regions " << s.regions << " memzones " << s.memzones << '\n';
    std::vector<TagStats> tags;
    EXPECT_EQ(face.tag_stats(heap, tags), 0) << face.message();
    for (const TagStats& tag : tags) {
      if (tag.live_count != 0)
        out << "  tag " << tag.name << ' ' << tag.live_count << ' ' << tag.live_bytes << '\n';
    }
  }
  std::vector<RegionInfo> regions;
  EXPECT_EQ(face.list_regions(regions), 0) << face.message();
  for (const RegionInfo& r : regions) {
    out << "region " << r.id.slot << '.' << r.id.generation << " of " << r.heap_id << " at " << r.base
        << " length " << r.length << " free " << r.free_bytes << " iova runs " << r.iova_runs
        << (r.draining ? " draining" : "") << '\n';
  }
  std::vector<MemzoneInfo> memzones;
  EXPECT_EQ(face.list_memzones(memzones), 0) << face.message();
  for (const MemzoneInfo& z : memzones)
    out << "memzone " << z.name << " at " << z.addr << " + " << z.length << '\n';
  return out.str();
}

/// That verify() finds nothing; what it found is in the failure's text.
inline void expect_sound(Face& face) {
  std::vector<Breach> breaches;
  ASSERT_EQ(face.verify(breaches), 0) << face.message();
  for (const Breach& b : breaches) {
    ADD_FAILURE() << "breach: " << b.what << " (heap " << b.heap_id << ", region slot " << b.region_slot
                  << ", at " << b.where << ": expected " << b.expected << ", found " << b.found << ")";
  }
}

/// Runs `call`, which must fail with one of `codes`, say why, and change nothing.
template <typename Call>
void expect_refused(Face& face, std::vector<int> codes, Call call, const char* what) {
  SCOPED_TRACE(what);
  const std::string before = state_of(face);
  const int rc = call();
  const std::string message = face.message();
  EXPECT_THAT(codes, testing::Contains(-rc)) << "returned " << rc << ", message: " << message;
  EXPECT_FALSE(message.empty());
  EXPECT_NE(message, "no error");
  EXPECT_EQ(state_of(face), before);
  expect_sound(face);
}
template <typename Call>
void expect_refused(Face& face, int code, Call call, const char* what) {
  expect_refused(face, std::vector<int>{code}, call, what);
}

}  // namespace extmem::test
