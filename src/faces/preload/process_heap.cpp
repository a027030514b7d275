#include "faces/preload/process_heap.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/bits.hpp"
#include "base/error.hpp"
#include "heap/live_domains.hpp"
#include "os/process.hpp"
#include "os/thread.hpp"
#include "os/writer.hpp"

namespace extmem::preload {

constinit ProcessHeap process;

void* Bootstrap::allocate(std::size_t size, std::size_t align) noexcept {
  const std::size_t at = base::align_up(used_, align);
  if (at > sizeof bytes_ || size > sizeof bytes_ - at) return nullptr;
  used_ = at + size;
  return bytes_ + at;
}

namespace {

void path_of(const Settings& settings, char (&path)[kTextBytes + 16]) noexcept {
  path[0] = '\0';
  if (settings.backing.kind == BackingKind::shm) std::strcpy(path, "/dev/shm");
  std::strcat(path, settings.path);
}

/// Takes away the file that lock_path made, where it did not become the heap's memory.
void discard_path(const Settings& settings) noexcept {
  if (!process.path_made) return;
  char path[kTextBytes + 16];
  path_of(settings, path);
  struct stat file {};
  if (::fstat(process.path_lock.get(), &file) == 0 && file.st_size == 0) ::unlink(path);
}

[[noreturn]] void give_up(const char* what, const char* about, const char* why) noexcept {
  os::Writer out(STDERR_FILENO);
  out.text("extmem: ").text(what).text(about).text(": ").text(why).text("\n");
  if (process.settings.stats == StatsFormat::json && process.settings.report_pid == os::process_id())
    write_error(out, why);
  out.flush();
  discard_path(process.settings);
  ::_exit(3);
}

/// Address space for one process: enough for 1 TiB of memory. The part that is had of it is 1 / `part`.
DomainOptions sizes(std::uint64_t part) noexcept {
  DomainOptions options;
  options.max_regions = 4096;
  options.max_heaps = 64;  // nodes' heaps, and ours
  options.max_memzones = 64;
  options.max_tags = 1024;
  options.max_threads = static_cast<std::uint32_t>(16383 / part);  // as many as a domain can have
  options.small_metadata = (std::uint64_t{4} << 30) / part;
  options.large_metadata = (std::uint64_t{8} << 30) / part;
  return options;
}

Result<Domain> open_domain(const Settings& settings) noexcept {
  if (settings.domain[0] != '\0') return Domain::open(settings.domain);
  Error first{};
  // A limit on address space (ulimit -v), on data (ulimit -d) or on what may be committed may be in the way.
  for (std::uint64_t part = 1; part <= 1024; part *= 4) {
    auto domain = Domain::create(sizes(part));
    if (domain || domain.error().code() != ENOMEM) return domain;
    if (!first) first = domain.error();
  }
  return first;
}

/// Two processes on one path would write over each other's memory. Null, or why it cannot be locked. The lock goes with the
/// process: its descriptor is never closed.
const char* lock_path(const Settings& settings) noexcept {
  char path[kTextBytes + 16];
  path_of(settings, path);
  int fd = ::open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT && settings.backing.kind != BackingKind::dax) {
    fd = ::open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    process.path_made = fd >= 0;
    if (fd < 0) fd = ::open(path, O_RDWR | O_CLOEXEC);  // another process was first
  }
  if (fd < 0) return "it cannot be opened for reading and writing: see its folder and permissions";
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) return "it is the memory of another process: give each its own";
  process.path_lock.keep(fd, 503);
  ::close(fd);
  return nullptr;
}

Result<Heap> open_heap(Domain& domain, const Settings& settings, bool& was_there) noexcept {
  HeapOptions options;
  if (settings.backing.path == nullptr) {  // else it cannot grow
    options.growth.backing = settings.backing;
    options.growth.backing.length = 0;
    options.growth.step = settings.step;
    options.growth.limit = settings.limit - std::min(settings.limit, settings.backing.length);
    if (options.growth.limit == 0) options.growth.step = 0;
  }
  auto heap = domain.create_heap(settings.heap, options);
  was_there = !heap && heap.error().code() == EEXIST;
  return was_there ? domain.find_heap(settings.heap) : heap;
}

