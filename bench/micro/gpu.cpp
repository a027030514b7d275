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

#include <cstdio>

#include "gpu_loops.hpp"

namespace {

using namespace gpu_bench;
using extmem::cuda::device_ptr;
using extmem::cuda::DevicePtr;
using extmem::cuda::Driver;
using extmem::cuda::Stream;

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
