// The demo's processes: one heap used by several of them, some of which are killed in the middle of what they do.
//
// The workers are this very program, started anew (`extmem demo-worker`), so that each has addresses of its own.
#include <fcntl.h>
#include <fmt/core.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <thread>

#include "faces/cli/commands.hpp"
#include "faces/cli/demo.hpp"
#include "faces/cli/exit_code.hpp"
#include "faces/cli/format.hpp"

extern char** environ;

namespace extmem::cli {
namespace {

constexpr unsigned kWorkers = 3;
constexpr unsigned kOwnObjects = 2000;
constexpr std::uint64_t kShared = 64ull << 20;
constexpr const char* kHeap = "shared";

OpenOptions sizes() {
  OpenOptions options;
  options.sizes.max_heaps = 16;
  options.sizes.max_regions = 64;
  options.sizes.max_memzones = 64;
  options.sizes.max_tags = 64;
  options.sizes.max_threads = 64;
  options.sizes.small_metadata = 64ull << 20;
  options.sizes.large_metadata = 64ull << 20;
  options.remove_when_last = true;
  return options;
}

unsigned char pattern_of(std::size_t size, unsigned seed) {
  return static_cast<unsigned char>(size * 7 + seed);
}

bool is_intact(const void* p, std::size_t size, unsigned seed) {
  const auto* bytes = static_cast<const unsigned char*>(p);
  const unsigned char expected = pattern_of(size, seed);
  return std::all_of(bytes, bytes + size, [expected](unsigned char byte) { return byte == expected; });
}

/// A worker: allocates, writes, checks and frees until it is killed. Another exit code than kPassed: what it saw was wrong.
int work(const std::string& name, unsigned seed) {
  OpenOptions options = sizes();
  options.mode = OpenMode::open_only;
  options.remove_when_last = false;
  auto domain = Domain::open(name, options);
  if (!domain) return kImpossible;
  auto heap = domain->find_heap(kHeap);
  if (!heap) return kImpossible;
  struct Object {
    void* p;
    std::size_t size;
  };
  std::vector<Object> objects;
  std::minstd_rand random(seed);
  const ::pid_t parent = ::getppid();
  for (unsigned round = 0; ::getppid() == parent; ++round) {
    if (objects.size() < 500 || random() % 2 == 0) {
      const std::size_t size = 16 + random() % (random() % 50 == 0 ? 100'000u : 2'000u);
      auto p = heap->allocate(size);
      if (p) {
        std::memset(*p, pattern_of(size, seed), size);
        objects.push_back({*p, size});
      }
    }
    if (objects.size() > 1000 || (!objects.empty() && random() % 2 == 0)) {
      Object& object = objects[random() % objects.size()];
      if (!is_intact(object.p, object.size, seed) || !heap->deallocate(object.p)) return kCheckFailed;
      object = objects.back();
      objects.pop_back();
    }
  }
  return kPassed;
}

::pid_t start_worker(const std::string& name, unsigned seed) {
  std::string seed_text = std::to_string(seed);
  std::string program = "extmem", command = "demo-worker", domain = name;
  char* arguments[] = {program.data(), command.data(), domain.data(), seed_text.data(), nullptr};
  ::pid_t pid = -1;
  return ::posix_spawn(&pid, "/proc/self/exe", nullptr, nullptr, arguments, environ) == 0 ? pid : -1;
}

}  // namespace

void add_demo_worker_command(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("demo-worker", "One of the processes of extmem demo");
  command->group("");  // not for people
  auto name = std::make_shared<std::string>();
  auto seed = std::make_shared<unsigned>(1);
  command->add_option("domain", *name)->required();
  command->add_option("seed", *seed)->required();
  command->callback([name, seed, &exit_code] { exit_code = work(*name, *seed); });
}

void Demo::share_with_processes() {
  const std::string name = fmt::format("extmem-demo-{}", ::getpid());
  auto opened = Domain::open(name, sizes());
  if (!opened) {
    note(fmt::format(
        "Shared heaps: no named domain could be made ({}); the part with several processes was left out.",
        error_text(opened.error())));
    return;
  }
  Domain domain = std::move(*opened);
  const Heap heap = need(domain.create_heap(kHeap), "cannot create the shared heap");
  BackingSpec spec;
  spec.length = kShared;
  if (auto region = domain.add_backing(heap, spec); !region) {
    note(fmt::format("Shared heaps: no memory for one ({}); the part with several processes was left out.",
                     error_text(region.error())));
    return;
  }
  Heap mine = heap;
  std::vector<void*> own(kOwnObjects);
  for (std::size_t i = 0; i < own.size(); ++i) {
    own[i] = need(mine.allocate(100 + i), "cannot allocate from the shared heap");
    std::memset(own[i], pattern_of(100 + i, 1), 100 + i);
  }

  struct Worker {
    ::pid_t pid = -1;
  };
  std::array<Worker, kWorkers> workers;
  unsigned next_seed = 100;
  for (Worker& worker : workers) worker.pid = start_worker(name, next_seed++);
  std::minstd_rand random(static_cast<unsigned>(::getpid()));
  const double seconds = std::clamp(options_.seconds / 2, 0.3, 5.0);
  const Stopwatch watch;
  unsigned kills = 0, unfinished = 0, breaches = 0, wrong = 0;
  std::uint64_t objects = 0, bytes = 0, operations = 0;
  double worst = 0, sum = 0;
  while (watch.seconds() < seconds && wrong == 0) {
    const Stopwatch step;
    while (step.seconds() < 0.03) {  // this process goes on meanwhile
      auto p = mine.allocate(64 + random() % 5000);
      if (p && !mine.deallocate(*p)) ++wrong;
      ++operations;
    }
    Worker& worker = workers[random() % kWorkers];
    if (worker.pid < 0) break;
    (void)::kill(worker.pid, SIGKILL);
    int status = 0;
    if (::waitpid(worker.pid, &status, 0) != worker.pid || !WIFSIGNALED(status) ||
        WTERMSIG(status) != SIGKILL)
      ++wrong;
    ++kills;
    const Stopwatch recovery;
    const auto report = domain.recover();
    const double took = recovery.seconds();
    if (!report) {
      ++wrong;
      break;
    }
    sum += took;
    worst = std::max(worst, took);
    unfinished += report->unfinished;
    objects += report->freed_objects;
    bytes += report->freed_bytes;
    if (const auto found = domain.verify(); !found || *found != 0) ++breaches;
    worker.pid = start_worker(name, next_seed++);
    console_.progress(watch.seconds() / seconds,
                      fmt::format("{} processes on one heap, {} killed so far", kWorkers + 1, kills));
  }
  console_.progress_done();
  for (const Worker& worker : workers) {
    if (worker.pid < 0) continue;
    (void)::kill(worker.pid, SIGKILL);
    (void)::waitpid(worker.pid, nullptr, 0);
    ++kills;
  }
  const auto last = domain.recover();
  if (last) {
    objects += last->freed_objects;
    bytes += last->freed_bytes;
    unfinished += last->unfinished;
  }

  console_.heading("Processes");
  console_.item("heap", fmt::format("{} on a tmpfs, domain {}, used by {} processes at a time",
                                    bytes_text(kShared), name, kWorkers + 1));
  console_.item(
      "killed",
      fmt::format("{} processes with SIGKILL, wherever they were; {} inside a change that was then undone",
                  kills, unfinished));
  console_.item("reclaimed",
                fmt::format("{} that they held ({})", plural(objects, "object"), bytes_text(bytes)));
  console_.item("recovery", fmt::format("{} on average, {} at worst", time_text(kills == 0 ? 0 : sum / kills),
                                        time_text(worst)));
  console_.item("meanwhile",
                fmt::format("{} allocated and freed by the survivor", plural(operations, "object")));
  time("recover from a killed process", kills == 0 ? 0 : sum / kills, fmt::format("average of {}", kills));
  check("processes are killed, the others go on", kills > 0 && wrong == 0 && last.ok(),
        fmt::format("{} kills", kills));
  check("verify after every kill", breaches == 0,
        breaches == 0 ? "no breach" : fmt::format("{} times a breach", breaches));
  std::size_t intact = 0;
  for (std::size_t i = 0; i < own.size(); ++i) intact += is_intact(own[i], 100 + i, 1) ? 1u : 0u;
  check("what the survivor holds is intact", intact == own.size(), plural(intact, "object"));
  const auto stats = mine.stats();
  check("nothing but that is held", stats && stats->used_count == own.size());
  bool freed = true;
  for (void* p : own) freed = mine.deallocate(p).ok() && freed;
  freed = mine.flush().ok() && freed;
  const auto empty = mine.stats();
  check("nothing was lost: every byte is free again",
        freed && empty && empty->free_bytes == empty->total_bytes && empty->used_count == 0,
        empty ? fmt::format("{} of {}", bytes_text(empty->free_bytes), bytes_text(empty->total_bytes))
              : error_text(empty.error()));
}

}  // namespace extmem::cli
