// Threads: claiming a slot at first use, returning everything at thread exit.

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
    if (!state->shared_ || !os::same_file(state->folder_.fd(), folder)) continue;
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

Result<std::uint32_t> DomainState::claim_slot(std::uint32_t thread) noexcept {
  const std::uint64_t me = owner_word(participants_.self(), thread);
  const std::uint32_t high = slots_high();
  for (std::uint32_t slot = 1; slot <= high; ++slot) {
    if (core_.slot(slot).owner.load(std::memory_order_relaxed) == me) return slot;
  }
  EXTMEM_TRY_VOID(os::on_thread_exit(&leave_all, this));
  for (std::uint32_t slot = 1; slot <= core_.geometry().max_threads; ++slot) {
    std::uint64_t nobody = 0;
    if (!ground_.ensure_object(core_.slot(slot)) || !core_.ensure_cache_row(slot)) {
      return EXTMEM_ERROR(ENOSPC,
                          "the tmpfs of the runtime directory is full: remove files, or mount it larger");
    }
    if (core_.slot(slot).owner.load(std::memory_order_relaxed) != 0) continue;
    // Before the slot is ours: a cleaner looks no further than this.
    std::uint32_t seen = directory_->slots_high.get();
    while (seen < slot &&
           !directory_->slots_high.atomic().compare_exchange_weak(seen, slot, std::memory_order_relaxed)) {
    }
    base::crash_point("slot.counted");
    if (!core_.slot(slot).owner.compare_exchange_strong(nobody, me, std::memory_order_acquire)) continue;
    base::crash_point("slot.claimed");
    if (shared_) participants_.welcome(slot);
    return slot;
  }
  // A thread that came here again after its last exit hook has left its slot behind, at rest: it goes on as ours.
  for (std::uint32_t slot = 1; slot <= directory_->slots_high; ++slot) {
    std::uint64_t owner = core_.slot(slot).owner.load(std::memory_order_relaxed);
    const auto last = static_cast<std::uint32_t>(owner);
    if (owner == 0 || owner != owner_word(participants_.self(), last) || os::thread_lives(last)) continue;
    // Acquire: with all that the ended thread did. Of two that want it, one wins.
    if (core_.slot(slot).owner.compare_exchange_strong(owner, me, std::memory_order_acquire)) return slot;
  }
  return EXTMEM_ERROR(ENOSPC, "more threads use the domain than DomainOptions::max_threads allows: raise it");
}

void DomainState::leave_thread(std::uint32_t thread) noexcept {
  const std::uint64_t me = owner_word(participants_.self(), thread);
  for (std::uint32_t slot = 1; slot <= slots_high(); ++slot) {
    if (core_.slot(slot).owner.load(std::memory_order_relaxed) != me) continue;
    for (std::uint32_t heap = 0; heap < heaps_.high(); ++heap) {
      if (alloc::ThreadCache* cache = core_.cache_of(slot, heap); cache != nullptr)
        (void)core_.drop_cache(slot, *cache);
    }
    (void)core_.drop_spare_caches(slot, slot);
    if (shared_) {
      (void)participants_.free_slot(slot, slot);  // not while an heir looks whether we are dead
    } else {
      core_.slot(slot).owner.store(0, std::memory_order_release);
    }
    return;
  }
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
  memory.exact_segment = exact && key != 0 ? core_.segment() : nullptr;
  memory.sequence = index_.word();
  memory.cache = &cache;
  memory.tables = core_.fast_tables();
}

}  // namespace extmem::heap
