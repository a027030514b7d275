// DomainState: one process' view of a domain. Everything public ends here.
//
// What it is: the control segment, the alloc layer over it, and what only this process knows: where regions are mapped,
// listeners, growth policies. It lives in a mapping of its own, so that nothing here needs malloc.
// Thread-safety: as the public classes say. Lock order: directory, regions, a heap, metadata.
//
// One source file per concern: threads.cpp (slots, thread exit), domain.cpp (making and closing, heaps), named.cpp (domains that processes share),
// participants.cpp (recovery, leaving), withheld.cpp (what DMA may still use), sync.cpp (mapping what others added), tags.cpp, objects.cpp (allocate,
// free), moving.cpp (objects that take their pages along), regions.cpp (add), removal.cpp (remove, drain), lookup.cpp (addresses), memzones.cpp,
// growth.cpp, inspect.cpp (statistics, holders, verify), walk.cpp.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "alloc/core.hpp"
#include "extmem/domain.hpp"
#include "heap/name_table.hpp"
#include "heap/ordered_guard.hpp"
#include "heap/records.hpp"
#include "heap/region_index.hpp"
#include "heap/thread_memory.hpp"
#include "os/domain_folder.hpp"
#include "os/page_mover.hpp"
#include "shared/control_segment.hpp"
#include "shared/participants.hpp"

namespace extmem::os {
struct SharedFile;
}

namespace extmem::heap {

/// This process' side of a heap. Its address is stable while the domain is open.
struct HeapLocal {
  DomainState* state;  // written once, as id: stale handles read them while a new heap is made here
  std::atomic<std::uint64_t> key;  // of the living heap; 0: none. Relaxed: a handle is passed on by its user
  std::uint32_t id;
  base::Relaxed<bool> exact;  // may be read through a stale handle, to no effect
  base::Relaxed<bool> grows;
  GrowthPolicy growth;  // guarded by the region lock
  char label[kMaxNameLength + 1];
};

inline constexpr std::uint32_t kMaxListeners = 64;

/// A request after all checks, as the alloc layer wants it.
struct CheckedRequest {
  std::uint64_t size = 0;
  std::uint32_t cls = alloc::kClasses;  // the class that can serve it; kClasses: a span
  std::uint16_t holder = alloc::kHolderUntagged;
  alloc::SpanRequest span{};
  alloc::RegionFilter filter{};
};

/// Which holders a report has counted as `more`: each counts once, however many objects it holds.
struct LeftOut {
  std::uint64_t seen[alloc::kMaxHolders / 64] = {};
  /// True at the first time.
  bool add(std::uint16_t holder) noexcept {
    const std::uint64_t bit = std::uint64_t{1} << holder % 64;
    const bool first = (seen[holder / 64] & bit) == 0;
    seen[holder / 64] |= bit;
    return first;
  }
};

class InspectorState;
class MakingNote;

class DomainState {
 public:
  static Result<DomainState*> create(const DomainOptions& options) noexcept;
  void close() noexcept;

  /// One Domain handle less; the last one closes.
  static void drop_user(DomainState* state) noexcept;

  // named.cpp, participants.cpp: domains that processes share
  static Result<DomainState*> open_named(std::string_view name, const OpenOptions& options) noexcept;
  static Result<void> remove_named(std::string_view name, const char* directory) noexcept;
  static Result<void> list_named(const char* directory, FunctionRef<bool(const DomainInfo&)> visit) noexcept;
  [[nodiscard]] bool shared() const noexcept { return shared_; }
  [[nodiscard]] std::uint32_t participant() noexcept {
    if (forked_.load(std::memory_order_relaxed)) (void)thread_slot();  // joins
    return participants_.self();
  }
  Result<void> walk_participants(FunctionRef<bool(const ParticipantInfo&)> visit) noexcept;
  /// Cleans up after every dead participant. Requires: the caller holds no lock.
  Result<RecoveryReport> recover() noexcept;
  /// The same; the first report has in it what opening the domain recovered.
  Result<RecoveryReport> recover_and_tell() noexcept;
  /// recover(), and what others ask of this process: unmapping what they remove.
  Result<void> poll() noexcept;
  Result<void> hand_over(const void* p, std::uint32_t to) noexcept;
  /// Does what has come up since this process last looked: regions and heaps of others, deaths. Does nothing in who holds a lock.
  void tend() noexcept {
    if (shared_ && (behind() || participants_.noticed())) [[unlikely]]
      tend_slowly();
  }
  [[nodiscard]] bool behind() const noexcept {  // others have changed regions or heaps since
    return synced_.load(std::memory_order_acquire) != directory_->epoch.load(std::memory_order_acquire);
  }

