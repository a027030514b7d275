// How an inspector copies a part of a segment, and how it finds out what its copy is worth.
#include <algorithm>

#include "alloc/chains.hpp"
#include "base/error.hpp"
#include "heap/inspector.hpp"
#include "os/thread.hpp"
#include "shared/transaction.hpp"

namespace extmem::heap {

namespace {

constexpr std::uint64_t kUnit = 65536;  // copied at once
constexpr int kTries = 32;
constexpr int kTriesInVain = 6;  // while somebody stands still in the midst of a change
constexpr std::uint64_t kFirstNapNs = 20'000;
constexpr std::uint64_t kLongestNapNs = 1'000'000;
constexpr int kLooksForABreak = 200;  // of a thread, between two of its operations

}  // namespace

void InspectorState::begin_copy() noexcept {
  std::fill(copied_, copied_ + copied_words_, std::uint64_t{0});
  undone_count_ = 0;
}

Result<void> InspectorState::need(std::uint64_t offset, std::uint64_t bytes) noexcept {
  const std::uint64_t units = view_->segment_.bytes() / kUnit;
  const std::uint64_t end = std::min(units, (offset + bytes + kUnit - 1) / kUnit);
  const auto copied = [&](std::uint64_t unit) { return (copied_[unit / 64] >> unit % 64 & 1) != 0; };
  for (std::uint64_t unit = offset / kUnit; unit < end;) {
    if (copied(unit)) {
      ++unit;
      continue;
    }
    const std::uint64_t first = unit;
    for (; unit < end && !copied(unit); ++unit) copied_[unit / 64] |= std::uint64_t{1} << unit % 64;
    EXTMEM_TRY_VOID(reader_.copy(view_->segment_.base(), first * kUnit, (unit - first) * kUnit));
    ++copies_;
    undo_again();
  }
  return {};
}

void InspectorState::undo_again() noexcept {
  for (std::uint32_t i = 0; i < undone_count_; ++i) {
    shared::Journal& journal = view_->core_.slot(undone_[i]).journal;
    const std::uint32_t count = journal.count.load(std::memory_order_relaxed);
    shared::undo(view_->segment_.base(), journal, view_->segment_.bytes());
    journal.count.store(count, std::memory_order_relaxed);  // for the next time
  }
}

// ---- whose turn it is --------------------------------------------------------------------------------------

Result<InspectorState::Watched> InspectorState::watch_slot(std::uint32_t slot) noexcept {
  Watched watched;
  const alloc::Core& core = view_->core_;
  if (slot == 0 || slot > core.geometry().max_threads) return watched;
  EXTMEM_TRY(owner, reader_.word<std::uint64_t>(offset_of(&core.slot(slot).owner)));
  const auto participant = static_cast<std::uint32_t>(owner >> 32);
  if (participant == 0 || participant > shared::kMaxParticipants) return watched;
  const shared::Participant& record = view_->participants_.record(participant);
  EXTMEM_TRY(space, reader_.word<std::uint32_t>(offset_of(&record.pid_namespace)));
  if (space != pid_namespace_) return watched;
  EXTMEM_TRY(pid, reader_.word<std::uint32_t>(offset_of(&record.pid)));
  watched.pid = pid;
  watched.thread = static_cast<std::uint32_t>(owner);
  watched.before = os::thread_activity(watched.pid, watched.thread);
  return watched;
}

bool InspectorState::still(const Watched& thread) noexcept {
  return thread.pid != 0 && os::thread_activity(thread.pid, thread.thread).still_since(thread.before);
}

Result<InspectorState::LockMark> InspectorState::mark(const shared::Lock& lock) noexcept {
  LockMark mark;
  mark.at = offset_of(&lock);
  // The turns first: a holder who comes after this look changes them, and one who came before is seen as long as it holds.
  EXTMEM_TRY(turns, reader_.word<std::uint32_t>(mark.at + shared::Lock::kTurnsAt));
  EXTMEM_TRY(word, reader_.word<std::uint32_t>(mark.at));
  mark.turns = turns;
  mark.holder = word & shared::Lock::kHolderMask;
  if (mark.holder == 0) return mark;
  EXTMEM_TRY(thread, watch_slot(mark.holder));
  mark.thread = thread;
  EXTMEM_TRY(healing, healing_of(mark.holder));
  mark.healing = healing;
  return mark;
}

Result<std::uint64_t> InspectorState::healing_of(std::uint32_t slot) noexcept {
  const alloc::Core& core = view_->core_;
  if (slot == 0 || slot > core.geometry().max_threads) return std::uint64_t{0};
  EXTMEM_TRY(healer, reader_.word<std::uint32_t>(offset_of(&core.slot(slot).healer)));
  EXTMEM_TRY(count, reader_.word<std::uint32_t>(offset_of(&core.slot(slot).journal.count)));
  return std::uint64_t{count} << 32 | healer;
}

Result<bool> InspectorState::stands(const LockMark& mark) noexcept {
  // It is of one instant all the same where the holder did not run, and nobody undid what it left.
  if (mark.holder == 0 || mark.holder > view_->core_.geometry().max_threads || !still(mark.thread))
    return false;
  EXTMEM_TRY(word, reader_.word<std::uint32_t>(mark.at));
  EXTMEM_TRY(healing, healing_of(mark.holder));
  constexpr std::uint64_t kHealer = shared::kMaxThreadSlots;
  return (word & shared::Lock::kHolderMask) == mark.holder && healing == mark.healing &&
         (healing & kHealer) == 0;
}

Result<bool> InspectorState::unchanged(const LockMark& mark) noexcept {
  EXTMEM_TRY(turns, reader_.word<std::uint32_t>(mark.at + shared::Lock::kTurnsAt));
  if (turns != mark.turns) return false;
  return mark.holder == 0 ? Result<bool>(true) : stands(mark);
}

Result<void> InspectorState::undo_what_stands(std::span<const LockMark> marks,
                                              FunctionRef<Result<void>()> copy) noexcept {
  for (const LockMark& mark : marks) {
    EXTMEM_TRY(stopped, stands(mark));
    if (!stopped) continue;
    shared::ThreadSlot& slot = view_->core_.slot(mark.holder);
    EXTMEM_TRY_VOID(need_object(&slot, sizeof slot));
    undone_[undone_count_++] = mark.holder;
  }
  if (undone_count_ == 0) return {};
  undo_again();
  // The undone words lead to records that the words in the segment do not lead to: these are copied now, and so on.
  for (std::uint64_t before = ~copies_; before != copies_;) {
    before = copies_;
    EXTMEM_TRY_VOID(copy());
  }
  return {};
}

Result<void> InspectorState::mark_caches(std::uint32_t heap, bool watch) noexcept {
  const alloc::Core& core = view_->core_;
  cache_count_ = 0;
  EXTMEM_TRY(first, reader_.word<std::uint32_t>(offset_of(&core.heap(heap).first_cache)));
  const std::uint32_t most = core.geometry().max_caches;
  for (std::uint32_t link = first; link != 0 && link <= most && cache_count_ < most;) {
    const alloc::ThreadCache& cache = core.cache(link - 1);
    CacheMark& mark = caches_[cache_count_++];
    mark = CacheMark{};
    mark.index = link - 1;
    mark.busy = true;
    for (int look = 0; look < kLooksForABreak && mark.busy; ++look) {
      // As for a lock: the count first.
      EXTMEM_TRY(entered, reader_.word<std::uint32_t>(offset_of(&cache.entered)));
      EXTMEM_TRY(busy, reader_.word<std::uint32_t>(offset_of(&cache.gate)));
      mark.entered = entered;
      mark.busy = busy != 0;
    }
    if (watch || mark.busy) {
      EXTMEM_TRY(slot, reader_.word<std::uint32_t>(offset_of(&cache.slot)));
      EXTMEM_TRY(owner, watch_slot(slot));
      mark.owner = owner;
    }
    EXTMEM_TRY(next, reader_.word<std::uint32_t>(offset_of(&cache.next)));
    link = next;
  }
  return {};
}

// ---- what belongs to a part --------------------------------------------------------------------------------

Result<void> InspectorState::copy_names() noexcept {
  // Header, directory, participants, heads of hash tables; then of each table what was ever used.
  EXTMEM_TRY_VOID(need(0, tables_.always));
  const DomainState& v = *view_;
  EXTMEM_TRY_VOID(need(tables_.heaps, std::uint64_t{v.heaps_.high()} * sizeof(HeapRecord)));
  EXTMEM_TRY_VOID(need(tables_.tags, std::uint64_t{v.tags_.high()} * sizeof(TagName)));
  const std::uint32_t holders = std::min(v.directory_->holders.high.get(), v.holder_count_);
  EXTMEM_TRY_VOID(need(tables_.holders, std::uint64_t{holders} * sizeof(HolderRecord)));
  EXTMEM_TRY_VOID(need(tables_.zones, std::uint64_t{v.memzones_.high()} * sizeof(MemzoneRecord)));
  const std::uint64_t regions = std::uint64_t{v.regions_high()} + 1;
  EXTMEM_TRY_VOID(need(tables_.shares, regions * sizeof(RegionShare)));
  EXTMEM_TRY_VOID(need(tables_.core.regions, regions * sizeof(alloc::RegionCore)));
  return need(tables_.core.heaps, std::uint64_t{v.heaps_.high()} * sizeof(alloc::HeapCore));
}

Result<void> InspectorState::copy_heap(std::uint32_t heap) noexcept {
  const alloc::Core& core = view_->core_;
  alloc::HeapCore& h = core.heap(heap);
  EXTMEM_TRY_VOID(need_object(&core.roots(), sizeof(alloc::CoreRoots)));
  EXTMEM_TRY_VOID(need_object(&h, sizeof h));
  // Each record before what it leads to. Not the bounded walks of alloc/chains.hpp: these read before they ask.
  std::uint32_t left = core.geometry().max_regions;
  for (std::uint32_t region = h.first_region;
       region != 0 && region <= core.geometry().max_regions && left != 0; --left) {
    const alloc::RegionCore& r = core.region(region);
    EXTMEM_TRY_VOID(need_object(&r, sizeof r));
    EXTMEM_TRY_VOID(
        need_object(&view_->shares_[region], sizeof(RegionShare)));  // what is withheld: the heap's too
    if (core.sound(r)) {
      EXTMEM_TRY_VOID(need(r.pages.descs_offset, alloc::page_table_bytes(r.pages.pages, r.pages.page_shift)));
      const std::uint64_t end = tables_.core.large_area + core.geometry().large_bytes;
      if (r.iova.data_offset <= end && r.iova.data_bytes <= end - r.iova.data_offset)
        EXTMEM_TRY_VOID(need(r.iova.data_offset, r.iova.data_bytes));
    }
    region = r.next;
  }
  left = core.slabs_high();
  for (const auto& head : h.all_slabs) {
    for (std::uint32_t link = head; link != 0 && link <= core.slabs_high() && left != 0; --left) {
      const alloc::Slab& s = core.slab(link - 1);
      EXTMEM_TRY_VOID(need_object(&s, sizeof s));
      if (core.sound(s))
        EXTMEM_TRY_VOID(need_object(&core.state(s.first_state), std::uint64_t{s.objects} * 2));
      link = s.all_next;
    }
  }
  left = core.caches_high();
  for (std::uint32_t link = h.first_cache; link != 0 && link <= core.caches_high() && left != 0; --left) {
    const alloc::ThreadCache& cache = core.cache(link - 1);
    EXTMEM_TRY_VOID(need_object(&cache, sizeof cache));
    link = cache.next;
  }
  left = core.tags_high();
  for (const auto& head : h.tags) {
    for (std::uint32_t link = head; link != 0 && link <= core.tags_high() && left != 0; --left) {
      const alloc::TagRecord& record = core.tag_record(link - 1);
      EXTMEM_TRY_VOID(need_object(&record, sizeof record));
      link = record.next;
    }
  }
  return {};
}

Result<void> InspectorState::copy_space(bool large) noexcept {
  const alloc::Core& core = view_->core_;
  EXTMEM_TRY_VOID(need_object(&core.roots(), sizeof(alloc::CoreRoots)));
  const std::uint64_t pages = large ? core.geometry().large_bytes >> alloc::kLargePageShift
                                    : core.geometry().small_bytes >> alloc::kSmallPageShift;
  return need(large ? tables_.core.large_descs : tables_.core.small_descs, pages * sizeof(alloc::PageDesc));
}

// ---- a copy, and what it is worth --------------------------------------------------------------------------

Result<void> InspectorState::look_at_caches(Instant& instant, bool watch) noexcept {
  instant.still = watch;
  for (std::uint32_t i = 0; i < cache_count_; ++i) {
    const CacheMark& was = caches_[i];
    EXTMEM_TRY(entered, reader_.word<std::uint32_t>(offset_of(&view_->core_.cache(was.index).entered)));
    if (entered != was.entered || was.busy) instant.whole = false;
    const bool stands = (watch || was.busy) && still(was.owner);
    if (was.busy && stands) instant.stopped = true;
    if (!stands) instant.still = false;
  }
  return {};
}

Result<InspectorState::Instant> InspectorState::take(Part part, std::uint32_t heap, bool watch) noexcept {
  part_ = Part::none;
  Instant instant;
  const alloc::Core& core = view_->core_;
  EXTMEM_TRY_VOID(reader_.check(named_));
  begin_copy();
  // What guards the part, and who must not change meanwhile.
  LockMark marks[3];
  EXTMEM_TRY(names, mark(view_->directory_->lock));
  EXTMEM_TRY(regions, mark(view_->directory_->region_lock));
  marks[0] = names;
  marks[1] = regions;
  std::uint32_t guards = 2;
  const bool space = part == Part::small || part == Part::large;
  if (part == Part::small) {  // the large space is made of regions' tables, and the region lock guards it
    EXTMEM_TRY(small, mark(core.roots().small_lock));
    marks[guards++] = small;
  }
  if (!space) EXTMEM_TRY_VOID(copy_names());
  if (part == Part::heap) {
    EXTMEM_TRY(mark_of_heap, mark(core.heap(heap).lock));
    marks[guards++] = mark_of_heap;
    EXTMEM_TRY_VOID(mark_caches(heap, watch));
    begin_copy();  // what names and heap have in common must be read after the heap's mark
  }
  const auto copy = [&]() -> Result<void> {
    if (space) return copy_space(part == Part::large);
    return part == Part::heap ? copy_heap(heap) : copy_names();
  };
  EXTMEM_TRY_VOID(copy());
  EXTMEM_TRY_VOID(undo_what_stands(std::span(marks, guards), copy));
  bool same[3] = {};
  for (std::uint32_t i = 0; i < guards; ++i) {
    EXTMEM_TRY(unchanged_one, unchanged(marks[i]));
    same[i] = unchanged_one;
    if (same[i] && marks[i].holder != 0) instant.stopped = true;
  }
  instant.names = same[0];
  switch (part) {
    case Part::small:
      instant.locked = instant.whole = same[2];
      break;
    case Part::large:
    case Part::regions:
      instant.locked = instant.whole = same[1];
      break;
    case Part::names:
      instant.locked = instant.whole = same[0] && same[1];
      break;
    case Part::heap:
      instant.locked = same[2];
      instant.whole = same[2] && marks[2].holder == 0 && core.heap(heap).torn == 0;
      if (core.heap(heap).torn != 0) instant.stopped = true;
      if (core.heap(heap).exact != 0) view_->core_.show_cached_spans(heap);
      EXTMEM_TRY_VOID(look_at_caches(instant, watch));
      break;
    case Part::none:
      break;
  }
  EXTMEM_TRY_VOID(reader_.check(named_));
  core.slot(1).ranks = 0;  // of our own calls; in the segment it is somebody else's
  part_ = part;
  heap_ = heap;
  instant_ = instant;
  return instant;
}

Result<InspectorState::Instant> InspectorState::take_patiently(Part part, std::uint32_t heap) noexcept {
  std::uint64_t nap = kFirstNapNs;
  for (int attempt = 1;; ++attempt) {
    EXTMEM_TRY(instant, take(part, heap, false));
    if (instant.whole || attempt >= kTries || (instant.stopped && attempt >= kTriesInVain)) return instant;
    os::sleep_ns(nap);
    nap = std::min(nap * 2, kLongestNapNs);
  }
}

}  // namespace extmem::heap
