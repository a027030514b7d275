// InspectorState: a look at a named domain from outside, which nobody in it notices.
//
// What it is: a private copy of the parts of a control segment that are looked at, made by pread, and over it the
// same code that a domain's own processes use (a DomainState that is alone: no lock, no pause, no slot). Nothing of the
// file is mapped, locked or written, no participant joins.
// A copy is not an instant: while it is made others go on. What makes it one (docs/decisions/0012-inspectors.md):
//   - who changes what a lock guards first adds to the lock's `turns`: the same turns before and after, and the lock free
//     before, say that nothing of it changed (a sequence lock whose writers are the holders);
//   - a thread that changes what is its own (its slabs' counts and lists, its tags) first adds to its cache's `entered`;
//   - its pops and pushes count nothing. What only they change (magazines and the states of what is in them) is believed
//     to be wrong only where the kernel says that the thread has not run meanwhile.
// So a breach that is reported is one; where no instant can be had the answer is EAGAIN.
// Thread-safety: one thread at a time. Lives in a mapping of its own.
// Invariants:
//  1. Nothing read is used as an index, an offset or a length before it is bounded; loops end whatever is read.
//  2. The copy holds one part at a time whole: the names, or one heap, or one space. `part_` says which.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "extmem/inspect.hpp"
#include "heap/domain_state.hpp"
#include "os/process.hpp"
#include "shared/segment_reader.hpp"

namespace extmem::heap {

class InspectorState {
 public:
  static Result<InspectorState*> open(std::string_view name, const char* directory) noexcept;
  /// Takes the descriptor over. `named`: the file has a name as long as the domain is there.
  static Result<InspectorState*> open_fd(int fd, bool named) noexcept;
  void close() noexcept;

  Result<void> refresh() noexcept;
  Result<void> walk_heaps(FunctionRef<bool(const HeapInfo&)> visit) noexcept;
  Result<void> walk_regions(FunctionRef<bool(const RegionInfo&)> visit) noexcept;
  Result<void> walk_participants(FunctionRef<bool(const ParticipantInfo&)> visit) noexcept;
  Result<void> walk_memzones(FunctionRef<bool(const MemzoneInfo&)> visit) noexcept;
  Result<void> walk_iova_runs(RegionId region, FunctionRef<bool(const IovaRun&)> visit) noexcept;
  Result<void> walk_tags(FunctionRef<bool(Tag, const char*)> visit) noexcept;
  Result<HeapStats> stats(std::uint32_t heap, bool* stable) noexcept;
  Result<std::size_t> tag_stats(std::uint32_t heap, std::span<TagStats> out, bool* stable) noexcept;
  Result<void> holders(std::uint32_t heap, HolderReport& report, bool* stable) noexcept;
  Result<void> walk(std::uint32_t heap, FunctionRef<bool(const WalkEntry&)> visit, const WalkOptions& options,
                    bool* stable) noexcept;
  Result<std::size_t> verify(FunctionRef<void(const Breach&)> report, std::size_t* unstable) noexcept;
  Result<std::size_t> verify_heap(std::uint32_t heap, FunctionRef<void(const Breach&)> report) noexcept;
  [[nodiscard]] std::uint64_t resident_bytes() const noexcept;

 private:
  enum class Part : std::uint8_t { none, names, heap, regions, small, large };

  /// Somebody's thread, and what the kernel said of it.
  struct Watched {
    std::uint32_t pid = 0;  // 0: of another pid namespace, or nobody: cannot be watched
    std::uint32_t thread = 0;
    os::ThreadActivity before;
  };
  /// A lock, as it was before the copy was made.
  struct LockMark {
    std::uint64_t at = 0;  // where in the segment
    std::uint32_t turns = 0;
    std::uint32_t holder = 0;
    std::uint64_t healing = 0;  // the holder's slot: how much its journal holds, and who undoes it
    Watched thread;             // the holder's
  };
  /// A thread's cache of the heap.
  struct CacheMark {
    std::uint32_t index;
    std::uint32_t entered;
    bool busy;
    Watched owner;
  };
  /// What can be said of a copy.
  struct Instant {
    bool locked = false;  // what its lock guards is of one instant: unchanged while it was copied
    bool whole =
        false;  // so is what its threads change on their own, and nobody was in the midst of a change
    bool still = false;    // none of its threads has run meanwhile (only where that was asked for)
    bool names = false;    // the directory was unchanged too
    bool stopped = false;  // not whole because of somebody who does not go on: trying again is no use for now
  };