  // sync.cpp: mapping what other processes have added
  Result<void> attach_region(RegionId id, void* base) noexcept;
  Result<void> detach_region(RegionId id) noexcept;
  Result<void> attach_region_file(RegionId id, int fd, std::uint64_t offset) noexcept;
  Result<RegionFile> region_file(RegionId id) noexcept;
  /// Whether an attached region is mapped in this process; if not, why. Looks once more before it says no.
  Result<void> mapped_here(std::uint32_t region) noexcept;
  /// Whether a region that is not mapped here has such addresses where it was added. Requires: the region lock; sync_locked().
  [[nodiscard]] bool overlaps_elsewhere(std::uintptr_t base, std::uint64_t length) const noexcept;
  /// Unmaps a region in this process, and says so to the others. Requires: the region lock.
  void unmap_region(std::uint32_t region) noexcept;
  /// Forgets where the region is in this process, if it is mapped here, and unmaps it. Requires: the region lock.
  void forget_region(std::uint32_t region) noexcept;

  // threads.cpp
  /// The calling thread's slot; claims one at the thread's first use. Errors: ENOSPC.
  Result<std::uint32_t> thread_slot() noexcept;
  /// Returns what the thread's caches hold and gives up its slot, if it has one.
  void leave_thread(std::uint32_t thread) noexcept;
  void say_of_end(std::uint64_t ends) noexcept { participants_.say(ends); }
  Result<alloc::ThreadCache*> thread_cache(std::uint32_t slot, const HeapLocal& heap) noexcept;
  /// The same, or null where the thread has no cache there yet.
  alloc::ThreadCache* remember_cache(std::uint32_t slot, const HeapLocal& heap) noexcept;
  void remember(alloc::ThreadCache& cache, const HeapLocal& heap) noexcept;

  // fork.cpp
  /// In the child of a fork, on its only thread, before anything else: what cannot wait until the domain is used.
  /// `slot`: the forking thread's, or 0.
  void forked(std::uint32_t slot) noexcept;
  /// In the same child, before it writes to any region: what a private domain has in shared mappings of backings is copied,
  /// and from then on is anonymous memory of this process. Errors: ENOMEM; those of reading the file.
  Result<void> copy_shared_regions() noexcept;

  // domain.cpp
  Result<Heap> create_heap(std::string_view name, const HeapOptions& options, int node) noexcept;
  Result<Heap> find_heap(std::string_view name) noexcept;
  Result<Heap> heap_by_id(std::uint32_t id) noexcept;
  Result<Heap> heap_of_node(int node) noexcept;
  /// Of a heap that exists, or of whatever has become of it: the caller looks whether it still does.
  [[nodiscard]] HeapInfo heap_info(std::uint32_t id) noexcept;
  Result<void> destroy_heap(Heap heap, HolderReport* users) noexcept;
  Result<void> walk_heaps(FunctionRef<bool(const HeapInfo&)> visit) noexcept;
  Result<Tag> intern_tag(std::string_view name) noexcept;
  Result<const char*> tag_name(Tag tag) noexcept;
  [[nodiscard]] const char* holder_name(std::uint16_t holder) const noexcept;
  [[nodiscard]] bool knows(Tag tag) const noexcept { return tag.index <= tags_.high(); }
  /// This process' holder of objects with a tag; 0: not interned yet (or untagged).
  [[nodiscard]] std::uint16_t holder_of(Tag tag) const noexcept { return tag_holders_[tag.index]; }
  /// The same, interned if need be. Errors: ENOSPC; EDEADLK.
  Result<std::uint16_t> intern_holder(Tag tag) noexcept;
  Result<std::uint16_t> intern_holder_locked(std::uint32_t slot, std::uint32_t participant, Tag tag) noexcept;
  [[nodiscard]] std::uint32_t holder_participant(std::uint16_t holder) const noexcept;
  [[nodiscard]] Tag holder_tag(std::uint16_t holder) const noexcept;
  Result<HeapLocal*> checked(const Heap& heap) noexcept;

