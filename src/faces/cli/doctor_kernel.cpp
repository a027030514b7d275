// The kernel's part: its version and the system calls that extmem uses or that programs around it want.
#include <fcntl.h>
#include <fmt/core.h>
#include <linux/membarrier.h>
#include <linux/userfaultfd.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "faces/cli/doctor.hpp"

// Since glibc 2.35; weak, so that an older one does without.
extern "C" {
extern const unsigned int __rseq_size __attribute__((weak));
}

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

namespace extmem::cli::doctor {
namespace {

void check_version(Checks& checks) {
  utsname name{};
  unsigned major = 0;
  unsigned minor = 0;
  (void)::uname(&name);
  (void)std::sscanf(name.release, "%u.%u", &major, &minor);
  Check check{"Kernel",  "version",
              State::ok, fmt::format("{} {} {}", name.sysname, name.release, name.machine),
              {},        {}};
  if (major < 5 || (major == 5 && minor < 14)) {
    check.state = State::lacking;
    check.matters = "all of extmem: it is made for, and tested on, Linux 5.14 and newer";
    check.fix = "run Linux 5.14 or newer";
  }
  checks.push_back(check);
}

void check_membarrier(Checks& checks) {
  const long commands = ::syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
  const bool ours = commands >= 0 && (commands & MEMBARRIER_CMD_PRIVATE_EXPEDITED) != 0;
  const bool global = commands >= 0 && (commands & MEMBARRIER_CMD_GLOBAL_EXPEDITED) != 0;
  Check check{"Kernel", "membarrier", State::ok, "private and global, expedited", {}, {}};
  if (!ours || !global) {
    check.state = State::limited;
    check.found =
        commands < 0 ? fmt::format("refused: {}", std::strerror(errno)) : "without its expedited kinds";
    check.matters = "every allocation costs a full memory fence";
    check.fix = "let the system call membarrier through (a container's seccomp profile), or run Linux 4.16";
  }
  checks.push_back(check);
}

void check_rseq(Checks& checks) {
  Check check{"Kernel", "rseq", State::ok, "registered by the C library", {}, {}};
  if (&__rseq_size == nullptr || __rseq_size == 0) {
    check.state = State::limited;
    const bool there = ::syscall(SYS_rseq, nullptr, 0, 0, 0) == 0 || errno != ENOSYS;
    check.found = there ? "not registered (GLIBC_TUNABLES, or an old C library)" : "not in this kernel";
    check.matters = "allocators that keep a cache for each processor; extmem itself does without";
    check.fix = there ? "unset GLIBC_TUNABLES" : "run Linux 4.18 or newer, with CONFIG_RSEQ";
  }
  checks.push_back(check);
}

void check_userfaultfd(Checks& checks) {
  Check check{"Kernel", "userfaultfd", State::ok, {}, {}, {}};
  const long all = ::syscall(SYS_userfaultfd, O_CLOEXEC);
  const int all_failed = errno;
  const long user = all >= 0 ? -1 : ::syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
  if (all >= 0) {
    check.found = "for all faults";
  } else if (user >= 0) {
    check.state = State::limited;
    check.found = "for faults of user mode only";
    check.matters =
        "programs that track writes or move memory beneath system calls; extmem itself does without";
    check.fix = as_root() + "sysctl vm.unprivileged_userfaultfd=1";
  } else {
    check.state = State::limited;
    check.found = fmt::format("refused: {}", std::strerror(all_failed));
    check.matters = "programs that track writes or move memory; extmem itself does without";
    check.fix = all_failed == ENOSYS
                    ? "run a kernel with CONFIG_USERFAULTFD, or let the call through (seccomp)"
                    : as_root() + "sysctl vm.unprivileged_userfaultfd=1";
  }
  if (all >= 0) ::close(static_cast<int>(all));
  if (user >= 0) ::close(static_cast<int>(user));
  checks.push_back(check);
}

void check_ptrace(Checks& checks) {
  const std::int64_t scope = number_in("/proc/sys/kernel/yama/ptrace_scope", 0);
  Check check{"Kernel", "other processes' memfds", State::ok, "can be opened through /proc", {}, {}};
  if (scope > 0 && !has_capability(19 /* CAP_SYS_PTRACE */)) {
    check.state = State::limited;
    check.found = fmt::format("closed to this user (kernel.yama.ptrace_scope = {})", scope);
    check.matters = "sharing regions of memfds or hugepages without handing their descriptors over";
    check.fix = scope > 2 ? "reboot (ptrace_scope 3 cannot be lowered)"
                          : as_root() + "sysctl kernel.yama.ptrace_scope=0";
  }
  checks.push_back(check);
}

}  // namespace

void check_kernel(Checks& checks) {
  check_version(checks);
  check_membarrier(checks);
  check_rseq(checks);
  check_userfaultfd(checks);
  check_ptrace(checks);
}

}  // namespace extmem::cli::doctor
