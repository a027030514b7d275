// Advice: how large a heap, and which pages, a trace's program needs, with the evidence.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "faces/cli/console.hpp"
#include "faces/cli/json.hpp"
#include "faces/cli/trace.hpp"

namespace extmem::cli {

struct SiteUse {
  std::string name;
  std::uint64_t allocations = 0;
  std::uint64_t bytes_at_peak = 0;  // live when most was live in all
};

struct Advice {
  std::uint64_t smallest_heap = 0;  // the smallest length that serves the whole trace, to 1/64
  std::uint64_t heap = 0;           // what to reserve: that and an eighth
  std::uint64_t rounded_peak = 0;   // live at the peak, sizes rounded as the heap does
  std::uint64_t pages_4k = 0;  // of these sizes that live objects lie in at the peak, in the smallest heap
  std::uint64_t pages_2m = 0;
  std::uint64_t hugepages_2m = 0;  // to reserve for `heap`
  std::uint64_t hugepages_1g = 0;  // 0: not worth it
  std::uint64_t tries = 0;         // heaps that were tried
  std::vector<SiteUse> sites;      // most bytes at the peak first
};

Advice advise(const Trace& trace, std::size_t top);
void show_advice(const Console& console, const Trace& trace, const Advice& advice);
/// Members of an object that is open.
void add_advice(Json& json, const Advice& advice);

}  // namespace extmem::cli
