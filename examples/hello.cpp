// A heap over memory that this program owns.
#include <extmem/extmem.hpp>

#include <cstdio>
#include <cstring>

alignas(4096) static std::byte memory[1 << 20];

int main() {
  auto domain = extmem::Domain::create();
  if (!domain) return std::fprintf(stderr, "%s\n", domain.error().message()), 1;
  auto heap = domain->create_heap("mine");
  auto region = domain->add_region(*heap, {.base = memory, .length = sizeof(memory)});
  if (!region) return std::fprintf(stderr, "%s\n", region.error().message()), 1;

  auto text = heap->allocate(100);
  std::strcpy(static_cast<char*>(*text), "hello from my own memory");
  std::printf("%s, at offset %td\n", static_cast<char*>(*text), static_cast<std::byte*>(*text) - memory);
  return heap->deallocate(*text) ? 0 : 1;
}
