// The operations of a child: what it does before, and what it is killed in.
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>
#include <thread>

#include "crash/inside.hpp"
#include "crash/role.hpp"

namespace extmem::crash {

using namespace std::chrono_literals;

namespace {
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
  } else if (op == "allocate_tagged") {  // of which it holds nothing else
    tag_ = must(domain_.intern_tag("before"), "intern_tag");
    AllocOptions tagged;
    tagged.tag = tag_;
    free(small_, *allocate(small_, 500, tagged));
  } else if (op == "free_local" || op == "leave") {
    for (int i = 0; i < 40; ++i) allocate(small_, 64);
    allocate(small_, 150'000);
  } else if (op == "free_flush") {
    // Beside its own: in its outbox what is of the survivor's slabs, and one of the survivor's in a slab that it keeps.
    free_lent(log_.entries);
    hand_over(*allocate(small_, 900));
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
  } else if (op == "flush_remote") {
    free_lent(log_.entries);
  } else if (op == "remove_region") {
    region_ = add_backing(small_, 2u << 20);
    own_ = must(domain_.create_heap("own"), "create_heap");
    first_region_ = add_backing(own_, 2u << 20);
    add_backing(own_, 2u << 20);
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
  for (const char* whole :
       {"add_backing", "add_external", "add_file", "add_file_aside", "add_existing", "remove_region",
        "drain_region", "drain_region_shared", "create_heap", "destroy_heap", "flush", "look", "flush_remote",
        "destroy_foreign", "thread", "join", "leave", "create_domain"}) {
    if (op == whole) log_.inside.store(1);
  }
  if (op == "allocate_first") {
    allocate(small_, 64);
    free_all(small_);
  } else if (op == "allocate_hit") {
    allocate(small_, 64);
  } else if (op == "allocate_tagged") {
    tagged.tag = tag_;
    free(small_, *allocate(small_, 500, tagged));
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
    must(domain_.remove_region(first_region_), "remove_region");
  } else if (op == "drain_region") {
    must(domain_.drain_region(region_, 1s), "drain_region");
    must(domain_.undrain_region(region_), "undrain_region");
    allocate(own_, 1500);
    HolderReport report;
    (void)domain_.remove_region(region_, &report);
  } else if (op == "drain_region_shared") {
    // One in which the survivor keeps slabs, and holds objects.
    must(domain_.walk_regions([&](const RegionInfo& info) {
      if (info.heap_id == small_.id()) region_ = info.id;
      return info.heap_id != small_.id();
    }),
         "walk_regions");
    if (domain_.drain_region(region_, 0s)) complain("a region is drained that others use", Error{});
    must(domain_.undrain_region(region_), "undrain_region");
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
  } else if (op == "destroy_foreign") {
    // Another thread has a cache of it, keeps the record, and takes it for another heap or ends with it.
    for (const bool again : {true, false}) {
      own_ = must(domain_.create_heap("own"), "create_heap");
      region_ = add_backing(own_, 2u << 20);
      std::atomic<int> at{0};
      const auto wait_for = [&](int when) {
        while (at.load() != when) std::this_thread::sleep_for(100us);
      };
      std::thread other([&] {
        free(own_, *allocate(own_, 500));
        at = 1;
        wait_for(2);
        if (again) free(kept_, *allocate(kept_, 500));
      });
      wait_for(1);
      must(domain_.remove_region(region_), "remove_region");
      must(domain_.destroy_heap(own_), "destroy_heap");
      at = 2;
      other.join();
    }
  } else if (op == "flush" || op == "flush_remote") {
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
