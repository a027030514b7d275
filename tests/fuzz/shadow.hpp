// What the fuzzer knows of the domain by itself: naive, and independent of the library.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "extmem/extmem.h"

namespace extmem::fuzz {

/// Ends the program with the place, so that libFuzzer keeps the input.
[[noreturn]] inline void fail(const char* what, int line) {
  std::fprintf(stderr, "line %d: %s\nlast error: %d %s\n", line, what, extmem_last_error(),
               extmem_last_error_message());
  std::abort();
}
#define FUZZ_CHECK(condition)                                     \
  do {                                                            \
    if (!(condition)) ::extmem::fuzz::fail(#condition, __LINE__); \
  } while (false)

/// The input, read from front to back; zeros behind its end.
class Reader {
 public:
  Reader(const std::uint8_t* data, std::size_t size) : data_(data), end_(data + size) {}
  [[nodiscard]] bool more() const { return data_ != end_; }
  std::uint8_t byte() { return more() ? *data_++ : std::uint8_t{0}; }
  /// A number below `limit`, of one or two bytes.
  std::size_t below(std::size_t limit) {
    const std::size_t value = limit > 256 ? byte() * 256u + byte() : byte();
    return value % limit;
  }
  /// Sizes of all magnitudes: 1..64, up to 1 KiB, up to 64 KiB, or beyond any region.
  std::size_t size() {
    const std::uint8_t kind = byte();
    if (kind < 100) return 1 + below(64);
    if (kind < 200) return 1 + below(1024);
    if (kind < 250) return 1 + below(65536);
    return std::size_t{byte()} << (kind - 240 + 8);
  }
  void fill(void* to, std::size_t size) {
    for (std::size_t i = 0; i < size; ++i) static_cast<std::uint8_t*>(to)[i] = byte();
  }

 private:
  const std::uint8_t* data_;
  const std::uint8_t* end_;
};

struct Object {
  std::size_t size = 0;    ///< asked for
  std::size_t usable = 0;  ///< granted
  std::size_t heap = 0;    ///< index of the heap
  std::uint8_t pattern = 0;
  bool touchable = true;
  std::string memzone{};  ///< its name, if it is one
};

/// The live objects and memzones by address. No two overlap; that is the first thing checked.
class Shadow {
 public:
  using Objects = std::map<std::uintptr_t, Object>;

  void add(void* p, Object object) {
    const auto start = reinterpret_cast<std::uintptr_t>(p);
    const auto after = objects_.upper_bound(start);
    FUZZ_CHECK(after == objects_.end() || start + object.usable <= after->first);
    if (after != objects_.begin()) {
      const auto before = std::prev(after);
      FUZZ_CHECK(before->first + before->second.usable <= start);
    }
    if (object.touchable) std::memset(p, object.pattern, object.usable);
    std::erase_if(freed_, [&](std::uintptr_t q) { return q >= start && q < start + object.usable; });
    objects_.emplace(start, std::move(object));
  }
  /// Checks that nobody has written to the object, then forgets it.
  void remove(Objects::iterator place) {
    check_content(place->first, place->second, place->second.usable);
    if (place->second.memzone.empty()) freed_.push_back(place->first);
    objects_.erase(place);
    if (freed_.size() > 64) freed_.erase(freed_.begin());
  }
  static void check_content(std::uintptr_t start, const Object& object, std::size_t length) {
    if (!object.touchable) return;
    // The first byte, and each byte equal to the one before it: fast, where a loop would drown in instrumentation.
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(start);
    FUZZ_CHECK(length == 0 || (bytes[0] == object.pattern && std::memcmp(bytes, bytes + 1, length - 1) == 0));
  }
  /// The n-th live object (memzone or not), counted round.
  Objects::iterator pick(std::size_t n, bool memzone) {
    if (objects_.empty()) return objects_.end();
    auto place = std::next(objects_.begin(), static_cast<std::ptrdiff_t>(n % objects_.size()));
    for (std::size_t i = 0; i < objects_.size(); ++i) {
      if (place->second.memzone.empty() != memzone) return place;
      if (++place == objects_.end()) place = objects_.begin();
    }
    return objects_.end();
  }
  [[nodiscard]] bool any_in(std::uintptr_t start, std::size_t length) const {
    const auto place = objects_.lower_bound(start);
    return place != objects_.end() && place->first < start + length;
  }
  void forget_freed_in(std::uintptr_t start, std::size_t length) {
    std::erase_if(freed_, [&](std::uintptr_t q) { return q >= start && q < start + length; });
  }
  [[nodiscard]] std::size_t count(std::size_t heap) const {
    std::size_t n = 0;
    for (const auto& [start, object] : objects_) n += object.heap == heap ? 1 : 0;
    return n;
  }
  [[nodiscard]] std::uint64_t bytes(std::size_t heap) const {
    std::uint64_t n = 0;
    for (const auto& [start, object] : objects_) n += object.heap == heap ? object.usable : 0;
    return n;
  }
  Objects& objects() { return objects_; }
  [[nodiscard]] const std::vector<std::uintptr_t>& freed() const { return freed_; }

 private:
  Objects objects_;
  std::vector<std::uintptr_t> freed_;  ///< recently freed, and not given again since
};

/// Memory that the fuzzer lends: mapped once, its IOVA table made here, so that answers can be checked.
struct Ground {
  std::byte* base;
  std::size_t length;
  std::size_t os_page_size;
  bool touchable;
  std::vector<extmem_iova_t> iovas;  ///< one per OS page; empty: none is known
  // In this run of the fuzzer:
  bool added = false;
  bool draining = false;
  std::size_t heap = 0;
  extmem_region_id_t id{};

  [[nodiscard]] bool contains(const void* p, std::size_t size) const {
    const auto start = reinterpret_cast<std::uintptr_t>(p);
    const auto own = reinterpret_cast<std::uintptr_t>(base);
    return start >= own && start + size <= own + length;
  }
  [[nodiscard]] extmem_iova_t iova(std::size_t offset) const {
    if (iovas.empty()) return EXTMEM_BAD_IOVA;
    const extmem_iova_t page = iovas[offset / os_page_size];
    return page == EXTMEM_BAD_IOVA ? page : page + offset % os_page_size;
  }
  /// Whether [offset, offset + size) is one run of known IOVAs, or lies inside one OS page.
  [[nodiscard]] bool contiguous(std::size_t offset, std::size_t size) const {
    for (std::size_t page = offset / os_page_size; (page + 1) * os_page_size < offset + size; ++page) {
      if (iovas.empty() || iovas[page] == EXTMEM_BAD_IOVA || iovas[page + 1] != iovas[page] + os_page_size)
        return false;
    }
    return true;
  }
  [[nodiscard]] bool below(std::size_t offset, std::size_t size, unsigned bits) const {
    for (std::size_t page = offset / os_page_size; page * os_page_size < offset + size; ++page) {
      const extmem_iova_t first = iova(page * os_page_size);
      if (first == EXTMEM_BAD_IOVA || (first + os_page_size - 1) >> bits != 0) return false;
    }
    return true;
  }
};

}  // namespace extmem::fuzz
