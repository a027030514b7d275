// Every operator new and delete, std::bad_alloc and the new-handler.
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "check.h"

namespace {

struct alignas(256) Wide {
  char bytes[300];
};
int handled = 0;

std::size_t impossible() {
  std::size_t n = std::size_t{1} << 62;
  HIDE(n);
  return n;
}

void forms() {
  for (std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{100}, std::size_t{100000}}) {
    void* p = operator new(size);
    CHECK(p != nullptr);
    operator delete(p, size);
    p = operator new[](size);
    operator delete[](p, size);
    p = operator new(size, std::nothrow);
    CHECK(p != nullptr);
    operator delete(p, std::nothrow);
    p = operator new[](size, std::nothrow);
    operator delete[](p, std::nothrow);
    p = operator new (size, std::align_val_t{128});
    CHECK(reinterpret_cast<std::uintptr_t>(p) % 128 == 0);
    operator delete (p, size, std::align_val_t{128});
    p = operator new[](size, std::align_val_t{4096});
    CHECK(reinterpret_cast<std::uintptr_t>(p) % 4096 == 0);
    operator delete[](p, size, std::align_val_t{4096});
    p = operator new (size, std::align_val_t{64}, std::nothrow);
    operator delete (p, std::align_val_t{64}, std::nothrow);
    p = operator new[](size, std::align_val_t{64}, std::nothrow);
    operator delete[](p, std::align_val_t{64}, std::nothrow);
  }
  auto wide = std::make_unique<Wide[]>(7);
  CHECK(reinterpret_cast<std::uintptr_t>(wide.get()) % 256 == 0);
  // What malloc gave and new gave is of one heap.
  free(operator new(10));
  void* p = malloc(10);
  HIDE(p);
  operator delete(p);
}

void failures() {
  for (int form = 0; form < 4; ++form) {
    bool thrown = false;
    try {
      void* p = form == 0   ? operator new(impossible())
                : form == 1 ? operator new[](impossible())
                : form == 2 ? operator new (impossible(), std::align_val_t{64})
                            :
                            operator new[](impossible(), std::align_val_t{64});
      operator delete(p);
    } catch (const std::bad_alloc&) {
      thrown = true;
    }
    CHECK(thrown);
  }
  CHECK(operator new(impossible(), std::nothrow) == nullptr);
  CHECK(operator new[](impossible(), std::nothrow) == nullptr);
  CHECK(operator new (impossible(), std::align_val_t{64}, std::nothrow) == nullptr);
  std::set_new_handler([] {
    if (++handled == 3) std::set_new_handler(nullptr);
  });
  bool thrown = false;
  try {
    operator delete(operator new(impossible()));
  } catch (const std::bad_alloc&) {
    thrown = true;
  }
  CHECK(thrown && handled == 3);
}

}  // namespace

int main() {
  forms();
  failures();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([] {
      std::vector<std::string> strings;
      for (int i = 0; i < 20000; ++i) strings.push_back(std::string(static_cast<std::size_t>(i % 100), 'x'));
      for (std::size_t i = 0; i < strings.size(); ++i) CHECK(strings[i].size() == i % 100);
    });
  }
  for (auto& thread : threads) thread.join();
  std::puts("operators: passed");
}
