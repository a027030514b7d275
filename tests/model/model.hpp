// The model: a domain, and beside it the naive truth about its heaps, regions, objects, tags and memzones.
#pragma once

#include <array>
#include <string>

#include "model/model_state.hpp"

namespace extmem::model {

inline constexpr std::uint64_t kKiB = 1024;
inline constexpr std::uint64_t kMiB = 1024 * kKiB;

/// The heaps of the model, by index.
enum : std::size_t { kBinned, kExact, kDevice, kGrowing, kHeaps };

/// Live bytes and count with their highest value, as statistics must tell them.
struct Account {
  std::uint64_t bytes = 0;
  std::uint64_t count = 0;
  std::uint64_t peak = 0;
  void add(std::uint64_t n) {
    bytes += n;
    ++count;
    peak = std::max(peak, bytes);
  }
  void remove(std::uint64_t n) {
    bytes -= n;
    --count;
  }
};

struct Model {
  static constexpr std::size_t kTags = 100;
  static constexpr std::uint64_t kGrowthLimit = 12 * kMiB;

  explicit Model(std::uint64_t seed) : random(seed) {
    auto made = Domain::create();
    MODEL_CHECK(made.ok(), made.error().message());
    domain = std::move(*made);
    add_heap(kBinned, "binned", {});
    add_heap(kExact, "exact", {.style = Style::exact});
    add_heap(kDevice, "device", {});
    HeapOptions growing;
    growing.growth.backing.kind = BackingKind::anonymous;
    growing.growth.step = 2 * kMiB;
    growing.growth.limit = kGrowthLimit;
    add_heap(kGrowing, "growing", growing);
    for (std::size_t i = 0; i < kTags; ++i) {
      auto tag = domain.intern_tag("tag " + std::to_string(i));
      MODEL_CHECK(tag.ok(), tag.error().message());
      tags[i] = *tag;
    }
  }

  void add_heap(std::size_t index, const char* name, const HeapOptions& options) {
    auto heap = domain.create_heap(name, options);
    MODEL_CHECK(heap.ok(), heap.error().message());
    heaps[index] = *heap;
  }

  [[nodiscard]] bool has_cpu(std::size_t heap) const { return heap != kDevice; }

  Region* region_at(std::uintptr_t at) {
    for (Region& region : regions) {
      if (region.holds(at)) return &region;
    }
    return nullptr;
  }
  /// The held object that covers the address, or null.
  Object* object_around(std::uintptr_t at) {
    auto it = objects.upper_bound(at);
    if (it == objects.begin()) return nullptr;
    --it;
    return at < it->second.end() ? &it->second : nullptr;
  }
  Object* any_object() { return live.empty() ? nullptr : &objects.at(live[below(random, live.size())]); }

  /// The growing heap adds and removes regions by itself: read them anew.
  void learn_grown_regions() {
    std::erase_if(regions, [](const Region& region) { return region.grown; });
    const auto walked = domain.walk_regions([&](const RegionInfo& info) {
      if (info.grown) {
        regions.push_back(Region{info.id,
                                 kGrowing,
                                 reinterpret_cast<std::uintptr_t>(info.base),
                                 info.length,
                                 info.os_page_size,
                                 {},
                                 info.numa_node,
                                 false,
                                 true});
      }
      return true;
    });
    MODEL_CHECK(walked.ok(), walked.error().message());
    std::uint64_t grown = 0;
    for (const Region& region : regions) {
      if (region.grown) grown += region.length;
    }
    MODEL_CHECK(grown <= kGrowthLimit, grown << " bytes grown");
  }

  /// Enters a new object after checking that it is where it may be: in a region of its heap, apart from all others.
  Object& enter(std::size_t heap, void* p, std::uint64_t size, Tag tag, const std::string& zone = {}) {
    Object object;
    object.at = reinterpret_cast<std::uintptr_t>(p);
    object.size = size;
    object.heap = heap;
    object.tag = tag;
    object.zone = zone;
    object.seed = random();
    object.index = live.size();
    const auto usable = domain.usable_size(p);
    MODEL_CHECK(usable.ok(), usable.error().message());
    object.usable = *usable;
    MODEL_CHECK(object.usable >= size, object.usable << " bytes given, " << size << " wanted");
    if (region_at(object.at) == nullptr) learn_grown_regions();
    const Region* const region = region_at(object.at);
    MODEL_CHECK(region != nullptr, "the object is in no region");
    MODEL_CHECK(region->heap == heap, "the object is in a region of another heap");
    MODEL_CHECK(!region->draining, "the object is in a draining region");
    MODEL_CHECK(object.end() - region->base <= region->length, "the object leaves its region");
    const auto next = objects.lower_bound(object.at);
    MODEL_CHECK(next == objects.end() || next->first >= object.end(), "the object overlaps the next one");
    MODEL_CHECK(next == objects.begin() || std::prev(next)->second.end() <= object.at,
                "the object overlaps another");
    if (heap == kExact) {
      MODEL_CHECK(object.usable == round_up(size, 64),
                  "an exact heap gave " << object.usable << " bytes for " << size);
    }
    live.push_back(object.at);
    account[heap].add(object.usable);
    if (zone.empty()) tag_account[heap][tag.index].add(object.usable);
    Object& entered = objects[object.at] = std::move(object);
    if (has_cpu(heap)) fill(entered);
    return entered;
  }
  void forget(Object& object) {
    account[object.heap].remove(object.usable);
    if (object.zone.empty()) tag_account[object.heap][object.tag.index].remove(object.usable);
    live[object.index] = live.back();
    objects.at(live.back()).index = object.index;
    live.pop_back();
    objects.erase(object.at);
  }
  void check_content(const Object& object) {
    if (!has_cpu(object.heap)) return;
    MODEL_CHECK(intact(object.at, object.seed, object.size, object.size),
                "content of " << object.size << " bytes changed");
  }

  Random random;
  Domain domain;
  std::array<Heap, kHeaps> heaps{};
  std::array<Tag, kTags> tags{};
  std::vector<Region> regions;  // of each heap in the order of their adding
  Objects objects;
  std::vector<std::uintptr_t> live;
  std::map<std::string, std::uintptr_t> zones;
  std::array<Account, kHeaps> account{};
  std::array<std::map<std::uint16_t, Account>, kHeaps> tag_account{};
  std::array<std::uint64_t, kHeaps>
      peak_slack{};  // what calls that failed halfway may have held for a moment
  std::uint64_t refused = 0;
  std::uint64_t served = 0;
  Arena cpu_arena{64 * kMiB, PROT_READ | PROT_WRITE};
  Arena device_arena{64 * kMiB, PROT_NONE};
};

}  // namespace extmem::model