  // objects.cpp
  Result<CheckedRequest> check_request(const HeapLocal& heap, std::size_t size,
                                       const AllocOptions& options) noexcept;
  Result<RegionPtr> allocate(HeapLocal& heap, const CheckedRequest& request) noexcept;
  Result<void*> allocate_pointer(HeapLocal& heap, std::size_t size, const AllocOptions& options) noexcept;
  Result<void*> reallocate(HeapLocal& heap, void* p, std::size_t new_size,
                           const AllocOptions& options) noexcept;
  Result<void> deallocate(HeapLocal* heap, void* p) noexcept;
  // What the hot paths want of a handle (hot_paths.hpp).
  static std::uint64_t key_of(const Heap& heap) noexcept { return heap.key_; }
  static Result<void> deallocate_shared(Heap heap, void* p) noexcept { return heap.deallocate_shared(p); }
  /// The same for memory that need not be mapped here.
  Result<void> deallocate_at(HeapLocal& heap, RegionPtr ptr) noexcept;
  bool cache_span(std::uint32_t slot, const HeapLocal& heap, RegionPtr ptr) noexcept;
  /// The object at or around p. Errors: EFAULT in no region.
  Result<ObjectInfo> object_at(const void* p, std::uint16_t* holder) noexcept;
  /// The same by its place, whether or not it is mapped here; base is `address` + what lies before the object.
  ObjectInfo object_in(std::uint32_t region, std::uint64_t offset, std::uintptr_t base,
                       std::uint16_t* holder) noexcept;
  Result<ObjectInfo> held_object(const HeapLocal* heap, const void* p, std::uint16_t* holder) noexcept;

  // moving.cpp
  /// Moves an object's pages to its new place, where only the CPU can have to do with them. The caller copies the rest.
  os::Moved move_pages(HeapLocal& heap, std::uint32_t slot, std::uint32_t from_region, void* from,
                       RegionPtr to, std::uint64_t bytes) noexcept;

  // regions.cpp, removal.cpp
  // With the handle, not the heap: whether it is still the heap that is meant, only the lock can say.
  Result<RegionId> add_region(Heap handle, const RegionSpec& spec) noexcept;
  Result<RegionId> add_backing(Heap handle, const BackingSpec& spec) noexcept;
  Result<void> place_backings(std::uint64_t lowest) noexcept;
  Result<void> remove_region(RegionId id, HolderReport* holders) noexcept;
  Result<void> drain_region(RegionId id, std::chrono::nanoseconds timeout, HolderReport* holders) noexcept;
  Result<void> undrain_region(RegionId id) noexcept;
  Result<RegionInfo> region_info(RegionId id) noexcept;
  [[nodiscard]] RegionInfo make_region_info(std::uint32_t slot, bool with_runs) noexcept;
  Result<void> add_listener(RegionListener listener, void* arg) noexcept;
  Result<void> remove_listener(RegionListener listener, void* arg) noexcept;
  Result<void> walk_regions(FunctionRef<bool(const RegionInfo&)> visit) noexcept;
  /// The slot of a living region. Errors: ENOENT.
  Result<std::uint32_t> checked_region(RegionId id) noexcept;

  // lookup.cpp
  /// The region that holds the address, or null; this thread remembers it. For who allocates and frees.
  RegionLocal* region_at(const void* p) noexcept;
  /// The same, but what the thread remembers stays as it is. For who only looks up.
  [[nodiscard]] const RegionLocal* look_up(const void* p) noexcept;
  Result<RegionId> region_of(const void* p) noexcept;
  Result<Iova> iova_of(const void* p) noexcept;
  Result<void*> address_of(Iova iova) noexcept;
  Result<std::size_t> iova_runs(const void* p, std::size_t n, std::span<IovaRun> runs,
                                bool* contiguous) noexcept;
  Result<void> walk_iova_runs(RegionId id, FunctionRef<bool(const IovaRun&)> visit) noexcept;
  Result<RegionPtr> to_region_ptr(const void* p) noexcept;
  Result<void*> from_region_ptr(RegionPtr ptr) noexcept;
  [[nodiscard]] void* address(RegionPtr ptr) const noexcept {
    return reinterpret_cast<void*>(bases_[ptr.slot()].get() + ptr.offset());
  }

