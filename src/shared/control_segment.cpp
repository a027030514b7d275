#include "shared/control_segment.hpp"

#include <cstring>

#include "base/error.hpp"
#include "os/mapping.hpp"
#include "os/resident.hpp"

namespace extmem::shared {

Result<void> ControlSegment::create_private(const SegmentLayout& layout, const Geometry& geometry) noexcept {
  // A guard page at each end: a stray access faults, and the mapping stays one of its own in /proc.
  const std::size_t guard = os::page_size();
  EXTMEM_TRY(memory, os::reserve(layout.total_bytes() + 2 * guard));
  if (auto committed = os::commit(memory + guard, layout.total_bytes()); !committed) {
    os::unmap(memory, layout.total_bytes() + 2 * guard);
    return committed.error();
  }
  base_ = memory + guard;
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
  if (base_ != nullptr) os::unmap(base_ - os::page_size(), bytes_ + 2 * os::page_size());
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
