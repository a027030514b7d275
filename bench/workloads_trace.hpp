// A recorded trace, done again: `extmem replay`'s own reader and replay, on the allocator under test.
//
// What it is: a sample is as many passes over the trace as fill its time, each by the trace's threads on what the pass before
// left (its end frees what the program never freed). A pass is timed as a whole, contents are not checked; one byte of each
// object is written. The sample is the pass in the middle, divided by the trace's operations.
// Thread-safety: as the replay's; the main thread waits meanwhile.
#pragma once

#include "harness.hpp"

#ifdef BENCH_TRACES

#include "faces/cli/impossible.hpp"
#include "faces/cli/replay.hpp"

namespace bench {

/// The allocator under test as what a trace is replayed on.
template <class A>
class TraceTarget final : public extmem::cli::ReplayTarget {
 public:
  void* allocate(std::size_t size, std::size_t align, bool zero) override {
    if (align > 16) return A::allocate_aligned(size, align);
    return zero ? A::zallocate(size) : A::allocate(size);
  }
  void* reallocate(void* p, std::size_t size) override {
    return A::reallocate(p, size, size);  // the old size is not known here, and not asked for
  }
  void free(void* p) override { A::deallocate(p); }
  extmem::cli::ReplayStats stats() override { return {}; }
};

inline extmem::cli::Trace read_trace(const std::string& path) {
  try {
    return extmem::cli::read_trace(path);
  } catch (const extmem::cli::Impossible& error) {
    fail(error.what());
  }
}

/// For the driver, which makes a case of it.
inline void describe_trace(const std::string& path) {
  const auto trace = read_trace(path);
  if (trace.ops.empty()) fail("the trace has no operation");
  std::printf("threads %u operations %zu peak %llu\n", trace.threads, trace.ops.size(),
              static_cast<unsigned long long>(trace.peak_bytes));
}

template <class A>
void serve_trace(const Options& o, const std::vector<int>& cpus) {
  const auto trace = read_trace(o.trace);
  if (trace.ops.empty()) fail("the trace has no operation");
  if (trace.threads == 1) pin_to(cpus[0]);  // the replay's thread inherits it; several find their own CPUs
  TraceTarget<A> target;
  const auto passes = [&](std::uint64_t count) {
    extmem::cli::ReplayOptions options;
    options.contents = extmem::cli::Contents::touch;
    options.passes = static_cast<unsigned>(std::clamp<std::uint64_t>(count, 1, 1'000'000));
    auto result = extmem::cli::replay(trace, target, options);
    if (result.failures != 0) fail("out of memory");
    return result;
  };
  const auto pass_ns = [](const extmem::cli::ReplayResult& r) {
    return std::max(1.0, 1e9 * r.median_pass());
  };
  const auto wanted = static_cast<double>(o.sample_ns);
  const double first = pass_ns(passes(1));
  const double warm = pass_ns(passes(static_cast<std::uint64_t>(wanted / 2 / first)));
  serve([&] {
    const auto result = passes(static_cast<std::uint64_t>(wanted / warm));
    const double middle = pass_ns(result);
    double all = 0;
    for (const double seconds : result.pass_seconds) all += 1e9 * seconds;
    const auto count = static_cast<double>(result.pass_seconds.size());
    // What passes took beyond the middle one was taken away by others.
    return Sample{{{"time", middle / static_cast<double>(trace.ops.size())}},
                  std::min(1.0, middle * count / all)};
  });
}

}  // namespace bench

#endif
