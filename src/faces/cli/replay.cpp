#include "faces/cli/replay.hpp"

#include <x86intrin.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <bit>
#include <chrono>
#include <cstring>
#include <mutex>
#include <thread>

namespace extmem::cli {

using record::Op;

void OpTimes::add(std::uint64_t t) {
  ++count;
  ticks += t;
  const unsigned row = static_cast<unsigned>(std::bit_width(t | 8)) - 4;
  ++histogram[std::min<std::size_t>(row * 8 + (t >> row & 7), histogram.size() - 1)];
}
void OpTimes::add(const OpTimes& other) {
  count += other.count;
  ticks += other.ticks;
  for (std::size_t i = 0; i < histogram.size(); ++i) histogram[i] += other.histogram[i];
}
double OpTimes::quantile(double share) const {
  const auto wanted = static_cast<std::uint64_t>(share * static_cast<double>(count));
  std::uint64_t seen = 0;
  for (std::size_t i = 0; i < histogram.size(); ++i) {
    seen += histogram[i];
    if (seen > wanted || (seen == count && seen != 0)) {
      const unsigned row = static_cast<unsigned>(i / 8);
      return static_cast<double>((8 + i % 8) << row) - (row == 0 ? 8.0 : 0.0);
    }
  }
  return 0;
}

OpTimes ReplayResult::all() const {
  OpTimes sum;
  for (const OpTimes& one : times) sum.add(one);
  return sum;
}
double ReplayResult::median_pass() const {
  std::vector<double> sorted = pass_seconds;
  const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
  std::nth_element(sorted.begin(), middle, sorted.end());
  return *middle;
}

namespace {

struct Object {
  // How many operations on it are done. Release by who does one, acquire by who waits for its turn: with p and size.
  std::atomic<std::uint32_t> turn{0};
  // Relaxed: `turn` orders them. Atomic because the count of pages looks at all objects while others change theirs.
  std::atomic<void*> address{nullptr};
  std::atomic<std::uint64_t> bytes{0};

