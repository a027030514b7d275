// The public class Domain: every function forwards, after what other processes have made this one due to do. Heap: handles.cpp.
#include <utility>

#include "base/error.hpp"
#include "extmem/domain.hpp"
#include "heap/domain_state.hpp"
#include "heap/exact_paths.hpp"

namespace extmem {

using heap::DomainState;

namespace {

DomainState* tended(DomainState* state) noexcept {
  state->tend();
  return state;
}
Error closed() noexcept {
  return EXTMEM_ERROR(EINVAL, "the domain is not open: get one from Domain::create");
}

}  // namespace

Result<Domain> Domain::create(const DomainOptions& options) noexcept {
  auto state = DomainState::create(options);
  if (!state) return state.error();
  return Domain(*state);
}
Result<Domain> Domain::open(std::string_view name, const OpenOptions& options) noexcept {
  auto state = DomainState::open_named(name, options);
  if (!state) return state.error();
  return Domain(*state);
}
Result<void> Domain::remove(std::string_view name, const char* directory) noexcept {
  return DomainState::remove_named(name, directory);
}
Result<void> Domain::list(FunctionRef<bool(const DomainInfo&)> visit, const char* directory) noexcept {
  return DomainState::list_named(directory, visit);
}
Domain::Domain(Domain&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
Domain& Domain::operator=(Domain&& other) noexcept {
  if (this != &other) {
    if (state_ != nullptr) DomainState::drop_user(state_);
    state_ = std::exchange(other.state_, nullptr);
  }
  return *this;
}
Domain::~Domain() {
  if (state_ != nullptr) DomainState::drop_user(state_);
}

Result<Heap> Domain::create_heap(std::string_view name, const HeapOptions& options) noexcept {
  if (state_ == nullptr) return closed();
  return tended(state_)->create_heap(name, options, kAnyNode);
}
Result<Heap> Domain::find_heap(std::string_view name) const noexcept {
  if (state_ == nullptr) return closed();
  return tended(state_)->find_heap(name);
}
Result<Heap> Domain::heap_by_id(std::uint32_t id) const noexcept {
  if (state_ == nullptr) return closed();
  return tended(state_)->heap_by_id(id);
}
Result<Heap> Domain::heap_of_node(int numa_node) const noexcept {
  if (state_ == nullptr) return closed();
  return tended(state_)->heap_of_node(numa_node);
}
Result<void> Domain::destroy_heap(Heap heap, HolderReport* users) noexcept {
  if (state_ == nullptr) return closed();
  return tended(state_)->destroy_heap(heap, users);
}
Result<void> Domain::walk_heaps(FunctionRef<bool(const HeapInfo&)> visit) const noexcept {
  if (state_ == nullptr) return closed();
  return tended(state_)->walk_heaps(visit);
}
Result<RegionId> Domain::add_region(Heap heap, const RegionSpec& spec) noexcept {
  if (state_ == nullptr) return closed();
  return tended(state_)->add_region(heap, spec);
}
Result<RegionId> Domain::add_backing(Heap heap, const BackingSpec& spec) noexcept {
  if (state_ == nullptr) return closed();
  return tended(state_)->add_backing(heap, spec);
}
Result<void> Domain::remove_region(RegionId region, HolderReport* holders) noexcept {
  if (state_ == nullptr) return closed();
  return tended(state_)->remove_region(region, holders);
}
Result<void> Domain::drain_region(RegionId region, std::chrono::nanoseconds timeout,
                                  HolderReport* holders) noexcept {
  if (state_ == nullptr) return closed();
  return tended(state_)->drain_region(region, timeout, holders);
}
Result<void> Domain::undrain_region(RegionId region) noexcept {
  if (state_ == nullptr) return closed();
  return tended(state_)->undrain_region(region);
}
Result<RegionFile> Domain::region_file(RegionId region) const noexcept {
  if (state_ == nullptr) return closed();
  return tended(state_)->region_file(region);
}
Result<RegionInfo> Domain::region_info(RegionId region) const noexcept {
  if (state_ == nullptr) return closed();
  return tended(state_)->region_info(region);
}
Result<RegionId> Domain::region_of(const void* p) const noexcept {
  if (state_ == nullptr) return closed();
  return state_->region_of(p);
}
Result<void> Domain::walk_regions(FunctionRef<bool(const RegionInfo&)> visit) const noexcept {
  if (state_ == nullptr) return closed();
  return tended(state_)->walk_regions(visit);
}
Result<void> Domain::walk_iova_runs(RegionId region, FunctionRef<bool(const IovaRun&)> visit) const noexcept {
  if (state_ == nullptr) return closed();
  return tended(state_)->walk_iova_runs(region, visit);
}
Result<void> Domain::add_listener(RegionListener listener, void* arg) noexcept {
  if (state_ == nullptr) return closed();
  return tended(state_)->add_listener(listener, arg);
}
Result<void> Domain::remove_listener(RegionListener listener, void* arg) noexcept {
  if (state_ == nullptr) return closed();
  return tended(state_)->remove_listener(listener, arg);
}
Result<Iova> Domain::iova_of(const void* p) const noexcept {
  if (state_ == nullptr) return closed();
  return state_->iova_of(p);
}
Result<void*> Domain::address_of(Iova iova) const noexcept {
  if (state_ == nullptr) return closed();
  return tended(state_)->address_of(iova);
}
Result<bool> Domain::iova_contiguous(const void* p, std::size_t n) const noexcept {
  if (state_ == nullptr) return closed();
  bool contiguous = false;
  if (auto runs = state_->iova_runs(p, n, {}, &contiguous); !runs) return runs.error();
  return contiguous;
}
Result<std::size_t> Domain::iova_runs(const void* p, std::size_t n, std::span<IovaRun> runs) const noexcept {
  if (state_ == nullptr) return closed();
  return state_->iova_runs(p, n, runs, nullptr);
}
Result<RegionPtr> Domain::to_region_ptr(const void* p) const noexcept {
  if (state_ == nullptr) return closed();
  return state_->to_region_ptr(p);
}
Result<void*> Domain::from_region_ptr(RegionPtr ptr) const noexcept {
  if (state_ == nullptr) return closed();
  return state_->from_region_ptr(ptr);
}
// Apart, so that deallocate() needs no stack frame.
[[gnu::noinline]] static Result<void> deallocate_slowly(DomainState* state, void* p) noexcept {
  if (state == nullptr) return closed();
  (void)tended(state);
  const heap::ThreadMemory& memory = heap::thread_memory;
  if (memory.exact_serial == state->serial_ && heap::free_exact(*state, memory, p)) return {};
  return state->deallocate(nullptr, p);
}
Result<void> Domain::deallocate(void* p) noexcept {
  const heap::ThreadMemory& memory = heap::thread_memory;
  // What was allocated last in the exact heap that the thread remembers, if that is of this domain.
  if (state_ == nullptr || memory.exact_serial != state_->serial_ || !heap::push_exact(memory, p))
      [[unlikely]]
    return deallocate_slowly(state_, p);
  return {};
}
Result<std::size_t> Domain::usable_size(const void* p) const noexcept {
  if (state_ == nullptr) return closed();
  auto object = state_->held_object(nullptr, p, nullptr);
  if (!object) return object.error();
  return static_cast<std::size_t>(object->size);
}
Result<ObjectInfo> Domain::owner_of(const void* p) const noexcept {
  if (state_ == nullptr) return closed();
  return tended(state_)->object_at(p, nullptr);
}
Result<Tag> Domain::intern_tag(std::string_view name) noexcept {
  if (state_ == nullptr) return closed();
  return tended(state_)->intern_tag(name);
}
Result<const char*> Domain::tag_name(Tag tag) const noexcept {
  if (state_ == nullptr) return closed();
  return tended(state_)->tag_name(tag);
}
Result<MemzoneInfo> Domain::reserve_memzone(Heap heap, std::string_view name, std::size_t length,
                                            const AllocOptions& options) noexcept {
  if (state_ == nullptr) return closed();
  return tended(state_)->reserve_memzone(heap, name, length, options);
}
Result<MemzoneInfo> Domain::find_memzone(std::string_view name) const noexcept {
  if (state_ == nullptr) return closed();
  return tended(state_)->find_memzone(name);
}
Result<void> Domain::free_memzone(std::string_view name) noexcept {
  if (state_ == nullptr) return closed();
  return tended(state_)->free_memzone(name);
}
Result<void> Domain::walk_memzones(FunctionRef<bool(const MemzoneInfo&)> visit) const noexcept {
  if (state_ == nullptr) return closed();
  return tended(state_)->walk_memzones(visit);
}
std::size_t Domain::memzone_count() const noexcept { return state_ == nullptr ? 0 : state_->memzone_count(); }
Result<std::size_t> Domain::verify(FunctionRef<void(const Breach&)> report) const noexcept {
  if (state_ == nullptr) return closed();
  return tended(state_)->verify(report);
}
std::uint64_t Domain::metadata_resident_bytes() const noexcept {
  return state_ == nullptr ? 0 : state_->resident_bytes();
}

// ---- processes ---------------------------------------------------------------------------------------------

bool Domain::is_named() const noexcept { return state_ != nullptr && state_->shared(); }
std::uint32_t Domain::participant() const noexcept { return state_ == nullptr ? 0 : state_->participant(); }
Result<void> Domain::walk_participants(FunctionRef<bool(const ParticipantInfo&)> visit) const noexcept {
  if (state_ == nullptr) return closed();
  return state_->walk_participants(visit);
}
Result<RecoveryReport> Domain::recover() noexcept {
  if (state_ == nullptr) return closed();
  return state_->recover_and_tell();
}
Result<void> Domain::poll() noexcept {
  if (state_ == nullptr) return closed();
  return state_->poll();
}
Result<void> Domain::hand_over(const void* p, std::uint32_t participant) noexcept {
  if (state_ == nullptr) return closed();
  return state_->hand_over(p, participant);
}
Result<void> Domain::attach_region(RegionId region, void* base) noexcept {
  if (state_ == nullptr) return closed();
  return state_->attach_region(region, base);
}
Result<void> Domain::detach_region(RegionId region) noexcept {
  if (state_ == nullptr) return closed();
  return tended(state_)->detach_region(region);
}
Result<void> Domain::attach_region_file(RegionId region, int fd, std::uint64_t offset) noexcept {
  if (state_ == nullptr) return closed();
  return state_->attach_region_file(region, fd, offset);
}

}  // namespace extmem
