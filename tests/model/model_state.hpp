// What the model knows: regions, objects, and their contents. Plain data and naive searches; no cleverness.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <map>
#include <optional>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "extmem/extmem.hpp"

namespace extmem::model {

using Random = std::mt19937_64;

inline std::uint64_t below(Random& random, std::uint64_t n) {
  return std::uniform_int_distribution<std::uint64_t>(0, n - 1)(random);
}
inline bool one_in(Random& random, std::uint64_t n) { return below(random, n) == 0; }

/// The library and the model disagree.
struct Mismatch : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// NOLINTNEXTLINE: a macro, for the text of the condition
#define MODEL_CHECK(condition, text)                                                        \
  do {                                                                                      \
    if (!(condition)) {                                                                     \
      std::ostringstream model_check_out;                                                   \
      model_check_out << __FILE__ << ':' << __LINE__ << ": " << #condition << ": " << text; \
      throw ::extmem::model::Mismatch(model_check_out.str());                               \
    }                                                                                       \
  } while (false)

constexpr std::uint64_t round_up(std::uint64_t value, std::uint64_t to) { return (value + to - 1) / to * to; }

struct Object {
  std::uintptr_t at = 0;
  std::uint64_t size = 0;    // as asked for
  std::uint64_t usable = 0;  // as given
  std::size_t heap = 0;
  Tag tag{};
  std::uint64_t seed = 0;  // of its content
  std::string zone;        // the memzone's name; empty: an object
  std::size_t index = 0;   // in Model::live
  [[nodiscard]] std::uintptr_t end() const { return at + usable; }
};
using Objects = std::map<std::uintptr_t, Object>;

struct Region {
  RegionId id{};
  std::size_t heap = 0;
  std::uintptr_t base = 0;
  std::uint64_t length = 0;
  std::uint64_t os_page = 0;
  std::vector<std::uint64_t> iovas;  // by OS page; empty: none known
  int node = kAnyNode;
  bool draining = false;
  bool grown = false;
  [[nodiscard]] bool holds(std::uintptr_t at) const { return at - base < length; }

  static constexpr std::uint64_t kBad = ~std::uint64_t{0};
  [[nodiscard]] std::uint64_t iova_of_page(std::uint64_t page) const {
    return iovas.empty() ? kBad : iovas[page];
  }
  [[nodiscard]] std::uint64_t iova_of(std::uint64_t offset) const {
    const std::uint64_t first = iova_of_page(offset / os_page);
    return first == kBad ? kBad : first + offset % os_page;
  }
  /// One run of consecutive known IOVAs, or memory inside one OS page.
  [[nodiscard]] bool contiguous(std::uint64_t offset, std::uint64_t bytes) const {
    for (std::uint64_t page = offset / os_page + 1; page <= (offset + bytes - 1) / os_page; ++page) {
      if (iova_of_page(page) == kBad || iova_of_page(page - 1) == kBad) return false;
      if (iova_of_page(page) != iova_of_page(page - 1) + os_page) return false;
    }
    return true;
  }
  [[nodiscard]] bool below_mask(std::uint64_t offset, std::uint64_t bytes, unsigned bits) const {
    for (std::uint64_t page = offset / os_page; page <= (offset + bytes - 1) / os_page; ++page) {
      if (iova_of_page(page) == kBad) return false;
      const std::uint64_t last = std::min(offset + bytes, (page + 1) * os_page) - 1;
      if (iova_of(last) >> bits != 0) return false;
    }
    return true;
  }

