// Replay: a trace done again, with its threads, on some allocator.
//
// Each recorded thread's operations are done in their order by one thread (several share one where there are more than
// `workers`), as fast as they go. An operation on an object waits for those that came before it on the same object: so what
// one thread frees another has allocated. Contents are written and checked.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "extmem/domain.hpp"
#include "faces/cli/trace.hpp"

namespace extmem::cli {

/// What the allocator has at a moment; zeroes where it does not tell.
struct ReplayStats {
  std::uint64_t total_bytes = 0;
  std::uint64_t used_bytes = 0;
  std::uint64_t free_bytes = 0;
  std::uint64_t largest_free = 0;
};

/// An allocator to replay on.
class ReplayTarget {
 public:
  virtual ~ReplayTarget() = default;
  /// From now on all that it gives is the trace's.
  virtual void begin() {}
  virtual void* allocate(std::size_t size, std::size_t align, bool zero) = 0;
  virtual void* reallocate(void* p, std::size_t size) = 0;
  virtual void free(void* p) = 0;
  virtual ReplayStats stats() = 0;
  /// Breaches of the allocator's own invariants; 0 where it has no check.
  virtual std::size_t verify() { return 0; }
};

/// A region of a heap as the command line names it: KIND=SIZE, KIND as for `extmem run --backing`.
struct RegionChoice {
  std::string text;
  BackingSpec spec;
  std::string path;
};

struct HeapLayout {
  std::vector<RegionChoice> regions;  // none: anonymous memory that grows
  Style style = Style::binned;
  Placement placement = Placement::any;
};

/// A heap of a domain of its own. Throws Impossible where the memory cannot be had.
std::unique_ptr<ReplayTarget> heap_target(const HeapLayout& layout);
/// The malloc of this process.
std::unique_ptr<ReplayTarget> process_target();

/// What is written and checked; touch: one byte is written, as a program would at the least, and nothing is checked.
enum class Contents : std::uint8_t { none, touch, ends, full };

struct ReplayOptions {
  unsigned workers = 64;
  Contents contents = Contents::full;
  std::size_t samples = 200;
  /// Above 0: the threads do the trace so often one after the other, and only whole passes are timed: no single operations, no
  /// samples, no pages. What a pass leaves is freed before the next.
  unsigned passes = 0;
};

/// Times of one kind of operation, in ticks of the time stamp counter.
struct OpTimes {
  std::uint64_t count = 0;
  std::uint64_t ticks = 0;
  std::array<std::uint64_t, 64 * 8> histogram{};  // eight to a power of two

  void add(std::uint64_t t);
  void add(const OpTimes& other);
  /// The time that `share` of the operations did not exceed, to an eighth of it.
  [[nodiscard]] double quantile(double share) const;
};

struct ReplaySample {
  std::uint64_t op = 0;          // operations done
  std::uint64_t live_bytes = 0;  // as the trace asked for
  ReplayStats stats;
};

/// OS pages of a size that live objects lay in when most was live.
struct PageCount {
  std::uint64_t page_size = 0;
  std::uint64_t pages = 0;
};

struct ReplayResult {
  std::array<OpTimes, 5> times;  // by record::Op
  std::uint64_t failures = 0;    // allocations that the allocator could not give
  std::uint64_t corruptions = 0;
  std::uint64_t breaches = 0;
  unsigned workers = 0;
  double seconds = 0;
  double ns_per_tick = 0;
  std::vector<ReplaySample> samples;
  std::vector<PageCount> pages;
  std::vector<double> pass_seconds;  // each from its first operation to its last

  [[nodiscard]] OpTimes all() const;
  /// Requires: there was a pass.
  [[nodiscard]] double median_pass() const;
};

ReplayResult replay(const Trace& trace, ReplayTarget& target, const ReplayOptions& options);

/// How many pages of that size hold bytes of the objects (address, bytes), which may be in any order and share pages.
std::uint64_t count_pages(std::vector<std::pair<std::uintptr_t, std::uint64_t>>& objects, std::uint64_t page);

/// Bytes asked for that are live after each of `points` evenly spaced numbers of operations.
std::vector<std::uint64_t> live_bytes_at(const Trace& trace, const std::vector<std::uint64_t>& points);

}  // namespace extmem::cli
