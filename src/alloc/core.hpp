// Core: slabs, magazines and spans of all heaps of a domain.
//
// What it is: a view over the tables in the control segment and the algorithms on them. It works on region slots and
// offsets, never on bytes of managed memory: its unit tests have no memory behind their regions. Only the magazines carry
// addresses, for those who pop.
// Thread-safety: every function may run on any thread; `slot` is the calling thread's slot. Functions named *_locked
// need the heap's lock. Lock order: heap, then small or large metadata; nobody waits for a lock while busy in a cache.
//
// The way of a small allocation: pop() from the thread's magazine -> refill(): the thread's own (biased) slabs, without
// a lock -> under the heap's lock a shared slab, or a new one -> flush_all_locked(): take back what every thread has
// cached.
// The way of a small free: free_fast() pushes on the magazine; full -> flush_class() returns half. What lies in another thread's
// slab goes to the class' outbox instead, by free_shared(); full -> flush_outbox() returns all.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "alloc/heap_core.hpp"
#include "alloc/meta_space.hpp"
#include "alloc/object_state.hpp"
#include "alloc/slab.hpp"
#include "alloc/thread_cache.hpp"
#include "base/always_inline.hpp"
#include "base/apart.hpp"
#include "base/error.hpp"
#include "shared/control_segment.hpp"
#include "shared/index_list.hpp"

namespace extmem::alloc {

struct RowSpan;

/// Where the tables of this layer lie in the segment.
struct CoreTables {
  std::uint64_t heaps, regions, slots, cache_rows, caches, slabs, tag_records, roots;
  std::uint64_t small_descs, small_area, large_descs, large_area;

  static CoreTables place(shared::SegmentLayout& layout, const shared::Geometry& geometry) noexcept;
};

/// The lists of unused records and the metadata spaces.
struct CoreRoots {
  MetaSpace small;
  MetaSpace large;  // only regions have something of it: Directory::region_lock guards it
  shared::IndexList slab_list;
  shared::IndexList cache_list;
  shared::IndexList tag_list;
  shared::Lock small_lock;  // guards `small` and the lists
};

/// Which regions may serve a request.
struct RegionFilter {
  std::uint32_t region = 0;  // slot; 0: any
  std::int32_t node = kAnyNode;
  std::uint32_t os_page_shift = 0;  // 0: any
};

/// A span: where it is and how many pages.
struct Span {
  std::uint32_t region = 0;  // 0: none
  std::uint32_t page = 0;
  std::uint32_t pages = 0;
};

constexpr std::uint64_t make_ptr(std::uint32_t region, std::uint64_t offset) noexcept {
  return std::uint64_t{region} << 48 | offset;
}

class Core {
 public:
  Core() noexcept = default;
  Core(const Core&) = delete;

  /// Binds the view. Requires: the segment has these tables.
  /// `bases`: by region slot, where this process sees the regions; 0: nowhere, so that such a region cannot serve here.
  /// Null: addresses are RegionPtrs.
  void bind(std::byte* segment, const CoreTables& tables, const shared::Geometry& geometry,
            const shared::Peers& peers, bool has_membarrier,
            const base::Relaxed<std::uintptr_t>* bases = nullptr) noexcept;
  /// Between processes: what the segment stands on, and which participant this process is.
  void share(shared::Ground ground, std::uint32_t participant) noexcept {
    ground_ = ground;
    untagged_ = untagged_holder(participant);
  }
  /// A copy of a segment, which nobody else sees: nothing is locked, nobody is paused (heap/inspector.hpp).
  void be_alone() noexcept { alone_ = true; }
  [[nodiscard]] bool alone() const noexcept { return alone_; }
  [[nodiscard]] bool reaches(std::uint32_t region) const noexcept {
    return bases_ == nullptr || bases_[region] != 0;
  }
  /// Takes space for where a slot's caches are written down. False: the tmpfs is full.
  [[nodiscard]] bool ensure_cache_row(std::uint32_t slot) const noexcept {
    return ground_.ensure(&cache_rows_[std::uint64_t{slot} * geometry_.max_heaps],
                          std::uint64_t{geometry_.max_heaps} * 4);
  }
  /// Takes space for what format() stores. False: the tmpfs is full.
  [[nodiscard]] bool ensure_format(shared::Ground ground) const noexcept;
  [[nodiscard]] std::uint16_t untagged() const noexcept { return untagged_; }
  /// Initialises the tables of a new segment of zero bytes. Requires: bind().
  void format() noexcept;

