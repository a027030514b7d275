// What every worker shares: clock, escape, random numbers, pinning, memory, and the allocator concept.
//
// What it is: the small parts that have to be identical for all allocators, so that a difference between
// two rows can only come from the allocators.
// Thread-safety: free functions without state; a Rng belongs to one thread.
#pragma once

#include <sched.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace bench {

inline constexpr std::size_t kPage = 4096;
inline constexpr std::size_t kMiB = std::size_t{1} << 20;
inline constexpr std::size_t kGiB = std::size_t{1} << 30;

/// Ends the worker; the driver reports the line and leaves the row out.
[[noreturn]] inline void fail(const char* what) {
  std::printf("fail %s\n", what);
  std::fflush(stdout);
  _exit(3);
}

/// Ends the worker because this allocator cannot do this workload; the driver says so and goes on.
[[noreturn]] inline void skip(const char* why) {
  std::printf("skip %s\n", why);
  std::fflush(stdout);
  _exit(0);
}

inline std::uint64_t now_ns(clockid_t clock = CLOCK_MONOTONIC) {
  timespec t{};
  clock_gettime(clock, &t);
  return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000u + static_cast<std::uint64_t>(t.tv_nsec);
}

/// The compiler must believe that `p` is used and that any memory changed: malloc/free pairs stay.
inline void escape(const void* p) { asm volatile("" : : "r"(p) : "memory"); }

/// In a spinning loop: leaves the core's resources to others.
inline void relax_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  asm volatile("" : : : "memory");
#endif
}

/// One draw costs a multiply and an add, so that it weighs little against an allocation of 3 ns.
class Rng {
 public:
  explicit Rng(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 1) {}
  std::uint32_t next() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<std::uint32_t>(state_ >> 32);
  }
  /// A number in [0, n); n up to 2^32.
  std::uint32_t below(std::uint64_t n) { return static_cast<std::uint32_t>((next() * n) >> 32); }

 private:
  std::uint64_t state_;
};

/// The CPUs this process may use, read before any library changes the affinity. The last comes first: CPU 0
/// serves most interrupts.
inline std::vector<int> allowed_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cpus;
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    for (int i = CPU_SETSIZE - 1; i >= 0; --i) {
      if (CPU_ISSET(static_cast<std::size_t>(i), &set)) cpus.push_back(i);
    }
  }
  return cpus;
}

inline void pin_to(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<std::size_t>(cpu), &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) fail("sched_setaffinity");
}

