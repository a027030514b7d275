#include "faces/cli/advise.hpp"

#include <fmt/core.h>
#include <sys/mman.h>

#include <algorithm>
#include <map>

#include "extmem/domain.hpp"
#include "faces/cli/doctor.hpp"
#include "faces/cli/format.hpp"
#include "faces/cli/impossible.hpp"
#include "faces/cli/replay.hpp"

namespace extmem::cli {

using record::Op;

namespace {

constexpr std::uint64_t kSmall = std::uint64_t{2} << 20;
constexpr std::uint64_t kLarge = std::uint64_t{1} << 30;

/// Addresses without memory behind them: a heap over them can be allocated from, as nothing is written there.
class Imaginary {
 public:
  explicit Imaginary(std::uint64_t bytes) : bytes_(bytes + kLarge) {
    void* p = ::mmap(nullptr, bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw Impossible("no address space to try heaps in");
    mapped_ = p;
  }
  ~Imaginary() { ::munmap(mapped_, bytes_); }
  Imaginary(const Imaginary&) = delete;
  Imaginary& operator=(const Imaginary&) = delete;
  [[nodiscard]] void* base() const {
    return reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(mapped_) + kLarge - 1) / kLarge *
                                   kLarge);
  }

 private:
  void* mapped_ = nullptr;
  std::uint64_t bytes_;
};

struct Trial {
  bool served = false;
  std::uint64_t used_at_peak = 0;
  std::uint64_t pages_4k = 0;
  std::uint64_t pages_2m = 0;
};

/// Does the trace again, by one thread, in a heap of `bytes`.
Trial attempt(const Trace& trace, std::uint64_t bytes) {
  const Imaginary memory(bytes);
  auto domain = Domain::create();
  if (!domain) throw Impossible(domain.error().message());
  auto heap = domain->create_heap("trial");
  if (!heap) throw Impossible(heap.error().message());
  auto region = domain->add_region(
      *heap, {.base = memory.base(), .length = bytes, .os_page_size = 4096, .cpu_accessible = false});
  if (!region) throw Impossible(region.error().message());
  std::vector<std::pair<void*, std::uint64_t>> live(trace.objects);
  Trial trial;
  for (std::size_t i = 0; i < trace.ops.size(); ++i) {
    const TraceOp& op = trace.ops[i];
    auto& [p, size] = live[op.object];
    if (op.op == Op::free) {
      (void)heap->deallocate(p);
      p = nullptr;
    } else {
      AllocOptions options;
      if (op.op == Op::memalign) options.align = std::size_t{1} << std::min<unsigned>(op.align_log2, 30);
      const std::uint64_t wanted = std::max<std::uint64_t>(1, op.size);
      // In place if it can be, as reallocate does; else a new one beside the old one, which then goes.
      auto now = p != nullptr ? heap->reallocate(p, wanted) : heap->allocate(wanted, options);
      if (!now && p != nullptr && now.error().code() == ENOTSUP) {  // would have to move what has no bytes
        now = heap->allocate(wanted, options);
        if (now) (void)heap->deallocate(p);
      }
      if (!now) return trial;
      p = *now;
      size = wanted;
    }
    if (i == trace.peak_op) {
      if (auto stats = heap->stats()) trial.used_at_peak = stats->used_bytes;
      std::vector<std::pair<std::uintptr_t, std::uint64_t>> there;
      for (const auto& [q, bytes_there] : live) {
        if (q != nullptr) there.emplace_back(reinterpret_cast<std::uintptr_t>(q), bytes_there);
      }
      trial.pages_4k = count_pages(there, 4096);
      trial.pages_2m = count_pages(there, kSmall);
    }
  }
  trial.served = true;
  return trial;
}

std::uint64_t round_up(std::uint64_t value, std::uint64_t to) { return (value + to - 1) / to * to; }

std::vector<SiteUse> sites_at_peak(const Trace& trace, std::size_t top) {
  std::map<std::uint32_t, SiteUse> uses;
  std::vector<std::pair<std::uint64_t, std::uint32_t>> live(trace.objects);  // size, site
  for (std::size_t i = 0; i < trace.ops.size(); ++i) {
    const TraceOp& op = trace.ops[i];
    if (op.op != Op::free) ++uses[op.site].allocations;
    if (i <= trace.peak_op) live[op.object] = {op.op == Op::free ? 0 : op.size, op.site};
  }
  for (const auto& [size, site] : live) uses[site].bytes_at_peak += size;
  std::vector<SiteUse> list;
  for (auto& [site, use] : uses) {
    const auto name = trace.sites.find(site);
    use.name = name != trace.sites.end() ? name->second : "not known";
    list.push_back(use);
  }
  std::sort(list.begin(), list.end(), [](const SiteUse& a, const SiteUse& b) {
    return a.bytes_at_peak != b.bytes_at_peak ? a.bytes_at_peak > b.bytes_at_peak
                                              : a.allocations > b.allocations;
  });
  if (list.size() > top) list.resize(top);
  return list;
}

}  // namespace

