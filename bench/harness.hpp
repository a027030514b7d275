// Sampling: threads, pinning, warm-up, timing, and the conversation with the driver.
//
// What it is: a worker sets one workload up, warms it, prints "ready", and then takes one sample for each
// line that it reads, until its input ends. So several workers can be alive at once and be sampled in
// turn (A B C A B C ...), while only one of them runs at any time. The lines that it writes:
//
//   version TEXT          of the allocator
//   ready                 set up and warm
//   result NAME VALUE     one or more per sample; ns per operation unless the name says otherwise
//   done QUALITY          end of a sample; the share of its time in which nothing took a CPU away
//   skip REASON           this allocator cannot do this; ends the worker
//   fail REASON           something broke; ends the worker
//
// Thread-safety: used by the main thread; bodies run on the thread that they belong to.
#pragma once

#include <pthread.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "common.hpp"

namespace bench {

struct Options {
  std::string workload;
  std::string trace;  ///< the file, of the workload `trace`
  std::size_t size = 64;
  std::size_t count = 0;  ///< live objects, zones or regions, as the workload says
  unsigned threads = 1;
  std::uint64_t sample_ns = 20'000'000;
  std::uint64_t warm_ns = 500'000'000;  ///< most time that a body may take to reach its steady state
};

/// One number of one sample. Names are constant strings.
struct Result {
  const char* name;
  double value;
};

/// Notices when the kernel or the hypervisor takes the calling thread's CPU away.
class Watch {
 public:
  Watch() { restart(); }
  void restart() {
    usage(&voluntary_, &preempted_);
    cpu_ns_ = now_ns(CLOCK_THREAD_CPUTIME_ID);
    wall_ns_ = now_ns();
  }
  /// Whether the thread ran undisturbed since restart(). A thread that slept by itself (in a mutex) is only
  /// asked for involuntary switches, because its waiting is the allocator's.
  [[nodiscard]] bool undisturbed() const {
    const std::uint64_t wall = now_ns() - wall_ns_;
    const std::uint64_t cpu = now_ns(CLOCK_THREAD_CPUTIME_ID) - cpu_ns_;
    long voluntary = 0;
    long preempted = 0;
    usage(&voluntary, &preempted);
    if (voluntary != voluntary_) return preempted == preempted_;
    return wall < cpu + wall / 50 + 10'000;
  }

 private:
  static void usage(long* voluntary, long* preempted) {
    rusage u{};
    getrusage(RUSAGE_THREAD, &u);
    *voluntary = u.ru_nvcsw;
    *preempted = u.ru_nivcsw;
  }
  long voluntary_ = 0;
  long preempted_ = 0;
  std::uint64_t cpu_ns_ = 0;
  std::uint64_t wall_ns_ = 0;
};

/// Sums of the slices of one sample: those that ran undisturbed, and all. A sample is what the
/// undisturbed ones say, unless they are too few even after twice the time; then it is what all of them
/// say.
template <std::size_t kSums = 1>
class Slices {
 public:
  explicit Slices(std::uint64_t target_ns) : target_(static_cast<double>(target_ns)) {}
  [[nodiscard]] bool enough() const { return good_.ns >= target_ || all_.ns >= 2 * target_; }
  void add(bool undisturbed, double ns, double weight, const double (&sums)[kSums]) {
    for (Sums* s : {&all_, &good_}) {
      if (s == &good_ && !undisturbed) continue;
      s->ns += ns;
      s->weight += weight;
      for (std::size_t i = 0; i < kSums; ++i) s->sums[i] += sums[i];
    }
  }
  [[nodiscard]] double mean(std::size_t i = 0) const { return used().sums[i] / used().weight; }
  /// Share of the time that was undisturbed.
  [[nodiscard]] double quality() const { return good_.ns / all_.ns; }

 private:
  struct Sums {
    double ns = 0;
    double weight = 0;
    double sums[kSums] = {};
  };
  [[nodiscard]] const Sums& used() const { return good_.ns >= target_ / 4 ? good_ : all_; }
  double target_;
  Sums good_{};
  Sums all_{};
};

/// One sample: what was measured, and the share of its time in which nothing disturbed it.
struct Sample {
  std::vector<Result> results;
  double quality = 1;
};

/// Answers the driver: `sample` takes one Sample whenever it is called.
template <class Sampler>
void serve(Sampler&& sample) {
  std::printf("ready\n");
  std::fflush(stdout);
  char line[64];
  while (std::fgets(line, sizeof line, stdin) != nullptr) {
    const Sample s = sample();
    for (const Result& r : s.results) std::printf("result %s %.6g\n", r.name, r.value);
    std::printf("done %.3f\n", s.quality);
    std::fflush(stdout);
  }
}

/// A crew of threads, one per CPU, that run a job together. The calling thread is number 0; the others
/// sleep between jobs, so that an idle worker disturbs nobody.
template <class A>
class Crew {
 public:
  Crew(unsigned threads, const std::vector<int>& cpus) : threads_(threads) {
    if (cpus.size() < threads) skip("fewer CPUs than threads");
    pthread_barrier_init(&gate_, nullptr, threads);
    pin_to(cpus[0]);
    A::thread_begin();
    for (unsigned i = 1; i < threads; ++i) {
      helpers_.emplace_back([this, i, cpu = cpus[i]] {
        pin_to(cpu);
        A::thread_begin();
        while (true) {
          pthread_barrier_wait(&gate_);
          if (job_ == nullptr) break;
          job_(job_arg_, i);
          pthread_barrier_wait(&gate_);
        }
        A::thread_end();
      });
    }
  }
  ~Crew() {
    job_ = nullptr;
    if (threads_ > 1) pthread_barrier_wait(&gate_);
    for (auto& t : helpers_) t.join();
    A::thread_end();
    pthread_barrier_destroy(&gate_);
  }
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;

