// The memory that this process knows of: one range for each region of the domain that is mapped or attached here.
//
// What it is: the table behind walks and lookups. The domain's listener (memory_events.cpp) keeps it in step. Each range
// makes its memseg list, 48 bytes a page, when somebody first needs that.
// Thread-safety: any thread. A range stays while somebody has a pointer to it, though its memory may be gone.
#pragma once

#include <rte_memory.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>

#include "extmem/domain.hpp"
#include "faces/dpdk/memory_heaps.hpp"

namespace extmem::dpdk {

class Range {
 public:
  Range(const RegionInfo& info, HeapRole role) noexcept;
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;
  ~Range();

  /// The memseg list, made at the first call; null where there is no memory for it, or it has more than INT_MAX pages.
  rte_memseg_list* list() noexcept;
  /// The list, if it has been made.
  [[nodiscard]] const rte_memseg_list* list_if_made() const noexcept;
  [[nodiscard]] rte_memseg* pages() const noexcept { return static_cast<rte_memseg*>(list_.memseg_arr.data); }
  [[nodiscard]] std::size_t page_count() const noexcept { return length / page_size; }
  [[nodiscard]] bool contains(const void* p) const noexcept {
    return reinterpret_cast<std::uintptr_t>(p) - base < length;
  }
  /// Whether the program has marked one of its pages as not to be given back. Pages that nobody has looked at are not.
  [[nodiscard]] bool kept() const noexcept;
  [[nodiscard]] bool external() const noexcept { return role.kind != HeapKind::internal; }

  const RegionId region;
  const std::uintptr_t base;
  const std::uint64_t length;
  const std::uint64_t page_size;
  const HeapRole role;
  const bool grown;  ///< a heap's growth added it: it goes when it is empty

 private:
  void fill_pages() noexcept;

  rte_memseg_list list_{};
  mutable std::mutex making_;
  bool made_ = false;  // guarded by making_
};

using RangePtr = std::shared_ptr<Range>;

namespace ranges {

void add(RangePtr range) noexcept;
void remove(std::uintptr_t base) noexcept;
void clear() noexcept;
/// What a lookup of an address finds.
struct Found {
  rte_memseg_list* list = nullptr;
  rte_memseg* page = nullptr;
};
/// The list and the page that the address lies in; null where it is in no range, or the list cannot be made. Takes no lock
/// once the list is there.
Found look_up(const void* p) noexcept;
/// The range that the address lies in, or null.
RangePtr at(const void* p) noexcept;
/// The first range that begins at `base` or above, or null: for walks that no change of the table disturbs.
RangePtr from(std::uintptr_t base) noexcept;
/// The range whose list has that page, or null. `ms` is not looked into.
RangePtr of(const rte_memseg* ms) noexcept;
/// Bytes of internal memory of a socket; of all sockets for SOCKET_ID_ANY.
std::uint64_t internal_bytes(int socket) noexcept;

/// Calls visit(range) for each range in order of address until it answers other than 0; returns that, or 0.
template <typename Visit>
int walk(Visit&& visit) {
  for (RangePtr range = from(0); range != nullptr; range = from(range->base + range->length)) {
    if (const int ended = visit(*range); ended != 0) return ended;
  }
  return 0;
}

}  // namespace ranges

/// Calls visit(address, iova, length) for pieces of [base, base + length), whole pages with consecutive IOVAs or without any.
/// Cost: grows with the runs of such pages, and with the logarithm of the length.
template <typename Visit>
void walk_iovas(Domain& domain, std::uintptr_t base, std::uint64_t length, std::uint64_t page_size,
                Visit&& visit) {
  IovaRun runs[64];
  std::uint64_t done = 0;
  // Each question is about as much as its answer has room for: what does not fit is counted all the same.
  constexpr std::size_t kRoom = std::size(runs);
  std::uint64_t pages = kRoom;
  while (done < length) {
    const std::uint64_t most = std::min(length - done, pages * page_size);
    const auto total = domain.iova_runs(reinterpret_cast<const void*>(base + done), most, runs);
    if (!total || *total == 0) return;
    const std::size_t count = std::min(*total, kRoom);
    if (*total <= kRoom / 2 && pages * page_size < length) pages *= 2;
    if (*total > kRoom) pages = std::max(kRoom, pages / 2);
    for (std::size_t i = 0; i < count; ++i) visit(base + done + runs[i].offset, runs[i].iova, runs[i].length);
    done += runs[count - 1].offset + runs[count - 1].length;
  }
}

}  // namespace extmem::dpdk
