// Where the tables of a control segment lie, for tests that damage one: computed as DomainState::place_tables does.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <string>
#include <vector>

#include "alloc/core.hpp"
#include "heap/records.hpp"
#include "shared/control_segment.hpp"
#include "shared/participants.hpp"

namespace extmem::test {

/// A control file, mapped: for its domain's users that is what another participant writes.
class MappedSegment {
 public:
  explicit MappedSegment(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    EXPECT_GE(fd, 0) << path;
    struct stat status {};
    EXPECT_EQ(::fstat(fd, &status), 0);
    bytes_ = static_cast<std::size_t>(status.st_size);
    void* const p = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    EXPECT_NE(p, MAP_FAILED);
    base_ = static_cast<std::byte*>(p);
    ::close(fd);
    place();
  }
  MappedSegment(const MappedSegment&) = delete;
  ~MappedSegment() { ::munmap(base_, bytes_); }

  [[nodiscard]] std::byte* base() const { return base_; }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }
  [[nodiscard]] heap::Directory& directory() const { return *at<heap::Directory>(directory_); }
  [[nodiscard]] heap::HeapRecord* names() const { return at<heap::HeapRecord>(heaps_); }
  [[nodiscard]] heap::MemzoneRecord* zones() const { return at<heap::MemzoneRecord>(zones_); }
  [[nodiscard]] alloc::CoreRoots& roots() const { return *at<alloc::CoreRoots>(core_.roots); }
  [[nodiscard]] alloc::HeapCore* heaps() const { return at<alloc::HeapCore>(core_.heaps); }
  [[nodiscard]] alloc::RegionCore* regions() const { return at<alloc::RegionCore>(core_.regions); }
  [[nodiscard]] alloc::Slab& slab(std::uint32_t link) const { return at<alloc::Slab>(core_.slabs)[link]; }
  [[nodiscard]] alloc::ThreadCache& cache(std::uint32_t link) const {
    return at<alloc::ThreadCache>(core_.caches)[link - 1];
  }
  [[nodiscard]] alloc::TagRecord& tag(std::uint32_t link) const {
    return at<alloc::TagRecord>(core_.tag_records)[link - 1];
  }
  [[nodiscard]] std::atomic<std::uint16_t>& state(std::uint32_t index) const {
    return at<std::atomic<std::uint16_t>>(core_.small_area)[index];
  }
  [[nodiscard]] alloc::PageDesc& page(const alloc::RegionCore& region, std::uint32_t page) const {
    return at<alloc::PageDesc>(region.pages.descs_offset)[page];
  }

 private:
  template <typename T>
  [[nodiscard]] T* at(std::uint64_t offset) const {
    return reinterpret_cast<T*>(base_ + offset);
  }
  void place() {
    const shared::Geometry g = at<shared::SegmentHeader>(0)->geometry;
    shared::SegmentLayout layout;
    directory_ = layout.place(sizeof(heap::Directory), 1);
    layout.place(sizeof(shared::Participant), shared::kMaxParticipants + 1);
    layout.place(4, std::bit_ceil(g.max_heaps));
    layout.place(4, std::bit_ceil(g.max_tags));
    layout.place(4, std::bit_ceil(std::max(1u, g.max_memzones)));
    layout.place(4, std::bit_ceil(std::max(1u, g.max_memzones)));
    heaps_ = layout.place(sizeof(heap::HeapRecord), g.max_heaps);
    layout.place(sizeof(heap::TagName), g.max_tags);
    layout.place(
        sizeof(heap::HolderRecord),
        std::min<std::uint64_t>(alloc::kMaxHolders, std::uint64_t{g.max_tags} * 4 + alloc::kFirstTagHolder));
    zones_ = layout.place(sizeof(heap::MemzoneRecord), std::max(1u, g.max_memzones));
    layout.place(sizeof(heap::RegionShare), std::uint64_t{g.max_regions} + 1);
    layout.place(4, std::uint64_t{shared::kMaxParticipants + 1} * (std::uint64_t{g.max_regions} + 1), 4096);
    core_ = alloc::CoreTables::place(layout, g);
    EXPECT_EQ(layout.hash(), at<shared::SegmentHeader>(0)->layout_hash)
        << "as DomainState::place_tables does";
  }

  std::byte* base_ = nullptr;
  std::size_t bytes_ = 0;
  std::uint64_t directory_ = 0, heaps_ = 0, zones_ = 0;
  alloc::CoreTables core_{};
};

/// Where the file has data: the offsets of its pages.
inline std::vector<std::uint64_t> pages_with_data(const std::string& path) {
  std::vector<std::uint64_t> pages;
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  for (off_t at = 0; (at = ::lseek(fd, at, SEEK_DATA)) >= 0;) {
    const off_t end = ::lseek(fd, at, SEEK_HOLE);
    for (; at < end; at += 4096) pages.push_back(static_cast<std::uint64_t>(at));
  }
  ::close(fd);
  return pages;
}

}  // namespace extmem::test
