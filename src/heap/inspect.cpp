// Statistics, holders and verification. All of it under the heap's lock with the heap's threads paused: one instant.
#include <algorithm>
#include <cstring>

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
  for (const alloc::SizeClass& c : alloc::kSizeClasses) bytes += std::uint64_t{c.capacity} * c.size;
  return bytes;
}

}  // namespace

Result<HeapStats> DomainState::stats(HeapLocal& heap) noexcept {
  EXTMEM_TRY(slot, thread_slot());
  alloc::HeapCore& h = core_.heap(heap.id);
  const PausedHeap paused(core_, slot, heap.id);
  if (!paused.held()) return paused.refused();
  HeapStats s;
  for (std::uint32_t region = h.first_region; region != 0; region = core_.region(region).next) {
    const alloc::RegionCore& r = core_.region(region);
    const unsigned shift = r.pages.page_shift;
    s.total_bytes += std::uint64_t{r.pages.pages} << shift;
    s.free_bytes += r.pages.free_pages << shift;
    s.free_runs += r.pages.free_runs;
    s.largest_free = std::max(s.largest_free, std::uint64_t{core_.pages(region).largest_free()} << shift);
    s.metadata_bytes += sizeof(alloc::RegionCore) + r.iova.data_bytes;
    ++s.regions;
  }
  std::uint64_t out_of_slabs = 0;
  std::uint64_t out_count = 0;
  for (std::uint32_t cls = 0; cls < alloc::kClasses; ++cls) {
    for (std::uint32_t link = h.all_slabs[cls]; link != 0; link = core_.slab(link - 1).all_next) {
      const alloc::Slab& slab = core_.slab(link - 1);
      const std::uint64_t out = slab.objects - slab.free;
      const std::uint64_t pages = core_.slab_pages(slab);
      out_count += out;
      out_of_slabs += out * slab.size;
      s.slab_free_bytes += (pages << core_.region(slab.region()).pages.page_shift) - out * slab.size;
      s.metadata_bytes +=
          sizeof(alloc::Slab) +
          base::align_up(std::uint64_t{slab.objects} * 2, std::uint64_t{1} << alloc::kSmallPageShift) +
          pages * sizeof(alloc::PageDesc);
      ++s.slabs;
    }
  }
  std::int64_t not_told = 0;
  for (std::uint32_t link = h.first_cache; link != 0; link = core_.cache(link - 1).next) {
    const alloc::ThreadCache& cache = core_.cache(link - 1);
    for (std::uint32_t cls = 0; cls < alloc::kClasses; ++cls) {
      s.cached_count += cache.count(cls);
      s.cached_bytes += std::uint64_t{cache.count(cls)} * alloc::kSizeClasses[cls].size;
    }
    not_told += cache.out_delta;
    s.metadata_bytes += sizeof(alloc::ThreadCache);
  }
  s.used_bytes = h.span_pages_bytes + out_of_slabs - s.cached_bytes;
  s.used_count = h.span_count + out_count - s.cached_count;
  s.metadata_bytes += h.span_count * 2 * sizeof(alloc::PageDesc);
  s.memzones = heaps_[heap.id].memzones;
  const std::int64_t now = h.out_bytes.load(std::memory_order_relaxed) +
                           static_cast<std::int64_t>(h.span_pages_bytes.get()) + not_told;
  const std::uint64_t unseen =
      std::uint64_t{h.most_caches} * static_cast<std::uint64_t>(2 * alloc::kSpillBytes);
  s.peak_bytes = static_cast<std::uint64_t>(std::max({h.out_peak.get(), now, std::int64_t{0}})) + unseen;
  s.peak_error = 2 * unseen + h.most_caches * magazine_bytes();
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
  for (std::uint32_t region = h.first_region; region != 0; region = core_.region(region).next) {
    alloc::for_each_held(core_, region, [&](std::uint16_t holder, std::uint64_t bytes, std::uint64_t count) {
      if (holder >= alloc::kFirstTagHolder || holder == alloc::kHolderMemzone) return;
      untagged.live_bytes += bytes;
      untagged.live_count += count;
    });
  }
  const std::uint64_t unseen = std::uint64_t{h.most_caches} * static_cast<std::uint64_t>(alloc::kSpillBytes);
  // Untagged allocations keep no counter of their own: their peak is bounded by the heap's.
  untagged.peak_bytes = static_cast<std::uint64_t>(std::max(h.out_peak.get(), std::int64_t{0})) + unseen;
  untagged.peak_error = untagged.peak_bytes - untagged.live_bytes;
  put(untagged);
  for (const auto& bucket : h.tags) {
    for (std::uint32_t link = bucket; link != 0; link = core_.tag_record(link - 1).next) {
      const alloc::TagRecord& record = core_.tag_record(link - 1);
      std::int64_t bytes = record.bytes;
      std::int64_t count = record.count;
      std::int64_t most = 0;
      for (std::uint32_t c = h.first_cache; c != 0; c = core_.cache(c - 1).next) {
        const auto holder = static_cast<std::uint16_t>(record.holder.get());
        const alloc::TagDelta& delta = core_.cache(c - 1).deltas[holder % alloc::kTagDeltas];
        if (delta.record != link) continue;
        bytes += delta.bytes;
        count += delta.count;
        most += delta.most;
      }
      // Between processes a tag has a record for each of them: the first one of a tag sums them all up.
      const auto holder_now = static_cast<std::uint16_t>(record.holder.get());
      if (shared_ && n > 1) {
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
        if (summed) continue;
      }
      TagStats stats;
      const auto holder = static_cast<std::uint16_t>(record.holder.get());
      std::memcpy(stats.name, holder_name(holder), sizeof stats.name);
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
    }
  }
  return n;
}