  // ---- records ---------------------------------------------------------------------------------------------
  [[nodiscard]] std::byte* segment() const noexcept { return segment_; }
  [[nodiscard]] HeapCore& heap(std::uint32_t id) const noexcept { return heaps_[id]; }
  [[nodiscard]] RegionCore& region(std::uint32_t slot) const noexcept { return regions_[slot]; }
  [[nodiscard]] Slab& slab(std::uint32_t index) const noexcept { return slabs_[index]; }
  [[nodiscard]] ThreadCache& cache(std::uint32_t index) const noexcept { return caches_[index]; }
  [[nodiscard]] TagRecord& tag_record(std::uint32_t index) const noexcept { return tags_[index]; }
  [[nodiscard]] shared::ThreadSlot& slot(std::uint32_t index) const noexcept { return slots_[index]; }
  [[nodiscard]] CoreRoots& roots() const noexcept { return *roots_; }
  [[nodiscard]] std::atomic<std::uint16_t>& state(std::uint32_t index) const noexcept {
    return states_[index];
  }
  [[nodiscard]] const shared::Geometry& geometry() const noexcept { return geometry_; }
  [[nodiscard]] const shared::Peers& peers() const noexcept { return peers_; }
  [[nodiscard]] PageAllocator pages(std::uint32_t slot) const noexcept {
    return PageAllocator(segment_, regions_[slot].pages, ground_);
  }
  [[nodiscard]] base::Relaxed<std::uint32_t>* slab_map(const RegionCore& r) const noexcept {
    return reinterpret_cast<base::Relaxed<std::uint32_t>*>(segment_ + r.pages.descs_offset +
                                                           std::uint64_t{r.pages.pages} * sizeof(PageDesc));
  }
  [[nodiscard]] shared::Transaction transaction(std::uint32_t slot) const noexcept {
    return shared::Transaction(segment_, slots_[slot].journal);
  }
  /// Whether `index` names a living slab that covers this page of this region.
  [[nodiscard]] bool slab_covers(std::uint32_t index, std::uint32_t region,
                                 std::uint32_t page) const noexcept;
  [[nodiscard]] std::uint32_t slab_pages(const Slab& slab) const noexcept;

  // ---- thread caches ---------------------------------------------------------------------------------------
  /// The calling thread's cache for a heap, or null when it has none yet.
  [[nodiscard]] ThreadCache* cache_of(std::uint32_t slot, std::uint32_t heap) const noexcept {
    const std::uint32_t index = cache_rows_[std::uint64_t{slot} * geometry_.max_heaps + heap];
    return index == 0 ? nullptr : &caches_[index - 1];
  }
  Result<ThreadCache*> make_cache(std::uint32_t slot, std::uint32_t heap) noexcept;
  /// Returns all that the cache holds and forgets it. By the owner, when its thread leaves, or its cleaner.
  /// False: a stopped process keeps a lock that this needs.
  bool drop_cache(std::uint32_t slot, ThreadCache& cache) noexcept;
  /// Drops every cache of a heap that goes. An owner that is about to use its own finds it empty and detached: then
  /// the operation answers ESTALE. Requires: the heap's lock, all paused; the heap has no region.
  Result<void> drop_caches_paused(std::uint32_t slot, std::uint32_t heap) noexcept;
  /// Gives away the records that drop_caches_paused left to slot `of`. By its thread when it leaves, or its cleaner.
  bool drop_spare_caches(std::uint32_t slot, std::uint32_t of) noexcept;

  /// Begins an operation of the caller on its own cache. Requires: the caller holds no lock, or the heap's.
  /// Errors: ETIMEDOUT a stopped process has paused it.
  Result<void> enter(std::uint32_t slot, ThreadCache& cache) noexcept;
  /// Stops the owner at its next operation's boundary. Requires: the heap's lock; not the caller's own cache.
  /// False: the owner is dead, and its cache is gone. Errors: ETIMEDOUT the owner's process is stopped.
  Result<bool> pause(std::uint32_t slot, ThreadCache& cache) noexcept;
  void resume(ThreadCache& cache) noexcept;
  /// The same for all caches of the heap but the caller's own. On an error all are resumed.
  Result<void> pause_all(std::uint32_t slot, HeapCore& heap) noexcept;
  void resume_all(std::uint32_t slot, HeapCore& heap) noexcept;

