// Memory that the CPU cannot touch, as a device's would be: the heap allocates from it all the same, knows the
// DMA address of every byte, and gives scatter lists.
#include <extmem/extmem.hpp>

#include <sys/mman.h>

#include <array>
#include <cstdio>
#include <vector>

namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kPages = 1024;

int fail(const char* what, extmem::Error error) {
  std::fprintf(stderr, "%s: %s\n", what, error.message());
  return 1;
}

}  // namespace

int main() {
  // Stands for a PCI BAR or GPU memory: mapped, but not to be read or written.
  void* bar = ::mmap(nullptr, kPages * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (bar == MAP_FAILED) return 1;
  // Where the IOMMU put each page: runs of 16 pages, with gaps between them.
  std::vector<extmem::Iova> iovas;
  for (std::size_t page = 0; page < kPages; ++page)
    iovas.push_back(extmem::Iova{0x8000'0000 + (page + page / 16) * kPage});

  auto domain = extmem::Domain::create();
  if (!domain) return fail("domain", domain.error());
  auto heap = domain->create_heap("device");
  if (!heap) return fail("heap", heap.error());
  extmem::RegionSpec spec;
  spec.base = bar;
  spec.length = kPages * kPage;
  spec.os_page_size = kPage;
  spec.iovas = iovas;
  spec.cpu_accessible = false;
  const auto region = domain->add_region(*heap, spec);
  if (!region) return fail("region", region.error());
  std::printf("one region, %lu runs of device addresses\n",
              static_cast<unsigned long>(domain->region_info(*region)->iova_runs));

  // A large buffer may lie in several runs: the device gets a scatter list.
  const auto scattered = heap->allocate(100'000);
  if (!scattered) return fail("scattered", scattered.error());
  std::array<extmem::IovaRun, 8> runs;
  const auto count = domain->iova_runs(*scattered, 100'000, runs);
  if (!count || *count > runs.size()) return 1;
  for (std::size_t i = 0; i < *count; ++i) {
    std::printf("  descriptor %zu: %6lu bytes at 0x%lx\n", i, static_cast<unsigned long>(runs[i].length),
                static_cast<unsigned long>(runs[i].iova));
  }

  // A ring must lie in one run, below 4 GiB, and not cross 64 KiB.
  extmem::AllocOptions ring_options;
  ring_options.align = 4096;
  ring_options.nocross = 65536;
  ring_options.iova_contiguous = true;
  ring_options.dma_bits = 32;
  const auto ring = heap->allocate(32768, ring_options);
  if (!ring) return fail("ring", ring.error());
  const auto one_run = domain->iova_contiguous(*ring, 32768);
  if (!one_run || !*one_run) return 1;
  const auto iova = domain->iova_of(*ring);
  std::printf("ring of 32 KiB at 0x%lx, in one run\n", static_cast<unsigned long>(*iova));

  // Back from the device's address to ours.
  const auto address = domain->address_of(*iova);
  if (!address || *address != *ring) return 1;

  // What would need the CPU is refused, not attempted.
  const auto zeroed = heap->zalloc(64);
  if (zeroed) return 1;
  std::printf("zalloc: %s\n", zeroed.error().message());

  if (!heap->deallocate(*scattered) || !heap->deallocate(*ring)) return 1;
  return domain->remove_region(*region) ? 0 : 1;
}