  // memzones.cpp
  Result<MemzoneInfo> reserve_memzone(Heap handle, std::string_view name, std::size_t length,
                                      const AllocOptions& options) noexcept;
  Result<MemzoneInfo> find_memzone(std::string_view name) noexcept;
  Result<void> free_memzone(std::string_view name) noexcept;
  Result<void> walk_memzones(FunctionRef<bool(const MemzoneInfo&)> visit) noexcept;
  [[nodiscard]] std::size_t memzone_count() const noexcept { return directory_->memzone_count; }
  [[nodiscard]] const char* memzone_name_at(RegionPtr ptr) const noexcept;

  // growth.cpp
  static Result<void> check_growth(const GrowthPolicy& growth) noexcept;
  /// The OS page that a policy's backing comes in, so far as can be told before it is mapped.
  static std::uint64_t growth_page(const BackingSpec& backing) noexcept;
  /// Adds memory by the heap's policy. True: trying again makes sense; `added` is then the new region, or none where
  /// somebody else has added one since growths_seen. False: `why` says what is in the way, where that is known.
  bool grow(HeapLocal& heap, std::uint64_t bytes, std::uint64_t growths_seen, RegionId& added,
            Error& why) noexcept;
  /// Removes a region that was grown in vain. False: others use it now, or gave it back.
  bool take_back_growth(RegionId region) noexcept;
  /// Removes grown regions that are empty, but one.
  void give_back(HeapLocal& heap) noexcept;
  void ask_to_unmap(std::uint32_t region) noexcept;
  void keep_grown(std::uint32_t region) noexcept;
  /// give_back, after a free or the flush of a magazine of slabs. A hint without a lock; give_back looks for itself.
  void tidy_growth(HeapLocal& heap) noexcept {
    if (heap.grows && core_.heap(heap.id).emptied != 0) [[unlikely]]
      give_back(heap);
  }
  void tidy_growth(std::uint32_t heap) noexcept { tidy_growth(heap_locals_[heap]); }

  // inspect.cpp, walk.cpp
  Result<HeapStats> stats(HeapLocal& heap) noexcept;
  Result<std::size_t> tag_stats(HeapLocal& heap, std::span<TagStats> out) noexcept;
  Result<std::size_t> verify_heap(HeapLocal& heap, FunctionRef<void(const Breach&)> report) noexcept;
  /// Requires: the heap stands still. `quiet_names`: so does the directory.
  std::size_t verify_heap_paused(std::uint32_t heap, FunctionRef<void(const Breach&)> report,
                                 alloc::Core::Checks checks, FunctionRef<bool()> quiet_names) noexcept;
  /// The parts of verify() beside the heaps. Require: the directory's lock; the region lock; a space's lock.
  std::size_t verify_names_locked(FunctionRef<void(const Breach&)> report) noexcept;
  /// That the memzones of a heap have their memory. Requires: the directory's lock.
  std::size_t verify_zones_locked(std::uint32_t heap, FunctionRef<void(const Breach&)> report) noexcept;
  std::size_t verify_regions_locked(FunctionRef<void(const Breach&)> report) noexcept;
  std::size_t verify_space_locked(bool large, FunctionRef<void(const Breach&)> report) noexcept;
  Result<std::size_t> verify(FunctionRef<void(const Breach&)> report) noexcept;
  Result<void> walk(HeapLocal& heap, FunctionRef<bool(const WalkEntry&)> visit,
                    const WalkOptions& options) noexcept;
  Result<void> flush(HeapLocal& heap) noexcept;
  Result<void> holders(HeapLocal& heap, HolderReport& report) noexcept;
  /// Adds who holds memory of a region to a report. Requires: the heap's lock.
  void report_holders_locked(std::uint32_t region, HolderReport& report, LeftOut& left_out) noexcept;
  [[nodiscard]] std::uint64_t resident_bytes() const noexcept { return segment_.resident_bytes(); }

