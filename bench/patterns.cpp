// The classic allocation patterns of programs with threads, on whichever malloc the process has (LD_PRELOAD chooses):
//   server      each thread replaces random objects, then hands its objects to a thread that takes its place (as in the "larson" test)
//   exchange    half of the threads allocate, the others free what they get
//   scratch     each thread frees and allocates an object that began beside the other threads' objects, and writes to it: an
//               allocator that gives neighbours in a cache line to different threads makes them wait for each other
//   large       64 KiB to 4 MiB, grown by realloc, touched
//   steps       two buffers that grow by realloc in steps of 64 KiB, in turn, up to 64 MiB each; each step is written
//   threads     threads that live for a hundred objects
// Usage: patterns PATTERN THREADS ROUNDS (steps: buffers instead of threads). Does a fixed amount of work: bench/run --programs measures the process.
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace {

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 1) {}
  std::uint64_t next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_;
  }
  std::size_t below(std::size_t n) { return static_cast<std::size_t>(next() % n); }

 private:
  std::uint64_t state_;
};

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "patterns: %s\n", what);
  std::exit(1);
}

/// An object begins and ends with a byte of its size: whoever frees it looks.
char* make(std::size_t size) {
  auto* p = static_cast<char*>(std::malloc(size));
  if (p == nullptr) fail("out of memory");
  p[0] = p[size - 1] = static_cast<char>(size);
  return p;
}
void drop(char* p, std::size_t size) {
  if (p == nullptr) return;
  if (p[0] != static_cast<char>(size) || p[size - 1] != static_cast<char>(size))
    fail("an object was overwritten");
  std::free(p);
}

struct Objects {
  std::vector<char*> p = std::vector<char*>(1000);
  std::vector<std::size_t> size = std::vector<std::size_t>(1000);
};

void server(unsigned threads, unsigned rounds) {
  std::vector<Objects> owned(threads);
  for (unsigned generation = 0; generation < 20; ++generation) {
    std::vector<std::thread> team;
    for (unsigned t = 0; t < threads; ++t) {
      team.emplace_back([&, t, generation] {
        Objects& mine = owned[(t + generation) % threads];  // another thread's of the last generation
        Random random(t * 1000 + generation);
        for (unsigned i = 0; i < rounds * 5000; ++i) {
          const std::size_t at = random.below(mine.p.size());
          drop(mine.p[at], mine.size[at]);
          mine.size[at] = 10 + random.below(490);
          mine.p[at] = make(mine.size[at]);
        }
      });
    }
    for (auto& thread : team) thread.join();
  }
  for (auto& objects : owned) {
    for (std::size_t i = 0; i < objects.p.size(); ++i) drop(objects.p[i], objects.size[i]);
  }
}

/// A bounded queue of batches.
class Queue {
 public:
  using Batch = std::vector<std::pair<char*, std::size_t>>;
  void push(Batch batch) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return batches_.size() < 64; });
    batches_.push_back(std::move(batch));
    changed_.notify_all();
  }
  bool pop(Batch& batch) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !batches_.empty() || closed_; });
    if (batches_.empty()) return false;
    batch = std::move(batches_.back());
    batches_.pop_back();
    changed_.notify_all();
    return true;
  }
  void close() {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Batch> batches_;
  bool closed_ = false;
};

void exchange(unsigned threads, unsigned rounds) {
  Queue queue;
  std::vector<std::thread> producers;
  std::vector<std::thread> consumers;
  for (unsigned t = 0; t < (threads + 1) / 2; ++t) {
    producers.emplace_back([&, t] {
      Random random(t);
      for (unsigned i = 0; i < rounds * 200; ++i) {
        Queue::Batch batch;
        for (int k = 0; k < 200; ++k) {
          const std::size_t size = 16 + random.below(1000);
          batch.emplace_back(make(size), size);
        }
        queue.push(std::move(batch));
      }
    });
    consumers.emplace_back([&] {
      for (Queue::Batch batch; queue.pop(batch);) {
        for (auto& [p, size] : batch) drop(p, size);
      }
    });
  }
  for (auto& thread : producers) thread.join();
  queue.close();
  for (auto& thread : consumers) thread.join();
}