  // ---- after a death (core_recover.cpp) --------------------------------------------------------------------
  /// Makes a heap whole again whose lock was inherited from a dead holder: whatever no journal keeps is computed anew
  /// from the object states. Idempotent: its own death begins it anew. Requires: the heap's lock.
  Result<void> repair_heap_locked(std::uint32_t slot, std::uint32_t heap) noexcept;
  /// The same for the cache of one thread that died inside an operation: what it had cached is free again, its slabs
  /// are everybody's, its record is unused. Requires: the heap's lock.
  /// Errors: ETIMEDOUT a stopped process keeps the metadata's lock: it is buried again, to no effect but the last.
  Result<void> bury_cache_locked(std::uint32_t slot, ThreadCache& cache) noexcept;
  /// Gives back all that the cache of a dead thread (or of one that has ended) holds. Requires: the heap's lock.
  Result<void> drop_dead_cache_locked(std::uint32_t slot, ThreadCache& cache) noexcept;
  /// Changes who holds an object, with both accounts. False: it is not `from`'s any more. Requires: the heap's lock.
  /// Errors: ETIMEDOUT the process of the thread that owns its slab is stopped.
  Result<bool> change_holder_locked(std::uint32_t slot, std::uint32_t heap, std::uint64_t ptr,
                                    std::uint16_t from, std::uint16_t to) noexcept;
  /// Gives what dead holders hold to `heir` (another holder), or frees it. Requires: the heap's lock.
  struct Reclaimed {
    std::uint64_t freed_objects = 0;
    std::uint64_t freed_bytes = 0;
    std::uint64_t given_objects = 0;
    std::uint64_t given_bytes = 0;
  };
  /// kFreeIt, kLeaveIt, or a holder
  using HeirOf = FunctionRef<std::uint16_t(std::uint16_t holder, std::uint32_t region)>;
  static constexpr std::uint16_t kFreeIt = 0xffff, kLeaveIt = 0xfffe;
  Result<Reclaimed> reclaim_locked(std::uint32_t slot, std::uint32_t heap, HeirOf heir) noexcept;
  /// Changes who holds an object or a span, neither of them counted by a tag. Requires: it is held; the heap's lock.
  void set_holder_locked(shared::Transaction& tx, std::uint64_t ptr, std::uint16_t holder) noexcept;
  /// Counts tags and bytes anew where a death left them untold. Requires: the heap's lock, all paused.
  void settle_tags_paused(std::uint32_t heap) noexcept;

  // ---- small objects ---------------------------------------------------------------------------------------
  // The fast paths (a third is in shared_free.hpp) are static and get the tables' addresses from their caller, who has them
  // at hand. They call nothing: so the public functions around them need no stack frame.

  struct FastTables {
    std::atomic<std::uint16_t>* states = nullptr;
    const Slab* slabs = nullptr;  // from the record of nobody on: link 0 names that one
  };
  [[nodiscard]] FastTables fast_tables() const noexcept { return FastTables{states_, slabs_ - 1}; }

  /// Pops an object for an untagged holder from the magazine at `place` (magazine_of_last): its address.
  /// 0: not that easily, use allocate_small.
  static EXTMEM_ALWAYS_INLINE std::uint64_t pop(const FastTables& tables, ThreadCache& cache,
                                                std::uint64_t place) noexcept {
    if (!cache.gate.try_enter()) [[unlikely]]
      return 0;
    std::uint64_t top = cache.magazine(place * sizeof(Magazine)).top;
    const std::uint64_t address = cache.entry(top).address;
    if (address == 0) [[unlikely]] {
      cache.gate.leave();
      return 0;
    }
    base::set_apart(top);
    tables.states[cache.entry(top).state].store(cache.held, std::memory_order_relaxed);
    std::atomic_signal_fence(
        std::memory_order_seq_cst);  // held first: a cleaner believes the state, not the stack
    base::set_apart(place);
    cache.magazine(place * sizeof(Magazine)).top = static_cast<std::uint32_t>(top - sizeof(CachedObject));
    cache.gate.leave();
    return address;
  }
  /// Any path: the object's address. holder: kHolderUntagged or another. Errors: ENOMEM; ENOSPC metadata full; ENOTBLK the heap has no
  /// region that slabs fit into (the caller takes a span instead).
  Result<std::uint64_t> allocate_small(std::uint32_t slot, ThreadCache& cache, std::uint32_t cls,
                                       std::uint16_t holder) noexcept;

