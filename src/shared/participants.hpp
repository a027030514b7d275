// Participants: the processes attached to a domain, and whether they live.
//
// What it is: the three nouns of liveness. The *token* of a participant is the lock of one byte of the domain's token
// file, which the kernel takes back when the process ends, however it ends. The *monitor* is dead(): anyone may ask.
// The *cleaner* is the one survivor that wins the compare-and-swap on the dead one's state.
// A process that only waits (for a lock, for a thread to stand still) asks here whether it waits for a dead one.
// Thread-safety: any thread. Records are written by their participant before `state` says alive, later by its cleaner.
// Invariants:
//  1. A record whose state is not `free` belongs to one process at a time: to whoever holds the byte's lock, or, once
//     that is dead, to its cleaner.
//  2. A dead participant's thread slots stay its own, with all that they hold, until its cleaner has given back every
//     lock, journal, cache and object of theirs.
//  3. Of two records of one process with different images, the one that joined earlier is of a program that the process has
//     ceased to be, by exec: at the later joining the process was what that record says, and no image comes back. So replaced()
//     needs no token, and a program may exec, open the domain again, and have what it held before recovered.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/relaxed.hpp"
#include "extmem/result.hpp"
#include "os/watched_descriptor.hpp"
#include "shared/thread_slot.hpp"

namespace extmem::shared {

inline constexpr std::uint32_t kMaxParticipants =
    256;  // 1 .. kMaxParticipants; 0: nobody, or the one of a private domain

/// state:  63               32 31        16 15      8 7      0
///         |   generation     |  cleaner   | leaving | life   |
/// leaving (bit 8): it gives back what it holds, in good order, and is given nothing more.
/// The generation counts up with each joining and each change of the cleaner: so no state is ever seen twice.
enum class Life : std::uint8_t { free = 0, alive, dying };

struct alignas(64) Participant {
  std::atomic<std::uint64_t> state;  // compare-and-swap by joiner, cleaner; acq_rel pairs with each other
  std::atomic<std::uint64_t>
      sequence;                      // heap/region_index.hpp: changes when what its threads remember is stale
  base::Relaxed<std::uint32_t> pid;  // in its own pid namespace
  base::Relaxed<std::uint32_t> pid_namespace;
  base::Relaxed<std::uint64_t> start_time;  // ticks since boot; with the pid one process for ever
  char name[16];                            // what the kernel calls the process
  base::Relaxed<std::uint64_t> image;       // os::program_image(); 0: unknown
  // Which joining of the domain, from 1 (of record 0: how many there were), times 4; below that kEnds... Relaxed: with
  // `state`, which publishes it, like the rest; what is set later is read after the process' end, which orders it.
  std::atomic<std::uint64_t> joined;
  static constexpr std::uint64_t kEnds = 1;        // the program ends by itself: what it holds is garbage
  static constexpr std::uint64_t kEndsByExec = 2;  // an exec would be such an end
  static constexpr std::uint64_t kJoining = 4;     // one joining

  static constexpr std::uint64_t pack(std::uint32_t generation, std::uint32_t cleaner, Life life) noexcept {
    return std::uint64_t{generation} << 32 | std::uint64_t{cleaner} << 16 | static_cast<std::uint64_t>(life);
  }
  static constexpr std::uint64_t kLeaving = 1u << 8;
  /// Whether it can be given objects: whoever gives back what it holds comes to them later. Requires: the heap's lock.
  static constexpr bool takes_objects(std::uint64_t state) noexcept {
    return life_of(state) == Life::alive && (state & kLeaving) == 0;
  }
  static constexpr Life life_of(std::uint64_t state) noexcept { return static_cast<Life>(state & 0xff); }
  static constexpr std::uint32_t cleaner_of(std::uint64_t state) noexcept { return state >> 16 & 0xffff; }
  static constexpr std::uint32_t generation_of(std::uint64_t state) noexcept {
    return static_cast<std::uint32_t>(state >> 32);
  }
};

class Participants {
 public:
  Participants() noexcept = default;

  /// Requires: the tables lie in a segment of `bytes` bytes at `segment`, which `control_fd` has open; `token_fd` is the domain's token
  /// file, opened once in this process.
  void bind(std::byte* segment, std::uint64_t bytes, Participant* records, ThreadSlot* slots,
            std::uint32_t slot_count, int token_fd, int control_fd) noexcept;

  /// Takes a free record, with its token. Returns its number. Errors: ENOSPC; those of the record lock.
  Result<std::uint32_t> join() noexcept;
  /// Gives the token up; the record is then a dead one's, for a cleaner (or this process) to clean and free.
  void release_token(std::uint32_t participant) noexcept;

