// Addresses: IOVAs, scatter lists, portable pointers.
#include "extmem/extmem_region.h"
#include "faces/c/convert.hpp"
#include "faces/c/handles.hpp"

using namespace extmem::faces::c;

namespace {

int put(const extmem::Result<void*>& found, void** p) noexcept {
  if (!found) return fail(found.error());
  *p = *found;
  return 0;
}

}  // namespace

int extmem_region_list_iova_runs(extmem_domain_t* domain, extmem_region_id_t region,
                                 extmem_iova_run_visit_fn visit, void* arg) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_REQUIRE_VISITOR(visit);
  int stopped = 0;
  EXTMEM_C_TRY(to_errno(domain->domain.walk_iova_runs(from_c(region), [&](const extmem::IovaRun& run) {
    const extmem_iova_run_t converted = to_c(run);
    stopped = visit(&converted, arg);
    return stopped == 0;
  })));
  return stopped;
}

int extmem_iova_of_address(extmem_domain_t* domain, const void* p, extmem_iova_t* iova) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_REQUIRE_OUT(iova);
  const auto found = domain->domain.iova_of(p);
  if (!found) return fail(found.error());
  *iova = static_cast<extmem_iova_t>(*found);
  return 0;
}

int extmem_iova_to_address(extmem_domain_t* domain, extmem_iova_t iova, void** p) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_REQUIRE_OUT(p);
  return put(domain->domain.address_of(extmem::Iova{iova}), p);
}

int extmem_iova_is_contiguous(extmem_domain_t* domain, const void* p, size_t length, bool* contiguous) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_REQUIRE_OUT(contiguous);
  const auto answer = domain->domain.iova_contiguous(p, length);
  if (!answer) return fail(answer.error());
  *contiguous = *answer;
  return 0;
}

int extmem_iova_get_runs(extmem_domain_t* domain, const void* p, size_t length, extmem_iova_run_t* runs,
                         size_t capacity, size_t* count) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_REQUIRE_OUT(count);
  EXTMEM_C_REQUIRE(runs != nullptr || capacity == 0, "runs is NULL; pass an array of `capacity` structs");
  const auto room = for_core<extmem::IovaRun>(runs, capacity);
  const auto found = domain->domain.iova_runs(p, length, room);
  if (!found) return fail(found.error());
  convert_in_place<extmem_iova_run_t>(room.first(std::min(*found, capacity)));
  *count = *found;
  return 0;
}

int extmem_region_ptr_of_address(extmem_domain_t* domain, const void* p, extmem_region_ptr_t* ptr) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_REQUIRE_OUT(ptr);
  const auto found = domain->domain.to_region_ptr(p);
  if (!found) return fail(found.error());
  *ptr = found->bits;
  return 0;
}

int extmem_region_ptr_to_address(extmem_domain_t* domain, extmem_region_ptr_t ptr, void** p) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_REQUIRE_OUT(p);
  return put(domain->domain.from_region_ptr(extmem::RegionPtr{ptr}), p);
}
