// A heap on a GPU's memory: threads allocate and free there as anywhere else, the GPU fills and copies, and the heap never
// touches a byte of it, which the CPU could not even read.
//
//   gpu_heap [MiB] [THREADS] [OPERATIONS]
#include <extmem/cuda.hpp>
#include <extmem/extmem.hpp>

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

using extmem::cuda::Gpu;

namespace {

template <typename T>
T need(extmem::Result<T> result, const char* what) {
  if (!result) {
    std::fprintf(stderr, "gpu_heap: %s: %s\n", what, result.error().message());
    std::exit(1);
  }
  return std::move(result).value();
}
void need(const extmem::Result<void>& result, const char* what) {
  if (result) return;
  std::fprintf(stderr, "gpu_heap: %s: %s\n", what, result.error().message());
  std::exit(1);
}

/// An object on the GPU and what is in it: bytes, or words, that the GPU sets, or noise that is copied there.
struct Object {
  char* p = nullptr;
  std::size_t size = 0;
  unsigned kind = 0;
  unsigned seed = 0;
};

void expected(const Object& object, std::vector<unsigned char>& bytes) {
  bytes.resize(object.size);
  if (object.kind == 0) {
    std::memset(bytes.data(), static_cast<int>(object.seed & 0xff), object.size);
  } else if (object.kind == 1) {
    for (std::size_t i = 0; i < object.size; ++i)
      bytes[i] = static_cast<unsigned char>(object.seed >> 8 * (i % 4));
  } else {
    std::minstd_rand noise(object.seed);
    for (auto& byte : bytes) byte = static_cast<unsigned char>(noise() >> 16);
  }
}

void fill(const Gpu& gpu, const Object& object, std::vector<unsigned char>& buffer) {
  const extmem::cuda::DevicePtr at = extmem::cuda::device_ptr(object.p);
  expected(object, buffer);
  const std::size_t words = object.size / 4;
  if (object.kind == 0) {
    need(gpu.fill(object.p, static_cast<unsigned char>(object.seed), object.size), "set bytes");
  } else if (object.kind == 1 && words != 0) {
    need(gpu.run([&](const auto& cuda) { return cuda.set_words(at, object.seed, words, nullptr); }),
         "set words");
    if (object.size % 4 != 0)
      need(gpu.copy_in(object.p + words * 4, buffer.data() + words * 4, object.size % 4), "copy the rest");
  } else {
    need(gpu.copy_in(object.p, buffer.data(), object.size), "copy in");
  }
}

/// Allocates and frees objects of odd sizes. `touch`: each is filled, and every byte of it compared before it is freed.
std::uint64_t churn(const Gpu& gpu, extmem::Heap heap, unsigned seed, int operations, bool touch) {
  std::minstd_rand random(seed);
  std::vector<Object> live;
  std::vector<unsigned char> wanted, found;
  std::uint64_t wrong = 0;
  const auto release = [&](const Object& object) {
    if (touch) {
      expected(object, wanted);
      found.assign(object.size, 0);
      need(gpu.copy_out(found.data(), object.p, object.size), "copy out");
      wrong += wanted == found ? 0u : 1u;
    }
    need(heap.deallocate(object.p), "free");
  };
  for (int i = 0; i < operations; ++i) {
    if (live.size() < 200 && (live.empty() || random() % 2 == 0)) {
      Object object;
      object.size = 1 + random() % (random() % 16 == 0 ? 300'000u : 5'000u);
      object.kind = static_cast<unsigned>(random() % 3);
      object.seed = static_cast<unsigned>(random());
      object.p = static_cast<char*>(need(heap.allocate(object.size), "allocate"));
      if (touch) fill(gpu, object, wanted);
      live.push_back(object);
    } else {
      std::swap(live[random() % live.size()], live.back());
      release(live.back());
      live.pop_back();
    }
  }
  for (const Object& object : live) release(object);
  return wrong;
}

std::uint64_t churn_in_threads(const Gpu& gpu, extmem::Heap heap, unsigned threads, int operations,
                               bool touch) {
  std::atomic<std::uint64_t> wrong{0};
  std::vector<std::thread> all;
  const auto begun = std::chrono::steady_clock::now();
  for (unsigned t = 0; t < threads; ++t)
    all.emplace_back([&, t] { wrong += churn(gpu, heap, t + 1, operations, touch); });
  for (std::thread& thread : all) thread.join();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  std::printf("%u threads, %d operations each, %s: %.3f s, %llu objects wrong\n", threads, operations,
              touch ? "objects filled on the GPU and compared" : "objects not touched", seconds,
              static_cast<unsigned long long>(wrong.load()));
  return wrong;
}

/// How many bytes of [p, p + length) are not `byte`.
std::uint64_t others(const Gpu& gpu, const char* p, std::size_t length, unsigned char byte) {
  std::vector<unsigned char> piece(std::size_t{16} << 20);
  std::uint64_t count = 0;
  for (std::size_t at = 0; at < length; at += piece.size()) {
    const std::size_t n = std::min(piece.size(), length - at);
    need(gpu.copy_out(piece.data(), p + at, n), "copy out");
    for (std::size_t i = 0; i < n; ++i) count += piece[i] == byte ? 0u : 1u;
  }
  return count;
}

/// Whether the CPU could read a byte, asked of the kernel: it answers EFAULT instead of ending the program.
bool cpu_can_read(const void* p) {
  int pipe[2];
  if (::pipe(pipe) != 0) return true;
  const bool read = ::write(pipe[1], p, 1) == 1;
  ::close(pipe[0]);
  ::close(pipe[1]);
  return read;
}

}  // namespace

