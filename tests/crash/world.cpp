#include "crash/world.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>

#include "crash/role.hpp"
#include "heap/domain_state.hpp"

extern char** environ;

namespace extmem::crash {

namespace {

using namespace std::chrono_literals;

// Domain's only member, for looking at the metadata: a template's explicit instantiation may name private members.
template <heap::DomainState* Domain::*Member>
struct Opened {
  friend heap::DomainState* state_of(Domain& domain) { return domain.*Member; }
};
heap::DomainState* state_of(Domain& domain);
template struct Opened<&Domain::state_>;

constexpr const char* kName = "crash";

[[noreturn]] void give_up(const char* what, const Error& error) {
  std::fprintf(stderr, "crash harness: %s: %d %s\n", what, error.code(), error.message());
  std::abort();
}
template <typename T>
T must(Result<T> result, const char* what) {
  if (!result) give_up(what, result.error());
  return std::move(*result);
}
void must(Result<void> result, const char* what) {
  if (!result) give_up(what, result.error());
}

// What the survivor does now, for the message of the watchdog.
volatile const char* doing = "nothing";
void bark(int) {
  const char* what = const_cast<const char*>(doing);
  (void)!::write(2, "crash harness: the survivor hangs in: ", 38);
  (void)!::write(2, what, std::strlen(what));
  (void)!::write(2, "\n", 1);
  std::abort();
}
class Watched {
 public:
  explicit Watched(const char* what) {
    doing = what;
    ::alarm(60);
  }
  ~Watched() { ::alarm(0); }
};

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

bool ended(pid_t pid, int milliseconds) {
  const int fd = static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
  if (fd < 0) return true;
  pollfd wait{fd, POLLIN, 0};
  const int ready = ::poll(&wait, 1, milliseconds);
  ::close(fd);
  return ready == 1;
}

}  // namespace

World::World(bool large) {
  (void)::signal(SIGALRM, &bark);
  directory_ = "/dev/shm/extmem-crash-" + std::to_string(::getpid());
  static int count = 0;
  directory_ += "-" + std::to_string(count++);
  for (int i = 0; i < kLogs; ++i) {
    log_fds_[i] = ::memfd_create("crash-log", 0);  // the children inherit it
    if (log_fds_[i] < 0 || ::ftruncate(log_fds_[i], sizeof(Log)) != 0) std::abort();
    logs_[i] =
        static_cast<Log*>(::mmap(nullptr, sizeof(Log), PROT_READ | PROT_WRITE, MAP_SHARED, log_fds_[i], 0));
  }
  OpenOptions options;
  options.mode = OpenMode::create_only;
  options.directory = directory_.c_str();
  options.sizes.max_regions = 32;
  options.sizes.max_heaps = 16;
  options.sizes.max_memzones = 64;
  options.sizes.max_tags = 16;
  options.sizes.max_threads = 64;
  options.sizes.small_metadata = large ? 64u << 20 : 4u << 20;
  options.sizes.large_metadata = 8u << 20;
  domain_ = must(Domain::open(kName, options), "open");
  state_ = state_of(domain_);
  small_ = must(domain_.create_heap("small"), "create small");
  HeapOptions exact;
  exact.style = Style::exact;
  exact_ = must(domain_.create_heap("exact", exact), "create exact");
  HeapOptions kept;
  kept.on_death = OnDeath::keep;
  kept_ = must(domain_.create_heap("kept", kept), "create kept");
  kept.style = Style::exact;
  kept_exact_ = must(domain_.create_heap("kept exact", kept), "create kept exact");
  HeapOptions grown;
  grown.growth.step = kGrowthStep;
  grown.growth.limit = kGrowthSteps * kGrowthStep;
  grown_ = must(domain_.create_heap("grown", grown), "create grown");
  BackingSpec spec;
  spec.length = large ? 128u << 20 : 16u << 20;
  regions_.push_back(must(domain_.add_backing(small_, spec), "add small"));
  spec.length = 1u << 20;
  regions_.push_back(must(domain_.add_backing(exact_, spec), "add exact"));
  regions_.push_back(must(domain_.add_backing(kept_exact_, spec), "add kept exact"));
  spec.length = 4u << 20;
  regions_.push_back(must(domain_.add_backing(kept_, spec), "add kept"));
  make_own();
  for (Log* log : logs_) forget(*log);
  check_balance("the beginning");  // also makes every cache that this thread will have
  metadata_ = metadata();
  make_own();
}

World::~World() {
  domain_ = Domain{};
  if (auto removed = Domain::remove(kName, directory_.c_str()); !removed)
    problem("the domain cannot be removed");
  (void)::rmdir(directory_.c_str());
  for (int i = 0; i < kLogs; ++i) {
    ::munmap(logs_[i], sizeof(Log));
    ::close(log_fds_[i]);
  }
}

void World::problem(const std::string& what) {
  ++tally_.corruptions;
  if (tally_.problems.size() < 20) tally_.problems.push_back(what);
}

// ---- children ----------------------------------------------------------------------------------------------

Child World::start(const std::string& operation, Kill kill, int number, bool elsewhere, bool traced) {
  Log& log = *logs_[number];
  log.kill_point = kill.point;
  log.kill_nth = kill.nth;
  log.harness = domain_.participant();
  log.pages_taken = 0;
  if (elsewhere) {
    log.taken_bytes = 16u << 20;
    for (const RegionId id : regions_) {
      log.taken[log.pages_taken++] =
          reinterpret_cast<std::uint64_t>(must(domain_.region_info(id), "region_info").base);
    }
  }
  if (operation == "free_remote" || operation == "free_shared" || operation == "flush_remote" ||
      operation == "free_flush")
    lend(log);
  const std::string fd = std::to_string(log_fds_[number]);
  const char* const child = CRASH_CHILD;
  const char* argv[] = {
      child, fd.c_str(), directory_.c_str(), kName, operation.c_str(), traced ? "traced" : nullptr, nullptr};
  Child result;
  result.log = &log;
  if (::posix_spawn(&result.pid, child, nullptr, nullptr, const_cast<char* const*>(argv), environ) != 0)
    std::abort();
  return result;
}

void World::finish(Child& child, int seconds) {
  if (!ended(child.pid, seconds * 1000)) {
    child.hung = true;
    ++tally_.hangs;
    const std::string proc = "/proc/" + std::to_string(child.pid) + "/";
    std::fprintf(stderr,
                 "crash harness: process %d hangs: waits in %s, system call %s, after crash point %s\n",
                 child.pid, first_line(proc + "wchan").c_str(), first_line(proc + "syscall").c_str(),
                 child.log->last_point < kPointCount ? kPointNames[child.log->last_point] : "none");
    ::kill(child.pid, SIGKILL);
  }
  ::waitpid(child.pid, &child.status, 0);
  ++tally_.kills;
  Log& log = *child.log;
  if (log.stop == 0 && log.killed != 0) tally_.points.insert(kPointNames[log.last_point]);
}

void World::wait_ready(Child& child, int seconds) {
  for (int i = 0; i < seconds * 10'000 && child.log->phase.load() == Phase::starting; ++i) {
    if (ended(child.pid, 0)) return;
    ::usleep(100);
  }
}

void World::step(Child& child, std::uint64_t steps, int seconds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  const auto next_stop = [&] {
    return ::waitpid(child.pid, &child.status, __WALL) == child.pid && WIFSTOPPED(child.status);
  };
  if (!next_stop()) {  // its SIGSTOP
    ++tally_.kills;
    return;
  }
  while (child.steps < steps && child.log->phase.load(std::memory_order_relaxed) != Phase::acted) {
    if (::ptrace(PTRACE_SINGLESTEP, child.pid, nullptr, nullptr) != 0 || !next_stop()) {
      ++tally_.kills;
      return;
    }
    ++child.steps;
    if ((child.steps & 1023) == 0 && std::chrono::steady_clock::now() > end) {
      child.hung = true;
      ++tally_.hangs;
      break;
    }
  }
  ::kill(child.pid, SIGKILL);
  ::waitpid(child.pid, &child.status, __WALL);
  ++tally_.kills;
}

std::string World::trouble(const Child& child) {
  if (child.log->trouble[0] != '\0') return std::string("the child says: ") + child.log->trouble;
  if (child.log->unknown_point[0] != '\0')
    return std::string("crash point not in the table: ") + child.log->unknown_point;
  if (child.hung) return "it hung";
  if (!WIFSIGNALED(child.status)) return "it ended by itself, with status " + std::to_string(child.status);
  if (WTERMSIG(child.status) != SIGKILL) return "it died of signal " + std::to_string(WTERMSIG(child.status));
  return {};
}

// ---- the survivor's own ------------------------------------------------------------------------------------

void World::allocate_own(Heap heap, std::uint32_t size) {
  static std::uint64_t seed = 0x5eed;
  void* p = must(heap.allocate(size), "the survivor allocates");
  fill(p, size, ++seed);
  own_.push_back(Own{heap, p, size, seed});
}

void World::make_own() {
  for (const std::uint32_t size : {64u, 64u, 100u, 128u, 256u, 300u, 1000u, 8000u, 70'000u}) {
    for (int i = 0; i < 3; ++i) allocate_own(small_, size);
  }
  for (Heap heap : {exact_, kept_exact_}) {
    for (const std::uint32_t size : {64u, 500u, 5000u}) allocate_own(heap, size);
  }
  for (const std::uint32_t size : {200u, 90'000u}) allocate_own(kept_, size);
  // Two cached spans of each exact heap, for others to flush. As if nobody had disturbed us for long: caches may open.
  for (Heap heap : {exact_, kept_exact_}) {
    alloc::HeapCore& exact = state_->core_.heap(heap.id());
    exact.closed_frees = 0;
    exact.disturbed = 0;
    for (int round = 0; round < 2; ++round) {
      std::vector<void*> spans;
      for (int i = 0; i < 2; ++i) spans.push_back(must(heap.allocate(192), "the survivor allocates"));
      std::reverse(spans.begin(), spans.end());  // only a free that undoes the last allocation is cached
      for (void* p : spans) must(heap.deallocate(p), "the survivor frees");
    }
  }
}

void World::lend(Log& log) {
  for (const std::uint32_t size : {64u, 64u, 700u, 80'000u}) {
    void* p = must(small_.allocate(size), "the survivor allocates");
    Entry& entry = log.entry[log.entries.fetch_add(1)];
    entry.size = size;
    entry.kept = false;
    entry.ptr = must(domain_.to_region_ptr(p), "to_region_ptr").bits;
    entry.seed = entry.ptr + 17;
    fill(p, size, entry.seed);
    entry.of = Of::lent;
  }
}

// ---- after a death -----------------------------------------------------------------------------------------

void World::check_entries(Log& log, const std::string& what) {
  for (std::uint32_t i = 0; i < log.entries; ++i) {
    Entry& entry = log.entry[i];
    const Of of = entry.of.load();
    if (of == Of::nobody || of == Of::allocating) continue;
    auto p = domain_.from_region_ptr(RegionPtr{entry.ptr});
    const auto object = p ? domain_.owner_of(*p) : Result<ObjectInfo>(ObjectInfo{});
    const bool held = object && object->held && object->base == *p;
    const bool must_be = of == Of::handed || of == Of::lent || (of == Of::held && entry.kept);
    const bool must_not = of == Of::held && !entry.kept;
    const std::string which = what + ": object " + std::to_string(i) + " of " + std::to_string(entry.size) +
                              " bytes, state " + std::to_string(static_cast<std::uint32_t>(of));
    if (must_be && !held) problem(which + ": it is gone");
    if (must_not && held) problem(which + ": it is still held");
    if (held && must_be && !intact(*p, entry.size, entry.seed)) problem(which + ": somebody wrote into it");
    if (held && !must_not) {
      if (auto freed = domain_.deallocate(*p); !freed)
        problem(which + ": the survivor cannot free it: " + freed.error().message());
    }
  }
}

void World::check_zones(const std::string& what) {
  std::set<std::string> there;
  must(domain_.walk_memzones([&](const MemzoneInfo& zone) {
    there.insert(zone.name);
    return true;
  }),
       "walk_memzones");
  for (Log* log : logs_) {
    for (const ZoneEntry& zone : log->zone) {
      const ZoneIs is = zone.is.load();
      const bool found = there.contains(zone.name);
      if (is == ZoneIs::reserved && !found) problem(what + ": memzone " + zone.name + " is gone");
      if (is == ZoneIs::none && zone.name[0] != '\0' && found)
        problem(what + ": memzone " + zone.name + " is still there");
      if (is != ZoneIs::none && found) {
        const MemzoneInfo info = must(domain_.find_memzone(zone.name), "find_memzone");
        if (info.length < zone.length) problem(what + ": memzone " + zone.name + " is too short");
      }
    }
  }
  for (const std::string& name : there) {
    if (auto freed = domain_.free_memzone(name); !freed)
      problem(what + ": memzone " + name + " cannot be freed: " + freed.error().message());
  }
}

void World::remove_what_was_added(const std::string& what) {
  std::vector<RegionId> added, drained;
  must(domain_.walk_regions([&](const RegionInfo& info) {
    bool known = false;
    for (const RegionId id : regions_) known |= id == info.id;
    if (!known) added.push_back(info.id);
    if (known && info.draining) drained.push_back(info.id);
    if (info.draining && !what.starts_with("drain_region"))
      problem(what + ": a region drains that nobody drained");
    return true;
  }),
       "walk_regions");
  for (const RegionId id : drained) must(domain_.undrain_region(id), "undrain_region");
  for (const RegionId id : added) {
    auto removed = domain_.remove_region(id);
    if (!removed) problem(what + ": a region that was added cannot be removed: " + removed.error().message());
  }
  // Of a file that goes with its region: it is there no more, but where it was there before and is no region's.
  const std::string file = directory_ + "/" + kFile;
  const bool there = ::unlink(file.c_str()) == 0;
  const bool must_be = what.starts_with("add_existing") && added.empty();
  if (there != must_be) problem(what + ": the region's file is " + (there ? "still there" : "gone"));
  for (const char* name : {"own", "own too"}) {
    auto heap = domain_.find_heap(name);
    if (!heap) continue;
    if (auto destroyed = domain_.destroy_heap(*heap); !destroyed) {
      problem(what + ": heap '" + name + "' cannot be destroyed: " + destroyed.error().message());
    }
  }
}

std::uint32_t World::metadata_lock_holder() const { return state_->core_.roots().small_lock.holder(); }

void World::check_balance(const std::string& what) {
  for (const Own& own : own_) {
    const auto object = own.heap.owner_of(own.p);
    if (!object || !object->held) problem(what + ": an object of the survivor is not held any more");
    if (!intact(own.p, own.size, own.seed)) problem(what + ": an object of the survivor was written to");
    Heap heap = own.heap;
    if (auto freed = heap.deallocate(own.p); !freed)
      problem(what + ": an object of the survivor cannot be freed: " + freed.error().message());
  }
  own_.clear();
  for (Heap heap : {small_, exact_, kept_, kept_exact_, grown_}) {
    must(heap.flush(), "flush");
    const HeapStats stats = must(heap.stats(), "stats");
    const std::string name = what + ": heap " + heap.name();
    if (stats.used_count != 0)
      problem(name + ": " + std::to_string(stats.used_count) + " objects are held by nobody");
    if (stats.free_bytes != stats.total_bytes) {
      tally_.lost_bytes += stats.total_bytes - stats.free_bytes;
      problem(name + ": " + std::to_string(stats.total_bytes - stats.free_bytes) + " bytes are lost");
    }
  }
  for (const auto& file : std::filesystem::directory_iterator(directory_)) {
    if (file.path().filename().string().starts_with(".extmem-making-"))
      problem(what + ": a file that was being made is left");
  }
  std::size_t files = 0;
  for (const auto& file : std::filesystem::directory_iterator(directory_ + "/" + kName)) {
    files += file.path().filename().string().starts_with("region-");
    if (file.path().filename().string().starts_with("making-"))
      problem(what + ": a note of what was being made is left");
  }
  if (files != regions_.size())
    problem(what + ": " + std::to_string(files) + " files for " + std::to_string(regions_.size()) +
            " regions");
  const std::string now = metadata();
  if (!metadata_.empty() && now != metadata_)
    problem(what + ": the metadata is\n" + now + "and was\n" + metadata_);
}

void World::forget(Log& log) {
  const std::uint32_t entries = log.entries;
  std::memset(static_cast<void*>(&log), 0, offsetof(Log, entry));
  std::memset(static_cast<void*>(log.entry), 0, entries * sizeof(Entry));
  std::memset(static_cast<void*>(log.zone), 0, sizeof log.zone);
}

bool World::settle(const std::string& what) {
  const Watched watched("recovering and checking");
  const std::uint64_t before = tally_.corruptions;
  look(kName, what);
  const auto start = std::chrono::steady_clock::now();
  auto report = domain_.recover();
  const double ms =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  tally_.worst_recovery_ms = std::max(tally_.worst_recovery_ms, ms);
  if (!report) problem(what + ": recover: " + report.error().message());
  const auto verify = [&](const char* when) {
    std::string first;
    const std::size_t breaches = must(domain_.verify([&](const Breach& breach) {
      if (!first.empty()) return;
      first = std::string(breach.what) + " (heap " + std::to_string(breach.heap_id) + ", region " +
              std::to_string(breach.region_slot) + ", where " + std::to_string(breach.where) + ", expected " +
              std::to_string(breach.expected) + ", found " + std::to_string(breach.found) + ")";
    }),
                                      "verify");
    if (breaches != 0)
      problem(what + ": " + when + ": " + std::to_string(breaches) + " breaches, the first: " + first);
  };
  verify("recovered");
  check_lists(domain_, what);
  std::uint64_t in_flight = 0;
  for (Log* log : logs_) {
    in_flight += log->in_flight();
    check_entries(*log, what);
  }
  check_another(what);
  check_zones(what);
  free_unknown(in_flight, what);
  if (what.starts_with("allocate_growth")) check_growth(what);
  remove_what_was_added(what);
  for (int i = 0; i < 3; ++i) {
    for (const std::uint32_t size : {48u, 64u, 128u, 256u, 1000u, 8000u, 150'000u})
      allocate_own(small_, size);
    allocate_own(exact_, 640);
    allocate_own(kept_, 200);
    allocate_own(kept_exact_, 640);
  }
  verify("in use again");
  check_balance(what);
  for (Log* log : logs_) forget(*log);
  make_own();
  return tally_.corruptions == before;
}

}  // namespace extmem::crash
