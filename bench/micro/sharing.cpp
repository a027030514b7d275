// What sharing costs: the same loops on a private heap, on a heap of a named domain, by two threads and by two processes;
// beside them Boost.Interprocess' managed_shared_memory. Then the recovery of a dead process that held a million objects.
//
//   cmake --preset release && cmake --build --preset release && g++ -std=c++20 -O2 -Iinclude bench/micro/sharing.cpp
//       -Lbuild/release/lib -lextmem -Wl,-rpath,$PWD/build/release/lib -lrt -o /tmp/sharing && /tmp/sharing
//
// Nanoseconds of one allocation and one free, as one thread sees it; median of interleaved rounds (one of each in turn, so
// that a slow moment of the machine hits all alike). Where two work at once, the mean of both.
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <boost/interprocess/managed_shared_memory.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "extmem/extmem.hpp"

extern char** environ;
using namespace extmem;
using Clock = std::chrono::steady_clock;
namespace ipc = boost::interprocess;

namespace {

constexpr int kRounds = 15;
constexpr double kSliceMs = 20;

double ms_since(Clock::time_point t) {
  return std::chrono::duration<double, std::milli>(Clock::now() - t).count();
}
void bind_to(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<unsigned>(cpu) % static_cast<unsigned>(sysconf(_SC_NPROCESSORS_ONLN)), &set);
  (void)sched_setaffinity(0, sizeof set, &set);
}

template <typename Alloc, typename Free>
double pair_ns(Alloc&& alloc, Free&& release) {
  const auto start = Clock::now();
  std::uint64_t n = 0;
  while (ms_since(start) < kSliceMs) {
    for (int i = 0; i < 1000; ++i) {
      void* p = alloc(64);
      *static_cast<volatile char*>(p) = 1;
      release(p);
    }
    n += 1000;
  }
  return ms_since(start) * 1e6 / static_cast<double>(n);
}
template <typename Alloc, typename Free>
double churn_ns(Alloc&& alloc, Free&& release, unsigned seed) {
  std::vector<void*> live(10'000);
  std::minstd_rand random(seed);
  for (void*& p : live) p = alloc(16 + random() % 1008);
  const auto start = Clock::now();
  std::uint64_t n = 0;
  while (ms_since(start) < kSliceMs) {
    for (int i = 0; i < 1000; ++i) {
      void*& p = live[random() % live.size()];
      release(p);
      p = alloc(16 + random() % 1008);
      *static_cast<volatile char*>(p) = 1;
    }
    n += 1000;
  }
  const double ns = ms_since(start) * 1e6 / static_cast<double>(n);
  for (void* p : live) release(p);
  return ns;
}

struct Side {
  std::function<void*(std::size_t)> alloc;
  std::function<void(void*)> release;
};
double measure(Heap heap, const std::string& what, unsigned seed) {
  auto alloc = [&](std::size_t n) { return *heap.allocate(n); };
  auto release = [&](void* p) {
    if (!heap.deallocate(p)) std::abort();
  };
  return what == "pair" ? pair_ns(alloc, release) : churn_ns(alloc, release, seed);
}
double measure(ipc::managed_shared_memory& segment, const std::string& what, unsigned seed) {
  auto alloc = [&](std::size_t n) { return segment.allocate(n); };
  auto release = [&](void* p) { segment.deallocate(p); };
  return what == "pair" ? pair_ns(alloc, release) : churn_ns(alloc, release, seed);
}

OpenOptions sizes() {
  OpenOptions o;
  o.sizes.max_heaps = 16;
  o.sizes.max_threads = 64;
  o.remove_when_last = true;
  return o;
}

/// What a child is told and what it answers, through pipes on its descriptors 0 and 1.
struct Child {
  ::pid_t pid = -1;
  int to = -1, from = -1;
};
Child start(std::vector<std::string> words) {
  int in[2], out[2];
  if (::pipe2(in, O_CLOEXEC) != 0 || ::pipe2(out, O_CLOEXEC) != 0) std::abort();
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in[0], 0);
  posix_spawn_file_actions_adddup2(&actions, out[1], 1);
  std::vector<char*> arguments{const_cast<char*>("sharing")};
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  Child child;
  if (::posix_spawn(&child.pid, "/proc/self/exe", &actions, nullptr, arguments.data(), environ) != 0)
    std::abort();
  ::close(in[0]);
  ::close(out[1]);
  child.to = in[1];
  child.from = out[0];
  return child;
}
double ask(const Child& child, char what) {
  double answer = -1;
  if (::write(child.to, &what, 1) != 1 || ::read(child.from, &answer, sizeof answer) != sizeof answer)
    std::abort();
  return answer;
}
void tell(const Child& child, char what) {
  if (::write(child.to, &what, 1) != 1) std::abort();
}
double hear(const Child& child) {
  double answer = -1;
  if (::read(child.from, &answer, sizeof answer) != sizeof answer) std::abort();
  return answer;
}

/// p: pair, c: churn, m: hold a million objects.
template <typename Measure>
int serve(Measure&& measure_one) {
  bind_to(1);
  char what;
  while (::read(0, &what, 1) == 1) {
    const double answer = measure_one(what);
    if (::write(1, &answer, sizeof answer) != sizeof answer) return 1;
  }
  return 0;
}