  // What the inline paths of the public classes need.
  alloc::Core core_;
  RegionIndex index_;
  base::Relaxed<std::uintptr_t>* bases_ = nullptr;  // by region slot
  RegionLocal* locals_ = nullptr;                   // by region slot
  std::uint32_t serial_ = 0;                        // this domain among all that this process ever opened
  DomainState* next_live_ = nullptr;                // threads.cpp's list

 private:
  friend class extmem::Domain;
  friend class InspectorState;
  DomainState() noexcept = default;
  ~DomainState() = default;

  struct Tables {
    shared::SegmentLayout layout;
    std::uint64_t directory, participants, heaps_hash, tags_hash, zones_hash, zones_by_ptr, always;
    std::uint64_t heaps, tags, holders, zones, shares, mapped;
    std::uint32_t heap_heads, tag_heads, zone_heads, holder_count;
    alloc::CoreTables core;
  };
  static Result<void> check_options(const DomainOptions& options) noexcept;
  static Result<DomainState*> make(const DomainOptions& options) noexcept;
  void unmake() noexcept;
  static shared::Geometry geometry_of(const DomainOptions& options) noexcept;
  static DomainOptions options_of(const shared::Geometry& geometry) noexcept;
  static Tables place_tables(const shared::Geometry& geometry) noexcept;
  void bind_tables(const Tables& tables, const shared::Geometry& geometry) noexcept;
  void format_tables(const Tables& tables, const shared::Geometry& geometry) noexcept;
  Result<std::uint32_t> claim_slot(std::uint32_t thread) noexcept;
  [[nodiscard]] std::uint32_t slot_of(std::uint64_t owner) const noexcept;
  Result<bool> take_slot(std::uint32_t slot, std::uint64_t me) noexcept;
  void tidy_slots(std::uint64_t me) noexcept;
  void give_slot_back(std::uint32_t slot) noexcept;
  Result<RegionId> add_locked(HeapLocal& heap, const RegionSpec& spec, const os::Mapping* mapping, bool grown,
                              bool unlink) noexcept;
  Result<RegionId> add_backing_locked(HeapLocal& heap, const BackingSpec& spec, bool grown) noexcept;
  Result<os::Mapping> map_backing(const BackingSpec& spec, MakingNote& note) noexcept;
  /// Adds what was mapped, or unmaps it again. Requires: the region lock.
  Result<RegionId> add_mapped(HeapLocal& heap, const BackingSpec& spec, os::Mapping& mapping,
                              bool grown) noexcept;
  [[nodiscard]] bool backs_a_region(const os::Mapping& mapping) noexcept;
  /// Undoes map_backing: a file that it made goes, one that was there stays.
  static void drop_mapping(os::Mapping& mapping) noexcept;
  Result<void> remove_locked(std::uint32_t region, HolderReport* holders) noexcept;
  /// Gives a region's record and tables back. Requires: the region lock.
  void release_region(std::uint32_t slot, std::uint32_t region) noexcept;
  int notify(RegionEventKind kind, std::uint32_t region, bool foreign = false) noexcept;
  /// The lowest address for the next backing by place_backings(), or 0. Requires: the region lock.
  [[nodiscard]] std::uint64_t next_address() noexcept;
  /// An address for a backing of a shared domain that every participant is likely to have free, or 0. Takes no lock.
  [[nodiscard]] std::uint64_t window_address(std::uint64_t length, std::uint64_t align) noexcept;
  Result<void> make_node_heaps() noexcept;
  void refresh_heap(std::uint32_t id) noexcept;
  void tend_slowly(bool again = false) noexcept;
  /// `again`: also what could not be mapped before for want of its address.
  void sync_locked(bool again = false) noexcept;
  Result<void> map_foreign(std::uint32_t region) noexcept;
  /// Maps a region from its file and tells the listeners. The descriptor is the mapping's from then on, or closed.
  Result<void> map_from(std::uint32_t region, int fd) noexcept;
  /// Publishes a mapping of a region that another process has added and tells the listeners, or undoes that.
  Result<void> publish_foreign(std::uint32_t region, std::uintptr_t base,
                               const os::Mapping* mapping) noexcept;
  void publish_local(std::uint32_t region, std::uintptr_t base, const os::Mapping* mapping,
                     BackingKind kind) noexcept;
  void describe_share(std::uint32_t region, const os::Mapping* mapping) noexcept;
  /// What is left to do in this process where it announces a change: to look at everything, as the others do, or nothing.
  enum class Here : bool { look, done };
  /// Tells every participant that regions or heaps have come or gone.
  void announce(Here here = Here::look) noexcept;
  /// Errors: EBUSY other processes map the region: the report names them.
  Result<void> check_unmapped_elsewhere(std::uint32_t region, HolderReport* holders) noexcept;
  Result<void> clean(std::uint32_t participant, std::uint32_t slot, RecoveryReport& report) noexcept;
  Result<void> clean_heaps(std::uint32_t participant, bool garbage, std::uint32_t slot,
                           RecoveryReport& report) noexcept;
  // withheld.cpp: memory of dead ones that listeners do not let go yet
  Result<void> ask_about(std::uint32_t dead, bool& garbage, std::uint32_t slot) noexcept;
  Result<void> ask_again(std::uint32_t slot, RecoveryReport& report) noexcept;
  [[nodiscard]] bool agreed(std::uint32_t region, std::uint32_t dead, std::uint32_t pid) noexcept;
  Result<void> withhold(std::uint32_t region, std::uint32_t dead, std::uint32_t pid,
                        std::uint32_t slot) noexcept;
  Result<void> free_withheld(std::uint32_t region, std::uint32_t slot, RecoveryReport& report) noexcept;
  [[nodiscard]] bool withheld(std::uint32_t region) const noexcept;
  [[nodiscard]] bool may_ask_for(std::uint32_t participant) noexcept;
  Result<void> clean_regions(FunctionRef<bool(std::uint32_t)> slot_died, std::uint32_t slot,
                             RecoveryReport& report) noexcept;
  static Result<void> remove_path(const RegionShare& share, bool of_group) noexcept;
  Result<int> open_region_path(const RegionShare& share, const os::SharedFile& file) noexcept;
  static Result<void> remove_paths(os::DomainFolder& folder, int control) noexcept;
  [[nodiscard]] bool names_file(const os::SharedFile& file) const noexcept;
  Result<void> open_control(const OpenOptions& options) noexcept;
  Result<void> join() noexcept;
  Result<void> intern_orphans(std::uint32_t dead, std::uint32_t slot) noexcept;
  [[nodiscard]] std::uint16_t orphan_of(std::uint16_t holder) const noexcept;
  /// This process' view of the domain in an open folder, with one more user, or null.
  static DomainState* find_live(int folder) noexcept;
  /// Regions that were ever used: [1, this].
  [[nodiscard]] std::uint32_t regions_high() const noexcept {
    return std::min(directory_->regions.high.get(), core_.geometry().max_regions);
  }
  /// Thread slots that were ever used: [1, this].
  [[nodiscard]] std::uint32_t slots_high() const noexcept {
    return std::min(directory_->slots_high.get(), core_.geometry().max_threads);
  }
  [[nodiscard]] bool lacks_region_of(const HeapLocal& heap) const noexcept;  // one not mapped here; a hint
  void leave() noexcept;
  void finish_leaving() noexcept;
  /// At the first use in a fork's child. Errors: those of joining; ESTALE; EDEADLK.
  Result<void> after_fork() noexcept;
  Result<void> join_anew() noexcept;
  Result<void> bury_other_threads() noexcept;
  Result<void> bury_caches(std::uint32_t slot) noexcept;
  Result<void> retire_shared_regions(std::uint32_t slot) noexcept;
  Result<void> remove_leftovers(std::uint32_t dead, std::uint32_t slot) noexcept;
  [[nodiscard]] base::Relaxed<std::uint32_t>& mapped(std::uint32_t participant,
                                                     std::uint32_t region) const noexcept {
    return mapped_[std::uint64_t{participant} * (core_.geometry().max_regions + 1) + region];
  }
  /// The same to be read: 0 also where a participant's row has no space yet.
  [[nodiscard]] std::uint32_t mapped_by(std::uint32_t participant, std::uint32_t region) const noexcept;
  MemzoneInfo make_memzone_info(const MemzoneRecord& record) noexcept;
  Result<RegionPtr> allocate_biggest(HeapLocal& heap, const AllocOptions& options,
                                     std::uint64_t& length) noexcept;
  [[nodiscard]] shared::Transaction transaction(std::uint32_t slot) noexcept {
    return core_.transaction(slot);
  }

