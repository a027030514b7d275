// The mixed load of the demo: threads that allocate, fill, check, resize, hand over and free.
//
// Every object carries a pattern that is made from its stamp; whoever frees or resizes an object checks it first, so
// that memory given out twice, or written to by the allocator, does not go unnoticed. The threads hand objects to
// each other through a few mailboxes: much of what is freed was allocated elsewhere.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "extmem/heap.hpp"

namespace extmem::cli {

/// What one kind of user of a heap asks for.
struct LoadTag {
  std::string name;
  Tag tag{};
  std::uint32_t min_size = 0;
  std::uint32_t max_size = 0;  ///< sizes are spread evenly over the orders of magnitude
  unsigned weight = 1;
};

struct LoadHeap {
  Heap heap{};
  std::uint64_t budget = 0;  ///< bytes that the load may hold
  unsigned weight = 1;
  std::vector<LoadTag> tags;
};

struct LiveObject {
  std::byte* p = nullptr;
  std::uint32_t size = 0;
  std::uint32_t stamp = 0;
  std::uint16_t heap = 0;
  std::uint16_t tag = 0;
};

struct LoadTotals {
  std::uint64_t allocations = 0;
  std::uint64_t frees = 0;
  std::uint64_t resizes = 0;
  std::uint64_t batches = 0;
  std::uint64_t zeroed = 0;
  std::uint64_t aligned = 0;
  std::uint64_t handed_over = 0;
  std::uint64_t refused = 0;  ///< ENOMEM: the heap was full
  std::uint64_t bytes = 0;    ///< allocated in all
  std::uint64_t faults = 0;   ///< patterns that were not as written, wrong alignments, unexpected errors
  [[nodiscard]] std::uint64_t operations() const { return allocations + frees + resizes; }
};

void write_pattern(const LiveObject& object);
/// Whether the first `bytes` bytes (at most the object's size) still are as write_pattern left them.
bool pattern_intact(const LiveObject& object, std::uint64_t bytes = ~std::uint64_t{0});

class Load {
 public:
  Load(std::vector<LoadHeap> heaps, unsigned threads);
  Load(const Load&) = delete;
  Load& operator=(const Load&) = delete;
  ~Load();

  void start();
  /// Returns when all threads have ended. What they held stays held: see live().
  void stop();
  /// Asks the threads to free, of what they hold, preferably what lies there; (nullptr, 0) ends it.
  void retire(const void* base, std::uint64_t length);
  [[nodiscard]] LoadTotals totals() const;
  /// What went wrong first; "" when nothing did.
  [[nodiscard]] std::string first_fault() const;
  [[nodiscard]] const std::vector<LoadHeap>& heaps() const { return heaps_; }
  /// Requires: stopped. All objects that the load holds.
  [[nodiscard]] std::vector<LiveObject> live() const;

 private:
  struct Mailbox {
    std::mutex mutex;
    LiveObject object;
  };
  struct Worker;

  void fault(const std::string& what);

  std::vector<LoadHeap> heaps_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<std::thread> threads_;
  std::array<Mailbox, 64> mailboxes_;
  std::atomic<bool> stopping_{false};
  std::atomic<std::uintptr_t> retire_from_{0};
  std::atomic<std::uintptr_t> retire_to_{0};
  mutable std::mutex fault_mutex_;
  std::string first_fault_;
};

}  // namespace extmem::cli
