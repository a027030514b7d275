// Memzones.
#include "extmem/extmem_region.h"
#include "faces/c/convert.hpp"
#include "faces/c/handles.hpp"

using namespace extmem::faces::c;

namespace {

int put(const extmem::Result<extmem::MemzoneInfo>& found, extmem_memzone_info_t* info,
        size_t info_size) noexcept {
  if (!found) return fail(found.error());
  store(to_c(*found), info, info_size);
  return 0;
}

}  // namespace

int extmem_memzone_reserve(extmem_domain_t* domain, extmem_heap_t heap, const char* name, size_t length,
                           const extmem_alloc_options_t* options, extmem_memzone_info_t* info,
                           size_t info_size) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_REQUIRE_HEAP(heap);
  EXTMEM_C_REQUIRE_NAME(name);
  EXTMEM_C_TRY(require_report(info, info_size));
  extmem::AllocOptions converted;
  EXTMEM_C_TRY(convert(options, converted));
  return put(domain->domain.reserve_memzone(from_c(heap), name, length, converted), info, info_size);
}

int extmem_memzone_find(extmem_domain_t* domain, const char* name, extmem_memzone_info_t* info,
                        size_t info_size) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_REQUIRE_NAME(name);
  EXTMEM_C_TRY(require_report(info, info_size));
  return put(domain->domain.find_memzone(name), info, info_size);
}

int extmem_memzone_free(extmem_domain_t* domain, const char* name) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_REQUIRE_NAME(name);
  return to_errno(domain->domain.free_memzone(name));
}

int extmem_memzone_list(extmem_domain_t* domain, extmem_memzone_visit_fn visit, void* arg) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_REQUIRE_VISITOR(visit);
  int stopped = 0;
  EXTMEM_C_TRY(to_errno(domain->domain.walk_memzones([&](const extmem::MemzoneInfo& info) {
    const extmem_memzone_info_t converted = to_c(info);
    stopped = visit(&converted, arg);
    return stopped == 0;
  })));
  return stopped;
}

int extmem_memzone_get_count(extmem_domain_t* domain, size_t* count) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_REQUIRE_OUT(count);
  *count = domain->domain.memzone_count();
  return 0;
}
