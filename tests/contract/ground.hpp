// Ground: a heap of a certain kind on memory of a certain kind. A new kind costs one entry in ground.cpp.
#pragma once

#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "contract/face.hpp"
#include "contract/memory.hpp"
#include "contract/runtime_directory.hpp"

namespace extmem::test {

struct Ground {
  const char* name;
  HeapOptions heap_options;
  bool cpu_accessible = true;
  std::size_t bytes = 0;       ///< that the heap has, or may grow to
  std::size_t max_object = 0;  ///< a size that surely fits when the heap is empty
  std::function<void(Face&, Heap, std::vector<Memory>&)> add_memory;
  bool named = false;  ///< in a domain that processes share, though only one does here
};
void PrintTo(const Ground& ground, std::ostream* out);

/// Binned and exact heaps; tiny, untouchable, several regions; a heap that grows. Private and named domains.
const std::vector<Ground>& grounds();

/// A domain with one heap on a ground, through a face.
struct Site {
  Site(FaceKind kind, const Ground& on);
  ~Site();

  const Ground& ground;
  std::unique_ptr<RuntimeDirectory> directory;  ///< of a named domain
  std::unique_ptr<Face> face;
  std::vector<Memory> memory;
  Heap heap;
};

}  // namespace extmem::test