  /// Runs job(thread number) on all threads; they leave a spinning gate together.
  template <class Job>
  void run(Job&& job) {
    arrived_.store(0, std::memory_order_relaxed);
    auto body = [&](unsigned i) {
      arrived_.fetch_add(1);
      while (arrived_.load(std::memory_order_acquire) < threads_) {
      }
      job(i);
    };
    job_arg_ = &body;
    job_ = [](void* arg, unsigned i) { (*static_cast<decltype(body)*>(arg))(i); };
    if (threads_ > 1) pthread_barrier_wait(&gate_);
    body(0);
    if (threads_ > 1) pthread_barrier_wait(&gate_);
  }
  [[nodiscard]] unsigned size() const { return threads_; }

 private:
  unsigned threads_;
  pthread_barrier_t gate_{};
  std::atomic<unsigned> arrived_{0};
  void (*job_)(void*, unsigned) = nullptr;
  void* job_arg_ = nullptr;
  std::vector<std::thread> helpers_;
};

/// How long one look at the clock may be away: its cost vanishes, and a slice ends on time.
inline constexpr std::uint64_t kChunkNs = 100'000;
/// A sample consists of slices; a slice in which any thread was disturbed does not count.
inline constexpr std::uint64_t kSliceNs = 4'000'000;

/// What a thread did in a slice.
struct Timing {
  double ns = 0;
  double ops = 0;
  bool undisturbed = true;
};

/// Runs `body` until `target_ns` have passed. `*chunk` is the number of operations between two looks at the
/// clock; where it is 0 it is found first. Body::run(n) does at least n operations and returns how many.
template <class Body>
Timing timed(Body& body, std::uint64_t target_ns, std::uint64_t* chunk) {
  if (*chunk == 0) {
    for (*chunk = 1;; *chunk *= 2) {
      const std::uint64_t start = now_ns();
      body.run(*chunk);
      if (now_ns() - start >= kChunkNs) break;
    }
  }
  std::uint64_t ops = 0;
  const Watch watch;
  const std::uint64_t start = now_ns();
  std::uint64_t end = start;
  while (end - start < target_ns) {
    ops += body.run(*chunk);
    end = now_ns();
  }
  return {static_cast<double>(end - start), static_cast<double>(ops), watch.undisturbed()};
}

/// The life of a workload whose threads do the same thing independently of each other. Each thread makes
/// its own Body (so what it holds came through its own caches), warms it, and is timed for the same time.
/// The result is ns per operation as a thread sees it: threads / (sum of the threads' rates). With
/// several threads each slice is followed by one in which the first thread works alone: "alone" over
/// "time" is then the scaling of one moment, which two separate runs on a shared machine cannot give.
template <class A, class Body, class Make>
void serve_bodies(const Options& options, const std::vector<int>& cpus, Make&& make) {
  Crew<A> crew(options.threads, cpus);
  std::vector<std::unique_ptr<Body>> bodies(options.threads);
  std::vector<std::uint64_t> chunks(options.threads, 0);
  std::vector<Timing> timings(options.threads);
  crew.run([&](unsigned i) {
    bodies[i] = make(i);
    if constexpr (requires(Body & body) { body.warm(options.warm_ns); }) bodies[i]->warm(options.warm_ns);
    timed(*bodies[i], options.sample_ns / 2, &chunks[i]);
  });
  serve([&] {
    // The other workers have used the caches since: run for a while before counting.
    crew.run([&](unsigned i) { timed(*bodies[i], options.sample_ns / 10, &chunks[i]); });
    Slices slices(options.sample_ns);
    Slices alone(options.sample_ns);
    while (!slices.enough()) {
      crew.run([&](unsigned i) { timings[i] = timed(*bodies[i], kSliceNs, &chunks[i]); });
      bool undisturbed = true;
      double rate = 0;
      for (const Timing& t : timings) {
        undisturbed = undisturbed && t.undisturbed;
        rate += t.ops / t.ns;
      }
      // Slices of equal length: the operations of all threads are the weight of a slice.
      const double ns = timings[0].ns;
      slices.add(undisturbed, ns, rate * ns, {ns * static_cast<double>(options.threads)});
      if (options.threads == 1) continue;
      crew.run([&](unsigned i) {
        if (i == 0) timings[0] = timed(*bodies[0], kSliceNs, &chunks[0]);
      });
      alone.add(timings[0].undisturbed, timings[0].ns, timings[0].ops, {timings[0].ns});
    }
    Sample sample{{{"time", slices.mean()}}, slices.quality()};
    if (options.threads > 1) sample.results.push_back({"alone", alone.mean()});
    return sample;
  });
  crew.run([&](unsigned i) { bodies[i].reset(); });
}

}  // namespace bench
