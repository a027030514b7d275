// Heaps: making and finding them, allocating from them.
#include <limits>

#include "extmem/extmem_heap.h"
#include "faces/c/convert.hpp"
#include "faces/c/handles.hpp"

using namespace extmem::faces::c;

namespace {

int put(const extmem::Result<extmem::Heap>& found, extmem_heap_t* heap) noexcept {
  if (!found) return fail(found.error());
  *heap = to_c(*found);
  return 0;
}

int put(const extmem::Result<void*>& allocated, void** p) noexcept {
  if (!allocated) return fail(allocated.error());
  *p = *allocated;
  return 0;
}

int put(const extmem::Result<std::size_t>& answer, size_t* size) noexcept {
  if (!answer) return fail(answer.error());
  *size = *answer;
  return 0;
}

int put(const extmem::Result<extmem::ObjectInfo>& found, extmem_object_info_t* info,
        size_t info_size) noexcept {
  if (!found) return fail(found.error());
  store(to_c(*found), info, info_size);
  return 0;
}

int require_pointers(void* const* pointers, size_t count) noexcept {
  EXTMEM_C_REQUIRE(pointers != nullptr || count == 0, "pointers is NULL; pass an array of `count` pointers");
  if (count > std::numeric_limits<size_t>::max() / sizeof(void*)) {
    return fail(EOVERFLOW, "count is larger than any array of pointers can be");
  }
  return 0;
}

}  // namespace

// ---- heaps of a domain -------------------------------------------------------------------------------------

int extmem_heap_create(extmem_domain_t* domain, const char* name, const extmem_heap_options_t* options,
                       extmem_heap_t* heap) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_REQUIRE_NAME(name);
  EXTMEM_C_REQUIRE_OUT(heap);
  extmem::HeapOptions converted;
  EXTMEM_C_TRY(convert(options, converted));
  return put(domain->domain.create_heap(name, converted), heap);
}

int extmem_heap_find(extmem_domain_t* domain, const char* name, extmem_heap_t* heap) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_REQUIRE_NAME(name);
  EXTMEM_C_REQUIRE_OUT(heap);
  return put(domain->domain.find_heap(name), heap);
}

int extmem_heap_find_by_id(extmem_domain_t* domain, uint32_t id, extmem_heap_t* heap) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_REQUIRE_OUT(heap);
  return put(domain->domain.heap_by_id(id), heap);
}

int extmem_heap_find_by_node(extmem_domain_t* domain, int numa_node, extmem_heap_t* heap) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_REQUIRE_OUT(heap);
  return put(domain->domain.heap_of_node(numa_node), heap);
}

int extmem_heap_destroy(extmem_domain_t* domain, extmem_heap_t heap, extmem_holder_report_t* users,
                        size_t users_size) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_REQUIRE_HEAP(heap);
  EXTMEM_C_TRY(require_optional_report(users, users_size));
  extmem::HolderReport report;
  const auto destroyed = domain->domain.destroy_heap(from_c(heap), &report);
  if (!destroyed && users != nullptr) store(to_c(report), users, users_size);
  return to_errno(destroyed);
}

int extmem_heap_list(extmem_domain_t* domain, extmem_heap_visit_fn visit, void* arg) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_REQUIRE_VISITOR(visit);
  int stopped = 0;
  EXTMEM_C_TRY(to_errno(domain->domain.walk_heaps([&](const extmem::HeapInfo& info) {
    const extmem_heap_info_t converted = to_c(info);
    stopped = visit(&converted, arg);
    return stopped == 0;
  })));
  return stopped;
}

int extmem_heap_get_id(extmem_heap_t heap, uint32_t* id) {
  EXTMEM_C_REQUIRE_HEAP(heap);
  EXTMEM_C_REQUIRE_OUT(id);
  *id = from_c(heap).id();
  return 0;
}

int extmem_heap_get_name(extmem_heap_t heap, const char** name) {
  EXTMEM_C_REQUIRE_HEAP(heap);
  EXTMEM_C_REQUIRE_OUT(name);
  *name = from_c(heap).name();
  return 0;
}

int extmem_heap_get_info(extmem_heap_t heap, extmem_heap_info_t* info, size_t info_size) {
  EXTMEM_C_REQUIRE_HEAP(heap);
  EXTMEM_C_TRY(require_report(info, info_size));
  const auto found = from_c(heap).info();
  if (!found) return fail(found.error());
  store(to_c(*found), info, info_size);
  return 0;
}

