// Uses extmem from C++ as any program would: lends it memory, allocates, frees.
#include <cstdio>
#include <cstdlib>
#include <extmem/extmem.hpp>

namespace {
constexpr std::size_t kLength = 1 << 20;

int fail(const char* what, extmem::Error error) {
  std::fprintf(stderr, "%s: %s\n", what, error.message());
  return 1;
}
}  // namespace

int main() {
  auto domain = extmem::Domain::create();
  if (!domain) return fail("create", domain.error());
  auto heap = domain->create_heap("consumer");
  if (!heap) return fail("create_heap", heap.error());

  char* memory = static_cast<char*>(std::aligned_alloc(4096, kLength));
  auto region = domain->add_region(*heap, {.base = memory, .length = kLength});
  if (!region) return fail("add_region", region.error());

  auto p = heap->allocate(100);
  if (!p) return fail("allocate", p.error());
  char* text = static_cast<char*>(*p);
  if (text < memory || text >= memory + kLength) return fail("not in the memory that was lent", {});
  text[0] = 'x';
  if (auto done = heap->deallocate(text); !done) return fail("deallocate", done.error());
  if (heap->deallocate(text)) return fail("a double free was accepted", {});

  *domain = extmem::Domain{};
  std::free(memory);
  return 0;
}
