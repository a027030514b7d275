#include "crash/role.hpp"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <thread>

namespace extmem::crash {

using namespace std::chrono_literals;

void Role::complain(const char* what, const Error& error) {
  std::snprintf(log_.trouble, sizeof log_.trouble, "%s: %d %s", what, error.code(), error.message());
  _exit(8);
}

void Role::open() {
  OpenOptions options;
  options.mode = OpenMode::open_only;
  options.directory = directory_.c_str();
  domain_ = must(Domain::open(name_, options), "open");
  small_ = must(domain_.find_heap("small"), "find small");
  exact_ = must(domain_.find_heap("exact"), "find exact");
  kept_ = must(domain_.find_heap("kept"), "find kept");
  kept_exact_ = must(domain_.find_heap("kept exact"), "find kept exact");
  grown_ = must(domain_.find_heap("grown"), "find grown");
}

void Role::close() { domain_ = Domain{}; }

namespace {
/// While it lives, the child is inside the library.
class Inside {
 public:
  explicit Inside(Log& log) : log_(log) { log_.inside.store(1, std::memory_order_relaxed); }
  Inside(const Inside&) = delete;
  ~Inside() { log_.inside.store(0, std::memory_order_relaxed); }

 private:
  Log& log_;
};
/// Calls fn inside the library.
template <typename Fn>
auto inside(Log& log, Fn&& fn) {
  const Inside mark(log);
  return fn();
}

/// From now on a system call of this process fails where its argument has that bit.
void refuse_call(unsigned number, unsigned argument, unsigned bit, unsigned error) {
  const auto at = static_cast<unsigned>(offsetof(seccomp_data, args) + argument * sizeof(std::uint64_t));
  sock_filter code[] = {
      {BPF_LD | BPF_W | BPF_ABS, 0, 0, static_cast<unsigned>(offsetof(seccomp_data, nr))},
      {BPF_JMP | BPF_JEQ | BPF_K, 0, 3, number},
      {BPF_LD | BPF_W | BPF_ABS, 0, 0, at},
      {BPF_JMP | BPF_JSET | BPF_K, 0, 1, bit},
      {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | error},
      {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW},
  };
  sock_fprog program{sizeof code / sizeof code[0], code};
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) != 0)
    _exit(8);
}
}  // namespace

Entry* Role::empty_entry() {
  for (std::uint32_t n = 0; n < kEntries; ++n) {
    const std::uint32_t i = next_entry_++ % kEntries;
    if (patient_ && i < 32) continue;  // where the harness lends
    Entry& entry = log_.entry[i];
    Of nobody = Of::nobody;
    if (entry.of.load(std::memory_order_relaxed) != Of::nobody) continue;
    if (!entry.of.compare_exchange_strong(nobody, Of::allocating)) continue;
    std::uint32_t used = log_.entries.load();
    while (used <= i && !log_.entries.compare_exchange_weak(used, i + 1)) {
    }
    return &entry;
  }
  return nullptr;
}

void Role::note(Entry& entry, void* p, std::uint32_t size) {
  entry.ptr = must(domain_.to_region_ptr(p), "to_region_ptr").bits;
  entry.size = size;
  entry.kept = mine_heap_ == kept_.id() || mine_heap_ == kept_exact_.id();
  entry.seed = entry.ptr * 0x2545f4914f6cdd1du ^ static_cast<std::uint64_t>(::getpid());
  fill(p, size, entry.seed);
  entry.of.store(Of::held, std::memory_order_release);
}

Entry* Role::allocate(Heap heap, std::uint32_t size, const AllocOptions& options) {
  Entry* entry = empty_entry();
  mine_heap_ = heap.id();
  const bool plain = options.tag.index == 0;
  auto p = inside(log_, [&] { return plain ? heap.allocate(size) : heap.allocate(size, options); });
  if (!p && p.error().code() == ENOMEM && patient_) {  // others have it now
    entry->of.store(Of::nobody);
    return nullptr;
  }
  note(*entry, must(std::move(p), "allocate"), size);
  mine_.push_back(entry);
  return entry;
}

