// NameTable: records found by name in O(1), over a hash table of record numbers in the control segment.
//
// Requires of Record: Name name; Relaxed<u32> hash_next, used. Thread-safety: the lock of the table's owner.
// Invariant: a record is in the chain of its name's hash exactly when used != 0.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "base/error.hpp"
#include "heap/records.hpp"
#include "shared/control_segment.hpp"

namespace extmem::heap {

/// That a heap, a tag or a memzone may be called so.
inline Result<void> check_name(std::string_view name) noexcept {
  if (name.data() == nullptr || name.empty())
    return EXTMEM_ERROR(EINVAL, "the name is empty: give 1 to 63 bytes");
  if (name.size() > kMaxNameLength) return EXTMEM_ERROR(ENAMETOOLONG, "the name is longer than 63 bytes");
  if (name.find('\0') != std::string_view::npos) return EXTMEM_ERROR(EINVAL, "the name contains a zero byte");
  return {};
}

/// FNV-1a.
inline std::uint64_t hash_name(std::string_view name) noexcept {
  std::uint64_t hash = 14695981039346656037u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211u;
  return hash ^ hash >> 32;
}

template <typename Record>
class NameTable {
 public:
  static constexpr std::uint32_t kNone = shared::IndexList::kNone;

  void bind(Record* records, base::Relaxed<std::uint32_t>* heads, std::uint32_t head_count,
            shared::IndexList* list, std::uint32_t capacity) noexcept {
    records_ = records;
    heads_ = heads;
    mask_ = head_count - 1;
    list_ = list;
    capacity_ = capacity;
  }
  [[nodiscard]] std::uint32_t find(std::string_view name) const noexcept {
    return find(name, hash_name(name));
  }
  /// Requires here and below: `hash` is the name's.
  [[nodiscard]] std::uint32_t find(std::string_view name, std::uint64_t hash) const noexcept {
    // Bounded: of a damaged table this says that the name is not there.
    std::uint32_t left = capacity_;
    for (std::uint32_t link = heads_[hash & mask_]; link != 0 && link <= capacity_ && left != 0;
         link = records_[link - 1].hash_next, --left) {
      const Record& record = records_[link - 1];
      if (record.name.text[name.size()] == '\0' &&
          std::memcmp(record.name.text, name.data(), name.size()) == 0) {
        return link - 1;
      }
    }
    return kNone;
  }
  /// A record with this name, linked; kNone when the table (or the segment's tmpfs) is full: then roll back. Requires: the name is new and short enough.
  std::uint32_t insert(shared::Transaction& tx, std::string_view name, shared::Ground ground) noexcept {
    return insert(tx, name, hash_name(name), ground);
  }
  std::uint32_t insert(shared::Transaction& tx, std::string_view name, std::uint64_t hash,
                       shared::Ground ground) noexcept {
    const std::uint32_t index = list_->take(
        tx, [&](std::uint32_t i) -> auto& { return records_[i].hash_next; });
    if (index == kNone || !ground.ensure_object(records_[index])) return kNone;
    Record& record = records_[index];
    std::memset(record.name.text, 0, sizeof record.name.text);
    std::memcpy(record.name.text, name.data(), name.size());
    auto& head = heads_[hash & mask_];
    tx.set(record.hash_next, head);
    tx.set(record.used, 1);
    tx.set(head, index + 1);
    return index;
  }
  void erase(shared::Transaction& tx, std::uint32_t index) noexcept {
    erase(tx, index, hash_name(records_[index].name.view()));
  }
  void erase(shared::Transaction& tx, std::uint32_t index, std::uint64_t hash) noexcept {
    Record& record = records_[index];
    auto* link = &heads_[hash & mask_];
    std::uint32_t left = capacity_;
    for (; *link != index + 1 && *link != 0 && *link <= capacity_ && left != 0; --left)
      link = &records_[*link - 1].hash_next;
    if (*link == index + 1) tx.set(*link, record.hash_next);  // else the table is damaged
    tx.set(record.used, 0);
    list_->put(
        tx, index, [&](std::uint32_t i) -> auto& { return records_[i].hash_next; });
  }
  [[nodiscard]] Record& operator[](std::uint32_t index) const noexcept { return records_[index]; }
  /// Records that were ever used: [0, high()).
  [[nodiscard]] std::uint32_t high() const noexcept { return std::min(list_->high.get(), capacity_); }

 private:
  Record* records_ = nullptr;
  base::Relaxed<std::uint32_t>* heads_ = nullptr;
  std::uint32_t mask_ = 0;
  std::uint32_t capacity_ = 0;
  shared::IndexList* list_ = nullptr;
};

}  // namespace extmem::heap
