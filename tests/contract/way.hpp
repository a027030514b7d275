// Way: a way in to a heap's memory: the C++ class, the C functions, a std::pmr resource, an STL allocator.
#pragma once

#include <memory>
#include <string>

#include "contract/face.hpp"

namespace extmem::test {

class Way {
 public:
  virtual ~Way() = default;
  /// nullptr: refused.
  virtual void* allocate(std::size_t size, std::size_t align) = 0;
  /// What the caller knows of the object is passed along, as the standard's ways demand it.
  virtual void deallocate(void* p, std::size_t size, std::size_t align) = 0;
  void* allocate(std::size_t size) { return allocate(size, 16); }
  void deallocate(void* p, std::size_t size) { deallocate(p, size, 16); }
};

enum class WayKind { cpp, c, pmr, stl };
std::string name_of(WayKind kind);
/// The face that a way is looked at through: C's own, or C++.
inline FaceKind face_of(WayKind kind) { return kind == WayKind::c ? FaceKind::c : FaceKind::cpp; }
std::unique_ptr<Way> make_way(WayKind kind, Heap heap);

}  // namespace extmem::test