void scratch(unsigned threads, unsigned rounds) {
  std::vector<char*> first;
  for (unsigned t = 0; t < threads; ++t) first.push_back(make(8));
  std::vector<std::thread> team;
  for (unsigned t = 0; t < threads; ++t) {
    team.emplace_back([&, t] {
      drop(first[t], 8);
      for (unsigned i = 0; i < rounds * 500; ++i) {
        auto* p = static_cast<volatile char*>(static_cast<void*>(make(8)));
        for (int k = 0; k < 500; ++k) p[k % 8] = static_cast<char>(p[k % 8] + 1);
        std::free(const_cast<char*>(p));
      }
    });
  }
  for (auto& thread : team) thread.join();
}

void large(unsigned threads, unsigned rounds) {
  std::vector<std::thread> team;
  for (unsigned t = 0; t < threads; ++t) {
    team.emplace_back([t, rounds] {
      Random random(t);
      std::vector<char*> live(8);
      for (unsigned i = 0; i < rounds * 40; ++i) {
        char*& p = live[random.below(live.size())];
        std::free(p);
        std::size_t size = 65536 + random.below(1 << 20);
        p = static_cast<char*>(std::malloc(size));
        for (int grow = 0; grow < 4; ++grow) {
          for (std::size_t at = 0; p != nullptr && at < size; at += 4096) p[at] = static_cast<char>(at >> 12);
          size += size / 2;
          p = static_cast<char*>(std::realloc(p, size));
          if (p == nullptr) fail("out of memory");
          if (p[8192] != 2) fail("realloc lost what was there");
        }
      }
      for (char* p : live) std::free(p);
    });
  }
  for (auto& thread : team) thread.join();
}

void steps(unsigned threads, unsigned rounds) {
  constexpr std::size_t kStep = 65536;
  constexpr std::size_t kMost = std::size_t{64} << 20;
  for (unsigned i = 0; i < rounds; ++i) {
    std::vector<char*> buffers(threads);
    for (std::size_t size = 0; size < kMost; size += kStep) {
      for (char*& p : buffers) {
        p = static_cast<char*>(std::realloc(p, size + kStep));
        if (p == nullptr) fail("out of memory");
        for (std::size_t at = size; at < size + kStep; at += 4096) p[at] = static_cast<char>(at >> 12);
      }
    }
    for (char* p : buffers) {
      for (std::size_t at = 0; at < kMost; at += 4096) {
        if (p[at] != static_cast<char>(at >> 12)) fail("realloc lost what was there");
      }
      std::free(p);
    }
  }
}

void short_threads(unsigned threads, unsigned rounds) {
  for (unsigned i = 0; i < rounds * 60; ++i) {
    std::vector<std::thread> team;
    for (unsigned t = 0; t < threads; ++t) {
      team.emplace_back([i, t] {
        Random random(i * 100 + t);
        std::vector<std::pair<char*, std::size_t>> live;
        for (int k = 0; k < 100; ++k) {
          const std::size_t size = 16 + random.below(2000);
          live.emplace_back(make(size), size);
        }
        for (auto& [p, size] : live) drop(p, size);
      });
    }
    for (auto& thread : team) thread.join();
  }
}

/// The most memory that was ever resident, on standard error: what wait4 tells begins with the parent's.
void tell_memory() {
  if (std::FILE* status = std::fopen("/proc/self/status", "r")) {
    char line[256];
    while (std::fgets(line, sizeof line, status) != nullptr) {
      if (std::strncmp(line, "VmHWM:", 6) == 0) std::fputs(line, stderr);
    }
    std::fclose(status);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) fail("usage: patterns PATTERN THREADS ROUNDS");
  const std::string pattern = argv[1];
  const auto threads = static_cast<unsigned>(std::strtoul(argv[2], nullptr, 10));
  const auto rounds = static_cast<unsigned>(std::strtoul(argv[3], nullptr, 10));
  if (pattern == "server") {
    server(threads, rounds);
  } else if (pattern == "exchange") {
    exchange(threads, rounds);
  } else if (pattern == "scratch") {
    scratch(threads, rounds);
  } else if (pattern == "large") {
    large(threads, rounds);
  } else if (pattern == "steps") {
    steps(threads, rounds);
  } else if (pattern == "threads") {
    short_threads(threads, rounds);
  } else {
    fail("no such pattern: server, exchange, scratch, large, steps or threads");
  }
  tell_memory();
}
