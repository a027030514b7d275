// What the opaque handles of the C interface are.
#pragma once

#include <array>
#include <bit>
#include <mutex>
#include <type_traits>

#include "extmem/domain.hpp"
#include "extmem/extmem.h"

namespace extmem::faces::c {

/// A heap's handle has the same two words on both sides.
static_assert(sizeof(Heap) == sizeof(extmem_heap_t) && alignof(Heap) == alignof(extmem_heap_t));
static_assert(std::is_trivially_copyable_v<Heap>);
inline Heap from_c(extmem_heap_t heap) noexcept { return std::bit_cast<Heap>(heap); }
inline extmem_heap_t to_c(Heap heap) noexcept { return std::bit_cast<extmem_heap_t>(heap); }

inline RegionId from_c(extmem_region_id_t id) noexcept { return {id.slot, id.generation}; }
inline extmem_region_id_t to_c(RegionId id) noexcept { return {id.slot, id.generation}; }

/// The C listeners of a domain: each is registered in the core as (call_listener, &its slot).
/// Thread-safety: `mutex` guards the slots' states; it is held in no call into the core, since a listener may
/// itself call in here. A slot's function and argument change only while the core does not know the slot.
struct Listeners {
  static constexpr std::size_t kMax = 64;
  struct Slot {
    extmem_region_listener_fn listener = nullptr;
    void* arg = nullptr;
    enum class State { free, changing, registered } state = State::free;
  };
  std::mutex mutex;
  std::array<Slot, kMax> slots{};
};

}  // namespace extmem::faces::c

struct extmem_domain {
  extmem::Domain domain;
  extmem::faces::c::Listeners listeners;
};

namespace extmem::faces::c {
/// Gives the caller a handle of a domain. Returns 0, or a failure: then the domain is closed again.
int put_domain(Domain&& made, extmem_domain_t** domain) noexcept;
}  // namespace extmem::faces::c
