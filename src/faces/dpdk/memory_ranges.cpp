// The table of ranges, and how a range makes its memseg list.
#include "faces/dpdk/memory_ranges.hpp"

#include <cstdio>
#include <map>

#include "faces/dpdk/fbarray.hpp"
#include "faces/dpdk/memory_domain.hpp"

namespace extmem::dpdk {

Range::Range(const RegionInfo& info, HeapRole of_heap) noexcept
    : region(info.id),
      base(reinterpret_cast<std::uintptr_t>(info.base)),
      length(info.length),
      page_size(info.os_page_size),
      role(of_heap),
      grown(info.grown) {}

Range::~Range() { destroy_private_array(&list_.memseg_arr); }

rte_memseg_list* Range::list() noexcept {
  const std::lock_guard guard(making_);
  if (made_) return &list_;
  if (page_count() > INT_MAX) return nullptr;
  char name[RTE_FBARRAY_NAME_LEN];
  (void)std::snprintf(name, sizeof name, "memseg-%llu-%d-%u-%u",
                      static_cast<unsigned long long>(page_size >> 10), role.socket, region.slot,
                      region.generation);
  const auto count = static_cast<unsigned>(page_count());
  if (init_private_array(&list_.memseg_arr, name, count, sizeof(rte_memseg)) != 0) return nullptr;
  list_.base_va = reinterpret_cast<void*>(base);
  list_.page_sz = page_size;
  list_.socket_id = role.socket;
  list_.len = length;
  list_.external = external() ? 1 : 0;
  list_.heap = role.is_heap() ? 1 : 0;
  fill_pages();
  if (mark_elements(list_.memseg_arr, 0, count, true) != 0) {
    destroy_private_array(&list_.memseg_arr);
    return nullptr;
  }
  made_ = true;
  return &list_;
}

const rte_memseg_list* Range::list_if_made() const noexcept {
  const std::lock_guard guard(making_);
  return made_ ? &list_ : nullptr;
}

void Range::fill_pages() noexcept {
  rte_memseg page{};
  page.len = page_size;
  page.hugepage_sz = page_size;
  page.socket_id = role.socket;
  page.nchannel = options().channels;
  page.nrank = options().ranks;
  page.flags = role.kind == HeapKind::internal && !grown ? RTE_MEMSEG_FLAG_DO_NOT_FREE : 0;
  rte_memseg* const all = pages();
  walk_iovas(domain(), base, length, [&](std::uintptr_t at, Iova iova, std::uint64_t bytes) {
    std::uint64_t next = static_cast<std::uint64_t>(iova);
    const std::uint64_t step = iova == kBadIova ? 0 : page_size;
    for (std::uint64_t done = 0; done < bytes; done += page_size, next += step) {
      page.iova = next;
      page.addr_64 = at + done;
      all[(at + done - base) / page_size] = page;
    }
  });
}

namespace {

struct Table {
  std::mutex lock;
  std::map<std::uintptr_t, RangePtr> by_base;
};
Table& table() noexcept {
  static Table* const all = new Table;  // never destroyed: a program may look memory up at its very end
  return *all;
}

}  // namespace

namespace ranges {

void add(RangePtr range) noexcept {
  Table& all = table();
  const std::lock_guard guard(all.lock);
  const std::uintptr_t base = range->base;
  all.by_base[base] = std::move(range);
}

void remove(std::uintptr_t base) noexcept {
  Table& all = table();
  RangePtr last;  // destroyed without the lock
  const std::lock_guard guard(all.lock);
  const auto at = all.by_base.find(base);
  if (at == all.by_base.end()) return;
  last = std::move(at->second);
  all.by_base.erase(at);
}

void clear() noexcept {
  Table& all = table();
  const std::lock_guard guard(all.lock);
  all.by_base.clear();
}

RangePtr at(const void* p) noexcept {
  Table& all = table();
  const std::lock_guard guard(all.lock);
  auto after = all.by_base.upper_bound(reinterpret_cast<std::uintptr_t>(p));
  if (after == all.by_base.begin()) return nullptr;
  --after;
  return after->second->contains(p) ? after->second : nullptr;
}

RangePtr from(std::uintptr_t base) noexcept {
  Table& all = table();
  const std::lock_guard guard(all.lock);
  const auto next = all.by_base.lower_bound(base);
  return next == all.by_base.end() ? nullptr : next->second;
}

RangePtr of(const rte_memseg* ms) noexcept {
  Table& all = table();
  const std::lock_guard guard(all.lock);
  for (const auto& [base, range] : all.by_base) {
    if (range->list_if_made() == nullptr) continue;
    const auto offset =
        reinterpret_cast<std::uintptr_t>(ms) - reinterpret_cast<std::uintptr_t>(range->pages());
    if (offset < range->page_count() * sizeof(rte_memseg))
      return offset % sizeof(rte_memseg) == 0 ? range : nullptr;
  }
  return nullptr;
}

std::uint64_t internal_bytes(int socket) noexcept {
  std::uint64_t bytes = 0;
  (void)walk([&](const Range& range) {
    if (range.role.kind == HeapKind::internal && (socket == SOCKET_ID_ANY || range.role.socket == socket))
      bytes += range.length;
    return 0;
  });
  return bytes;
}

}  // namespace ranges
}  // namespace extmem::dpdk