  [[nodiscard]] std::uint32_t self() const noexcept { return self_; }
  /// In a fork's child: the record is its parent's, and this process has none until it joins.
  void forget_self() noexcept { self_ = 0; }
  [[nodiscard]] Participant& record(std::uint32_t participant) const noexcept {
    return records_[participant];
  }
  /// The participant whose thread has this slot, or 0.
  [[nodiscard]] std::uint32_t of_slot(std::uint32_t slot) const noexcept {
    if (slot == 0 || slot > slot_count_) return 0;  // a damaged word
    return static_cast<std::uint32_t>(slots_[slot].owner.load(std::memory_order_relaxed) >> 32);
  }
  /// This process leaves: nobody hands it anything any more. Seen by whoever next takes the lock of a heap after this process.
  void say_leaving() noexcept {
    records_[self_].state.fetch_or(Participant::kLeaving, std::memory_order_acq_rel);
  }
  /// Says of this process what Participant::kEnds and kEndsByExec mean. No lock, no effect in a vfork's child.
  void say(std::uint64_t ends) noexcept;
  /// Whether the program of a dead participant has ended by itself, and had said what that means. Once yes, always yes.
  /// Requires: this process cleans it.
  [[nodiscard]] bool ended(std::uint32_t participant) noexcept;
  /// Whether the participant's process has become another program by exec, and that one is a participant too.
  [[nodiscard]] bool replaced(std::uint32_t participant) const noexcept;
  /// Whether the participant has ended for good. In doubt it lives. Costs a system call, unless it is being cleaned.
  [[nodiscard]] bool dead(std::uint32_t participant) const noexcept;
  [[nodiscard]] bool slot_dead(std::uint32_t slot) const noexcept;

  /// Makes this process the cleaner of a dead participant. False: it lives, or somebody else is its living cleaner.
  [[nodiscard]] bool elect(std::uint32_t participant) noexcept;
  /// Gives the election up, so that somebody tries again: the cleaning failed. Requires: this process cleans it.
  void resign(std::uint32_t participant) noexcept;
  /// Frees the record of a participant that this process has cleaned.
  void bury(std::uint32_t participant) noexcept;
  /// What a dead cleaner had begun can be begun anew by anyone. Requires: this process cleans `cleaner`.
  void release_cleanings_of(std::uint32_t cleaner, std::uint32_t slots_high) noexcept;

  /// Whether a wait of this process has met a dead participant since the last forget(). A hint that recovery is due.
  [[nodiscard]] bool noticed() const noexcept { return noticed_.load(std::memory_order_relaxed); }
  void forget() noexcept { noticed_.store(false, std::memory_order_relaxed); }

  /// Undoes what the thread of a dead slot had in flight. Exactly one healer at a time; idempotent.
  /// False: another healer does not go on (stopped?).
  [[nodiscard]] bool heal(std::uint32_t dead_slot, std::uint32_t by) noexcept;
  /// Takes over a lock whose word names a dead slot, after healing that. False: look again.
  [[nodiscard]] bool inherit(std::atomic<std::uint32_t>& word, std::uint32_t dead_slot,
                             std::uint32_t by) noexcept;
  /// Clears the claim of an earlier owner who died as it left the slot. Requires: the slot has just become the caller's.
  void welcome(std::uint32_t slot) noexcept;
  /// Gives a cleaned slot to whoever wants it. Requires: this process cleans its participant, or it is this process' own.
  /// False: somebody who looks at it does not go on (stopped?).
  [[nodiscard]] bool free_slot(std::uint32_t slot, std::uint32_t by) noexcept;

 private:
  /// Makes slot `by` the only one that heals or frees `slot`. Returns what unclaim() wants; 0: somebody else is at it.
  [[nodiscard]] std::uint32_t claim(std::uint32_t slot, std::uint32_t by) noexcept;
  /// The same, waiting as long as for a lock.
  [[nodiscard]] std::uint32_t claim_patiently(std::uint32_t slot, std::uint32_t by) noexcept;
  void unclaim(std::uint32_t slot, std::uint32_t claimed) noexcept;
  /// Whether the process is there, as whatever program. `hidden`: that cannot be told from here; `unsure`: not just now.
  enum class Presence : std::uint8_t { gone, there, hidden, unsure };
  [[nodiscard]] Presence presence(const Participant& record) const noexcept;
  /// What else than the token tells: whether the very process is there, is the same program, and maps the segment.
  [[nodiscard]] Presence process_presence(std::uint32_t participant) const noexcept;

  std::byte* segment_ = nullptr;
  std::uint64_t bytes_ = 0;
  Participant* records_ = nullptr;
  ThreadSlot* slots_ = nullptr;
  std::uint32_t slot_count_ = 0;  // slots [1, slot_count_]
  os::WatchedDescriptor token_;   // the program may have closed it
  std::uint64_t control_device_ = 0;
  std::uint64_t control_inode_ = 0;
  std::uint32_t self_ = 0;
  std::uint32_t pid_namespace_ = 0;
  mutable std::atomic<bool> noticed_{false};  // relaxed: orders nothing
};

/// Whom a wait may be for: nobody outside this process, or the participants of a domain.
struct Peers {
  Participants* all = nullptr;
  bool shared = false;                             // futexes and membarrier reach other processes
  Peers(bool across) noexcept : shared(across) {}  // NOLINT: reads like the flag it was
  Peers(Participants& participants) noexcept : all(&participants), shared(true) {}  // NOLINT
};

}  // namespace extmem::shared
