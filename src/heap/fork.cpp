// fork: what becomes of a domain in the child.
//
// A private domain is the child's own copy, as it was at one instant for every thread of the parent (the kernel copies the
// page tables so that each thread's stores are there up to a point, as if all had died at once). So the other threads
// are dead threads of the copy: their journals are undone, their locks opened, torn heaps repaired, their caches given
// back, exactly as after the death of a process (core_recover.cpp). What lies in shared mappings is not copied by the kernel:
// who forks does it (copy_shared_regions), or else the child allocates nothing there.
// A named domain is the parent's as before; the child is a stranger that happens to have everything mapped, and joins
// as a participant of its own.
// Both happen at the child's first use: a child that goes on to exec pays next to nothing. Only what must not wait is
// done in the fork itself, on the child's only thread.
#include <new>

#include "alloc/heap_guard.hpp"
#include "base/error.hpp"
#include "heap/domain_state.hpp"
#include "os/backing.hpp"
#include "os/file.hpp"
#include "os/membarrier.hpp"
#include "os/private_copy.hpp"
#include "os/process.hpp"
#include "os/shared_mapping.hpp"
#include "os/thread.hpp"
#include "os/vma.hpp"
#include "shared/transaction.hpp"

namespace extmem::heap {

void DomainState::forked(std::uint32_t slot) noexcept {
  // Locks of this process alone, which threads may have held that are not here.
  new (&refresh_lock_) shared::Lock{};
  new (&fork_lock_) shared::Lock{};
  forked_slot_ = slot;
  listener_count_ = 0;  // what they map for devices is the parent's
  for (std::uint32_t region = 1; region <= regions_high(); ++region) {
    if (bases_[region] != 0) os::keep_name(locals_[region].mapping);
  }
  const bool torn = index_.torn();
  if (shared_) {
    folder_.reopen();
    // Guards that the forking thread holds would open its parent's locks when they end. What is copied is of no use,
    // but harms nobody.
    if (RankHeld::any(core_)) {
      severed_ = true;
      if (!segment_.sever()) ::_exit(127);
    }
    participants_.forget_self();
  }
  index_.rebind(own_sequence_);  // even again, and nobody else's
  if (torn) {
    index_.clear();
    for (std::uint32_t region = 1; region <= regions_high(); ++region) {
      if (bases_[region] != 0) index_.insert(bases_[region], locals_[region].length, region);
    }
  }
  forked_.store(true, std::memory_order_release);
}

Result<void> DomainState::after_fork() noexcept {
  const shared::LockGuard guard(fork_lock_, os::thread_id(), false);
  if (!forked_.load(std::memory_order_acquire)) return {};  // another thread was first
  if (severed_)
    return EXTMEM_ERROR(ESTALE,
                        "this process was forked inside a callback of the domain: it can only exec or exit");
  if (shared_) {
    EXTMEM_TRY_VOID(join_anew());
  } else {
    EXTMEM_TRY_VOID(bury_other_threads());
  }
  forked_.store(false, std::memory_order_release);
  return {};
}

// ---- named domains -----------------------------------------------------------------------------------------

Result<void> DomainState::join_anew() noexcept {
  if (participants_.self() == 0) {
    EXTMEM_TRY_VOID(folder_.lock());
    Result<void> joined =
        EXTMEM_ERROR(ESTALE, "the domain was removed before this fork's child used it: open it anew");
    if (folder_.has_name()) joined = join();
    folder_.unlock();
    EXTMEM_TRY_VOID(joined);
    own_sequence_.fetch_add(
        2, std::memory_order_release);  // who has looked something up here looks again, at the new word
    for (std::uint32_t tag = 0; tag <= options_.max_tags; ++tag) tag_holders_[tag] = 0;
  }
  EXTMEM_TRY(slot, claim_slot(os::thread_id()));
  const OrderedGuard guard(core_, slot, directory_->region_lock, Rank::regions);
  if (!guard.held())
    return guard.refused(EXTMEM_ERROR(EDEADLK, "a fork's child cannot join inside a callback"));
  for (std::uint32_t region = 1; region <= core_.geometry().max_regions; ++region) {
    if (bases_[region] == 0) continue;
    const alloc::RegionCore& core = core_.region(region);
    const RegionLocal& local = locals_[region];
    if ((core.flags & alloc::kRegionAttached) != 0 && core.generation == local.generation) {
      mapped(participants_.self(), region) =
          local.mapping.fd >= 0 ? static_cast<std::uint32_t>(local.mapping.fd) + 2 : 1;
    } else {
      forget_region(region);  // removed meanwhile: nobody knew that we have it
    }
  }
  synced_.store(~std::uint64_t{0}, std::memory_order_relaxed);
  return {};
}

// ---- private domains ---------------------------------------------------------------------------------------

Result<void> DomainState::bury_other_threads() noexcept {
  const std::uint32_t own = forked_slot_;
  const std::uint32_t slots = slots_high();
  if (own != 0 && core_.slot(own).ranks != 0) {
    return EXTMEM_ERROR(
        EDEADLK, "this process was forked inside a callback: the domain can be used when that has returned");
  }
  (void)os::membarrier_register(false);
  // Who does it: the forking thread's slot, or a dead one's, which is given back at the end.
  std::uint32_t slot = own;
  for (std::uint32_t s = 1; s <= slots; ++s) {
    shared::ThreadSlot& other = core_.slot(s);
    if (s == own || other.owner.load(std::memory_order_relaxed) == 0) continue;
    shared::undo(segment_.base(), other.journal);
    other.ranks = 0;
    if (slot == 0) slot = s;
  }
  if (slot == 0) return {};  // no thread had used it
  if (own != 0)
    core_.slot(own).owner.store(os::process_id(), std::memory_order_relaxed);  // the child's first thread
  alloc::CoreRoots& roots = core_.roots();
  for (shared::Lock* lock : {&roots.small_lock, &directory_->region_lock, &directory_->lock}) {
    if (const std::uint32_t holder = lock->holder(); holder != 0) lock->break_dead(holder, core_.peers());
  }
  EXTMEM_TRY_VOID(bury_caches(slot));
  RecoveryReport report;
  EXTMEM_TRY_VOID(clean_regions([&](std::uint32_t) { return true; }, slot, report));
  EXTMEM_TRY_VOID(retire_shared_regions(slot));
  for (std::uint32_t s = 1; s <= slots; ++s) {
    if (s == own || core_.slot(s).owner.load(std::memory_order_relaxed) == 0) continue;
    (void)core_.drop_spare_caches(slot, s);
    core_.slot(s).owner.store(0, std::memory_order_release);
  }
  return {};
}

/// Gives back what the dead threads' caches hold, and opens and repairs the heaps that they were changing.
Result<void> DomainState::bury_caches(std::uint32_t slot) noexcept {
  const std::uint32_t slots = slots_high();
  for (std::uint32_t id = 0; id < heaps_.high(); ++id) {
    alloc::HeapCore& heap = core_.heap(id);
    const std::uint32_t holder = heap.lock.holder();
    if (holder != 0) {
      heap.torn = 1;
      heap.lock.break_dead(holder, core_.peers());
    }
    // Nobody is paused any more, and nobody moves. A torn heap's repair does not need to know who was busy.
    for (std::uint32_t link = heap.first_cache; link != 0; link = core_.cache(link - 1).next) {
      alloc::ThreadCache& cache = core_.cache(link - 1);
      if (heap.torn != 0) cache.gate.still();
      core_.resume(cache);
    }
    const alloc::HeapGuard guard(core_, slot, id);
    if (!guard.held())
      return guard.refused(EXTMEM_ERROR(EDEADLK, "a fork's child cannot begin inside a walk over a heap"));
    for (std::uint32_t s = 1; s <= slots; ++s) {
      if (s == forked_slot_ || core_.slot(s).owner.load(std::memory_order_relaxed) == 0) continue;
      if (alloc::ThreadCache* cache = core_.cache_of(s, id); cache != nullptr) {
        EXTMEM_TRY_VOID(core_.drop_dead_cache_locked(slot, *cache));
      }
    }
  }
  return {};
}

Result<void> DomainState::copy_shared_regions() noexcept {
  if (shared_) return {};
  for (std::uint32_t region = 1; region <= regions_high(); ++region) {
    RegionLocal& local = locals_[region];
    os::Mapping& mapping = local.mapping;
    if (bases_[region] == 0 || local.kind == BackingKind::external || local.kind == BackingKind::anonymous ||
        local.kind == BackingKind::hugetlb)
      continue;
    os::CopyRequest request;
    request.addr = mapping.addr;
    request.length = mapping.length;
    request.node = mapping.node;
    const auto file = os::identify(mapping.fd);
    const bool ours = file && file->device == mapping.device && file->inode == mapping.inode;
    if (ours) request.fd = mapping.fd;
    EXTMEM_TRY_VOID(os::copy_in_place(request));
    if (ours) os::close_file(mapping.fd);
    mapping.fd = -1;
    mapping.device = mapping.inode = 0;
    local.kind = mapping.kind = BackingKind::anonymous;
  }
  return {};
}

/// The bytes of shared mappings are the parent's, whose copy of the metadata knows nothing of ours: so nothing is
/// allocated there any more. What was allocated before can be read, and freed in our copy.
Result<void> DomainState::retire_shared_regions(std::uint32_t slot) noexcept {
  for (std::uint32_t region = 1; region <= regions_high(); ++region) {
    const alloc::RegionCore& core = core_.region(region);
    if ((core.flags & alloc::kRegionAttached) == 0 || bases_[region] == 0) continue;
    const RegionLocal& local = locals_[region];
    const bool copied =
        local.kind == BackingKind::anonymous || local.kind == BackingKind::hugetlb ||
        (local.kind == BackingKind::external &&
         !os::is_shared_with_children(reinterpret_cast<const void*>(bases_[region].get()), core.length));
    if (copied) continue;
    const alloc::HeapGuard guard(core_, slot, core.heap);
    if (!guard.held())
      return guard.refused(EXTMEM_ERROR(EDEADLK, "a fork's child cannot begin inside a walk over a heap"));
    EXTMEM_TRY_VOID(core_.set_draining_locked(slot, region, true));
  }
  return {};
}

}  // namespace extmem::heap
