// The heap map of real heaps: what it says is what the statistics say, and drawing disturbs nothing.
#include "extmem/heap_map.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <string>
#include <thread>
#include <vector>

#include "extmem/domain.hpp"
#include "xml_check.hpp"

namespace extmem::test {
namespace {

constexpr std::uint64_t kMiB = 1024 * 1024;

struct World {
  Domain domain;
  Heap heap;
  Heap other;
  std::vector<void*> objects;

  World() {
    domain = std::move(Domain::create()).value();
    heap = domain.create_heap("pack<ets>").value();
    other = domain.create_heap("other").value();
    add(heap, 16 * kMiB);
    add(heap, 4 * kMiB);
    add(other, 8 * kMiB);
    const Tag rx = domain.intern_tag("rx & tx").value();
    const Tag big = domain.intern_tag("big").value();
    for (std::size_t i = 0; i < 4000; ++i) {
      AllocOptions options;
      options.tag = i % 5 == 0 ? Tag{} : i % 17 == 0 ? big : rx;
      const std::size_t size = i % 17 == 0 ? 40'000 : 16 + i % 900;
      auto p = (i % 9 == 0 ? other : heap).allocate(size, options);
      if (p) objects.push_back(*p);
    }
    for (std::size_t i = 0; i < objects.size(); i += 3) EXPECT_TRUE(domain.deallocate(objects[i]).ok());
    EXPECT_TRUE(domain.reserve_memzone(heap, "zone<1>", 512 * 1024).ok());
    EXPECT_TRUE(domain.reserve_memzone(other, "zone-2", kMiB).ok());
  }
  void add(Heap to, std::uint64_t bytes) {
    BackingSpec spec;
    spec.length = bytes;
    spec.iova_source = IovaSource::identity;
    ASSERT_TRUE(domain.add_backing(to, spec).ok());
  }
  std::string draw(const HeapMapOptions& options) const {
    std::string all;
    auto sink = [&](std::string_view chunk) {
      EXPECT_FALSE(chunk.empty());
      all += chunk;
      return true;
    };
    const auto drawn = write_heap_map(domain, sink, options);
    EXPECT_TRUE(drawn.ok()) << drawn.error().message();
    return all;
  }
};

/// What the map says of a kind of memory: the bytes that follow its name in the legend.
std::string figure_of(const std::string& map, const std::string& name) {
  const std::size_t legend = map.find("held by");
  const std::size_t at = map.find(name + " ", legend == std::string::npos ? 0 : legend);
  if (at == std::string::npos) return "";
  const std::size_t from = at + name.size() + 1;
  return map.substr(from, map.find('B', from) + 1 - from);
}

std::string bytes_text(std::uint64_t bytes) {
  const char* const units[] = {"B", "KiB", "MiB"};
  std::size_t unit = 0;
  std::uint64_t scale = 1;
  for (; unit < 2 && bytes / scale >= 1024; ++unit) scale *= 1024;
  const std::uint64_t tenth = bytes % scale * 10 / scale;
  std::string text = std::to_string(bytes / scale);
  if (unit > 0 && (tenth != 0 || (bytes % scale != 0 && bytes / scale < 10)))
    text += "." + std::to_string(tenth);
  return text + " " + units[unit];
}

TEST(HeapMap, TotalsAreThoseOfTheStatistics) {
  World w;
  const HeapStats a = w.heap.stats().value();
  const HeapStats b = w.other.stats().value();
  std::vector<TagStats> tags(64);
  std::uint64_t rx = 0, big = 0;
  for (const Heap& heap : {w.heap, w.other}) {
    const std::size_t count = heap.tag_stats(tags).value();
    for (std::size_t i = 0; i < count; ++i) {
      if (std::string_view(tags[i].name) == "rx & tx") rx += tags[i].live_bytes;
      if (std::string_view(tags[i].name) == "big") big += tags[i].live_bytes;
    }
  }
  for (const HeapMapFormat format : {HeapMapFormat::text, HeapMapFormat::svg}) {
    const std::string map = w.draw({.format = format});
    EXPECT_EQ(figure_of(map, "big"), bytes_text(big));
    EXPECT_EQ(figure_of(map, format == HeapMapFormat::svg ? "rx &amp; tx" : "rx & tx"), bytes_text(rx));
    EXPECT_EQ(figure_of(map, "memzones"), bytes_text(kMiB + 512 * 1024));
    EXPECT_NE(map.find(bytes_text(a.total_bytes + b.total_bytes) + ", "), std::string::npos);
    EXPECT_NE(map.find("3 regions in 2 heaps"), std::string::npos);
    EXPECT_NE(map.find("held " + bytes_text(a.used_bytes)), std::string::npos);
    EXPECT_NE(map.find("held " + bytes_text(b.used_bytes)), std::string::npos);
  }
  const std::string svg = w.draw({.format = HeapMapFormat::svg});
  EXPECT_NE(svg.find(">free in slabs " + bytes_text(a.slab_free_bytes + b.slab_free_bytes) + "<"),
            std::string::npos);
  EXPECT_NE(svg.find(">free " + bytes_text(a.free_bytes + b.free_bytes) + "<"), std::string::npos);
  if (a.cached_bytes + b.cached_bytes > 0) {
    EXPECT_NE(svg.find(">cached by threads " + bytes_text(a.cached_bytes + b.cached_bytes) + "<"),
              std::string::npos);
  }
}

TEST(HeapMap, SvgIsWellFormedAndNamesAreEscaped) {
  const World w;
  const std::string svg = w.draw({.format = HeapMapFormat::svg});
  EXPECT_EQ(xml_error(svg), "");
  EXPECT_LT(svg.size(), kHeapMapMaxBytes);
  EXPECT_NE(svg.find("pack&lt;ets&gt;"), std::string::npos);
  EXPECT_NE(svg.find("zone&lt;1&gt;"), std::string::npos);
  EXPECT_NE(svg.find("zone-2"), std::string::npos);
}

TEST(HeapMap, OneHeapAlone) {
  const World w;
  const std::string map = w.draw({.heap = w.other});
  EXPECT_NE(map.find("1 region in 1 heap,"), std::string::npos);
  EXPECT_NE(map.find("zone-2"), std::string::npos);
  EXPECT_EQ(map.find("zone<1>"), std::string::npos);
}

TEST(HeapMap, ColoursOnlyWhenAsked) {
  const World w;
  EXPECT_EQ(w.draw({}).find('\x1b'), std::string::npos);
  EXPECT_NE(w.draw({.colors = true}).find("\x1b["), std::string::npos);
}

TEST(HeapMap, WithoutObjectsTheTotalsAreTheSame) {
  const World w;
  const std::string map = w.draw({.objects = false});
  EXPECT_NE(map.find("objects in slabs, other tags"), std::string::npos);
  EXPECT_NE(map.find("3 regions in 2 heaps"), std::string::npos);
}

TEST(HeapMap, TheSinkMayAllocateFromTheHeapThatIsDrawn) {
  World w;
  std::size_t allocated = 0;
  auto sink = [&](std::string_view chunk) {
    auto p = w.heap.allocate(chunk.size());
    if (!p) return false;
    ++allocated;
    return w.heap.deallocate(*p).ok();
  };
  EXPECT_TRUE(write_heap_map(w.domain, sink, {.format = HeapMapFormat::svg}).ok());
  EXPECT_GT(allocated, 0u);
  EXPECT_EQ(w.domain.verify().value(), 0u);
}

TEST(HeapMap, RefusesWhatMakesNoSense) {
  World w;
  auto sink = [](std::string_view) { return true; };
  EXPECT_EQ(write_heap_map(Domain{}, sink).error().code(), EINVAL);
  EXPECT_EQ(write_heap_map(w.domain, {}).error().code(), EINVAL);
  auto stop = [](std::string_view) { return false; };
  EXPECT_EQ(write_heap_map(w.domain, stop).error().code(), ECANCELED);
  Heap gone = w.domain.create_heap("gone").value();
  ASSERT_TRUE(w.domain.destroy_heap(gone).ok());
  const int code = write_heap_map(w.domain, sink, {.heap = gone}).error().code();
  EXPECT_TRUE(code == ESTALE || code == ENOENT) << code;
}

TEST(HeapMap, AHugeRegionWithoutAccessIsDrawn) {
  constexpr std::uint64_t kLength = std::uint64_t{1} << 37;
  void* base = mmap(nullptr, kLength, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  ASSERT_NE(base, MAP_FAILED);
  {
    Domain domain = std::move(Domain::create()).value();
    Heap heap = domain.create_heap("far").value();
    RegionSpec spec;
    spec.base = base;
    spec.length = kLength;
    spec.os_page_size = 2 * kMiB;
    spec.iova_source = IovaSource::identity;
    spec.cpu_accessible = false;
    const auto region = domain.add_region(heap, spec);
    ASSERT_TRUE(region.ok()) << region.error().message();
    for (int i = 0; i < 3000; ++i)
      ASSERT_TRUE(heap.allocate(static_cast<std::size_t>(1 + i % 40) << 19).ok());
    std::size_t bytes = 0;
    auto sink = [&](std::string_view chunk) {
      bytes += chunk.size();
      return true;
    };
    EXPECT_TRUE(write_heap_map(domain, sink, {.format = HeapMapFormat::svg}).ok());
    EXPECT_GT(bytes, 1000u);
    EXPECT_LT(bytes, 300'000u);
  }
  munmap(base, kLength);
}

TEST(HeapMap, DrawnUnderLoadItStaysWellFormed) {
  World w;
  std::atomic<bool> stop{false};
  std::thread worker([&] {
    std::vector<void*> mine;
    while (!stop.load()) {
      auto p = w.heap.allocate(64 + mine.size() * 13 % 5000);
      if (p) mine.push_back(*p);
      if (!p || mine.size() > 500) {
        for (void* object : mine) EXPECT_TRUE(w.heap.deallocate(object).ok());
        mine.clear();
      }
    }
    for (void* object : mine) EXPECT_TRUE(w.heap.deallocate(object).ok());
  });
  for (int i = 0; i < 20; ++i) EXPECT_EQ(xml_error(w.draw({.format = HeapMapFormat::svg})), "");
  stop = true;
  worker.join();
  EXPECT_EQ(w.domain.verify().value(), 0u);
}

}  // namespace
}  // namespace extmem::test
