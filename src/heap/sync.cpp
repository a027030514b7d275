// Regions and heaps that other processes have added or taken away: noticing, mapping, unmapping.
//
// A process maps a region when it next looks after the region was added (tend), at the address that the adder has it at
// if that is free here, else at another one congruent to it modulo kCongruence: so every alignment holds everywhere.
// What cannot be mapped is left alone until poll() tries again: allocations of this process are then served from other
// regions, and look-ups say why (mapped_here). With OpenOptions::same_address no other address will do.
#include <cstring>

#include "alloc/heap_guard.hpp"
#include "alloc/span_magazines.hpp"
#include "base/error.hpp"
#include "heap/domain_state.hpp"
#include "os/backing.hpp"
#include "os/descriptor.hpp"
#include "os/kernel_text.hpp"
#include "os/mapping.hpp"
#include "os/shared_mapping.hpp"

namespace extmem::heap {

void DomainState::announce(Here here) noexcept {
  if (!shared_) return;
  // Release: who sees the new epoch sees what it is about.
  std::uint64_t before = directory_->epoch.fetch_add(1, std::memory_order_release);
  // Who has seen all but this has seen all. Else each of n changes of ours would look at all n regions and heaps.
  if (here == Here::done)
    (void)synced_.compare_exchange_strong(before, before + 1, std::memory_order_acq_rel,
                                          std::memory_order_relaxed);
  for (std::uint32_t i = 1; i <= shared::kMaxParticipants; ++i) {
    if (i == participants_.self()) continue;
    shared::Participant& other = participants_.record(i);
    if (shared::Participant::life_of(other.state.load(std::memory_order_acquire)) != shared::Life::alive)
      continue;
    other.sequence.fetch_add(2, std::memory_order_release);  // pairs with the acquire of its fast paths
  }
}

namespace {

constexpr ErrorInfo kAddressTaken{
    EADDRINUSE,
    "the region's address is taken in this process, which wants the same one as "
    "the adder's: RegionInfo::adder_base says which"};

/// kAddressTaken with the address in its message, which lives until this thread's next such error.
Error address_taken(std::uint64_t address) noexcept {
  struct Taken {
    ErrorInfo info;
    os::Path text;
  };
  static thread_local constinit Taken taken{{EADDRINUSE, nullptr}, os::Path()};
  taken.text = os::Path("the region is at ");
  taken.text.add_hex(address).add(
      " in the process that added it, this process wants the same address (same_address), and something else "
      "is "
      "there (/proc/self/maps): free that address and poll()");
  taken.info.message = taken.text.c_str();
  return Error(&taken.info);
}

}  // namespace

void DomainState::tend_slowly(bool again) noexcept {
  auto slot = thread_slot();
  if (!slot || core_.slot(*slot).ranks != 0) return;  // inside a callback: later
  if (participants_.noticed()) {
    if (auto recovered = recover(); !recovered) return;
  }
  const OrderedGuard guard(core_, *slot, directory_->region_lock, Rank::regions);
  if (!guard.held()) return;
  sync_locked(again);
}

void DomainState::sync_locked(bool again) noexcept {
  const std::uint64_t epoch = directory_->epoch.load(std::memory_order_acquire);
  for (std::uint32_t id = 0; id < heaps_.high(); ++id) refresh_heap(id);
  index_.forget_elsewhere();
  for (std::uint32_t region = 1; region <= regions_high(); ++region) {
    const alloc::RegionCore& core = core_.region(region);
    RegionLocal& local = locals_[region];
    const bool there = (core.flags & alloc::kRegionAttached) != 0;
    if (local.generation != core.generation || again) local.refused = nullptr;
    if (!there) continue;
    if (bases_[region] == 0) {
      const bool tried = local.refused != nullptr && local.generation == core.generation;
      if (!tried && (core.flags & alloc::kRegionDraining) == 0) {
        local.generation = core.generation;
        local.refused = map_foreign(region).error().info();
      }
      if (bases_[region] == 0) index_.add_elsewhere(region);
    } else if ((core.flags & alloc::kRegionDraining) != 0 && core.asked != 0 &&
               (core.asked & ~alloc::kAskedByHeap) != participants_.self() &&
               core_.region_empty_locked(region) && local.kind != BackingKind::external) {
      // Somebody wants to remove it: nothing is there any more. What the caller mapped is the caller's to unmap.
      if (notify(RegionEventKind::removing, region) == 0) {
        forget_region(region);
        index_.add_elsewhere(region);
        if ((core.flags & alloc::kRegionGrown) != 0) core_.heap(core.heap).emptied = 1;  // see ask_to_unmap
      } else if ((core.asked & alloc::kAskedByHeap) != 0) {
        keep_grown(region);
      }
    }
  }
  index_.touch();
  synced_.store(epoch, std::memory_order_release);
}

/// A listener here keeps a grown region that the heap wanted to give back: so it serves allocations again. The heap asks once
/// more when the region is emptied again, or when statistics are asked for. Requires: the region lock.
void DomainState::keep_grown(std::uint32_t region) noexcept {
  alloc::RegionCore& core = core_.region(region);
  auto slot = thread_slot();
  if (!slot) return;
  const alloc::HeapGuard guard(core_, *slot, core.heap);
  if (!guard.held() || !core_.set_draining_locked(*slot, region, false)) return;
  core.asked = 0;
  announce();
}

void DomainState::publish_local(std::uint32_t region, std::uintptr_t base, const os::Mapping* mapping,
                                BackingKind kind) noexcept {
  const alloc::RegionCore& core = core_.region(region);
  RegionLocal& local = locals_[region];
  if (shared_) refresh_heap(core.heap);
  local.base = base;
  local.length = core.length;
  local.descs = segment_.at<alloc::PageDesc>(core.pages.descs_offset);
  local.page_shift = core.pages.page_shift;
  local.slot = region;
  local.heap = core.heap;
  local.generation = core.generation;
  local.refused = nullptr;
  local.reverse.store(nullptr, std::memory_order_relaxed);
  const region::IovaTable& table = core.iova;
  local.iova_frames = region::flat_frames(table, core_.segment(), core.length);
  local.iova_base = table.iova_base;
  local.iova_shift = table.os_page_shift;
  local.iova_bad = table.has_bad;
  const alloc::PageSpace& pages = core.pages;
  const bool exact = core_.heap(core.heap).exact != 0;
  local.slab_mapped = !exact && alloc::has_slab_map(pages.pages, pages.page_shift) ? core.length.get() : 0;
  const bool cacheable = exact && pages.page_shift == alloc::kSpanUnitShift;
  local.exact = cacheable ? std::uint64_t{pages.pages} << alloc::kSpanUnitShift : 0;
  local.cpu = (core.flags & alloc::kRegionCpu) != 0 ? core.length.get() : 0;
  local.slab_map = core_.slab_map(core);
  local.kind = kind;
  local.mapping = mapping != nullptr ? *mapping : os::Mapping{};
  if (shared_)
    mapped(participants_.self(), region) =
        local.mapping.fd >= 0 ? static_cast<std::uint32_t>(local.mapping.fd) + 2 : 1;
  bases_[region] = base;
  index_.insert(base, core.length, region);
}

void DomainState::forget_region(std::uint32_t region) noexcept {
  if (bases_[region] == 0) return;  // this process has never mapped it
  index_.erase(locals_[region].base);
  unmap_region(region);
}

void DomainState::unmap_region(std::uint32_t region) noexcept {
  RegionLocal& local = locals_[region];
  bases_[region] = 0;
  if (std::uint32_t* words = local.reverse.load(std::memory_order_acquire); words != nullptr) {
    os::unmap(words, local.reverse_bytes);
    local.reverse.store(nullptr, std::memory_order_relaxed);
  }
  if (local.kind != BackingKind::external) (void)os::close_backing(local.mapping);
  local.mapping = os::Mapping{};
  if (participants_.self() != 0) mapped(participants_.self(), region) = 0;
}

/// A file of the domain's folder by its name there: its path may be another one here, in another mount namespace or behind a
/// chroot.
Result<int> DomainState::open_region_path(const RegionShare& share, const os::SharedFile& file) noexcept {
  if (std::memchr(share.path, '\0', sizeof share.path) == nullptr)
    return EXTMEM_ERROR(EUCLEAN, "the region's record is damaged: run verify, and remove the domain");
  const char* const name = std::strrchr(share.path, '/');
  if (share.unlink == 1 && name != nullptr) {
    if (auto fd = folder_.open_file(name + 1, false); fd) return os::checked_shared(*fd, file);
  }
  return os::open_shared_path(share.path, file);
}

Result<void> DomainState::map_foreign(std::uint32_t region) noexcept {
  const alloc::RegionCore& core = core_.region(region);
  if (!core_.sound(core))
    return EXTMEM_ERROR(EUCLEAN, "the region's record is damaged: run verify, and remove the domain");
  const RegionShare& share = shares_[region];
  os::SharedFile file;
  file.device = share.device;
  file.inode = share.inode;
  file.bytes = core.length;
  const auto reach = static_cast<Reach>(share.reach.get());
  int fd = -1;
  if (reach == Reach::path) {
    EXTMEM_TRY(opened, open_region_path(share, file));
    fd = opened;
  } else if (reach == Reach::holder) {
    bool held = false;
    for (std::uint32_t i = 1; i <= shared::kMaxParticipants && fd < 0; ++i) {
      const std::uint32_t has = mapped_by(i, region);
      if (i == participants_.self() || has == 0) continue;
      held = true;
      if (has < 2) continue;
      if (auto opened = os::open_shared_holder(participants_.record(i).pid, static_cast<int>(has - 2), file);
          opened) {
        fd = *opened;
      } else if (const int code = opened.error().code(); code == EMFILE || code == ENFILE) {
        return opened.error();  // nobody else's can be opened either
      }
    }
    if (!held)
      return EXTMEM_ERROR(
          ENXIO,
          "the region's memory went with the last process that had it (a memfd has no name to find it by): "
          "free what is in the region and remove it, or attach the file (attach_region_file) if somebody "
          "kept it open; for memory that is to stay choose another kind");
    if (fd < 0)
      return EXTMEM_ERROR(
          ENXIO,
          "no living process that holds the region's memory can be reached from here: one that "
          "has it can hand its descriptor over (region_file, attach_region_file)");
  } else {
    return EXTMEM_ERROR(ENXIO,
                        "the region is memory of another process that cannot be mapped here by itself: "
                        "attach_region gives it a mapping of yours");
  }
  return map_from(region, fd);
}

Result<void> DomainState::map_from(std::uint32_t region, int fd) noexcept {
  os::Descriptor file(fd);
  const alloc::RegionCore& core = core_.region(region);
  const RegionShare& share = shares_[region];
  os::SharedMappingRequest request;
  request.fd = fd;
  request.length = core.length;
  request.wanted = core.phase;
  request.only_there = same_address_;
  auto base = os::map_shared_at(request);
  if (!base) return same_address_ && base.error().code() == EEXIST ? Error(&kAddressTaken) : base.error();
  os::Mapping mapping;
  mapping.addr = *base;
  mapping.length = core.length;
  mapping.os_page_size = share.os_page_size;
  mapping.kind = static_cast<BackingKind>(share.kind.get());
  mapping.node = core.node;
  mapping.fd = file.release();
  mapping.device = share.device;
  mapping.inode = share.inode;
  return publish_foreign(region, reinterpret_cast<std::uintptr_t>(*base), &mapping);
}

Result<void> DomainState::publish_foreign(std::uint32_t region, std::uintptr_t base,
                                          const os::Mapping* mapping) noexcept {
  publish_local(region, base, mapping, mapping != nullptr ? mapping->kind : BackingKind::external);
  if (const int refused = notify(RegionEventKind::added, region, true); refused != 0) {
    forget_region(region);
    return EXTMEM_SYS_ERROR(refused < 0 ? -refused : refused,
                            "a listener of this process refused the region: it is not mapped here");
  }
  return {};
}

bool DomainState::overlaps_elsewhere(std::uintptr_t base, std::uint64_t length) const noexcept {
  for (const std::uint32_t region : index_.elsewhere()) {
    const alloc::RegionCore& core = core_.region(region);
    if ((core.flags & alloc::kRegionAttached) == 0 || bases_[region] != 0) continue;
    if (core.phase - base < length || base - core.phase < core.length) return true;
  }
  return false;
}

Result<void> DomainState::mapped_here(std::uint32_t region) noexcept {
  if (!shared_ || bases_[region] != 0) return {};
  tend_slowly();
  if (bases_[region] != 0) return {};
  const ErrorInfo* const why = locals_[region].refused;
  if (why == &kAddressTaken) return address_taken(core_.region(region).phase);
  if (why != nullptr) return Error(why);
  return EXTMEM_ERROR(
      ENXIO,
      "the region is not mapped in this process: it is being drained, or was added during this "
      "callback");
}

Result<void> DomainState::attach_region(RegionId id, void* base) noexcept {
  EXTMEM_TRY(slot, thread_slot());
  const OrderedGuard guard(core_, slot, directory_->region_lock, Rank::regions);
  if (!guard.held())
    return guard.refused(
        EXTMEM_ERROR(EDEADLK, "regions cannot be attached inside a listener or a walk over regions"));
  EXTMEM_TRY(region, checked_region(id));
  const auto at = reinterpret_cast<std::uintptr_t>(base);
  const alloc::RegionCore& core = core_.region(region);
  if (base == nullptr) return EXTMEM_ERROR(EINVAL, "the mapping's address is null");
  if (bases_[region] != 0) return EXTMEM_ERROR(EEXIST, "the region is mapped in this process already");
  if (same_address_ && at != core.phase) {
    return EXTMEM_ERROR(
        EINVAL,
        "this process wants regions at their adder's address only (same_address): map the memory "
        "at RegionInfo::adder_base");
  }
  if (((at ^ core.phase) & (os::kCongruence - 1)) != 0) {
    return EXTMEM_ERROR(EINVAL,
                        "the mapping must be congruent to the adder's address modulo 1 GiB, or alignments "
                        "would not hold here");
  }
  if (index_.overlapping(at, core.length) != 0)
    return EXTMEM_ERROR(EEXIST, "the memory overlaps a region that is already mapped here");
  return publish_foreign(region, at, nullptr);
}

Result<void> DomainState::detach_region(RegionId id) noexcept {
  EXTMEM_TRY(slot, thread_slot());
  const OrderedGuard guard(core_, slot, directory_->region_lock, Rank::regions);
  if (!guard.held())
    return guard.refused(
        EXTMEM_ERROR(EDEADLK, "regions cannot be detached inside a listener or a walk over regions"));
  EXTMEM_TRY(region, checked_region(id));
  if (bases_[region] == 0) return EXTMEM_ERROR(ENOENT, "the region is not mapped in this process");
  if (locals_[region].kind != BackingKind::external)
    return EXTMEM_ERROR(ENOTSUP,
                        "extmem maps this region by itself: only memory of the caller's can be detached");
  const alloc::RegionCore& core = core_.region(region);
  // A thread takes objects from slabs of its own without a lock: so those of this region must be nobody's meanwhile.
  const bool drains = (core.flags & alloc::kRegionSlabs) != 0 && (core.flags & alloc::kRegionDraining) == 0;
  const auto drain = [&](bool on) -> Result<void> {
    if (!drains) return {};
    const alloc::HeapGuard heap(core_, slot, core.heap);
    if (!heap.held())
      return heap.refused(EXTMEM_ERROR(EDEADLK, "a region cannot be detached inside a walk over its heap"));
    return core_.set_draining_locked(slot, region, on);
  };
  EXTMEM_TRY_VOID(drain(true));
  if (const int refused = notify(RegionEventKind::removing, region, true); refused != 0) {
    (void)drain(false);
    return EXTMEM_SYS_ERROR(refused < 0 ? -refused : refused,
                            "a listener refused the detaching; nothing has changed");
  }
  {
    const alloc::HeapGuard heap(core_, slot, core.heap);
    forget_region(region);
    index_.note_elsewhere(region);
    // What threads of this process have cached of it goes back: they could not reach it.
    if (heap.held()) (void)core_.flush_all_locked(slot, core.heap, true);
  }
  (void)drain(false);
  return {};
}

Result<void> DomainState::attach_region_file(RegionId id, int fd, std::uint64_t offset) noexcept {
  EXTMEM_TRY(slot, thread_slot());
  const OrderedGuard guard(core_, slot, directory_->region_lock, Rank::regions);
  if (!guard.held())
    return guard.refused(
        EXTMEM_ERROR(EDEADLK, "regions cannot be attached inside a listener or a walk over regions"));
  EXTMEM_TRY(region, checked_region(id));
  if (bases_[region] != 0) return EXTMEM_ERROR(EEXIST, "the region is mapped in this process already");
  const RegionShare& share = shares_[region];  // only another process' region is not mapped here
  if (share.inode == 0)
    return EXTMEM_ERROR(ENOTSUP, "no file is behind the region: attach_region takes a mapping of its memory");
  if (offset != 0)
    return EXTMEM_ERROR(EINVAL,
                        "a region's memory begins where its file does: give the offset of region_file");
  const auto kind = static_cast<BackingKind>(share.kind.get());
  const bool sealed = kind == BackingKind::memfd || kind == BackingKind::memfd_hugetlb;
  EXTMEM_TRY(
      own, os::take_over(fd, os::SharedFile{share.device, share.inode, core_.region(region).length}, sealed));
  auto mapped = map_from(region, own);
  if (!mapped && mapped.error().info() == &kAddressTaken) return address_taken(core_.region(region).phase);
  return mapped;
}

Result<RegionFile> DomainState::region_file(RegionId id) noexcept {
  EXTMEM_TRY(slot, thread_slot());
  // So that the region does not go meanwhile. Not held: this thread is in a listener or a walk, which keeps it too.
  const OrderedGuard guard(core_, slot, directory_->region_lock, Rank::regions);
  EXTMEM_TRY(region, checked_region(id));
  if (bases_[region] == 0) return EXTMEM_ERROR(ENXIO, "the region is not mapped in this process");
  const RegionLocal& local = locals_[region];
  if (local.kind == BackingKind::external || local.mapping.fd < 0)
    return EXTMEM_ERROR(ENOTSUP, "no file is behind the region: it is anonymous memory, or the caller's own");
  return RegionFile{local.mapping.fd, 0, local.length, local.kind};
}

std::uint32_t DomainState::mapped_by(std::uint32_t participant, std::uint32_t region) const noexcept {
  const auto& word = mapped(participant, region);
  return ground_.there(word) ? word.get() : 0;
}

Result<void> DomainState::check_unmapped_elsewhere(std::uint32_t region, HolderReport* holders) noexcept {
  if (!shared_) return {};
  bool elsewhere = false;
  for (std::uint32_t i = 1; i <= shared::kMaxParticipants; ++i) {
    if (i == participants_.self() || mapped_by(i, region) == 0 || participants_.dead(i)) continue;
    elsewhere = true;
    if (holders == nullptr) continue;
    if (holders->count == HolderReport::kMax) {
      ++holders->more;
      continue;
    }
    Holder& mapper = holders->holders[holders->count++];
    mapper = Holder{};
    mapper.pid = participants_.record(i).pid;
    mapper.mapping = true;
  }
  if (!elsewhere) return {};
  return EXTMEM_ERROR(
      EBUSY,
      "other processes map the region: drain_region asks them to unmap it, at their next call or poll()");
}

}  // namespace extmem::heap
