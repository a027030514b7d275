// Starting and ending the memory of the DPDK face: the domain, what its processes share, the internal heaps.
//
// The primary process makes what is not there yet and then says so (SharedState::ready); a secondary one waits for that.
// A primary that finds a domain in which nobody lives any more makes a new one, as DPDK does; where somebody does, it joins.
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_memzone.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <string>
#include <string_view>
#include <utility>

#include "base/error.hpp"
#include "faces/dpdk/eal.hpp"
#include "faces/dpdk/internal_memory.hpp"
#include "faces/dpdk/memory_domain.hpp"
#include "faces/dpdk/memory_events.hpp"
#include "faces/dpdk/memory_heaps.hpp"
#include "faces/dpdk/memory_ranges.hpp"
#include "faces/dpdk/memory_state.hpp"
#include "faces/dpdk/memzone_max.hpp"
#include "faces/dpdk/memzone_table.hpp"

namespace extmem::dpdk {
namespace {

// Never destroyed: when the process exits, other threads may still be using it. See leave_at_exit() in eal_init.cpp.
union Kept {
  Domain domain;
  constexpr Kept() noexcept : domain{} {}
  ~Kept() {}
};
constinit Kept kept{};
}  // namespace
constinit Domain& the_domain = kept.domain;
namespace {

constinit SharedState* the_state = nullptr;  // written by memory_init() and memory_cleanup()

constexpr const char* kStateName =
    "the state of extmem's DPDK interface";                    // no program can give such a long name
constexpr std::uint64_t kUsualPlace = std::uint64_t{4} << 30;  // --base-virtaddr as DPDK has it
constexpr std::uint64_t kPlaceUnit = std::uint64_t{2} << 20;

DomainOptions sizes() noexcept {
  DomainOptions sizes;
  sizes.max_regions = 32768;
  sizes.max_heaps = 32768;
  sizes.max_threads = 16383;  // as many as a domain can have: DPDK has no limit
  sizes.max_memzones = static_cast<std::uint32_t>(
      std::min<std::size_t>(rte_memzone_max_get() + kOwnMemzones, std::uint32_t{1} << 24));
  sizes.large_metadata = std::uint64_t{256} << 30;
  return sizes;
}

Result<Domain> open_domain(const EalOptions& options) noexcept {
  if (!options.shared()) return Domain::create(sizes());
  const std::string name =
      std::string("dpdk-") + options.file_prefix.data();  // too long: Domain::open says so
  OpenOptions open;
  open.same_address = true;
  open.remove_when_last = true;
  if (options.process == RTE_PROC_SECONDARY) {
    open.mode = OpenMode::open_only;
  } else {
    open.sizes = sizes();
    (void)Domain::remove(name);  // EBUSY: others live in it
  }
  return Domain::open(name, open);
}

Result<SharedState*> find_state() noexcept {
  EXTMEM_TRY(zone, the_domain.find_memzone(kStateName));
  if (zone.addr == nullptr)
    return EXTMEM_ERROR(
        EADDRINUSE,
        "this process has something else at the address of the interface's shared state: give all "
        "processes another --base-virtaddr");
  return static_cast<SharedState*>(zone.addr);
}

/// Each step may have been done before, by a process that has died over the next one.
Result<SharedState*> make_state() noexcept {
  if (auto found = find_state(); found || found.error().code() != ENOENT) return found;
  auto heap = the_domain.find_heap(kStateName);
  if (!heap) {
    HeapOptions options;
    options.style = Style::exact;
    options.on_death = OnDeath::keep;
    options.user_data = HeapRole{HeapKind::state, SOCKET_ID_ANY}.user_data();
    heap = the_domain.create_heap(kStateName, options);
    if (!heap) return heap.error();
  }
  EXTMEM_TRY(info, heap->info());
  if (info.regions == 0) {
    BackingSpec spec;
    spec.kind = BackingKind::anonymous;
    spec.length = 4096;
    EXTMEM_TRY_VOID(the_domain.add_backing(*heap, spec));
  }
  AllocOptions zeroed;
  zeroed.zero = true;
  EXTMEM_TRY_VOID(the_domain.reserve_memzone(*heap, kStateName, sizeof(SharedState), zeroed));
  return find_state();
}

int fail_with(const char* what, Error why) noexcept {
  RTE_LOG(ERR, EAL, "%s: %s\n", what, why.message());
  return fail(why.code());
}

bool is_ready(const SharedState& state) noexcept {
  return state.ready.load(std::memory_order_acquire) == SharedState::kReady;
}

int start_primary(const EalOptions& options) noexcept {
  const auto state = make_state();
  if (!state) return fail_with("cannot share state", state.error());
  the_state = *state;
  if (is_ready(*the_state)) return find_internal_heaps();
  InternalMemory plan;
  if (plan_internal_memory(options, plan) != 0) return -1;
  for (unsigned i = 0; i < rte_socket_count() && i < kMaxSockets; ++i) {
    if (make_internal_heap(options, plan, i) != 0) return -1;
  }
  the_state->iova_mode = static_cast<std::uint32_t>(options.iova_mode);
  std::int64_t none = 0;
  (void)the_state->next_socket.compare_exchange_strong(none, kFirstExternalSocket, std::memory_order_relaxed);
  the_state->ready.store(SharedState::kReady, std::memory_order_release);
  return find_internal_heaps();
}

int start_secondary() noexcept {
  constexpr int kTries = 1000;
  Error why{};
  for (int i = 0; i < kTries; ++i) {
    const auto state = find_state();
    if (state && is_ready(**state)) {
      the_state = *state;
      return find_internal_heaps();
    }
    why = state ? EXTMEM_ERROR(ETIMEDOUT, "the primary process does not finish starting") : state.error();
    if (!state && why.code() != ENOENT) break;
    const std::timespec ten_ms{0, 10'000'000};
    (void)::nanosleep(&ten_ms, nullptr);
  }
  return fail_with("cannot join", why);
}

}  // namespace

SharedState* shared_state() noexcept { return the_state; }

int new_socket() noexcept {
  if (the_state == nullptr) return -1;
  const std::int64_t socket = the_state->next_socket.fetch_add(1, std::memory_order_relaxed);
  return socket <= INT32_MAX ? static_cast<int>(socket) : -1;
}

int memory_init(EalOptions& options) noexcept {
  auto opened = open_domain(options);
  if (!opened) return fail_with("cannot open the domain", opened.error());
  the_domain = std::move(*opened);
  const std::uint64_t place = options.base_virtaddr == 0 ? kUsualPlace : options.base_virtaddr;
  int result = 0;
  if (const auto placed = the_domain.place_backings(place & ~(kPlaceUnit - 1)); !placed)
    result = fail_with("--base-virtaddr", placed.error());
  if (result == 0) {
    if (const auto heard = the_domain.add_listener(on_region, nullptr); !heard)
      result = fail_with("cannot hear of memory", heard.error());
  }
  if (result == 0) {
    if (const auto learned = learn_regions(); !learned)
      result = fail_with("cannot look at the memory that is there", learned.error());
  }
  if (result == 0)
    result = options.process == RTE_PROC_SECONDARY ? start_secondary() : start_primary(options);
  if (result != 0) {
    const int failed = rte_errno;
    memory_cleanup();
    return fail(failed);
  }
  options.iova_mode = static_cast<rte_iova_mode>(the_state->iova_mode);
  return 0;
}

void memory_cleanup() noexcept {
  // Nobody hears of memory that goes with the domain.
  if (the_domain) (void)the_domain.remove_listener(on_region, nullptr);
  forget_callbacks();
  memzones::clear();
  forget_heaps();
  ranges::clear();
  the_state = nullptr;
  the_domain = Domain{};
}

}  // namespace extmem::dpdk
