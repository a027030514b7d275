// Random operations on regions, memzones and heaps, each checked against the model.
#pragma once

#include <cerrno>
#include <chrono>

#include "model/object_ops.hpp"

namespace extmem::model {

inline void op_add_region(Model& m) {
  Random& random = m.random;
  const std::size_t heap = below(random, kGrowing);  // the growing heap takes care of itself
  std::size_t already = 0;
  for (const Region& region : m.regions) already += region.heap == heap ? 1u : 0u;
  if (already >= 5) return;
  const Arena& arena = heap == kDevice ? m.device_arena : m.cpu_arena;
  Region region;
  region.heap = heap;
  region.os_page = one_in(random, 4) ? std::uint64_t{64} << below(random, 9) : std::uint64_t{4096};
  region.length = std::uint64_t{8} * kKiB << below(random, heap == kExact ? 6 : 10);
  if (one_in(random, 2)) region.length += below(random, 16) * 4096;
  region.length = round_up(region.length, region.os_page);
  const std::uint64_t step = one_in(random, 3) ? 64 * kKiB : std::max<std::uint64_t>(4096, region.os_page);
  region.base = round_up(arena.base() + below(random, arena.bytes() - region.length - step), step);
  region.node = static_cast<int>(below(random, 3)) - 1;
  RegionSpec spec;
  spec.base = reinterpret_cast<void*>(region.base);
  spec.length = region.length;
  spec.os_page_size = region.os_page;
  spec.numa_node = region.node;
  spec.cpu_accessible = heap != kDevice;
  std::vector<Iova> table;
  switch (below(random, 3)) {
    case 0:
      break;  // none known
    case 1:
      spec.iova_source = IovaSource::identity;
      for (std::uint64_t at = 0; at < region.length; at += region.os_page)
        region.iovas.push_back(region.base + at);
      break;
    default: {
      std::uint64_t next = 0;
      std::uint64_t left = 0;
      bool known = true;
      for (std::uint64_t at = 0; at < region.length; at += region.os_page, next += region.os_page, --left) {
        if (left == 0) {
          left = 1 + below(random, 60);
          next = below(random, std::uint64_t{1} << 22) * region.os_page;
          known = !one_in(random, 5);
        }
        region.iovas.push_back(known ? next : Region::kBad);
        table.push_back(Iova{region.iovas.back()});
      }
      spec.iovas = table;
    }
  }
  bool overlaps = false;
  for (const Region& other : m.regions) {
    overlaps |= region.base < other.base + other.length && other.base < region.base + region.length;
  }
  const auto added = m.domain.add_region(m.heaps[heap], spec);
  if (overlaps) {
    MODEL_CHECK(added.error().code() == EEXIST, "overlapping region");
    return;
  }
  MODEL_CHECK(added.ok(), added.error().message());
  region.id = *added;
  m.regions.push_back(std::move(region));
}

/// The report of a refusal names exactly what is held in the region.
inline void check_report(Model& m, const Region& region, const HolderReport& report) {
  std::map<std::string, Account> expected;
  std::uint64_t bytes = 0;
  std::uint64_t count = 0;
  for (auto it = m.objects.lower_bound(region.base); it != m.objects.end() && region.holds(it->first); ++it) {
    const Object& object = it->second;
    const char* const tag = m.domain.tag_name(object.tag).value_or("?");
    expected[object.zone.empty() ? tag : "memzones"].add(object.usable);
    bytes += object.usable;
    ++count;
  }
  MODEL_CHECK(report.total_bytes == bytes && report.total_count == count,
              report.total_bytes << " bytes reported, not " << bytes);
  for (std::size_t i = 0; i < report.count; ++i) {
    const Holder& holder = report.holders[i];
    const Account& known = expected[holder.memzone ? "memzones" : holder.tag];
    MODEL_CHECK(holder.bytes == known.bytes && holder.count == known.count, "holder '" << holder.tag << "'");
  }
  MODEL_CHECK(report.more != 0 || report.count == expected.size(),
              report.count << " holders, not " << expected.size());
}

inline bool region_is_used(Model& m, const Region& region) {
  const auto first = m.objects.lower_bound(region.base);
  return first != m.objects.end() && region.holds(first->first);
}

inline void op_remove_or_drain(Model& m) {
  std::vector<std::size_t> candidates;
  for (std::size_t i = 0; i < m.regions.size(); ++i) {
    if (!m.regions[i].grown) candidates.push_back(i);
  }
  if (candidates.empty()) return;
  const std::size_t which = candidates[below(m.random, candidates.size())];
  Region& region = m.regions[which];
  const bool used = region_is_used(m, region);
  HolderReport report;
  switch (below(m.random, 4)) {
    case 0: {
      const auto removed = m.domain.remove_region(region.id, &report);
      MODEL_CHECK(removed.ok() == !used, "remove: " << removed.error().message());
      if (!used) {
        MODEL_CHECK(m.domain.remove_region(region.id).error().code() == ENOENT, "a second remove");
        m.regions.erase(m.regions.begin() + static_cast<std::ptrdiff_t>(which));
        return;
      }
      MODEL_CHECK(removed.error().code() == EBUSY, removed.error().message());
      check_report(m, region, report);
      break;
    }
    case 1: {
      const auto drained = m.domain.drain_region(region.id, std::chrono::nanoseconds(0), &report);
      region.draining = true;
      MODEL_CHECK(drained.ok() == !used, "drain: " << drained.error().message());
      if (used) {
        MODEL_CHECK(drained.error().code() == ETIMEDOUT, drained.error().message());
        check_report(m, region, report);
      }
      break;
    }
    default:
      MODEL_CHECK(m.domain.undrain_region(region.id).ok(), "undrain");
      region.draining = false;
  }
  const auto info = m.domain.region_info(region.id);
  MODEL_CHECK(info.ok() && info->draining == region.draining && info->length == region.length, "region_info");
}

// ---- memzones ------------------------------------------------------------------------------------------------

inline void check_zone(Model& m, const MemzoneInfo& info, const Object& object) {
  const Region& region = *m.region_at(object.at);
  MODEL_CHECK(info.addr == reinterpret_cast<void*>(object.at) && info.length == object.size,
              "memzone " << object.zone);
  MODEL_CHECK(info.name == object.zone && info.heap_id == m.heaps[object.heap].id(),
              "memzone " << object.zone);
  MODEL_CHECK(static_cast<std::uint64_t>(info.iova) == region.iova_of(object.at - region.base),
              "memzone " << object.zone);
  MODEL_CHECK(info.os_page_size == region.os_page && info.numa_node == region.node,
              "memzone " << object.zone);
}

inline void op_reserve(Model& m) {
  const std::size_t heap = below(m.random, kHeaps);
  const std::string name = "zone " + std::to_string(below(m.random, 60));
  const bool biggest = one_in(m.random, 12);
  const std::uint64_t length = biggest ? 0 : random_size(m.random);
  AllocOptions o = random_options(m, heap, std::max<std::uint64_t>(length, 64));
  o.tag = {};
  std::uint64_t expected = 0;
  if (biggest && heap == kExact) {
    for (const Region& region : m.regions) {
      if (region.heap == kExact && region.admits(o))
        expected = std::max(expected, naive_biggest(region, m.objects, o));
    }
  }
  const bool known = m.zones.contains(name);
  const auto got = m.domain.reserve_memzone(m.heaps[heap], name, length, o);
  if (known) {
    MODEL_CHECK(got.error().code() == EEXIST, "a second memzone of one name");
    return;
  }
  if (!got.ok()) {
    if (!biggest) return check_refusal(m, heap, length, o, got.error());
    MODEL_CHECK(got.error().code() == ENOMEM, got.error().message());
    MODEL_CHECK(expected == 0, "no biggest piece, but there is one of " << expected << " bytes");
    if (heap == kGrowing) m.learn_grown_regions();
    return;
  }
  const Object& object = m.enter(heap, got->addr, got->length, {}, name);
  m.zones[name] = object.at;
  check_placed(m, object, o);
  check_zone(m, *got, object);
  if (biggest && heap == kExact) {
    MODEL_CHECK(object.size == expected,
                "the biggest piece has " << expected << " bytes, not " << object.size);
  } else if (!biggest) {
    MODEL_CHECK(object.size == length, "the memzone has another length");
  }
}

inline void op_zone(Model& m) {
  const std::string name = "zone " + std::to_string(below(m.random, 60));
  const auto zone = m.zones.find(name);
  const auto found = m.domain.find_memzone(name);
  MODEL_CHECK(found.ok() == (zone != m.zones.end()), "find_memzone of " << name);
  if (found.ok()) check_zone(m, *found, m.objects.at(zone->second));
  if (one_in(m.random, 3)) return;
  if (found.ok()) m.check_content(m.objects.at(zone->second));
  const auto freed = m.domain.free_memzone(name);
  MODEL_CHECK(freed.ok() == found.ok(), "free_memzone of " << name << ": " << freed.error().message());
  if (!freed.ok()) {
    MODEL_CHECK(freed.error().code() == ENOENT, freed.error().message());
    return;
  }
  Object& object = m.objects.at(zone->second);
  const bool growing = object.heap == kGrowing;
  m.forget(object);
  m.zones.erase(zone);
  if (growing) m.learn_grown_regions();
}

// ---- what must be refused at once ----------------------------------------------------------------------------

inline void op_bad_request(Model& m) {
  const std::size_t heap = below(m.random, kHeaps);
  const auto code = [&](std::uint64_t size, const AllocOptions& o) {
    return m.heaps[heap].allocate(size, o).error().code();
  };
  MODEL_CHECK(code(0, {}) == EINVAL, "size 0");
  MODEL_CHECK(code(64, {.align = 3 + 2 * below(m.random, 1000)}) == EINVAL, "alignment");
  MODEL_CHECK(code(64, {.align = 2 * kMaxAlign}) == EINVAL, "alignment");
  MODEL_CHECK(code(65, {.nocross = 64}) == EINVAL, "nocross below the size");
  MODEL_CHECK(code(64, {.nocross = 96}) == EINVAL, "nocross");
  MODEL_CHECK(code(64, {.min_offset = 4096, .max_offset = 4096 + 63}) == EINVAL, "window");
  MODEL_CHECK(code(64, {.tag = Tag{60'000}}) == EINVAL, "tag");
  MODEL_CHECK(code(~std::size_t{0}, {}) == EOVERFLOW, "size");
  MODEL_CHECK(m.heaps[heap].calloc(~std::size_t{0} / 2, 3).error().code() == EOVERFLOW, "calloc");
  const std::string name = std::string(64, 'x');
  MODEL_CHECK(m.domain.reserve_memzone(m.heaps[heap], name, 64).error().code() == ENAMETOOLONG, "name");
  MODEL_CHECK(m.domain.create_heap("binned").error().code() == EEXIST, "name");
}

/// A heap of its own: made, used, refused while in use, destroyed; stale afterwards.
inline void op_short_lived_heap(Model& m) {
  Arena memory(256 * kKiB, PROT_READ | PROT_WRITE);
  auto heap =
      m.domain.create_heap("short-lived", {.style = one_in(m.random, 2) ? Style::exact : Style::binned});
  MODEL_CHECK(heap.ok(), heap.error().message());
  RegionSpec spec;
  spec.base = reinterpret_cast<void*>(memory.base());
  spec.length = memory.bytes();
  const auto region = m.domain.add_region(*heap, spec);
  MODEL_CHECK(region.ok(), region.error().message());
  std::vector<void*> held(100);
  MODEL_CHECK(heap->allocate_batch(1 + below(m.random, 1500), held).ok(), "batch");
  HolderReport users;
  MODEL_CHECK(m.domain.destroy_heap(*heap, &users).error().code() == EBUSY && users.total_count == 100,
              "destroy");
  MODEL_CHECK(heap->deallocate_batch(held).ok(), "batch");
  MODEL_CHECK(m.domain.remove_region(*region).ok(), "remove");
  MODEL_CHECK(m.domain.destroy_heap(*heap).ok(), "destroy");
  MODEL_CHECK(heap->allocate(16).error().code() == ESTALE, "a destroyed heap");
  MODEL_CHECK(m.domain.find_heap("short-lived").error().code() == ENOENT, "a destroyed heap");
}

}  // namespace extmem::model