  /// Frees an untagged object of a slab that is biased to this thread. `ptr`: as a RegionPtr; `link`: what the slab map
  /// says of the place.
  /// False: not that easily, use free_small.
  static EXTMEM_ALWAYS_INLINE bool free_fast(const FastTables& tables, ThreadCache& cache, std::uint32_t link,
                                             std::uint64_t ptr, std::uint64_t address) noexcept {
    if (!cache.gate.try_enter()) [[unlikely]]
      return false;
    // One test after the other, each with little alive: that way everything stays in scratch registers.
    // No link names the record of nobody. A stale one (read before we were busy) names a slab that is not ours or not
    // here. All fields of a slab are stable while its owner, who is us, is busy.
    const Slab& slab = tables.slabs[link];
    if (slab.home != cache.home.stable()) [[unlikely]]
      return refuse(cache);
    const ObjectPlace place = place_of(ptr - slab.first.stable(), slab.reciprocal.stable());
    if (!place.exact) [[unlikely]]
      return refuse(cache);
    if (place.number >= slab.objects.stable()) [[unlikely]]
      return refuse(cache);
    std::uint64_t state = slab.first_state.stable() + static_cast<std::uint32_t>(place.number);
    base::set_apart(state);
    std::atomic<std::uint16_t>& word = tables.states[state];
    if (word.load(std::memory_order_relaxed) != cache.held.stable()) [[unlikely]]
      return refuse(cache);
    std::uint64_t at = slab.magazine.stable();
    std::uint64_t top = cache.magazine(at).top;
    base::set_apart(at);
    if (top >= cache.magazine(at).limit.stable()) [[unlikely]]
      return refuse(cache);
    constexpr auto kEntry = sizeof(CachedObject);
    cache.entry(top + kEntry).address = address;
    base::set_apart(top);
    cache.entry(top + kEntry).state = static_cast<std::uint32_t>(state);
    base::set_apart(top);
    cache.entry(top + kEntry).slab = link;
    base::set_apart(at);
    cache.magazine(at).top = static_cast<std::uint32_t>(top + kEntry);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    word.store(cache.cached, std::memory_order_relaxed);
    cache.gate.leave();
    return true;
  }
  /// Any path of a small free. Errors: EINVAL interior; EALREADY double;
  /// EPERM memzone; ENOTBLK the page is not a slab's (the caller tries free_span).
  Result<void> free_small(std::uint32_t slot, ThreadCache& cache, std::uint32_t region,
                          std::uint64_t offset) noexcept;
  /// Flushes the oldest half of this class' magazine. Errors: EDEADLK nothing could be returned, because the caller
  /// holds the heap's lock; ETIMEDOUT.
  Result<void> flush_class(std::uint32_t slot, ThreadCache& cache, std::uint32_t cls) noexcept;
  /// Returns what every cache of the heap holds. `unbias`: their slabs become everybody's. Requires: the heap's lock.
  Result<void> flush_all_locked(std::uint32_t slot, std::uint32_t heap, bool unbias) noexcept;
  /// The same. Requires: also that the other caches are paused.
  void flush_paused(std::uint32_t slot, std::uint32_t heap, bool unbias) noexcept;

  // ---- spans -----------------------------------------------------------------------------------------------
  /// `pages` of the request counts bytes: it is rounded to each region's pages. ENOMEM: nothing fits.
  Result<Span> allocate_span(std::uint32_t slot, std::uint32_t heap, std::uint64_t bytes,
                             const SpanRequest& request, const RegionFilter& filter,
                             std::uint16_t holder) noexcept;
  /// Errors: EINVAL interior; EALREADY nothing is allocated there; EPERM.
  Result<void> free_span(std::uint32_t slot, std::uint32_t heap, std::uint32_t region,
                         std::uint64_t offset) noexcept;
  /// Changes a held span's length in place. False: it cannot be done there.
  Result<bool> resize_span(std::uint32_t slot, std::uint32_t heap, std::uint32_t region, std::uint64_t offset,
                           std::uint64_t bytes) noexcept;
  /// The biggest piece any region of the heap could give to this request: bytes, and its region.
  struct BiggestSpan {
    std::uint32_t region = 0;
    std::uint64_t offset = 0;
    std::uint64_t bytes = 0;
  };
  Result<BiggestSpan> biggest_span(std::uint32_t slot, std::uint32_t heap, const SpanRequest& request,
                                   const RegionFilter& filter) noexcept;

