// Heaps by socket id and by name.
//
// What it is: the table from socket id to heap that every allocation goes through, and what a heap of the domain is to the
// DPDK face: its role, kept in the heap's user data, where every process finds it.
// Thread-safety: any thread, any time between memory_init() and memory_cleanup(). The look-ups by socket id of a heap that
// this process has met take no lock.
#pragma once

#include <rte_memory.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "extmem/domain.hpp"
#include "faces/dpdk/eal.hpp"

namespace extmem::dpdk {

enum class HeapKind : std::uint32_t {
  none,        ///< not of this face
  internal,    ///< "socket_N": memory that extmem maps
  external,    ///< rte_malloc_heap_create()
  registered,  ///< rte_extmem_register(): one heap for each registration, from which nobody allocates
  state,       ///< what the processes share about all this
};

/// What a heap of the domain is to this face.
struct HeapRole {
  HeapKind kind = HeapKind::none;
  int socket = SOCKET_ID_ANY;

  static constexpr HeapRole of(std::uint64_t user_data) noexcept {
    const auto kind = static_cast<std::uint32_t>(user_data >> 32);
    if (kind == 0 || kind > static_cast<std::uint32_t>(HeapKind::state)) return {};
    return {static_cast<HeapKind>(kind), static_cast<int>(static_cast<std::uint32_t>(user_data))};
  }
  [[nodiscard]] constexpr std::uint64_t user_data() const noexcept {
    return std::uint64_t{static_cast<std::uint32_t>(kind)} << 32 | static_cast<std::uint32_t>(socket);
  }
  /// Whether programs can name it: by its socket id, or by its name.
  [[nodiscard]] constexpr bool is_heap() const noexcept {
    return kind == HeapKind::internal || kind == HeapKind::external;
  }
};

inline constexpr std::size_t kMaxHeapName = 31;
inline constexpr int kFirstExternalSocket = std::max(256, RTE_MAX_NUMA_NODES);

/// The internal heaps, in the order of the detected sockets.
struct InternalHeaps {
  std::array<Heap, kMaxSockets> by_socket{};  ///< empty where there is no such socket
  std::array<int, kMaxSockets> sockets{};
  std::size_t count = 0;
};
/// Written by memory_init() and memory_cleanup() only.
extern constinit InternalHeaps internal_heaps;

/// The heaps of the first external socket ids, as far as this process has met them: what nearly every program's allocations
/// look for. Release/acquire: who sees the pointer sees the handle.
inline constexpr unsigned kFirstHeaps = 1024;
extern constinit std::atomic<Heap*> first_external_heaps[kFirstHeaps];

/// The heap with that external socket id, or null: then heap_of_socket() may know more. The handle may be stale.
inline Heap* known_external_heap(int socket) noexcept {
  const unsigned index = static_cast<unsigned>(socket) - static_cast<unsigned>(kFirstExternalSocket);
  return index < kFirstHeaps ? first_external_heaps[index].load(std::memory_order_acquire) : nullptr;
}

/// The heap with that socket id, internal or external; an empty handle where there is none. The handle may be stale.
Heap heap_of_socket(int socket) noexcept;
/// The internal or external heap of that name; an empty handle where there is none.
Heap heap_of_name(const char* name) noexcept;
/// What a living heap is; none for a handle that is empty or stale.
HeapRole role_of(Heap heap) noexcept;
HeapRole role_of(std::uint32_t heap_id) noexcept;
/// Whether it is a name that a heap may have: 1 to 31 bytes.
bool is_name(const char* heap_name) noexcept;

/// The name under which an external heap of the program is kept in the domain: its own, unless that is one of the heaps
/// that every domain has ("node0").
std::string domain_name(std::string_view heap_name);
/// The name that a program gave the heap.
std::string program_name(std::string_view domain_name);

/// Remembers a heap that this process has just made, so that it is found inside callbacks too.
void remember_heap(std::string_view name, int socket, Heap heap) noexcept;
/// Forgets all. Requires: no other thread uses the face.
void forget_heaps() noexcept;

/// A heap in a list: internal ones first, in the order of their sockets, then external ones as they were made.
struct ListedHeap {
  Heap heap{};
  HeapRole role{};
  std::string name;
};
/// Inside a callback only the internal ones: the others cannot be listed there.
std::vector<ListedHeap> list_heaps() noexcept;

}  // namespace extmem::dpdk