Advice advise(const Trace& trace, std::size_t top) {
  if (trace.ops.empty()) throw Impossible("the trace has no operations: nothing can be said of it");
  Advice advice;
  // From below: what is live must fit. From above: doubled until it does.
  std::uint64_t low = round_up(std::max<std::uint64_t>(trace.peak_bytes, 65536), 65536);
  std::uint64_t high = std::max(low, kSmall);
  Trial best;
  for (;;) {
    ++advice.tries;
    best = attempt(trace, high);
    if (best.served) break;
    if (high > (std::uint64_t{1} << 44)) throw Impossible("no heap of up to 16 TiB serves this trace");
    low = high;
    high *= 2;
  }
  while (high - low > std::max<std::uint64_t>(65536, high / 64)) {
    const std::uint64_t middle = round_up(low + (high - low) / 2, 65536);
    ++advice.tries;
    if (const Trial trial = attempt(trace, middle); trial.served) {
      high = middle;
      best = trial;
    } else {
      low = middle;
    }
  }
  advice.smallest_heap = high;
  advice.rounded_peak = best.used_at_peak;
  advice.pages_4k = best.pages_4k;
  advice.pages_2m = best.pages_2m;
  advice.heap = round_up(high + high / 8, kSmall);
  advice.hugepages_2m = advice.heap / kSmall;
  // A page of 1 GiB is worth it where less than an eighth of them would be wasted.
  const std::uint64_t in_large = round_up(advice.heap, kLarge);
  if (in_large - advice.heap <= in_large / 8) advice.hugepages_1g = in_large / kLarge;
  advice.sites = sites_at_peak(trace, top);
  return advice;
}

void show_advice(const Console& console, const Trace& trace, const Advice& a) {
  const auto share = [](std::uint64_t more, std::uint64_t than) {
    return share_text(static_cast<double>(more - std::min(more, than)),
                      static_cast<double>(std::max<std::uint64_t>(1, than)));
  };
  console.heading("What it needs");
  console.item("heap",
               fmt::format("{}: the smallest that serves the trace has {} ({} tried), and an eighth is added",
                           bytes_text(a.heap), bytes_text(a.smallest_heap), plural(a.tries, "size")));
  console.item("of that",
               fmt::format("{} live at the peak; rounding of sizes adds {}, gaps and caches {} more",
                           bytes_text(trace.peak_bytes), share(a.rounded_peak, trace.peak_bytes),
                           share(a.smallest_heap, a.rounded_peak)));
  console.item("pages",
               fmt::format("at the peak {} of 4 KiB, or {} of 2 MiB: {} times fewer entries in the TLB",
                           count_text(a.pages_4k), count_text(a.pages_2m),
                           a.pages_4k / std::max<std::uint64_t>(1, a.pages_2m)));
  console.item("hugepages",
               fmt::format("{} of 2 MiB{}", count_text(a.hugepages_2m),
                           a.hugepages_1g != 0 ? fmt::format(", or {} of 1 GiB", a.hugepages_1g) : ""));
  // Beside those that others have or have reserved.
  const std::string pool = "/sys/kernel/mm/hugepages/hugepages-2048kB/";
  const std::int64_t all = doctor::number_in(pool + "nr_hugepages", 0);
  const std::int64_t unused = std::clamp<std::int64_t>(
      doctor::number_in(pool + "free_hugepages", 0) - doctor::number_in(pool + "resv_hugepages", 0), 0, all);
  if (const auto wanted = static_cast<std::int64_t>(a.hugepages_2m); unused >= wanted) {
    console.item("",
                 fmt::format("{} of 2 MiB are free here", count_text(static_cast<std::uint64_t>(unused))));
  } else {
    console.item("as root", fmt::format("echo {} >{}nr_hugepages", all - unused + wanted, pool));
  }
  console.item("then", fmt::format("extmem run --backing hugetlb:2M --size {}M -- {} ...", a.heap >> 20,
                                   clean(trace.header.program)));
  console.heading("Who has it at the peak");
  Table table({"CALL", ">BYTES", ">SHARE", ">ALLOCATIONS IN ALL"});
  for (const SiteUse& site : a.sites) {
    table.row({clean(site.name), bytes_text(site.bytes_at_peak),
               share_text(static_cast<double>(site.bytes_at_peak),
                          static_cast<double>(std::max<std::uint64_t>(1, trace.peak_bytes))),
               count_text(site.allocations)});
  }
  table.print(console);
}

void add_advice(Json& json, const Advice& a) {
  json.integer("heap_bytes", a.heap)
      .integer("smallest_heap_bytes", a.smallest_heap)
      .integer("rounded_peak_bytes", a.rounded_peak);
  json.integer("pages_4k_at_peak", a.pages_4k).integer("pages_2m_at_peak", a.pages_2m);
  json.integer("hugepages_2m", a.hugepages_2m)
      .integer("hugepages_1g", a.hugepages_1g)
      .integer("tries", a.tries);
  json.array("sites");
  for (const SiteUse& site : a.sites) {
    json.object().text("call", site.name).integer("bytes_at_peak", site.bytes_at_peak);
    json.integer("allocations", site.allocations).end();
  }
  json.end();
}

}  // namespace extmem::cli
