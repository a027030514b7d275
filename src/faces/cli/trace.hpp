// Trace: what `extmem record` wrote, read and put in order.
//
// What it is: the operations of all threads by time, with addresses turned into numbers of objects: so a trace can be done
// again on any allocator. A damaged or cut trace gives what can be read of it; nothing in it is trusted without a bound.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "faces/record/trace_format.hpp"

namespace extmem::cli {

/// One operation. Only those that succeeded: a failed one changes nothing.
struct TraceOp {
  std::uint64_t size = 0;    // bytes asked for (not of a free)
  std::uint64_t tsc = 0;     // when, from the trace's start
  std::uint32_t object = 0;  // which, counted from 0 in the order of allocation; a realloc keeps it
  std::uint32_t site = 0;    // of the call; 0: not known
  std::uint32_t thread = 0;  // counted from 0
  record::Op op = record::Op::free;
  std::uint8_t align_log2 = 0;
};

struct Trace {
  record::TraceHeader header{};
  std::vector<TraceOp> ops;
  std::uint32_t objects = 0;
  std::uint32_t threads = 0;
  std::map<std::uint32_t, std::string> sites;  // "library+0x1234"
  std::uint64_t file_bytes = 0;
  std::uint64_t failed = 0;         // allocations that gave null
  std::uint64_t unknown_frees = 0;  // of what was allocated before the recording, or by other means
  std::uint64_t lost_frees = 0;     // objects whose address was given out again
  bool complete = false;            // the process ended in good order
  double seconds = 0;               // 0: not known
  std::size_t peak_op = 0;          // after which the most bytes were live
  std::uint64_t peak_bytes = 0;     // as asked for
  std::uint64_t peak_objects = 0;   // then

  /// Bytes asked for that are live after each operation are walked through by the caller; this tells how each changes them.
  [[nodiscard]] double seconds_at(std::uint64_t tsc) const;
};

/// Throws Impossible where the file cannot be read or is no trace.
Trace read_trace(const std::string& path);

}  // namespace extmem::cli
