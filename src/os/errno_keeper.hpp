// ErrnoKeeper: errno is on leaving a scope what it was on entering it.
//
// What it is: for functions that a program may reach through malloc or free, which must not disturb errno.
// Thread-safety: errno belongs to the thread.
#pragma once

#include <cerrno>

namespace extmem::os {

/// Restores errno when it goes out of scope.
class ErrnoKeeper {
 public:
  ErrnoKeeper() noexcept : kept_(errno) {}
  ~ErrnoKeeper() { errno = kept_; }
  ErrnoKeeper(const ErrnoKeeper&) = delete;
  ErrnoKeeper& operator=(const ErrnoKeeper&) = delete;

 private:
  int kept_;
};

}  // namespace extmem::os
