// Threads: claiming a slot at first use, returning everything at thread exit.

#include <algorithm>
#include <new>

#include "base/crash_point.hpp"
#include "base/error.hpp"
#include "heap/domain_state.hpp"
#include "heap/live_domains.hpp"
#include "os/file.hpp"
#include "os/thread.hpp"

namespace extmem::heap {

thread_local constinit ThreadMemory thread_memory;
thread_local constinit const RankHeld* ranks_held = nullptr;

namespace {

/// The open domains of this process, for the hooks of threads' exits and of forks.
struct LiveDomains {
  shared::Lock lock;
  DomainState* first = nullptr;
  bool watching = false;  // for forks
};
LiveDomains live_domains;  // zero-initialised: usable before any constructor runs

/// Locks by thread id here: this lock belongs to no domain and so knows no slots.
class LiveGuard {
 public:
  LiveGuard() noexcept : held_(live_domains.lock.lock(os::thread_id(), false) == shared::Locked::yes) {}
  LiveGuard(const LiveGuard&) = delete;
  ~LiveGuard() {
    if (held_) live_domains.lock.unlock(false);
  }

 private:
  bool held_;
};

void leave_all(void*) noexcept {
  const LiveGuard guard;
  const std::uint32_t thread = os::thread_id();
  for (DomainState* state = live_domains.first; state != nullptr; state = state->next_live_)
    state->leave_thread(thread);
  thread_memory = ThreadMemory{};
}

void tell_of_fork() noexcept {
  // Other threads are not here any more, and none of them will give this back. Its list is whole at every instruction.
  new (&live_domains.lock) shared::Lock{};
  const ThreadMemory before = thread_memory;
  thread_memory = ThreadMemory{};
  for (DomainState* state = live_domains.first; state != nullptr; state = state->next_live_) {
    std::uint32_t slot = 0;
    for (const ThreadMemory::Seat& seat : before.seats) {
      if (seat.serial == state->serial_) slot = seat.slot;
    }
    state->forked(slot);
  }
}
void in_child() { tell_of_fork(); }

void say_of_end(std::uint64_t ends) noexcept {
  // Without the lock, which the thread may hold that a signal has interrupted.
  for (DomainState* state = live_domains.first; state != nullptr; state = state->next_live_)
    state->say_of_end(ends);
}

/// Whose a slot is. Not the pid: two pid namespaces may have the same.
std::uint64_t owner_word(std::uint32_t participant, std::uint32_t thread) noexcept {
  return std::uint64_t{participant} << 32 | thread;
}

}  // namespace

Result<void> watch_forks() noexcept {
  const LiveGuard guard;
  if (live_domains.watching) return {};
  EXTMEM_TRY_VOID(os::on_fork(&in_child));
  live_domains.watching = true;
  return {};
}

Result<void> copy_for_child() noexcept {
  for (DomainState* state = live_domains.first; state != nullptr; state = state->next_live_)
    EXTMEM_TRY_VOID(state->copy_shared_regions());
  return {};
}

void end_by_exec() noexcept { say_of_end(shared::Participant::kEndsByExec); }
void end_now() noexcept { say_of_end(shared::Participant::kEnds); }

void enlist(DomainState* state) noexcept {
  const LiveGuard guard;
  state->next_live_ = live_domains.first;
  live_domains.first = state;
}

void delist(DomainState* state) noexcept {
  const LiveGuard guard;
  for (DomainState** link = &live_domains.first; *link != nullptr; link = &(*link)->next_live_) {
    if (*link == state) {
      *link = state->next_live_;
      return;
    }
  }
}

DomainState* DomainState::find_live(int folder) noexcept {
  const LiveGuard guard;
  for (DomainState* state = live_domains.first; state != nullptr; state = state->next_live_) {
    if (!state->shared_ || !state->folder_.is_folder_of(folder)) continue;
    ++state->users_;
    return state;
  }
  return nullptr;
}

void DomainState::drop_user(DomainState* state) noexcept {
  {
    const LiveGuard guard;
    if (--state->users_ != 0) return;
  }
  state->close();
}

Result<std::uint32_t> DomainState::thread_slot() noexcept {
  ThreadMemory& memory = thread_memory;
  for (const ThreadMemory::Seat& seat : memory.seats) {
    if (seat.serial == serial_) return seat.slot;
  }
  if (looking_) return std::uint32_t{1};  // it only names whose ranks are held
  if (forked_.load(std::memory_order_acquire)) [[unlikely]]
    EXTMEM_TRY_VOID(after_fork());
  EXTMEM_TRY(slot, claim_slot(os::thread_id()));
  // A domain that is pushed out of the seats is found again by its slot's owner word.
  memory.seats[memory.next_seat++ % ThreadMemory::kSeats] = ThreadMemory::Seat{serial_, slot};
  return slot;
}

/// The slot of a thread that has one and does not remember it; 0: it has none.
std::uint32_t DomainState::slot_of(std::uint64_t owner) const noexcept {
  const auto is_owner = [&](std::uint32_t slot) {
    return core_.slot(slot).owner.load(std::memory_order_relaxed) == owner;
  };
  if (thread_memory.next_seat <= ThreadMemory::kSeats)  // no domain was pushed out of the seats
    return forked_slot_ != 0 && is_owner(forked_slot_) ? forked_slot_ : 0;
  for (std::uint32_t slot = 1; slot <= slots_high(); ++slot) {
    if (is_owner(slot)) return slot;
  }
  return 0;
}

Result<std::uint32_t> DomainState::claim_slot(std::uint32_t thread) noexcept {
  const std::uint64_t me = owner_word(participants_.self(), thread);
  if (const std::uint32_t own = slot_of(me); own != 0) return own;
  EXTMEM_TRY_VOID(os::on_thread_exit(&leave_all, this));
  for (bool tidied = false;; tidied = true) {
    std::uint32_t from = free_slots_from_.load(std::memory_order_relaxed);
    for (std::uint32_t slot = from; slot <= core_.geometry().max_threads; ++slot) {
      if (!tidied && slot > slots_high() && slot > tidy_slots_at_.load(std::memory_order_relaxed)) break;
      EXTMEM_TRY(taken, take_slot(slot, me));
      if (!taken) continue;
      // Unless a lower one was given back meanwhile.
      free_slots_from_.compare_exchange_strong(from, slot + 1, std::memory_order_relaxed);
      return slot;
    }
    if (tidied) break;
    tidy_slots(me);
  }
  return EXTMEM_ERROR(ENOSPC, "more threads use the domain than DomainOptions::max_threads allows: raise it");
}

Result<bool> DomainState::take_slot(std::uint32_t slot, std::uint64_t me) noexcept {
  const bool fresh = slot > slots_high();
  if (!fresh && core_.slot(slot).owner.load(std::memory_order_relaxed) != 0) return false;
  if (!ground_.ensure_object(core_.slot(slot)) || !core_.ensure_cache_row(slot)) {
    return EXTMEM_ERROR(ENOSPC,
                        "the tmpfs of the runtime directory is full: remove files, or mount it larger");
  }
  // Before the slot is ours: a cleaner looks no further than this.
  std::uint32_t seen = directory_->slots_high.get();
  while (seen < slot &&
         !directory_->slots_high.atomic().compare_exchange_weak(seen, slot, std::memory_order_relaxed)) {
  }
  base::crash_point("slot.counted");
  std::uint64_t nobody = 0;
  // Acquire: pairs with the release by which the slot was given back, and with all that its last owner did.
  if (!core_.slot(slot).owner.compare_exchange_strong(nobody, me, std::memory_order_acquire)) return false;
  base::crash_point("slot.claimed");
  if (shared_) participants_.welcome(slot);
  return true;
}

/// Gives back what threads of this process have left behind that came here again after their last exit hook. Looks at
/// every slot and asks the system about each thread; so it is done only when as many slots are in use as twice those
/// that were left last time: each thread pays for a few looks, however many come and go.
void DomainState::tidy_slots(std::uint64_t me) noexcept {
  const std::uint32_t slots = slots_high();
  std::uint32_t in_use = 0;
  for (std::uint32_t slot = 1; slot <= slots; ++slot) {
    std::uint64_t owner = core_.slot(slot).owner.load(std::memory_order_relaxed);
    if (owner == 0) continue;
    ++in_use;
    const auto thread = static_cast<std::uint32_t>(owner);
    if (owner != owner_word(participants_.self(), thread) || owner == me || os::thread_lives(thread))
      continue;
    // Acquire: with all that the ended thread did, which is at rest. Of two that want it, one wins.
    if (!core_.slot(slot).owner.compare_exchange_strong(owner, me, std::memory_order_acquire)) continue;
    give_slot_back(slot);
    --in_use;
  }
  tidy_slots_at_.store(std::max(kFewSlots, 2 * in_use), std::memory_order_relaxed);
  free_slots_from_.store(1, std::memory_order_relaxed);
}

/// Requires: the slot is this thread's.
void DomainState::give_slot_back(std::uint32_t slot) noexcept {
  for (std::uint32_t heap = 0; heap < heaps_.high(); ++heap) {
    if (alloc::ThreadCache* cache = core_.cache_of(slot, heap); cache != nullptr)
      (void)core_.drop_cache(slot, *cache);
  }
  (void)core_.drop_spare_caches(slot, slot);
  if (shared_) {
    (void)participants_.free_slot(slot, slot);  // not while an heir looks whether we are dead
  } else {
    core_.slot(slot).owner.store(0, std::memory_order_release);  // pairs with take_slot
  }
  std::uint32_t from = free_slots_from_.load(std::memory_order_relaxed);
  while (slot < from && !free_slots_from_.compare_exchange_weak(from, slot, std::memory_order_relaxed)) {
  }
}

void DomainState::leave_thread(std::uint32_t thread) noexcept {
  const std::uint64_t me = owner_word(participants_.self(), thread);
  std::uint32_t slot = 0;
  for (const ThreadMemory::Seat& seat : thread_memory.seats) {
    if (seat.serial == serial_) slot = seat.slot;
  }
  if (slot == 0 || core_.slot(slot).owner.load(std::memory_order_relaxed) != me) slot = slot_of(me);
  if (slot != 0) give_slot_back(slot);
}

Result<alloc::ThreadCache*> DomainState::thread_cache(std::uint32_t slot, const HeapLocal& heap) noexcept {
  alloc::ThreadCache* cache = core_.cache_of(slot, heap.id);
  if (cache == nullptr) {
    // Not looked for again: should the heap go meanwhile, the record stays this thread's, and an operation on it is refused.
    EXTMEM_TRY(made, core_.make_cache(slot, heap.id));
    cache = made;
  }
  remember(*cache, heap);
  return cache;
}

alloc::ThreadCache* DomainState::remember_cache(std::uint32_t slot, const HeapLocal& heap) noexcept {
  alloc::ThreadCache* cache = core_.cache_of(slot, heap.id);
  if (cache != nullptr) remember(*cache, heap);
  return cache;
}

void DomainState::remember(alloc::ThreadCache& cache, const HeapLocal& heap) noexcept {
  ThreadMemory& memory = thread_memory;
  // The sequence first: a heap that is destroyed after this look changes it (see destroy_heap).
  memory.see(index_.sequence());
  const std::uint64_t key = heap.key.load(std::memory_order_acquire);
  const std::uint64_t known = key != 0 ? key : ThreadMemory::kNoHeap;  // an empty handle has key 0
  const bool exact =
      cache.exact();  // by the cache itself: the record of a heap that goes may be another's now
  memory.heap_key = exact ? ThreadMemory::kNoHeap : known;
  memory.exact_key = exact ? known : ThreadMemory::kNoHeap;
  memory.exact_serial = exact && key != 0 ? serial_ : ThreadMemory::kNoHeap;
  memory.sequence = index_.word();
  memory.cache = &cache;
  memory.tables = core_.fast_tables();
}

}  // namespace extmem::heap
