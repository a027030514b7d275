// What the bridge knows in this process: leases, ranges that were given, pools.
//
// Thread-safety: `mutex` guards all of it. Order: a domain's region lock comes first, since listeners run under it. So
// nobody who holds the mutex calls a function of libextmem that takes a lock; those of addresses (IOVAs) do not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <mutex>
#include <string>
#include <vector>

#include "extmem/extmem.h"
#include "faces/dpdk_bridge/eal.hpp"

struct rte_mempool;

namespace extmem::faces::dpdk_bridge {

/// A region that DPDK knows.
struct LentRegion {
  extmem_region_info_t info{};  // as it was when it was lent
  Mapping memory;
  std::vector<std::string> devices;  // "bus/name" of those that it is mapped for
  bool attached =
      false;  // another process of this DPDK registered it, and maps it for devices; this one has attached
};

/// A range that is part of one of DPDK's heaps.
struct GivenRange {
  extmem_domain_t* domain = nullptr;
  std::byte* base = nullptr;
  std::uint64_t length = 0;
  std::string heap;
};

/// A DPDK heap that was made for ranges.
struct MadeHeap {
  std::string name;
  std::size_t ranges = 0;
};

/// A piece of a heap's memory that holds data buffers.
struct Chunk {
  void* base = nullptr;
  std::uint64_t length = 0;
};

struct Pool {
  extmem_domain_t* domain = nullptr;
  rte_mempool* pool = nullptr;
  std::string name;
  std::vector<Chunk> chunks;

  /// False: somebody has freed the mempool behind our back (rte_mempool_free), and its address may be another's by now.
  [[nodiscard]] bool is_there() const noexcept;
};

inline bool overlap(const void* a, std::uint64_t a_length, const void* b, std::uint64_t b_length) noexcept {
  const auto first = reinterpret_cast<std::uintptr_t>(a);
  const auto second = reinterpret_cast<std::uintptr_t>(b);
  return first < second + b_length && second < first + a_length;
}

struct State {
  std::mutex mutex;
  std::vector<extmem_dpdk_lease*> leases;
  std::vector<GivenRange> ranges;
  std::vector<MadeHeap> heaps;
  std::list<Pool> pools;  // the newest first
};
/// Never destroyed: a listener may run while the process exits.
State& state() noexcept;

}  // namespace extmem::faces::dpdk_bridge
