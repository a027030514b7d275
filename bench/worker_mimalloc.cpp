// Worker for mimalloc, by its own names.
#include <mimalloc.h>

#include "worker_main.hpp"

namespace {

struct Mimalloc {
  static const char* open(const bench::Need&) { return nullptr; }
  static std::string version() {
    const int v = mi_version();  // 209 is 2.0.9
    return std::to_string(v / 100) + "." + std::to_string(v / 10 % 10) + "." + std::to_string(v % 10);
  }
  static void* allocate(std::size_t n) { return mi_malloc(n); }
  static void* zallocate(std::size_t n) { return mi_zalloc(n); }
  static void* allocate_aligned(std::size_t n, std::size_t align) { return mi_malloc_aligned(n, align); }
  static void deallocate(void* p) { mi_free(p); }
  static void* reallocate(void* p, std::size_t, std::size_t n) { return mi_realloc(p, n); }
  static void thread_begin() {}
  static void thread_end() {}
};

}  // namespace

int main(int argc, char** argv) { return bench::worker_main<Mimalloc>(argc, argv); }
