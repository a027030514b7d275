#include "interposed.hpp"

#include <malloc.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>

// glibc's own, reachable under these names whoever replaces the public ones.
extern "C" {
void* __libc_malloc(std::size_t);                 // NOLINT: glibc's names
void* __libc_calloc(std::size_t, std::size_t);    // NOLINT
void* __libc_realloc(void*, std::size_t);         // NOLINT
void* __libc_memalign(std::size_t, std::size_t);  // NOLINT
}

namespace {

std::atomic<bool> forbidden{false};
__attribute__((tls_model("initial-exec"))) thread_local int allowed_here = 0;

void check(const char* name) {
  if (!forbidden.load(std::memory_order_relaxed) || allowed_here > 0) return;
  const char* text = " was called while it was forbidden\n";
  (void)!::write(STDERR_FILENO, name, std::strlen(name));
  (void)!::write(STDERR_FILENO, text, std::strlen(text));
  std::abort();
}

}  // namespace

namespace extmem::test {

void forbid_malloc() { forbidden = true; }
void allow_malloc() { forbidden = false; }
MallocAllowed::MallocAllowed() { ++allowed_here; }
MallocAllowed::~MallocAllowed() { --allowed_here; }

}  // namespace extmem::test

// operator new and the rest of the C++ library end in malloc, so they need no versions of their own.
extern "C" {
void* malloc(std::size_t size) {
  check("malloc");
  return __libc_malloc(size);
}
void* calloc(std::size_t count, std::size_t size) {
  check("calloc");
  return __libc_calloc(count, size);
}
void* realloc(void* p, std::size_t size) {
  check("realloc");
  return __libc_realloc(p, size);
}
void* memalign(std::size_t align, std::size_t size) {
  check("memalign");
  return __libc_memalign(align, size);
}
void* aligned_alloc(std::size_t align, std::size_t size) {
  check("aligned_alloc");
  return __libc_memalign(align, size);
}
int posix_memalign(void** p, std::size_t align, std::size_t size) {
  check("posix_memalign");
  *p = __libc_memalign(align, size);
  return *p != nullptr ? 0 : ENOMEM;
}
}
