// Options to C, reports from C: what CFace translates field by field.
#pragma once

#include <bit>
#include <cstring>
#include <vector>

#include "contract/face.hpp"
#include "extmem/extmem.h"

namespace extmem::test {

// ---- options to C ------------------------------------------------------------------------------------------

inline extmem_heap_t c(Heap heap) { return std::bit_cast<extmem_heap_t>(heap); }
inline extmem_region_id_t c(RegionId id) { return {id.slot, id.generation}; }

inline extmem_alloc_options_t c(const AllocOptions& from) {
  extmem_alloc_options_t to = EXTMEM_ALLOC_OPTIONS_INIT;
  to.align = from.align;
  to.nocross = from.nocross;
  to.nocross_in_addresses = from.nocross_in_addresses;
  to.in_place = from.in_place;
  to.os_page_size = from.os_page_size;
  to.min_offset = from.min_offset;
  to.max_offset = from.max_offset;
  to.region = c(from.region);
  to.numa_node = from.numa_node;
  to.tag = from.tag.index;
  to.dma_bits = from.dma_bits;
  to.placement = static_cast<std::uint8_t>(from.placement);
  to.iova_contiguous = from.iova_contiguous;
  to.zero = from.zero;
  return to;
}

inline extmem_backing_spec_t c(const BackingSpec& from) {
  extmem_backing_spec_t to = EXTMEM_BACKING_SPEC_INIT;
  to.length = from.length;
  to.os_page_size = from.os_page_size;
  to.path = from.path;
  to.kind = static_cast<std::uint32_t>(from.kind);
  to.fallback = static_cast<std::uint32_t>(from.fallback);
  to.iova_source = static_cast<std::uint32_t>(from.iova_source);
  to.numa_node = from.numa_node;
  to.create = from.create;
  to.unlink_on_remove = from.unlink_on_remove;
  to.thp = from.thp;
  to.prefault = from.prefault;
  to.lock = from.lock;
  to.allow_unstable_iova = from.allow_unstable_iova;
  if (from.progress) {  // lives as long as `from`, which outlives the call
    to.progress = [](std::uint64_t done, std::uint64_t total, void* arg) {
      return static_cast<const BackingSpec*>(arg)->progress(done, total);
    };
    to.progress_arg = const_cast<BackingSpec*>(&from);
  }
  return to;
}

// ---- reports from C ----------------------------------------------------------------------------------------

template <std::size_t N>
void copy_name(char (&to)[N], const char (&from)[N]) {
  std::memcpy(to, from, N);
}

inline RegionInfo cpp(const extmem_region_info_t& from) {
  RegionInfo to;
  to.id = {from.id.slot, from.id.generation};
  to.heap_id = from.heap_id;
  to.base = from.base;
  to.length = from.length;
  to.os_page_size = from.os_page_size;
  to.page_size = from.page_size;
  to.kind = static_cast<BackingKind>(from.kind);
  to.external = from.external;
  to.cpu_accessible = from.cpu_accessible;
  to.draining = from.draining;
  to.grown = from.grown;
  to.numa_node = from.numa_node;
  to.fd = from.fd;
  to.free_bytes = from.free_bytes;
  to.largest_free = from.largest_free;
  to.free_runs = from.free_runs;
  to.iova_runs = from.iova_runs;
  to.iova_table_bytes = from.iova_table_bytes;
  to.adder_base = from.adder_base;
  return to;
}

inline void cpp(const extmem_holder_report_t& from, HolderReport& to) {
  to = HolderReport{};
  to.count = from.count;
  to.more = from.more;
  to.total_count = from.total_count;
  to.total_bytes = from.total_bytes;
  for (std::size_t i = 0; i < from.count; ++i) {
    copy_name(to.holders[i].tag, from.holders[i].tag);
    to.holders[i].memzone = from.holders[i].memzone;
    to.holders[i].mapping = from.holders[i].mapping;
    to.holders[i].pid = from.holders[i].pid;
    to.holders[i].count = from.holders[i].count;
    to.holders[i].bytes = from.holders[i].bytes;
  }
}

inline HeapStats cpp(const extmem_heap_stats_t& from) {
  return {from.total_bytes,     from.used_bytes,   from.free_bytes,     from.cached_bytes,
          from.slab_free_bytes, from.largest_free, from.free_runs,      from.used_count,
          from.cached_count,    from.peak_bytes,   from.peak_error,     from.slabs,
          from.regions,         from.memzones,     from.metadata_bytes, from.fragmentation};
}

inline ObjectInfo cpp(const extmem_object_info_t& from) {
  return {from.base,     from.size,    from.heap_id, {from.region.slot, from.region.generation},
          Tag{from.tag}, from.memzone, from.held};
}

inline MemzoneInfo cpp(const extmem_memzone_info_t& from) {
  MemzoneInfo to;
  copy_name(to.name, from.name);
  to.addr = from.addr;
  to.length = from.length;
  to.iova = Iova{from.iova};
  to.os_page_size = from.os_page_size;
  to.heap_id = from.heap_id;
  to.numa_node = from.numa_node;
  to.ptr = RegionPtr{from.ptr};
  return to;
}

inline WalkEntry cpp(const extmem_walk_entry_t& from) {
  WalkEntry to{};
  to.kind = static_cast<WalkKind>(from.kind);
  to.heap_id = from.heap_id;
  to.region = {from.region.slot, from.region.generation};
  to.external = from.external;
  to.offset = from.offset;
  to.length = from.length;
  to.addr = from.addr;
  to.tag = Tag{from.tag};
  to.held = from.held;
  to.cached = from.cached;
  to.object_size = from.object_size;
  to.object_count = from.object_count;
  to.held_count = from.held_count;
  return to;
}

/// Appends what a C visitor is shown to the vector that `arg` is.
template <typename CType, typename CppType, CppType (*convert)(const CType&)>
int collect(const CType* value, void* arg) {
  static_cast<std::vector<CppType>*>(arg)->push_back(convert(*value));
  return 0;
}

inline HeapInfo heap_info(const extmem_heap_info_t& from) {
  HeapInfo to;
  copy_name(to.name, from.name);
  to.id = from.id;
  to.style = static_cast<Style>(from.style);
  to.regions = from.regions;
  to.user_data = from.user_data;
  return to;
}
inline IovaRun iova_run(const extmem_iova_run_t& from) { return {from.offset, from.length, Iova{from.iova}}; }
inline Breach breach(const extmem_breach_t& from) {
  return {from.what, from.heap_id, from.region_slot, from.where, from.expected, from.found};
}

inline DomainInfo domain_info(const extmem_domain_info_t& from) {
  DomainInfo to;
  copy_name(to.name, from.name);
  to.participants = from.participants;
  to.dead = from.dead;
  to.bytes = from.bytes;
  return to;
}
inline ParticipantInfo participant_info(const extmem_participant_info_t& from) {
  ParticipantInfo to{from.id, from.pid, {}, from.self, from.dead};
  copy_name(to.name, from.name);
  return to;
}

inline extmem_domain_options_t c(const DomainOptions& from) {
  extmem_domain_options_t to = EXTMEM_DOMAIN_OPTIONS_INIT;
  to.max_regions = from.max_regions;
  to.max_heaps = from.max_heaps;
  to.max_memzones = from.max_memzones;
  to.max_tags = from.max_tags;
  to.max_threads = from.max_threads;
  to.small_metadata = from.small_metadata;
  to.large_metadata = from.large_metadata;
  return to;
}

}  // namespace extmem::test
