// Worker for allocators that replace malloc: glibc as it is, jemalloc and tcmalloc by linking their
// library.
//
// What it is: the plain C functions, called through the dynamic linker like in any program that uses them.
// BENCH_MALLOC_LIBRARY is part of the file name that malloc must come from.
#include <dlfcn.h>
#include <gnu/libc-version.h>

#include <cstdlib>

#include "worker_main.hpp"

namespace {

struct Malloc {
  static const char* open(const bench::Need&) {
    Dl_info info{};
    if (dladdr(reinterpret_cast<void*>(&std::malloc), &info) == 0 || info.dli_fname == nullptr ||
        std::strstr(info.dli_fname, BENCH_MALLOC_LIBRARY) == nullptr) {
      return "malloc does not come from " BENCH_MALLOC_LIBRARY;
    }
    return nullptr;
  }
  static std::string version() {
    if (void* f = dlsym(RTLD_DEFAULT, "tc_version"); f != nullptr) {
      return reinterpret_cast<const char* (*)(int*, int*, const char**)>(f)(nullptr, nullptr, nullptr);
    }
    if (void* f = dlsym(RTLD_DEFAULT, "mallctl"); f != nullptr) {
      const char* text = "";
      std::size_t length = sizeof text;
      reinterpret_cast<int (*)(const char*, void*, std::size_t*, void*, std::size_t)>(f)("version", &text,
                                                                                         &length, nullptr, 0);
      return std::string(text).substr(0, std::strcspn(text, "-"));  // without the commit
    }
    return gnu_get_libc_version();
  }
  static void* allocate(std::size_t n) { return std::malloc(n); }
  static void* zallocate(std::size_t n) { return std::calloc(1, n); }
  static void* allocate_aligned(std::size_t n, std::size_t align) {
    void* p = nullptr;
    return ::posix_memalign(&p, align, n) == 0 ? p : nullptr;
  }
  static void deallocate(void* p) { std::free(p); }
  static void* reallocate(void* p, std::size_t, std::size_t n) { return std::realloc(p, n); }
  static void thread_begin() {}
  static void thread_end() {}
};

}  // namespace

int main(int argc, char** argv) { return bench::worker_main<Malloc>(argc, argv); }
