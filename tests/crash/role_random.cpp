// The child of the random runs: everything, in any order, for ever.
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "crash/role.hpp"

namespace extmem::crash {

namespace {
std::uint64_t next(std::uint64_t& x) {
  x ^= x << 13;
  x ^= x >> 7;
  return x ^= x << 17;
}
}  // namespace

Heap Role::heap_of(const Entry& entry) {
  void* p = must(domain_.from_region_ptr(RegionPtr{entry.ptr}), "from_region_ptr");
  return must(domain_.heap_by_id(must(domain_.owner_of(p), "owner_of").heap_id), "heap_by_id");
}

void Role::random_step(std::uint64_t random) {
  std::uint64_t r = random;
  const auto below = [&](std::uint64_t n) { return next(r) % n; };
  const auto any = [&]() -> Entry& { return *mine_[below(mine_.size())]; };
  const std::uint64_t what = below(100);
  if (what < 46 && mine_.size() < 400) {
    const std::uint64_t where = below(20);
    const Heap heap = where < 5 ? exact_ : where == 5 ? kept_ : where == 6 ? kept_exact_ : small_;
    const std::uint64_t scale = std::uint64_t{64} << below(heap == small_ ? 10 : 5);
    AllocOptions options;
    if (below(6) == 0) options.tag = tag_;
    if (allocate(heap, static_cast<std::uint32_t>(scale + below(scale)), options) == nullptr) {
      for (int i = 0; i < 50 && !mine_.empty(); ++i) {
        Entry& entry = any();
        free(heap_of(entry), entry);
      }
    }
  } else if (what < 86 || mine_.size() >= 400) {
    if (mine_.empty()) return;
    Entry& entry = any();
    free(heap_of(entry), entry);
  } else if (what < 90) {
    if (mine_.empty()) return;
    Entry& entry = any();
    if (entry.kept) return;  // an object of another heap would lose its mark
    reallocate(heap_of(entry), entry, static_cast<std::uint32_t>(64 + below(20'000)));
  } else if (what < 93) {
    if (!mine_.empty()) hand_over(any());
  } else if (what < 96) {
    for (std::uint32_t i = 0; i < 32; ++i) {  // the harness lends these
      if (log_.entry[i].of.load() == Of::lent) {
        free(small_, log_.entry[i]);
        break;
      }
    }
  } else if (what < 98) {
    const std::uint32_t zone = static_cast<std::uint32_t>(log_.zones_from + below(3));
    if (log_.zone[zone % kZones].is.load() == ZoneIs::reserved) {
      unreserve(zone % kZones);
    } else {
      reserve(small_, zone % kZones, static_cast<std::uint32_t>(64 + below(9000)));
    }
  } else if (what < 99) {
    tag_ = must(domain_.intern_tag(below(2) == 0 ? "even" : "odd"), "intern_tag");
  } else if (below(8) == 0) {
    must(small_.flush(), "flush");
  } else {
    must(domain_.poll(), "poll");
  }
}

void Role::run_at_random() {
  patient_ = true;
  next_entry_ = 32;
  std::uint64_t random = log_.seed | 1;
  for (;;) {
    const auto start = std::chrono::steady_clock::now();
    random_step(next(random));
    const auto ns =
        std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - start)
            .count();
    if (static_cast<std::uint64_t>(ns) > log_.worst_ns) log_.worst_ns = static_cast<std::uint64_t>(ns);
    log_.progress.fetch_add(1, std::memory_order_relaxed);
  }
}

}  // namespace extmem::crash
