// CUDA memory in heaps: a GPU's memory, pinned host memory, and regions that a GPU copies from and to.
//
// What it is: Gpu opens a device; Memory is memory of CUDA's that a heap can be given (cuda_memory.hpp); Attachment pins a
// domain's other regions for the GPU as they come, growth included (cuda_attachment.hpp); Growth has a heap take more of a GPU's
// memory when it needs it (cuda_growth.hpp). Here is what the CPU cannot do with a GPU's memory: zero it, move it, free it when
// a stream has passed. Header-only; docs/gpu.md shows it in use.
// Thread-safety: any thread may call any function; Memory and Attachment: one thread at a time makes, moves or ends one.
// Invariants:
//  1. A heap never touches a GPU's memory: allocating and freeing there makes no call of CUDA's and no access.
//  2. What is pinned here is unpinned before its region goes; what others have pinned is left to them.
//  3. The Gpu outlives its Memory and Attachments, and stays where it is; Memory outlives the regions that are made of it.
// Addresses: with unified addressing, which CUDA has on every 64-bit Linux, a DevicePtr and the pointer that a heap gives out
// are one number, and so is the IOVA, as the GPU itself sees it.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <new>
#include <span>

#include "extmem/cuda_attachment.hpp"
#include "extmem/cuda_driver.hpp"
#include "extmem/cuda_growth.hpp"
#include "extmem/cuda_memory.hpp"
#include "extmem/heap.hpp"
#include "extmem/types.hpp"

namespace extmem::cuda {

namespace detail {
inline constexpr ErrorInfo kNoMemory{ENOMEM, "no memory for the note of what a stream is to free later"};
inline constexpr ErrorInfo kZeroed{ENOTSUP, "reallocate does not zero: fill what is new with Gpu::fill"};
}  // namespace detail

/// As Heap::zalloc, zeroed by the GPU. Errors: those of Heap::allocate and of CUDA.
inline Result<void*> zalloc(const Gpu& gpu, Heap heap, std::size_t size,
                            const AllocOptions& options = {}) noexcept {
  auto p = heap.allocate(size, options);
  if (!p) return p;
  if (auto zeroed = gpu.fill(*p, 0, size); !zeroed) {
    (void)heap.deallocate(*p);
    return zeroed.error();
  }
  return p;
}

/// As Heap::reallocate, in place where possible, else copied by the GPU. On error p stays as it was.
inline Result<void*> reallocate(const Gpu& gpu, Heap heap, void* p, std::size_t new_size,
                                const AllocOptions& options = {}) noexcept {
  if (options.zero) return Error(&detail::kZeroed);
  auto stayed = heap.reallocate(p, new_size, options);
  if (stayed || stayed.error().code() != ENOTSUP) return stayed;
  const auto old = heap.owner_of(p);
  if (!old) return old.error();
  AllocOptions moving = options;
  if (moving.tag.index == 0) moving.tag = old->tag;
  auto moved = heap.allocate(new_size, moving);
  if (!moved) return moved;
  if (auto copied = gpu.copy(*moved, p, std::min<std::size_t>(old->size, new_size)); !copied) {
    (void)heap.deallocate(*moved);
    return copied.error();
  }
  if (auto freed = heap.deallocate(p); !freed) {
    (void)heap.deallocate(*moved);
    return freed.error();
  }
  return moved;
}

/// Frees objects when all that is in the stream by now has run: so nobody gets memory that the GPU still uses. Until then
/// they are held. The stream takes some microseconds for it, however many they are. Should one be freed in the meantime, that
/// one is refused then, unheard. No region goes on that way that CUDA would have to unpin: growth gives it back later.
/// Errors: those of Heap::usable_size for the first bad one, and ENOMEM, and then nothing is to be freed; what CUDA answers.
inline Result<void> deallocate_after(const Gpu& gpu, Stream stream, Heap heap,
                                     std::span<void* const> pointers) noexcept {
  struct Later {
    Heap heap;
    std::size_t count;
    static void* const* pointers(const Later* later) noexcept {
      return reinterpret_cast<void* const*>(later + 1);
    }
    static void run(void* argument) noexcept {
      auto* const later = static_cast<Later*>(argument);
      (void)later->heap.deallocate_batch({pointers(later), later->count});
      std::free(later);
    }
  };
  if (pointers.empty()) return {};
  for (const void* const p : pointers)
    if (auto held = heap.usable_size(p); !held) return held.error();
  void* const memory = std::malloc(sizeof(Later) + pointers.size_bytes());
  if (memory == nullptr) return Error(&detail::kNoMemory);
  auto* const later = new (memory) Later{heap, pointers.size()};
  std::copy(pointers.begin(), pointers.end(), reinterpret_cast<void**>(later + 1));
  auto launched = gpu.run([&](const Driver& d) { return d.launch_host(stream, &Later::run, later); });
  if (!launched) std::free(memory);
  return launched;
}
/// An array: else it would be taken for the address of an object.
template <std::size_t N>
Result<void> deallocate_after(const Gpu& gpu, Stream stream, Heap heap, void* const (&pointers)[N]) noexcept {
  return deallocate_after(gpu, stream, heap, std::span<void* const>(pointers));
}
inline Result<void> deallocate_after(const Gpu& gpu, Stream stream, Heap heap, void* p) noexcept {
  return deallocate_after(gpu, stream, heap, std::span<void* const>(&p, 1));
}

}  // namespace extmem::cuda