  /// Whether the region may serve these options at all.
  [[nodiscard]] bool admits(const AllocOptions& o) const {
    return !draining && (o.numa_node == kAnyNode || o.numa_node == node) &&
           (o.os_page_size == 0 || o.os_page_size == os_page) && (!o.region || o.region == id);
  }
  /// Whether `bytes` at `offset` fulfil the options; says nothing about what is free.
  [[nodiscard]] bool legal(std::uint64_t offset, std::uint64_t bytes, const AllocOptions& o) const {
    if (offset + bytes > length) return false;
    if (o.align != 0 && (base + offset) % o.align != 0) return false;
    if (offset < o.min_offset || (o.max_offset != 0 && offset + bytes > o.max_offset)) return false;
    if (o.iova_contiguous && !contiguous(offset, bytes)) return false;
    if (o.dma_bits != 0 && !below_mask(offset, bytes, o.dma_bits)) return false;
    if (o.nocross != 0) {
      const bool in_iovas = o.iova_contiguous && iova_of(offset) != kBad;
      const std::uint64_t first = in_iovas ? iova_of(offset) : offset;
      if (first / o.nocross != (first + bytes - 1) / o.nocross) return false;
    }
    return true;
  }
};

/// The free pieces of a region: [begin, end) offsets between its objects.
inline std::vector<std::pair<std::uint64_t, std::uint64_t>> gaps(const Region& region,
                                                                 const Objects& objects) {
  std::vector<std::pair<std::uint64_t, std::uint64_t>> result;
  std::uint64_t at = 0;
  for (auto it = objects.lower_bound(region.base); it != objects.end() && region.holds(it->first); ++it) {
    if (it->first - region.base > at) result.emplace_back(at, it->first - region.base);
    at = it->second.end() - region.base;
  }
  if (at < region.length) result.emplace_back(at, region.length);
  return result;
}

/// Where an exact heap (granule 64) could place `bytes` in a region: the lowest offset, or the highest.
inline std::optional<std::uint64_t> naive_place(const Region& region, const Objects& objects,
                                                std::uint64_t bytes, const AllocOptions& o, bool high) {
  std::optional<std::uint64_t> best;
  const std::uint64_t step = std::max<std::uint64_t>(64, o.align);
  for (const auto& [begin, end] : gaps(region, objects)) {
    for (std::uint64_t at = round_up(region.base + begin, step) - region.base; at + bytes <= end;
         at += step) {
      if (!region.legal(at, bytes, o)) continue;
      if (!high) return at;
      best = at;
    }
  }
  return best;
}

/// The most whole granules that could be placed in a region of an exact heap.
inline std::uint64_t naive_biggest(const Region& region, const Objects& objects, const AllocOptions& o) {
  std::uint64_t best = 0;
  const std::uint64_t step = std::max<std::uint64_t>(64, o.align);
  for (const auto& [begin, end] : gaps(region, objects)) {
    for (std::uint64_t at = round_up(region.base + begin, step) - region.base; at < end; at += step) {
      std::uint64_t low = best / 64;
      std::uint64_t high = (end - at) / 64;
      if (high <= low || !region.legal(at, (low + 1) * 64, o)) continue;
      while (low < high) {  // longer is never easier
        const std::uint64_t middle = (low + high + 1) / 2;
        if (region.legal(at, middle * 64, o)) {
          low = middle;
        } else {
          high = middle - 1;
        }
      }
      best = low * 64;
    }
  }
  return best;
}

// ---- contents ------------------------------------------------------------------------------------------------

inline unsigned char content(std::uint64_t seed, std::uint64_t i) {
  return static_cast<unsigned char>((seed + i * 0x9e3779b97f4a7c15u) >> 56);
}
/// Calls fn(i) for the bytes that are looked at: all of a small object, a sample of a large one with both its ends.
template <typename Fn>
void for_each_sample(std::uint64_t size, Fn&& fn) {
  for (std::uint64_t i = 0; i < size;
       i += i < 128 || i + 128 >= size ? 1 : std::min<std::uint64_t>(509, size - 128 - i)) {
    fn(i);
  }
}
inline void fill(const Object& object) {
  auto* const bytes = reinterpret_cast<unsigned char*>(object.at);
  for_each_sample(object.size, [&](std::uint64_t i) { bytes[i] = content(object.seed, i); });
}
/// Whether the first `size` bytes of an object that was `whole` bytes long are as they were filled.
inline bool intact(std::uintptr_t at, std::uint64_t seed, std::uint64_t whole, std::uint64_t size) {
  const auto* const bytes = reinterpret_cast<const unsigned char*>(at);
  bool good = true;
  for_each_sample(whole, [&](std::uint64_t i) { good &= i >= size || bytes[i] == content(seed, i); });
  return good;
}

/// Address space for external regions.
class Arena {
 public:
  Arena(std::uint64_t bytes, int protection)
      : bytes_(bytes),
        base_(::mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {
    if (base_ == MAP_FAILED) throw Mismatch("mmap failed");
  }
  Arena(const Arena&) = delete;
  ~Arena() { ::munmap(base_, bytes_); }
  [[nodiscard]] std::uintptr_t base() const { return reinterpret_cast<std::uintptr_t>(base_); }
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

 private:
  std::uint64_t bytes_;
  void* base_;
};

}  // namespace extmem::model
