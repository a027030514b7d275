// What it costs to allocate and free a GPU's memory and pinned memory: by a heap of extmem over it, and by CUDA's own calls.
//
//   cmake --preset bench && cmake --build --preset bench --target gpu && build/bench/bench/gpu
//
// Needs an NVIDIA GPU. A line a size: nanoseconds by the wall clock for an allocation and its free, of 16 objects at once, the best of several
// rounds. On several threads: of all threads' pairs together, so twice the speed is half the figure.
//   cuMemAllocAsync   on a stream of the thread's own, from the GPU's default pool, which keeps what is freed (its release
//                     threshold is raised); the stream is waited for once a round
//   after             allocated by extmem and freed when the stream has passed (deallocate_after), as cuMemFreeAsync does;
//   after, 16         the same for the 16 objects in one call
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "extmem/cuda.hpp"
#include "extmem/extmem.hpp"

namespace {

using extmem::Heap;
using extmem::cuda::device_ptr;
using extmem::cuda::DevicePtr;
using extmem::cuda::Driver;
using extmem::cuda::Gpu;
using extmem::cuda::Stream;

constexpr std::size_t kLive = 16;
constexpr int kRounds = 7;
constexpr std::size_t kKiB = 1024, kMiB = 1024 * kKiB;

using Clock = std::chrono::steady_clock;
double ns_since(Clock::time_point begun) {
  return std::chrono::duration<double, std::nano>(Clock::now() - begun).count();
}
void must(bool good, const char* what) {
  if (good) return;
  std::fprintf(stderr, "gpu: %s failed, CUDA's status %d\n", what, extmem::cuda::last_status());
  std::exit(1);
}

/// One allocator as a thread uses it: gets objects, frees them together. `settle` ends a round.
using Live = std::array<void*, kLive>;
struct Extmem {
  Heap heap;
  bool get(void*& p, std::size_t size) {
    p = heap.allocate(size).value_or(nullptr);
    return p != nullptr;
  }
  void free(const Live& live) {
    for (void* const p : live) (void)heap.deallocate(p);
  }
  void settle() {}
};
struct ExtmemAfter : Extmem {
  const Gpu& gpu;
  bool together;
  Stream stream = nullptr;
  ExtmemAfter(Heap from, const Gpu& on, bool at_once) : Extmem{from}, gpu(on), together(at_once) {
    must(gpu.driver().stream_create(&stream, 1) == 0, "cuStreamCreate");
  }
  bool get(void*& p, std::size_t size) {
    if (Extmem::get(p, size)) return true;
    settle();  // all of the memory waits for streams to pass
    return Extmem::get(p, size);
  }
  void free(const Live& live) {
    if (together) {
      must(extmem::cuda::deallocate_after(gpu, stream, heap, live).ok(), "deallocate_after");
    } else {
      for (void* const p : live)
        must(extmem::cuda::deallocate_after(gpu, stream, heap, p).ok(), "deallocate_after");
    }
  }
  void settle() { (void)gpu.driver().stream_synchronize(stream); }
};
struct MemAlloc {
  const Driver& cuda;
  bool get(void*& p, std::size_t size) {
    DevicePtr at = 0;
    const bool got = cuda.mem_alloc(&at, size) == 0;
    p = reinterpret_cast<void*>(at);
    return got;
  }
  void free(const Live& live) {
    for (void* const p : live) (void)cuda.mem_free(device_ptr(p));
  }
  void settle() {}
};
struct MemAllocAsync {
  const Driver& cuda;
  Stream stream = nullptr;
  explicit MemAllocAsync(const Driver& driver) : cuda(driver) {
    must(cuda.stream_create(&stream, 1) == 0, "cuStreamCreate");
  }
  bool get(void*& p, std::size_t size) {
    DevicePtr at = 0;
    const bool got = cuda.mem_alloc_async(&at, size, stream) == 0;
    p = reinterpret_cast<void*>(at);
    return got;
  }
  void free(const Live& live) {
    for (void* const p : live) (void)cuda.mem_free_async(device_ptr(p), stream);
  }
  void settle() { (void)cuda.stream_synchronize(stream); }
};
struct HostAlloc {
  const Driver& cuda;
  bool get(void*& p, std::size_t size) { return cuda.host_alloc(&p, size, extmem::cuda::kHostPortable) == 0; }
  void free(const Live& live) {
    for (void* const p : live) (void)cuda.host_free(p);
  }
  void settle() {}
};

/// Nanoseconds of `batches` batches.
template <typename Allocator>
double batches(Allocator& allocator, std::size_t size, int count) {
  Live live;
  const auto begun = Clock::now();
  for (int i = 0; i < count; ++i) {
    for (void*& p : live) must(allocator.get(p, size), "an allocation");
    allocator.free(live);
  }
  allocator.settle();
  return ns_since(begun);
}

/// Nanoseconds a pair.
template <typename Make>
double measure(const Gpu& gpu, const Make& make, std::size_t size, unsigned threads) {
  std::atomic<unsigned> ready{0}, done{0};
  std::atomic<int> go{0};
  std::atomic<int> count{0};
  std::vector<std::thread> all;
  for (unsigned t = 0; t < threads; ++t) {
    all.emplace_back([&] {
      const Gpu::Current current(gpu);
      auto allocator = make();
      (void)batches(allocator, size, 1);
      const double once = std::max(1.0, batches(allocator, size, 1));
      int unset = 0;  // the first thread says how many batches are about 10 ms
      (void)count.compare_exchange_strong(unset, std::max(1, static_cast<int>(10e6 / once / threads)));
      for (int round = 1; round <= kRounds; ++round) {
        ++ready;
        while (go.load() != round) std::this_thread::yield();
        (void)batches(allocator, size, count);
        ++done;
      }
    });
  }
  double best = 1e300;
  for (int round = 1; round <= kRounds; ++round) {
    while (ready != threads * static_cast<unsigned>(round)) std::this_thread::yield();
    const auto begun = Clock::now();
    go = round;
    while (done != threads * static_cast<unsigned>(round)) std::this_thread::yield();
    best = std::min(best, ns_since(begun) / (1.0 * threads * kLive * count));
  }
  for (std::thread& thread : all) thread.join();
  return best;
}

/// The default pool keeps what is freed, as its users have it. Not in Driver: only this program wants it.
void keep_pool(const Gpu& gpu) {
  void* const library = ::dlopen("libcuda.so.1", RTLD_NOW);
  const auto pool_of = reinterpret_cast<int (*)(void**, int)>(::dlsym(library, "cuDeviceGetDefaultMemPool"));
  const auto set = reinterpret_cast<int (*)(void*, int, void*)>(::dlsym(library, "cuMemPoolSetAttribute"));
  void* pool = nullptr;
  std::uint64_t all = ~std::uint64_t{0};
  if (pool_of == nullptr || set == nullptr || pool_of(&pool, gpu.device()) != 0 || set(pool, 4, &all) != 0)
    std::printf("(the default pool's release threshold could not be raised)\n");
}

}  // namespace

