// malloc and its family, as the C library declares them, on the process' heap.
//
// Each function is its fast path: the heap's own, in line (heap/hot_paths.hpp). What fails there goes on in functions of their
// own, by a call into the heap: an empty magazine, the first call of the process, size 0, out of memory, a foreign pointer.
// errno: ENOMEM where nothing can be had; free leaves it alone. Size 0 is an object of its own, realloc(p, 0) frees, as
// in the GNU C library.
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/always_inline.hpp"
#include "base/bits.hpp"
#include "faces/preload/exported.hpp"
#include "faces/preload/large.hpp"
#include "faces/preload/process_heap.hpp"
#include "heap/hot_paths.hpp"
#include "os/mapping.hpp"

namespace extmem::preload {

using heap::HotPaths;

namespace {

constexpr std::size_t kMostBytes = PTRDIFF_MAX;
constexpr std::size_t kMallocAlign = alignof(std::max_align_t);

void* no_memory() noexcept {
  process.mishaps.refused.fetch_add(1, std::memory_order_relaxed);
  errno = ENOMEM;
  return nullptr;
}

/// Whatever the fast path did not do. `caller`: for tags; null: untagged.
[[gnu::noinline]] void* allocate_slowly(std::size_t size, std::size_t align, bool zero,
                                        const void* caller) noexcept {
  if (process.phase != Phase::ready) [[unlikely]] {
    if (process.phase == Phase::none) begin();
    if (process.phase == Phase::beginning) {
      void* p = process.bootstrap.allocate(size, std::max(align, kMallocAlign));
      return p != nullptr ? p : no_memory();  // its bytes are zero
    }
  }
  if (size > kMostBytes) return no_memory();
  AllocOptions options;
  options.align = align <= kMallocAlign ? 0 : align;
  options.zero = zero;
  if (process.settings.tags && caller != nullptr) options.tag = tag_of_caller(caller);
  const Result<void*> p = process.heap.allocate(size != 0 ? size : 1, options);
  return p ? *p : no_memory();
}

/// What the thread's magazine does not have. `caller`: as allocate_slowly.
[[gnu::noinline]] void* allocate_otherwise(std::size_t size, const void* caller) noexcept {
  if (Heap quick = process.quick) [[likely]] {
    if (const Result<void*> p = quick.allocate(size)) [[likely]]
      return *p;
  }
  return allocate_slowly(size, 0, false, caller);
}

void* allocate(std::size_t size, const void* caller) noexcept {
  const std::uintptr_t p = HotPaths::pop(heap::thread_memory, process.quick, size);
  return p != 0 ? reinterpret_cast<void*>(p) : allocate_otherwise(size, caller);
}

void* allocate_zeroed(std::size_t count, std::size_t size, const void* caller) noexcept {
  std::uint64_t bytes;
  if (!base::checked_mul(count, size, bytes)) return no_memory();
  if (bytes >= kLargeObject) [[unlikely]] {
    void* p = allocate_slowly(bytes, 0, false, caller);
    if (p != nullptr) zero_large(p, bytes);
    return p;
  }
  if (Heap quick = process.quick) [[likely]] {
    if (const Result<void*> p = quick.zalloc(bytes)) [[likely]]
      return *p;
  }
  return allocate_slowly(bytes, 0, true, caller);
}

/// Requires: align is a power of two.
void* allocate_aligned(std::size_t align, std::size_t size, const void* caller) noexcept {
  if (align <= kMallocAlign) return allocate(size, caller);
  if (align > kMaxAlign) return no_memory();
  return allocate_slowly(size, align, false, caller);
}

}  // namespace

void* allocate_from(std::size_t size, const void* caller) noexcept {
  if (begun().malloc_in_front) return ::malloc(size);  // delete ends in its free
  return allocate_otherwise(size, caller);
}
void* allocate_aligned_from(std::size_t align, std::size_t size, const void* caller) noexcept {
  if (begun().malloc_in_front) return ::memalign(align, size);
  return allocate_aligned(align, size, caller);
}

namespace {

[[gnu::noinline]] void free_slowly(void* p, Error error) noexcept {
  if (process.bootstrap.contains(p)) return;
  tell_bad_free("free", p, error);
}

/// What is not in a slab of the thread's own, or has no room in the magazine.
[[gnu::noinline]] void release_shared(void* p) noexcept {
  if (const Result<void> freed = heap::DomainState::deallocate_shared(process.heap, p); !freed) [[unlikely]]
    free_slowly(p, freed.error());
}
/// All else: large objects, other regions than the last, the null pointer, mistakes.
[[gnu::noinline]] void release_otherwise(void* p) noexcept {
  if (const Result<void> freed = process.heap.deallocate(p); !freed) [[unlikely]]
    free_slowly(p, freed.error());
}

EXTMEM_ALWAYS_INLINE void release(void* p) noexcept {
  const HotPaths::Push pushed = HotPaths::push(heap::thread_memory, process.heap, p);
  if (pushed == HotPaths::Push::done) [[likely]]
    return;
  if (pushed == HotPaths::Push::shared) return release_shared(p);
  release_otherwise(p);
}

void* cannot_resize(void* p, Error error) noexcept {
  if (error.code() == EFAULT || error.code() == EINVAL || error.code() == EALREADY)
    tell_bad_free("realloc", p, error);
  return no_memory();
}

/// Where it is, if it can be; else with room to grow further.
[[gnu::noinline]] void* resize_large(void* p, std::size_t size, const void* caller) noexcept {
  AllocOptions options;
  options.in_place = true;
  const Result<void*> here = process.heap.reallocate(p, size, options);
  if (here) return *here;
  const Result<std::size_t> old_size = process.heap.usable_size(p);
  if (here.error().code() != ENOMEM || !old_size) return cannot_resize(p, here.error());
  if (*old_size >= size) return p;
  void* now = move_large(p, *old_size, size, caller);
  return now != nullptr ? now : no_memory();
}

void* resize(void* p, std::size_t size, const void* caller) noexcept {
  if (p == nullptr) return allocate(size, caller);
  if (size == 0) {
    release(p);
    return nullptr;
  }
  if (process.bootstrap.contains(p)) [[unlikely]] {
    void* now = allocate(size, caller);
    if (now != nullptr) std::memcpy(now, p, std::min(size, process.bootstrap.size_of(p)));
    return now;
  }
  if (size > kMostBytes) return no_memory();
  if (size >= kLargeObject) [[unlikely]]
    return resize_large(p, size, caller);
  const Result<void*> now = process.heap.reallocate(p, size);
  if (now) [[likely]]
    return *now;
  return cannot_resize(p, now.error());
}

std::size_t os_page() noexcept { return os::page_size(); }

}  // namespace

}  // namespace extmem::preload

