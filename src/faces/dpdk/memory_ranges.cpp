// The table of ranges, and how a range makes its memseg list.
#include "faces/dpdk/memory_ranges.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <new>

#include "base/relaxed.hpp"
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

bool Range::kept() const noexcept {
  if (list_if_made() == nullptr) return false;
  const rte_memseg* const all = pages();
  return std::any_of(all, all + page_count(),
                     [](const rte_memseg& page) { return (page.flags & RTE_MEMSEG_FLAG_DO_NOT_FREE) != 0; });
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
  walk_iovas(domain(), base, length, page_size, [&](std::uintptr_t at, Iova iova, std::uint64_t bytes) {
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

/// What lookups need of the ranges, by base. A sequence lock: readers never write, and begin anew where a writer was at work.
/// Thread-safety: look_up() any thread; the rest under the table's lock.
class Places {
 public:
  using Found = ranges::Found;
  enum class Answer { none, unmade, found };

  Answer look_up(std::uintptr_t address, Found& found) const noexcept {
    for (;;) {
      const std::uint64_t sequence = sequence_.load(std::memory_order_acquire);  // pairs with end_write()
      const Answer answer = read(address, found);
      // Orders the reads above before the second look.
      std::atomic_thread_fence(std::memory_order_acquire);
      if ((sequence & 1) == 0 && sequence_.load(std::memory_order_relaxed) == sequence) return answer;
    }
  }

  void insert(Range& range) {
    Array* array = array_.load(std::memory_order_relaxed);
    const std::size_t count = array == nullptr ? 0 : array->count.get();
    const std::size_t at = array == nullptr ? 0 : lower_bound(array->used(), range.base);
    // The shorter part moves: none where each range lies above the last, or below, as the kernel places them.
    const bool front = at < count - at;
    if (array == nullptr || (!array->has_room(front) && 2 * count > array->size)) {
      // The old one stays, unchanged: somebody may be reading it. All of them together are no longer than the last.
      auto* const longer = new Array{std::max<std::size_t>(64, count * 4), array};
      longer->use((longer->size - count) / 2, count);
      if (array != nullptr) std::copy_n(array->used().first, count, longer->used().first);
      array = longer;
    }
    begin_write();
    if (!array->has_room(front)) array->move_to_middle();
    const std::size_t begin = array->begin() - (front ? 1 : 0);
    Place* const first = array->places + begin;
    if (front) {
      std::copy_n(first + 1, at, first);
    } else {
      std::copy_backward(first + at, first + count, first + count + 1);
    }
    first[at].base = range.base;
    first[at].length = range.length;
    first[at].page_shift = static_cast<std::uint32_t>(std::countr_zero(range.page_size));
    first[at].list = nullptr;
    array->use(begin, count + 1);
    array_.store(array, std::memory_order_release);  // pairs with the acquire in read()
    end_write();
  }
  /// Requires: such a range is there.
  void erase(std::uintptr_t base) noexcept {
    Array& array = *array_.load(std::memory_order_relaxed);
    const auto [first, count] = array.used();
    const std::size_t at = lower_bound(array.used(), base);
    const bool front = at < count / 2;
    begin_write();
    if (front) {
      std::copy_backward(first, first + at, first + at + 1);
    } else {
      std::copy(first + at + 1, first + count, first + at);
    }
    array.use(array.begin() + (front ? 1 : 0), count - 1);
    end_write();
  }
  /// Notes a list that is there now. Requires: such a range is there.
  void note_list(std::uintptr_t base, rte_memseg_list* list, rte_memseg* pages) noexcept {
    Array& array = *array_.load(std::memory_order_relaxed);
    Place& place = array.used().first[lower_bound(array.used(), base)];
    begin_write();
    place.pages = pages;
    place.list = list;
    end_write();
  }

 private:
  struct Place {
    base::Relaxed<std::uintptr_t> base;
    base::Relaxed<std::uint64_t> length;
    base::Relaxed<std::uint32_t> page_shift;
    base::Relaxed<rte_memseg_list*> list;  // null: not made yet
    base::Relaxed<rte_memseg*> pages;
  };
  struct Used {
    Place* first;
    std::size_t count;
  };
  struct Array {
    /// Room for twice as many: who reads may take the first place of one moment and the count of another. What is not used is
    /// not touched.
    Array(std::size_t n, const Array* before)
        : size(n), older(before), places(static_cast<Place*>(std::calloc(2 * n, sizeof(Place)))) {
      if (places == nullptr) throw std::bad_alloc();
    }
    const std::size_t size;
    const Array* const older;  // the one that this took the place of
    Place* const places;       // those in use are inside [0, size)
    base::Relaxed<Place*> first;
    base::Relaxed<std::size_t> count;

    [[nodiscard]] std::size_t begin() const noexcept { return static_cast<std::size_t>(first - places); }
    [[nodiscard]] Used used() const noexcept { return {first, count}; }
    void use(std::size_t begin, std::size_t n) noexcept {
      first = places + begin;
      count = n;
    }
    [[nodiscard]] bool has_room(bool front) const noexcept {
      return front ? begin() != 0 : begin() + count != size;
    }
    void move_to_middle() noexcept {
      const auto [from, n] = used();
      Place* const to = places + (size - n) / 2;
      if (to < from) {
        std::copy_n(from, n, to);
      } else {
        std::copy_backward(from, from + n, to + n);
      }
      use((size - n) / 2, n);
    }
  };

  static std::size_t lower_bound(Used used, std::uintptr_t base) noexcept {
    return static_cast<std::size_t>(
        std::lower_bound(used.first, used.first + used.count, base,
                         [](const Place& place, std::uintptr_t key) { return place.base < key; }) -
        used.first);
  }
  Answer read(std::uintptr_t address, Found& found) const noexcept {
    const Array* const array = array_.load(std::memory_order_acquire);
    if (array == nullptr) return Answer::none;
    auto [place, count] = array->used();
    if (count == 0) return Answer::none;
    // The last one whose base is not above the address, or the first one. Without a branch that depends on the address.
    for (; count > 1; count -= count / 2) place += place[count / 2].base <= address ? count / 2 : 0;
    const std::uint64_t offset = address - place->base;
    if (offset >= place->length) return Answer::none;
    found.list = place->list;
    if (found.list == nullptr) return Answer::unmade;
    found.page = place->pages + (offset >> place->page_shift);
    return Answer::found;
  }
  void begin_write() noexcept {
    sequence_.fetch_add(1, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_release);  // who sees a change sees the odd sequence
  }
  void end_write() noexcept { sequence_.fetch_add(1, std::memory_order_release); }

  std::atomic<std::uint64_t> sequence_{0};
  std::atomic<Array*> array_{nullptr};
};
constinit Places places;

struct Table {
  std::mutex lock;
  std::map<std::uintptr_t, RangePtr> by_base;
};
Table& table() noexcept {
  static Table* const all = new Table;  // never destroyed: a program may look memory up at its very end
  return *all;
}

/// Makes the list of the range that the address lies in. False: it is in none, or there is no memory for the list.
bool make_list(const void* p) noexcept {
  const RangePtr range = ranges::at(p);
  if (range == nullptr || range->list() == nullptr) return false;
  Table& all = table();
  const std::lock_guard guard(all.lock);
  const auto at = all.by_base.find(range->base);  // it may have gone meanwhile
  if (at != all.by_base.end() && at->second == range)
    places.note_list(range->base, range->list(), range->pages());
  return true;
}

}  // namespace

namespace ranges {

Found look_up(const void* p) noexcept {
  for (;;) {
    Found found;
    switch (places.look_up(reinterpret_cast<std::uintptr_t>(p), found)) {
      case Places::Answer::found:
        return found;
      case Places::Answer::none:
        return {};
      case Places::Answer::unmade:
        if (!make_list(p)) return {};
    }
  }
}

void add(RangePtr range) noexcept {
  Table& all = table();
  const std::lock_guard guard(all.lock);
  const std::uintptr_t base = range->base;
  if (all.by_base.count(base) != 0) places.erase(base);
  places.insert(*range);
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
  places.erase(base);
}

void clear() noexcept {
  Table& all = table();
  const std::lock_guard guard(all.lock);
  for (const auto& [base, range] : all.by_base) places.erase(base);
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
