// Domain: heaps, regions and memzones with one control segment.
//
// What it is: the owner of everything. Its threads share it; create() makes it private to the process, open() shared by a name.
// Thread-safety: every function may be called by any thread at any time, except close/destruction, which
// requires that no other call is running or follows. Callbacks (visitors, listeners) run under locks: inside,
// what would need a lock that comes before, or the same again, answers EDEADLK.
// Invariants:
//  1. All metadata is in the control segment: closing the domain forgets everything and touches no external
//     memory; memory of own backings is unmapped.
//  2. No two regions of a domain overlap.
//  3. A failed call has changed nothing.
// fork: the child of a private domain has a copy, in which regions in shared mappings drain; in a named domain it is a
// participant of its own from its first call on. It has no listeners. Do not fork inside a callback other than to exec.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "extmem/export.h"
#include "extmem/heap.hpp"
#include "extmem/types.hpp"

namespace extmem {

class EXTMEM_API Domain {
 public:
  /// Makes a domain that is private to this process, with one empty heap for each NUMA node ("node0", ...),
  /// whose ids are the nodes' indices. Errors: EINVAL options out of range; ENOMEM address space.
  static Result<Domain> create(const DomainOptions& options = {}) noexcept;

  /// Opens a domain that processes share by its name, or creates it: whoever comes first. No process is special, any may
  /// leave or be killed at any instruction, and the others go on. Every process of the same user (or group) can open it.
  /// Opened twice in one process it is one participant. Errors: EINVAL, ENAMETOOLONG the name; EEXIST, ENOENT by mode;
  /// EPERM, ELOOP, ENOTSUP the runtime directory is not safe or not on a tmpfs; EUCLEAN, EPROTO, ESTALE what is there is
  /// damaged, of another version or layout, or of before a reboot; ENOSPC; ETIMEDOUT a stopped process is in the way;
  /// EBUSY this process has it open without OpenOptions::same_address and now asks for that.
  static Result<Domain> open(std::string_view name, const OpenOptions& options = {}) noexcept;
  /// Removes a domain that no living process uses, with the memory of its own backings and the files that were to go with
  /// their regions (BackingSpec::unlink_on_remove; of a group's domain those that the group may write to). Errors: EBUSY;
  /// ENOENT; EACCES, EPERM, ... such a file, which the message names, cannot be removed: then the domain stays.
  static Result<void> remove(std::string_view name, const char* directory = nullptr) noexcept;
  /// Visits the named domains of a runtime directory (null: as in OpenOptions); the visitor returns true to go on.
  static Result<void> list(FunctionRef<bool(const DomainInfo&)> visit,
                           const char* directory = nullptr) noexcept;

  Domain() noexcept = default;
  Domain(Domain&& other) noexcept;
  Domain& operator=(Domain&& other) noexcept;
  Domain(const Domain&) = delete;
  Domain& operator=(const Domain&) = delete;
  /// Closes: unmaps own backings and the control segment. Listeners hear `removing`, without a vote.
  ~Domain();
  [[nodiscard]] explicit operator bool() const noexcept { return state_ != nullptr; }

  // ---- heaps -------------------------------------------------------------------------------------------

  /// Errors: EINVAL name empty; ENAMETOOLONG; EEXIST; ENOSPC too many heaps.
  Result<Heap> create_heap(std::string_view name, const HeapOptions& options = {}) noexcept;
  /// Errors: ENOENT.
  Result<Heap> find_heap(std::string_view name) const noexcept;
  Result<Heap> heap_by_id(std::uint32_t id) const noexcept;
  /// The heap of a NUMA node, by the node's number. Errors: ENOENT no such node.
  Result<Heap> heap_of_node(int numa_node) const noexcept;
  /// Errors: EBUSY while it holds a region (the report names who uses it); EPERM a node's heap; ESTALE; what a listener
  /// answered to the removal of an empty region that growth added (those before it are gone then).
  Result<void> destroy_heap(Heap heap, HolderReport* users = nullptr) noexcept;
  /// Visits all heaps in order of their ids; the visitor returns true to go on.
  Result<void> walk_heaps(FunctionRef<bool(const HeapInfo&)> visit) const noexcept;

  // ---- regions -----------------------------------------------------------------------------------------

