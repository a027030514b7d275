// A heap of extmem on a GPU's memory beside PyTorch's caching allocator (c10), in one program by turns. Needs an NVIDIA GPU, PyTorch
// with CUDA and the toolkit's headers, so no build makes it:
//
//   torch=$(python3 -c 'import torch, os; print(os.path.dirname(torch.__file__))')
//   g++ -std=c++20 -O2 -Iinclude -I$torch/include -I/usr/local/cuda/include bench/micro/gpu_torch.cpp libextmem.a
//       -L$torch/lib -Wl,-rpath,$torch/lib -Wl,--allow-shlib-undefined -lc10_cuda -lc10 -o gpu_torch && ./gpu_torch
//
// Nanoseconds for an allocation and its free, as gpu.cpp counts them. c10's allocator rounds to 512 bytes and frees for a stream:
// the same stream may have the memory again at once.
#include <c10/cuda/CUDACachingAllocator.h>

#include <cstdio>

#include "gpu_loops.hpp"

namespace {

using namespace gpu_bench;
namespace caching = c10::cuda::CUDACachingAllocator;

struct Torch {
  bool get(void*& p, std::size_t size) {
    p = caching::raw_alloc(size);
    return p != nullptr;
  }
  void free(const Live& live) {
    for (void* const p : live) caching::raw_delete(p);
  }
  void settle() {}
};

}  // namespace

int main() {
  auto gpu = Gpu::open();
  if (!gpu) {
    std::printf("needs an NVIDIA GPU: %s\n", gpu.error().message());
    return 77;
  }
  caching::init(1);
  auto memory = extmem::cuda::Memory::device(*gpu, 4096 * kMiB);
  must(memory.ok(), "the memory for the heap");
  auto domain = extmem::Domain::create();
  const Heap heap = *domain->create_heap("gpu");
  must(domain->add_region(heap, memory->spec()).ok(), "adding the region");
  std::printf("%s; ns for an allocation and its free, %zu at once\n", gpu->name().data(), kLive);
  for (const unsigned threads : {1u, 4u}) {
    std::printf("%u thread%s\n%10s %8s %8s\n", threads, threads == 1 ? "" : "s", "size", "extmem", "PyTorch");
    for (const std::size_t size : {64 * 1ul, kKiB, 16 * kKiB, 64 * kKiB, 256 * kKiB, 2 * kMiB, 16 * kMiB}) {
      const double ours = measure(
          *gpu, [&] { return Extmem{heap}; }, size, threads);
      const double theirs = measure(
          *gpu, [] { return Torch{}; }, size, threads);
      std::printf("%8zu B %8.1f %8.1f\n", size, ours, theirs);
    }
  }
  return 0;
}
