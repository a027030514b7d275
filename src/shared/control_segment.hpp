// The control segment: the one mapping that holds all metadata of a domain.
//
// What it is: a sparse mapping of fixed maximum size. Tables are placed once, at offsets that a SegmentLayout
// computes; everything inside refers to everything else by offset or index, never by pointer, so the bytes mean
// the same at any address (docs/format.md draws them).
// Thread-safety: the mapping itself never moves or grows; what lies in it has locks of its own.
// Invariants:
//  1. Bytes never written read as zero; a table of zero bytes is an empty table.
//  2. The magic is written after the rest of the header, and the header never changes.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/bits.hpp"
#include "extmem/result.hpp"
#include "os/watched_descriptor.hpp"

namespace extmem::shared {

inline constexpr std::uint64_t kSegmentMagic = 0x316d656d74786578;  // "xextmem1" read as little-endian bytes
inline constexpr std::uint32_t kSegmentAbi = 7;
// SegmentHeader::flags
inline constexpr std::uint32_t kSegmentShared = 1;  // in a file, for several processes
inline constexpr std::uint32_t kSegmentPermanent =
    2;  // OpenOptions::permanent: only Domain::remove removes it

// The bounds of a Geometry, and so of DomainOptions.
inline constexpr std::uint32_t kMostRegions = 65535, kMostHeaps = 65536, kMostMemzones = 1u << 24;
inline constexpr std::uint32_t kMostTags = 48000;  // a tag is part of an object's 16-bit state
inline constexpr std::uint32_t kMostCaches = 65536, kMostSlabs = 1u << 26;
inline constexpr std::uint64_t kLeastSmallBytes = 65536, kMostSmallBytes = std::uint64_t{8} << 30;
inline constexpr std::uint64_t kLeastLargeBytes = 1u << 20, kMostLargeBytes = std::uint64_t{1} << 45;

/// Sizes that a layout is computed from. Two builds agree when the ABI and the layout hash agree.
struct Geometry {
  std::uint32_t max_regions;
  std::uint32_t max_heaps;
  std::uint32_t max_memzones;
  std::uint32_t max_tags;
  std::uint32_t max_threads;
  std::uint32_t max_caches;
  std::uint32_t max_slabs;
  std::uint32_t reserved;
  std::uint64_t small_bytes;
  std::uint64_t large_bytes;
};

///   0        8     12      16            24         32            40
///   +--------+-----+-------+-------------+----------+-------------+------------------+
///   | magic  | abi | flags | layout hash | boot id  | total bytes | geometry (48 B)  |
///   +--------+-----+-------+-------------+----------+-------------+------------------+
struct SegmentHeader {
  std::uint64_t magic;
  std::uint32_t abi;
  std::uint32_t flags;
  std::uint64_t layout_hash;
  std::uint64_t boot_id;
  std::uint64_t total_bytes;
  Geometry geometry;
};

/// Hands out offsets for tables, each on a cache line (or page) of its own, and hashes what it placed.
class SegmentLayout {
 public:
  /// The offset of a table of `count` elements of `size` bytes.
  std::uint64_t place(std::uint64_t size, std::uint64_t count, std::uint64_t align = 64) noexcept {
    total_ = base::align_up(total_, align);
    const std::uint64_t at = total_;
    total_ += size * count;
    hash_ = (hash_ ^ size ^ (count << 17) ^ at) * 0x9e3779b97f4a7c15u;
    hash_ ^= hash_ >> 29;
    return at;
  }
  [[nodiscard]] std::uint64_t total_bytes() const noexcept { return base::align_up(total_, 4096); }
  [[nodiscard]] std::uint64_t hash() const noexcept { return hash_; }

 private:
  std::uint64_t total_ = 4096;  // the header's page
  std::uint64_t hash_ = 0x6578746d656d;
};

class ControlSegment {
 public:
  ControlSegment() noexcept = default;
  ControlSegment(ControlSegment&&) = delete;
  ~ControlSegment() { close(); }