void Role::free(Heap heap, Entry& entry) {
  void* p = must(domain_.from_region_ptr(RegionPtr{entry.ptr}), "from_region_ptr");
  if (!intact(p, entry.size, entry.seed)) complain("an object of the child is not intact", Error{});
  entry.of.store(Of::freeing, std::memory_order_release);
  must(inside(log_, [&] { return heap.deallocate(p); }), "deallocate");
  entry.of.store(Of::nobody, std::memory_order_release);
  if (!mine_.empty() && mine_.back() == &entry) {
    mine_.pop_back();
  } else {
    std::erase(mine_, &entry);
  }
}

void Role::free_lent(std::uint32_t most) {
  for (std::uint32_t i = 0; i < log_.entries && most != 0; ++i) {
    if (log_.entry[i].of != Of::lent) continue;
    free(small_, log_.entry[i]);
    --most;
  }
}

void Role::free_all(Heap heap) {
  while (!mine_.empty()) free(heap, *mine_.back());
}

void Role::reallocate(Heap heap, Entry& entry, std::uint32_t size) {
  void* p = must(domain_.from_region_ptr(RegionPtr{entry.ptr}), "from_region_ptr");
  entry.of.store(Of::freeing, std::memory_order_release);
  mine_heap_ = heap.id();
  auto moved = inside(log_, [&] { return heap.reallocate(p, size); });
  if (!moved && moved.error().code() == ENOMEM && patient_) {
    entry.of.store(Of::held);
    return;
  }
  void* now = must(std::move(moved), "reallocate");
  if (!begins_intact(now, entry.size, size, entry.seed))
    complain("a reallocated object is not intact", Error{});
  note(entry, now, size);
}

void Role::hand_over(Entry& entry) {
  void* p = must(domain_.from_region_ptr(RegionPtr{entry.ptr}), "from_region_ptr");
  entry.of.store(Of::handing, std::memory_order_release);
  must(inside(log_, [&] { return domain_.hand_over(p, log_.harness); }), "hand_over");
  entry.of.store(Of::handed, std::memory_order_release);
  std::erase(mine_, &entry);
}

void Role::reserve(Heap heap, std::uint32_t zone, std::uint32_t length) {
  ZoneEntry& z = log_.zone[zone];
  std::snprintf(z.name, sizeof z.name, "zone%u", zone);
  z.length = length;
  z.is.store(ZoneIs::reserving, std::memory_order_release);
  auto reserved = inside(log_, [&] { return domain_.reserve_memzone(heap, z.name, length); });
  if (!reserved && reserved.error().code() == ENOMEM && patient_) {
    z.is.store(ZoneIs::none);
    return;
  }
  must(std::move(reserved), "reserve_memzone");
  z.is.store(ZoneIs::reserved, std::memory_order_release);
}

void Role::unreserve(std::uint32_t zone) {
  ZoneEntry& z = log_.zone[zone];
  z.is.store(ZoneIs::freeing, std::memory_order_release);
  must(inside(log_, [&] { return domain_.free_memzone(z.name); }), "free_memzone");
  z.is.store(ZoneIs::none, std::memory_order_release);
}

RegionId Role::add_backing(Heap heap, std::uint64_t length) {
  BackingSpec spec;
  spec.length = length;
  return must(domain_.add_backing(heap, spec), "add_backing");
}

RegionId Role::add_file(Heap heap, std::uint64_t length) {
  const std::string path = directory_ + "/" + kFile;
  BackingSpec spec;
  spec.kind = BackingKind::file;
  spec.path = path.c_str();
  spec.unlink_on_remove = true;
  spec.length = length;
  return must(domain_.add_backing(heap, spec), "add_backing");
}

