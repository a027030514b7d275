// The allocators that a trace can be replayed on: a heap, and the malloc of this process.
#include <fmt/core.h>
#include <malloc.h>

#include <algorithm>
#include <cstdlib>

#include "faces/cli/impossible.hpp"
#include "faces/cli/replay.hpp"

namespace extmem::cli {

namespace {

class HeapTarget final : public ReplayTarget {
 public:
  explicit HeapTarget(const HeapLayout& layout) : placement_(layout.placement) {
    auto domain = Domain::create();
    if (!domain) throw Impossible(domain.error().message());
    domain_ = std::move(*domain);
    HeapOptions options;
    options.style = layout.style;
    if (layout.regions.empty()) {
      options.growth.step = std::uint64_t{64} << 20;
      options.growth.limit = std::uint64_t{1} << 46;
    }
    auto heap = domain_.create_heap("replay", options);
    if (!heap) throw Impossible(heap.error().message());
    heap_ = *heap;
    for (const RegionChoice& choice : layout.regions) {
      BackingSpec spec = choice.spec;
      spec.path = choice.path.empty() ? nullptr : choice.path.c_str();
      if (auto region = domain_.add_backing(heap_, spec); !region)
        throw Impossible(fmt::format("--region {}: {}", choice.text, region.error().message()));
    }
  }

  void* allocate(std::size_t size, std::size_t align, bool zero) override {
    if (align <= 16 && placement_ == Placement::any) {
      const auto p = zero ? heap_.zalloc(size) : heap_.allocate(size);
      return p ? *p : nullptr;
    }
    AllocOptions options;
    options.align = align;
    options.zero = zero;
    options.placement = placement_;
    const auto p = heap_.allocate(size, options);
    return p ? *p : nullptr;
  }
  void* reallocate(void* p, std::size_t size) override {
    const auto now = heap_.reallocate(p, size);
    return now ? *now : nullptr;
  }
  void free(void* p) override { (void)heap_.deallocate(p); }
  ReplayStats stats() override {
    const auto s = heap_.stats();
    if (!s) return {};
    return {s->total_bytes, s->used_bytes, s->free_bytes, s->largest_free};
  }
  std::size_t verify() override { return domain_.verify().value_or(1); }

 private:
  Domain domain_;
  Heap heap_;
  Placement placement_;
};

class ProcessTarget final : public ReplayTarget {
 public:
  void* allocate(std::size_t size, std::size_t align, bool zero) override {
    if (align > 16) {
      void* p = nullptr;
      return ::posix_memalign(&p, align, size) == 0 ? p : nullptr;
    }
    return zero ? std::calloc(1, size) : std::malloc(size);
  }
  void* reallocate(void* p, std::size_t size) override { return std::realloc(p, size); }
  void free(void* p) override { std::free(p); }
  /// What this command has already, above all the trace, is none of the trace's.
  void begin() override { own_ = ::mallinfo2(); }
  ReplayStats stats() override {
    const std::size_t own = own_.uordblks + own_.hblkhd;
    if (own == 0) return {};  // the C library's, which nobody uses: the allocator tells nothing of itself
    const struct mallinfo2 info = ::mallinfo2();
    const std::size_t used = info.uordblks + info.hblkhd - std::min(own, info.uordblks + info.hblkhd);
    return {used + info.fordblks, used, info.fordblks, info.keepcost};
  }

 private:
  struct mallinfo2 own_ {};
};

}  // namespace

std::unique_ptr<ReplayTarget> heap_target(const HeapLayout& layout) {
  return std::make_unique<HeapTarget>(layout);
}
std::unique_ptr<ReplayTarget> process_target() { return std::make_unique<ProcessTarget>(); }

}  // namespace extmem::cli
