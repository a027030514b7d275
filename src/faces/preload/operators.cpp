// operator new and delete, all of them, on the process' heap.
//
// What is needed when memory is short (the new-handler, std::bad_alloc) belongs to the C++ library, which a C program does not
// load: so the failing ways end in that library's own operator, found at run time. It asks our malloc again, calls the
// handler and throws.
#include <dlfcn.h>
#include <malloc.h>

#include <cstddef>
#include <cstdlib>
#include <new>

#include "base/always_inline.hpp"
#include "faces/preload/exported.hpp"
#include "faces/preload/process_heap.hpp"

namespace extmem::preload {

namespace {

/// The C++ library's function of this name; ends the program where there is none: then nobody can throw.
template <typename Function>
Function next(const char* mangled) noexcept {
  void* found = ::dlsym(RTLD_NEXT, mangled);
  if (found == nullptr) std::abort();  // not reached: who calls operator new has a C++ library
  return reinterpret_cast<Function>(found);
}

EXTMEM_ALWAYS_INLINE void* quick(std::size_t size) noexcept {
  if (process.settings.tags) [[unlikely]]
    return nullptr;
  const Result<void*> p = process.heap.allocate(size);
  return p ? *p : nullptr;
}
void* aligned(std::size_t size, std::align_val_t align) noexcept {
  return ::memalign(static_cast<std::size_t>(align), size);
}

[[gnu::noinline]] void* plain_slowly(std::size_t size, const void* caller) {
  if (void* p = allocate_from(size, caller)) return p;
  return next<void* (*)(std::size_t)>("_Znwm")(size);
}

}  // namespace
}  // namespace extmem::preload

using extmem::preload::aligned;
using extmem::preload::next;
using extmem::preload::plain_slowly;
using extmem::preload::quick;

EXTMEM_EXPORTED void* operator new(std::size_t size) {
  if (void* p = quick(size)) [[likely]]
    return p;
  return plain_slowly(size, __builtin_return_address(0));
}
EXTMEM_EXPORTED void* operator new[](std::size_t size) {
  if (void* p = quick(size)) [[likely]]
    return p;
  return plain_slowly(size, __builtin_return_address(0));
}
EXTMEM_EXPORTED void* operator new(std::size_t size, const std::nothrow_t& tag) noexcept {
  if (void* p = quick(size)) [[likely]]
    return p;
  if (void* p = extmem::preload::allocate_from(size, __builtin_return_address(0))) return p;
  return next<void* (*)(std::size_t, const std::nothrow_t&)>("_ZnwmRKSt9nothrow_t")(size, tag);
}
EXTMEM_EXPORTED void* operator new[](std::size_t size, const std::nothrow_t& tag) noexcept {
  return operator new(size, tag);
}
EXTMEM_EXPORTED void* operator new(std::size_t size, std::align_val_t align) {
  if (void* p = aligned(size, align)) [[likely]]
    return p;
  return next<void* (*)(std::size_t, std::align_val_t)>("_ZnwmSt11align_val_t")(size, align);
}
EXTMEM_EXPORTED void* operator new[](std::size_t size, std::align_val_t align) {
  return operator new(size, align);
}
EXTMEM_EXPORTED void* operator new(std::size_t size, std::align_val_t align,
                                   const std::nothrow_t& tag) noexcept {
  if (void* p = aligned(size, align)) [[likely]]
    return p;
  return next<void* (*)(std::size_t, std::align_val_t, const std::nothrow_t&)>(
      "_ZnwmSt11align_val_tRKSt9nothrow_t")(size, align, tag);
}
EXTMEM_EXPORTED void* operator new[](std::size_t size, std::align_val_t align,
                                     const std::nothrow_t& tag) noexcept {
  return operator new(size, align, tag);
}

EXTMEM_EXPORTED void operator delete(void* p) noexcept { ::free(p); }
EXTMEM_EXPORTED void operator delete[](void* p) noexcept { ::free(p); }
EXTMEM_EXPORTED void operator delete(void* p, std::size_t) noexcept { ::free(p); }
EXTMEM_EXPORTED void operator delete[](void* p, std::size_t) noexcept { ::free(p); }
EXTMEM_EXPORTED void operator delete(void* p, const std::nothrow_t&) noexcept { ::free(p); }
EXTMEM_EXPORTED void operator delete[](void* p, const std::nothrow_t&) noexcept { ::free(p); }
EXTMEM_EXPORTED void operator delete(void* p, std::align_val_t) noexcept { ::free(p); }
EXTMEM_EXPORTED void operator delete[](void* p, std::align_val_t) noexcept { ::free(p); }
EXTMEM_EXPORTED void operator delete(void* p, std::size_t, std::align_val_t) noexcept { ::free(p); }
EXTMEM_EXPORTED void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { ::free(p); }
EXTMEM_EXPORTED void operator delete(void* p, std::align_val_t, const std::nothrow_t&) noexcept { ::free(p); }
EXTMEM_EXPORTED void operator delete[](void* p, std::align_val_t, const std::nothrow_t&) noexcept {
  ::free(p);
}