  /// Lends memory that the caller owns. The caller keeps it mapped until it is removed again.
  /// Errors: EINVAL base, length, page size or table; EEXIST it overlaps a region (also by alone_at_address); EOVERFLOW; ENOSPC control
  /// segment full; EPERM physical IOVAs without privilege; what a listener answered.
  Result<RegionId> add_region(Heap heap, const RegionSpec& spec) noexcept;
  /// Maps memory and gives it to the heap. Errors: also those of mapping, binding, pre-faulting and locking; EEXIST the
  /// file backs a region of this domain already. On errors a file is left as it was.
  Result<RegionId> add_backing(Heap heap, const BackingSpec& spec) noexcept;
  /// From now on this process maps backings at free addresses from `lowest` upwards, above the regions that are there
  /// already: small ones for devices, say. Where none is found the kernel chooses. 0, as from the start: a named domain's
  /// backings go to a window of addresses that Linux leaves free in every process (48 to 56 TiB), a private one's
  /// where the kernel likes. Errors: EINVAL no multiple of 2 MiB, or above 2^46.
  Result<void> place_backings(std::uint64_t lowest) noexcept;
  /// Takes a region away. External memory is left as it is; an own backing is unmapped.
  /// Errors: ENOENT; EBUSY it is used (the report names the holders); what a listener answered.
  Result<void> remove_region(RegionId region, HolderReport* holders = nullptr) noexcept;
  /// Stops new allocations in the region, takes back what threads have cached of it and waits until nothing in
  /// it is held. Afterwards remove_region succeeds. Errors: ENOENT; ETIMEDOUT (the report names the holders; the
  /// region stays draining, see undrain_region); ECANCELED undrain_region was called meanwhile.
  Result<void> drain_region(RegionId region, std::chrono::nanoseconds timeout,
                            HolderReport* holders = nullptr) noexcept;
  /// Lets allocations use a draining region again.
  Result<void> undrain_region(RegionId region) noexcept;
  Result<RegionInfo> region_info(RegionId region) const noexcept;
  /// The file behind a region, to hand its descriptor to another process (see attach_region_file).
  /// Errors: ENOENT; ENOTSUP it has none; ENXIO it is not mapped in this process.
  Result<RegionFile> region_file(RegionId region) const noexcept;
  /// The region that an address lies in. Errors: EFAULT none.
  Result<RegionId> region_of(const void* p) const noexcept;
  Result<void> walk_regions(FunctionRef<bool(const RegionInfo&)> visit) const noexcept;
  /// All runs of consecutive IOVAs of a region.
  Result<void> walk_iova_runs(RegionId region, FunctionRef<bool(const IovaRun&)> visit) const noexcept;

  /// Errors: EINVAL; ENOSPC; EEXIST the pair (listener, arg) is registered.
  Result<void> add_listener(RegionListener listener, void* arg) noexcept;
  /// Errors: ENOENT.
  Result<void> remove_listener(RegionListener listener, void* arg) noexcept;

  // ---- addresses ---------------------------------------------------------------------------------------

  /// The IOVA of a byte; kBadIova (a value, not an error) where none is known. Errors: EFAULT in no region.
  Result<Iova> iova_of(const void* p) const noexcept;
  /// The address that a device's address means; takes a lock. Errors: ENOENT no page has that IOVA; EDEADLK inside a listener or walk.
  Result<void*> address_of(Iova iova) const noexcept;
  /// Whether [p, p + n) is one run of consecutive known IOVAs. Errors: EFAULT not inside one region; EINVAL n 0.
  Result<bool> iova_contiguous(const void* p, std::size_t n) const noexcept;
  /// The runs that [p, p + n) is made of (a scatter list), at most runs.size() of them; offsets count from p.
  /// Returns how many there are in all.
  Result<std::size_t> iova_runs(const void* p, std::size_t n, std::span<IovaRun> runs) const noexcept;
  /// Portable form of a pointer, and back. Errors: EFAULT in no region; from_region_ptr also why the region is not mapped
  /// in this process (ENXIO, EADDRINUSE, ...).
  Result<RegionPtr> to_region_ptr(const void* p) const noexcept;
  Result<void*> from_region_ptr(RegionPtr ptr) const noexcept;

  // ---- objects of any heap -----------------------------------------------------------------------------

  /// As Heap::deallocate, for an object of whichever heap of this domain.
  Result<void> deallocate(void* p) noexcept;
  Result<std::size_t> usable_size(const void* p) const noexcept;
  Result<ObjectInfo> owner_of(const void* p) const noexcept;

  // ---- tags --------------------------------------------------------------------------------------------

  /// The tag of that name, made when it is new. Errors: EINVAL empty; ENAMETOOLONG; ENOSPC too many tags.
  Result<Tag> intern_tag(std::string_view name) noexcept;
  /// Errors: ENOENT.
  Result<const char*> tag_name(Tag tag) const noexcept;