// ---- allocation --------------------------------------------------------------------------------------------

void* extmem_malloc(extmem_heap_t heap, size_t size) {
  if (heap.local == nullptr) [[unlikely]] {
    fail(EINVAL, "the heap handle is empty; pass what extmem_heap_create or _find gave");
    return nullptr;
  }
  const auto allocated = from_c(heap).allocate(size);
  if (!allocated) [[unlikely]] {
    fail(allocated.error());
    return nullptr;
  }
  return *allocated;
}

int extmem_free(extmem_heap_t heap, void* p) {
  EXTMEM_C_REQUIRE_HEAP(heap);
  return to_errno(from_c(heap).deallocate(p));
}

int extmem_heap_allocate(extmem_heap_t heap, size_t size, const extmem_alloc_options_t* options, void** p) {
  EXTMEM_C_REQUIRE_HEAP(heap);
  EXTMEM_C_REQUIRE_OUT(p);
  if (options == nullptr) return put(from_c(heap).allocate(size), p);
  extmem::AllocOptions converted;
  EXTMEM_C_TRY(convert(options, converted));
  return put(from_c(heap).allocate(size, converted), p);
}

int extmem_heap_zalloc(extmem_heap_t heap, size_t size, const extmem_alloc_options_t* options, void** p) {
  EXTMEM_C_REQUIRE_HEAP(heap);
  EXTMEM_C_REQUIRE_OUT(p);
  extmem::AllocOptions converted;
  EXTMEM_C_TRY(convert(options, converted));
  return put(from_c(heap).zalloc(size, converted), p);
}

int extmem_heap_calloc(extmem_heap_t heap, size_t count, size_t size, const extmem_alloc_options_t* options,
                       void** p) {
  EXTMEM_C_REQUIRE_HEAP(heap);
  EXTMEM_C_REQUIRE_OUT(p);
  extmem::AllocOptions converted;
  EXTMEM_C_TRY(convert(options, converted));
  return put(from_c(heap).calloc(count, size, converted), p);
}

int extmem_heap_reallocate(extmem_heap_t heap, size_t new_size, const extmem_alloc_options_t* options,
                           void** p) {
  EXTMEM_C_REQUIRE_HEAP(heap);
  EXTMEM_C_REQUIRE_OUT(p);
  extmem::AllocOptions converted;
  EXTMEM_C_TRY(convert(options, converted));
  return put(from_c(heap).reallocate(*p, new_size, converted), p);
}

int extmem_heap_allocate_batch(extmem_heap_t heap, size_t size, size_t count,
                               const extmem_alloc_options_t* options, void** pointers) {
  EXTMEM_C_REQUIRE_HEAP(heap);
  EXTMEM_C_TRY(require_pointers(pointers, count));
  extmem::AllocOptions converted;
  EXTMEM_C_TRY(convert(options, converted));
  return to_errno(from_c(heap).allocate_batch(size, {pointers, count}, converted));
}

int extmem_heap_deallocate_batch(extmem_heap_t heap, size_t count, void* const* pointers, size_t* first_bad) {
  EXTMEM_C_REQUIRE_HEAP(heap);
  EXTMEM_C_TRY(require_pointers(pointers, count));
  return to_errno(from_c(heap).deallocate_batch({pointers, count}, first_bad));
}

int extmem_heap_get_usable_size(extmem_heap_t heap, const void* p, size_t* size) {
  EXTMEM_C_REQUIRE_HEAP(heap);
  EXTMEM_C_REQUIRE_OUT(size);
  return put(from_c(heap).usable_size(p), size);
}

int extmem_heap_find_owner(extmem_heap_t heap, const void* p, extmem_object_info_t* info, size_t info_size) {
  EXTMEM_C_REQUIRE_HEAP(heap);
  EXTMEM_C_TRY(require_report(info, info_size));
  return put(from_c(heap).owner_of(p), info, info_size);
}

int extmem_object_free(extmem_domain_t* domain, void* p) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  return to_errno(domain->domain.deallocate(p));
}

int extmem_object_get_usable_size(extmem_domain_t* domain, const void* p, size_t* size) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_REQUIRE_OUT(size);
  return put(domain->domain.usable_size(p), size);
}

int extmem_object_find_owner(extmem_domain_t* domain, const void* p, extmem_object_info_t* info,
                             size_t info_size) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_TRY(require_report(info, info_size));
  return put(domain->domain.owner_of(p), info, info_size);
}