using namespace extmem::preload;
namespace base = extmem::base;

EXTMEM_EXPORTED_C void* malloc(std::size_t size) {
  const std::uintptr_t p = HotPaths::pop(extmem::heap::thread_memory, process.quick, size);
  if (p == 0) [[unlikely]]
    return allocate_otherwise(size, __builtin_return_address(0));
  return reinterpret_cast<void*>(p);
}
EXTMEM_EXPORTED_C void free(void* p) { release(p); }
EXTMEM_EXPORTED_C void* calloc(std::size_t count, std::size_t size) {
  return allocate_zeroed(count, size, __builtin_return_address(0));
}
EXTMEM_EXPORTED_C void* realloc(void* p, std::size_t size) {
  return resize(p, size, __builtin_return_address(0));
}
EXTMEM_EXPORTED_C void* reallocarray(void* p, std::size_t count, std::size_t size) {
  std::uint64_t bytes;
  if (!base::checked_mul(count, size, bytes)) return no_memory();
  return resize(p, bytes, __builtin_return_address(0));
}
EXTMEM_EXPORTED_C int posix_memalign(void** out, std::size_t align, std::size_t size) {
  if (!base::is_power_of_two(align) || align % sizeof(void*) != 0) return EINVAL;
  const int before = errno;
  void* p = allocate_aligned(align, size, __builtin_return_address(0));
  errno = before;
  if (p == nullptr) return ENOMEM;
  *out = p;
  return 0;
}
EXTMEM_EXPORTED_C void* memalign(std::size_t align, std::size_t size) {
  // As glibc: what is no power of two is rounded up to one.
  if (align > extmem::kMaxAlign) {
    errno = align > PTRDIFF_MAX ? EINVAL : ENOMEM;
    return nullptr;
  }
  return allocate_aligned(std::bit_ceil(std::max<std::size_t>(align, 1)), size, __builtin_return_address(0));
}
EXTMEM_EXPORTED_C void* aligned_alloc(std::size_t align, std::size_t size) {
  if (align > extmem::kMaxAlign) {
    errno = align > PTRDIFF_MAX ? EINVAL : ENOMEM;
    return nullptr;
  }
  return allocate_aligned(std::bit_ceil(std::max<std::size_t>(align, 1)), size, __builtin_return_address(0));
}
EXTMEM_EXPORTED_C void* valloc(std::size_t size) {
  return allocate_aligned(os_page(), size, __builtin_return_address(0));
}
EXTMEM_EXPORTED_C void* pvalloc(std::size_t size) {
  if (size > kMostBytes) return no_memory();
  return allocate_aligned(os_page(), base::align_up(std::max<std::size_t>(size, 1), os_page()),
                          __builtin_return_address(0));
}
EXTMEM_EXPORTED_C std::size_t malloc_usable_size(void* p) {
  if (p == nullptr) return 0;
  if (process.bootstrap.contains(p)) [[unlikely]]
    return 0;
  const extmem::Result<std::size_t> size = process.heap.usable_size(p);
  return size ? *size : 0;
}
