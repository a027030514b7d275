// The public class Heap. The hot paths are here, inline over the alloc layer; the rest forwards. Domain: domain_handle.cpp.
#include <algorithm>
#include <cstring>
#include <utility>

#include "alloc/shared_free.hpp"
#include "base/error.hpp"
#include "extmem/domain.hpp"
#include "heap/domain_state.hpp"
#include "heap/exact_paths.hpp"
#include "heap/hot_paths.hpp"

namespace extmem {

using heap::current;
using heap::DomainState;
using heap::HeapLocal;
using heap::HotPaths;
using heap::pop_exact;
using heap::push_exact;
using heap::ThreadMemory;

namespace {

Error stale(const HeapLocal* local) noexcept {
  if (local == nullptr)
    return EXTMEM_ERROR(EINVAL, "the heap handle is empty: get one from create_heap or find_heap");
  return EXTMEM_ERROR(ESTALE, "the heap was destroyed: this handle is stale");
}

/// Also the place where a process does what other processes have made it due to do.
EXTMEM_ALWAYS_INLINE bool living(const HeapLocal* local, std::uint64_t key) noexcept {
  if (local == nullptr || local->state == nullptr) return false;
  local->state->tend();
  return local->key.load(std::memory_order_relaxed) == key;
}

/// Whether it is of this living heap.
bool remembered(const ThreadMemory& memory, std::uint64_t key) noexcept {
  return memory.heap_key == key && current(memory);
}

/// Whether the CPU can write to an object that the caller holds (so that its region stays).
bool cpu_reaches(DomainState& state, const void* p) noexcept {
  const heap::RegionLocal* region = state.region_at(p);
  return region != nullptr && (state.core_.region(region->slot).flags & alloc::kRegionCpu) != 0;
}

/// The same of an object in another region than the remembered one, which stays that.
[[gnu::noinline]] bool cpu_reaches_also(DomainState& state, std::uintptr_t at) noexcept {
  const heap::RegionLocal* region = state.look_up(reinterpret_cast<const void*>(at));
  return region != nullptr && at - region->base < region->cpu;
}

/// Whether this alignment is one that every span of an exact heap has.
constexpr bool any_span_has(std::size_t align) noexcept {
  return align <= std::size_t{1} << alloc::kSpanUnitShift && (align & (align - 1)) == 0;
}

/// Whether nothing but a tag is asked for.
bool plain(const AllocOptions& o, std::size_t align = 16) noexcept {
  return o.align <= align && (o.align & (o.align - 1)) == 0 && o.nocross == 0 && !o.iova_contiguous &&
         o.dma_bits == 0 && o.placement == Placement::any && !o.zero && o.numa_node == kAnyNode &&
         o.os_page_size == 0 && !o.region && o.min_offset == 0 && o.max_offset == 0;
}

/// An object that the caller holds, by what the thread remembers.
struct HeldSmall {
  const alloc::Slab* slab = nullptr;  // null: not that easily; the address may be anything then
  std::uint64_t offset = 0;           // in the remembered region
  std::uint32_t link = 0;             // of the slab
  std::uint16_t state = 0;
};
/// As for a free, without the gate: an object that the caller holds keeps its slab. But a unit of the map is larger than a small
/// slab: what it names may be another one, which others are just giving back or making. So the words are looked at again.
EXTMEM_ALWAYS_INLINE HeldSmall held_small(const ThreadMemory& memory, std::uint64_t key,
                                          const HeapLocal* local, const void* p) noexcept {
  HeldSmall held;
  held.offset = reinterpret_cast<std::uintptr_t>(p) - memory.region_base;
  if (held.offset >= memory.region_mapped || !remembered(memory, key) || memory.region->heap != local->id)
    return held;
  const base::Relaxed<std::uint32_t>& mapped = memory.region_slab_map[held.offset >> alloc::kSlabMapShift];
  held.link = mapped;
  const alloc::Slab& slab = memory.tables.slabs[held.link];
  const std::uint64_t first = slab.first, reciprocal = slab.reciprocal;
  const std::uint32_t objects = slab.objects, first_state = slab.first_state;
  const alloc::ObjectPlace place = alloc::place_of((held.offset | memory.region_bits) - first, reciprocal);
  if (held.link == 0 || !place.exact || place.number >= objects) return held;
  // Acquire: the second look comes after all of this.
  held.state = memory.tables.states[first_state + static_cast<std::uint32_t>(place.number)].load(
      std::memory_order_acquire);
  if (!alloc::is_held(held.state) || mapped != held.link || slab.first != first ||
      slab.reciprocal != reciprocal || slab.objects != objects || slab.first_state != first_state)
    return held;
  held.slab = &slab;
  return held;
}

/// A heap may be destroyed between the look at its handle and an allocation, and its record may then be another heap's:
/// what was taken from that one goes back. (Once an object of the heap is held, it cannot be destroyed: so one look
/// afterwards is enough.)
Result<void*> if_living(HeapLocal* local, std::uint64_t key, Result<void*> p) noexcept {
  if (living(local, key)) [[likely]]
    return p;
  if (p) (void)local->state->deallocate(local, *p);
  return stale(local);
}

/// Every way of allocating.
Result<void*> allocate_living(HeapLocal* local, std::uint64_t key, std::size_t size,
                              const AllocOptions& options) noexcept {
  if (!living(local, key)) return stale(local);
  return if_living(local, key, local->state->allocate_pointer(*local, size, options));
}

}  // namespace

// Out of line, and so that the hot functions end in jumps: they then need no stack frame.
[[gnu::noinline]] Result<void*> Heap::allocate_exact(std::size_t size) noexcept {
  const std::uintptr_t p = pop_exact(heap::thread_memory, key_, size);
  if (p == 0) [[unlikely]]
    return allocate_slowly(size);
  return reinterpret_cast<void*>(p);
}
[[gnu::noinline]] Result<void> Heap::deallocate_exact(void* p) noexcept {
  const ThreadMemory& memory = heap::thread_memory;
  if (memory.exact_key != key_) [[unlikely]]
    return deallocate_slowly(p);
  if (push_exact(memory, p)) [[likely]]
    return {};
  if (living(local_, key_) && heap::free_exact(*local_->state, memory, p)) return {};
  return deallocate_slowly(p);
}
[[gnu::noinline]] Result<void*> Heap::allocate_slowly(std::size_t size) noexcept {
  const ThreadMemory& memory = heap::thread_memory;
  if (size - 1 < alloc::kMaxClassSize && remembered(memory, key_)) {
    // The usual reason: an empty magazine.
    DomainState& state = *local_->state;
    auto p = state.core_.allocate_small(memory.cache->slot, *memory.cache, alloc::class_of(size),
                                        state.core_.untagged());
    if (p) return reinterpret_cast<void*>(*p);
  } else if (memory.exact_key == key_ && current(memory) && living(local_, key_)) {
    // Of an exact heap: nothing that a free has just undone.
    const std::uint64_t p =
        local_->state->core_.allocate_plain_span(memory.cache->slot, memory.cache->heap, memory.cache, size);
    if (p != 0) return if_living(local_, key_, reinterpret_cast<void*>(p));
  }
  return allocate_living(local_, key_, size, AllocOptions{});
}
[[gnu::noinline]] Result<void*> Heap::zalloc_slowly(std::size_t size, void* popped) noexcept {
  auto p = popped != nullptr ? Result<void*>(popped) : allocate_exact(size);
  if (!p) return p;
  if (cpu_reaches(*local_->state, *p)) return std::memset(*p, 0, size);
  (void)deallocate(*p);
  AllocOptions zeroed;
  zeroed.zero = true;
  return allocate_living(local_, key_, size, zeroed);  // says what is wrong
}
/// What a thread frees that another has allocated. Requires: the place is in the remembered region, and heap and region are
/// current: the caller has just looked.
[[gnu::noinline]] Result<void> Heap::deallocate_shared(void* p) noexcept {
  const ThreadMemory& memory = heap::thread_memory;
  const std::uint64_t offset = reinterpret_cast<std::uintptr_t>(p) - memory.region_base;
  if (!alloc::free_shared(memory.tables, *memory.cache,
                          memory.region_slab_map[offset >> alloc::kSlabMapShift], offset | memory.region_bits,
                          reinterpret_cast<std::uintptr_t>(p))) [[unlikely]]
    return deallocate_slowly(p);
  return {};
}
[[gnu::noinline]] Result<void> Heap::deallocate_slowly(void* p) noexcept {
  const ThreadMemory& memory = heap::thread_memory;
  std::uint64_t offset = reinterpret_cast<std::uintptr_t>(p) - memory.region_base;
  if (offset >= memory.region_length && remembered(memory, key_) &&
      local_->state->region_at(p) !=
          nullptr) {  // it lies in another region than the last: now that is the last
    offset = reinterpret_cast<std::uintptr_t>(p) - memory.region_base;
    if (offset < memory.region_mapped && remembered(memory, key_) &&
        alloc::Core::free_fast(memory.tables, *memory.cache,
                               memory.region_slab_map[offset >> alloc::kSlabMapShift],
                               offset | memory.region_bits, reinterpret_cast<std::uintptr_t>(p)))
      return {};
  }
  if (offset < memory.region_mapped && remembered(memory, key_) &&
      memory.region->heap ==
          local_->id &&  // the region may be another heap's: then that is a foreign pointer
      memory.region_slab_map[offset >> alloc::kSlabMapShift] != 0) {
    // The usual reasons: a full magazine, a tagged object, a slab that threads share.
    DomainState& state = *local_->state;
    if (alloc::free_shared(memory.tables, *memory.cache,
                           memory.region_slab_map[offset >> alloc::kSlabMapShift],
                           offset | memory.region_bits, reinterpret_cast<std::uintptr_t>(p)))
      return {};  // into a magazine: nothing became empty
    auto freed = state.core_.free_small(memory.cache->slot, *memory.cache, memory.region->slot, offset);
    if (freed) state.tidy_growth(*local_);
    if (freed || freed.error().code() != ENOTBLK) return freed;
  }
  if (!living(local_, key_)) return stale(local_);
  return local_->state->deallocate(local_, p);
}

// ---- Heap: the hot paths -----------------------------------------------------------------------------------

Result<void*> Heap::allocate(std::size_t size) noexcept {
  const ThreadMemory& memory = heap::thread_memory;
  const std::uintptr_t p = HotPaths::pop(memory, *this, size);
  if (p == 0) [[unlikely]]
    return allocate_exact(size);
  return reinterpret_cast<void*>(p);
}

Result<void> Heap::deallocate(void* p) noexcept {
  const HotPaths::Push pushed = HotPaths::push(heap::thread_memory, *this, p);
  if (pushed == HotPaths::Push::done) [[likely]]
    return {};
  if (pushed == HotPaths::Push::shared) return deallocate_shared(p);
  if (pushed == HotPaths::Push::exact) return deallocate_exact(p);
  return deallocate_slowly(p);
}

// ---- Heap: the rest ----------------------------------------------------------------------------------------

std::uint32_t Heap::id() const noexcept { return static_cast<std::uint32_t>(key_ & 0xffff); }
const char* Heap::name() const noexcept { return local_ == nullptr ? "" : local_->label; }

Result<HeapInfo> Heap::info() const noexcept {
  if (!living(local_, key_)) return stale(local_);
  const HeapInfo info = local_->state->heap_info(local_->id);
  if (!living(local_, key_)) return stale(local_);  // else what was read may be of another heap
  return info;
}

// Apart, so that allocate() needs no stack frame.
[[gnu::noinline]] static Result<void*> allocate_aligned(Heap& heap, std::size_t size,
                                                        std::size_t align) noexcept {
  if (align == 0) return EXTMEM_ERROR(EINVAL, "the alignment must be a power of two");
  AllocOptions options;
  options.align = align;
  return heap.allocate(size, options);
}
Result<void*> Heap::allocate(std::size_t size, std::size_t align) noexcept {
  if (heap::thread_memory.exact_key != key_ || align == 0 || !any_span_has(align)) [[unlikely]]
    return allocate_aligned(*this, size, align);
  const std::uintptr_t p = pop_exact(heap::thread_memory, key_, size);
  if (p == 0) [[unlikely]]
    return allocate_slowly(size);
  return reinterpret_cast<void*>(p);
}
Result<void*> Heap::allocate(std::size_t size, const AllocOptions& options) noexcept {
  if (plain(options)) {
    if (options.tag.index == 0) return allocate(size);
    const ThreadMemory& memory = heap::thread_memory;
    if (size - 1 < alloc::kMaxClassSize && remembered(memory, key_) && local_->state->knows(options.tag) &&
        local_->state->holder_of(options.tag) != 0) {
      DomainState& state = *local_->state;
      auto p = state.core_.allocate_small(memory.cache->slot, *memory.cache, alloc::class_of(size),
                                          state.holder_of(options.tag));
      if (p) return reinterpret_cast<void*>(*p);
    }
  } else if (options.tag.index == 0 && plain(options, std::size_t{1} << alloc::kSpanUnitShift)) {
    if (const std::uintptr_t p = pop_exact(heap::thread_memory, key_, size); p != 0)
      return reinterpret_cast<void*>(p);
  }
  return allocate_living(local_, key_, size, options);
}
Result<void*> Heap::zalloc(std::size_t size) noexcept {
  const ThreadMemory& memory = heap::thread_memory;
  const std::uintptr_t popped = HotPaths::pop(memory, *this, size);
  if (popped - memory.region_base < memory.region_cpu && popped != 0 && current(memory)) [[likely]] {
    return std::memset(reinterpret_cast<void*>(popped), 0, size);
  }
  return zalloc_slowly(size, reinterpret_cast<void*>(popped));
}
Result<void*> Heap::zalloc(std::size_t size, const AllocOptions& options) noexcept {
  if (plain(options)) {
    if (options.tag.index == 0) return zalloc(size);
    auto p = allocate(size, options);
    if (!p) return p;
    if (cpu_reaches(*local_->state, *p)) [[likely]]
      return std::memset(*p, 0, size);
    (void)deallocate(*p);
  }
  AllocOptions zeroed = options;
  zeroed.zero = true;
  return allocate_living(local_, key_, size, zeroed);
}
Result<void*> Heap::calloc(std::size_t count, std::size_t size, const AllocOptions& options) noexcept {
  std::uint64_t bytes;
  if (!base::checked_mul(count, size, bytes)) return EXTMEM_ERROR(EOVERFLOW, "count times size overflows");
  return zalloc(bytes, options);
}
Result<void*> Heap::reallocate(void* p, std::size_t new_size) noexcept {
  const ThreadMemory& memory = heap::thread_memory;
  const HeldSmall held = held_small(memory, key_, local_, p);
  // A small untagged object of ours that stays one: as DomainState::reallocate would do it.
  if (held.slab != nullptr && held.state == memory.cache->held && new_size - 1 < alloc::kLastingSize)
      [[likely]] {
    const std::size_t size = held.slab->size();
    if (alloc::fits_well(new_size, size)) return p;
    const std::uintptr_t to = held.offset < memory.region_cpu ? HotPaths::pop(memory, *this, new_size) : 0;
    if (to != 0 && (to - memory.region_base < memory.region_cpu || cpu_reaches_also(*local_->state, to)))
        [[likely]] {
      std::memcpy(reinterpret_cast<void*>(to), p, std::min(size, new_size));
      if (!alloc::Core::free_fast(memory.tables, *memory.cache, held.link, held.offset | memory.region_bits,
                                  reinterpret_cast<std::uintptr_t>(p))) [[unlikely]] {
        if (auto freed = deallocate_slowly(p);
            !freed) {  // somebody else freed it meanwhile: a bug of the caller's
          (void)deallocate(reinterpret_cast<void*>(to));
          return freed.error();
        }
      }
      return reinterpret_cast<void*>(to);
    }
    if (to != 0) (void)deallocate(reinterpret_cast<void*>(to));
  }
  return reallocate_slowly(p, new_size, AllocOptions{});
}
Result<void*> Heap::reallocate(void* p, std::size_t new_size, const AllocOptions& options) noexcept {
  if (options.tag.index == 0 && !options.in_place && plain(options)) return reallocate(p, new_size);
  return reallocate_slowly(p, new_size, options);
}
[[gnu::noinline]] Result<void*> Heap::reallocate_slowly(void* p, std::size_t new_size,
                                                        const AllocOptions& options) noexcept {
  if (p == nullptr)
    return allocate_living(local_, key_, new_size, options);  // nothing is held that keeps the heap
  if (!living(local_, key_)) return stale(local_);
  return local_->state->reallocate(*local_, p, new_size, options);
}
Result<void> Heap::allocate_batch(std::size_t size, std::span<void*> out,
                                  const AllocOptions& options) noexcept {
  if (!living(local_, key_)) return stale(local_);
  const bool simple = options.tag.index == 0 && plain(options);
  for (std::size_t i = 0; i < out.size(); ++i) {
    auto p = simple ? allocate(size) : allocate(size, options);
    if (!p) {
      while (i-- > 0) {
        (void)deallocate(out[i]);
        out[i] = nullptr;
      }
      return p.error();
    }
    out[i] = *p;
  }
  return {};
}
Result<void> Heap::deallocate_batch(std::span<void* const> pointers, std::size_t* first_bad) noexcept {
  if (!living(local_, key_)) return stale(local_);
  Error first{};
  for (std::size_t i = 0; i < pointers.size(); ++i) {
    if (auto freed = deallocate(pointers[i]); !freed && !first) {
      first = freed.error();
      if (first_bad != nullptr) *first_bad = i;
    }
  }
  return first ? Result<void>(first) : Result<void>();
}
Result<std::size_t> Heap::usable_size(const void* p) const noexcept {
  if (const HeldSmall held = held_small(heap::thread_memory, key_, local_, p); held.slab != nullptr)
    return std::size_t{held.slab->size()};
  if (!living(local_, key_)) return stale(local_);
  auto object = local_->state->held_object(local_, p, nullptr);
  if (!object) return object.error();
  return static_cast<std::size_t>(object->size);
}
Result<ObjectInfo> Heap::owner_of(const void* p) const noexcept {
  if (!living(local_, key_)) return stale(local_);
  auto object = local_->state->object_at(p, nullptr);
  if (object && object->heap_id != local_->id) {
    return EXTMEM_ERROR(EFAULT, "foreign pointer: the address belongs to another heap of this domain");
  }
  return object;
}
Result<HeapStats> Heap::stats() const noexcept {
  if (!living(local_, key_)) return stale(local_);
  return local_->state->stats(*local_);
}
Result<std::size_t> Heap::tag_stats(std::span<TagStats> out) const noexcept {
  if (!living(local_, key_)) return stale(local_);
  return local_->state->tag_stats(*local_, out);
}
Result<void> Heap::holders(HolderReport& report) const noexcept {
  if (!living(local_, key_)) return stale(local_);
  return local_->state->holders(*local_, report);
}
Result<void> Heap::walk(FunctionRef<bool(const WalkEntry&)> visit,
                        const WalkOptions& options) const noexcept {
  if (!living(local_, key_)) return stale(local_);
  return local_->state->walk(*local_, visit, options);
}
Result<std::size_t> Heap::verify(FunctionRef<void(const Breach&)> report) const noexcept {
  if (!living(local_, key_)) return stale(local_);
  return local_->state->verify_heap(*local_, report);
}
Result<void> Heap::flush() noexcept {
  if (!living(local_, key_)) return stale(local_);
  return local_->state->flush(*local_);
}

}  // namespace extmem