RegionId Role::add_external(std::uint64_t length) {
  RegionSpec spec;
  spec.base = ::mmap(nullptr, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  spec.length = length;
  spec.cpu_accessible = false;
  return must(domain_.add_region(small_, spec), "add_region");
}

namespace {
/// keep_OP is OP in an exact heap that keeps what the dead held.
constexpr std::string_view kKeep = "keep_";
}  // namespace

void Role::prepare(const std::string& operation) {
  std::string op = operation;
  if (op == "join" || op == "create_domain") return;
  open();
  if (op.starts_with(kKeep)) {
    exact_ = kept_exact_;
    op.erase(0, kKeep.size());
  }
  if (op == "add_existing") {
    const int fd = ::open((directory_ + "/" + kFile).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ::ftruncate(fd, 2 << 20) != 0) complain("no file can be made", Error{});
    ::close(fd);
  } else if (op == "million") {
    for (int i = 0; i < 1'000'000; ++i) (void)must(small_.allocate(64), "allocate");
  } else if (op == "allocate_hit") {
    allocate(small_, 64);
    allocate(small_, 64);
  } else if (op == "free_local" || op == "leave") {
    for (int i = 0; i < 40; ++i) allocate(small_, 64);
    allocate(small_, 150'000);
  } else if (op == "free_flush") {
    for (int i = 0; i < 400; ++i) allocate(small_, 256);
  } else if (op == "allocate_refill") {
    allocate(small_, 128);
  } else if (op == "free_span") {
    allocate(small_, 200'000);
  } else if (op == "free_shared") {
    free_lent(1);  // the slab is shared then, and this thread has a cache
  } else if (op == "free_foreign") {
    // A slab that a thread has left, which is not full.
    std::thread([&] { allocate(small_, 900); }).join();
  } else if (op == "free_coalescing") {
    for (int i = 0; i < 5; ++i) allocate(exact_, 1000);
    free(exact_, *mine_[1]);
    free(exact_, *mine_[2]);
  } else if (op.starts_with("exact_")) {
    // A cache that is open, five spans that are biased to this thread, and two or three cached ones.
    allocate(exact_, 64);
    free_all(exact_);
    for (int i = 0; i < 5; ++i) allocate(exact_, 64);
    for (int i = 0; i < 3; ++i) allocate(exact_, i == 0 ? 200 : 64);
    for (int i = 0; i < 3; ++i) free(exact_, *mine_.back());
  } else if (op == "reallocate") {
    allocate(small_, 100);
    allocate(small_, 150'000);
  } else if (op == "reallocate_exact") {
    allocate(exact_, 1000);
    allocate(exact_, 1000);
  } else if (op == "hand_over" || op == "tags") {
    tag_ = must(domain_.intern_tag("before"), "intern_tag");
    AllocOptions tagged;
    tagged.tag = tag_;
    allocate(small_, 500);
    allocate(small_, 500, tagged);
    allocate(small_, 150'000);
    allocate(small_, 150'000, tagged);
  } else if (op == "remove_region") {
    region_ = add_backing(small_, 2u << 20);
  } else if (op == "drain_region") {
    own_ = must(domain_.create_heap("own"), "create_heap");
    region_ = add_backing(own_, 4u << 20);
    for (int i = 0; i < 50; ++i) allocate(own_, 1000);
    for (int i = 0; i < 25; ++i) free(own_, *mine_.back());
    region_ = add_backing(own_, 2u << 20);
  } else if (op == "memzone_free") {
    reserve(small_, 0, 1000);
    reserve(small_, 1, 150'000);
    reserve(small_, 2, 1000);
  } else if (op == "destroy_heap") {
    own_ = must(domain_.create_heap("own"), "create_heap");
    const RegionId region = add_backing(own_, 2u << 20);
    AllocOptions tagged;
    tagged.tag = must(domain_.intern_tag("of own"), "intern_tag");
    allocate(own_, 500, tagged);
    allocate(own_, 500);
    free_all(own_);
    must(domain_.remove_region(region), "remove_region");
  } else if (op == "flush" || op == "look") {
    for (int i = 0; i < 60; ++i) allocate(small_, 300);
    for (int i = 0; i < 50; ++i) free(small_, *mine_.back());
  } else if (op == "hold") {
    AllocOptions tagged;
    tagged.tag = must(domain_.intern_tag("held"), "intern_tag");
    for (int i = 0; i < 40; ++i) allocate(small_, 64u + 200u * static_cast<std::uint32_t>(i));
    for (int i = 0; i < 10; ++i) free(small_, *mine_.back());
    allocate(small_, 140'000);
    for (int i = 0; i < 10; ++i) allocate(kept_, 200, i % 2 == 0 ? AllocOptions{} : tagged);
    allocate(kept_, 140'000, tagged);
    allocate(exact_, 500);
    reserve(small_, 3, 5000);
  }
}

void Role::act(const std::string& operation) {
  const std::string op = operation.starts_with(kKeep) ? operation.substr(kKeep.size()) : operation;
  AllocOptions tagged;
  // The others say it call by call.
  for (const char* whole : {"add_backing", "add_external", "add_file", "add_file_aside", "add_existing",
                            "remove_region", "drain_region", "create_heap", "destroy_heap", "flush", "look",
                            "thread", "join", "leave", "create_domain"}) {
    if (op == whole) log_.inside.store(1);
  }
  if (op == "allocate_first") {
    allocate(small_, 64);
    free_all(small_);
  } else if (op == "allocate_hit") {
    allocate(small_, 64);
  } else if (op == "allocate_refill") {
    for (int i = 0; i < 150; ++i) allocate(small_, 128);
  } else if (op == "allocate_slabs") {
    for (int i = 0; i < 16; ++i) allocate(small_, 8000);
    for (int i = 0; i < 3; ++i) allocate(small_, 60'000);  // four to a slab, of which the magazine takes two
  } else if (op == "allocate_span") {
    allocate(small_, 300'000);
    allocate(small_, 500'000);
  } else if (op == "allocate_growth") {
    allocate(grown_, 1'500'000);
    allocate(grown_, 1'500'000);
    free_all(grown_);
  } else if (op == "allocate_exact") {
    for (std::uint32_t i = 1; i <= 4; ++i) allocate(exact_, 100 * i);
  } else if (op == "exact_hit") {
    allocate(exact_, 64);
  } else if (op == "exact_push") {
    free(exact_, *mine_.front());
  } else if (op == "exact_deep") {
    // More than a row holds: the first are freed by the page layer, once the row's are all back.
    for (int i = 0; i < 40; ++i) allocate(exact_, i % 2 == 0 ? 64 : 300);
    for (int i = 0; i < 40; ++i) free(exact_, *mine_.back());
    for (int i = 0; i < 3; ++i) allocate(exact_, 64);
  } else if (op == "exact_flush") {
    allocate(exact_, 1000);
    free(exact_, *mine_[1]);
    reallocate(exact_, *mine_[0], 120);
    free(exact_, *mine_[1]);
    (void)must(inside(log_, [&] { return exact_.stats(); }), "stats");
    reserve(exact_, 0, 100);
  } else if (op == "exact_foreign") {
    // Another thread finds this one's cache open, then what it has cached, then a span of its own.
    std::thread([&] {
      free(exact_, *mine_[0]);
      allocate(exact_, 1000);
    }).join();
    for (int i = 0; i < 70; ++i) free(exact_, *allocate(exact_, 64));  // opens it again
    std::thread([&] {
      allocate(exact_, 2000);
      free(exact_, *mine_[0]);
    }).join();
  } else if (op == "free_local" || op == "free_span") {
    free(small_, *mine_.front());
  } else if (op == "free_flush") {
    free_all(small_);
  } else if (op == "free_remote") {
    free_lent(log_.entries);
  } else if (op == "free_shared") {
    free_lent(1);
  } else if (op == "free_foreign") {
    // Another thread frees more of this one's than its outbox takes; then this thread goes on until it has taken them back, and
    // frees so many of its own that a slab is biased to it again.
    for (int i = 0; i < 90; ++i) allocate(small_, 900);
    std::thread([&] {
      for (int i = 0; i < 60; ++i) free(small_, *mine_[1]);
    }).join();
    for (int i = 0; i < 70; ++i) allocate(small_, 900);
    for (int i = 0; i < 270; ++i) free(small_, *allocate(small_, 900));
  } else if (op == "free_coalescing") {
    free(exact_, *mine_[1]);
    free_all(exact_);
  } else if (op == "reallocate") {
    reallocate(small_, *mine_[0], 3000);
    reallocate(small_, *mine_[1], 160'000);
    reallocate(small_, *mine_[1], 70'000);
    reallocate(small_, *mine_[1], 2000);
  } else if (op == "reallocate_exact") {
    reallocate(exact_, *mine_[1], 3000);
    reallocate(exact_, *mine_[1], 600);
    reallocate(exact_, *mine_[0], 9000);
  } else if (op == "tags") {
    tagged.tag = must(domain_.intern_tag("new"), "intern_tag");
    allocate(small_, 700, tagged);
    allocate(small_, 140'000, tagged);
    free_all(small_);
  } else if (op == "hand_over") {
    std::thread([&] { hand_over(*mine_.front()); }).join();  // of a slab that is this thread's
    while (!mine_.empty()) hand_over(*mine_.back());
  } else if (op == "add_backing") {
    add_backing(small_, 2u << 20);
  } else if (op == "add_file" || op == "add_existing") {
    add_file(small_, 2u << 20);
  } else if (op ==
             "add_file_aside") {  // as on file systems that have no nameless files, nor this kind of renaming
    refuse_call(SYS_openat, 2, O_TMPFILE & ~O_DIRECTORY, EOPNOTSUPP);
    must(domain_.remove_region(add_file(small_, 2u << 20)), "remove_region");
    refuse_call(SYS_renameat2, 4, RENAME_NOREPLACE, EINVAL);
    add_file(small_, 2u << 20);
  } else if (op == "add_external") {
    must(domain_.remove_region(add_external(4u << 20)), "remove_region");
  } else if (op == "remove_region") {
    must(domain_.remove_region(region_), "remove_region");
  } else if (op == "drain_region") {
    must(domain_.drain_region(region_, 1s), "drain_region");
    must(domain_.undrain_region(region_), "undrain_region");
    allocate(own_, 1500);
    HolderReport report;
    (void)domain_.remove_region(region_, &report);
  } else if (op == "memzone_reserve") {
    reserve(small_, 0, 1000);
    reserve(small_, 1, 150'000);
    reserve(exact_, 2, 1000);
  } else if (op == "memzone_free") {
    for (std::uint32_t zone : {1u, 0u, 2u}) unreserve(zone);
  } else if (op == "create_heap") {
    must(domain_.create_heap("own"), "create_heap");
    HeapOptions exact;
    exact.style = Style::exact;
    must(domain_.create_heap("own too", exact), "create_heap");
  } else if (op == "destroy_heap") {
    must(domain_.destroy_heap(own_), "destroy_heap");
  } else if (op == "flush") {
    must(small_.flush(), "flush");
  } else if (op == "look") {
    (void)must(small_.stats(), "stats");
    (void)must(domain_.verify(), "verify");
    TagStats stats[4];
    (void)must(small_.tag_stats(stats), "tag_stats");
  } else if (op == "thread") {
    std::thread([&] {
      allocate(small_, 64);
      free_all(small_);
      allocate(exact_, 64);
    }).join();
  } else if (op == "create_domain") {
    domain_ = must(Domain::open("another", small_domain(directory_)), "create");
  } else if (op == "join") {
    open();
  } else if (op == "leave") {
    close();
  } else if (op == "recover" || op == "withhold") {
    log_.phase.store(Phase::ready);
    while (log_.go.load() == 0) std::this_thread::sleep_for(100us);
    bool refuse = op == "withhold";
    if (refuse) {
      must(domain_.add_listener(
               [](const RegionEvent& event, void* no) {
                 return event.kind == RegionEventKind::reclaiming && *static_cast<bool*>(no) ? EBUSY : 0;
               },
               &refuse),
           "add_listener");
    }
    log_.armed.store(1);
    const RecoveryReport report = must(domain_.recover(), "recover");
    if (!refuse) return;
    if (report.withheld_objects == 0) complain("nothing was withheld", Error{});
    (void)must(domain_.recover(), "recover while it is withheld");
    refuse = false;
    const RecoveryReport later = must(domain_.recover(), "recover again");
    if (later.freed_objects != report.withheld_objects)
      complain("not all that was withheld was freed", Error{});
  }
}

}  // namespace extmem::crash
