// A C++ program with a malloc of its own: operator new, which is not its own, must take from that what operator delete gives back to it.
#include <malloc.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

namespace {

alignas(64) char memory[1 << 20];
std::size_t used = 0;
int foreign = 0;

bool is_ours(const void* p) { return p >= memory && p < memory + sizeof memory; }

}  // namespace

extern "C" {

void* malloc(std::size_t size) noexcept {
  const std::size_t at = used;
  if (size > sizeof memory - 64 - at) return nullptr;
  used = (at + size + 63) & ~std::size_t{63};
  return memory + at;
}
void* calloc(std::size_t count, std::size_t size) noexcept { return malloc(count * size); }
void* realloc(void* p, std::size_t size) noexcept {
  void* now = malloc(size);
  if (p != nullptr && now != nullptr) std::memmove(now, p, size);  // what lies behind it is there, too
  return now;
}
void* memalign(std::size_t align, std::size_t size) noexcept {
  used = (used + align - 1) & ~(align - 1);
  return malloc(size);
}
void* aligned_alloc(std::size_t align, std::size_t size) noexcept { return memalign(align, size); }
void free(void* p) noexcept {
  if (p != nullptr && !is_ours(p)) ++foreign;
}
}

struct alignas(64) Wide {
  char bytes[64];
};

int main() {
  bool ours = true;
  {
    const std::string text(1000, 'x');
    const auto numbers = std::make_unique<int[]>(100);
    const auto wide = std::make_unique<Wide>();
    ours = is_ours(text.data()) && is_ours(numbers.get()) && is_ours(wide.get());
  }
  std::printf("own_malloc_new: %s\n", ours && foreign == 0 ? "passed" : "failed");
  return 0;
}
