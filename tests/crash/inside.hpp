// While the child is inside the library: only there it is stepped through.
#pragma once

#include "crash/log.hpp"

namespace extmem::crash {

/// While it lives, the child is inside the library.
class Inside {
 public:
  explicit Inside(Log& log) : log_(log) { log_.inside.store(1, std::memory_order_relaxed); }
  Inside(const Inside&) = delete;
  ~Inside() { log_.inside.store(0, std::memory_order_relaxed); }

 private:
  Log& log_;
};
/// Calls fn inside the library.
template <typename Fn>
auto inside(Log& log, Fn&& fn) {
  const Inside mark(log);
  return fn();
}

}  // namespace extmem::crash