int child(const std::string& kind, const std::string& name) {
  if (kind == "boost") {
    ipc::managed_shared_memory segment(ipc::open_only, name.c_str());
    return serve([&](char what) { return measure(segment, what == 'p' ? "pair" : "churn", 7); });
  }
  OpenOptions o = sizes();
  o.mode = OpenMode::open_only;
  auto domain = Domain::open(name, o);
  if (!domain) return 1;
  Heap heap = *domain->find_heap("heap");
  return serve([&](char what) {
    if (what == 'm') {
      for (int i = 0; i < 1'000'000; ++i) *static_cast<char*>(*heap.allocate(64)) = 1;
      return 1e6;
    }
    return measure(heap, what == 'p' ? "pair" : "churn", 7);
  });
}

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3) return child(argv[1], argv[2]);
  bind_to(0);
  const std::string name = "sharing-" + std::to_string(::getpid());
  constexpr std::size_t kBytes = std::size_t{512} << 20;
  BackingSpec spec;
  spec.length = kBytes;
  spec.prefault = true;
  auto private_domain = Domain::create();
  Heap private_heap = *private_domain->create_heap("heap");
  spec.kind = BackingKind::memfd;  // the same kind of pages as the shared one's
  if (!private_domain->add_backing(private_heap, spec)) return 1;
  auto opened = Domain::open(name, sizes());
  if (!opened) {
    std::fprintf(stderr, "%s\n", opened.error().message());
    return 1;
  }
  Domain domain = std::move(*opened);
  Heap heap = *domain.create_heap("heap");
  spec.kind = BackingKind::anonymous;
  if (!domain.add_backing(heap, spec)) return 1;
  ipc::shared_memory_object::remove(name.c_str());
  ipc::managed_shared_memory segment(ipc::create_only, name.c_str(), kBytes);
  const Child other = start({"extmem", name});
  const Child boost = start({"boost", name});

  std::printf("%-6s %12s %12s %14s %15s %10s %14s\n", "", "private", "shared", "two threads", "two processes",
              "boost", "boost, two");
  for (const char* what : {"pair", "churn"}) {
    std::vector<double> row[6];
    for (int round = 0; round < kRounds; ++round) {
      row[0].push_back(measure(private_heap, what, 1));
      row[1].push_back(measure(heap, what, 1));
      double theirs = 0;
      std::thread second([&] {
        bind_to(1);
        theirs = measure(heap, what, 2);
      });
      const double ours = measure(heap, what, 1);
      second.join();
      row[2].push_back((ours + theirs) / 2);
      tell(other, what[0]);
      const double mine = measure(heap, what, 1);
      row[3].push_back((mine + hear(other)) / 2);
      row[4].push_back(measure(segment, what, 1));
      tell(boost, what[0]);
      const double with = measure(segment, what, 1);
      row[5].push_back((with + hear(boost)) / 2);
    }
    std::printf(
        "%-6s %9.1f ns %9.1f ns %11.1f ns %12.1f ns %7.0f ns %11.0f ns   shared / private %.2f, boost / "
        "shared %.0f (two: %.0f)\n",
        what, median(row[0]), median(row[1]), median(row[2]), median(row[3]), median(row[4]), median(row[5]),
        median(row[1]) / median(row[0]), median(row[4]) / median(row[1]), median(row[5]) / median(row[3]));
  }
  ::kill(boost.pid, SIGKILL);
  ::waitpid(boost.pid, nullptr, 0);
  ipc::shared_memory_object::remove(name.c_str());

  // A million objects of a dead process, while a thread of the survivor goes on and notes its longest stall.
  std::vector<double> recoveries, stalls;
  Child holder = other;
  for (int round = 0; round < 7; ++round) {
    (void)ask(holder, 'm');
    std::atomic<bool> stop{false};
    double worst = 0;
    std::thread survivor([&] {
      bind_to(1);
      auto last = Clock::now();
      while (!stop.load(std::memory_order_relaxed)) {
        void* p = *heap.allocate(100);
        if (!heap.deallocate(p)) std::abort();
        const auto now = Clock::now();
        worst = std::max(worst, std::chrono::duration<double, std::milli>(now - last).count());
        last = now;
      }
    });
    ::usleep(20'000);
    ::kill(holder.pid, SIGKILL);
    ::waitpid(holder.pid, nullptr, 0);
    const auto start_at = Clock::now();
    const auto report = domain.recover();
    const double took = ms_since(start_at);
    stop = true;
    survivor.join();
    if (!report || report->freed_objects < 1'000'000) {
      std::fprintf(stderr, "recovery: %s\n", report ? "objects are missing" : report.error().message());
      return 1;
    }
    recoveries.push_back(took);
    stalls.push_back(worst);
    holder = start({"extmem", name});
  }
  ::kill(holder.pid, SIGKILL);
  ::waitpid(holder.pid, nullptr, 0);
  std::printf(
      "recovery of a dead process with 1,000,000 objects of 64 B: median %.2f ms, worst %.2f ms; longest "
      "stall of a survivor: median %.2f ms, worst %.2f ms\n",
      median(recoveries), *std::max_element(recoveries.begin(), recoveries.end()), median(stalls),
      *std::max_element(stalls.begin(), stalls.end()));
  return 0;
}
