// Heap: a named allocator over the regions that were given to it.
//
// What it is: a light handle (two words, freely copied) to a heap of a Domain. It stays valid until the heap is
// destroyed or the domain closed; calls through a handle of a destroyed heap answer ESTALE.
// Thread-safety: every function may be called by any thread at any time, except from inside a walk's callback
// (those calls answer EDEADLK where they would need the heap's lock).
// Invariants:
//  1. Nothing is ever written into the memory, except the zeros and the copies that the caller asked for.
//  2. A pointer is freed at most once: a second free before reuse, an interior or a foreign pointer is refused
//     and changes nothing.
//  3. A failed call has changed nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "extmem/export.h"
#include "extmem/types.hpp"

namespace extmem {

namespace heap {
struct HeapLocal;
class DomainState;
}  // namespace heap

class EXTMEM_API Heap {
 public:
  constexpr Heap() noexcept = default;

  [[nodiscard]] constexpr explicit operator bool() const noexcept { return local_ != nullptr; }
  friend constexpr bool operator==(Heap, Heap) noexcept = default;

  /// The heap's stable number inside its domain. NUMA nodes' heaps come first: id == index of the node.
  [[nodiscard]] std::uint32_t id() const noexcept;
  /// The heap's name; "" for an empty handle. Valid while the heap exists.
  [[nodiscard]] const char* name() const noexcept;
  /// What Domain::walk_heaps tells of this heap. Takes no lock. Errors: EINVAL an empty handle; ESTALE.
  Result<HeapInfo> info() const noexcept;

  // ---- allocation --------------------------------------------------------------------------------------

  /// Allocates `size` bytes, aligned to 16 (binned) or 64 (exact).
  /// Errors: EINVAL size 0; ENOMEM no memory fits; EOVERFLOW size too large; ESTALE the heap was destroyed.
  Result<void*> allocate(std::size_t size) noexcept;
  /// The same with an alignment (power of two up to kMaxAlign) or any other constraints.
  /// Errors: also EINVAL for constraints that contradict themselves.
  Result<void*> allocate(std::size_t size, std::size_t align) noexcept;
  Result<void*> allocate(std::size_t size, const AllocOptions& options) noexcept;
  /// Allocates zeroed memory. Errors: also ENOTSUP where the CPU cannot reach the memory.
  Result<void*> zalloc(std::size_t size) noexcept;
  Result<void*> zalloc(std::size_t size, const AllocOptions& options) noexcept;
  /// Allocates an array of `count` x `size` zeroed bytes. Errors: also EOVERFLOW when the product overflows.
  Result<void*> calloc(std::size_t count, std::size_t size, const AllocOptions& options = {}) noexcept;
  /// Changes the size, in place when possible, else by moving. p == nullptr: allocate. On error p stays as it was.
  /// The tag of the object is kept unless options.tag names one. options.zero: what lies beyond the usable size that
  /// the object had is zeroed. Large objects take their pages along in private anonymous memory that the heap grew by, where the
  /// domain has no listeners: the bytes of both places are then other physical pages. What a device must reach needs a listener.
  /// Errors: those of allocate and deallocate; ENOTSUP when it would have to move memory that the CPU cannot reach.
  Result<void*> reallocate(void* p, std::size_t new_size) noexcept;
  Result<void*> reallocate(void* p, std::size_t new_size, const AllocOptions& options) noexcept;
  /// Frees what allocate gave. nullptr does nothing.
  /// Errors: EFAULT foreign pointer; EINVAL interior pointer; EALREADY double free; EPERM it is a memzone's memory.
  Result<void> deallocate(void* p) noexcept;

  /// Allocates out.size() objects of `size` bytes: all of them, or none.
  Result<void> allocate_batch(std::size_t size, std::span<void*> out,
                              const AllocOptions& options = {}) noexcept;
  /// Frees all; on errors frees the others all the same, returns the first error and, in *first_bad, its index.
  Result<void> deallocate_batch(std::span<void* const> pointers, std::size_t* first_bad = nullptr) noexcept;

  /// Bytes that the object at p really has. Errors: as deallocate.
  Result<std::size_t> usable_size(const void* p) const noexcept;
  /// The object that any pointer of this heap points into, interior pointers included.
  /// Errors: EFAULT the pointer is in no region of this heap.
  Result<ObjectInfo> owner_of(const void* p) const noexcept;

  // ---- seeing ------------------------------------------------------------------------------------------

  /// A consistent snapshot: all counters of one instant (the heap's threads pause for some microseconds).
  Result<HeapStats> stats() const noexcept;
  /// Live bytes and counts per tag, exact; written to `out`, at most out.size() of them. Returns how many exist.
  /// Scans the state of every object while the heap's threads wait.
  Result<std::size_t> tag_stats(std::span<TagStats> out) const noexcept;
  /// Who holds memory of the heap now: a line for each tag, in a named domain for each process and tag. A line with pid 0
  /// that is no memzone is what a dead process left (OnDeath::keep): Domain::hand_over gives it to somebody.
  /// Scans the state of every object while the heap's threads wait.
  Result<void> holders(HolderReport& report) const noexcept;
  /// Visits regions, spans, slabs and, if asked, objects. The visitor returns true to go on.
  /// The heap is locked meanwhile: inside, what this thread has not cached cannot be allocated and answers EDEADLK.
  Result<void> walk(FunctionRef<bool(const WalkEntry&)> visit,
                    const WalkOptions& options = {}) const noexcept;
  /// Checks every invariant of the heap. Returns the number of breaches; reports each.
  Result<std::size_t> verify(FunctionRef<void(const Breach&)> report = {}) const noexcept;
  /// Moves every thread's cached objects back to their slabs, empty slabs back to free pages.
  Result<void> flush() noexcept;

 private:
  friend class Domain;
  friend class heap::DomainState;
  constexpr Heap(heap::HeapLocal* local, std::uint64_t key) noexcept : local_(local), key_(key) {}
  // With the arguments of the public functions, which thus end in a jump.
  [[gnu::visibility("hidden")]] Result<void*> allocate_exact(std::size_t size) noexcept;
  [[gnu::visibility("hidden")]] Result<void> deallocate_exact(void* p) noexcept;
  [[gnu::visibility("hidden")]] Result<void> deallocate_shared(void* p) noexcept;
  [[gnu::visibility("hidden")]] Result<void*> allocate_slowly(std::size_t size) noexcept;
  [[gnu::visibility("hidden")]] Result<void*> zalloc_slowly(std::size_t size, void* popped) noexcept;
  [[gnu::visibility("hidden")]] Result<void> deallocate_slowly(void* p) noexcept;
  [[gnu::visibility("hidden")]] Result<void*> reallocate_slowly(void* p, std::size_t new_size,
                                                                const AllocOptions& options) noexcept;
  heap::HeapLocal* local_ = nullptr;
  std::uint64_t key_ = 0;
};

}  // namespace extmem
