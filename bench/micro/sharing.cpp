// What sharing costs: the same loops on a private heap, on a heap of a named domain, by two threads and by two processes;
// beside them Boost.Interprocess' managed_shared_memory and DPDK's rte_malloc (a primary and a secondary on a heap over
// external memory). Then the recovery of a dead process that held a million objects.
//
//   cmake --preset bench && cmake --build --preset bench --target sharing && build/bench/bench/sharing [ROUNDS]
//
// Nanoseconds of one allocation and one free, as one thread sees it; median of interleaved rounds (one of each in turn, so
// that a slow moment of the machine hits all alike). Where two work at once, the mean of both. A ratio is the median of
// the rounds' ratios. DPDK needs hugepages for its multi-process mode (bench/README.md); without them its columns are missing.
#include <fcntl.h>
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
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "extmem/extmem.hpp"
#ifdef BENCH_SHARING_DPDK
#include "../dpdk_shared.hpp"
#endif

extern char** environ;
using namespace extmem;
using Clock = std::chrono::steady_clock;
namespace ipc = boost::interprocess;

namespace {

constexpr int kRounds = 15;
constexpr std::size_t kBytes = std::size_t{512} << 20;
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

/// DPDK's heap, by its socket id.
struct Dpdk {
  int socket = -1;

  static Dpdk open(bool create, const std::string& name, std::string& reason) {
    Dpdk dpdk;
#ifdef BENCH_SHARING_DPDK
    reason = dpdk_shared::open(create, name, file(name).c_str(), kBytes, 0, dpdk.socket);
#else
    (void)create, (void)name;
    reason = "built without libdpdk-dev";
#endif
    return dpdk;
  }
  static std::string file(const std::string& name) { return "/dev/shm/" + name + ".dpdk"; }
};
double measure([[maybe_unused]] Dpdk dpdk, const std::string& what, unsigned seed) {
#ifdef BENCH_SHARING_DPDK
  auto alloc = [&](std::size_t n) { return rte_malloc_socket(nullptr, n, 0, dpdk.socket); };
  auto release = [&](void* p) { rte_free(p); };
  return what == "pair" ? pair_ns(alloc, release) : churn_ns(alloc, release, seed);
#else
  (void)what, (void)seed;
  return 0;
#endif
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
  if (kind == "dpdk") {
    std::string reason;
    const Dpdk dpdk = Dpdk::open(false, name, reason);
    if (!reason.empty()) {
      std::fprintf(stderr, "DPDK, secondary: %s\n", reason.c_str());
      return 1;
    }
    return serve([&](char what) { return measure(dpdk, what == 'p' ? "pair" : "churn", 7); });
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

enum Column { kPrivate, kShared, kTwoThreads, kTwo, kBoost, kBoostTwo, kDpdk, kDpdkTwo, kColumns };
constexpr const char* kNames[kColumns] = {
    "private heap", "shared heap", "shared, two threads", "shared, two processes", "Boost", "Boost, two",
    "DPDK",         "DPDK, two"};

/// Each column's median; beside the shared heap's how many times slower it is, one process and two processes each.
void print(const char* what, const std::vector<double> (&row)[kColumns]) {
  for (int column = 0; column < kColumns; ++column) {
    if (row[column].empty()) continue;
    const bool two = column == kTwoThreads || column == kTwo || column == kBoostTwo || column == kDpdkTwo;
    const std::vector<double>& base = row[two ? kTwo : kShared];
    std::vector<double> ratios;
    for (std::size_t i = 0; i < base.size(); ++i) ratios.push_back(row[column][i] / base[i]);
    std::printf("%-6s %-22s %9.1f ns   %6.2f x %s\n", what, kNames[column], median(row[column]),
                median(ratios), kNames[two ? kTwo : kShared]);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3) return child(argv[1], argv[2]);
  const int rounds = argc == 2 ? std::atoi(argv[1]) : kRounds;
  if (rounds < 1) {
    std::fprintf(stderr, "usage: sharing [ROUNDS]\n");
    return 2;
  }
  bind_to(0);
  const std::string name = "sharing-" + std::to_string(::getpid());
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
  std::string no_dpdk;
  ::close(::open(Dpdk::file(name).c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
  const Dpdk dpdk = Dpdk::open(true, name, no_dpdk);
  bind_to(0);  // EAL has bound this thread as well
  if (!no_dpdk.empty()) std::fprintf(stderr, "no DPDK: %s\n", no_dpdk.c_str());
  const Child other = start({"extmem", name});
  const Child boost = start({"boost", name});
  Child secondary;
  if (no_dpdk.empty()) {
    secondary = start({"dpdk", name});
    (void)ask(secondary, 'p');  // it has attached; it must be there before the file's name goes
  }
  ::unlink(Dpdk::file(name).c_str());

  for (const char* what : {"pair", "churn"}) {
    std::vector<double> row[kColumns];
    for (int round = 0; round < rounds; ++round) {
      row[kPrivate].push_back(measure(private_heap, what, 1));
      row[kShared].push_back(measure(heap, what, 1));
      double theirs = 0;
      std::thread second([&] {
        bind_to(1);
        theirs = measure(heap, what, 2);
      });
      const double ours = measure(heap, what, 1);
      second.join();
      row[kTwoThreads].push_back((ours + theirs) / 2);
      tell(other, what[0]);
      const double mine = measure(heap, what, 1);
      row[kTwo].push_back((mine + hear(other)) / 2);
      row[kBoost].push_back(measure(segment, what, 1));
      tell(boost, what[0]);
      const double with = measure(segment, what, 1);
      row[kBoostTwo].push_back((with + hear(boost)) / 2);
      if (!no_dpdk.empty()) continue;
      row[kDpdk].push_back(measure(dpdk, what, 1));
      tell(secondary, what[0]);
      const double primary = measure(dpdk, what, 1);
      row[kDpdkTwo].push_back((primary + hear(secondary)) / 2);
    }
    print(what, row);
  }
  for (const Child& child : {boost, secondary}) {
    if (child.pid < 0) continue;
    ::kill(child.pid, SIGKILL);
    ::waitpid(child.pid, nullptr, 0);
  }
  ipc::shared_memory_object::remove(name.c_str());
#ifdef BENCH_SHARING_DPDK
  if (no_dpdk.empty()) dpdk_shared::close(name);
#endif

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
