// What a ring costs between two processes: one pushes, the other pops. One line a kind, capacity and batch.
//
//   g++ -std=c++20 -O2 -Iinclude -Isrc bench/micro/ring.cpp src/shared/ring*.cpp
//       src/os/{futex,membarrier,thread}.cpp -o /tmp/ring && /tmp/ring
//
// Nanoseconds per element by the wall clock, from the first push to the last pop; the best and the median of several
// rounds. The two processes are bound to two processors where there are two. "alone": one process pushes and pops
// in turn, which is the cost without any traffic between processors.
// "round trip": an element goes there through one ring and back through another, waited for by looking.
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <span>
#include <vector>

#include "extmem/ring.hpp"
#include "os/thread.hpp"

namespace {

using extmem::RegionPtr;
using extmem::Ring;
using extmem::RingKind;
using extmem::os::cpu_relax;
using extmem::os::monotonic_ns;

constexpr int kRounds = 9;
constexpr std::size_t kMaxBatch = 64;

void bind_to(int processor) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<unsigned>(processor), &set);
  (void)sched_setaffinity(0, sizeof set, &set);
}

std::byte* shared_memory(std::size_t bytes) {
  void* const got =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (got == MAP_FAILED) std::abort();
  return static_cast<std::byte*>(got);
}

/// A ring and a starting gun in shared memory.
struct Track {
  explicit Track(RingKind kind, std::size_t capacity) : bytes(*Ring::bytes_for(kind, capacity)) {
    memory = shared_memory(bytes + 4096);
    if (!Ring::create(memory + 4096, bytes, kind, capacity)) std::abort();
  }
  ~Track() { ::munmap(memory, bytes + 4096); }
  Track(const Track&) = delete;
  [[nodiscard]] Ring attach(std::uint32_t who) const { return *Ring::attach(memory + 4096, bytes, who); }
  [[nodiscard]] std::atomic<int>& ready() const { return *reinterpret_cast<std::atomic<int>*>(memory); }
  std::size_t bytes;
  std::byte* memory;
};

std::array<RegionPtr, kMaxBatch> ptrs;  // what is pushed
std::array<RegionPtr, kMaxBatch> out;

/// Pushes `count` elements. Batch 1 is try_push.
void push_all(const Ring& ring, std::uint64_t count, std::size_t batch) {
  for (std::uint64_t done = 0; done < count;) {
    if (batch == 1) {
      if (ring.try_push(ptrs[0])) {
        ++done;
      } else {
        cpu_relax();
      }
    } else if (const auto pushed = ring.push(std::span(ptrs).first(std::min(batch, count - done)))) {
      done += *pushed;
    } else {
      cpu_relax();
    }
  }
}
void pop_all(const Ring& ring, std::uint64_t count, std::size_t batch) {
  for (std::uint64_t done = 0; done < count;) {
    if (batch == 1) {
      if (ring.try_pop()) {
        ++done;
      } else {
        cpu_relax();
      }
    } else if (const auto popped = ring.pop(std::span(out).first(std::min(batch, count - done)))) {
      done += *popped;
    } else {
      cpu_relax();
    }
  }
}

double two_processes(RingKind kind, std::size_t capacity, std::size_t batch, std::uint64_t count) {
  const Track track(kind, capacity);
  const pid_t child = ::fork();
  if (child == 0) {
    bind_to(1);
    const Ring ring = track.attach(2);
    track.ready().store(1);
    pop_all(ring, count, batch);
    ::_exit(0);
  }
  const Ring ring = track.attach(1);
  while (track.ready().load() == 0) ::usleep(100);
  const std::uint64_t start = monotonic_ns();
  push_all(ring, count, batch);
  while (ring.size_hint() != 0) cpu_relax();
  const std::uint64_t end = monotonic_ns();
  ::waitpid(child, nullptr, 0);
  return static_cast<double>(end - start) / static_cast<double>(count);
}

double alone(RingKind kind, std::size_t capacity, std::size_t batch, std::uint64_t count) {
  const Track track(kind, capacity);
  const Ring ring = track.attach(1);
  const std::uint64_t start = monotonic_ns();
  for (std::uint64_t done = 0; done < count; done += batch) {
    push_all(ring, batch, batch);
    pop_all(ring, batch, batch);
  }
  return static_cast<double>(monotonic_ns() - start) / static_cast<double>(count);
}

double round_trip(RingKind kind, std::uint64_t count) {
  const Track there(kind, 64);
  const Track back(kind, 64);
  const pid_t child = ::fork();
  if (child == 0) {
    bind_to(1);
    const Ring from = there.attach(2);
    const Ring to = back.attach(2);
    there.ready().store(1);
    for (std::uint64_t i = 0; i < count; ++i) {
      pop_all(from, 1, 1);
      push_all(to, 1, 1);
    }
    ::_exit(0);
  }
  const Ring to = there.attach(1);
  const Ring from = back.attach(1);
  while (there.ready().load() == 0) ::usleep(100);
  const std::uint64_t start = monotonic_ns();
  for (std::uint64_t i = 0; i < count; ++i) {
    push_all(to, 1, 1);
    pop_all(from, 1, 1);
  }
  const std::uint64_t end = monotonic_ns();
  ::waitpid(child, nullptr, 0);
  return static_cast<double>(end - start) / static_cast<double>(count);
}

template <typename Measure>
void line(const char* kind, const char* what, std::size_t capacity, std::size_t batch, Measure measure) {
  std::vector<double> rounds;
  for (int i = 0; i < kRounds; ++i) rounds.push_back(measure());
  std::sort(rounds.begin(), rounds.end());
  std::printf("%-5s %-14s %8zu %6zu %9.1f %9.1f\n", kind, what, capacity, batch, rounds.front(),
              rounds[rounds.size() / 2]);
  std::fflush(stdout);
}

}  // namespace

int main() {
  bind_to(0);
  ptrs.fill(RegionPtr{7});
  std::printf("%-5s %-14s %8s %6s %9s %9s   ns per element (round trip: per trip)\n", "kind", "", "capacity",
              "batch", "best", "median");
  for (const RingKind kind : {RingKind::spsc, RingKind::mpmc}) {
    const char* const name = kind == RingKind::spsc ? "spsc" : "mpmc";
    for (const std::size_t batch : {1u, 32u}) {
      line(name, "alone", 1024, batch, [&] { return alone(kind, 1024, batch, 4'000'000); });
      for (const std::size_t capacity : {64u, 1024u}) {
        line(name, "two processes", capacity, batch,
             [&] { return two_processes(kind, capacity, batch, 4'000'000); });
      }
    }
    line(name, "round trip", 64, 1, [&] { return round_trip(kind, 200'000); });
  }
  return 0;
}
