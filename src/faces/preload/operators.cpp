// operator new and delete, all of them, on the process' heap.
//
// What is needed when memory is short (the new-handler, std::bad_alloc) belongs to the C++ library, which a C program does not
// load: so the failing ways end in that library's own operator, found at run time. It asks our malloc again, calls the
// handler and throws.
// A program may replace some of them, operator new(size_t) and operator delete(void*) most of all; the standard says that
// the others then end in those. The C++ library's do, so new goes there; delete calls what the standard says, and the loader
// finds the program's first.
#include <dlfcn.h>

#include <cstddef>
#include <cstdlib>
#include <new>

#include "base/always_inline.hpp"
#include "faces/preload/exported.hpp"
#include "faces/preload/process_heap.hpp"
#include "heap/hot_paths.hpp"

namespace extmem::preload {

using heap::HotPaths;

namespace {

/// The C++ library's function of this name; ends the program where there is none: then nobody can throw.
template <typename Function>
Function next(const char* mangled) noexcept {
  void* found = ::dlsym(RTLD_NEXT, mangled);
  if (found == nullptr) std::abort();  // not reached: who calls operator new has a C++ library
  return reinterpret_cast<Function>(found);
}

EXTMEM_ALWAYS_INLINE void* quick(std::size_t size) noexcept {
  return reinterpret_cast<void*>(HotPaths::pop(heap::thread_memory, process.quick_new, size));
}

[[gnu::noinline]] void* plain_slowly(std::size_t size, const void* caller) {
  if (void* p = allocate_from(size, caller)) return p;
  return next<void* (*)(std::size_t)>("_Znwm")(size);
}
[[gnu::noinline]] void* array_slowly(std::size_t size, const void* caller) {
  if (begun().replaced_new) return next<void* (*)(std::size_t)>("_Znam")(size);
  return plain_slowly(size, caller);
}
[[gnu::noinline]] void* nothrow_slowly(const char* mangled, std::size_t size, const std::nothrow_t& tag,
                                       const void* caller) noexcept {
  if (!begun().replaced_new) {
    if (void* p = allocate_from(size, caller)) return p;
  }
  return next<void* (*)(std::size_t, const std::nothrow_t&)>(mangled)(size, tag);
}
void* aligned(const char* mangled, std::size_t size, std::align_val_t align, const void* caller) {
  if (!begun().replaced_aligned_new) {
    if (void* p = allocate_aligned_from(static_cast<std::size_t>(align), size, caller)) return p;
  }
  return next<void* (*)(std::size_t, std::align_val_t)>(mangled)(size, align);
}
void* aligned_nothrow(const char* mangled, std::size_t size, std::align_val_t align,
                      const std::nothrow_t& tag, const void* caller) noexcept {
  if (!begun().replaced_aligned_new) {
    if (void* p = allocate_aligned_from(static_cast<std::size_t>(align), size, caller)) return p;
  }
  return next<void* (*)(std::size_t, std::align_val_t, const std::nothrow_t&)>(mangled)(size, align, tag);
}

}  // namespace
}  // namespace extmem::preload

using extmem::preload::aligned;
using extmem::preload::aligned_nothrow;
using extmem::preload::array_slowly;
using extmem::preload::nothrow_slowly;
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
  return array_slowly(size, __builtin_return_address(0));
}
EXTMEM_EXPORTED void* operator new(std::size_t size, const std::nothrow_t& tag) noexcept {
  if (void* p = quick(size)) [[likely]]
    return p;
  return nothrow_slowly("_ZnwmRKSt9nothrow_t", size, tag, __builtin_return_address(0));
}
EXTMEM_EXPORTED void* operator new[](std::size_t size, const std::nothrow_t& tag) noexcept {
  if (void* p = quick(size)) [[likely]]
    return p;
  return nothrow_slowly("_ZnamRKSt9nothrow_t", size, tag, __builtin_return_address(0));
}
EXTMEM_EXPORTED void* operator new(std::size_t size, std::align_val_t align) {
  return aligned("_ZnwmSt11align_val_t", size, align, __builtin_return_address(0));
}
EXTMEM_EXPORTED void* operator new[](std::size_t size, std::align_val_t align) {
  return aligned("_ZnamSt11align_val_t", size, align, __builtin_return_address(0));
}
EXTMEM_EXPORTED void* operator new(std::size_t size, std::align_val_t align,
                                   const std::nothrow_t& tag) noexcept {
  return aligned_nothrow("_ZnwmSt11align_val_tRKSt9nothrow_t", size, align, tag, __builtin_return_address(0));
}
EXTMEM_EXPORTED void* operator new[](std::size_t size, std::align_val_t align,
                                     const std::nothrow_t& tag) noexcept {
  return aligned_nothrow("_ZnamSt11align_val_tRKSt9nothrow_t", size, align, tag, __builtin_return_address(0));
}

// The other forms end in these two, or in what the program has instead: so no compiler may put them in line.
[[gnu::noinline]] EXTMEM_EXPORTED void operator delete(void* p) noexcept { ::free(p); }
[[gnu::noinline]] EXTMEM_EXPORTED void operator delete(void* p, std::align_val_t) noexcept { ::free(p); }
EXTMEM_EXPORTED void operator delete[](void* p) noexcept { ::operator delete(p); }
EXTMEM_EXPORTED void operator delete(void* p, std::size_t) noexcept { ::operator delete(p); }
EXTMEM_EXPORTED void operator delete[](void* p, std::size_t) noexcept { ::operator delete[](p); }
EXTMEM_EXPORTED void operator delete(void* p, const std::nothrow_t&) noexcept { ::operator delete(p); }
EXTMEM_EXPORTED void operator delete[](void* p, const std::nothrow_t&) noexcept { ::operator delete[](p); }
EXTMEM_EXPORTED void operator delete[](void* p, std::align_val_t align) noexcept {
  ::operator delete(p, align);
}
EXTMEM_EXPORTED void operator delete(void* p, std::size_t, std::align_val_t align) noexcept {
  ::operator delete(p, align);
}
EXTMEM_EXPORTED void operator delete[](void* p, std::size_t, std::align_val_t align) noexcept {
  ::operator delete[](p, align);
}
EXTMEM_EXPORTED void operator delete(void* p, std::align_val_t align, const std::nothrow_t&) noexcept {
  ::operator delete(p, align);
}
EXTMEM_EXPORTED void operator delete[](void* p, std::align_val_t align, const std::nothrow_t&) noexcept {
  ::operator delete[](p, align);
}
