// Looking at what a death left: with an inspector, in copies of the control segment that are recovered (what a kill would have
// left, without the killing), by opening a domain whose creator died.
#include <fcntl.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <string>
#include <system_error>

#include "crash/role.hpp"
#include "crash/snapshot.hpp"
#include "crash/world.hpp"
#include "extmem/inspect.hpp"

namespace extmem::crash {

namespace {

constexpr const char* kCopy = "copy";

}  // namespace

void World::look(const char* name, const std::string& what) {
  auto inspector = Inspector::open(name, directory_.c_str());
  if (!inspector)
    return problem(what + ": no inspector opens '" + name + "': " + inspector.error().message());
  std::size_t unstable = 0;
  auto breaches = inspector->verify(
      [&](const Breach& breach) { problem(what + ": an inspector reports: " + breach.what); }, &unstable);
  if (!breaches) problem(what + ": an inspector cannot verify: " + breaches.error().message());
}

/// A domain whose creator died ("create_domain") is there whole, or is made by the next one.
void World::check_another(const std::string& what) {
  struct stat status {};
  if (::stat((directory_ + "/another").c_str(), &status) != 0) return;
  {
    auto opened = Domain::open("another", small_domain(directory_));
    if (!opened) {
      problem(what + ": the domain cannot be opened: " + opened.error().message());
    } else if (!opened->create_heap("h") || !opened->heap_by_id(0) || *opened->verify() != 0) {
      problem(what + ": the domain is not usable");
    }
  }
  if (auto removed = Domain::remove("another", directory_.c_str()); !removed)
    problem(what + ": the domain cannot be removed: " + removed.error().message());
}

void World::check_copy(Child& child, const Snapshot& state, const std::string& what) {
  ++tally_.copies;
  const std::string folder = directory_ + "/" + kCopy;
  (void)::mkdir(folder.c_str(), 0700);
  const int to = ::open((folder + "/control").c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  const bool copied = to >= 0 && state.write_to(to);
  ::close(to);
  if (!copied) return problem(what + ": the control segment cannot be copied");
  look(kCopy, what);
  OpenOptions options;
  options.mode = OpenMode::open_only;
  options.directory = directory_.c_str();
  {
    auto opened = Domain::open(kCopy, options);  // recovers: here everybody is dead
    if (!opened) return problem(what + ": the copy does not open: " + opened.error().message());
    Domain& copy = *opened;
    auto breaches = copy.verify([&](const Breach& breach) { problem(what + ": " + breach.what); });
    if (!breaches) problem(what + ": verify: " + breaches.error().message());
    const Log& log = *child.log;
    for (std::uint32_t i = 0; i < log.entries; ++i) {
      const Entry& entry = log.entry[i];
      if (entry.of != Of::held) continue;
      auto p = copy.from_region_ptr(RegionPtr{entry.ptr});
      auto object = p ? copy.owner_of(*p) : Result<ObjectInfo>(ObjectInfo{});
      const bool held = object && object->held && object->base == *p;
      if (held != entry.kept)
        problem(what + ": object " + std::to_string(i) + (held ? " is still held" : " is gone"));
    }
    std::vector<std::string> zones;
    (void)copy.walk_memzones([&](const MemzoneInfo& zone) {
      zones.emplace_back(zone.name);
      return true;
    });
    for (const ZoneEntry& zone : log.zone) {
      bool found = false;
      for (const std::string& name : zones) found |= name == zone.name;
      if (zone.is == ZoneIs::reserved && !found) problem(what + ": memzone " + zone.name + " is gone");
    }
    for (const std::string& name : zones) {
      if (auto freed = copy.free_memzone(name); !freed)
        problem(what + ": a memzone cannot be freed: " + freed.error().message());
    }
    std::vector<std::uint32_t> heaps;
    (void)copy.walk_heaps([&](const HeapInfo& info) {
      heaps.push_back(info.id);
      return true;
    });
    for (const std::uint32_t id : heaps) {
      auto heap = copy.heap_by_id(id);
      if (!heap) return problem(what + ": a heap that is listed does not exist");
      std::vector<void*> orphans;
      WalkOptions each;
      each.objects = true;
      (void)heap->walk(
          [&](const WalkEntry& entry) {
            if (entry.held && (entry.kind == WalkKind::object || entry.kind == WalkKind::held_span))
              orphans.push_back(entry.addr);
            return true;
          },
          each);
      for (void* p : orphans) {
        if (auto freed = heap->deallocate(p); !freed)
          problem(what + ": an orphan cannot be freed: " + freed.error().message());
      }
      for (const std::size_t size : {64u, 8000u}) {
        if (auto p = heap->allocate(size); p) (void)heap->deallocate(*p);
      }
      (void)heap->flush();
      auto stats = heap->stats();
      if (!stats) return problem(what + ": stats: " + stats.error().message());
      if (stats->used_count != 0 || stats->free_bytes != stats->total_bytes) {
        tally_.lost_bytes += stats->total_bytes - stats->free_bytes;
        problem(what + ": heap " + heap->name() + ": " + std::to_string(stats->used_count) +
                " objects held, " + std::to_string(stats->total_bytes - stats->free_bytes) + " bytes lost");
      }
    }
    breaches = copy.verify([&](const Breach& breach) { problem(what + ": in the end: " + breach.what); });
  }
  (void)Domain::remove(kCopy, directory_.c_str());
}

namespace {
/// Whether a process has one thread.
bool is_alone(pid_t pid) {
  std::error_code error;
  const std::filesystem::directory_iterator tasks("/proc/" + std::to_string(pid) + "/task", error);
  return !error && std::distance(begin(tasks), end(tasks)) == 1;
}
}  // namespace

void World::step_copying(Child& child, std::uint64_t stride, int seconds, const std::string& what) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  const auto next_stop = [&] {
    return ::waitpid(child.pid, &child.status, __WALL) == child.pid && WIFSTOPPED(child.status);
  };
  bool stopped = next_stop();
  Snapshot state(directory_ + "/crash/control");
  std::uint64_t next = 1;
  while (stopped && child.log->phase.load(std::memory_order_relaxed) != Phase::acted) {
    stopped = ::ptrace(PTRACE_SINGLESTEP, child.pid, nullptr, nullptr) == 0 && next_stop();
    if (!stopped) break;
    ++child.steps;
    if (child.log->inside.load(std::memory_order_relaxed) == 0 || child.steps < next) continue;
    if (std::chrono::steady_clock::now() > end) {
      tally_.cut = true;
      break;
    }
    if (!is_alone(child.pid)) continue;  // only the one thread is stepped: with others a copy is no instant
    next = child.steps + stride;
    ++tally_.instructions;
    if (!state.take(*child.log)) continue;
    check_copy(child, state, what + ", after instruction " + std::to_string(child.steps));
    if (tally_.problems.size() >= 20) break;
  }
  ++tally_.kills;
  if (!stopped) return;
  ::kill(child.pid, SIGKILL);
  ::waitpid(child.pid, &child.status, __WALL);
}

}  // namespace extmem::crash