  struct Listener {
    RegionListener fn;
    void* arg;
  };

  shared::ControlSegment segment_;
  Directory* directory_ = nullptr;
  NameTable<HeapRecord> heaps_;
  NameTable<TagName> tags_;
  NameTable<MemzoneRecord> memzones_;
  base::Relaxed<std::uint32_t>* memzones_by_ptr_ = nullptr;
  std::uint32_t memzone_mask_ = 0;
  HolderRecord* holders_ = nullptr;
  std::uint32_t holder_count_ = 0;
  RegionShare* shares_ = nullptr;                        // by region slot
  base::Relaxed<std::uint32_t>* mapped_ = nullptr;       // by participant and region: 0 no, 1 yes, 2 + fd
  base::Relaxed<std::uint16_t>* tag_holders_ = nullptr;  // by tag: this process' holder of it
  HeapLocal* heap_locals_ = nullptr;
  DomainOptions options_{};
  std::byte* mapping_ = nullptr;
  std::uint64_t mapping_bytes_ = 0;      // of the mapping that this object lives in
  Listener listeners_[kMaxListeners]{};  // guarded by the region lock
  std::uint32_t listener_count_ = 0;
  os::PageMover mover_;

  // Between processes.
  bool shared_ = false;
  bool looking_ = false;  // the segment is an inspector's own copy, in which nobody works
  bool remove_when_last_ = false;
  bool same_address_ = false;                    // OpenOptions::same_address
  base::Relaxed<std::uint64_t> lowest_address_;  // place_backings(); 0: anywhere. Read without the lock, too
  // What opening recovered, until one exchanges 1 for 0. Pairs with nothing: written before there is a second user.
  RecoveryReport opening_{};
  std::atomic<std::uint32_t> opening_untold_{0};
  std::uint32_t users_ = 1;  // Domain handles of this process (threads.cpp's lock)
  // fork.cpp: this process is a fork's child and has not used the domain yet. Release/acquire: with what the use needs.
  std::atomic<bool> forked_{false};
  bool severed_ = false;           // forked inside a callback: its locks are the parent's
  std::uint32_t forked_slot_ = 0;  // of the thread that forked
  // Where claim_slot looks for a free slot first, and how many may be in use before it looks after threads that ended
  // without giving theirs back. Relaxed: hints of this process, under which nothing is passed on.
  std::atomic<std::uint32_t> free_slots_from_{1};
  std::atomic<std::uint32_t> tidy_slots_at_{kFewSlots};
  static constexpr std::uint32_t kFewSlots = 32;
  shared::Lock fork_lock_{};
  shared::Lock refresh_lock_{};  // guards the writing of HeapLocals
  shared::Participants participants_;
  shared::Ground ground_;
  os::DomainFolder folder_;
  os::WatchedDescriptor token_;
  std::atomic<std::uint64_t> synced_{0};        // the directory's epoch seen here. Release/acquire: with that
  std::atomic<std::uint64_t> own_sequence_{0};  // the index's word in a private domain
  char name_[kMaxNameLength + 1] = {};
};

constexpr std::uint64_t make_heap_key(std::uint32_t serial, std::uint32_t generation,
                                      std::uint32_t id) noexcept {
  return std::uint64_t{serial} << 40 | std::uint64_t{generation & 0xffffff} << 16 | id;
}

}  // namespace extmem::heap
