// Rings.
#include "extmem/ring.hpp"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstdint>
#include <limits>

#include "extmem/extmem_ring.h"
#include "faces/c/convert.hpp"
#include "faces/c/error.hpp"

namespace extmem::faces::c {
template <>
inline constexpr std::size_t kFirstSize<extmem_ring_watch_t> = 32;
}  // namespace extmem::faces::c

using namespace extmem::faces::c;
using extmem::RegionPtr;
using extmem::Ring;
using extmem::RingKind;

namespace {

static_assert(sizeof(Ring) == sizeof(extmem_ring_t) && alignof(Ring) == alignof(extmem_ring_t));
static_assert(EXTMEM_RING_SPSC == static_cast<int>(RingKind::spsc));
static_assert(EXTMEM_RING_MPMC == static_cast<int>(RingKind::mpmc));
static_assert(EXTMEM_RING_ALIGN == extmem::kRingAlign);
static_assert(EXTMEM_RING_MAX_CAPACITY == extmem::kMaxRingCapacity);
static_assert(EXTMEM_RING_MAX_PARTICIPANT == extmem::kMaxRingParticipant);

Ring from_c(extmem_ring_t ring) noexcept { return std::bit_cast<Ring>(ring); }
extmem::RingTaken from_c(const extmem_ring_taken_t& taken) noexcept {
  return {.ptr = RegionPtr{taken.ptr}, .ticket = taken.ticket};
}
extmem_ring_taken_t to_c(const extmem::RingTaken& from) noexcept {
  const auto& [ptr, ticket] = from;
  return {ptr.bits, ticket};
}

std::chrono::nanoseconds duration(std::uint64_t timeout_ns) noexcept {
  constexpr std::uint64_t kLongest{std::numeric_limits<std::chrono::nanoseconds::rep>::max()};
  return std::chrono::nanoseconds{std::min(timeout_ns, kLongest)};
}

/// The functions of a watch, alive as long as the call that was given them.
class Watch {
 public:
  int load_from(const extmem_ring_watch_t* watch) noexcept { return load(watch, c_); }
  [[nodiscard]] extmem::RingWatch get() const noexcept {
    extmem::RingWatch watch;
    if (c_.is_dead != nullptr) watch.is_dead = is_dead_;
    if (c_.on_orphan != nullptr) watch.on_orphan = on_orphan_;
    return watch;
  }

 private:
  struct IsDead {
    const extmem_ring_watch_t& c;
    bool operator()(std::uint32_t participant) const { return c.is_dead(participant, c.arg); }
  };
  struct OnOrphan {
    const extmem_ring_watch_t& c;
    void operator()(const extmem::RingOrphan& from) const {
      const auto& [ptr, ticket, participant] = from;
      const extmem_ring_orphan_t orphan{ptr.bits, ticket, participant, 0};
      c.on_orphan(&orphan, c.arg);
    }
  };
  extmem_ring_watch_t c_ = EXTMEM_RING_WATCH_INIT;
  IsDead is_dead_{c_};
  OnOrphan on_orphan_{c_};
};

}  // namespace

int extmem_ring_get_size(uint32_t kind, size_t capacity, size_t* bytes) {
  EXTMEM_C_REQUIRE_OUT(bytes);
  const auto needed = Ring::bytes_for(static_cast<RingKind>(kind), capacity);
  if (!needed) return fail(needed.error());
  *bytes = *needed;
  return 0;
}

int extmem_ring_create(void* memory, size_t bytes, uint32_t kind, size_t capacity) {
  return to_errno(Ring::create(memory, bytes, static_cast<RingKind>(kind), capacity));
}

int extmem_ring_attach(void* memory, size_t bytes, uint32_t participant, extmem_ring_t* ring) {
  EXTMEM_C_REQUIRE_OUT(ring);
  const auto attached = Ring::attach(memory, bytes, participant);
  if (!attached) return fail(attached.error());
  *ring = std::bit_cast<extmem_ring_t>(*attached);
  return 0;
}

int extmem_ring_detach(extmem_ring_t ring) { return to_errno(from_c(ring).detach()); }