  // ---- span magazines of exact heaps (core_exact.cpp, span_magazines.hpp) -------------------------------------
  /// Returns to the pages what threads of an exact heap have cached; others stand still only if they may have cached
  /// something. Before whatever could tell the difference. Requires: the heap's lock. Errors: ETIMEDOUT.
  Result<void> flush_spans_locked(std::uint32_t slot, std::uint32_t heap) noexcept;
  /// An allocation without tag and constraints of an exact heap, `own` the thread's cache there if it has one; and a free
  /// (core_exact_plain.cpp).
  /// The address, or true. Not that easily: 0, false; then use allocate_span, free_span.
  std::uint64_t allocate_plain_span(std::uint32_t slot, std::uint32_t heap, ThreadCache* own,
                                    std::uint64_t bytes) noexcept;
  bool free_plain_span(ThreadCache& own, std::uint32_t region, std::uint32_t page) noexcept;
  /// The same of all caches. Requires: also that the other caches are paused.
  void flush_spans_paused(std::uint32_t slot, std::uint32_t heap) noexcept;
  /// What a region of an exact heap has free when nothing is cached; of a copy, where nothing can be returned.
  struct FreeFigures {
    std::uint64_t pages = 0, runs = 0, longest = 0, cached_pages = 0, cached_spans = 0;
  };
  [[nodiscard]] FreeFigures free_figures(std::uint32_t region) const noexcept;
  /// Makes a span that is biased to a thread everybody's: from then on the lock alone guards it. Whoever it was biased to,
  /// the caller included, has nothing cached then, and this span not in its row. Requires: the heap's lock; `page` is a
  /// page of the region. Errors: ETIMEDOUT.
  Result<void> share_span_locked(std::uint32_t slot, std::uint32_t region, std::uint32_t page) noexcept;
  /// Whether the held run whose head this is was freed by a thread that keeps it. Without the lock: as of some instant.
  [[nodiscard]] bool span_is_cached(std::uint32_t region, std::uint32_t page) const noexcept;
  /// Marks such runs as cached_head. Requires: this is a copy.
  void show_cached_spans(std::uint32_t heap) noexcept;

  // ---- regions of a heap -----------------------------------------------------------------------------------
  /// Appends a region whose record is filled in; at one with that `also` (or null) becomes `value`. Requires: its page table is zero.
  Result<void> attach_region(std::uint32_t slot, std::uint32_t region,
                             base::Relaxed<std::uint32_t>* also = nullptr, std::uint32_t value = 0) noexcept;
  /// Requires: the heap's lock; nothing of the region is used.
  void detach_region_locked(std::uint32_t region) noexcept;
  /// Stops (or allows again) allocations from a region and takes back what is cached of it.
  /// Errors: ETIMEDOUT a stopped process; nothing has changed.
  Result<void> set_draining_locked(std::uint32_t slot, std::uint32_t region, bool draining) noexcept;
  [[nodiscard]] bool region_empty_locked(std::uint32_t region) const noexcept {
    return regions_[region].pages.free_pages == regions_[region].pages.pages;
  }

  // ---- tags ------------------------------------------------------------------------------------------------
  /// The heap's record of a holder, or null when it has none. Requires: the heap's lock.
  [[nodiscard]] TagRecord* find_tag_locked(HeapCore& heap, std::uint16_t holder) const noexcept;
  TagRecord* make_tag_locked(std::uint32_t slot, HeapCore& heap, std::uint16_t holder) noexcept;
  Result<void> free_tags_locked(std::uint32_t slot, HeapCore& heap) noexcept;
  /// Counts for a thread that holds the heap's lock: at once, and after what it has not told yet.
  void count_tag_locked(std::uint32_t slot, std::uint32_t heap, TagRecord& record, std::int64_t bytes,
                        std::int64_t count) noexcept;
  void spill_tags_locked(ThreadCache& cache) noexcept;

