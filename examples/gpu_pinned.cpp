// Host memory pinned for a GPU: a heap that grows while a listener pins each region before it is used and unpins it before it
// goes; hugepages, if there are any; and pinned memory that CUDA allocates, lent to a heap. Copies go both ways and are
// compared; then the same copies from pageable memory, for the difference.
//
//   gpu_pinned [MiB]
#include <extmem/cuda.hpp>
#include <extmem/extmem.hpp>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

using extmem::cuda::Gpu;

namespace {

template <typename T>
T need(extmem::Result<T> result, const char* what) {
  if (!result) {
    std::fprintf(stderr, "gpu_pinned: %s: %s\n", what, result.error().message());
    std::exit(1);
  }
  return std::move(result).value();
}
void need(const extmem::Result<void>& result, const char* what) {
  if (result) return;
  std::fprintf(stderr, "gpu_pinned: %s: %s\n", what, result.error().message());
  std::exit(1);
}

/// Copies from one object of the host to the GPU and back into another one. Returns whether all came back.
bool round_trip(const Gpu& gpu, unsigned char* from, unsigned char* to, void* on_gpu, std::size_t bytes,
                unsigned seed) {
  for (std::size_t i = 0; i < bytes; ++i) from[i] = static_cast<unsigned char>(i * 31 + (i >> 8) + seed);
  std::memset(to, 0, bytes);
  need(gpu.copy_in(on_gpu, from, bytes), "copy in");
  need(gpu.copy_out(to, on_gpu, bytes), "copy out");
  return std::memcmp(from, to, bytes) == 0;
}

/// GB/s, the best of several.
double speed(const Gpu& gpu, void* host, void* on_gpu, std::size_t bytes, bool in) {
  double best = 0;
  for (int round = 0; round < 20; ++round) {
    const auto begun = std::chrono::steady_clock::now();
    need(in ? gpu.copy_in(on_gpu, host, bytes) : gpu.copy_out(host, on_gpu, bytes), "copy");
    const double s = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
    best = std::max(best, static_cast<double>(bytes) / s / 1e9);
  }
  return best;
}
void print_speed(const Gpu& gpu, const char* what, void* host, void* on_gpu, std::size_t bytes) {
  std::printf("  %-34s to the GPU %6.1f GB/s, from it %6.1f GB/s\n", what,
              speed(gpu, host, on_gpu, bytes, true), speed(gpu, host, on_gpu, bytes, false));
}

}  // namespace

int main(int argc, char** argv) {
  const std::size_t limit = (argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 512) << 20;
  auto opened = Gpu::open();
  if (!opened) {
    std::printf("needs an NVIDIA GPU: %s\n", opened.error().message());
    return 77;
  }
  const Gpu gpu = std::move(*opened);
  auto device = need(extmem::cuda::Memory::device(gpu, limit), "allocate the GPU's memory");
  auto cuda_host = need(extmem::cuda::Memory::host(gpu, limit / 4), "allocate pinned memory");
  auto domain = need(extmem::Domain::create(), "make a domain");
  auto on_gpu = need(domain.create_heap("gpu"), "make a heap");
  const auto gpu_region = need(domain.add_region(on_gpu, device.spec()), "add the GPU's memory");

  // The heap that grows. What is added before the attachment is pinned by it, what comes later when it comes.
  extmem::HeapOptions options;
  options.growth.backing.kind = extmem::BackingKind::memfd;
  options.growth.step = limit / 8;
  options.growth.limit = limit;
  auto pinned = need(domain.create_heap("pinned", options), "make a heap");
  extmem::BackingSpec huge;
  huge.kind = extmem::BackingKind::hugetlb;
  huge.length = std::size_t{4} << 20;
  const auto hugepages = domain.add_backing(pinned, huge);
  std::printf("%s; hugepages: %s\n", gpu.name().data(), hugepages ? "4 MiB" : hugepages.error().message());
  extmem::cuda::Attachment attachment;
  need(attachment.attach(domain, gpu), "attach");
  const std::uint64_t at_first = attachment.pinned_bytes();

  const std::size_t piece = limit / 16 + 13;
  bool whole = true;
  std::vector<unsigned char*> objects;
  for (unsigned i = 0; i < 8; ++i)
    objects.push_back(static_cast<unsigned char*>(need(pinned.allocate(piece - i), "allocate")));
  const auto grown = need(pinned.stats(), "statistics");
  std::printf("grown to %llu regions, %llu MiB; pinned: %llu regions, %llu MiB\n",
              static_cast<unsigned long long>(grown.regions),
              static_cast<unsigned long long>(grown.total_bytes >> 20),
              static_cast<unsigned long long>(attachment.pinned_regions()),
              static_cast<unsigned long long>(attachment.pinned_bytes() >> 20));
  whole = whole && attachment.pinned_bytes() == grown.total_bytes;
  void* const there = need(on_gpu.allocate(piece), "allocate on the GPU");
  for (unsigned i = 0; i < 8; i += 2)
    whole = round_trip(gpu, objects[i], objects[i + 1], there, piece - i - 1, i) && whole;

  // Pinned memory of CUDA's own, as a region: nobody pins it a second time.
  auto lent = need(domain.create_heap("cuMemHostAlloc"), "make a heap");
  const auto lent_region = need(domain.add_region(lent, cuda_host.spec()), "add CUDA's pinned memory");
  whole = whole && attachment.pinned_bytes() == grown.total_bytes;
  auto* const first = static_cast<unsigned char*>(need(lent.allocate(piece), "allocate"));
  auto* const second = static_cast<unsigned char*>(need(lent.allocate(piece), "allocate"));
  whole = round_trip(gpu, first, second, there, piece, 99) && whole;
  std::printf("copies there and back: %s\n", whole ? "all the same" : "DIFFERENT");

  std::vector<unsigned char> pageable(piece, 1);
  print_speed(gpu, "pageable memory (operator new)", pageable.data(), there, piece);
  print_speed(gpu, "extmem heap, regions pinned", objects[0], there, piece);
  print_speed(gpu, "extmem heap on cuMemHostAlloc", first, there, piece);

  for (unsigned char* p : objects) need(pinned.deallocate(p), "free");
  need(pinned.flush(), "flush");
  const auto kept = need(pinned.stats(), "statistics");
  std::printf("all freed: pinned %llu MiB of %llu MiB\n",
              static_cast<unsigned long long>(attachment.pinned_bytes() >> 20),
              static_cast<unsigned long long>(kept.total_bytes >> 20));
  whole = whole && attachment.pinned_bytes() == kept.total_bytes && kept.total_bytes < grown.total_bytes &&
          at_first <= kept.total_bytes;
  need(lent.deallocate(first), "free");
  need(lent.deallocate(second), "free");
  need(on_gpu.deallocate(there), "free");
  attachment.detach();
  need(domain.remove_region(lent_region), "remove");
  need(domain.remove_region(gpu_region), "remove");
  return whole && attachment.pinned_bytes() == 0 ? 0 : 1;
}