/// Plain anonymous memory for regions and for the workloads' own arrays: never from the allocator under
/// test. Aligned to 2 MiB; `populate` makes every page resident now.
inline void* map_memory(std::size_t bytes, bool populate, int protection = PROT_READ | PROT_WRITE) {
  const std::size_t align = 2 * kMiB;
  char* raw = static_cast<char*>(
      mmap(nullptr, bytes + align, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (raw == MAP_FAILED) fail("mmap");
  const std::size_t skew = (align - reinterpret_cast<std::uintptr_t>(raw) % align) % align;
  char* p = raw + skew;
  if (skew != 0) munmap(raw, skew);
  munmap(p + bytes, align - skew);
  if (populate) {
    for (std::size_t i = 0; i < bytes; i += kPage) *static_cast<volatile char*>(p + i) = 0;
  }
  return p;
}

template <typename T>
std::span<T> map_array(std::size_t count) {
  const std::size_t bytes = (count * sizeof(T) + kPage - 1) / kPage * kPage;
  return {static_cast<T*>(map_memory(bytes, true)), count};
}

/// Resident bytes of this process.
inline std::size_t resident_bytes() {
  std::FILE* f = std::fopen("/proc/self/statm", "re");
  unsigned long size = 0;
  unsigned long resident = 0;
  if (f == nullptr || std::fscanf(f, "%lu %lu", &size, &resident) != 2) fail("/proc/self/statm");
  std::fclose(f);
  return resident * kPage;
}

/// IOVAs of a region's 4 KiB pages: `scattered` has no two consecutive pages, `runs` has runs of 1 to 64
/// pages.
enum class IovaShape { none, scattered, runs };

inline std::span<std::uint64_t> make_iovas(std::size_t pages, IovaShape shape) {
  if (shape == IovaShape::none) return {};
  const auto iovas = map_array<std::uint64_t>(pages);
  Rng rng(42);
  const std::uint64_t first = std::uint64_t{1} << 32;
  if (shape == IovaShape::scattered) {
    for (std::size_t i = 0; i < pages; ++i) iovas[i] = first + i * 2 * kPage;  // times 2: never consecutive
    for (std::size_t i = pages - 1; i > 0; --i) std::swap(iovas[i], iovas[rng.below(i + 1)]);
    return iovas;
  }
  std::uint64_t at = first;
  for (std::size_t i = 0; i < pages; at += kPage) {
    for (std::size_t n = 1 + rng.below(64); n > 0 && i < pages; --n, ++i, at += kPage) iovas[i] = at;
  }
  return iovas;
}

/// What a workload needs. An allocator that brings its own memory ignores the memory part.
struct Need {
  std::size_t bytes = 0;  ///< managed memory in all
  bool populate = true;   ///< resident before the first allocation
  IovaShape iova = IovaShape::none;
  std::size_t regions = 1;  ///< adjacent regions of equal length
};

/// An allocator under test: a struct of static functions, so that a call costs what the public function
/// costs. open() makes it ready and returns nullptr, or the reason why it cannot be used.
template <class A>
concept Allocator = requires(const Need& need, std::size_t n, void* p) {
  { A::open(need) } -> std::same_as<const char*>;
  { A::version() } -> std::same_as<std::string>;
  { A::allocate(n) } -> std::same_as<void*>;
  { A::zallocate(n) } -> std::same_as<void*>;
  { A::allocate_aligned(n, n) } -> std::same_as<void*>;  // (size, alignment)
  { A::deallocate(p) } -> std::same_as<void>;
  { A::reallocate(p, n, n) } -> std::same_as<void*>;  // (p, old size, new size)
  { A::thread_begin() } -> std::same_as<void>;
  { A::thread_end() } -> std::same_as<void>;
};

/// reallocate() believes the old size that it is told; the others have their own book of it.
template <class A>
concept NeedsOldSize = A::kNeedsOldSize;

/// Regions can be added and removed. Both return success.
template <class A>
concept HasRegions = requires(void* p, std::size_t n, std::span<const std::uint64_t> iovas) {
  { A::region_add(p, n, iovas) } -> std::same_as<bool>;
  { A::region_remove(p, n) } -> std::same_as<bool>;
};

/// Addresses can be translated: to the region (any value that depends on it) and to the IOVA.
template <class A>
concept HasIova = requires(const void* p) {
  { A::region_lookup(p) } -> std::same_as<std::uint64_t>;
  { A::iova_lookup(p) } -> std::same_as<std::uint64_t>;
};

/// IOVA-contiguous memory; a null handle means that none was found.
template <class A>
concept HasContiguous = requires(std::size_t n, void* handle) {
  { A::contiguous_allocate(n) } -> std::same_as<void*>;
  { A::contiguous_deallocate(handle) } -> std::same_as<void>;
};

/// Named reservations; null or false means failure. What a lookup returned helps to free, where the
/// allocator frees by it and not by name.
template <class A>
concept HasZones = requires(const char* name, std::size_t n, const void* found) {
  { A::zone_reserve(name, n) } -> std::same_as<bool>;
  { A::zone_lookup(name) } -> std::same_as<const void*>;
  { A::zone_free(name, found) } -> std::same_as<bool>;
  { A::max_zones() } -> std::same_as<std::size_t>;
};

/// The allocator can say how many bytes its live objects take from managed memory, headers included.
template <class A>
concept HasUsage = requires {
  { A::used_bytes() } -> std::same_as<std::size_t>;
};

/// The allocator keeps its metadata elsewhere, and says how many bytes of it are resident.
template <class A>
concept HasMetadata = requires {
  { A::metadata_bytes() } -> std::same_as<std::size_t>;
};

}  // namespace bench
