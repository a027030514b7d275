// Statistics, holders and verification. All of it under the heap's lock with the heap's threads paused: one instant.
#include <algorithm>
#include <cstring>

#include "alloc/chains.hpp"
#include "alloc/heap_guard.hpp"
#include "alloc/held.hpp"
#include "base/error.hpp"
#include "heap/domain_state.hpp"
#include "heap/paused_heap.hpp"
#include "region/iova_table.hpp"
#include "shared/participants.hpp"

namespace extmem::heap {

namespace {

constexpr std::uint64_t magazine_bytes() noexcept {
  std::uint64_t bytes = 0;
  for (const alloc::SizeClass& c : alloc::kSizeClasses)
    bytes += (std::uint64_t{c.capacity} + c.outbox) * c.size;
  return bytes;
}

}  // namespace

Result<HeapStats> DomainState::stats(HeapLocal& heap) noexcept {
  EXTMEM_TRY(slot, thread_slot());
  alloc::HeapCore& h = core_.heap(heap.id);
  const PausedHeap paused(core_, slot, heap.id);
  if (!paused.held()) return paused.refused();
  HeapStats s;
  std::uint64_t cached_bytes = 0;  // of an exact heap whose threads could not be asked to return them
  std::uint64_t cached_spans = 0;
  (void)alloc::for_each_region(core_, h, [&](std::uint32_t region, const alloc::RegionCore& r) {
    const unsigned shift = r.pages.page_shift;
    s.total_bytes += std::uint64_t{r.pages.pages} << shift;
    if (core_.alone() && h.exact != 0) {
      const alloc::Core::FreeFigures f = core_.free_figures(region);
      s.free_bytes += f.pages << shift;
      s.free_runs += f.runs;
      s.largest_free = std::max(s.largest_free, f.longest << shift);
      cached_bytes += f.cached_pages << shift;
      cached_spans += f.cached_spans;
    } else {
      s.free_bytes += r.pages.free_pages << shift;
      s.free_runs += r.pages.free_runs;
      s.largest_free = std::max(s.largest_free, std::uint64_t{core_.pages(region).largest_free()} << shift);
    }
    s.metadata_bytes += sizeof(alloc::RegionCore) + r.iova.data_bytes;
    ++s.regions;
  });
  std::uint64_t out_of_slabs = 0;
  std::uint64_t out_count = 0;
  for (std::uint32_t cls = 0; cls < alloc::kClasses; ++cls) {
    (void)alloc::for_each_slab(core_, h, cls, [&](std::uint32_t, const alloc::Slab& slab) {
      const std::uint64_t out = slab.objects - slab.all_free();
      const std::uint64_t pages = core_.slab_pages(slab);
      out_count += out;
      out_of_slabs += out * slab.size();
      s.slab_free_bytes += (pages << core_.region(slab.region()).pages.page_shift) - out * slab.size();
      s.metadata_bytes +=
          sizeof(alloc::Slab) +
          base::align_up(std::uint64_t{slab.objects} * 2, std::uint64_t{1} << alloc::kSmallPageShift) +
          pages * sizeof(alloc::PageDesc);
      ++s.slabs;
    });
  }
  std::int64_t not_told = 0;
  (void)alloc::for_each_cache(core_, h, [&](const alloc::ThreadCache& cache) {
    for (std::uint32_t cls = 0; h.exact == 0 && cls < alloc::kClasses; ++cls) {
      s.cached_count += cache.cached_count(cls);
      s.cached_bytes += std::uint64_t{cache.cached_count(cls)} * alloc::kSizeClasses[cls].size;
    }
    not_told += cache.out_delta;
    s.metadata_bytes += sizeof(alloc::ThreadCache);
  });
  s.used_bytes = h.span_pages_bytes + out_of_slabs - s.cached_bytes - cached_bytes;
  s.used_count = h.span_count + out_count - s.cached_count - cached_spans;
  s.metadata_bytes += h.span_count * 2 * sizeof(alloc::PageDesc);
  s.memzones = heaps_[heap.id].memzones;
  const std::int64_t now = h.out_bytes.load(std::memory_order_relaxed) +
                           static_cast<std::int64_t>(h.span_pages_bytes.get()) + not_told;
  // Exact heaps count at once: memory in use grows by what the page layer gives, and that with nothing cached.
  const std::uint64_t caches = h.exact != 0 ? 0 : h.most_caches.get();
  const std::uint64_t unseen = caches * static_cast<std::uint64_t>(2 * alloc::kSpillBytes);
  s.peak_bytes = static_cast<std::uint64_t>(std::max({h.out_peak.get(), now, std::int64_t{0}})) + unseen;
  // What is in use now was in use: the peak is not below it.
  s.peak_error =
      std::min(2 * unseen + caches * magazine_bytes(), s.peak_bytes - std::min(s.peak_bytes, s.used_bytes));
  if (s.free_bytes != 0) {
    s.fragmentation = 1.0 - static_cast<double>(s.largest_free) / static_cast<double>(s.free_bytes);
  }
  return s;
}

Result<std::size_t> DomainState::tag_stats(HeapLocal& heap, std::span<TagStats> out) noexcept {
  EXTMEM_TRY(slot, thread_slot());
  alloc::HeapCore& h = core_.heap(heap.id);
  const PausedHeap paused(core_, slot, heap.id);
  if (!paused.held()) return paused.refused();
  std::size_t n = 0;
  const auto put = [&](const TagStats& stats) {
    if (n < out.size()) out[n] = stats;
    ++n;
  };
  TagStats untagged;
  (void)alloc::for_each_region(core_, h, [&](std::uint32_t region, const alloc::RegionCore&) {
    alloc::for_each_held(core_, region, [&](std::uint16_t holder, std::uint64_t bytes, std::uint64_t count) {
      if (holder >= alloc::kFirstTagHolder || holder == alloc::kHolderMemzone) return;
      untagged.live_bytes += bytes;
      untagged.live_count += count;
    });
  });
  const std::uint64_t unseen = std::uint64_t{h.most_caches} * static_cast<std::uint64_t>(alloc::kSpillBytes);
  // Untagged allocations keep no counter of their own: their peak is bounded by the heap's.
  untagged.peak_bytes = static_cast<std::uint64_t>(std::max(h.out_peak.get(), std::int64_t{0})) + unseen;
  untagged.peak_error = untagged.peak_bytes - untagged.live_bytes;
  put(untagged);
  (void)alloc::for_each_tag(core_, h, [&](std::uint32_t link, const alloc::TagRecord& record) {
    std::int64_t bytes = record.bytes;
    std::int64_t count = record.count;
    std::int64_t most = 0;
    (void)alloc::for_each_cache(core_, h, [&](const alloc::ThreadCache& cache) {
      const alloc::TagDelta& delta = cache.deltas[record.holder % alloc::kTagDeltas];
      if (delta.record != link) return;
      bytes += delta.bytes;
      count += delta.count;
      most += delta.most;
    });
    // Between processes a tag has a record for each of them: the first one of a tag sums them all up.
    const auto holder_now = static_cast<std::uint16_t>(record.holder.get());
    if ((shared_ || looking_) && n > 1) {
      const Tag tag_now = holder_tag(holder_now);
      bool summed = false;
      for (std::size_t i = 1; i < std::min(n, out.size()) && !summed; ++i) {
        if (out[i].tag != tag_now) continue;
        out[i].live_bytes += static_cast<std::uint64_t>(std::max(bytes, std::int64_t{0}));
        out[i].live_count += static_cast<std::uint64_t>(std::max(count, std::int64_t{0}));
        out[i].peak_bytes +=
            static_cast<std::uint64_t>(std::max({record.peak.get(), record.bytes + most, std::int64_t{0}}));
        summed = true;
      }
      if (summed) return;
    }
    TagStats stats;
    const auto holder = static_cast<std::uint16_t>(record.holder.get());
    std::strncpy(stats.name, holder_name(holder), kMaxNameLength);
    stats.tag = holder_tag(holder);
    stats.live_bytes = static_cast<std::uint64_t>(std::max(bytes, std::int64_t{0}));
    stats.live_count = static_cast<std::uint64_t>(std::max(count, std::int64_t{0}));
    // Each other thread may have had up to kSpillBytes untold when one told its own.
    const std::uint64_t others =
        h.most_caches > 1 ? (h.most_caches - 1) * static_cast<std::uint64_t>(2 * alloc::kSpillBytes) : 0;
    stats.peak_bytes =
        static_cast<std::uint64_t>(std::max({record.peak.get(), record.bytes + most, std::int64_t{0}})) +
        others;
    stats.peak_error = others;
    put(stats);
  });
  return n;
}

Result<void> DomainState::holders(HeapLocal& heap, HolderReport& report) noexcept {
  EXTMEM_TRY(slot, thread_slot());
  const PausedHeap paused(core_, slot, heap.id);
  if (!paused.held()) return paused.refused();
  report = HolderReport{};
  LeftOut left_out;
  (void)alloc::for_each_region(core_, core_.heap(heap.id),
                               [&](std::uint32_t region, const alloc::RegionCore&) {
                                 report_holders_locked(region, report, left_out);
                               });
  return {};
}

void DomainState::report_holders_locked(std::uint32_t region, HolderReport& report,
                                        LeftOut& left_out) noexcept {
  alloc::for_each_held(core_, region, [&](std::uint16_t holder, std::uint64_t bytes, std::uint64_t count) {
    report.total_bytes += bytes;
    report.total_count += count;
    const bool memzone = holder == alloc::kHolderMemzone;
    const char* name = holder_name(holder);
    const std::uint32_t owner = holder_participant(holder);
    const std::uint32_t pid = (shared_ || looking_) && owner != 0 && owner <= shared::kMaxParticipants
                                  ? participants_.record(owner).pid.get()
                                  : 0;
    for (std::size_t i = 0; i < report.count; ++i) {
      Holder& known = report.holders[i];
      if (known.memzone != memzone || known.mapping || known.pid != pid || std::strcmp(known.tag, name) != 0)
        continue;
      known.bytes += bytes;
      known.count += count;
      return;
    }
    if (report.count == HolderReport::kMax) {
      if (left_out.add(holder)) ++report.more;
      return;
    }
    Holder& fresh = report.holders[report.count++];
    fresh = Holder{};
    std::strncpy(fresh.tag, name, kMaxNameLength);
    fresh.memzone = memzone;
    fresh.pid = pid;
    fresh.bytes = bytes;
    fresh.count = count;
  });
}

Result<std::size_t> DomainState::verify_heap(HeapLocal& heap,
                                             FunctionRef<void(const Breach&)> report) noexcept {
  EXTMEM_TRY(slot, thread_slot());
  const PausedHeap paused(core_, slot, heap.id, PausedHeap::Spans::as_they_are);
  if (!paused.held()) return paused.refused();
  // Once the directory is quiet that stays so, for what it would do to this heap needs the lock that we hold.
  const auto quiet_names = [&] {
    const std::uint32_t holder = directory_->lock.holder();
    std::atomic_thread_fence(std::memory_order_acquire);
    return holder == 0 || holder == slot;
  };
  return verify_heap_paused(heap.id, report, {}, quiet_names);
}

std::size_t DomainState::verify_heap_paused(std::uint32_t heap, FunctionRef<void(const Breach&)> report,
                                            alloc::Core::Checks checks,
                                            FunctionRef<bool()> quiet_names) noexcept {
  alloc::HeapCore& h = core_.heap(heap);
  std::size_t breaches = 0;
  std::uint32_t region_now = 0;
  const auto tell = [&](const char* what, std::uint64_t where, std::uint64_t expected, std::uint64_t found) {
    if (report) report(Breach{what, heap, region_now, where, expected, found});
  };
  breaches += core_.check_heap_locked(heap, tell, checks);
  if (breaches != 0) return breaches;  // the walks below trust the structure

  (void)alloc::for_each_tag(core_, h, [](std::uint32_t, alloc::TagRecord& record) {
    record.scanned_bytes = 0;
    record.scanned_count = 0;
  });
  std::uint64_t memzone_memory = 0;
  (void)alloc::for_each_region(core_, h, [&](std::uint32_t region, const alloc::RegionCore& r) {
    region_now = region;
    if (const char* broken = region::check(r.iova, core_.segment(), segment_.bytes(), r.length);
        broken != nullptr) {
      ++breaches;
      tell(broken, region, 0, 0);
    }
    alloc::for_each_held(core_, region, [&](std::uint16_t holder, std::uint64_t bytes, std::uint64_t count) {
      if (holder == alloc::kHolderMemzone) memzone_memory += count;
      if ((shared_ || looking_) && holder_participant(holder) == kOrphanOwner && !withheld(region) &&
          heaps_[heap].on_death != static_cast<std::uint32_t>(OnDeath::keep)) {
        ++breaches;
        tell("what nobody holds in a heap that reclaims is withheld", holder, 0, count);
      }
      if (holder < alloc::kFirstTagHolder) return;
      alloc::TagRecord* record = core_.find_tag_locked(h, holder);
      if (record == nullptr) {
        if (!checks.derived) return;
        ++breaches;
        tell("a held object's tag has a record", holder, 1, 0);
        return;
      }
      record->scanned_bytes += static_cast<std::int64_t>(bytes);
      record->scanned_count += static_cast<std::int64_t>(count);
    });
  });
  region_now = 0;
  // A memzone's memory is taken just before its record is made: only a quiet directory lets us compare. So look again
  // after that.
  if (memzone_memory != heaps_[heap].memzones && quiet_names() && memzone_memory != heaps_[heap].memzones) {
    ++breaches;
    tell("every memzone has its memory", heap, heaps_[heap].memzones, memzone_memory);
  }
  if (!checks.derived) return breaches;
  const bool whole = alloc::for_each_tag(core_, h, [&](std::uint32_t link, const alloc::TagRecord& record) {
    std::int64_t bytes = record.bytes;
    std::int64_t count = record.count;
    (void)alloc::for_each_cache(core_, h, [&](const alloc::ThreadCache& cache) {
      const alloc::TagDelta& delta = cache.deltas[record.holder % alloc::kTagDeltas];
      if (delta.record != link) return;
      bytes += delta.bytes;
      count += delta.count;
    });
    if (bytes != record.scanned_bytes || count != record.scanned_count) {
      ++breaches;
      tell("a tag's live bytes are what its objects add up to", record.holder,
           static_cast<std::uint64_t>(record.scanned_bytes), static_cast<std::uint64_t>(bytes));
    }
  });
  if (!whole) {
    ++breaches;
    tell("the heap's chains of tags end", heap, 0, 0);
  }
  return breaches;
}

Result<std::size_t> DomainState::verify(FunctionRef<void(const Breach&)> report) noexcept {
  EXTMEM_TRY(slot, thread_slot());
  std::size_t breaches = 0;
  for (std::uint32_t id = 0; id < heaps_.high(); ++id) {
    if (heaps_[id].used == 0) continue;
    if (shared_) refresh_heap(id);
    EXTMEM_TRY(found, verify_heap(heap_locals_[id], report));
    breaches += found;
  }
  {
    const OrderedGuard guard(core_, slot, directory_->lock, Rank::directory);
    if (!guard.held())
      return guard.refused(EXTMEM_ERROR(EDEADLK, "verify cannot run inside a walk over the directory"));
    breaches += verify_names_locked(report);
    for (std::uint32_t id = 0; id < heaps_.high(); ++id) {
      if (heaps_[id].used != 0) breaches += verify_zones_locked(id, report);
    }
  }
  {
    const OrderedGuard guard(core_, slot, directory_->region_lock, Rank::regions);
    if (!guard.held())
      return guard.refused(
          EXTMEM_ERROR(EDEADLK, "verify cannot run inside a listener or a walk over regions"));
    breaches += verify_regions_locked(report);
    breaches += verify_space_locked(true, report);  // the regions' page tables: the same lock guards them
  }
  const shared::LockGuard guard(core_.roots().small_lock, slot, core_.peers());
  if (!guard.held())
    return guard.refused(EXTMEM_ERROR(EDEADLK, "verify cannot run inside a change of the metadata"));
  return breaches + verify_space_locked(false, report);
}

std::size_t DomainState::verify_names_locked(FunctionRef<void(const Breach&)> report) noexcept {
  std::size_t breaches = 0;
  const auto tell = [&](const char* what, std::uint64_t where, std::uint64_t expected, std::uint64_t found) {
    ++breaches;
    if (report) report(Breach{what, 0, 0, where, expected, found});
  };
  for (std::uint32_t id = 0; id < heaps_.high(); ++id) {
    if (heaps_[id].used == 0) continue;
    if (const std::uint32_t found = heaps_.find(heaps_[id].name.view()); found != id)
      tell("a heap is found by its name", id, id, found);
  }
  for (std::uint32_t i = 0; i < tags_.high(); ++i) {
    if (tags_[i].used == 0) continue;
    if (const std::uint32_t found = tags_.find(tags_[i].name.view()); found != i)
      tell("a tag is found by its name", i, i, found);
  }
  std::uint32_t used = 0;
  for (std::uint32_t i = 0; i < memzones_.high(); ++i) {
    const MemzoneRecord& record = memzones_[i];
    if (record.used == 0) continue;
    ++used;
    if (const std::uint32_t found = memzones_.find(record.name.view()); found != i)
      tell("a memzone is found by its name", i, i, found);
  }
  if (used != directory_->memzone_count)
    tell("memzone_count counts the memzones", 0, used, directory_->memzone_count);
  return breaches;
}

std::size_t DomainState::verify_zones_locked(std::uint32_t heap,
                                             FunctionRef<void(const Breach&)> report) noexcept {
  std::size_t breaches = 0;
  for (std::uint32_t i = 0; i < memzones_.high(); ++i) {
    const MemzoneRecord& record = memzones_[i];
    if (record.used == 0 || record.heap != heap) continue;
    // By its place: the region need not be mapped here.
    const RegionPtr ptr{record.ptr};
    std::uint16_t holder = 0;
    ObjectInfo object;
    const std::uint32_t region = ptr.slot();
    if (region != 0 && region <= core_.geometry().max_regions && core_.sound(core_.region(region)) &&
        core_.region(region).heap == heap) {
      object = object_in(region, ptr.offset(), 0, &holder);
    }
    if (object.held && holder == alloc::kHolderMemzone && object.size >= record.length) continue;
    ++breaches;
    if (report)
      report(Breach{"a memzone's memory is held by it", heap, region, i, alloc::kHolderMemzone, holder});
  }
  return breaches;
}

std::size_t DomainState::verify_regions_locked(FunctionRef<void(const Breach&)> report) noexcept {
  std::size_t breaches = 0;
  const auto tell = [&](const char* what, std::uint64_t where, std::uint64_t expected, std::uint64_t found) {
    ++breaches;
    if (report) report(Breach{what, 0, 0, where, expected, found});
  };
  std::uint64_t attached = 0;
  std::uint64_t chained = 0;
  for (std::uint32_t region = 1; region <= regions_high(); ++region) {
    const std::uint32_t flags = core_.region(region).flags;
    if ((flags & alloc::kRegionAttached) == 0) continue;
    ++attached;
    if ((flags & alloc::kRegionUsed) == 0)
      tell("a region of a heap is in use", region, alloc::kRegionUsed, flags);
    if (bases_[region] == 0) continue;  // not mapped in this process
    std::uint64_t sequence = 0;
    const std::uintptr_t last = bases_[region] + (locals_[region].length - 1);
    if (index_.overlapping(bases_[region], 1) != region || index_.find(bases_[region], sequence) != region ||
        index_.find(last, sequence) != region) {
      tell("a region is found by its address", region, region, index_.overlapping(bases_[region], 1));
    }
  }
  for (std::uint32_t id = 0; id < heaps_.high(); ++id) {
    if (heaps_[id].used != 0) chained += core_.heap(id).regions;
  }
  if (attached != chained) tell("every region is in its heap's chain", 0, attached, chained);
  return breaches;
}

std::size_t DomainState::verify_space_locked(bool large, FunctionRef<void(const Breach&)> report) noexcept {
  alloc::MetaSpace& meta = large ? core_.roots().large : core_.roots().small;
  const alloc::CoreTables& tables = core_.tables();
  const unsigned shift = large ? alloc::kLargePageShift : alloc::kSmallPageShift;
  const std::uint64_t bytes = large ? core_.geometry().large_bytes : core_.geometry().small_bytes;
  const auto tell = [&](const char* what, std::uint64_t where, std::uint64_t expected, std::uint64_t found) {
    if (report) report(Breach{what, 0, 0, where, expected, found});
  };
  if (meta.pages.descs_offset != (large ? tables.large_descs : tables.small_descs) ||
      meta.pages.page_shift != shift || meta.pages.pages != bytes >> shift ||
      meta.area_offset != (large ? tables.large_area : tables.small_area)) {
    tell("a metadata space is where its tables are", large ? 1 : 0, bytes >> shift, meta.pages.pages);
    return 1;
  }
  const auto no_slabs = [](std::uint32_t, std::uint32_t) { return 0u; };
  return alloc::PageAllocator(core_.segment(), meta.pages).check(no_slabs, tell);
}

Result<void> DomainState::flush(HeapLocal& heap) noexcept {
  EXTMEM_TRY(slot, thread_slot());
  {
    const alloc::HeapGuard guard(core_, slot, heap.id);
    if (!guard.held()) return guard.refused(PausedHeap::deadlock());
    EXTMEM_TRY_VOID(core_.flush_all_locked(slot, heap.id, true));
  }
  give_back(heap);
  return {};
}

}  // namespace extmem::heap
