#include "faces/cli/demo_load.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

namespace extmem::cli {
namespace {

// The pattern: all words of small objects, a word per cache line of larger ones, and always the last bytes.
constexpr std::uint64_t kDense = 512;
constexpr std::uint64_t kWord = 8;

std::uint64_t word_at(std::uint32_t stamp, std::uint64_t offset) {
  return (std::uint64_t{stamp} << 32 | (offset & 0xffffffff)) * 0x9e3779b97f4a7c15u;
}

/// Calls visit(offset, length) for each piece of the pattern; it returns false to stop.
template <typename F>
bool each_piece(std::uint64_t size, F&& visit) {
  const std::uint64_t step = size <= kDense ? kWord : 64;
  for (std::uint64_t offset = 0; offset + kWord <= size; offset += step) {
    if (!visit(offset, kWord)) return false;
  }
  const std::uint64_t tail = std::min(size, kWord);
  return visit(size - tail, tail);
}

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed * 2 + 1) {}
  std::uint64_t next() {
    state_ ^= state_ << 13, state_ ^= state_ >> 7, state_ ^= state_ << 17;
    return state_ * 0x2545f4914f6cdd1du;
  }
  std::uint32_t below(std::uint32_t bound) {
    return static_cast<std::uint32_t>((next() >> 32) * bound >> 32);
  }

 private:
  std::uint64_t state_;
};

std::uint32_t draw_size(Random& random, const LoadTag& tag) {
  const auto from = static_cast<std::uint32_t>(std::bit_width(tag.min_size));
  const auto to = static_cast<std::uint32_t>(std::bit_width(tag.max_size));
  const std::uint32_t top = 1u << (from + random.below(to - from + 1) - 1);
  return std::clamp(top + random.below(top), tag.min_size, tag.max_size);
}

}  // namespace

void write_pattern(const LiveObject& object) {
  // The tail overlaps the last word, and is written last.
  each_piece(object.size, [&](std::uint64_t offset, std::uint64_t length) {
    const std::uint64_t word = word_at(object.stamp, offset);
    std::memcpy(object.p + offset, &word, length);
    return true;
  });
}

bool pattern_intact(const LiveObject& object, std::uint64_t bytes) {
  const std::uint64_t tail = object.size - std::min<std::uint64_t>(object.size, kWord);
  return each_piece(object.size, [&](std::uint64_t offset, std::uint64_t length) {
    if (offset + length > bytes) return true;
    if (offset != tail && offset + length > tail) return true;  // overwritten by the tail
    const std::uint64_t word = word_at(object.stamp, offset);
    return std::memcmp(object.p + offset, &word, length) == 0;
  });
}

struct alignas(64) Load::Worker {
  Worker(Load& owner, std::uint64_t seed, std::size_t threads)
      : load(owner), random(seed), stamp(static_cast<std::uint32_t>(seed << 24)), share(threads) {
    held.resize(owner.heaps_.size());
  }

  void run() {
    while (!load.stopping_.load(std::memory_order_relaxed)) {
      const std::uint32_t dice = random.below(1000);
      if (dice < 50) {
        hand_over();
      } else if (dice < 100) {
        resize();
      } else if (dice < 105) {
        allocate_batch();
      } else if (wants_more(pick_heap())) {
        allocate(dice);
      } else {
        release();
      }
    }
  }

  std::uint16_t pick_heap() {
    std::uint32_t total = 0;
    for (const LoadHeap& heap : load.heaps_) total += heap.weight;
    std::uint32_t dice = random.below(total);
    heap_now = 0;
    while (dice >= load.heaps_[heap_now].weight) dice -= load.heaps_[heap_now++].weight;
    return heap_now;
  }

  bool wants_more(std::uint16_t heap) {
    const std::uint64_t budget = load.heaps_[heap].budget / share;
    if (held[heap] >= budget) return false;
    return held[heap] < budget / 10 * 8 || random.below(2) == 0;
  }

