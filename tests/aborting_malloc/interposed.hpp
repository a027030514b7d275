// malloc and its family, replaced by versions that end the program while they are forbidden.
#pragma once

namespace extmem::test {

/// From now on every thread that calls malloc, calloc, realloc, an aligned allocation or operator new aborts.
void forbid_malloc();
void allow_malloc();

/// In this thread and scope malloc may be called all the same: for what the test itself needs (creating threads).
class MallocAllowed {
 public:
  MallocAllowed();
  ~MallocAllowed();
  MallocAllowed(const MallocAllowed&) = delete;
  MallocAllowed& operator=(const MallocAllowed&) = delete;
};

}  // namespace extmem::test
