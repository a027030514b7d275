// Worker without an allocator: shows what the workloads themselves cost (loop, random numbers, touching).
//
// What it is: hands out the cache lines of 4 KiB in turn and takes nothing back, so it has no cache misses.
// Objects overlap: it serves as a floor for times only. Not part of the default list; ask for it with
// --allocators.
#include "worker_main.hpp"

namespace {

struct Null {
  static constexpr std::size_t kRing = 4096;
  static constexpr std::size_t kLargest = 2 * bench::kMiB;
  static inline thread_local char* memory = nullptr;
  static inline thread_local std::size_t at = 0;

  static const char* open(const bench::Need&) { return nullptr; }
  static std::string version() { return "none"; }
  static void* allocate(std::size_t) {
    if (memory == nullptr) thread_begin();  // a thread of a trace
    at = (at + 64) % kRing;
    return memory + at;
  }
  static void* zallocate(std::size_t n) { return allocate(n); }
  static void* allocate_aligned(std::size_t n, std::size_t) { return allocate(n); }
  static void deallocate(void*) {}
  static void* reallocate(void* p, std::size_t, std::size_t) { return p; }
  static void thread_begin() { memory = static_cast<char*>(bench::map_memory(kRing + kLargest, true)); }
  static void thread_end() {}
};

}  // namespace

int main(int argc, char** argv) { return bench::worker_main<Null>(argc, argv); }