  /// Maps a new segment that is private to this process. Errors: those of os::reserve.
  Result<void> create_private(const SegmentLayout& layout, const Geometry& geometry) noexcept;
  /// Reads and checks the header of a segment in a file. Errors: EUCLEAN not a segment, cut short, or damaged; EPROTO of
  /// another version or layout; ESTALE of before a reboot.
  static Result<SegmentHeader> read_header(int fd) noexcept;
  /// Makes a segment in an empty file and maps it. Space is taken for its first `always` bytes, and for the rest as
  /// ensure() is called. The descriptor is the segment's from then on. Errors: ENOSPC; those of mapping.
  Result<void> create_shared(int fd, const SegmentLayout& layout, const Geometry& geometry,
                             std::uint64_t always) noexcept;
  /// The length of a file that holds a segment of this layout.
  static std::uint64_t file_bytes(const SegmentLayout& layout) noexcept {
    const std::uint64_t total = base::align_up(layout.total_bytes(), 65536);
    return total + held_bytes(total + held_bytes(total));
  }
  /// Maps a segment that another process made. Requires: `header` is what read_header gave, `layout` computed from it.
  Result<void> open_shared(int fd, const SegmentHeader& header, const SegmentLayout& layout) noexcept;
  /// Makes room for a copy of a segment of `bytes` bytes, private to this process: all zero. Errors: those of os::reserve.
  Result<void> create_copy(std::uint64_t bytes) noexcept;
  void close() noexcept;
  /// Puts a copy of its own in the mapping's place: from now on no store reaches other processes. False: it could not.
  [[nodiscard]] bool sever() noexcept;
  /// The file; -1: there is none, or the program has closed the descriptor. Then the mapping serves instead.
  [[nodiscard]] int fd() const noexcept { return file_.get(); }

  [[nodiscard]] std::byte* base() const noexcept { return base_; }
  [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }
  [[nodiscard]] const SegmentHeader& header() const noexcept { return *at<SegmentHeader>(0); }
  /// Requires: the offset is one of this segment's layout.
  template <typename T>
  [[nodiscard]] T* at(std::uint64_t offset) const noexcept {
    return reinterpret_cast<T*>(base_ + offset);
  }
  /// Gives the memory of a range back; it reads as zero again. Whole OS pages inside the range only: the rest is
  /// zeroed by hand.
  void discard(std::uint64_t offset, std::uint64_t length) noexcept;
  /// Takes space for a range, if that was not done before. False: the tmpfs is full; nothing has changed.
  [[nodiscard]] bool ensure(std::uint64_t offset, std::uint64_t length) noexcept;
  /// Whether the byte has its space. Reading one that has not takes some, too, or ends the process where there is none.
  [[nodiscard]] bool there(std::uint64_t offset) const noexcept {
    if (!in_file_) return true;
    const std::uint64_t unit = offset / kUnit;  // relaxed: as in ensure()
    return (held_bits()[unit / 64].load(std::memory_order_relaxed) >> unit % 64 & 1) != 0;
  }
  /// Bytes backed by memory now.
  [[nodiscard]] std::uint64_t resident_bytes() const noexcept;

 private:
  Result<void> map_file(int fd, std::uint64_t bytes) noexcept;
  /// Takes the space of a unit. Where the program has closed the file, through the mapping.
  [[nodiscard]] bool take_unit(std::uint64_t unit) noexcept;
  void give_unit_back(std::uint64_t unit) noexcept;
  /// One bit for each unit of a file that has its space, in the segment's own last bytes.
  [[nodiscard]] std::atomic<std::uint64_t>* held_bits() const noexcept {
    return reinterpret_cast<std::atomic<std::uint64_t>*>(base_ + bytes_ - held_bytes(bytes_));
  }
  static constexpr std::uint64_t kUnit = 65536;
  /// Of a segment of `total` bytes, these included.
  static constexpr std::uint64_t held_bytes(std::uint64_t total) noexcept {
    return base::align_up(total / kUnit / 8 + 8, 65536);
  }

  std::byte* base_ = nullptr;
  std::uint64_t bytes_ = 0;
  bool in_file_ = false;
  os::WatchedDescriptor file_;
};

/// What a segment stands on: for a segment in a file, space must be taken before a first store, and where nothing was ever
/// stored nothing is read, or a full tmpfs would end the process. Default: memory of this process alone, which needs no such care.
class Ground {
 public:
  Ground() noexcept = default;
  explicit Ground(ControlSegment& segment) noexcept : segment_(&segment) {}
  [[nodiscard]] explicit operator bool() const noexcept { return segment_ != nullptr; }
  /// Makes sure that `bytes` bytes from `where` on can be stored to. False: the tmpfs is full.
  [[nodiscard]] bool ensure(const void* where, std::uint64_t bytes) const noexcept {
    return segment_ == nullptr ||
           segment_->ensure(
               static_cast<std::uint64_t>(static_cast<const std::byte*>(where) - segment_->base()), bytes);
  }
  template <typename T>
  [[nodiscard]] bool ensure_object(const T& object) const noexcept {
    return ensure(&object, sizeof(T));
  }
  /// Whether something may have been stored in an object, so that it can be read: else it is zero. Requires: it lies in one unit
  /// (64 KiB) of the segment.
  template <typename T>
  [[nodiscard]] bool there(const T& object) const noexcept {
    return segment_ == nullptr || segment_->there(static_cast<std::uint64_t>(
                                      reinterpret_cast<const std::byte*>(&object) - segment_->base()));
  }

 private:
  ControlSegment* segment_ = nullptr;
};

}  // namespace extmem::shared
