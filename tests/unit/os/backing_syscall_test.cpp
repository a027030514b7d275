// Every system call that create_backing makes fails once, with every errno it may have: the error has that
// code (or the one that says more), and everything is as it was before.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cerrno>
#include <string>
#include <vector>

#include "os/backing.hpp"
#include "os/mapping.hpp"
#include "unit/os/backing_fixture.hpp"

namespace extmem::os {
namespace {

using test::ask;
using test::ask_for_file;
using test::Holdings;
using test::kMiB;
using test::TestFolder;

constexpr unsigned kAllBits = 0xffffffff;

struct Failure {
  BackingKind kind;
  long number;         // the system call
  int error;           // what it fails with
  int expected;        // what create_backing makes of it
  unsigned index = 0;  // only where argument `index`, masked, equals `value`
  unsigned mask = 0;
  unsigned value = 0;
  bool lock = false;
};

std::string fails_cleanly(const Failure& failure, const std::string& path) {
  BackingRequest request = ask(failure.kind, kMiB);
  request.prefault = true;
  request.lock = failure.lock;
  if (failure.kind == BackingKind::file) request.path_or_name = path.c_str();
  const Holdings before = Holdings::now();
  if (!test::fail_system_call(failure.number, failure.error, failure.index, failure.mask, failure.value)) {
    return "skip: no seccomp filters";
  }
  const Result<Mapping> mapping = create_backing(request);
  REQUIRE_ERROR(mapping, failure.expected);
  // What cannot be opened can neither be counted.
  if (failure.number != SYS_openat) REQUIRE(Holdings::now() == before);
  REQUIRE(!test::path_exists(path));
  return "";
}

TEST(BackingSystemCalls, AnyMayFail) {
  constexpr auto kFile = BackingKind::file;
  constexpr auto kMemfd = BackingKind::memfd;
  constexpr auto kAnonymous = BackingKind::anonymous;
  std::vector<Failure> failures;
  for (const int error : {EACCES, EPERM, EROFS, EMFILE, ENFILE, ENOSPC, ENXIO, ENODEV, ELOOP, ENOTDIR, EIO}) {
    failures.push_back({kFile, SYS_openat, error, error});
  }
  for (const int error : {ENOSPC, EDQUOT, EFBIG, ENOMEM, EPERM, EIO}) {
    failures.push_back({kFile, SYS_fallocate, error, error});
    failures.push_back({kMemfd, SYS_fallocate, error, error});
  }
  for (const int error : {EMFILE, ENFILE, ENOMEM, ENOSYS, EACCES}) {
    failures.push_back({kMemfd, SYS_memfd_create, error, error});
  }
  failures.push_back({kMemfd, SYS_fcntl, EINVAL, EINVAL, 1, kAllBits, F_ADD_SEALS});
  failures.push_back({kFile, SYS_fstatfs, EIO, EIO});
  for (const int error : {ENOMEM, EAGAIN, ENODEV, EACCES, EPERM, EINVAL, EOPNOTSUPP, EIO}) {
    failures.push_back({kFile, SYS_mmap, error, error, 3, MAP_SHARED, MAP_SHARED});
    failures.push_back({kMemfd, SYS_mmap, error, error, 3, MAP_SHARED, MAP_SHARED});
  }
  for (const int error : {EFAULT, ENOMEM, EHWPOISON, EIO}) {
    failures.push_back({kFile, SYS_madvise, error, error, 2, kAllBits, 23});  // MADV_POPULATE_WRITE
    failures.push_back({kAnonymous, SYS_madvise, error, error, 2, kAllBits, 23});
  }
  for (const int error : {ENOMEM, EPERM, EAGAIN, EIO}) {
    failures.push_back({kFile, SYS_mlock2, error, error, 0, 0, 0, true});
    failures.push_back({kAnonymous, SYS_mlock2, error, error, 0, 0, 0, true});
  }
  for (const Failure& failure : failures) {
    const TestFolder folder;
    const auto outcome = test::in_child([&] { return fails_cleanly(failure, folder.file("data")); });
    if (outcome.skipped) GTEST_SKIP() << "needs more than this machine gives a test: " << outcome.text;
    EXPECT_TRUE(outcome.ok) << "system call " << failure.number << " failing with " << failure.error << ": "
                            << outcome.text;
  }
}

TEST(BackingSystemCalls, AnInterruptedFallocateGoesOnInSmallerSteps) {
  RUN_IN_CHILD([] {
    // Interrupted whenever the step is 64 or 32 MiB long, as by a signal each time.
    for (const unsigned step : {64U << 20, 32U << 20}) {
      if (!test::fail_system_call(SYS_fallocate, EINTR, 3, step, step)) {
        return std::string("skip: no seccomp filters");
      }
    }
    Result<Mapping> mapping = create_backing(ask(BackingKind::memfd, 70 * kMiB));
    REQUIRE_OK(mapping);
    REQUIRE(test::works(*mapping));
    REQUIRE_OK(close_backing(*mapping));
    return std::string();
  });
}

TEST(BackingSystemCalls, ClosingReportsWhatFailsAndGoesOn) {
  const TestFolder folder;
  RUN_IN_CHILD([&] {
    const std::string path = folder.file("data");
    BackingRequest request = ask_for_file(path, kMiB);
    request.unlink_on_close = true;
    const Holdings before = Holdings::now();
    Result<Mapping> mapping = create_backing(request);
    REQUIRE_OK(mapping);
    if (!test::fail_system_call(SYS_unlinkat, EACCES)) return std::string("skip: no seccomp filters");
    REQUIRE_ERROR(close_backing(*mapping), EACCES);
    REQUIRE(Holdings::now() == before);
    REQUIRE(test::path_exists(path));
    REQUIRE(::unlink(path.c_str()) == 0);
    return std::string();
  });
}

}  // namespace
}  // namespace extmem::os
