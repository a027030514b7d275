#include "shared/control_segment.hpp"

#include <cstring>

#include "base/error.hpp"
#include "os/mapping.hpp"
#include "os/resident.hpp"

namespace extmem::shared {

Result<void> ControlSegment::create_private(const SegmentLayout& layout, const Geometry& geometry) noexcept {
  EXTMEM_TRY(memory, os::reserve(layout.total_bytes()));
  if (auto committed = os::commit(memory, layout.total_bytes()); !committed) {
    os::unmap(memory, layout.total_bytes());
    return committed.error();
  }
  base_ = memory;
  bytes_ = layout.total_bytes();
  auto* header = at<SegmentHeader>(0);
  header->abi = kSegmentAbi;
  header->layout_hash = layout.hash();
  header->total_bytes = bytes_;
  header->geometry = geometry;
  header->magic = kSegmentMagic;
  return {};
}

void ControlSegment::close() noexcept {
  if (base_ != nullptr) os::unmap(base_, bytes_);
  base_ = nullptr;
  bytes_ = 0;
}

void ControlSegment::discard(std::uint64_t offset, std::uint64_t length) noexcept {
  const std::uint64_t page = os::page_size();
  const std::uint64_t first = base::align_up(offset, page);
  const std::uint64_t last = base::align_down(offset + length, page);
  if (first >= last) {
    std::memset(base_ + offset, 0, length);
    return;
  }
  std::memset(base_ + offset, 0, first - offset);
  std::memset(base_ + last, 0, offset + length - last);
  os::discard(base_ + first, last - first);
}

std::uint64_t ControlSegment::resident_bytes() const noexcept { return os::resident_bytes(base_, bytes_); }

}  // namespace extmem::shared
