// Standard containers in the memory of a heap: through std::pmr, through an allocator, through unique_ptr.
#include <extmem/extmem.hpp>

#include <cstdio>
#include <map>
#include <memory_resource>
#include <string>
#include <vector>

namespace {

struct Session {
  int id;
  char state[120];
};

}  // namespace

int main() {
  auto domain = extmem::Domain::create();
  if (!domain) return 1;
  auto heap = domain->create_heap("containers");
  if (!heap) return 1;
  extmem::BackingSpec backing;
  backing.kind = extmem::BackingKind::memfd;
  backing.length = 8 << 20;
  if (const auto region = domain->add_backing(*heap, backing); !region) {
    return std::fprintf(stderr, "%s\n", region.error().message()), 1;
  }

  {
    // std::pmr: the heap is chosen at run time, types stay the same.
    extmem::AllocOptions options;
    options.tag = *domain->intern_tag("index");
    extmem::HeapResource resource(*heap, options);
    std::pmr::map<int, std::pmr::string> index(&resource);
    for (int i = 0; i < 1000; ++i)
      index.emplace(i, "a name that is long enough to need memory, number " + std::to_string(i));

    // An STL allocator: the heap is part of the container, and moves along with it.
    std::vector<double, extmem::StlAllocator<double>> samples{extmem::StlAllocator<double>(*heap)};
    for (int i = 0; i < 10000; ++i) samples.push_back(i * 0.5);

    // One object, destroyed and freed by its pointer.
    const auto session = extmem::make_unique_in<Session>(*heap, Session{7, "established"});
    if (!session) return 1;

    const auto owner = domain->owner_of(&index.begin()->second);
    if (!owner || std::string(*domain->tag_name(owner->tag)) != "index") return 1;
    const auto stats = heap->stats();
    std::printf("%zu names, %zu samples, session %d: %lu objects, %lu bytes in the heap\n", index.size(),
                samples.size(), (*session)->id, static_cast<unsigned long>(stats->used_count),
                static_cast<unsigned long>(stats->used_bytes));

    // A container that asks for more than there is gets bad_alloc, as the standard wants it.
    try {
      samples.resize(10 << 20);
      return 1;
    } catch (const std::bad_alloc&) {
      std::puts("too much: std::bad_alloc");
    }
    if (resource.refused_frees() != 0) return 1;
  }
  return heap->stats()->used_count == 0 ? 0 : 1;
}
