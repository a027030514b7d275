// The model compared with everything that the domain says about itself.
#pragma once

#include "model/model.hpp"

namespace extmem::model {

inline void check_verify(Model& m) {
  std::string text;
  const auto breaches = m.domain.verify([&](const Breach& breach) {
    text += std::string(breach.what) + " (heap " + std::to_string(breach.heap_id) + ", region " +
            std::to_string(breach.region_slot) + ", at " + std::to_string(breach.where) + ": " +
            std::to_string(breach.expected) + " expected, " + std::to_string(breach.found) + " found)\n";
  });
  MODEL_CHECK(breaches.ok(), breaches.error().message());
  MODEL_CHECK(*breaches == 0 && text.empty(), text);
}

inline void check_stats(Model& m, std::size_t heap) {
  const auto got = m.heaps[heap].stats();
  MODEL_CHECK(got.ok(), got.error().message());
  const HeapStats& s = *got;
  std::uint64_t total = 0;
  std::uint64_t regions = 0;
  std::uint64_t zones = 0;
  for (const Region& region : m.regions) {
    if (region.heap != heap) continue;
    total += region.length;
    ++regions;
  }
  for (const auto& [name, at] : m.zones) zones += m.objects.at(at).heap == heap ? 1u : 0u;
  const Account& account = m.account[heap];
  MODEL_CHECK(s.total_bytes == s.used_bytes + s.free_bytes + s.cached_bytes + s.slab_free_bytes,
              "the equation of bytes");
  MODEL_CHECK(s.total_bytes == total, s.total_bytes << " bytes in all, not " << total);
  MODEL_CHECK(s.used_bytes == account.bytes, s.used_bytes << " bytes used, not " << account.bytes);
  MODEL_CHECK(s.used_count == account.count, s.used_count << " objects used, not " << account.count);
  MODEL_CHECK(s.regions == regions && s.memzones == zones, "regions or memzones");
  MODEL_CHECK(s.largest_free <= s.free_bytes && (s.free_bytes == 0) == (s.free_runs == 0), "free runs");
  MODEL_CHECK(s.peak_bytes >= account.peak, "the peak was " << account.peak << ", told " << s.peak_bytes);
  MODEL_CHECK(s.peak_bytes <= account.peak + m.peak_slack[heap] + s.peak_error,
              "the peak was " << account.peak << ", told " << s.peak_bytes << " within " << s.peak_error);
  if (heap == kExact) {
    std::uint64_t free_bytes = 0;
    std::uint64_t runs = 0;
    for (const Region& region : m.regions) {
      if (region.heap != heap) continue;
      for (const auto& [begin, end] : gaps(region, m.objects)) {
        free_bytes += end - begin;
        ++runs;
      }
    }
    MODEL_CHECK(s.free_bytes == free_bytes && s.free_runs == runs, "an exact heap is all spans and gaps");
  }
}

inline void check_tags(Model& m, std::size_t heap) {
  std::vector<TagStats> got(Model::kTags + 1);
  const auto n = m.heaps[heap].tag_stats(got);
  MODEL_CHECK(n.ok() && *n <= got.size(), "tag_stats");
  std::size_t live = 0;
  for (std::size_t i = 0; i < *n; ++i) {
    const auto known = m.tag_account[heap].find(got[i].tag.index);
    const Account account = known == m.tag_account[heap].end() ? Account{} : known->second;
    MODEL_CHECK(got[i].live_bytes == account.bytes && got[i].live_count == account.count,
                "tag '" << got[i].name << "': " << got[i].live_bytes << " bytes, not " << account.bytes);
    MODEL_CHECK(got[i].peak_bytes >= account.peak,
                "tag '" << got[i].name << "': peak " << got[i].peak_bytes << " below " << account.peak);
    live += account.count != 0 ? 1u : 0u;
  }
  for (const auto& [tag, account] : m.tag_account[heap]) live -= account.count != 0 ? 1u : 0u;
  MODEL_CHECK(live == 0, "a tag with live objects is missing");
}

inline void check_walk(Model& m, std::size_t heap) {
  std::size_t seen = 0;
  std::uint64_t covered = 0;
  std::string wrong;
  const auto walked = m.heaps[heap].walk(
      [&](const WalkEntry& entry) {
        if (entry.kind == WalkKind::slab || entry.kind == WalkKind::free_span ||
            (entry.object_size == 0 && entry.kind == WalkKind::held_span)) {
          covered += entry.length;
        }
        if (!entry.held) return true;
        ++seen;
        const auto it = m.objects.find(reinterpret_cast<std::uintptr_t>(entry.addr));
        if (it == m.objects.end() || it->second.heap != heap || it->second.usable != entry.length) {
          wrong = "an object that the model does not know";
        } else if (entry.kind == WalkKind::memzone
                       ? entry.name == nullptr || it->second.zone != entry.name
                       : !it->second.zone.empty() || it->second.tag != entry.tag) {
          wrong = "another tag or memzone";
        }
        return wrong.empty();
      },
      {.objects = true});
  MODEL_CHECK(walked.ok() && wrong.empty(), wrong);
  MODEL_CHECK(seen == m.account[heap].count, seen << " objects met, not " << m.account[heap].count);
}

inline void check_directory(Model& m) {
  std::size_t regions = 0;
  MODEL_CHECK(m.domain
                  .walk_regions([&](const RegionInfo& info) {
                    regions +=
                        m.region_at(reinterpret_cast<std::uintptr_t>(info.base)) != nullptr ? 1u : 100'000u;
                    return true;
                  })
                  .ok(),
              "walk_regions");
  MODEL_CHECK(regions == m.regions.size(), regions << " regions, not " << m.regions.size());
  std::size_t zones = 0;
  MODEL_CHECK(m.domain
                  .walk_memzones([&](const MemzoneInfo& info) {
                    zones += m.zones.contains(info.name) ? 1u : 100'000u;
                    return true;
                  })
                  .ok(),
              "walk_memzones");
  MODEL_CHECK(zones == m.zones.size() && m.domain.memzone_count() == zones,
              zones << " memzones, not " << m.zones.size());
  MODEL_CHECK(m.domain.find_heap("exact").value_or(Heap()) == m.heaps[kExact], "find_heap");
}

inline void check_all(Model& m) {
  m.learn_grown_regions();
  check_verify(m);
  for (std::size_t heap = 0; heap < kHeaps; ++heap) {
    check_stats(m, heap);
    check_tags(m, heap);
    check_walk(m, heap);
  }
  check_directory(m);
  for (const auto& [at, object] : m.objects) m.check_content(object);
}

}  // namespace extmem::model
