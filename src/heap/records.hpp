// The heap layer's records in the control segment: names, heaps, memzones, tags.
//
// Thread-safety: names, memzones and tags are guarded by Directory::lock; regions (their list, their adding and
// removing) by Directory::region_lock.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "base/relaxed.hpp"
#include "extmem/types.hpp"
#include "shared/index_list.hpp"
#include "shared/lock.hpp"

namespace extmem::heap {

/// A name in a record; compared by bytes, ends in zeros.
struct Name {
  char text[kMaxNameLength + 1];
  /// Whatever the bytes are.
  [[nodiscard]] std::string_view view() const noexcept { return {text, ::strnlen(text, kMaxNameLength)}; }
};

/// A growth policy as every process can follow it.
struct SharedGrowth {
  base::Relaxed<std::uint64_t> step;  // 0: none
  base::Relaxed<std::uint64_t> limit;
  base::Relaxed<std::uint64_t> os_page_size;
  base::Relaxed<std::int32_t> numa_node;
  base::Relaxed<std::uint8_t> kind;
  base::Relaxed<std::uint8_t> iova_source;
  base::Relaxed<std::uint8_t> fallback;
  base::Relaxed<std::uint8_t> flags;  // kGrowth...
};
inline constexpr std::uint8_t kGrowthThp = 1, kGrowthPrefault = 2, kGrowthLock = 4, kGrowthUnstable = 8,
                              kGrowthGiveBack = 16, kGrowthKeepNone = 32;

struct alignas(64) HeapRecord {
  Name name;
  base::Relaxed<std::uint32_t> hash_next;   // + 1; NameTable's
  base::Relaxed<std::uint32_t> used;        // 1 while the heap exists
  base::Relaxed<std::uint32_t> generation;  // changes with each use of the record
  base::Relaxed<std::int32_t> node;         // the NUMA node that the heap stands for, or kAnyNode
  base::Relaxed<std::uint32_t> memzones;
  base::Relaxed<std::uint32_t> on_death;  // OnDeath
  base::Relaxed<std::uint64_t> padding;
  std::atomic<std::uint64_t> growths;  // how often it grew: tells a loser of the race that it may try again
  SharedGrowth growth;                 // region lock
  base::Relaxed<std::uint64_t> user_data;
};

struct TagName {
  Name name;
  base::Relaxed<std::uint32_t> hash_next;
  base::Relaxed<std::uint32_t> used;
  base::Relaxed<std::uint32_t> holders;  // + 1, HolderRecords of this tag
};

/// An interned {participant, tag} pair: what a held object's state names. Those below alloc::kFirstTagHolder are given
/// by their number and have no record in use.
struct HolderRecord {
  base::Relaxed<std::uint32_t> participant;  // kOrphanOwner: kept after its death
  base::Relaxed<std::uint32_t> tag;          // + 1; index of TagName
  base::Relaxed<std::uint32_t> next;         // + 1, in the chain of TagName::holders
  base::Relaxed<std::uint32_t> padding;
};
inline constexpr std::uint32_t kOrphanOwner = 0xffff;

/// How another process can map a region that one has added.
enum class Reach : std::uint32_t {
  none,    // not by itself: it may attach its own mapping
  path,    // by the path
  holder,  // through the descriptor of any process that maps it (/proc/PID/fd)
};
struct alignas(64) RegionShare {
  base::Relaxed<std::uint32_t> reach;
  base::Relaxed<std::uint32_t> kind;    // BackingKind
  base::Relaxed<std::uint64_t> device;  // of the file, checked by whoever opens it again
  base::Relaxed<std::uint64_t> inode;
  base::Relaxed<std::uint64_t> os_page_size;
  base::Relaxed<std::uint32_t>
      unlink;  // 1: the file, in the domain's folder, goes with the region; 2: the path does
  base::Relaxed<std::uint32_t> adder;  // the participant that added it
  char path[192];
  // withheld.cpp: what dead ones held here is kept, without an owner, while a bit is set: bit p - 1 is of participant p,
  // whose listeners have not agreed to freeing it. Changed under the region lock and the heap's: either is enough to read.
  base::Relaxed<std::uint32_t> withheld_by[8];
  base::Relaxed<std::uint32_t> withheld_of;   // the dead participant; 0: several
  base::Relaxed<std::uint32_t> withheld_pid;  // its pid, or 0
};

struct alignas(64) MemzoneRecord {
  Name name;
  base::Relaxed<std::uint32_t> hash_next;
  base::Relaxed<std::uint32_t> used;
  base::Relaxed<std::uint32_t> ptr_next;  // + 1, chain of the table by pointer
  base::Relaxed<std::uint32_t> heap;
  base::Relaxed<std::uint64_t> ptr;  // RegionPtr bits
  base::Relaxed<std::uint64_t> length;
};

struct Directory {
  shared::Lock lock;
  shared::Lock region_lock;
  shared::IndexList heaps;
  shared::IndexList tags;
  shared::IndexList memzones;
  shared::IndexList regions;
  shared::IndexList holders;
  // Counts what other processes must look at: regions and heaps that came or went. Release/acquire: who sees the count
  // sees what it counts.
  std::atomic<std::uint64_t> epoch;
  base::Relaxed<std::uint64_t> next_file;  // numbers the files of regions
  base::Relaxed<std::uint32_t> memzone_count;
  base::Relaxed<std::uint32_t> node_heaps;  // heaps [0, node_heaps) stand for NUMA nodes
  base::Relaxed<std::uint32_t> slots_high;  // thread slots [1, slots_high] have been used
  base::Relaxed<std::uint32_t> withheld;    // 1: some region may have withheld_by bits (region lock)
  base::Relaxed<std::uint64_t> next_place;  // where in the window the next backing goes: see window_address()
};

}  // namespace extmem::heap
