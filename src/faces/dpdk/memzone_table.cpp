// The descriptions of memzones: a pool of structs that stay, and two ways to find one.
#include "faces/dpdk/memzone_table.hpp"

#include <cstring>
#include <deque>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "faces/dpdk/memory_domain.hpp"
#include "faces/dpdk/memory_heaps.hpp"

namespace extmem::dpdk::memzones {
namespace {

constexpr const char* kEmptyName = "(the memzone of the DPDK interface whose name is empty)";

struct Place {
  rte_memzone zone;
  RegionPtr ptr;  // null: free
};

struct Table {
  std::mutex lock;
  std::deque<Place> places;  // their addresses stay
  std::vector<Place*> free;
  std::unordered_map<std::string, Place*> by_name;
  std::unordered_map<const rte_memzone*, Place*> by_address;
};
Table& table() noexcept {
  static Table* const all = new Table;  // never destroyed: descriptions are good until the program ends
  return *all;
}

Place* new_place(Table& all) {
  if (!all.free.empty()) {
    Place* const place = all.free.back();
    all.free.pop_back();
    return place;
  }
  Place& place = all.places.emplace_back();
  all.by_address[&place.zone] = &place;
  return &place;
}

const char* program_name(const MemzoneInfo& info) noexcept {
  return std::strcmp(info.name, kEmptyName) == 0 ? "" : info.name;
}

}  // namespace

const char* domain_name(const char* name) noexcept { return *name == '\0' ? kEmptyName : name; }

bool is_program_zone(const MemzoneInfo& info) noexcept {
  return std::strlen(program_name(info)) < RTE_MEMZONE_NAMESIZE && role_of(info.heap_id).is_heap();
}

const rte_memzone* describe(const MemzoneInfo& info) noexcept {
  const HeapRole role = role_of(info.heap_id);
  const char* const name = program_name(info);
  Table& all = table();
  const std::lock_guard guard(all.lock);
  Place*& place = all.by_name[name];
  if (place == nullptr) place = new_place(all);
  if (place->ptr == info.ptr && place->zone.len == info.length) return &place->zone;
  // New; or another process has freed the zone and reserved the name anew: the name's description goes on.
  rte_memzone zone{};
  std::memcpy(zone.name, name, std::strlen(name));
  zone.iova = static_cast<rte_iova_t>(info.iova);
  zone.addr = info.addr;
  zone.len = info.length;
  zone.hugepage_sz = info.os_page_size;
  zone.socket_id = role.socket;
  place->zone = zone;
  place->ptr = info.ptr;
  return &place->zone;
}

bool find(const rte_memzone* mz, char (&name)[RTE_MEMZONE_NAMESIZE], RegionPtr& ptr) noexcept {
  Table& all = table();
  const std::lock_guard guard(all.lock);
  const auto at = all.by_address.find(mz);
  if (at == all.by_address.end() || !at->second->ptr) return false;
  std::memcpy(name, at->second->zone.name, sizeof name);
  ptr = at->second->ptr;
  return true;
}

void forget(const char* name) noexcept {
  Table& all = table();
  const std::lock_guard guard(all.lock);
  const auto at = all.by_name.find(name);
  if (at == all.by_name.end()) return;
  *at->second = Place{};
  all.free.push_back(at->second);
  all.by_name.erase(at);
}

void clear() noexcept {
  Table& all = table();
  const std::lock_guard guard(all.lock);
  all.by_name.clear();
  all.by_address.clear();
  all.free.clear();
  all.places.clear();
}

}  // namespace extmem::dpdk::memzones
