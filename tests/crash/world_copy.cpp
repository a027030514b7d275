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
#include <sstream>
#include <string>

#include "crash/instruction.hpp"
#include "crash/lists.hpp"
#include "crash/role.hpp"
#include "crash/snapshot.hpp"
#include "crash/world.hpp"
#include "extmem/inspect.hpp"
#include "heap/domain_state.hpp"

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

/// A heap that grows can still grow as far as it may, and no further.
void World::check_growth(const std::string& what) {
  std::vector<void*> all;
  Error full;
  for (;;) {
    auto p = grown_.allocate(kGrowthStep * 3 / 4);
    if (!p) {
      full = p.error();
      break;
    }
    all.push_back(*p);
  }
  if (full.code() != ENOMEM) problem(what + ": the heap cannot grow: " + full.message());
  if (all.size() != kGrowthSteps)
    problem(what + ": the heap grows to " + std::to_string(all.size()) + " steps, its limit are " +
            std::to_string(kGrowthSteps));
  for (void* p : all) {
    if (auto freed = grown_.deallocate(p); !freed)
      problem(what + ": an object cannot be freed: " + freed.error().message());
  }
}

void World::check_lists(Domain& domain, const std::string& what) {
  if (const std::string wrong = wrong_lists(domain); !wrong.empty()) problem(what + ": " + wrong);
}

std::string World::metadata() {
  std::ostringstream text;
  alloc::Core& core = state_->core_;
  const auto space = [&](const char* name, alloc::MetaSpace& meta) {
    text << name << " metadata: " << meta.pages.free_pages << " pages free in " << meta.pages.free_runs
         << " runs\n";
  };
  space("small", core.roots().small);
  space("large", core.roots().large);
  text << "small metadata's lock: " << core.roots().small_lock.holder() << '\n';
  for (std::uint32_t i = 1; i <= core.geometry().max_threads; ++i) {
    const shared::ThreadSlot& slot = core.slot(i);
    // Who died as it left its slot leaves a claim that names the slot; its next owner clears it.
    const std::uint32_t healer = slot.healer % (shared::kMaxThreadSlots + 1);
    const bool claimed = healer != 0 && (healer != i || slot.owner != 0);
    if (slot.owner != 0 || slot.journal.count != 0 || claimed || slot.ranks != 0 || slot.spare_caches != 0) {
      text << "slot " << i << ": owner " << slot.owner << " journal " << slot.journal.count << " healer "
           << healer << " ranks " << slot.ranks << " spare " << slot.spare_caches << '\n';
    }
  }
  for (std::uint32_t id = 0; id < core.geometry().max_heaps; ++id) {
    const alloc::HeapCore& h = core.heap(id);
    if (h.lock.holder() != 0 || h.first_cache != 0 || h.torn != 0 || h.slab_count != 0 || h.span_count != 0 ||
        h.regions != 0) {
      text << "heap " << id << ": lock " << h.lock.holder() << " caches " << h.caches << " torn " << h.torn
           << " slabs " << h.slab_count << " spans " << h.span_count << " regions " << h.regions << '\n';
    }
  }
  std::uint32_t caches = 0;
  for (std::uint32_t i = 0; i < core.geometry().max_caches; ++i) caches += core.cache(i).used;
  text << "caches in use: " << caches << '\n';
  std::uint32_t slabs = 0;
  for (std::uint32_t i = 0; i < core.roots().slab_list.high; ++i) slabs += core.slab(i).objects != 0;
  text << "slabs in use: " << slabs << '\n';
  std::uint32_t regions = 0;
  for (std::uint32_t i = 1; i <= core.geometry().max_regions; ++i)
    regions += core.region(i).flags != 0 || core.region(i).changing != 0;
  text << "regions in use: " << regions << '\n';
  return text.str() + wrong_lists(domain_);
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
    check_lists(copy, what);
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
    // A region in which the drainer has died stays as it is, and who comes later does not map it: until somebody undrains it.
    std::vector<RegionId> draining;
    (void)copy.walk_regions([&](const RegionInfo& info) {
      if (info.draining) draining.push_back(info.id);
      return true;
    });
    for (const RegionId region : draining) {
      if (auto undrained = copy.undrain_region(region); !undrained)
        problem(what + ": a region cannot be undrained: " + undrained.error().message());
    }
    // All are dead here, so all that the heaps that keep hold is nobody's: no more than was held, and what was in flight.
    std::uint64_t most = log.in_flight();
    for (std::uint32_t i = 0; i < log.entries; ++i) {
      most += log.entry[i].of == Of::held && log.entry[i].kept;
      most += log.entry[i].of == Of::freeing;  // a reallocation that moves has both for a moment
    }
    for (const Own& own : own_) most += own.heap == kept_ || own.heap == kept_exact_;
    std::uint64_t kept = 0;
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
            if (entry.held && (entry.kind == WalkKind::object || entry.kind == WalkKind::held_span)) {
              orphans.push_back(entry.addr);
              if (entry.addr == nullptr) problem(what + ": the region of an orphan is not mapped");
            }
            return true;
          },
          each);
      if (id == kept_.id() || id == kept_exact_.id()) kept += orphans.size();
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
    if (kept > most)
      problem(what + ": " + std::to_string(kept) + " objects are kept, at most " + std::to_string(most) +
              " were held");
    breaches = copy.verify([&](const Breach& breach) { problem(what + ": in the end: " + breach.what); });
    check_lists(copy, what + ": in the end");
  }
  (void)Domain::remove(kCopy, directory_.c_str());
}

namespace {
/// Whether a process has one thread. The folder of its threads has that many links more than an empty one.
bool is_alone(pid_t pid) {
  struct stat status {};
  return ::stat(("/proc/" + std::to_string(pid) + "/task").c_str(), &status) == 0 && status.st_nlink == 3;
}
}  // namespace

void World::step_copying(Child& child, std::uint64_t stride, int seconds, const std::string& what) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  const auto next_stop = [&] {
    return ::waitpid(child.pid, &child.status, __WALL) == child.pid && WIFSTOPPED(child.status);
  };
  bool stopped = next_stop();
  Snapshot state(directory_ + "/crash/control");
  NextInstruction instruction;
  bool may_differ = true;  // from the last look: else what is compared is the same
  std::uint64_t next = 1;
  while (stopped && child.log->phase.load(std::memory_order_relaxed) != Phase::acted) {
    may_differ |= !instruction.stores_nothing_in(child.pid);
    stopped = ::ptrace(PTRACE_SINGLESTEP, child.pid, nullptr, nullptr) == 0 && next_stop();
    if (!stopped) break;
    ++child.steps;
    if (child.log->inside.load(std::memory_order_relaxed) == 0 || child.steps < next) continue;
    if (std::chrono::steady_clock::now() > end) {
      tally_.cut = true;
      break;
    }
    if (!is_alone(child.pid)) {  // only the one thread is stepped: with others a copy is no instant
      may_differ = true;
      continue;
    }
    next = child.steps + stride;
    ++tally_.instructions;
    if (!may_differ) continue;
    may_differ = false;
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