  [[nodiscard]] void* p() const { return address.load(std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t size() const { return bytes.load(std::memory_order_relaxed); }
  void set(void* p, std::uint64_t size) {
    address.store(p, std::memory_order_relaxed);
    bytes.store(size, std::memory_order_relaxed);
  }
};

std::uint64_t word_of(std::uint32_t object) { return (object + 1) * 0x9e3779b97f4a7c15u; }

/// Writes the object's pattern into [from, size).
void fill(void* p, std::uint64_t size, std::uint32_t object, Contents contents) {
  auto* bytes = static_cast<unsigned char*>(p);
  const std::uint64_t word = word_of(object);
  if (contents == Contents::none) return;
  if (contents == Contents::touch) {
    *static_cast<volatile unsigned char*>(bytes) = 1;
    return;
  }
  if (contents == Contents::ends && size > 16) {
    std::memcpy(bytes, &word, 8);
    std::memcpy(bytes + (size - 1) / 8 * 8 - 8, &word, 8);
    return;
  }
  std::uint64_t i = 0;
  for (; i + 8 <= size; i += 8) std::memcpy(bytes + i, &word, 8);
  std::memcpy(bytes + i, &word, size - i);
}
bool holds(const void* p, std::uint64_t size, std::uint64_t filled, std::uint32_t object, Contents contents) {
  const auto* bytes = static_cast<const unsigned char*>(p);
  const std::uint64_t word = word_of(object);
  if (contents <= Contents::touch) return true;
  if (contents == Contents::ends && filled > 16) {
    if (size >= 8 && std::memcmp(bytes, &word, 8) != 0) return false;
    return size < filled || std::memcmp(bytes + (filled - 1) / 8 * 8 - 8, &word, 8) == 0;
  }
  std::uint64_t i = 0;
  for (; i + 8 <= size; i += 8) {
    if (std::memcmp(bytes + i, &word, 8) != 0) return false;
  }
  return std::memcmp(bytes + i, &word, size - i) == 0;
}
bool all_zero(const void* p, std::uint64_t size, Contents contents) {
  if (contents <= Contents::touch) return true;
  const auto* bytes = static_cast<const unsigned char*>(p);
  const std::uint64_t step = contents == Contents::full ? 1 : std::max<std::uint64_t>(1, size / 64);
  for (std::uint64_t i = 0; i < size; i += step) {
    if (bytes[i] != 0) return false;
  }
  return true;
}

class Replayer {
 public:
  Replayer(const Trace& trace, ReplayTarget& target, const ReplayOptions& options)
      : trace_(trace),
        target_(target),
        options_(options),
        objects_(trace.objects),
        turns_(trace.ops.size()),
        workers_(std::clamp(trace.threads, 1u, std::max(1u, options.workers))),
        gate_(workers_, Turn{this}) {
    plan_.resize(workers_);
    std::vector<std::uint32_t> next(trace.objects);
    for (std::size_t i = 0; i < trace.ops.size(); ++i) {
      turns_[i] = next[trace.ops[i].object]++;
      plan_[trace.ops[i].thread % workers_].push_back(static_cast<std::uint32_t>(i));
    }
    const std::size_t samples = std::max<std::size_t>(1, options.samples);
    step_ = std::max<std::uint64_t>(1, trace.ops.size() / samples);
    next_sample_ = step_;
  }

  ReplayResult run() {
    overhead_ = ~std::uint64_t{0};
    for (int i = 0; i < 1000; ++i) {
      const std::uint64_t before = __rdtsc();
      overhead_ = std::min<std::uint64_t>(overhead_, __rdtsc() - before);
    }
    target_.begin();
    const auto start = std::chrono::steady_clock::now();
    const std::uint64_t start_tsc = __rdtsc();
    std::vector<std::thread> threads;
    for (unsigned w = 0; w < workers_; ++w) {
      threads.emplace_back(
          [this, w] { options_.passes == 0 ? work<true>(plan_[w]) : work<false>(plan_[w]); });
    }
    for (std::thread& thread : threads) thread.join();
    const std::uint64_t ticks = __rdtsc() - start_tsc;
    result_.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    result_.ns_per_tick = result_.seconds * 1e9 / static_cast<double>(std::max<std::uint64_t>(1, ticks));
    result_.workers = workers_;
    result_.breaches = target_.verify();
    free_the_rest();
    std::sort(result_.samples.begin(), result_.samples.end(),
              [](const ReplaySample& a, const ReplaySample& b) { return a.op < b.op; });
    std::vector<std::uint64_t> points;
    for (const ReplaySample& sample : result_.samples) points.push_back(sample.op);
    const auto live = live_bytes_at(trace_, points);
    for (std::size_t i = 0; i < live.size(); ++i) result_.samples[i].live_bytes = live[i];
    return std::move(result_);
  }

 private:
  struct Mine {
    std::array<OpTimes, 5> times;
    std::uint64_t failures = 0;
    std::uint64_t corruptions = 0;
  };

  using Clock = std::chrono::steady_clock;

  /// What the program never freed.
  void free_the_rest() {
    for (Object& object : objects_) {
      if (object.p() == nullptr) continue;
      if (!holds(object.p(), object.size(), object.size(),
                 static_cast<std::uint32_t>(&object - objects_.data()), options_.contents))
        ++result_.corruptions;
      target_.free(object.p());
      object.set(nullptr, 0);
    }
  }

  /// By the thread that came last, while the others wait: before the first pass, and after each.
  void turn_back() noexcept {
    if (pass_start_ != Clock::time_point{}) {
      result_.pass_seconds.push_back(std::chrono::duration<double>(Clock::now() - pass_start_).count());
      free_the_rest();
      for (Object& object : objects_) object.turn.store(0, std::memory_order_relaxed);
    }
    pass_start_ = Clock::now();
  }

  template <bool Each>
  void work(const std::vector<std::uint32_t>& plan) {
    Mine mine;
    if constexpr (Each) {
      go_through<true>(plan, mine);
    } else {
      gate_.arrive_and_wait();
      for (unsigned pass = 0; pass < options_.passes; ++pass) {
        go_through<false>(plan, mine);
        gate_.arrive_and_wait();
      }
    }
    const std::lock_guard lock(mutex_);
    for (std::size_t k = 0; k < mine.times.size(); ++k) result_.times[k].add(mine.times[k]);
    result_.failures += mine.failures;
    result_.corruptions += mine.corruptions;
  }

  template <bool Each>
  void go_through(const std::vector<std::uint32_t>& plan, Mine& mine) {
    for (const std::uint32_t i : plan) {
      const TraceOp& op = trace_.ops[i];
      Object& object = objects_[op.object];
      for (unsigned spins = 0; object.turn.load(std::memory_order_acquire) != turns_[i]; ++spins) {
        if (spins > 100) std::this_thread::yield();
      }
      perform<Each>(op, object, mine);
      object.turn.store(turns_[i] + 1, std::memory_order_release);
      if constexpr (!Each) continue;
      const std::uint64_t done = done_.fetch_add(1, std::memory_order_relaxed) + 1;
      if (done >= next_sample_.load(std::memory_order_relaxed)) sample(done);
      if (i == trace_.peak_op) count_pages();
    }
  }

  template <bool Each>
  void perform(const TraceOp& op, Object& object, Mine& mine) {
    const std::uint64_t size = std::max<std::uint64_t>(1, op.size);
    const auto timed = [&](auto&& call) {
      if constexpr (!Each) return call();
      const std::uint64_t before = __rdtsc();
      call();
      const std::uint64_t ticks = __rdtsc() - before;
      mine.times[static_cast<std::size_t>(op.op)].add(ticks - std::min(ticks, overhead_));
    };
    if (op.op == Op::free) {
      if (object.p() == nullptr) return;  // could not be allocated
      if (!holds(object.p(), object.size(), object.size(), op.object, options_.contents)) ++mine.corruptions;
      timed([&] { target_.free(object.p()); });
      object.set(nullptr, 0);
      return;
    }
    void* now = nullptr;
    if (op.op == Op::realloc && object.p() != nullptr) {
      timed([&] { now = target_.reallocate(object.p(), size); });
      if (now == nullptr) {
        ++mine.failures;
        return;  // it stays as it was
      }
      if (!holds(now, std::min(size, object.size()), object.size(), op.object, options_.contents))
        ++mine.corruptions;
    } else {
      const bool zero = op.op == Op::calloc;
      const std::size_t align =
          op.op == Op::memalign ? std::size_t{1} << std::min<unsigned>(op.align_log2, 30) : 0;
      timed([&] { now = target_.allocate(size, align, zero); });
      if (now == nullptr) {
        ++mine.failures;
        return;
      }
      if ((zero && !all_zero(now, size, options_.contents)) ||
          (align != 0 && reinterpret_cast<std::uintptr_t>(now) % align != 0))
        ++mine.corruptions;
    }
    object.set(now, size);
    fill(now, size, op.object, options_.contents);
  }

  void sample(std::uint64_t done) {
    std::uint64_t due = next_sample_.load(std::memory_order_relaxed);
    if (done < due || !next_sample_.compare_exchange_strong(due, due + step_, std::memory_order_relaxed))
      return;
    const ReplaySample sample{done, 0, target_.stats()};
    const std::lock_guard lock(mutex_);
    result_.samples.push_back(sample);
  }

  /// By the thread that did the operation after which most was live. Others go on meanwhile: with several threads the count
  /// is of about that moment.
  void count_pages() {
    std::vector<std::pair<std::uintptr_t, std::uint64_t>> live;
    for (const Object& object : objects_) {
      const auto p = reinterpret_cast<std::uintptr_t>(object.p());
      if (p != 0) live.emplace_back(p, object.size());
    }
    for (const std::uint64_t page : {std::uint64_t{4096}, std::uint64_t{2} << 20, std::uint64_t{1} << 30})
      result_.pages.push_back({page, extmem::cli::count_pages(live, page)});
  }

  const Trace& trace_;
  ReplayTarget& target_;
  const ReplayOptions& options_;
  std::vector<Object> objects_;
  std::vector<std::uint32_t> turns_;              // by operation: how many on its object come before
  std::vector<std::vector<std::uint32_t>> plan_;  // by worker: its operations
  unsigned workers_ = 1;
  std::uint64_t step_ = 1;
  std::uint64_t overhead_ = 0;
  std::atomic<std::uint64_t> done_{0};         // relaxed: a count
  std::atomic<std::uint64_t> next_sample_{0};  // relaxed: whoever raises it takes the sample
  std::mutex mutex_;
  ReplayResult result_;
  Clock::time_point pass_start_{};  // of whoever came last; the gate orders it
  struct Turn {
    Replayer* self;
    void operator()() noexcept { self->turn_back(); }
  };
  std::barrier<Turn> gate_;
};

}  // namespace

ReplayResult replay(const Trace& trace, ReplayTarget& target, const ReplayOptions& options) {
  return Replayer(trace, target, options).run();
}

std::uint64_t count_pages(std::vector<std::pair<std::uintptr_t, std::uint64_t>>& objects,
                          std::uint64_t page) {
  std::sort(objects.begin(), objects.end());
  std::uint64_t pages = 0;
  std::uint64_t next = 0;  // pages below are counted
  for (const auto& [at, bytes] : objects) {
    if (bytes == 0) continue;
    const std::uint64_t first = std::max<std::uint64_t>(next, at / page);
    const std::uint64_t end = (at + bytes - 1) / page + 1;
    if (first < end) pages += end - first;
    next = std::max(next, end);
  }
  return pages;
}

std::vector<std::uint64_t> live_bytes_at(const Trace& trace, const std::vector<std::uint64_t>& points) {
  std::vector<std::uint64_t> sizes(trace.objects);
  std::vector<std::uint64_t> live;
  std::uint64_t bytes = 0;
  std::size_t i = 0;
  for (const std::uint64_t point : points) {
    for (; i < trace.ops.size() && i < point; ++i) {
      const TraceOp& op = trace.ops[i];
      bytes -= sizes[op.object];
      sizes[op.object] = op.op == Op::free ? 0 : op.size;
      bytes += sizes[op.object];
    }
    live.push_back(bytes);
  }
  return live;
}

}  // namespace extmem::cli
