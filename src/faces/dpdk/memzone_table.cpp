// The descriptions of memzones: an array that stays where it is, and a way to find one by its name.
//
// As in DPDK a new memzone gets the lowest place that is free: programs compare the addresses.
#include "faces/dpdk/memzone_table.hpp"

#include <bit>
#include <cstring>
#include <functional>
#include <mutex>
#include <queue>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/bits.hpp"
#include "faces/dpdk/memory_domain.hpp"
#include "faces/dpdk/memory_heaps.hpp"
#include "os/mapping.hpp"

namespace extmem::dpdk::memzones {
namespace {

constexpr const char* kEmptyName = "(the memzone of the DPDK interface whose name is empty)";

constexpr std::size_t kMost = std::size_t{1} << 24;        // more than a domain can have
constexpr std::size_t kCommitted = std::size_t{64} << 10;  // memory is taken in pieces of this size

/// Zones in address space that is reserved once, so that no address changes.
class Zones {
 public:
  /// Null where there is no memory.
  rte_memzone* place(std::size_t index) noexcept {
    if (base_ == nullptr) {
      const auto reserved = os::reserve(base::align_up(kMost * sizeof(rte_memzone), kCommitted));
      if (!reserved) return nullptr;
      base_ = *reserved;
    }
    const std::size_t wanted = base::align_up((index + 1) * sizeof(rte_memzone), kCommitted);
    if (wanted > committed_) {
      if (index >= kMost || !os::commit(base_ + committed_, wanted - committed_)) return nullptr;
      committed_ = wanted;
    }
    return reinterpret_cast<rte_memzone*>(base_) + index;
  }
  /// The index of what place() has given, or kMost.
  [[nodiscard]] std::size_t index_of(const rte_memzone* mz) const noexcept {
    const auto offset = reinterpret_cast<std::uintptr_t>(mz) - reinterpret_cast<std::uintptr_t>(base_);
    return base_ != nullptr && offset < committed_ && offset % sizeof(rte_memzone) == 0
               ? offset / sizeof(rte_memzone)
               : kMost;
  }

 private:
  std::byte* base_ = nullptr;
  std::size_t committed_ = 0;
};

/// Where zones may be found that were looked up before: pairs of places for each hash of a RegionPtr. What is found there
/// is believed only if the place says the same; what is not there is looked for by its name.
class PlacesByPtr {
 public:
  /// fn(place) for each place that may be the RegionPtr's, until it answers true; returns whether it did.
  template <typename Fn>
  bool find(RegionPtr ptr, Fn&& fn) const noexcept {
    if (places_.empty()) return false;
    const std::size_t at = hash(ptr);
    return fn(places_[at]) || fn(places_[at ^ 1]);
  }
  /// `places`: how many there are.
  void put(RegionPtr ptr, std::size_t place, std::size_t places) {
    if (places * kRoom > places_.size()) places_.assign(std::bit_ceil(places) * 2 * kRoom, 0);
    const std::size_t at = hash(ptr);
    places_[at ^ 1] = places_[at];
    places_[at] = static_cast<std::uint32_t>(place);
  }
  void clear() noexcept { places_.clear(); }

