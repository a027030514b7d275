// malloc and its family, recorded, in front of whichever malloc comes next: the C library's, or one that is preloaded too.
#include <dlfcn.h>
#include <malloc.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "base/always_inline.hpp"
#include "base/bits.hpp"
#include "faces/record/recorder.hpp"

#define EXTMEM_RECORD extern "C" __attribute__((visibility("default")))

namespace extmem::record {

namespace {

struct Next {
  void* (*malloc)(std::size_t) = nullptr;
  void (*free)(void*) = nullptr;
  void* (*calloc)(std::size_t, std::size_t) = nullptr;
  void* (*realloc)(void*, std::size_t) = nullptr;
  void* (*memalign)(std::size_t, std::size_t) = nullptr;
  int (*posix_memalign)(void**, std::size_t, std::size_t) = nullptr;
  void* (*aligned_alloc)(std::size_t, std::size_t) = nullptr;
  void (*exit)(int) = nullptr;
};
constinit Next next;
constinit bool finding = false;

// What dlsym allocates while it looks for the real functions. The process has one thread then.
alignas(64) constinit std::byte early[8192]{};
constinit std::size_t early_used = 0;

void* take_early(std::size_t size) noexcept {
  const std::size_t at = base::align_up(early_used, 16);
  if (size > sizeof early - at) return nullptr;
  early_used = at + size;
  return early + at;
}
bool is_early(const void* p) noexcept {
  return reinterpret_cast<std::uintptr_t>(p) - reinterpret_cast<std::uintptr_t>(early) < sizeof early;
}

template <typename Function>
void find(Function& function, const char* name) noexcept {
  function = reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

/// False: in the middle of it.
[[gnu::noinline]] bool find_next() noexcept {
  if (finding) return false;
  finding = true;
  find(next.free, "free");
  find(next.calloc, "calloc");
  find(next.realloc, "realloc");
  find(next.memalign, "memalign");
  find(next.posix_memalign, "posix_memalign");
  find(next.aligned_alloc, "aligned_alloc");
  find(next.exit, "_exit");
  find(next.malloc, "malloc");  // last: that it is there says that all are
  finding = false;
  begin_recording();
  return true;
}
EXTMEM_ALWAYS_INLINE bool ready() noexcept { return next.malloc != nullptr || find_next(); }

/// For ends that run no destructors: many shells', and those of Python's workers.
[[noreturn]] void leave(int status) noexcept {
  end_recording();
  if (next.exit != nullptr) next.exit(status);
  for (;;) ::syscall(SYS_exit_group, status);
}

/// A program that never allocates leaves a trace, too.
struct Recording {
  Recording() noexcept {
    (void)ready();
    (void)::at_quick_exit([] { end_recording(); });
  }
  ~Recording() { end_recording(); }
} whole;

}  // namespace
}  // namespace extmem::record

using namespace extmem::record;

EXTMEM_RECORD void* malloc(std::size_t size) {
  if (!ready()) return take_early(size);
  void* p = next.malloc(size);
  note_malloc(false, size, p, __builtin_return_address(0));
  return p;
}
EXTMEM_RECORD void free(void* p) {
  if (is_early(p) || p == nullptr) return;
  note_free(p);
  next.free(p);
}
EXTMEM_RECORD void* calloc(std::size_t count, std::size_t size) {
  if (!ready()) return take_early(count * size);
  void* p = next.calloc(count, size);
  std::uint64_t bytes;
  if (!extmem::base::checked_mul(count, size, bytes)) return p;
  note_malloc(true, bytes, p, __builtin_return_address(0));
  return p;
}
EXTMEM_RECORD void* realloc(void* p, std::size_t size) {
  if (!ready()) return take_early(size);
  if (p == nullptr || is_early(p)) {
    void* now = next.malloc(size);
    if (p != nullptr && now != nullptr) {
      const auto rest = sizeof early - static_cast<std::size_t>(static_cast<std::byte*>(p) - early);
      std::memcpy(now, p, size < rest ? size : rest);
    }
    note_malloc(false, size, now, __builtin_return_address(0));
    return now;
  }
  if (size == 0) {
    note_free(p);
    return next.realloc(p, 0);
  }
  const std::uint64_t time = begin_realloc();
  void* now = next.realloc(p, size);
  note_realloc(time, p, size, now, __builtin_return_address(0));
  return now;
}
EXTMEM_RECORD void* reallocarray(void* p, std::size_t count, std::size_t size) {
  std::uint64_t bytes;
  if (!extmem::base::checked_mul(count, size, bytes)) {
    errno = ENOMEM;
    return nullptr;
  }
  return realloc(p, bytes);
}
EXTMEM_RECORD int posix_memalign(void** out, std::size_t align, std::size_t size) {
  if (!ready()) return ENOMEM;
  const int failed = next.posix_memalign(out, align, size);
  if (failed != EINVAL) note_memalign(align, size, failed == 0 ? *out : nullptr, __builtin_return_address(0));
  return failed;
}
EXTMEM_RECORD void* memalign(std::size_t align, std::size_t size) {
  if (!ready()) return nullptr;
  void* p = next.memalign(align, size);
  note_memalign(align, size, p, __builtin_return_address(0));
  return p;
}
EXTMEM_RECORD void* aligned_alloc(std::size_t align, std::size_t size) {
  if (!ready()) return nullptr;
  void* p = next.aligned_alloc(align, size);
  note_memalign(align, size, p, __builtin_return_address(0));
  return p;
}
EXTMEM_RECORD void* valloc(std::size_t size) {
  if (!ready()) return nullptr;
  void* p = next.memalign(4096, size);
  note_memalign(4096, size, p, __builtin_return_address(0));
  return p;
}
EXTMEM_RECORD void* pvalloc(std::size_t size) {
  if (!ready() || size > PTRDIFF_MAX) return nullptr;
  const std::size_t bytes = extmem::base::align_up(size != 0 ? size : 1, 4096);
  void* p = next.memalign(4096, bytes);
  note_memalign(4096, bytes, p, __builtin_return_address(0));
  return p;
}
EXTMEM_RECORD void _exit(int status) { leave(status); }
EXTMEM_RECORD void _Exit(int status) noexcept { leave(status); }