/// A heap that was there already is used as who made it wants it: with its memory, or its growth.
void take_what_is_there(const Settings& settings) noexcept {
  auto trial = process.heap.allocate(64);  // a heap that grows does so now
  if (!trial)
    give_up("cannot use the heap ", settings.heap,
            trial.error().code() == ENOMEM
                ? "it has no memory left: give it some by `extmem region add`, or here by --size"
                : trial.error().message());
  (void)process.heap.deallocate(*trial);
  std::uint64_t bytes = 0;
  (void)process.domain().walk_regions([&](const RegionInfo& info) {
    if (info.heap_id != process.heap.id()) return true;
    if (bytes == 0) process.first = info;
    bytes += info.length;
    return true;
  });
  process.first.length = bytes;  // all of it, for the line at the start
  process.furnished = true;
}

}  // namespace

void begin() noexcept {
  process.phase = Phase::beginning;
  const char* variable = "";
  Settings& settings = process.settings;
  if (auto read = read_settings(settings, &variable); !read)
    give_up("the environment variable ", variable, read.error().message());
  if (settings.backing.path != nullptr) {
    if (settings.report_pid != 0 && settings.report_pid != os::process_id()) {
      settings.backing.kind = BackingKind::anonymous;  // a child of the process whose the path is
      settings.backing.path = nullptr;
    } else if (const char* why = lock_path(settings)) {
      give_up("cannot use ", settings.path, why);
    }
  }
  process.begun_ns = os::monotonic_ns();
  auto domain = open_domain(settings);
  if (!domain)
    give_up("cannot open the domain ", settings.domain[0] != '\0' ? settings.domain : "of this process",
            domain.error().message());
  process.lasting.domain = std::move(*domain);
  bool was_there = false;
  auto heap = open_heap(process.domain(), settings, was_there);
  if (!heap) give_up("cannot make the heap ", settings.heap, heap.error().message());
  // First of all who watch: so what others prepare a fork with comes before, and what they do after it later.
  if (settings.shared_with_children() && watch_forks() != 0)
    give_up("cannot watch for forks for the heap ", settings.heap, "the C library is out of memory");
  process.heap = *heap;
  if (was_there && !settings.sized) {
    take_what_is_there(settings);
  } else {
    auto region = process.domain().add_backing(*heap, settings.backing);
    if (!region) give_up("cannot take memory for the heap ", settings.heap, region.error().message());
    if (auto info = process.domain().region_info(*region)) process.first = *info;
  }
  if (settings.domain[0] != '\0') heap::end_by_exec();
  find_replaced();
  process.phase = Phase::ready;
}

void tell_bad_free(const char* function, const void* p, Error error) noexcept {
  constexpr std::uint64_t kMostTold = 10;
  const std::uint64_t before = process.mishaps.bad_frees.fetch_add(1, std::memory_order_relaxed);
  if (before >= kMostTold) return;
  os::Writer out(STDERR_FILENO);
  out.text("extmem: ").text(function).text("(").hex(reinterpret_cast<std::uintptr_t>(p)).text(") ignored: ");
  out.text(error.message());
  if (before + 1 == kMostTold) out.text("; no more of these are told");
  out.text("\n").flush();
}

namespace {

/// The heap is there before any other library's constructor needs it, and reports once.
struct Start {
  Start() noexcept {
    if (process.phase == Phase::none) begin();
    watch_exit();
    if (process.settings.stats != StatsFormat::none && process.settings.report_pid == os::process_id())
      process.standard_error.keep(STDERR_FILENO, 500);
    if (process.settings.report_pid == os::process_id() && !process.settings.told) {
      report_start();
      mark_told();
    }
    forget_forwarding_malloc();
    if (process.settings.report_pid == os::process_id()) report_other_malloc();
  }
  ~Start() {
    tell_of_exit();
    report_exit();
  }
} start;

}  // namespace

}  // namespace extmem::preload
