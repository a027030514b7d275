// What IovaTable costs: planning and building 262,144 pages, lookups, the reverse index. One line a table shape.
//
//   g++ -std=c++20 -O2 -Iinclude -Isrc bench/micro/iova_table.cpp src/region/iova_*.cpp -o /tmp/iova_table
//   /tmp/iova_table
//
// CPU time of the thread, the best of many rounds, so that a busy machine shifts the figures less. The lookups'
// figures include the loop that reads the offsets (about 1 ns: the line `linear`). "chained": each lookup waits for
// the one before, which is its latency; else several are in flight, as in a program that does other work.
#include <time.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <random>
#include <span>
#include <vector>

#include "region/iova_table.hpp"

namespace {

using extmem::Iova;
using extmem::IovaRun;
using extmem::kBadIova;
namespace region = extmem::region;

constexpr std::size_t kPages = 262144;  // 1 GiB of 4 KiB pages
constexpr unsigned kShift = 12;
volatile std::uint64_t sink;

double cpu_ns() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

template <typename Work>
double best_ns(int rounds, Work work) {
  double best = 1e18;
  for (int i = 0; i < rounds; ++i) {
    const double start = cpu_ns();
    work();
    best = std::min(best, cpu_ns() - start);
  }
  return best;
}

double lookup_ns(const region::IovaTable& table, const std::byte* segment,
                 const std::vector<std::uint64_t>& offsets, int repeat, bool chained) {
  const double all = best_ns(40, [&] {
    std::uint64_t sum = 0;
    for (int i = 0; i < repeat; ++i) {
      for (const std::uint64_t offset : offsets) {
        const std::uint64_t from = chained ? offset + (sum >> 63) : offset;
        const auto iova = static_cast<std::uint64_t>(region::lookup(table, segment, from));
        sum = chained ? iova >> 1 : sum + iova;
      }
    }
    sink = sum;
  });
  return all / static_cast<double>(offsets.size()) / repeat;
}

void measure(const char* name, const std::vector<Iova>& pages) {
  region::IovaPlan plan = *region::plan_iova_table(pages, kShift);
  std::vector<std::uint64_t> memory(plan.data_bytes / 8 + 1);
  auto* segment = reinterpret_cast<std::byte*>(memory.data());
  region::IovaTable table;
  const double plan_time = best_ns(40, [&] { plan = *region::plan_iova_table(pages, kShift); });
  const double build_time = best_ns(40, [&] {
    sink = region::build_iova_table(table, plan, std::span<const Iova>(pages), segment, 0).ok() ? 1 : 0;
  });
  std::vector<std::uint32_t> storage(region::reverse_words(table));
  const double reverse_time =
      best_ns(10, [&] { sink = region::build_reverse(table, segment, storage).ok() ? 1 : 0; });
  const std::span<const std::uint32_t> index = *region::build_reverse(table, segment, storage);

  std::mt19937_64 random(1);
  std::vector<std::uint64_t> offsets(std::size_t{1} << 17);
  for (std::uint64_t& offset : offsets) offset = random() % region::covered_bytes(table);
  const std::vector<std::uint64_t> few(offsets.begin(), offsets.begin() + 256);
  const double find_time = best_ns(20, [&] {
    std::uint64_t sum = 0;
    for (const std::uint64_t offset : few) {
      sum += region::find(table, segment, index, region::lookup(table, segment, offset));
    }
    sink = sum;
  });
  const double walk_time = best_ns(10, [&] {
    std::uint64_t sum = 0;
    region::for_each_run(table, segment, [&](const IovaRun& run) {
      sum += run.length;
      return true;
    });
    sink = sum;
  });
  std::printf("%-14s %4d %7llu %8llu %6.0f %6.0f %7.0f %6.0f  %6.2f %6.2f %7.2f %7.2f  %6.1f\n", name,
              static_cast<int>(table.form), static_cast<unsigned long long>(table.run_count),
              static_cast<unsigned long long>(table.data_bytes), plan_time / 1e3, build_time / 1e3,
              reverse_time / 1e3, walk_time / 1e3, lookup_ns(table, segment, few, 100, false),
              lookup_ns(table, segment, few, 100, true), lookup_ns(table, segment, offsets, 1, false),
              lookup_ns(table, segment, offsets, 1, true), find_time / static_cast<double>(few.size()));
}

}  // namespace

int main() {
  std::mt19937_64 random(7);
  std::vector<Iova> pages(kPages);
  std::printf("%-14s %4s %7s %8s %6s %6s %7s %6s  %6s %6s %7s %7s  %6s\n", "", "form", "runs", "bytes",
              "plan", "build", "reverse", "walk", "hot", "chain", "random", "chain", "find");
  std::printf("%-14s %4s %7s %8s %6s %6s %7s %6s  %6s %6s %7s %7s  %6s\n", "", "", "", "", "us", "us", "us",
              "us", "ns", "ns", "ns", "ns", "ns");
  const auto runs_of = [&](std::size_t mean, std::uint64_t frames) {
    for (std::size_t page = 0; page < kPages;) {
      const std::size_t end = std::min<std::size_t>(kPages, page + 1 + random() % (2 * mean - 1));
      for (std::uint64_t frame = random() % frames; page < end; ++page, ++frame)
        pages[page] = Iova{frame << kShift};
    }
  };
  for (std::size_t page = 0; page < kPages; ++page) pages[page] = Iova{(page + 512) << kShift};
  measure("linear", pages);
  for (std::size_t page = 0; page < kPages; ++page) pages[page] = Iova{(3 * page + 512) << kShift};
  std::shuffle(pages.begin(), pages.end(), random);
  measure("scattered", pages);
  for (std::size_t page = 1; page < kPages; page += 2) pages[page] = kBadIova;
  measure("half bad", pages);
  for (const std::size_t mean : {2u, 4u, 8u, 32u, 512u, 8192u}) {
    char name[32];
    std::snprintf(name, sizeof name, "runs of %zu", mean);
    runs_of(mean, std::uint64_t{1} << 24);
    measure(name, pages);
  }
  runs_of(1, std::uint64_t{1} << 40);
  measure("wide flat", pages);
  runs_of(32, std::uint64_t{1} << 40);
  measure("wide runs", pages);
  return 0;
}
