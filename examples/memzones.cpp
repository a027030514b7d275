// Memzones: named reservations with constraints, found again by name from anywhere in the program.
#include <extmem/extmem.hpp>

#include <cstdio>
#include <string>

namespace {

int fail(const char* what, extmem::Error error) {
  std::fprintf(stderr, "%s: %s\n", what, error.message());
  return 1;
}

// Another part of the program, which knows the name only.
int use_queue(const extmem::Domain& domain) {
  const auto queue = domain.find_memzone("nic0 rx queue");
  if (!queue) return fail("find", queue.error());
  std::printf("found \"%s\": %lu bytes at %p\n", queue->name, static_cast<unsigned long>(queue->length),
              queue->addr);
  return 0;
}

}  // namespace

int main() {
  auto domain = extmem::Domain::create();
  if (!domain) return fail("domain", domain.error());
  auto heap = domain->create_heap("zones");
  if (!heap) return fail("heap", heap.error());
  extmem::BackingSpec backing;
  backing.length = 16 << 20;
  backing.iova_source = extmem::IovaSource::identity;
  if (const auto region = domain->add_backing(*heap, backing); !region)
    return fail("backing", region.error());

  extmem::AllocOptions options;
  options.align = 4096;
  options.nocross = 1 << 20;
  options.iova_contiguous = true;
  const auto queue = domain->reserve_memzone(*heap, "nic0 rx queue", 256 << 10, options);
  if (!queue) return fail("reserve", queue.error());
  if (const int failed = use_queue(*domain); failed != 0) return failed;

  // A name is unique in the domain.
  const auto taken = domain->reserve_memzone(*heap, "nic0 rx queue", 64);
  if (taken || taken.error().code() != EEXIST) return 1;

  {  // Length 0: the biggest piece that is left. Freed at the end of the scope.
    const auto rest = extmem::ScopedMemzone::reserve(*domain, *heap, "everything else", 0);
    if (!rest) return fail("rest", rest.error());
    std::printf("the biggest free piece: %lu KiB\n", static_cast<unsigned long>((*rest)->length >> 10));
  }

  // Thousands of them are fine: a look-up costs the same.
  for (int i = 0; i < 1000; ++i) {
    if (const auto zone = domain->reserve_memzone(*heap, "session " + std::to_string(i), 1024); !zone) {
      return fail("session", zone.error());
    }
  }
  if (!domain->find_memzone("session 777")) return 1;
  std::size_t bytes = 0;
  const auto add_up = [&](const extmem::MemzoneInfo& zone) { return bytes += zone.length, true; };
  if (!domain->walk_memzones(add_up)) return 1;
  std::printf("%zu memzones, %zu KiB\n", domain->memzone_count(), bytes >> 10);
  for (int i = 0; i < 1000; ++i) {
    if (!domain->free_memzone("session " + std::to_string(i))) return 1;
  }
  return domain->free_memzone("nic0 rx queue") && domain->memzone_count() == 0 ? 0 : 1;
}