  // ---- memzones ----------------------------------------------------------------------------------------

  /// Reserves memory under a name. length 0: the biggest piece that fits the constraints (and nocross if
  /// given) in the regions that the heap has; it does not grow for that.
  /// Errors: EINVAL; ENAMETOOLONG; EEXIST; ENOSPC too many memzones; ENOMEM.
  Result<MemzoneInfo> reserve_memzone(Heap heap, std::string_view name, std::size_t length,
                                      const AllocOptions& options = {}) noexcept;
  /// Errors: ENOENT.
  Result<MemzoneInfo> find_memzone(std::string_view name) const noexcept;
  Result<void> free_memzone(std::string_view name) noexcept;
  Result<void> walk_memzones(FunctionRef<bool(const MemzoneInfo&)> visit) const noexcept;
  [[nodiscard]] std::size_t memzone_count() const noexcept;

  // ---- processes (of a named domain; else ENOTSUP) -----------------------------------------------------

  [[nodiscard]] bool is_named() const noexcept;
  /// This process' number among the participants, 1 to 256; 0 in a private domain.
  [[nodiscard]] std::uint32_t participant() const noexcept;
  /// Visits the participants; the visitor returns true to go on.
  Result<void> walk_participants(FunctionRef<bool(const ParticipantInfo&)> visit) const noexcept;
  /// Cleans up after every participant that has ended without leaving. Nobody has to call it: a process that meets
  /// what a dead one left does so too. Asks the listeners again about memory that they withheld (RegionEventKind::reclaiming).
  /// Errors: ETIMEDOUT a stopped process is in the way; EDEADLK inside a callback.
  Result<RecoveryReport> recover() noexcept;
  /// recover(), and what others wait for: unmaps regions that they remove, maps those that they have added. What could not
  /// be mapped before (no descriptors, an address that was taken, a listener that refused) is tried again. Calls that
  /// the thread's cache does not serve do so too: a process that makes none for long should call this now and then, for a
  /// drain or a removal by another one waits for it. Errors: as recover().
  Result<void> poll() noexcept;
  /// Makes another participant the holder of an object: it survives this process, and goes with that one.
  /// Errors: those of usable_size; ESRCH no such participant; EALREADY it was freed at the same time; EPERM a memzone;
  /// ETIMEDOUT a stopped process is in the way.
  Result<void> hand_over(const void* p, std::uint32_t participant) noexcept;
  /// Gives a region that this process cannot map by itself (memory that another process owned already) an address here:
  /// the caller's mapping of the same memory, congruent to the adder's modulo 1 GiB. Errors: EINVAL, also for another
  /// address than the adder's where this process wants the same (OpenOptions::same_address); EEXIST; ENOENT.
  Result<void> attach_region(RegionId region, void* base) noexcept;
  /// Maps a region in this process through a descriptor of its memory that somebody handed over (SCM_RIGHTS): for memory
  /// that has no path, where the process that holds it may not be looked into or is gone. `fd` stays the caller's.
  /// `offset`: as region_file tells. Errors: EBADF; ESTALE the file is not the region's memory, or was cut short; EPERM
  /// it could still be cut short; EACCES it is not open for reading and writing; EINVAL the offset; ENOTSUP the region
  /// has no file; EADDRINUSE by OpenOptions::same_address; EEXIST it is mapped here; ENOENT; what a listener answered.
  Result<void> attach_region_file(RegionId region, int fd, std::uint64_t offset = 0) noexcept;

  /// The reverse of attach_region, also for the process that added the region: memory of the caller's that this process
  /// goes without from now on, while the others keep it. What is allocated in it stays so; here it can be freed again after
  /// another attach_region. Requires: no thread of this process uses it meanwhile. Errors: ENOENT the region, or it is not
  /// mapped here; ENOTSUP an own backing; what a listener answered.
  Result<void> detach_region(RegionId region) noexcept;

  // ---- seeing ------------------------------------------------------------------------------------------

  /// Checks every invariant of every heap, region, table. Returns the number of breaches; reports each.
  Result<std::size_t> verify(FunctionRef<void(const Breach&)> report = {}) const noexcept;
  /// Bytes of the control segment that are backed by memory now.
  [[nodiscard]] std::uint64_t metadata_resident_bytes() const noexcept;

 private:
  friend class heap::DomainState;
  explicit Domain(heap::DomainState* state) noexcept : state_(state) {}
  heap::DomainState* state_ = nullptr;
};

}  // namespace extmem
