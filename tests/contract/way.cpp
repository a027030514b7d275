#include "contract/way.hpp"

#include <array>
#include <bit>
#include <stdexcept>

#include "extmem/extmem.h"
#include "extmem/memory_resource.hpp"

namespace extmem::test {
namespace {

class CppWay final : public Way {
 public:
  explicit CppWay(Heap heap) : heap_(heap) {}
  void* allocate(std::size_t size, std::size_t align) override {
    return (align <= 16 ? heap_.allocate(size) : heap_.allocate(size, align)).value_or(nullptr);
  }
  void deallocate(void* p, std::size_t, std::size_t) override { (void)heap_.deallocate(p); }

 private:
  Heap heap_;
};

class CWay final : public Way {
 public:
  explicit CWay(Heap heap) : heap_(std::bit_cast<extmem_heap_t>(heap)) {}
  void* allocate(std::size_t size, std::size_t align) override {
    if (align <= 16) return extmem_malloc(heap_, size);
    extmem_alloc_options_t options = EXTMEM_ALLOC_OPTIONS_INIT;
    options.align = align;
    void* p = nullptr;
    return extmem_heap_allocate(heap_, size, &options, &p) == 0 ? p : nullptr;
  }
  void deallocate(void* p, std::size_t, std::size_t) override { (void)extmem_free(heap_, p); }

 private:
  extmem_heap_t heap_;
};

class PmrWay final : public Way {
 public:
  explicit PmrWay(Heap heap) : resource_(heap) {}
  void* allocate(std::size_t size, std::size_t align) override {
    try {
      return static_cast<std::pmr::memory_resource&>(resource_).allocate(size, align);
    } catch (const std::bad_alloc&) {
      return nullptr;
    }
  }
  void deallocate(void* p, std::size_t size, std::size_t align) override {
    static_cast<std::pmr::memory_resource&>(resource_).deallocate(p, size, align);
  }

 private:
  HeapResource resource_;
};

/// The alignment is part of an STL allocator's type, so there is one for each.
class StlWay final : public Way {
 public:
  explicit StlWay(Heap heap) : heap_(heap) {}
  void* allocate(std::size_t size, std::size_t align) override {
    void* p = nullptr;
    with_align<16>(size, align, [&](auto allocator, std::size_t n) {
      try {
        p = allocator.allocate(n);
      } catch (const std::bad_alloc&) {
        p = nullptr;
      }
    });
    return p;
  }
  void deallocate(void* p, std::size_t size, std::size_t align) override {
    with_align<16>(size, align, [&](auto allocator, std::size_t n) {
      allocator.deallocate(static_cast<typename decltype(allocator)::value_type*>(p), n);
    });
  }

 private:
  template <std::size_t kAlign, typename Call>
  void with_align(std::size_t size, std::size_t align, Call call) {
    struct alignas(kAlign) Piece {
      std::array<char, kAlign> bytes;
    };
    if (align <= kAlign) {
      call(StlAllocator<Piece>(heap_), size / kAlign + (size % kAlign != 0 ? 1 : 0));
    } else if constexpr (kAlign < (std::size_t{1} << 21)) {
      with_align<kAlign * 2>(size, align, call);
    } else {
      throw std::logic_error("the contract tests use no larger alignment");
    }
  }
  Heap heap_;
};

}  // namespace

std::string name_of(WayKind kind) {
  switch (kind) {
    case WayKind::cpp:
      return "Cpp";
    case WayKind::c:
      return "C";
    case WayKind::pmr:
      return "Pmr";
    case WayKind::stl:
      return "Stl";
  }
  return "?";
}

std::unique_ptr<Way> make_way(WayKind kind, Heap heap) {
  switch (kind) {
    case WayKind::cpp:
      return std::make_unique<CppWay>(heap);
    case WayKind::c:
      return std::make_unique<CWay>(heap);
    case WayKind::pmr:
      return std::make_unique<PmrWay>(heap);
    case WayKind::stl:
      return std::make_unique<StlWay>(heap);
  }
  return nullptr;
}

}  // namespace extmem::test
