// main() of a worker: options, what each workload needs, and which code runs it.
//
// What it is: the same function for every allocator. A workload for which the allocator lacks the feature
// is skipped with the reason.
#pragma once

#include "workloads_malloc.hpp"
#include "workloads_region.hpp"
#include "workloads_trace.hpp"

namespace bench {

/// Memory for `threads` threads that each hold `live` objects of up to `max` bytes: the mean size plus
/// room for headers, rounding and fragmentation.
inline std::size_t churn_bytes(const Options& o) {
  const std::size_t mean = o.size / 2 + 192;
  return (o.count * mean * o.threads / 2 * 3 + 64 * kMiB) / (2 * kMiB) * (2 * kMiB);
}

inline Need need_of(const Options& o) {
  Need need{.bytes = 256 * kMiB};
  if (o.workload == "churn") need.bytes = churn_bytes(o);
  if (o.workload == "fragmented") need.bytes = kFragmentedFill;
  if (o.workload == "contiguous") need = {.bytes = kFragmentedFill, .iova = IovaShape::runs};
  if (o.workload == "region_add_remove" || o.workload == "empty_region") need.bytes = 2 * kMiB;
  if (o.workload == "iova_lookup") need = {.bytes = kGiB, .iova = IovaShape::scattered, .regions = o.count};
  if (o.workload == "memzone") need.bytes = o.count * 2 * kZoneBytes / (2 * kMiB) * (2 * kMiB) + 64 * kMiB;
#ifdef BENCH_TRACES
  if (o.workload == "trace") {
    need.bytes = std::max(need.bytes, read_trace(o.trace).peak_bytes * 4 / (2 * kMiB) * (2 * kMiB));
  }
#endif
  if (o.workload == "memory") {
    need = {.bytes = (o.count * (o.size + 192) / (2 * kMiB) + 32) * (2 * kMiB), .populate = false};
  }
  return need;
}

template <Allocator A>
void run_workload(const Options& o, const std::vector<int>& cpus) {
  const auto bodies = [&]<class Body>(auto&&... args) {
    serve_bodies<A, Body>(o, cpus, [&](unsigned) { return std::make_unique<Body>(args...); });
  };
  const std::size_t companions = Pair<A>::companions_for(o.size);
  if (o.workload == "pair") return bodies.template operator()<Pair<A>>(o.size, companions);
  if (o.workload == "lone_pair") return bodies.template operator()<Pair<A>>(o.size, std::size_t{0});
  if (o.workload == "zeroed_pair") return bodies.template operator()<Pair<A, true>>(o.size, companions);
  if (o.workload == "batch") return bodies.template operator()<Batch<A>>(o.size);
  if (o.workload == "growth") return bodies.template operator()<Growth<A>>(o.size);
  if (o.workload == "fragmented") return bodies.template operator()<FragmentedPair<A>>(o.size);
  if (o.workload == "churn") {
    return serve_bodies<A, Churn<A>>(
        o, cpus, [&](unsigned i) { return std::make_unique<Churn<A>>(o.size, o.count, i); });
  }
  if (o.workload == "producer_consumer") return serve_producer_consumer<A>(o, cpus);
  if (o.workload == "memory") return serve_memory<A>(o, cpus);
  if (o.workload == "contiguous") {
    if constexpr (HasContiguous<A>) return bodies.template operator()<FragmentedPair<A, true>>(o.size);
    skip("knows no IOVAs");
  }
  if (o.workload == "region_add_remove") {
    if constexpr (HasRegions<A>) return serve_region_add_remove<A>(o, cpus);
    skip("cannot add and remove regions");
  }
  if (o.workload == "empty_region") {
    if constexpr (HasRegions<A> && HasMetadata<A>) return serve_empty_region<A>(o, cpus);
    skip("does not tell its metadata's size");
  }
  if (o.workload == "iova_lookup") {
    if constexpr (HasIova<A>) return serve_iova_lookup<A>(o, cpus, A::managed_base(), kGiB);
    skip("knows no IOVAs");
  }
  if (o.workload == "memzone") {
    if constexpr (HasZones<A>) return serve_memzones<A>(o, cpus);
    skip("has no named reservations");
  }
  if (o.workload == "trace") {
#ifdef BENCH_TRACES
    if constexpr (!NeedsOldSize<A>) return serve_trace<A>(o, cpus);
    skip("a reallocation needs the old size");
#else
    skip("built without {fmt}, which the reader of traces needs");
#endif
  }
  fail("unknown workload");
}

template <Allocator A>
int worker_main(int argc, char** argv) {
  Options o;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string key = argv[i];
    const char* value = argv[i + 1];
    const auto number = std::strtoull(value, nullptr, 10);
    if (key == "--workload") {
      o.workload = value;
    } else if (key == "--trace") {
      o.trace = value;
    } else if (key == "--size") {
      o.size = number;
    } else if (key == "--count") {
      o.count = number;
    } else if (key == "--threads") {
      o.threads = static_cast<unsigned>(number);
    } else if (key == "--ms") {
      o.sample_ns = number * 1'000'000;
    } else if (key == "--warm-ms") {
      o.warm_ns = number * 1'000'000;
    } else {
      fail("unknown option");
    }
  }
  if (o.workload.empty() || o.threads == 0 || o.sample_ns == 0) {
    fail(
        "usage: --workload NAME [--trace FILE] [--size N] [--count N] [--threads N] [--ms N] [--warm-ms N]; "
        "then a line on "
        "stdin per sample");
  }
#ifdef BENCH_TRACES
  if (o.workload == "describe_trace") {
    describe_trace(o.trace);
    return 0;
  }
#endif
  const std::vector<int> cpus = allowed_cpus();
  if (cpus.empty()) fail("sched_getaffinity");
  if (const char* reason = A::open(need_of(o)); reason != nullptr) fail(reason);
  std::printf("version %s\n", A::version().c_str());
  run_workload<A>(o, cpus);
  return 0;
}

}  // namespace bench