  /// What a check looks at beside what is journaled (runs, slabs, chains, their counts). A running heap keeps each of
  /// these from another instant on (heap/inspector.hpp): its lock's turn, its threads' `entered`, their standing still.
  struct Checks {
    bool derived = true;    ///< what slabs and threads count and list
    bool magazines = true;  ///< what is in magazines, against the states
  };
  /// Checks every invariant of a heap; trusts nothing that it reads. Requires: the heap's lock, all its caches paused.
  std::size_t check_heap_locked(
      std::uint32_t heap, FunctionRef<void(const char*, std::uint64_t, std::uint64_t, std::uint64_t)> report,
      Checks checks) noexcept;
  std::size_t check_heap_locked(
      std::uint32_t heap,
      FunctionRef<void(const char*, std::uint64_t, std::uint64_t, std::uint64_t)> report) noexcept {
    return check_heap_locked(heap, report, Checks{});
  }
  // core_bounds.cpp: whether a record can be used, as far as indices and addresses go.
  [[nodiscard]] bool sound(const RegionCore& region) const noexcept;
  [[nodiscard]] bool sound(const Slab& slab) const noexcept;
  /// Records of a table that were ever used, and never more than it has.
  [[nodiscard]] std::uint32_t slabs_high() const noexcept {
    return std::min(roots_->slab_list.high.get(), geometry_.max_slabs);
  }
  [[nodiscard]] std::uint32_t caches_high() const noexcept {
    return std::min(roots_->cache_list.high.get(), geometry_.max_caches);
  }
  [[nodiscard]] std::uint32_t tags_high() const noexcept {
    return std::min(roots_->tag_list.high.get(), geometry_.max_tags * 4 + 1024);
  }
  [[nodiscard]] std::uint32_t state_words() const noexcept {
    return static_cast<std::uint32_t>(geometry_.small_bytes / sizeof(std::uint16_t));
  }
  [[nodiscard]] const CoreTables& tables() const noexcept { return tables_; }
  /// Counts the objects of a slab by state.
  struct SlabCount {
    std::uint32_t free = 0, cached = 0, held = 0;
  };
  [[nodiscard]] SlabCount count_slab(const Slab& slab) const noexcept;

  void note_out(HeapCore& heap, std::int64_t bytes) noexcept;
  void note_peak(HeapCore& heap) noexcept;