int main(int argc, char** argv) {
  const std::size_t mib = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 1024;
  const auto threads = static_cast<unsigned>(argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 8);
  const int operations = argc > 3 ? std::atoi(argv[3]) : 4000;
  auto opened = Gpu::open();
  if (!opened) {
    std::printf("needs an NVIDIA GPU: %s\n", opened.error().message());
    return 77;
  }
  const Gpu gpu = std::move(*opened);
  auto memory = need(extmem::cuda::Memory::device(gpu, mib << 20), "allocate the GPU's memory");
  auto domain = need(extmem::Domain::create(), "make a domain");
  auto heap = need(domain.create_heap("gpu"), "make a heap");
  const auto region = need(domain.add_region(heap, memory.spec()), "add the GPU's memory");
  const bool readable = cpu_can_read(memory.base());
  std::printf("%zu MiB of %s, at %p, where the CPU can%s read\n", memory.length() >> 20, gpu.name().data(),
              memory.base(), readable ? "" : "not");

  // Nothing is written into it: the GPU fills all of it, threads allocate and free, and every byte is still the same.
  const auto* const all = static_cast<const char*>(memory.base());
  need(gpu.fill(memory.base(), 0xa5, memory.length()), "fill");
  std::uint64_t wrong = churn_in_threads(gpu, heap, threads, operations * 10, false);
  wrong += others(gpu, all, memory.length(), 0xa5);
  std::printf("bytes that changed by that: %llu\n", static_cast<unsigned long long>(wrong));
  wrong += churn_in_threads(gpu, heap, threads, operations, true);

  // A memzone; what needs the CPU is refused, and what the GPU can do instead.
  const auto zone =
      need(domain.reserve_memzone(heap, "weights", (std::size_t{8} << 20) + 1), "reserve a memzone");
  const auto zeroed_by_cpu = heap.zalloc(1000);
  std::printf("memzone %s at %p, its address for the GPU %#lx; zalloc by the CPU: %s\n", zone.name, zone.addr,
              static_cast<unsigned long>(zone.iova),
              zeroed_by_cpu ? "done?" : zeroed_by_cpu.error().message());
  if (zeroed_by_cpu || zone.iova != extmem::Iova{extmem::cuda::device_ptr(zone.addr)}) return 1;
  auto* p = static_cast<char*>(need(extmem::cuda::zalloc(gpu, heap, 1001), "allocate zeroed"));
  wrong += others(gpu, p, 1001, 0);
  need(gpu.fill(p, 7, 1001), "fill");
  p = static_cast<char*>(need(extmem::cuda::reallocate(gpu, heap, p, 77'777), "grow"));
  wrong += others(gpu, p, 1001, 7);
  need(extmem::cuda::deallocate_after(gpu, nullptr, heap, p), "free after the stream");
  need(gpu.run([](const auto& cuda) { return cuda.stream_synchronize(nullptr); }), "wait for the stream");

  const auto stats = need(heap.stats(), "statistics");
  const std::size_t breaches = need(domain.verify(), "verify");
  std::printf(
      "held: %llu bytes in %llu objects; metadata, all in the host's memory: %.1f MiB; breaches: %zu\n",
      static_cast<unsigned long long>(stats.used_bytes), static_cast<unsigned long long>(stats.used_count),
      static_cast<double>(stats.metadata_bytes) / 1048576, breaches);
  need(domain.free_memzone("weights"), "free the memzone");
  need(domain.drain_region(region, std::chrono::seconds(1)), "drain");
  need(domain.remove_region(region), "remove the region");
  const std::size_t length = memory.length();
  need(memory.free(), "free the GPU's memory");

  // A heap that takes the GPU's memory by pieces, when it needs them.
  auto grows = need(domain.create_heap("grows"), "make a heap");
  extmem::cuda::Growth growth(domain, gpu, grows, {.step = length / 8, .limit = length});
  std::vector<void*> objects;
  for (auto got = growth.allocate(length / 30); got; got = growth.allocate(length / 30))
    objects.push_back(*got);
  const std::uint64_t most = growth.bytes();
  need(grows.deallocate_batch(objects), "free");
  need(growth.trim(), "give back");
  std::printf("grown for %zu objects to %llu MiB, the limit; all freed: %llu MiB\n", objects.size(),
              static_cast<unsigned long long>(most >> 20),
              static_cast<unsigned long long>(growth.bytes() >> 20));
  if (most != length || growth.bytes() != 0) return 1;
  return !readable && wrong == 0 && breaches == 0 && stats.used_count == 1 ? 0 : 1;
}
