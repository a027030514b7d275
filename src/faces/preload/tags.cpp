// The calling library as a tag: for `--tags`.
//
// A sorted table of the loaded objects' address ranges; an address that is in none makes it anew. The C library lists
// the objects under a lock that it also holds while it allocates inside dlopen: so who cannot have our own lock at once
// goes without a tag instead of waiting.
#include <link.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "faces/preload/process_heap.hpp"

namespace extmem::preload {

namespace {

struct Range {
  std::uintptr_t begin = 0;
  std::uintptr_t end = 0;
  Tag tag{};
};

struct Table {
  static constexpr std::size_t kMax = 2048;
  Range ranges[kMax];
  std::size_t count = 0;
};

// Two tables: one is read while the other is made. A reader that is overtaken twice may read a torn range and give a
// wrong tag's name to one allocation, never a tag that does not exist.
Table tables[2];
std::atomic<const Table*> current{nullptr};  // release by the maker, acquire by readers: with what is in it
std::atomic_flag making = ATOMIC_FLAG_INIT;  // acquire/release: one maker at a time

const char* base_name(const char* path) noexcept {
  if (path == nullptr || *path == '\0') return "program";
  const char* slash = std::strrchr(path, '/');
  return slash != nullptr ? slash + 1 : path;
}

int add_object(dl_phdr_info* info, std::size_t, void* arg) noexcept {
  Table& table = *static_cast<Table*>(arg);
  char name[kMaxNameLength + 1] = {};
  std::strncpy(name, base_name(info->dlpi_name), kMaxNameLength);
  const auto tag = process.domain().intern_tag(name);
  for (int i = 0; i < info->dlpi_phnum && table.count < Table::kMax; ++i) {
    const auto& header = info->dlpi_phdr[i];
    if (header.p_type != PT_LOAD || (header.p_flags & PF_X) == 0) continue;
    const std::uintptr_t begin = info->dlpi_addr + header.p_vaddr;
    table.ranges[table.count++] = Range{begin, begin + header.p_memsz, tag ? *tag : Tag{}};
  }
  return 0;
}

const Range* find(const Table* table, std::uintptr_t address) noexcept {
  if (table == nullptr) return nullptr;
  const Range* end = table->ranges + table->count;
  const Range* after = std::upper_bound(table->ranges, end, address,
                                        [](std::uintptr_t a, const Range& r) { return a < r.begin; });
  if (after == table->ranges || address >= (after - 1)->end) return nullptr;
  return after - 1;
}

}  // namespace

Tag tag_of_caller(const void* caller) noexcept {
  const auto address = reinterpret_cast<std::uintptr_t>(caller);
  const Table* table = current.load(std::memory_order_acquire);
  if (const Range* range = find(table, address)) return range->tag;
  if (making.test_and_set(std::memory_order_acquire)) return Tag{};
  Table& fresh = table == &tables[0] ? tables[1] : tables[0];
  fresh.count = 0;
  ::dl_iterate_phdr(&add_object, &fresh);
  std::sort(fresh.ranges, fresh.ranges + fresh.count,
            [](const Range& a, const Range& b) { return a.begin < b.begin; });
  current.store(&fresh, std::memory_order_release);
  making.clear(std::memory_order_release);
  const Range* range = find(&fresh, address);
  return range != nullptr ? range->tag : Tag{};
}

}  // namespace extmem::preload
