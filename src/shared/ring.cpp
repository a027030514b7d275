// Ring: making, finding and checking rings, and the way from the public class to the two kinds.
#include "extmem/ring.hpp"

#include "base/bits.hpp"
#include "base/crash_point.hpp"
#include "base/error.hpp"
#include "os/membarrier.hpp"
#include "shared/ring_format.hpp"

namespace extmem {
namespace {

using base::crash_point;
using shared::RingHeader;
using shared::RingView;
namespace mpmc = shared::mpmc;
namespace spsc = shared::spsc;

constexpr auto kMpmc = static_cast<std::uint32_t>(RingKind::mpmc);
constexpr auto kSpsc = static_cast<std::uint32_t>(RingKind::spsc);

constexpr bool is_capacity(std::uint64_t capacity) noexcept {
  return base::is_power_of_two(capacity) && capacity >= kMinRingCapacity && capacity <= kMaxRingCapacity;
}
constexpr std::uint64_t size_of(std::uint32_t kind, std::uint64_t capacity) noexcept {
  return shared::kRingSlots + capacity * (kind == kMpmc ? sizeof(shared::WordPair) : sizeof(std::uint64_t));
}
constexpr std::uint64_t check_of(std::uint32_t version, std::uint32_t kind, std::uint64_t capacity,
                                 std::uint64_t bytes) noexcept {
  std::uint64_t sum = shared::kRingMagic;
  for (const std::uint64_t field : {std::uint64_t{version}, std::uint64_t{kind}, capacity, bytes}) {
    sum = (sum ^ field) * 0x9e3779b97f4a7c15u;
    sum ^= sum >> 29;
  }
  return sum;
}

Result<void> check_memory(const void* memory) noexcept {
  if (memory == nullptr) return EXTMEM_ERROR(EINVAL, "the ring's memory is null; pass where it begins");
  if (!base::is_aligned(reinterpret_cast<std::uintptr_t>(memory), kRingAlign)) {
    return EXTMEM_ERROR(EINVAL,
                        "the ring's memory is not a multiple of 64; reserve the memzone with align 64");
  }
  return {};
}

Error no_ring() noexcept {
  return EXTMEM_ERROR(EINVAL, "the ring's handle is empty; pass what attach() gave");
}
Error null_element() noexcept {
  return EXTMEM_ERROR(EINVAL, "null cannot be passed through a ring; pass RegionPtrs of objects");
}
Error no_elements() noexcept {
  return EXTMEM_ERROR(EINVAL, "the span of elements is empty; pass room for at least one");
}

}  // namespace

// How a handle becomes the view that the two kinds work on.
#define RING_VIEW(view)                     \
  if (memory_ == nullptr) return no_ring(); \
  const RingView view { memory_, participant_, shift_, fences_ != 0 }
#define RING_CALL(function, ...) (kind_ == kMpmc ? mpmc::function(__VA_ARGS__) : spsc::function(__VA_ARGS__))

Result<std::size_t> Ring::bytes_for(RingKind kind, std::size_t capacity) noexcept {
  const auto number = static_cast<std::uint32_t>(kind);
  if (number != kMpmc && number != kSpsc) {
    return EXTMEM_ERROR(EINVAL, "there is no such kind of ring; pass spsc (1) or mpmc (2)");
  }
  if (!is_capacity(capacity)) {
    return EXTMEM_ERROR(EINVAL,
                        "the ring's capacity is not a power of two from 2 to 2^30; round it up to one");
  }
  return static_cast<std::size_t>(size_of(number, capacity));
}

Result<void> Ring::create(void* memory, std::size_t bytes, RingKind kind, std::size_t capacity) noexcept {
  EXTMEM_TRY_VOID(check_memory(memory));
  EXTMEM_TRY(needed, bytes_for(kind, capacity));
  if (bytes < needed) {
    return EXTMEM_ERROR(ENOSPC, "the memory is too small for that ring; bytes_for() says how much it needs");
  }
  const RingView ring{static_cast<std::byte*>(memory), 0,
                      static_cast<std::uint8_t>(base::floor_log2(capacity)), false};
  RingHeader& header = ring.header();
  header.magic.store(0, std::memory_order_relaxed);
  // Release: no field changes while the old magic can be seen. (Pairs with nothing: attach() meets 0 or garbage.)
  std::atomic_thread_fence(std::memory_order_release);
  crash_point("ring.create.begun");
  header.version = shared::kRingVersion;
  header.kind = static_cast<std::uint32_t>(kind);
  header.capacity = capacity;
  header.bytes = needed;
  header.check = check_of(header.version, header.kind, header.capacity, header.bytes);
  for (std::uint64_t& word : header.reserved) word = 0;
  for (auto* word : {&header.tail, &header.producer, &header.seen_head, &header.head, &header.consumer,
                     &header.seen_tail, &header.claimed}) {
    word->store(0, std::memory_order_relaxed);
  }
  header.elements.store(0, std::memory_order_relaxed);
  header.room.store(0, std::memory_order_relaxed);
  if (kind == RingKind::mpmc) {
    mpmc::format(ring);
  } else {
    for (std::uint64_t i = 0; i < capacity; ++i) ring.word(i).store(0, std::memory_order_relaxed);
  }
  crash_point("ring.create.formatted");
  // Release: pairs with the acquire in attach(); who sees the magic sees all of the above.
  header.magic.store(shared::kRingMagic, std::memory_order_release);
  return {};
}

Result<Ring> Ring::attach(void* memory, std::size_t bytes, std::uint32_t participant) noexcept {
  EXTMEM_TRY_VOID(check_memory(memory));
  if (participant > kMaxRingParticipant) {
    return EXTMEM_ERROR(EINVAL,
                        "the participant's number is above 16383; use the process's slot in its domain");
  }
  if (bytes < shared::kRingSlots) {
    return EXTMEM_ERROR(EMSGSIZE, "the memory is smaller than a ring's header; pass all of the ring's bytes");
  }
  const RingHeader& header = *static_cast<const RingHeader*>(memory);
  // Acquire: pairs with the release in create().
  if (header.magic.load(std::memory_order_acquire) != shared::kRingMagic) {
    return EXTMEM_ERROR(ENODATA,
                        "there is no ring in this memory; create() has not run here, or not to its end");
  }
  // Copied once, then only the copies are looked at: the memory may change.
  const auto load = [](const auto& field) noexcept {
    return *const_cast<const volatile std::remove_cvref_t<decltype(field)>*>(&field);
  };
  const std::uint32_t version = load(header.version);
  const std::uint32_t kind = load(header.kind);
  const std::uint64_t capacity = load(header.capacity);
  const std::uint64_t length = load(header.bytes);
  if (version != shared::kRingVersion) {
    return EXTMEM_ERROR(EPROTO,
                        "the ring was made by another version of extmem; use the same one everywhere");
  }
  if (load(header.check) != check_of(version, kind, capacity, length)) {
    return EXTMEM_ERROR(EBADMSG,
                        "the ring's header is damaged: its check does not fit; create() the ring anew");
  }
  if (kind != kMpmc && kind != kSpsc) {
    return EXTMEM_ERROR(EBADMSG,
                        "the ring's header is damaged: there is no such kind; create() the ring anew");
  }
  if (!is_capacity(capacity) || length != size_of(kind, capacity)) {
    return EXTMEM_ERROR(
        EBADMSG,
        "the ring's header is damaged: capacity and size contradict each other; create() the ring "
        "anew");
  }
  if (length > bytes) {
    return EXTMEM_ERROR(EMSGSIZE,
                        "the ring is longer than the memory that was passed; pass all of its bytes");
  }
  Ring ring;
  ring.memory_ = static_cast<std::byte*>(memory);
  ring.participant_ = static_cast<std::uint16_t>(participant);
  ring.kind_ = static_cast<std::uint8_t>(kind);
  ring.shift_ = static_cast<std::uint8_t>(base::floor_log2(capacity));
  ring.fences_ = os::membarrier_register(true) ? 0 : 1;
  return ring;
}

Result<void> Ring::detach() const noexcept {
  RING_VIEW(ring);
  return kind_ == kMpmc ? Result<void>{} : spsc::detach(ring);
}

Result<void> Ring::try_push(RegionPtr ptr) const noexcept {
  RING_VIEW(ring);
  if (!ptr) return null_element();
  return RING_CALL(push_one, ring, ptr);
}

Result<std::size_t> Ring::push(std::span<const RegionPtr> ptrs) const noexcept {
  RING_VIEW(ring);
  if (ptrs.empty()) return no_elements();
  for (const RegionPtr ptr : ptrs) {
    if (!ptr) return null_element();
  }
  return RING_CALL(push, ring, ptrs.data(), ptrs.size());
}

Result<RegionPtr> Ring::try_pop() const noexcept {
  RING_VIEW(ring);
  return RING_CALL(pop_one, ring);
}

Result<std::size_t> Ring::pop(std::span<RegionPtr> out) const noexcept {
  RING_VIEW(ring);
  if (out.empty()) return no_elements();
  return RING_CALL(pop, ring, out.data(), out.size());
}

Result<RingTaken> Ring::take() const noexcept {
  RING_VIEW(ring);
  return RING_CALL(take, ring);
}

Result<void> Ring::settle(const RingTaken& taken) const noexcept {
  RING_VIEW(ring);
  return RING_CALL(settle, ring, taken);
}

Result<RingRecovery> Ring::recover(const RingWatch& watch) const noexcept {
  RING_VIEW(ring);
  if (!watch.is_dead || !watch.on_orphan) {
    return EXTMEM_ERROR(EINVAL, "recover() needs both functions: who is dead, and where its elements go");
  }
  return RING_CALL(recover, ring, watch);
}

Result<void> Ring::walk(FunctionRef<bool(const RingEntry&)> visit) const noexcept {
  RING_VIEW(ring);
  if (!visit) return EXTMEM_ERROR(EINVAL, "the visitor is missing; pass the function that is to be called");
  return RING_CALL(walk, ring, visit);
}

Result<void> Ring::check() const noexcept {
  RING_VIEW(ring);
  return RING_CALL(check, ring);
}

std::size_t Ring::size_hint() const noexcept {
  if (memory_ == nullptr) return 0;
  const RingView ring{memory_, participant_, shift_, false};
  const RingHeader& header = ring.header();
  // Relaxed: a hint. First the lower end, so that the difference errs upwards, then into the capacity.
  const auto& first = kind_ == kMpmc ? header.head : header.claimed;
  const std::uint64_t from = first.load(std::memory_order_relaxed);
  const std::uint64_t size = header.tail.load(std::memory_order_relaxed) - from;
  if (static_cast<std::int64_t>(size) < 0) return 0;  // tail lags behind head
  return static_cast<std::size_t>(size < ring.capacity() ? size : ring.capacity());
}

}  // namespace extmem
