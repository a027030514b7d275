// The third fast path, beside Core::pop and Core::free_fast: freeing into a slab that threads share.
//
// What it is: the usual case of Core::free_small's way for shared slabs; see there for what may happen meanwhile. Like the other two it
// gets the tables' addresses from its caller and calls nothing.
#pragma once

#include "alloc/core.hpp"

namespace extmem::alloc {

/// Frees an untagged object of a slab that threads share. `mapped`: the slab map's word for the place; the rest as
/// Core::free_fast. False: not that easily, use free_small.
EXTMEM_ALWAYS_INLINE bool free_shared(const Core::FastTables& tables, ThreadCache& cache,
                                      const base::Relaxed<std::uint32_t>& mapped, std::uint64_t ptr,
                                      std::uint64_t address) noexcept {
  if (!cache.gate.try_enter()) [[unlikely]]
    return false;
  const auto refuse = [&] {
    cache.gate.leave();
    return false;
  };
  const std::uint32_t link = mapped;  // none names the record of nobody, which has no objects
  const Slab& slab = tables.slabs[link];
  if (slab.home != cache.heap) [[unlikely]]  // Slab::pack(heap, 0)
    return refuse();
  const std::uint64_t first = slab.first;
  const ObjectPlace place = place_of(ptr - first, slab.reciprocal);
  if (!place.exact) [[unlikely]]
    return refuse();
  if (place.number >= slab.objects) [[unlikely]]
    return refuse();
  if ((slab.flags & kSlabDraining) != 0) [[unlikely]]
    return refuse();
  const std::uint32_t first_state = slab.first_state;
  const std::uint32_t state = first_state + static_cast<std::uint32_t>(place.number);
  const std::uint32_t cls = slab.size_class;
  const bool own = slab.keeper == cache.cached;
  const bool goes_out = !own && kSizeClasses[cls].outbox != 0;
  Magazine& magazine = cache.magazine(slab.magazine);
  const std::uint32_t top = magazine.top;
  const std::uint32_t out = cache.out_counts[cls];
  const std::uint32_t patience = cache.patience[cls];
  if (goes_out ? out >= kSizeClasses[cls].outbox : top >= magazine.limit || (own && patience == 0))
      [[unlikely]]
    return refuse();
  std::atomic<std::uint16_t>& word = tables.states[state];
  std::uint16_t expected = cache.held;
  // Decides between racing frees. The winner hands the object on to the thread that takes it next, and sees what its holder
  // did before. Sequentially consistent, as the load after it: they pair with the fence in Core::rebias().
  if (!word.compare_exchange_strong(expected, cache.cached, std::memory_order_seq_cst)) [[unlikely]]
    return refuse();
  const std::uint32_t home = slab.home.atomic().load(std::memory_order_seq_cst);
  // And then the word: where the slab was its keeper's meanwhile, and is shared again, the keeper may have freed the object too.
  if (home != cache.heap || word.load(std::memory_order_relaxed) != cache.cached || mapped != link ||
      slab.first != first || slab.first_state != first_state) [[unlikely]] {
    // The slab is its keeper's now, or the word another object's: give it back, unless its owner has freed it since.
    std::uint16_t ours = cache.cached;
    (void)word.compare_exchange_strong(ours, cache.held, std::memory_order_acq_rel);
    return refuse();
  }
  if (goes_out) {  // what others' slabs have is not handed out again here
    cache.outbox(cls)[out] = CachedObject{address, state, link};
    cache.out_counts[cls] = static_cast<std::uint16_t>(out + 1);
  } else {
    const std::uint32_t next = top + static_cast<std::uint32_t>(sizeof(CachedObject));
    cache.entry(next) = CachedObject{address, state, link};
    magazine.top = next;
    if (own) cache.patience[cls] = static_cast<std::uint16_t>(patience - 1);
  }
  cache.gate.leave();
  return true;
}

}  // namespace extmem::alloc
