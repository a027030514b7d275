// A program that replaces operator new(size_t) and operator delete(void*) alone, with something in front of each object, and both forms
// of an aligned object: the other forms must end in these, whoever provides them.
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <vector>

namespace {

struct alignas(16) Header {
  unsigned magic;
};
constexpr unsigned kMagic = 0xabcd;
int live = 0;

void* with_header(void* place) {
  if (place == nullptr) return nullptr;
  auto* header = static_cast<Header*>(place);
  header->magic = kMagic;
  ++live;
  return header + 1;
}
Header* header_of(void* p) {
  auto* header = static_cast<Header*>(p) - 1;
  if (header->magic != kMagic) {
    std::puts("own_new: something else is freed here");
    std::_Exit(1);
  }
  --live;
  return header;
}

struct Base {
  Base() = default;
  Base(const Base&) = delete;
  Base& operator=(const Base&) = delete;
  virtual ~Base() = default;
  int values[20]{};
};
struct alignas(256) Wide {
  char bytes[256];
};

}  // namespace

void* operator new(std::size_t size) {
  void* p = with_header(std::malloc(size + sizeof(Header)));
  if (p == nullptr) throw std::bad_alloc();
  return p;
}
void operator delete(void* p) noexcept {
  if (p != nullptr) std::free(header_of(p));
}
void operator delete(void* p, std::size_t) noexcept { operator delete(p); }

void* operator new(std::size_t size, std::align_val_t align) {
  ++live;
  return std::aligned_alloc(static_cast<std::size_t>(align), size);
}
void operator delete(void* p, std::align_val_t) noexcept {
  --live;
  std::free(p);
}
void operator delete(void* p, std::size_t, std::align_val_t align) noexcept { operator delete(p, align); }

int main() {
  {
    std::vector<std::string> strings;
    for (std::size_t i = 0; i < 1000; ++i) strings.push_back(std::string(100 + i, 'x'));
    const std::unique_ptr<Base[]> several(new Base[3]);
    const std::unique_ptr<Base> one(new (std::nothrow) Base);
    const std::unique_ptr<Base[]> others(new (std::nothrow) Base[2]);
    const std::unique_ptr<Wide> wide(new (std::nothrow) Wide);
    const std::unique_ptr<Wide[]> wides(new Wide[2]);
    const std::unique_ptr<Wide[]> more(new (std::nothrow) Wide[2]);
    if (live < 1000) return 1;
    operator delete[](operator new[](100, std::nothrow), std::nothrow);
  }
  std::printf("own_new: %s\n", live == 0 ? "passed" : "failed");
  return live == 0 ? 0 : 1;
}