 private:
  static constexpr std::size_t kRoom = 2;
  [[nodiscard]] std::size_t hash(RegionPtr ptr) const noexcept {
    return (ptr.bits * 0x9e3779b97f4a7c15u >> 32) & (places_.size() - 1);
  }
  std::vector<std::uint32_t> places_;
};

struct Table {
  std::mutex lock;
  Zones zones;
  std::vector<RegionPtr> ptrs;  // of the zone in each place; null: free
  std::priority_queue<std::size_t, std::vector<std::size_t>, std::greater<>> free;
  std::unordered_map<std::string, std::size_t> by_name;
  PlacesByPtr by_ptr;
};
Table& table() noexcept {
  static Table* const all = new Table;  // never destroyed: descriptions are good until the program ends
  return *all;
}

/// The place of that name, a new one where it has none; kMost where there is no memory.
std::size_t place_of(Table& all, const char* name) {
  const auto at = all.by_name.find(name);
  if (at != all.by_name.end()) return at->second;
  std::size_t index = all.ptrs.size();
  if (!all.free.empty()) {
    index = all.free.top();
    all.free.pop();
  } else if (all.zones.place(index) != nullptr) {
    all.ptrs.emplace_back();
  } else {
    return kMost;
  }
  all.by_name[name] = index;
  return index;
}

const char* program_name(const MemzoneInfo& info) noexcept {
  return info.name[0] == kEmptyName[0] && std::strcmp(info.name, kEmptyName) == 0 ? "" : info.name;
}

}  // namespace

const char* domain_name(const char* name) noexcept { return *name == '\0' ? kEmptyName : name; }

const rte_memzone* described(const MemzoneInfo& info) noexcept {
  const char* const name = program_name(info);
  const rte_memzone* found = nullptr;
  Table& all = table();
  const std::lock_guard guard(all.lock);
  (void)all.by_ptr.find(info.ptr, [&](std::size_t place) {
    if (place >= all.ptrs.size() || all.ptrs[place] != info.ptr) return false;
    const rte_memzone* const mz = all.zones.place(place);
    if (mz->len == info.length && std::strcmp(mz->name, name) == 0) found = mz;
    return true;
  });
  return found;
}

bool is_program_zone(const MemzoneInfo& info) noexcept {
  return std::strlen(program_name(info)) < RTE_MEMZONE_NAMESIZE && role_of(info.heap_id).is_heap();
}

const rte_memzone* describe(const MemzoneInfo& info) noexcept {
  const HeapRole role = role_of(info.heap_id);
  const char* const name = program_name(info);
  Table& all = table();
  const std::lock_guard guard(all.lock);
  const std::size_t index = place_of(all, name);
  if (index == kMost) return nullptr;
  rte_memzone* const place = all.zones.place(index);
  all.by_ptr.put(info.ptr, index, all.ptrs.size());
  if (all.ptrs[index] == info.ptr && place->len == info.length) return place;
  // New; or another process has freed the zone and reserved the name anew: the name's description goes on.
  rte_memzone zone{};
  std::memcpy(zone.name, name, std::strlen(name));
  zone.iova = static_cast<rte_iova_t>(info.iova);
  zone.addr = info.addr;
  zone.len = info.length;
  zone.hugepage_sz = info.os_page_size;
  zone.socket_id = role.socket;
  *place = zone;
  all.ptrs[index] = info.ptr;
  return place;
}

bool find(const rte_memzone* mz, char (&name)[RTE_MEMZONE_NAMESIZE], RegionPtr& ptr) noexcept {
  Table& all = table();
  const std::lock_guard guard(all.lock);
  const std::size_t index = all.zones.index_of(mz);
  if (index >= all.ptrs.size() || !all.ptrs[index]) return false;
  std::memcpy(name, mz->name, sizeof name);
  ptr = all.ptrs[index];
  return true;
}

void forget(const char* name) noexcept {
  Table& all = table();
  const std::lock_guard guard(all.lock);
  const auto at = all.by_name.find(name);
  if (at == all.by_name.end()) return;
  const std::size_t index = at->second;
  *all.zones.place(index) = rte_memzone{};
  all.ptrs[index] = RegionPtr{};
  all.free.push(index);
  all.by_name.erase(at);
}

void clear() noexcept {
  Table& all = table();
  const std::lock_guard guard(all.lock);
  for (std::size_t i = 0; i < all.ptrs.size(); ++i) *all.zones.place(i) = rte_memzone{};
  all.by_name.clear();
  all.by_ptr.clear();
  all.ptrs.clear();
  all.free = {};
}

}  // namespace extmem::dpdk::memzones
