// Limits of the process and of the kernel that a heap can run into.
#include <fmt/core.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>

#include <cerrno>
#include <cstring>

#include "faces/cli/doctor.hpp"
#include "faces/cli/format.hpp"

namespace extmem::cli::doctor {
namespace {

/// The command that lifts a limit: of the shell's own where it may, else by root.
std::string lift(const rlimit& limit, const char* of_ulimit, const char* of_prlimit) {
  const bool may = limit.rlim_max == RLIM_INFINITY || has_capability(24 /* CAP_SYS_RESOURCE */);
  if (may) return of_ulimit;
  if (::geteuid() == 0) return "give the container CAP_SYS_RESOURCE, or that limit";
  return as_root() + "prlimit " + of_prlimit + " --pid $$";
}

std::string limit_text(rlim_t value) { return value == RLIM_INFINITY ? "unlimited" : bytes_text(value); }

void check_memlock(Checks& checks) {
  rlimit limit{};
  (void)::getrlimit(RLIMIT_MEMLOCK, &limit);
  Check check{"Limits", "locked memory", State::ok, limit_text(limit.rlim_cur), {}, {}};
  const bool exempt = has_capability(14 /* CAP_IPC_LOCK */);
  if (exempt) {
    check.found += " (this user is exempt: CAP_IPC_LOCK)";
  } else if (limit.rlim_cur < (rlim_t{64} << 20)) {
    check.state = State::limited;
    check.matters = "locked heaps (lock), memory that devices use through VFIO, RDMA or io_uring";
    check.fix = lift(limit, "ulimit -l unlimited", "--memlock=unlimited") +
                "  # for good: memlock in /etc/security/limits.conf";
  }
  checks.push_back(check);
}

void check_address_space(Checks& checks) {
  rlimit limit{};
  (void)::getrlimit(RLIMIT_AS, &limit);
  Check check{"Limits", "address space", State::ok, limit_text(limit.rlim_cur), {}, {}};
  // What a domain with the default sizes reserves.
  constexpr std::size_t kSegment = std::size_t{72} << 30;
  void* const there =
      ::mmap(nullptr, kSegment, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (there == MAP_FAILED) {
    check.state = State::lacking;
    check.found += fmt::format("; {} cannot be reserved: {}", bytes_text(kSegment), std::strerror(errno));
    check.matters =
        "every domain: it reserves address space for its metadata (DomainOptions makes that less)";
    check.fix = lift(limit, "ulimit -v unlimited", "--as=unlimited");
  } else {
    (void)::munmap(there, kSegment);
  }
  checks.push_back(check);
}

void check_map_count(Checks& checks) {
  const std::int64_t most = number_in("/proc/sys/vm/max_map_count");
  Check check{"Limits",  "mappings of a process",
              State::ok, count_text(static_cast<std::uint64_t>(std::max<std::int64_t>(most, 0))),
              {},        {}};
  if (most < 0) {
    check.state = State::unknown;
    check.found = "/proc/sys/vm/max_map_count cannot be read";
  } else if (most < 65530) {
    check.state = State::limited;
    check.matters = "domains with many regions: each is a mapping or more";
    check.fix = as_root() + "sysctl vm.max_map_count=262144";
  }
  checks.push_back(check);
}

void check_files(Checks& checks) {
  rlimit limit{};
  (void)::getrlimit(RLIMIT_NOFILE, &limit);
  Check check{"Limits",  "open files",
              State::ok, limit.rlim_cur == RLIM_INFINITY ? "unlimited" : count_text(limit.rlim_cur),
              {},        {}};
  if (limit.rlim_cur < 1024) {
    check.state = State::limited;
    check.matters = "domains with many regions: each keeps a descriptor open";
    check.fix = limit.rlim_max >= 4096 ? "ulimit -n 4096" : as_root() + "prlimit --nofile=65536 --pid $$";
  }
  checks.push_back(check);
}

void check_overcommit(Checks& checks) {
  const std::int64_t mode = number_in("/proc/sys/vm/overcommit_memory");
  Check check{"Limits",  "overcommit",
              State::ok, mode == 0 ? "heuristic (0)" : mode == 1 ? "always (1)" : "never (2)",
              {},        {}};
  if (mode == 2) {
    check.state = State::limited;
    check.matters = "anonymous regions count in full from the start; hugepages and shared memory do not";
    check.fix = as_root() + "sysctl vm.overcommit_memory=0";
  } else if (mode < 0) {
    check.state = State::unknown;
    check.found = "/proc/sys/vm/overcommit_memory cannot be read";
  }
  checks.push_back(check);
}

}  // namespace

void check_limits(Checks& checks) {
  check_memlock(checks);
  check_address_space(checks);
  check_map_count(checks);
  check_files(checks);
  check_overcommit(checks);
}

}  // namespace extmem::cli::doctor
