// The heap layer's records in the control segment: names, heaps, memzones, tags.
//
// Thread-safety: names, memzones and tags are guarded by Directory::lock; regions (their list, their adding and
// removing) by Directory::region_lock.
#pragma once

#include <cstdint>

#include "base/relaxed.hpp"
#include "extmem/types.hpp"
#include "shared/index_list.hpp"
#include "shared/lock.hpp"

namespace extmem::heap {

/// A name in a record; compared by bytes, ends in zeros.
struct Name {
  char text[kMaxNameLength + 1];
};

struct alignas(64) HeapRecord {
  Name name;
  base::Relaxed<std::uint32_t> hash_next;   // + 1; NameTable's
  base::Relaxed<std::uint32_t> used;        // 1 while the heap exists
  base::Relaxed<std::uint32_t> generation;  // changes with each use of the record
  base::Relaxed<std::int32_t> node;         // the NUMA node that the heap stands for, or kAnyNode
  base::Relaxed<std::uint32_t> memzones;
};

struct TagName {
  Name name;
  base::Relaxed<std::uint32_t> hash_next;
  base::Relaxed<std::uint32_t> used;
};

/// An interned {participant, tag} pair: what a held object's state names.
struct HolderRecord {
  std::uint32_t participant;
  std::uint32_t tag;
};

struct alignas(64) MemzoneRecord {
  Name name;
  base::Relaxed<std::uint32_t> hash_next;
  base::Relaxed<std::uint32_t> used;
  base::Relaxed<std::uint32_t> ptr_next;  // + 1, chain of the table by pointer
  base::Relaxed<std::uint32_t> heap;
  base::Relaxed<std::uint64_t> ptr;       // RegionPtr bits
  base::Relaxed<std::uint64_t> length;
};

struct Directory {
  shared::Lock lock;
  shared::Lock region_lock;
  shared::IndexList heaps;
  shared::IndexList tags;
  shared::IndexList memzones;
  shared::IndexList regions;
  base::Relaxed<std::uint32_t> memzone_count;
  base::Relaxed<std::uint32_t> slots_high;  // thread slots [1, slots_high] have been used
};

}  // namespace extmem::heap
