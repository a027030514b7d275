// A heap that takes hugepages by itself when it needs more memory, says what it got instead where the machine has
// none, and gives empty regions back.
#include <extmem/extmem.hpp>

#include <cstdio>
#include <vector>

namespace {

const char* name_of(extmem::BackingKind kind) {
  switch (kind) {
    case extmem::BackingKind::hugetlb:
      return "reserved hugepages";
    case extmem::BackingKind::anonymous:
      return "anonymous memory";
    default:
      return "another backing";
  }
}

void print(const extmem::Domain& domain) {
  const auto line = [](const extmem::RegionInfo& region) {
    std::printf("  region %u: %3lu MiB of %s, OS page %lu KiB%s\n", region.id.slot,
                static_cast<unsigned long>(region.length >> 20), name_of(region.kind),
                static_cast<unsigned long>(region.os_page_size >> 10), region.grown ? ", by growth" : "");
    return true;
  };
  (void)domain.walk_regions(line);
}

}  // namespace

int main() {
  auto domain = extmem::Domain::create();
  if (!domain) return 1;

  extmem::HeapOptions options;
  options.growth.backing.kind = extmem::BackingKind::hugetlb;
  options.growth.backing.fallback = extmem::Fallback::thp;  // never silent: RegionInfo::kind tells
  options.growth.step = 32 << 20;
  options.growth.limit = 256 << 20;
  auto heap = domain->create_heap("growing", options);
  if (!heap) return std::fprintf(stderr, "%s\n", heap.error().message()), 1;

  std::vector<void*> buffers;
  for (int i = 0; i < 100; ++i) {
    const auto p = heap->allocate(1 << 20);
    if (!p) return std::fprintf(stderr, "%s\n", p.error().message()), 1;
    buffers.push_back(*p);
  }
  const auto grown = heap->stats();
  std::printf("100 buffers of 1 MiB: the heap has grown to %lu MiB\n",
              static_cast<unsigned long>(grown->total_bytes >> 20));
  print(*domain);

  // The limit holds.
  std::size_t more = 0;
  while (const auto p = heap->allocate(1 << 20)) {
    buffers.push_back(*p);
    ++more;
  }
  const auto full = heap->stats();
  std::printf("%zu more until the limit, at %lu MiB\n", more,
              static_cast<unsigned long>(full->total_bytes >> 20));
  if (full->total_bytes > options.growth.limit) return 1;

  for (void* p : buffers) {
    if (!heap->deallocate(p)) return 1;
  }
  if (!heap->flush()) return 1;
  const auto empty = heap->stats();
  std::printf("all freed: %lu MiB kept\n", static_cast<unsigned long>(empty->total_bytes >> 20));
  return empty->total_bytes < full->total_bytes && empty->used_count == 0 ? 0 : 1;
}