  LiveObject draw() {
    const std::vector<LoadTag>& tags = load.heaps_[heap_now].tags;
    std::uint32_t total = 0;
    for (const LoadTag& tag : tags) total += tag.weight;
    std::uint32_t dice = random.below(total);
    LiveObject object;
    while (dice >= tags[object.tag].weight) dice -= tags[object.tag++].weight;
    object.heap = heap_now;
    object.size = draw_size(random, tags[object.tag]);
    object.stamp = ++stamp;
    return object;
  }

  void keep(LiveObject object, void* p) {
    object.p = static_cast<std::byte*>(p);
    write_pattern(object);
    held[object.heap] += object.size;
    live.push_back(object);
    add(totals_.allocations);
    add(totals_.bytes, object.size);
  }

  void failed(const char* what, Error error) {
    if (error.code() == ENOMEM) {
      add(totals_.refused);
      release();
    } else {
      load.fault(fmt::format("{}: {}", what, error.message()));
      add(totals_.faults);
    }
  }

  void allocate(std::uint32_t dice) {
    const LiveObject object = draw();
    AllocOptions options;
    options.tag = load.heaps_[object.heap].tags[object.tag].tag;
    if (dice % 32 == 0) options.align = std::size_t{64} << random.below(7);
    options.zero = dice % 32 == 1;
    auto p = load.heaps_[object.heap].heap.allocate(object.size, options);
    if (!p) return failed("allocate", p.error());
    if (options.align != 0) {
      add(totals_.aligned);
      if (reinterpret_cast<std::uintptr_t>(*p) % options.align != 0)
        spoiled("an object is not aligned as asked");
    }
    if (options.zero) {
      add(totals_.zeroed);
      const auto* bytes = static_cast<const std::byte*>(*p);
      if (std::any_of(bytes, bytes + object.size, [](std::byte b) { return b != std::byte{0}; })) {
        spoiled("memory that was asked for as zeroed is not zero");
      }
    }
    keep(object, *p);
  }

  void allocate_batch() {
    pick_heap();
    const LiveObject first = draw();
    if (first.size > 4096 || !wants_more(first.heap)) return;
    std::array<void*, 32> pointers{};
    const AllocOptions options{.tag = load.heaps_[first.heap].tags[first.tag].tag};
    const auto done = load.heaps_[first.heap].heap.allocate_batch(first.size, pointers, options);
    if (!done) return failed("allocate_batch", done.error());
    add(totals_.batches);
    for (void* p : pointers) {
      LiveObject object = first;
      object.stamp = ++stamp;
      keep(object, p);
    }
  }

  LiveObject take_any() { return take(random.below(static_cast<std::uint32_t>(live.size()))); }

  LiveObject take(std::uint32_t at) {
    const LiveObject object = std::exchange(live[at], live.back());
    live.pop_back();
    held[object.heap] -= std::min<std::uint64_t>(held[object.heap], object.size);
    return object;
  }

  /// Which object to let go: one where memory is to be retired, else one of a heap that is full enough.
  bool good_to_release(const LiveObject& object) const {
    const auto address = reinterpret_cast<std::uintptr_t>(object.p);
    const std::uintptr_t from = load.retire_from_.load(std::memory_order_relaxed);
    if (from != 0) return address >= from && address < load.retire_to_.load(std::memory_order_relaxed);
    return held[object.heap] >= load.heaps_[object.heap].budget / share / 2;
  }

  void release() {
    if (live.empty()) return;
    const auto count = static_cast<std::uint32_t>(live.size());
    std::uint32_t at = random.below(count);
    for (int i = 0; i < 8 && !good_to_release(live[at]); ++i) at = random.below(count);
    const LiveObject object = take(at);
    if (!pattern_intact(object)) spoiled("an object's contents changed before it was freed");
    const auto done = load.heaps_[object.heap].heap.deallocate(object.p);
    if (!done) return failed("deallocate", done.error());
    add(totals_.frees);
  }