int main() {
  auto opened = Gpu::open();
  if (!opened) {
    std::printf("needs an NVIDIA GPU: %s\n", opened.error().message());
    return 77;
  }
  const Gpu gpu = std::move(*opened);
  keep_pool(gpu);
  auto memory = extmem::cuda::Memory::device(gpu, 4096 * kMiB);
  auto host = extmem::cuda::Memory::host(gpu, 1024 * kMiB);
  must(memory.ok() && host.ok(), "the memory for the heaps");
  auto domain = extmem::Domain::create();
  const Heap device_heap = *domain->create_heap("gpu"), host_heap = *domain->create_heap("pinned");
  must(domain->add_region(device_heap, memory->spec()).ok() &&
           domain->add_region(host_heap, host->spec()).ok(),
       "adding the regions");

  std::printf("%s; ns for an allocation and its free, %zu at once\n", gpu.name().data(), kLive);
  for (const unsigned threads : {1u, 4u}) {
    std::printf("%u thread%s\n%10s %8s %10s %10s %11s %16s | %14s %15s\n", threads, threads == 1 ? "" : "s",
                "size", "extmem", "after", "after, 16", "cuMemAlloc", "cuMemAllocAsync", "extmem, pinned",
                "cuMemHostAlloc");
    for (const std::size_t size : {64 * 1ul, kKiB, 16 * kKiB, 64 * kKiB, 256 * kKiB, 2 * kMiB, 16 * kMiB}) {
      if (threads > 1 && size > 2 * kMiB) continue;
      const double ours = measure(
          gpu, [&] { return Extmem{device_heap}; }, size, threads);
      const double after = measure(
          gpu, [&] { return ExtmemAfter(device_heap, gpu, false); }, size, threads);
      const double together = measure(
          gpu, [&] { return ExtmemAfter(device_heap, gpu, true); }, size, threads);
      const double plain = measure(
          gpu, [&] { return MemAlloc{gpu.driver()}; }, size, threads);
      const double async = measure(
          gpu, [&] { return MemAllocAsync(gpu.driver()); }, size, threads);
      const double pinned = measure(
          gpu, [&] { return Extmem{host_heap}; }, size, threads);
      const double theirs = measure(
          gpu, [&] { return HostAlloc{gpu.driver()}; }, size, threads);
      std::printf("%8zu B %8.1f %10.1f %10.1f %11.0f %16.1f | %14.1f %15.0f\n", size, ours, after, together,
                  plain, async, pinned, theirs);
      std::fflush(stdout);
    }
  }
  return 0;
}