Result<void> DomainState::holders(HeapLocal& heap, HolderReport& report) noexcept {
  EXTMEM_TRY(slot, thread_slot());
  const PausedHeap paused(core_, slot, heap.id);
  if (!paused.held()) return paused.refused();
  report = HolderReport{};
  LeftOut left_out;
  for (std::uint32_t region = core_.heap(heap.id).first_region; region != 0;
       region = core_.region(region).next) {
    report_holders_locked(region, report, left_out);
  }
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
    const std::uint32_t pid = shared_ && owner != 0 && owner <= shared::kMaxParticipants
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
  alloc::HeapCore& h = core_.heap(heap.id);
  const PausedHeap paused(core_, slot, heap.id);
  if (!paused.held()) return paused.refused();
  std::size_t breaches = 0;
  std::uint32_t region_now = 0;
  const auto tell = [&](const char* what, std::uint64_t where, std::uint64_t expected, std::uint64_t found) {
    if (report) report(Breach{what, heap.id, region_now, where, expected, found});
  };
  breaches += core_.check_heap_locked(heap.id, tell);
  if (breaches != 0) return breaches;  // the walks below trust the structure

  for (const auto& bucket : h.tags) {
    for (std::uint32_t link = bucket; link != 0; link = core_.tag_record(link - 1).next) {
      core_.tag_record(link - 1).scanned_bytes = 0;
      core_.tag_record(link - 1).scanned_count = 0;
    }
  }
  std::uint64_t used = 0;
  std::uint64_t memzone_memory = 0;
  for (std::uint32_t region = h.first_region; region != 0; region = core_.region(region).next) {
    region_now = region;
    const alloc::RegionCore& r = core_.region(region);
    if (const char* broken = region::check(r.iova, core_.segment(), segment_.bytes(), r.length);
        broken != nullptr) {
      ++breaches;
      tell(broken, region, 0, 0);
    }
    alloc::for_each_held(core_, region, [&](std::uint16_t holder, std::uint64_t bytes, std::uint64_t count) {
      used += bytes;
      if (holder == alloc::kHolderMemzone) memzone_memory += count;
      if (shared_ && holder_participant(holder) == kOrphanOwner && !withheld(region) &&
          heaps_[heap.id].on_death != static_cast<std::uint32_t>(OnDeath::keep)) {
        ++breaches;
        tell("what nobody holds in a heap that reclaims is withheld", holder, 0, count);
      }
      if (holder < alloc::kFirstTagHolder) return;
      alloc::TagRecord* record = core_.find_tag_locked(h, holder);
      if (record == nullptr) {
        ++breaches;
        tell("a held object's tag has a record", holder, 1, 0);
        return;
      }
      record->scanned_bytes += static_cast<std::int64_t>(bytes);
      record->scanned_count += static_cast<std::int64_t>(count);
    });
  }
  region_now = 0;
  if (memzone_memory != heaps_[heap.id].memzones) {
    // A memzone's memory is taken just before its record is made: only a quiet directory lets us compare. Once it is
    // quiet that stays so, for taking the memory needs the lock that we hold: so look again after that.
    const std::uint32_t holder = directory_->lock.holder();
    std::atomic_thread_fence(std::memory_order_acquire);
    if ((holder == 0 || holder == slot) && memzone_memory != heaps_[heap.id].memzones) {
      ++breaches;
      tell("every memzone has its memory", heap.id, heaps_[heap.id].memzones, memzone_memory);
    }
  }
  for (const auto& bucket : h.tags) {
    for (std::uint32_t link = bucket; link != 0; link = core_.tag_record(link - 1).next) {
      const alloc::TagRecord& record = core_.tag_record(link - 1);
      std::int64_t bytes = record.bytes;
      std::int64_t count = record.count;
      for (std::uint32_t c = h.first_cache; c != 0; c = core_.cache(c - 1).next) {
        const alloc::TagDelta& delta = core_.cache(c - 1).deltas[record.holder % alloc::kTagDeltas];
        if (delta.record != link) continue;
        bytes += delta.bytes;
        count += delta.count;
      }
      if (bytes != record.scanned_bytes || count != record.scanned_count) {
        ++breaches;
        tell("a tag's live bytes are what its objects add up to", record.holder,
             static_cast<std::uint64_t>(record.scanned_bytes), static_cast<std::uint64_t>(bytes));
      }
    }
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
  const auto tell = [&](const char* what, std::uint64_t where, std::uint64_t expected, std::uint64_t found) {
    ++breaches;
    if (report) report(Breach{what, 0, 0, where, expected, found});
  };
  {
    const OrderedGuard guard(core_, slot, directory_->lock, Rank::directory);
    if (!guard.held())
      return guard.refused(EXTMEM_ERROR(EDEADLK, "verify cannot run inside a walk over the directory"));
    for (std::uint32_t id = 0; id < heaps_.high(); ++id) {
      if (heaps_[id].used != 0 && heaps_.find(heaps_[id].name.text) != id)
        tell("a heap is found by its name", id, id, heaps_.find(heaps_[id].name.text));
    }
    for (std::uint32_t i = 0; i < tags_.high(); ++i) {
      if (tags_[i].used != 0 && tags_.find(tags_[i].name.text) != i)
        tell("a tag is found by its name", i, i, tags_.find(tags_[i].name.text));
    }
    std::uint32_t used = 0;
    for (std::uint32_t i = 0; i < memzones_.high(); ++i) {
      if (memzones_[i].used == 0) continue;
      ++used;
      if (memzones_.find(memzones_[i].name.text) != i)
        tell("a memzone is found by its name", i, i, memzones_.find(memzones_[i].name.text));
      std::uint16_t holder = 0;
      auto object = object_at(address(RegionPtr{memzones_[i].ptr}), &holder);
      if (!object || !object->held || holder != alloc::kHolderMemzone || object->size < memzones_[i].length) {
        tell("a memzone's memory is held by it", i, alloc::kHolderMemzone, holder);
      }
    }
    if (used != directory_->memzone_count)
      tell("memzone_count counts the memzones", 0, used, directory_->memzone_count);
  }
  {
    const OrderedGuard guard(core_, slot, directory_->region_lock, Rank::regions);
    if (!guard.held())
      return guard.refused(
          EXTMEM_ERROR(EDEADLK, "verify cannot run inside a listener or a walk over regions"));
    std::uint64_t attached = 0;
    std::uint64_t chained = 0;
    for (std::uint32_t region = 1; region <= directory_->regions.high; ++region) {
      const std::uint32_t flags = core_.region(region).flags;
      if ((flags & alloc::kRegionAttached) == 0) continue;
      ++attached;
      if ((flags & alloc::kRegionUsed) == 0)
        tell("a region of a heap is in use", region, alloc::kRegionUsed, flags);
      if (bases_[region] == 0) continue;  // not mapped in this process
      if (index_.overlapping(bases_[region], 1) != region) {
        tell("a region is found by its address", region, region, index_.overlapping(bases_[region], 1));
      }
    }
    for (std::uint32_t id = 0; id < heaps_.high(); ++id) {
      if (heaps_[id].used != 0) chained += core_.heap(id).regions;
    }
    if (attached != chained) tell("every region is in its heap's chain", 0, attached, chained);
  }
  alloc::CoreRoots& roots = core_.roots();
  const auto no_slabs = [](std::uint32_t, std::uint32_t) { return 0u; };
  const auto ignore = [&](const char* what, std::uint64_t where, std::uint64_t expected,
                          std::uint64_t found) {
    if (report) report(Breach{what, 0, 0, where, expected, found});
  };
  for (alloc::MetaSpace* meta : {&roots.small, &roots.large}) {
    const shared::LockGuard guard(meta->lock, slot, core_.peers());
    breaches += alloc::PageAllocator(core_.segment(), meta->pages).check(no_slabs, ignore);
  }
  return breaches;
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