  void resize() {
    if (live.empty()) return;
    LiveObject object = take_any();
    const LoadTag& tag = load.heaps_[object.heap].tags[object.tag];
    const std::uint32_t size = draw_size(random, tag);
    auto p = load.heaps_[object.heap].heap.reallocate(object.p, size);
    if (!p) {  // it stays as it was
      held[object.heap] += object.size;
      live.push_back(object);
      return failed("reallocate", p.error());
    }
    object.p = static_cast<std::byte*>(*p);
    if (!pattern_intact(object, std::min(object.size, size)))
      spoiled("an object's contents changed while it was resized");
    object.size = size;
    write_pattern(object);
    held[object.heap] += size;
    live.push_back(object);
    add(totals_.resizes);
  }

  void hand_over() {
    if (live.empty()) return;
    Mailbox& mailbox = load.mailboxes_[random.below(static_cast<std::uint32_t>(load.mailboxes_.size()))];
    const std::unique_lock lock(mailbox.mutex, std::try_to_lock);
    if (!lock) return;
    const LiveObject theirs = std::exchange(mailbox.object, take_any());
    add(totals_.handed_over);
    if (theirs.p == nullptr) return;
    held[theirs.heap] += theirs.size;
    live.push_back(theirs);
  }

  void spoiled(const char* what) {
    load.fault(what);
    add(totals_.faults);
  }
  static void add(std::atomic<std::uint64_t>& counter,
                  std::uint64_t n = 1) {  // one writer: no atomic addition needed
    counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }

  struct Totals {
    std::atomic<std::uint64_t> allocations{0}, frees{0}, resizes{0}, batches{0}, zeroed{0}, aligned{0},
        handed_over{0}, refused{0}, bytes{0}, faults{0};
  };

  Load& load;
  Random random;
  std::uint32_t stamp;
  std::uint64_t share;
  std::uint16_t heap_now = 0;
  std::vector<std::uint64_t> held;
  std::vector<LiveObject> live;
  Totals totals_;
};

Load::Load(std::vector<LoadHeap> heaps, unsigned threads) : heaps_(std::move(heaps)) {
  for (unsigned i = 0; i < threads; ++i) workers_.push_back(std::make_unique<Worker>(*this, i + 1, threads));
}

Load::~Load() { stop(); }

void Load::start() {
  for (auto& worker : workers_) threads_.emplace_back([w = worker.get()] { w->run(); });
}

void Load::stop() {
  stopping_.store(true);
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void Load::retire(const void* base, std::uint64_t length) {
  const auto from = reinterpret_cast<std::uintptr_t>(base);
  retire_to_.store(from + length, std::memory_order_relaxed);
  retire_from_.store(from, std::memory_order_relaxed);
}

LoadTotals Load::totals() const {
  LoadTotals sum;
  for (const auto& worker : workers_) {
    const Worker::Totals& t = worker->totals_;
    sum.allocations += t.allocations.load(std::memory_order_relaxed);
    sum.frees += t.frees.load(std::memory_order_relaxed);
    sum.resizes += t.resizes.load(std::memory_order_relaxed);
    sum.batches += t.batches.load(std::memory_order_relaxed);
    sum.zeroed += t.zeroed.load(std::memory_order_relaxed);
    sum.aligned += t.aligned.load(std::memory_order_relaxed);
    sum.handed_over += t.handed_over.load(std::memory_order_relaxed);
    sum.refused += t.refused.load(std::memory_order_relaxed);
    sum.bytes += t.bytes.load(std::memory_order_relaxed);
    sum.faults += t.faults.load(std::memory_order_relaxed);
  }
  return sum;
}

void Load::fault(const std::string& what) {
  const std::lock_guard lock(fault_mutex_);
  if (first_fault_.empty()) first_fault_ = what;
}

std::string Load::first_fault() const {
  const std::lock_guard lock(fault_mutex_);
  return first_fault_;
}

std::vector<LiveObject> Load::live() const {
  std::vector<LiveObject> all;
  for (const auto& worker : workers_) all.insert(all.end(), worker->live.begin(), worker->live.end());
  for (const Mailbox& mailbox : mailboxes_) {
    if (mailbox.object.p != nullptr) all.push_back(mailbox.object);
  }
  return all;
}

}  // namespace extmem::cli