int extmem_ring_push(extmem_ring_t ring, const extmem_region_ptr_t* ptrs, size_t count, size_t* pushed) {
  EXTMEM_C_REQUIRE(ptrs != nullptr, "ptrs is NULL; pass the elements");
  EXTMEM_C_REQUIRE_OUT(pushed);
  static_assert(sizeof(RegionPtr) == sizeof(extmem_region_ptr_t));
  const auto done = from_c(ring).push({reinterpret_cast<const RegionPtr*>(ptrs), count});
  if (!done) return fail(done.error());
  *pushed = *done;
  return 0;
}

int extmem_ring_pop(extmem_ring_t ring, extmem_region_ptr_t* ptrs, size_t count, size_t* popped) {
  EXTMEM_C_REQUIRE_OUT(ptrs);
  EXTMEM_C_REQUIRE_OUT(popped);
  const auto done = from_c(ring).pop(for_core<RegionPtr>(ptrs, count));
  if (!done) return fail(done.error());
  *popped = *done;
  return 0;
}

int extmem_ring_take(extmem_ring_t ring, extmem_ring_taken_t* taken) {
  EXTMEM_C_REQUIRE_OUT(taken);
  const auto done = from_c(ring).take();
  if (!done) return fail(done.error());
  *taken = to_c(*done);
  return 0;
}

int extmem_ring_settle(extmem_ring_t ring, const extmem_ring_taken_t* taken) {
  EXTMEM_C_REQUIRE(taken != nullptr, "taken is NULL; pass what extmem_ring_take gave");
  return to_errno(from_c(ring).settle(from_c(*taken)));
}

int extmem_ring_push_wait(extmem_ring_t ring, extmem_region_ptr_t ptr, uint64_t timeout_ns,
                          const extmem_ring_watch_t* watch) {
  Watch loaded;
  EXTMEM_C_TRY(loaded.load_from(watch));
  return to_errno(from_c(ring).push_wait(RegionPtr{ptr}, duration(timeout_ns), loaded.get()));
}

int extmem_ring_pop_wait(extmem_ring_t ring, extmem_region_ptr_t* ptr, uint64_t timeout_ns,
                         const extmem_ring_watch_t* watch) {
  EXTMEM_C_REQUIRE_OUT(ptr);
  Watch loaded;
  EXTMEM_C_TRY(loaded.load_from(watch));
  const auto done = from_c(ring).pop_wait(duration(timeout_ns), loaded.get());
  if (!done) return fail(done.error());
  *ptr = done->bits;
  return 0;
}

int extmem_ring_take_wait(extmem_ring_t ring, extmem_ring_taken_t* taken, uint64_t timeout_ns,
                          const extmem_ring_watch_t* watch) {
  EXTMEM_C_REQUIRE_OUT(taken);
  Watch loaded;
  EXTMEM_C_TRY(loaded.load_from(watch));
  const auto done = from_c(ring).take_wait(duration(timeout_ns), loaded.get());
  if (!done) return fail(done.error());
  *taken = to_c(*done);
  return 0;
}

int extmem_ring_recover(extmem_ring_t ring, const extmem_ring_watch_t* watch,
                        extmem_ring_recovery_t* recovery) {
  EXTMEM_C_REQUIRE(watch != nullptr, "watch is NULL; pass who is dead, and where its elements go");
  Watch loaded;
  EXTMEM_C_TRY(loaded.load_from(watch));
  const auto done = from_c(ring).recover(loaded.get());
  if (!done) return fail(done.error());
  const auto& [orphans, roles] = *done;
  if (recovery != nullptr) *recovery = {orphans, roles};
  return 0;
}

int extmem_ring_walk(extmem_ring_t ring, extmem_ring_visit_fn visit, void* arg) {
  EXTMEM_C_REQUIRE_VISITOR(visit);
  int stopped = 0;
  EXTMEM_C_TRY(to_errno(from_c(ring).walk([&](const extmem::RingEntry& from) {
    const auto& [ptr, ticket, participant, taken] = from;
    const extmem_ring_entry_t entry{ptr.bits, ticket, participant, taken, {}};
    stopped = visit(&entry, arg);
    return stopped == 0;
  })));
  return stopped;
}

int extmem_ring_check(extmem_ring_t ring) { return to_errno(from_c(ring).check()); }

int extmem_ring_get_count(extmem_ring_t ring, size_t* count) {
  EXTMEM_C_REQUIRE(ring.memory != nullptr, "the ring's handle is empty; pass what extmem_ring_attach gave");
  EXTMEM_C_REQUIRE_OUT(count);
  *count = from_c(ring).size_hint();
  return 0;
}
