// Heaps by socket id and by name. Socket ids are never used again, so what was once found stays true, or goes stale.
#include "faces/dpdk/memory_heaps.hpp"

#include <atomic>
#include <cstring>
#include <mutex>
#include <unordered_map>

#include "faces/dpdk/memory_domain.hpp"

namespace extmem::dpdk {

constinit InternalHeaps internal_heaps{};
constinit std::atomic<Heap*> first_external_heaps[kFirstHeaps]{};

namespace {

constexpr int kChunk = kFirstHeaps;
constexpr int kChunks = 4096;

/// Heaps by socket id, as in first_external_heaps, in chunks that are made when the first id of each comes up.
struct Chunk {
  std::atomic<Heap*> heaps[kChunk];
};
constinit std::atomic<Chunk*> chunks[kChunks]{};

std::mutex making;  // chunks and their handles are made by one thread at a time

std::atomic<Heap*>* place_of(int socket, bool make) {
  const int index = socket - kFirstExternalSocket;
  if (index < 0 || index >= kChunk * kChunks) return nullptr;
  if (index < kChunk) return &first_external_heaps[index];
  std::atomic<Chunk*>& link = chunks[index / kChunk];
  Chunk* chunk = link.load(std::memory_order_acquire);
  if (chunk == nullptr) {
    if (!make) return nullptr;
    chunk = new Chunk{};
    link.store(chunk, std::memory_order_release);
  }
  return &chunk->heaps[index % kChunk];
}

void remember_socket(int socket, Heap heap) {
  const std::lock_guard guard(making);
  std::atomic<Heap*>* const place = place_of(socket, true);
  if (place != nullptr && place->load(std::memory_order_relaxed) == nullptr)
    place->store(new Heap(heap), std::memory_order_release);
}

/// Heaps by name, as far as this process has met them. An entry may be stale.
struct Names {
  std::mutex lock;
  std::unordered_map<std::string, Heap> heaps;
};
Names& names() {
  static Names* const all = new Names;  // never destroyed: a program may call at its very end
  return *all;
}
constexpr std::size_t kMostNames = 4096;  // then the table begins anew: it may hold heaps that are long gone

constexpr std::string_view kEscape = " (an external heap of the DPDK interface)";

bool is_node_heap(std::string_view name) noexcept {
  return name.starts_with("node") && name.size() > 4 &&
         name.find_first_not_of("0123456789", 4) == std::string_view::npos;
}

Heap find_socket(int socket) noexcept {
  Heap found;
  (void)domain().walk_heaps([&](const HeapInfo& info) {
    const HeapRole role = HeapRole::of(info.user_data);
    if (role.kind != HeapKind::external || role.socket != socket) return true;
    if (auto heap = domain().heap_by_id(info.id)) found = *heap;
    return false;
  });
  if (found && role_of(found).socket == socket) {
    remember_socket(socket, found);
    return found;
  }
  return {};
}

}  // namespace

bool is_name(const char* heap_name) noexcept {
  if (heap_name == nullptr) return false;
  const std::size_t length = ::strnlen(heap_name, kMaxHeapName + 1);
  return length != 0 && length <= kMaxHeapName;
}

std::string domain_name(std::string_view heap_name) {
  std::string name(heap_name);
  if (is_node_heap(heap_name)) name += kEscape;
  return name;
}
std::string program_name(std::string_view name) {
  if (name.ends_with(kEscape)) name.remove_suffix(kEscape.size());
  return std::string(name);
}

HeapRole role_of(Heap heap) noexcept {
  const auto info = heap.info();
  return info ? HeapRole::of(info->user_data) : HeapRole{};
}
HeapRole role_of(std::uint32_t heap_id) noexcept {
  const auto heap = domain().heap_by_id(heap_id);
  return heap ? role_of(*heap) : HeapRole{};
}

Heap heap_of_socket(int socket) noexcept {
  if (socket < kFirstExternalSocket) {
    const bool internal = socket >= 0 && socket < static_cast<int>(kMaxSockets);
    return internal ? internal_heaps.by_socket[static_cast<std::size_t>(socket)] : Heap{};
  }
  if (auto* const place = place_of(socket, false)) {
    if (const Heap* const heap = place->load(std::memory_order_acquire)) return *heap;
  }
  return find_socket(socket);
}

Heap heap_of_name(const char* name) noexcept {
  if (!is_name(name)) return {};
  Names& known = names();
  {
    const std::lock_guard guard(known.lock);
    const auto at = known.heaps.find(name);
    if (at != known.heaps.end() && role_of(at->second).is_heap()) return at->second;
  }
  const auto heap = domain().find_heap(domain_name(name));
  if (!heap) return {};
  const HeapRole role = role_of(*heap);
  if (!role.is_heap()) return {};
  remember_heap(name, role.socket, *heap);
  return *heap;
}

void remember_heap(std::string_view name, int socket, Heap heap) noexcept {
  remember_socket(socket, heap);
  Names& known = names();
  const std::lock_guard guard(known.lock);
  if (known.heaps.size() >= kMostNames) known.heaps.clear();
  known.heaps[std::string(name)] = heap;
}

void forget_heaps() noexcept {
  internal_heaps = InternalHeaps{};
  names().heaps.clear();
  for (std::atomic<Heap*>& heap : first_external_heaps)
    delete heap.exchange(nullptr, std::memory_order_relaxed);
  for (std::atomic<Chunk*>& link : chunks) {
    Chunk* const chunk = link.exchange(nullptr, std::memory_order_relaxed);
    if (chunk == nullptr) continue;
    for (std::atomic<Heap*>& heap : chunk->heaps) delete heap.load(std::memory_order_relaxed);
    delete chunk;
  }
}

std::vector<ListedHeap> list_heaps() noexcept {
  std::vector<ListedHeap> heaps;
  for (std::size_t i = 0; i < internal_heaps.count; ++i) {
    const int socket = internal_heaps.sockets[i];
    const Heap heap = internal_heaps.by_socket[static_cast<std::size_t>(socket)];
    heaps.push_back({heap, {HeapKind::internal, socket}, heap.name()});
  }
  (void)domain().walk_heaps([&](const HeapInfo& info) {
    const HeapRole role = HeapRole::of(info.user_data);
    if (role.kind != HeapKind::external) return true;
    if (auto heap = domain().heap_by_id(info.id); heap && role_of(*heap).socket == role.socket)
      heaps.push_back({*heap, role, program_name(info.name)});
    return true;
  });
  // A heap's number in the domain may be one that another had: socket ids tell which is older.
  std::stable_sort(heaps.begin() + static_cast<std::ptrdiff_t>(internal_heaps.count), heaps.end(),
                   [](const ListedHeap& a, const ListedHeap& b) { return a.role.socket < b.role.socket; });
  return heaps;
}

}  // namespace extmem::dpdk