  InspectorState() noexcept = default;
  ~InspectorState() = default;

  /// The segment's offset of something in the copy.
  [[nodiscard]] std::uint64_t offset_of(const void* p) const noexcept {
    return static_cast<std::uint64_t>(static_cast<const std::byte*>(p) - view_->segment_.base());
  }
  // inspector_copy.cpp
  void begin_copy() noexcept;
  /// Copies what is not copied yet since begin_copy().
  Result<void> need(std::uint64_t offset, std::uint64_t bytes) noexcept;
  Result<void> need_object(const void* p, std::uint64_t bytes) noexcept { return need(offset_of(p), bytes); }
  Result<Watched> watch_slot(std::uint32_t slot) noexcept;
  [[nodiscard]] static bool still(const Watched& thread) noexcept;
  Result<LockMark> mark(const shared::Lock& lock) noexcept;
  /// Changes when somebody undoes what the thread of a slot had begun.
  Result<std::uint64_t> healing_of(std::uint32_t slot) noexcept;
  /// Whether somebody has held the lock since, who has not run, and whose journal nobody undid.
  Result<bool> stands(const LockMark& mark) noexcept;
  /// Whether nothing that the lock guards has changed since.
  Result<bool> unchanged(const LockMark& mark) noexcept;
  /// Undoes on the copy what those had begun who hold a lock and do not run. `copy` copies the part: again, since what is
  /// undone may lead to more than was copied.
  Result<void> undo_what_stands(std::span<const LockMark> marks, FunctionRef<Result<void>()> copy) noexcept;
  /// What is newly copied is as in the segment, so all is undone anew.
  void undo_again() noexcept;
  /// What the heap's threads on their own have done meanwhile.
  Result<void> look_at_caches(Instant& instant, bool watch) noexcept;
  Result<void> mark_caches(std::uint32_t heap, bool watch) noexcept;
  Result<void> copy_names() noexcept;
  Result<void> copy_heap(std::uint32_t heap) noexcept;
  Result<void> copy_space(bool large) noexcept;
  Result<Instant> take(Part part, std::uint32_t heap, bool watch) noexcept;
  /// Tries until the copy is whole, or for as long as makes sense.
  Result<Instant> take_patiently(Part part, std::uint32_t heap) noexcept;
  /// Errors: those of reading; EAGAIN the names are there, but not of one instant.
  Result<void> want_names() noexcept;
  Result<void> want_heap(std::uint32_t heap, bool* stable) noexcept;

  [[nodiscard]] bool iova_sound(std::uint32_t region) noexcept;

  // inspector_verify.cpp
  struct Verdict {
    std::size_t breaches = 0;
    bool settled = false;  // all was judged
  };
  Result<Verdict> judge(Part part, std::uint32_t heap, FunctionRef<void(const Breach&)> report) noexcept;
  std::size_t check(Part part, std::uint32_t heap, alloc::Core::Checks checks, bool names,
                    FunctionRef<void(const Breach&)> report) noexcept;

  DomainState* view_ = nullptr;
  shared::SegmentReader reader_;
  os::WatchedDescriptor file_;
  bool named_ = true;
  std::uint64_t mapping_bytes_ = 0;
  std::uint64_t* copied_ = nullptr;  // a bit for each 64 KiB of the segment: copied since begin_copy()
  std::uint64_t copied_words_ = 0;
  std::uint64_t copies_ = 0;      // that need() made, ever
  std::uint32_t undone_[3] = {};  // slots whose unfinished changes the copy does without
  std::uint32_t undone_count_ = 0;
  CacheMark* caches_ = nullptr;  // of the heap that is being copied
  std::uint32_t cache_count_ = 0;
  DomainState::Tables tables_{};
  std::uint32_t pid_namespace_ = 0;
  Part part_ = Part::none;
  std::uint32_t heap_ = 0;
  Instant instant_{};
  bool have_names_ = false;  // copied since refresh()
  bool walking_ = false;
};

}  // namespace extmem::heap
