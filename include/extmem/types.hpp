// The words of extmem as types.
//
// What it is: strong types, option structs and report structs that the public classes share. Plain values.
// Thread-safety: values; no shared state.
//
//   domain            a set of heaps, regions and memzones with one control segment
//   control segment   the one mapping that holds all metadata of a domain; managed memory holds none
//   region            contiguous memory that was given to a heap: external (the caller's) or own (a backing's)
//   page              our granule inside a region (a power of two); the hardware's is always "OS page"
//   IOVA              the address that a device uses for a byte; known per OS page, or kBadIova
//   heap              named allocator over regions;  memzone: named reservation in a heap
//   tag               label of an allocation site; live bytes and counts are kept per (heap, tag)
//   span, slab, object, magazine: see docs/glossary.md
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "extmem/export.h"
#include "extmem/function_ref.hpp"
#include "extmem/result.hpp"

namespace extmem {

/// A device's address of a byte (I/O virtual or physical). Never converts silently from or to an integer.
enum class Iova : std::uint64_t {};
/// "No device address is known."
inline constexpr Iova kBadIova{~std::uint64_t{0}};

inline constexpr std::size_t kMaxNameLength = 63;  ///< bytes of a heap's, memzone's or tag's name
inline constexpr std::size_t kMaxAlign = std::size_t{1} << 30;
inline constexpr int kAnyNode = -1;  ///< any NUMA node, or "node not known"

/// A region of a domain. Slot and generation: a stale id is recognised, never mistaken for a newer region.
struct RegionId {
  std::uint32_t slot = 0;
  std::uint32_t generation = 0;  ///< 0: no region
  constexpr explicit operator bool() const noexcept { return generation != 0; }
  friend constexpr bool operator==(RegionId, RegionId) noexcept = default;
};

/// A pointer that every participant of a domain can resolve: region slot (16 bits) and offset (48 bits).
/// Zero is "null": slot numbers start at 1.
struct RegionPtr {
  std::uint64_t bits = 0;
  constexpr explicit operator bool() const noexcept { return bits != 0; }
  [[nodiscard]] constexpr std::uint32_t slot() const noexcept {
    return static_cast<std::uint32_t>(bits >> 48);
  }
  [[nodiscard]] constexpr std::uint64_t offset() const noexcept {
    return bits & ((std::uint64_t{1} << 48) - 1);
  }
  friend constexpr bool operator==(RegionPtr, RegionPtr) noexcept = default;
};

/// A tag of a domain, made by Domain::intern_tag. The default one means "untagged".
struct Tag {
  std::uint16_t index = 0;
  friend constexpr bool operator==(Tag, Tag) noexcept = default;
};

/// How a heap places allocations.
enum class Style : std::uint8_t {
  binned,  ///< size classes, slabs and per-thread magazines: the fast one
  exact,   ///< sizes to the cache line, from the high end, neighbours coalesce, growing in place
};

/// Which end of the free memory to prefer.
enum class Placement : std::uint8_t {
  any,   ///< the good fit that the style prefers
  low,   ///< the lowest offset that fits, in the first region that can serve
  high,  ///< the highest offset that fits
};

/// Everything that can be asked of one allocation. Zero or default means "do not care".
struct AllocOptions {
  std::size_t align = 0;    ///< power of two, <= kMaxAlign; 0: 16 (binned) or 64 (exact)
  std::size_t nocross = 0;  ///< power of two >= size: the memory crosses no multiple of it, counted in
                            ///< offsets of the region, or in IOVA space when iova_contiguous is set
  /// nocross is counted in addresses instead. In a named domain those of the process that added the region: where
  /// another has it elsewhere, boundaries up to 1 GiB still hold (see OpenOptions::same_address for larger ones).
  bool nocross_in_addresses = false;
  bool iova_contiguous = false;  ///< one IOVA run; inside one OS page this always holds
  std::uint8_t dma_bits = 0;     ///< 1..63: every byte's IOVA is known and below 2^dma_bits
  Placement placement = Placement::any;
  bool zero = false;      ///< fill with zero bytes (needs memory that the CPU can reach)
  bool in_place = false;  ///< reallocate: where it is, or not at all (ENOMEM)
  Tag tag{};
  int numa_node = kAnyNode;      ///< only regions of this node
  std::size_t os_page_size = 0;  ///< only regions of this OS page size
  RegionId region{};             ///< only this region
  std::uint64_t min_offset = 0;  ///< window [min_offset, max_offset) in region offsets; max_offset 0: no end
  std::uint64_t max_offset = 0;
};

/// Where a region's IOVAs come from.
enum class IovaSource : std::uint8_t {
  table,     ///< the table that is given, one IOVA per OS page; without one every page is kBadIova
  identity,  ///< the virtual address is the IOVA
  physical,  ///< the kernel's pagemap; needs CAP_SYS_ADMIN, and hugetlb memory unless allow_unstable_iova
};

/// Memory that the caller owns and lends to a heap.
struct RegionSpec {
  void* base = nullptr;    ///< a multiple of os_page_size
  std::size_t length = 0;  ///< a multiple of os_page_size
  std::size_t os_page_size =
      0;  ///< a power of two >= 64 that divides base and length; 0: the system's (4 KiB)
  std::span<const Iova> iovas{};  ///< empty, or exactly length / os_page_size; copied
  IovaSource iova_source = IovaSource::table;
  bool allow_unstable_iova = false;  ///< accept physical addresses of pages that the kernel may migrate
  bool cpu_accessible = true;        ///< false: device memory; zero, moving reallocate answer ENOTSUP
  int numa_node = kAnyNode;
  bool any_iovas = false;  ///< accept a table whose IOVAs are no multiples of os_page_size
  /// Refuse it (EEXIST) also where a region that is not mapped in this process has any of these addresses in the process that
  /// added it. For who wants all regions at one address everywhere.
  bool alone_at_address = false;
};

/// What a ready-made backing maps.
enum class BackingKind : std::uint8_t { external, anonymous, hugetlb, memfd, memfd_hugetlb, shm, file, dax };

/// What to do when the wanted backing cannot be had. Never done silently: RegionInfo says what was taken.
enum class Fallback : std::uint8_t {
  none,       ///< an error
  thp,        ///< anonymous memory advised for transparent hugepages
  anonymous,  ///< plain anonymous memory
};

/// Memory that extmem maps itself for a heap ("own").
struct BackingSpec {
  BackingKind kind = BackingKind::anonymous;
  std::size_t length = 0;         ///< rounded up to the OS page size
  std::size_t os_page_size = 0;   ///< hugetlb: the wanted size; 0: the kind's default
  const char* path = nullptr;     ///< file, dax: path; shm: "/name"; otherwise optional label
  bool create = true;             ///< file, shm: create it or make it longer when needed
  bool unlink_on_remove = false;  ///< file, shm: remove the name when the region goes
  bool thp = false;               ///< advise transparent hugepages
  bool prefault = false;          ///< populate every page now
  bool lock = false;              ///< mlock
  int numa_node = kAnyNode;       ///< bind before the first touch
  IovaSource iova_source = IovaSource::table;
  bool allow_unstable_iova = false;
  Fallback fallback = Fallback::none;
  /// Called while pre-faulting with (done, total) bytes; true cancels, and the add fails with ECANCELED.
  FunctionRef<bool(std::uint64_t, std::uint64_t)> progress{};
};

/// Lets a heap take more memory from a backing by itself.
struct GrowthPolicy {
  BackingSpec backing{};    ///< length is ignored; path is not supported here
  std::uint64_t step = 0;   ///< bytes per growth (or the allocation's size if larger); 0: no growth
  std::uint64_t limit = 0;  ///< most bytes that growth may have added at any time; not 0 with a step
  bool give_back = true;    ///< regions that growth added and that are empty again are removed ...
  bool keep_one = true;     ///< ... but one, so that a heap at the edge does not map and unmap for ever
};

/// What becomes of the objects that a participant of a named domain holds when it dies or leaves.
enum class OnDeath : std::uint8_t {
  reclaim,  ///< freed, unless it had handed them over
  keep,     ///< kept, without an owner, until somebody adopts or frees them
};

struct HeapOptions {
  Style style = Style::binned;
  GrowthPolicy growth{};
  OnDeath on_death = OnDeath::reclaim;
  std::uint64_t user_data =
      0;  ///< the caller's: extmem only keeps it, for every process (HeapInfo::user_data)
};

/// Sizes that bound a domain's control segment. Address space only: memory is used as things are created.
struct DomainOptions {
  std::uint32_t max_regions = 4096;
  std::uint32_t max_heaps = 8192;
  std::uint32_t max_memzones = 1u << 18;
  std::uint32_t max_tags = 8192;
  std::uint32_t max_threads = 1024;  ///< threads that use the domain at the same time; to one more
                                     ///< every call that needs a lock or a cache answers ENOSPC
  std::uint64_t small_metadata = std::uint64_t{4}
                                 << 30;  ///< bytes for object states, two for an object, <= 8 GiB
  std::uint64_t large_metadata = std::uint64_t{64} << 30;  ///< bytes for page maps and IOVA tables
};

/// Whether a named domain may, or must, be there before.
enum class OpenMode : std::uint8_t { create_or_open, open_only, create_only };

struct OpenOptions {
  OpenMode mode = OpenMode::create_or_open;
  DomainOptions sizes{};            ///< of a domain that is created; one that is opened keeps its own
  const char* directory = nullptr;  ///< runtime directory, on a tmpfs; null: $EXTMEM_RUNTIME_DIR, else
                                    ///< $XDG_RUNTIME_DIR/extmem if that is one, else /dev/shm/extmem-UID
  /// Members of the group share it (0660 instead of 0600): each of them asks for it, creator and openers, in a `directory` that
  /// is the group's too (0770). EPERM where the folders are not this user's or its effective group's, or where who does
  /// not ask for it meets what the group may write to. Members trust each other as threads do.
  bool group = false;
  bool remove_when_last = false;  ///< the last participant that closes it removes it
  bool permanent = false;  ///< a domain that is created goes only by Domain::remove, whoever closes it last
  /// This process maps what others add at the address where the adder has it, or not at all: allocations of this process
  /// are then served from other regions, and what asks for the region answers EADDRINUSE.
  bool same_address = false;
};

/// One process that is attached to a named domain.
struct ParticipantInfo {
  std::uint32_t id = 0;   ///< 1 to 256; used again when a participant is gone
  std::uint32_t pid = 0;  ///< in its own pid namespace
  char name[16] = {};     ///< what the kernel calls the process
  bool self = false;      ///< this process
  bool dead = false;      ///< it has ended, and what it left is not recovered yet
};

/// A named domain, seen from outside.
struct DomainInfo {
  char name[kMaxNameLength + 1] = {};
  std::uint32_t participants = 0;  ///< that live
  std::uint32_t dead = 0;          ///< that have ended and are not recovered yet
  std::uint64_t bytes = 0;         ///< of memory behind the control segment
};

/// What recover() found and did; of a process' first call also what opening the domain did.
struct RecoveryReport {
  std::uint32_t participants = 0;  ///< dead ones that were cleaned up now
  std::uint32_t threads = 0;       ///< their threads
  std::uint32_t unfinished = 0;    ///< threads that died inside a multi-step change, which was undone
  std::uint32_t regions = 0;       ///< half-added or half-removed regions that were finished or undone
  std::uint64_t freed_objects = 0;
  std::uint64_t freed_bytes = 0;
  std::uint64_t kept_objects = 0;  ///< now without an owner (OnDeath::keep)
  std::uint64_t kept_bytes = 0;
  std::uint64_t nanoseconds = 0;
  /// Now without an owner because a listener answered `reclaiming` with an error: freed by a later recover(), once it agrees.
  std::uint64_t withheld_objects = 0;
  std::uint64_t withheld_bytes = 0;
};

/// A piece of memory with consecutive IOVAs; iova is kBadIova where none is known.
struct IovaRun {
  std::uint64_t offset = 0;  ///< from the start of the region or of the range asked for
  std::uint64_t length = 0;  ///< bytes
  Iova iova = kBadIova;
};

struct RegionInfo {
  RegionId id{};
  std::uint32_t heap_id = 0;
  void* base = nullptr;
  std::uint64_t length = 0;
  std::uint64_t os_page_size = 0;
  std::uint64_t page_size = 0;  ///< the granule
  BackingKind kind = BackingKind::external;
  bool external = true;  ///< the caller's memory; false: a backing of ours
  bool cpu_accessible = true;
  bool draining = false;
  bool grown = false;  ///< added by a growth policy
  int numa_node = kAnyNode;
  int fd = -1;
  std::uint64_t free_bytes = 0;
  std::uint64_t largest_free = 0;
  std::uint64_t free_runs = 0;
  std::uint64_t iova_runs = 0;  ///< runs of consecutive IOVAs
  std::uint64_t iova_table_bytes = 0;
  void* adder_base = nullptr;  ///< where the process that added the region has it; base: where this one does
};

/// The file behind a region that this process has mapped.
struct RegionFile {
  int fd = -1;  ///< this process', open while the region is mapped here; not the caller's to close
  std::uint64_t offset = 0;  ///< of the region's first byte in the file
  std::uint64_t length = 0;
  BackingKind kind = BackingKind::external;
};

/// Who holds memory: one line of the report of a refused remove, destroy or an expired drain.
struct Holder {
  char tag[kMaxNameLength + 1] = {};  ///< "" for untagged, "memzone NAME" is reported as memzone = true
  bool memzone = false;
  bool mapping = false;   ///< not objects: the process maps the region (count and bytes are 0)
  std::uint32_t pid = 0;  ///< named domains: whose; 0: nobody's, or a private domain's
  std::uint64_t count = 0;
  std::uint64_t bytes = 0;
};
struct HolderReport {
  static constexpr std::size_t kMax = 64;
  Holder holders[kMax]{};
  std::size_t count = 0;  ///< entries filled
  std::size_t more = 0;   ///< further holders that did not fit
  std::uint64_t total_count = 0;
  std::uint64_t total_bytes = 0;
};

struct HeapStats {
  std::uint64_t total_bytes = 0;      ///< sum of the regions' lengths (in whole pages)
  std::uint64_t used_bytes = 0;       ///< bytes of the objects and spans that users hold (rounded sizes)
  std::uint64_t free_bytes = 0;       ///< bytes in free runs of pages
  std::uint64_t cached_bytes = 0;     ///< free objects in magazines
  std::uint64_t slab_free_bytes = 0;  ///< free objects inside slabs, and the slabs' unusable tails
  std::uint64_t largest_free = 0;     ///< the biggest run of free pages, in bytes
  std::uint64_t free_runs = 0;
  std::uint64_t used_count = 0;  ///< objects and spans held
  std::uint64_t cached_count = 0;
  std::uint64_t peak_bytes = 0;  ///< upper bound of the most bytes ever held ...
  std::uint64_t peak_error = 0;  ///< ... which is too high by at most this
  std::uint64_t slabs = 0;
  std::uint64_t regions = 0;
  std::uint64_t memzones = 0;
  std::uint64_t metadata_bytes = 0;  ///< bytes of the control segment that serve this heap
  double fragmentation = 0;          ///< 1 - largest_free / free_bytes; 0 when nothing is free
  // Invariant: total_bytes == used_bytes + free_bytes + cached_bytes + slab_free_bytes.
};

struct TagStats {
  char name[kMaxNameLength + 1] = {};  ///< "" for untagged
  Tag tag{};
  std::uint64_t live_bytes = 0;
  std::uint64_t live_count = 0;
  std::uint64_t peak_bytes = 0;  ///< upper bound ...
  std::uint64_t peak_error = 0;  ///< ... too high by at most this
};

struct MemzoneInfo {
  char name[kMaxNameLength + 1] = {};
  void* addr = nullptr;  ///< null where its region is not mapped here: from_region_ptr(ptr) says why
  std::uint64_t length = 0;
  Iova iova = kBadIova;  ///< of the first byte
  std::uint64_t os_page_size = 0;
  std::uint32_t heap_id = 0;
  int numa_node = kAnyNode;
  RegionPtr ptr{};
};

struct HeapInfo {
  char name[kMaxNameLength + 1] = {};
  std::uint32_t id = 0;
  Style style = Style::binned;
  std::uint64_t regions = 0;
  std::uint64_t user_data = 0;  ///< HeapOptions::user_data
};

/// What a pointer points into.
struct ObjectInfo {
  void* base = nullptr;    ///< start of the object
  std::uint64_t size = 0;  ///< usable bytes
  std::uint32_t heap_id = 0;
  RegionId region{};
  Tag tag{};
  bool memzone = false;
  bool held = false;  ///< false: free or cached
};

enum class RegionEventKind : std::uint8_t {
  added,
  removing,
  reclaiming,  ///< what a dead participant held in the region is about to be freed (OnDeath::reclaim)
};
struct RegionEvent {
  RegionEventKind kind;
  RegionInfo info;       ///< base is null where the region is not mapped in this process (reclaiming only)
  bool foreign = false;  ///< another process added the region, and it is mapped or attached here now
  // Of reclaiming: the dead participant; both are 0 when it is about several at once.
  std::uint32_t participant = 0;
  std::uint32_t pid = 0;
};
/// Hears of regions in the order of registration. For `added` a non-zero errno refuses the region; those that
/// had already heard `added` then hear `removing`. For `removing` a non-zero errno refuses the removal; those
/// that had already heard `removing` then hear `added` again. For `reclaiming`, which the listeners of the process that
/// cleans up hear, non-zero means that DMA may still be going on: what the dead one held there is then kept, without an
/// owner, and each later recover() or poll() of this process asks again; once all agree it is freed. (When this process is
/// gone, whoever recovers next asks its own listeners.) Inside, the region can be asked about and memory
/// allocated and freed; adding and removing regions, and what needs the directory (heaps, tags and memzones by
/// name, walks, verify), answers EDEADLK.
using RegionListener = int (*)(const RegionEvent& event, void* arg);

/// What a walk meets, in address order inside each region.
enum class WalkKind : std::uint8_t { region, free_span, held_span, slab, object, memzone };
struct WalkEntry {
  WalkKind kind;
  std::uint32_t heap_id = 0;
  RegionId region{};
  bool external = true;
  std::uint64_t offset = 0;  ///< in the region
  std::uint64_t length = 0;  ///< bytes
  void* addr = nullptr;
  Tag tag{};
  bool held = false;               ///< object, held_span
  bool cached = false;             ///< object in a magazine
  std::uint32_t object_size = 0;   ///< slab
  std::uint32_t object_count = 0;  ///< slab
  std::uint32_t held_count = 0;    ///< slab
  const char* name = nullptr;      ///< memzone: its name
};
struct WalkOptions {
  bool objects = false;  ///< also every object of every slab
};

/// One breach found by verify().
struct Breach {
  const char* what = nullptr;  ///< the invariant, a constant string
  std::uint32_t heap_id = 0;
  std::uint32_t region_slot = 0;
  std::uint64_t where = 0;  ///< page, slab or table index
  std::uint64_t expected = 0;
  std::uint64_t found = 0;
};

}  // namespace extmem
