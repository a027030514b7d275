#include "shared/participants.hpp"

#include <cerrno>
#include <cstring>

#include "base/crash_point.hpp"
#include "base/error.hpp"
#include "os/process.hpp"
#include "os/record_lock.hpp"
#include "os/thread.hpp"
#include "shared/lock.hpp"
#include "shared/transaction.hpp"

namespace extmem::shared {

namespace {
// ThreadSlot::healer: the healing slot, and above it how many claims there were (modulo 2^18).
constexpr std::uint32_t kHealer = kMaxThreadSlots;
static_assert((kHealer & (kHealer + 1)) == 0);
}  // namespace

void Participants::bind(std::byte* segment, std::uint64_t bytes, Participant* records, ThreadSlot* slots,
                        std::uint32_t slot_count, int token_fd, int control_fd) noexcept {
  segment_ = segment;
  bytes_ = bytes;
  records_ = records;
  slots_ = slots;
  slot_count_ = slot_count;
  token_ = os::WatchedDescriptor(token_fd);
  const os::WatchedDescriptor control(control_fd);
  control_device_ = control.device();
  control_inode_ = control.inode();
  pid_namespace_ = os::pid_namespace();
}

Result<std::uint32_t> Participants::join() noexcept {
  const int token = token_.get();
  if (token < 0)
    return EXTMEM_ERROR(
        EBADF,
        "this program has closed descriptors of the domain, all that it did not know perhaps: "
        "close the domain and open it anew");
  for (std::uint32_t i = 1; i <= kMaxParticipants; ++i) {
    Participant& record = records_[i];
    const std::uint64_t state = record.state.load(std::memory_order_acquire);
    if (Participant::life_of(state) != Life::free) continue;
    EXTMEM_TRY(locked, os::try_lock_byte(token, i));
    if (!locked) continue;
    base::crash_point("join.token");
    // The byte's lock makes the record ours: nobody else writes it. Until it says alive it is still a free one.
    if (record.state.load(std::memory_order_acquire) != state) {
      os::unlock_byte(token, i);
      continue;
    }
    // Pairs with replaced()'s fence: who sees a word of this joining sees that the last one's state is gone.
    std::atomic_thread_fence(std::memory_order_release);
    record.pid = os::process_id();
    record.pid_namespace = pid_namespace_;
    const auto start = os::process_start_time(os::process_id());
    record.start_time = start ? *start : 0;
    os::process_name(record.name);
    record.image = os::program_image();
    record.joined.store(records_[0].joined.fetch_add(Participant::kJoining, std::memory_order_relaxed) +
                            Participant::kJoining,
                        std::memory_order_relaxed);
    record.sequence.fetch_add(2, std::memory_order_relaxed);
    base::crash_point("join.filled");
    record.state.store(Participant::pack(Participant::generation_of(state) + 1, 0, Life::alive),
                       std::memory_order_release);
    base::crash_point("join.alive");
    self_ = i;
    return i;
  }
  return EXTMEM_ERROR(ENOSPC,
                      "256 processes use the domain already: detach some, or recover what dead ones left");
}

void Participants::release_token(std::uint32_t participant) noexcept {
  os::unlock_byte(token_.get(), participant);
}

bool Participants::replaced(std::uint32_t participant) const noexcept {
  const Participant& record = records_[participant];
  // Acquire: pairs with the joiner's release. Where a state is the same afterwards, what was read belongs to it.
  const std::uint64_t state = record.state.load(std::memory_order_acquire);
  const std::uint64_t image = record.image, start = record.start_time;
  const std::uint64_t joined = record.joined.load(std::memory_order_relaxed);
  const std::uint32_t pid = record.pid, space = record.pid_namespace;
  if (image == 0 || start == 0) return false;
  for (std::uint32_t i = 1; i <= kMaxParticipants; ++i) {
    const Participant& other = records_[i];
    const std::uint64_t others = other.state.load(std::memory_order_acquire);
    if (Participant::life_of(others) == Life::free) continue;
    if (other.pid != pid || other.start_time != start || other.pid_namespace != space || other.image == 0 ||
        other.image == image || other.joined.load(std::memory_order_relaxed) < joined)
      continue;
    std::atomic_thread_fence(std::memory_order_acquire);  // the words above before the states below
    if (other.state.load(std::memory_order_relaxed) == others)
      return record.state.load(std::memory_order_relaxed) == state;
  }
  return false;
}

void Participants::say(std::uint64_t ends) noexcept {
  if (self_ == 0 || records_[self_].pid != os::process_id()) return;
  records_[self_].joined.fetch_or(ends, std::memory_order_relaxed);
}

bool Participants::ended(std::uint32_t participant) noexcept {
  Participant& record = records_[participant];
  const std::uint64_t said = record.joined.load(std::memory_order_relaxed);
  if ((said & Participant::kEnds) != 0) return true;
  // It is dead and there: as another program. A process that is being killed lives until it is a zombie (see below).
  if ((said & Participant::kEndsByExec) == 0 || presence(record) != Presence::there) return false;
  record.joined.fetch_or(Participant::kEnds, std::memory_order_relaxed);  // for a cleaner that comes after us
  return true;
}

Participants::Presence Participants::presence(const Participant& record) const noexcept {
  if (record.pid_namespace != pid_namespace_) return Presence::hidden;
  const auto start = os::process_start_time(record.pid);
  if (!start) {
    const int why = start.error().code();
    if (why == EMFILE || why == ENFILE || why == ENOMEM) return Presence::unsure;
    return why == ESRCH && os::process_is_gone(record.pid) ? Presence::gone : Presence::hidden;
  }
  if (record.start_time == 0) return Presence::hidden;
  if (*start != record.start_time || os::process_is_zombie(record.pid)) return Presence::gone;
  return Presence::there;
}

Participants::Presence Participants::process_presence(std::uint32_t participant) const noexcept {
  const Participant& record = records_[participant];
  const Presence seen = presence(record);
  if (seen != Presence::there) return seen;
  // It is there. Ending, it has lost its token before its devices are closed, and they may still write: so it lives until
  // it is a zombie. Or it has called exec: then it maps other things, or has joined anew.
  if (replaced(participant) || !os::process_maps_file(record.pid, control_device_, control_inode_))
    return Presence::gone;
  return Presence::there;
}

bool Participants::dead(std::uint32_t participant) const noexcept {
  if (participant == 0 || participant > kMaxParticipants || participant == self_) return false;
  const Participant& record = records_[participant];
  switch (Participant::life_of(record.state.load(std::memory_order_acquire))) {
    case Life::free:
      return false;
    case Life::dying:
      return true;
    case Life::alive:
      break;
  }
  const int token = token_.get();
  // This program has closed its descriptor of the token file, so that nobody's token can be looked at: only who is gone for
  // sure is dead.
  if (token < 0) return process_presence(participant) == Presence::gone;
  // The token is free: either the process is gone, or something in it has closed the file by accident. Where it cannot be
  // seen (in another pid namespace) the token alone decides.
  if (os::byte_is_locked(token, participant)) return false;
  const Presence seen = process_presence(participant);
  return seen == Presence::gone || seen == Presence::hidden;
}

bool Participants::slot_dead(std::uint32_t slot) const noexcept {
  if (!dead(of_slot(slot))) return false;
  noticed_.store(true, std::memory_order_relaxed);
  return true;
}

bool Participants::elect(std::uint32_t participant) noexcept {
  if (participant == 0 || participant > kMaxParticipants || participant == self_) return false;
  Participant& record = records_[participant];
  // Before the look at whether it lives: the record may be cleaned and joined anew at any time, and then this word is
  // another one.
  std::uint64_t state = record.state.load(std::memory_order_acquire);
  if (!dead(participant)) return false;
  const std::uint32_t now = Participant::cleaner_of(state);
  switch (Participant::life_of(state)) {
    case Life::free:
      return false;
    case Life::alive:
      break;
    case Life::dying:
      if (now == self_) return false;  // another thread of this process is at it
      if (now != 0 && !dead(now)) return false;
      break;
  }
  return record.state.compare_exchange_strong(
      state, Participant::pack(Participant::generation_of(state) + 1, self_, Life::dying),
      std::memory_order_acq_rel);
}

void Participants::resign(std::uint32_t participant) noexcept {
  Participant& record = records_[participant];
  const std::uint64_t state = record.state.load(std::memory_order_relaxed);
  record.state.store(Participant::pack(Participant::generation_of(state) + 1, 0, Life::dying),
                     std::memory_order_release);
}

void Participants::bury(std::uint32_t participant) noexcept {
  Participant& record = records_[participant];
  const std::uint64_t state = record.state.load(std::memory_order_relaxed);
  record.state.store(Participant::pack(Participant::generation_of(state), 0, Life::free),
                     std::memory_order_release);
}

void Participants::release_cleanings_of(std::uint32_t cleaner, std::uint32_t slots_high) noexcept {
  for (std::uint32_t i = 1; i <= kMaxParticipants; ++i) {
    std::uint64_t state = records_[i].state.load(std::memory_order_acquire);
    if (Participant::life_of(state) != Life::dying || Participant::cleaner_of(state) != cleaner) continue;
    (void)records_[i].state.compare_exchange_strong(
        state, Participant::pack(Participant::generation_of(state) + 1, 0, Life::dying),
        std::memory_order_acq_rel);
  }
  for (std::uint32_t slot = 1; slot <= slots_high; ++slot) {
    std::uint32_t healer = slots_[slot].healer.load(std::memory_order_acquire);
    if ((healer & kHealer) != 0 && of_slot(healer & kHealer) == cleaner) unclaim(slot, healer);
  }
}

std::uint32_t Participants::claim(std::uint32_t slot, std::uint32_t by) noexcept {
  std::uint32_t seen = slots_[slot].healer.load(std::memory_order_acquire);
  const std::uint32_t healer = seen & kHealer;
  // A claim that names us is left from an earlier owner of our slot, who died as it left it: nobody claims twice.
  if (healer != 0 && healer != by && !slot_dead(healer)) return 0;
  // Counted: by now a newcomer may have the dead healer's slot, and the claim.
  const std::uint32_t ours = ((seen & ~kHealer) + kHealer + 1) | by;
  // Acquire/release: what the last healer wrote is seen by the next.
  return slots_[slot].healer.compare_exchange_strong(seen, ours, std::memory_order_acq_rel) ? ours : 0;
}

void Participants::unclaim(std::uint32_t slot, std::uint32_t claimed) noexcept {
  // Not a store: once a thread has given its own slot away, its claim passes to others when the next owner dies.
  (void)slots_[slot].healer.compare_exchange_strong(claimed, claimed & ~kHealer, std::memory_order_acq_rel);
}

std::uint32_t Participants::claim_patiently(std::uint32_t slot, std::uint32_t by) noexcept {
  std::uint64_t since = 0;
  for (;;) {
    if (const std::uint32_t claimed = claim(slot, by); claimed != 0) return claimed;
    os::yield();  // somebody else is at it, for some microseconds
    const std::uint64_t now = os::monotonic_ns();
    if (since == 0) since = now;
    if (now - since > Lock::patience_ns.load(std::memory_order_relaxed)) return 0;
  }
}

bool Participants::heal(std::uint32_t dead_slot, std::uint32_t by) noexcept {
  const std::uint32_t claimed = claim_patiently(dead_slot, by);
  if (claimed == 0) return false;
  if (slot_dead(dead_slot)) undo(segment_, slots_[dead_slot].journal, bytes_);
  base::crash_point("heal.undone");
  unclaim(dead_slot, claimed);
  return true;
}

bool Participants::inherit(std::atomic<std::uint32_t>& word, std::uint32_t dead_slot,
                           std::uint32_t by) noexcept {
  constexpr std::uint32_t kSleepers = 1u << 31;
  const std::uint32_t claimed = claim(dead_slot, by);
  if (claimed == 0) return false;
  // While we have the claim the slot is not given to anybody else: so what is seen now stays true.
  bool ours = false;
  std::uint32_t seen = word.load(std::memory_order_acquire);
  if ((seen & ~kSleepers) == dead_slot && slot_dead(dead_slot)) {
    undo(segment_, slots_[dead_slot].journal, bytes_);
    base::crash_point("inherit.undone");
    while ((seen & ~kSleepers) == dead_slot && !ours) {
      ours = word.compare_exchange_weak(seen, by | kSleepers, std::memory_order_acq_rel);
    }
  }
  base::crash_point("inherit.taken");
  unclaim(dead_slot, claimed);
  return ours;
}

void Participants::welcome(std::uint32_t slot) noexcept {
  // It names the slot itself, so that it would look like the new owner's, whom nobody waits to die.
  const std::uint32_t seen = slots_[slot].healer.load(std::memory_order_acquire);
  if ((seen & kHealer) == slot) unclaim(slot, seen);
}

bool Participants::free_slot(std::uint32_t slot, std::uint32_t by) noexcept {
  // The claim waits for those who are looking: no lock names the slot and its journal is empty, so that who looks from now
  // on finds nothing to do.
  const std::uint32_t claimed = claim_patiently(slot, by);
  if (claimed == 0) return false;
  slots_[slot].owner.store(0, std::memory_order_release);
  base::crash_point("slot.freed");
  unclaim(slot, claimed);
  return true;
}

}  // namespace extmem::shared
