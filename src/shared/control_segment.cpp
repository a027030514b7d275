#include "shared/control_segment.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/error.hpp"
#include "os/file.hpp"
#include "os/mapping.hpp"
#include "os/prefault.hpp"
#include "os/process.hpp"
#include "os/resident.hpp"
#include "os/shared_mapping.hpp"
#include "shared/thread_slot.hpp"

namespace extmem::shared {

Result<void> ControlSegment::create_copy(std::uint64_t bytes) noexcept {
  // A guard page at each end: a stray access faults, and the mapping stays one of its own in /proc.
  const std::size_t guard = os::page_size();
  EXTMEM_TRY(memory, os::reserve(bytes + 2 * guard));
  if (auto committed = os::commit(memory + guard, bytes); !committed) {
    os::unmap(memory, bytes + 2 * guard);
    return committed.error();
  }
  base_ = memory + guard;
  bytes_ = bytes;
  return {};
}

Result<void> ControlSegment::create_private(const SegmentLayout& layout, const Geometry& geometry) noexcept {
  EXTMEM_TRY_VOID(create_copy(layout.total_bytes()));
  auto* header = at<SegmentHeader>(0);
  header->abi = kSegmentAbi;
  header->layout_hash = layout.hash();
  header->total_bytes = bytes_;
  header->geometry = geometry;
  header->magic = kSegmentMagic;
  return {};
}

namespace {

/// This boot's number, folded to 64 bits; 0 where the kernel does not tell.
std::uint64_t boot_number() noexcept {
  const auto id = os::boot_id();
  if (!id) return 0;
  std::uint64_t halves[2];
  std::memcpy(halves, id->data(), sizeof halves);
  return halves[0] ^ halves[1];
}

Error space_error(int failed) noexcept {
  if (failed == ENOSPC || failed == EDQUOT) {
    return EXTMEM_ERROR(ENOSPC,
                        "the tmpfs of the runtime directory is full: remove files, or mount it larger");
  }
  if (failed == EFBIG) {
    return EXTMEM_ERROR(
        EFBIG,
        "the control segment is a sparse file longer than RLIMIT_FSIZE allows: raise the limit "
        "(ulimit -f), or ask for less metadata (DomainOptions) as it is created");
  }
  return EXTMEM_SYS_ERROR(failed, "cannot take space for the control segment (fallocate)");
}

/// Header, geometry and all: sums and products stay far below 2^64.
bool sane(const Geometry& g) noexcept {
  return g.max_regions != 0 && g.max_regions <= kMostRegions && g.max_heaps != 0 &&
         g.max_heaps <= kMostHeaps && g.max_memzones <= kMostMemzones && g.max_tags != 0 &&
         g.max_tags <= kMostTags && g.max_threads != 0 && g.max_threads <= kMaxThreadSlots &&
         g.max_caches != 0 && g.max_caches <= kMostCaches && g.max_slabs != 0 && g.max_slabs <= kMostSlabs &&
         g.small_bytes >= kLeastSmallBytes && g.small_bytes <= kMostSmallBytes &&
         g.small_bytes % 65536 == 0 && g.large_bytes >= kLeastLargeBytes &&
         g.large_bytes <= kMostLargeBytes && g.large_bytes % 65536 == 0;
}

}  // namespace

Result<SegmentHeader> ControlSegment::read_header(int fd) noexcept {
  SegmentHeader header{};
  EXTMEM_TRY(got, os::read_at(fd, &header, sizeof header, 0));
  if (got < sizeof header) {
    return EXTMEM_ERROR(
        EUCLEAN, "the control segment is cut short: remove the domain (extmem domain rm, or its folder)");
  }
  if (header.magic != kSegmentMagic) {
    return EXTMEM_ERROR(EUCLEAN, "the file is no control segment of extmem: remove the domain's folder");
  }
  if (header.abi != kSegmentAbi) {
    return EXTMEM_ERROR(EPROTO,
                        "the domain was made by another version of extmem, with another layout: use that "
                        "version, or remove the domain");
  }
  const std::uint64_t boot = boot_number();  // without /proc nobody knows; but then the tmpfs is of this boot
  if (header.boot_id != boot && header.boot_id != 0 && boot != 0) {
    return EXTMEM_ERROR(ESTALE,
                        "the domain is from before a reboot, its processes and memory are gone: remove it");
  }
  EXTMEM_TRY(file, os::identify(fd));
  if (!sane(header.geometry) || file.bytes != header.total_bytes) {
    return EXTMEM_ERROR(
        EUCLEAN, "the control segment's header is damaged, or the file was cut short: remove the domain");
  }
  return header;
}

Result<void> ControlSegment::map_file(int fd, std::uint64_t bytes) noexcept {
  // A guard page at each end, as for a private one.
  const std::size_t guard = os::page_size();
  EXTMEM_TRY(memory, os::reserve(bytes + 2 * guard));
  if (auto mapped = os::map_shared(memory + guard, bytes, fd); !mapped) {
    os::unmap(memory, bytes + 2 * guard);
    return mapped.error();
  }
  base_ = memory + guard;
  bytes_ = bytes;
  return {};
}

Result<void> ControlSegment::create_shared(int fd, const SegmentLayout& layout, const Geometry& geometry,
                                           std::uint64_t always) noexcept {
  const std::uint64_t total = file_bytes(layout);
  if (const int failed = os::set_length(fd, total); failed != 0) return space_error(failed);
  const std::uint64_t bits = held_bytes(total);
  if (const int failed = os::take_space(fd, 0, 65536); failed != 0) return space_error(failed);
  if (const int failed = os::take_space(fd, total - bits, bits); failed != 0) return space_error(failed);
  EXTMEM_TRY_VOID(map_file(fd, total));
  file_ = os::WatchedDescriptor(fd);
  in_file_ = true;
  if (!ensure(0, always)) {
    file_ = os::WatchedDescriptor();  // the caller's again
    in_file_ = false;
    return space_error(ENOSPC);
  }
  auto* header = at<SegmentHeader>(0);
  header->abi = kSegmentAbi;
  header->flags = kSegmentShared;
  header->layout_hash = layout.hash();
  header->boot_id = boot_number();
  header->total_bytes = total;
  header->geometry = geometry;
  header->magic = kSegmentMagic;
  return {};
}

Result<void> ControlSegment::open_shared(int fd, const SegmentHeader& header,
                                         const SegmentLayout& layout) noexcept {
  const std::uint64_t total = file_bytes(layout);
  if (header.layout_hash != layout.hash() || header.total_bytes != total) {
    return EXTMEM_ERROR(
        EPROTO,
        "the domain was made by a build of extmem with another layout: use that build, or remove the domain");
  }
  EXTMEM_TRY_VOID(map_file(fd, total));
  file_ = os::WatchedDescriptor(fd);
  in_file_ = true;
  return {};
}

bool ControlSegment::take_unit(std::uint64_t unit) noexcept {
  if (const int fd = file_.get(); fd >= 0) return os::take_space(fd, unit * kUnit, kUnit) == 0;
  return os::prefault(base_ + unit * kUnit, kUnit, os::page_size(), os::WithoutPopulate::refuse).ok();
}

void ControlSegment::give_unit_back(std::uint64_t unit) noexcept {
  if (const int fd = file_.get(); fd >= 0) {
    os::give_space_back(fd, unit * kUnit, kUnit);
  } else {
    os::discard_shared(base_ + unit * kUnit, kUnit);
  }
}

bool ControlSegment::ensure(std::uint64_t offset, std::uint64_t length) noexcept {
  if (!in_file_ || length == 0) return true;
  std::atomic<std::uint64_t>* const bits = held_bits();
  for (std::uint64_t unit = offset / kUnit; unit <= (offset + length - 1) / kUnit; ++unit) {
    const std::uint64_t bit = std::uint64_t{1} << (unit % 64);
    // Relaxed: the bit says only that the file has the space, which the kernel knows at once for everybody.
    if ((bits[unit / 64].load(std::memory_order_relaxed) & bit) != 0) continue;
    if (!take_unit(unit)) return false;
    bits[unit / 64].fetch_or(bit, std::memory_order_relaxed);
  }
  return true;
}

bool ControlSegment::sever() noexcept { return !in_file_ || os::map_copy(base_, bytes_, file_.get()).ok(); }

void ControlSegment::close() noexcept {
  if (base_ != nullptr) os::unmap(base_ - os::page_size(), bytes_ + 2 * os::page_size());
  os::close_file(file_.get());
  base_ = nullptr;
  bytes_ = 0;
  file_ = os::WatchedDescriptor();
  in_file_ = false;
}

void ControlSegment::discard(std::uint64_t offset, std::uint64_t length) noexcept {
  if (in_file_) {
    // Whole units go, and must be taken anew before the next store; what a unit shares with others is zeroed by hand,
    // where it is there at all.
    std::atomic<std::uint64_t>* const bits = held_bits();
    const std::uint64_t end = offset + length;
    for (std::uint64_t unit = offset / kUnit; unit * kUnit < end; ++unit) {
      const std::uint64_t from = std::max(offset, unit * kUnit);
      const std::uint64_t to = std::min(end, (unit + 1) * kUnit);
      const std::uint64_t bit = std::uint64_t{1} << (unit % 64);
      const bool held = (bits[unit / 64].load(std::memory_order_relaxed) & bit) != 0;
      if (to - from == kUnit) {
        bits[unit / 64].fetch_and(~bit, std::memory_order_relaxed);
        if (held) give_unit_back(unit);
      } else if (held) {
        std::memset(base_ + from, 0, to - from);
      }
    }
    return;
  }
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

std::uint64_t ControlSegment::resident_bytes() const noexcept {
  const int fd = file_.get();
  return fd < 0 ? os::resident_bytes(base_, bytes_) : os::occupied_bytes(fd);
}

}  // namespace extmem::shared
