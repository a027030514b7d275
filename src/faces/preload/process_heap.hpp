// ProcessHeap: the one heap that everything of this process is allocated from.
//
// What it is: the global state of the preload library: the domain, its heap, the memory for what is asked for while
// these are being made, and the counts of what should not happen.
// Thread-safety: begin() runs on the process' only thread. The C library allocates (by our calloc) before it starts a
// second thread, so the first allocation, which calls begin(), always comes before that.
// Invariants:
//  1. `heap` is empty until begin() has succeeded; then it never changes (but in a fork's child, which has a copy).
//  2. After begin() no byte comes from anywhere but `heap`.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "extmem/domain.hpp"
#include "faces/preload/settings.hpp"
#include "os/kept_descriptor.hpp"
#include "os/page_mover.hpp"
#include "os/writer.hpp"

namespace extmem::preload {

/// Memory for what the C library allocates while the heap is being made. Never given back.
class Bootstrap {
 public:
  /// Null: full.
  void* allocate(std::size_t size, std::size_t align) noexcept;
  [[nodiscard]] bool contains(const void* p) const noexcept {
    return reinterpret_cast<std::uintptr_t>(p) - reinterpret_cast<std::uintptr_t>(bytes_) < sizeof bytes_;
  }
  /// Bytes from p to the end of what was given: no less than what p was given.
  [[nodiscard]] std::size_t size_of(const void* p) const noexcept {
    return used_ - static_cast<std::size_t>(static_cast<const std::byte*>(p) - bytes_);
  }
  [[nodiscard]] std::size_t used() const noexcept { return used_; }

 private:
  alignas(64) std::byte bytes_[16384]{};
  std::size_t used_ = 0;
};

enum class Phase : std::uint8_t { none, beginning, ready };

/// What went wrong, for the report. Relaxed: each is a count of its own.
struct Mishaps {
  std::atomic<std::uint64_t> refused{0};    // allocations that the heap could not give
  std::atomic<std::uint64_t> bad_frees{0};  // second, interior or foreign frees: ignored
};

/// A domain that is never closed: others free their memory until the very end of the process.
union LastingDomain {
  Domain domain;
  constexpr LastingDomain() noexcept : domain{} {}
  ~LastingDomain() {}
};

struct ProcessHeap {
  Heap heap;
  // The same for malloc and operator new; empty before that, and where they have more to do than to allocate: find a tag, call
  // the program's own.
  Heap quick;
  Heap quick_new;
  Phase phase = Phase::none;
  Bootstrap bootstrap;
  Mishaps mishaps;
  Settings settings;
  os::PageMover mover;
  LastingDomain lasting;
  RegionInfo first{};      // the memory that was mapped at the start
  bool furnished = false;  // that was there already: `first` is as long as all of it
  std::uint64_t begun_ns = 0;
  char other_malloc[256] = "";   // the file whose malloc the program calls instead of this one
  bool malloc_in_front = false;  // that one, or one that ends in this one, as a recording library's
  // Operators new that the program has instead of ours: the other forms must end in them.
  bool replaced_new = false;
  bool replaced_aligned_new = false;
  os::KeptDescriptor standard_error;  // for the statistics: many programs close theirs before the end
  os::KeptDescriptor path_lock;       // settings.path, with its lock
  bool path_made = false;             // by this process: it was not there

  [[nodiscard]] Domain& domain() noexcept { return lasting.domain; }
};
extern constinit ProcessHeap process;

/// Makes the heap as the environment says. Ends the process (exit code 3, with the reason on standard error) where
/// that cannot be done: a program without memory cannot run.
void begin() noexcept;

/// The state once there is a heap, or one is being made.
inline ProcessHeap& begun() noexcept {
  if (process.phase == Phase::none) begin();
  return process;
}

/// Makes every fork copy what the kernel does not. Returns 0 or the errno value.
int watch_forks() noexcept;

/// Finds the C library's way out, for exits that run no destructors.
void watch_exit() noexcept;
/// The program ends by itself: from now on no heap keeps what it holds, once the process is gone.
void tell_of_exit() noexcept;

/// malloc's slow way and memalign, for operator new. Null: ENOMEM. Requires: `align` is a power of two.
void* allocate_from(std::size_t size, const void* caller) noexcept;
void* allocate_aligned_from(std::size_t align, std::size_t size, const void* caller) noexcept;

/// Tells a wrong free: the first few on standard error.
void tell_bad_free(const char* function, const void* p, Error error) noexcept;

/// Where an allocation is from, for Settings::tags: the tag of the library that `caller` lies in.
Tag tag_of_caller(const void* caller) noexcept;

/// Looks which functions of this library the program calls others instead of.
void find_replaced() noexcept;
/// A malloc in front that takes its memory from this one is no other. Requires: the heap is there.
void forget_forwarding_malloc() noexcept;

/// What memory was taken, in one line; statistics at exit.
void report_start() noexcept;
/// Says so where the program calls another malloc than this library's that gives other memory: one that is linked into it.
void report_other_malloc() noexcept;
/// Once, where statistics are wanted of this process.
void report_exit() noexcept;
/// The document of --json where there is nothing else to tell.
void write_error(os::Writer& out, const char* message) noexcept;

}  // namespace extmem::preload
