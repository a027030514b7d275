// Regions, backings and their listeners.
#include <chrono>
#include <cstdlib>
#include <limits>

#include "extmem/extmem_region.h"
#include "faces/c/convert.hpp"
#include "faces/c/handles.hpp"

using namespace extmem::faces::c;

namespace {

int put(const extmem::Result<extmem::RegionId>& found, extmem_region_id_t* region) noexcept {
  if (!found) return fail(found.error());
  *region = to_c(*found);
  return 0;
}

/// What the core calls for every C listener; `arg` is the listener's slot.
int call_listener(const extmem::RegionEvent& event, void* arg) {
  const auto* slot = static_cast<const Listeners::Slot*>(arg);
  const extmem_region_event_t converted = to_c(event);
  const int answer = slot->listener(&converted, slot->arg);
  return answer == std::numeric_limits<int>::min() ? EINVAL : std::abs(answer);
}

}  // namespace

int extmem_region_add(extmem_domain_t* domain, extmem_heap_t heap, const extmem_region_spec_t* spec,
                      extmem_region_id_t* region) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_REQUIRE_HEAP(heap);
  EXTMEM_C_REQUIRE(spec != nullptr, "spec is NULL; say which memory to add");
  EXTMEM_C_REQUIRE_OUT(region);
  extmem::RegionSpec converted;
  EXTMEM_C_TRY(convert(*spec, converted));
  return put(domain->domain.add_region(from_c(heap), converted), region);
}

int extmem_region_add_backing(extmem_domain_t* domain, extmem_heap_t heap, const extmem_backing_spec_t* spec,
                              extmem_region_id_t* region) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_REQUIRE_HEAP(heap);
  EXTMEM_C_REQUIRE(spec != nullptr, "spec is NULL; say which backing to map");
  EXTMEM_C_REQUIRE_OUT(region);
  Progress progress;
  extmem::BackingSpec converted;
  EXTMEM_C_TRY(convert(*spec, progress, converted));
  return put(domain->domain.add_backing(from_c(heap), converted), region);
}

int extmem_region_remove(extmem_domain_t* domain, extmem_region_id_t region, extmem_holder_report_t* holders,
                         size_t holders_size) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_TRY(require_optional_report(holders, holders_size));
  extmem::HolderReport report;
  const auto removed = domain->domain.remove_region(from_c(region), &report);
  if (!removed && holders != nullptr) store(to_c(report), holders, holders_size);
  return to_errno(removed);
}

int extmem_region_drain(extmem_domain_t* domain, extmem_region_id_t region, uint64_t timeout_ns,
                        extmem_holder_report_t* holders, size_t holders_size) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_TRY(require_optional_report(holders, holders_size));
  constexpr std::uint64_t kLongest{std::numeric_limits<std::chrono::nanoseconds::rep>::max()};
  const std::chrono::nanoseconds timeout{std::min(timeout_ns, kLongest)};
  extmem::HolderReport report;
  const auto drained = domain->domain.drain_region(from_c(region), timeout, &report);
  if (!drained && holders != nullptr) store(to_c(report), holders, holders_size);
  return to_errno(drained);
}

int extmem_region_undrain(extmem_domain_t* domain, extmem_region_id_t region) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  return to_errno(domain->domain.undrain_region(from_c(region)));
}

int extmem_region_get_info(extmem_domain_t* domain, extmem_region_id_t region, extmem_region_info_t* info,
                           size_t info_size) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_TRY(require_report(info, info_size));
  const auto found = domain->domain.region_info(from_c(region));
  if (!found) return fail(found.error());
  store(to_c(*found), info, info_size);
  return 0;
}

int extmem_region_get_file(extmem_domain_t* domain, extmem_region_id_t region, extmem_region_file_t* file,
                           size_t file_size) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_TRY(require_report(file, file_size));
  const auto found = domain->domain.region_file(from_c(region));
  if (!found) return fail(found.error());
  store(to_c(*found), file, file_size);
  return 0;
}

int extmem_region_find(extmem_domain_t* domain, const void* p, extmem_region_id_t* region) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_REQUIRE_OUT(region);
  return put(domain->domain.region_of(p), region);
}

int extmem_region_list(extmem_domain_t* domain, extmem_region_visit_fn visit, void* arg) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_REQUIRE_VISITOR(visit);
  int stopped = 0;
  EXTMEM_C_TRY(to_errno(domain->domain.walk_regions([&](const extmem::RegionInfo& info) {
    const extmem_region_info_t converted = to_c(info);
    stopped = visit(&converted, arg);
    return stopped == 0;
  })));
  return stopped;
}

// ---- listeners ---------------------------------------------------------------------------------------------

int extmem_listener_add(extmem_domain_t* domain, extmem_region_listener_fn listener, void* arg) {
  using Slot = Listeners::Slot;
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_REQUIRE(listener != nullptr, "listener is NULL; pass the function that is to hear of regions");
  domain->listeners.renew_after_fork();
  auto& [mutex, slots, owner] = domain->listeners;
  Slot* taken = nullptr;
  {
    const std::lock_guard lock(mutex);
    for (Slot& slot : slots) {
      if (slot.state == Slot::State::free) {
        if (taken == nullptr) taken = &slot;
      } else if (slot.listener == listener && slot.arg == arg) {
        return fail(EEXIST,
                    "this listener is registered with this argument; remove it first, or use another");
      }
    }
    if (taken == nullptr) return fail(ENOSPC, "64 listeners are registered; remove one first");
    *taken = Slot{listener, arg, Slot::State::changing};
  }
  const auto added = domain->domain.add_listener(call_listener, taken);
  const std::lock_guard lock(mutex);
  taken->state = added ? Slot::State::registered : Slot::State::free;
  return to_errno(added);
}

int extmem_listener_remove(extmem_domain_t* domain, extmem_region_listener_fn listener, void* arg) {
  using Slot = Listeners::Slot;
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_REQUIRE(listener != nullptr, "listener is NULL; pass the function that was registered");
  domain->listeners.renew_after_fork();
  auto& [mutex, slots, owner] = domain->listeners;
  Slot* found = nullptr;
  {
    const std::lock_guard lock(mutex);
    const auto place = std::ranges::find_if(slots, [&](const Slot& slot) {
      return slot.state == Slot::State::registered && slot.listener == listener && slot.arg == arg;
    });
    if (place == slots.end()) return fail(ENOENT, "this listener is not registered with this argument");
    found = &*place;
    found->state = Slot::State::changing;
  }
  const auto removed = domain->domain.remove_listener(call_listener, found);
  const std::lock_guard lock(mutex);
  found->state = removed ? Slot::State::free : Slot::State::registered;
  return to_errno(removed);
}