 private:
  [[nodiscard]] std::uint64_t address(std::uint32_t region, std::uint64_t offset) const noexcept {
    return bases_ == nullptr ? make_ptr(region, offset) : bases_[region] + offset;
  }
  static void note_served(RegionCore& region) noexcept {
    if (region.served == 0) region.served = 1;
  }
  void note_freeing(HeapCore& heap, std::uint32_t region) const noexcept;  // before it
  static void note_emptied(HeapCore& heap, const RegionCore& region) noexcept {
    if ((region.flags & kRegionGrown) != 0 && region.pages.free_pages == region.pages.pages) heap.emptied = 1;
  }
  static EXTMEM_ALWAYS_INLINE bool refuse(ThreadCache& cache) noexcept {
    cache.gate.leave();
    return false;
  }
  Result<void> refill(std::uint32_t slot, ThreadCache& cache, std::uint32_t cls) noexcept;
  void take_objects(std::uint32_t slab_index, ThreadCache& cache, std::uint32_t cls) noexcept;
  std::uint32_t new_slab_locked(std::uint32_t slot, std::uint32_t heap, std::uint32_t cls, bool biased,
                                bool& metadata_full, bool& any_region) noexcept;
  bool new_slab_in_region_locked(shared::Transaction& tx, std::uint32_t heap, std::uint32_t region,
                                 std::uint32_t cls, std::uint64_t bytes, std::uint32_t index,
                                 std::uint32_t keeper, bool biased, bool& metadata_full) noexcept;
  void set_slab_map(shared::Transaction& tx, RegionCore& r, std::uint32_t page, std::uint32_t pages,
                    std::uint32_t link) noexcept;
  void release_slab_locked(std::uint32_t slot, std::uint32_t index) noexcept;
  void link_listed(std::uint32_t index) noexcept;
  void unlink_listed(std::uint32_t index) noexcept;
  base::Relaxed<std::uint32_t>& list_of(const Slab& slab) const noexcept;
  void note_returned(std::uint32_t slab_index, std::uint32_t count, std::uint32_t lowest_state) noexcept;
  std::uint32_t give_back_locked(std::uint32_t slab_index, std::uint32_t count, std::uint32_t lowest_state,
                                 std::uint32_t standing) noexcept;
  bool take_back_locked(ThreadCache& cache, std::uint32_t cls) noexcept;
  void sweep_locked(std::uint32_t slot, std::uint32_t keeper, std::uint32_t heap, std::uint32_t cls) noexcept;
  std::uint32_t return_locked(std::uint32_t slot, std::uint32_t standing, const CachedObject* objects,
                              std::uint32_t count) noexcept;
  Result<void> flush_outbox(std::uint32_t slot, ThreadCache& cache, std::uint32_t cls) noexcept;
  std::uint32_t empty_outbox_locked(std::uint32_t slot, ThreadCache& cache, std::uint32_t cls) noexcept;
  void flush_magazines_locked(std::uint32_t slot, ThreadCache& cache) noexcept;
  void release_empty_locked(std::uint32_t slot, ThreadCache& cache, std::uint32_t cls,
                            std::uint32_t keep) noexcept;
  void unbias_locked(std::uint32_t slot, ThreadCache& cache) noexcept;
  Result<void> revoke(std::uint32_t slot, std::uint32_t slab_index) noexcept;
  void rebias(std::uint32_t slot, ThreadCache& cache, std::uint32_t slab_index) noexcept;
  Result<bool> free_draining(std::uint32_t slot, std::uint32_t heap, std::uint32_t slab_index,
                             std::uint64_t first, std::uint32_t state_index, std::uint16_t seen) noexcept;
  TagDelta* delta_of(ThreadCache& cache, std::uint16_t holder) const noexcept;
  Result<void> make_delta(std::uint32_t slot, ThreadCache& cache, std::uint16_t holder) noexcept;
  void note_cached_out(ThreadCache& cache, std::int64_t bytes) noexcept;
  void empty_cache_locked(std::uint32_t slot, ThreadCache& cache) noexcept;
  Result<void> unlink_cache_locked(std::uint32_t slot, ThreadCache& cache) noexcept;
  std::uint32_t free_cached(Slab& slab, std::uint32_t by, std::uint32_t& lowest) noexcept;
  void rebuild_slab(std::uint32_t index) noexcept;
  Result<void> revoke_locked(std::uint32_t slot, std::uint32_t slab_index) noexcept;
  Result<bool> change_state_locked(std::uint32_t slot, std::uint32_t slab_index, std::uint64_t ptr,
                                   std::uint16_t from, std::uint16_t to) noexcept;
  void make_spans_locked(ThreadCache& cache) noexcept;
  void open_spans_locked(ThreadCache& cache) noexcept;
  void close_spans_locked(ThreadCache& cache) noexcept;
  void return_spans_locked(std::uint32_t slot, ThreadCache& cache) noexcept;
  void restore_spans_locked(std::uint32_t slot, ThreadCache& cache) noexcept;
  void disturbed_locked(std::uint32_t slot, ThreadCache& cache) noexcept;
  void count_free_locked(std::uint32_t slot, std::uint32_t heap) noexcept;
  /// Before a change of the heap that no free undoes: the caller's own cached spans are returned, and its row ends.
  void settle_spans_locked(std::uint32_t slot, std::uint32_t heap) noexcept;
  [[nodiscard]] ThreadCache* span_owner_locked(std::uint32_t slot, std::uint32_t heap) const noexcept;
  [[nodiscard]] bool biased_to(const ThreadCache& cache, const RowSpan& span) const noexcept;
  std::size_t check_spans_locked(
      std::uint32_t heap, std::uint64_t cached_heads,
      FunctionRef<void(const char*, std::uint64_t, std::uint64_t, std::uint64_t)> report) const noexcept;
  void free_span_locked(std::uint32_t slot, std::uint32_t heap, std::uint32_t region,
                        std::uint32_t page) noexcept;

  std::byte* segment_ = nullptr;
  const base::Relaxed<std::uintptr_t>* bases_ = nullptr;
  HeapCore* heaps_ = nullptr;
  RegionCore* regions_ = nullptr;
  Slab* slabs_ = nullptr;  // by index: the table's second record is slab 0
  std::atomic<std::uint16_t>* states_ = nullptr;
  ThreadCache* caches_ = nullptr;
  base::Relaxed<std::uint32_t>* cache_rows_ = nullptr;
  shared::ThreadSlot* slots_ = nullptr;
  TagRecord* tags_ = nullptr;
  CoreRoots* roots_ = nullptr;
  CoreTables tables_{};
  shared::Geometry geometry_{};
  shared::Peers peers_{false};
  shared::Ground ground_{};
  std::uint16_t untagged_ = kHolderUntagged;
  bool has_membarrier_ = false;
  bool alone_ = false;
};

}  // namespace extmem::alloc
