// Backings that run out of memory, space or patience on the way: never a SIGBUS, nothing left behind.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <sys/time.h>

#include <cerrno>
#include <cstring>

#include "os/backing.hpp"
#include "os/hugepages.hpp"
#include "os/lock.hpp"
#include "os/mapping.hpp"
#include "unit/os/backing_fixture.hpp"
#include "unit/os/hugepage_pool.hpp"

namespace extmem::os {
namespace {

using test::ask;
using test::ask_for_file;
using test::Holdings;
using test::kMiB;
using test::TestFolder;

constexpr unsigned kAllBits = 0xffffffff;
constexpr unsigned kPopulateWrite = 23;  // MADV_POPULATE_WRITE
constexpr unsigned kNoexecSeal = 8;      // MFD_NOEXEC_SEAL

bool says(Error error, const char* words) { return std::strstr(error.message(), words) != nullptr; }

TEST(BackingSpace, BeyondTheAddressSpaceIsAnError) {
  RUN_IN_CHILD([] {
    for (const std::size_t align : {std::size_t{0}, kMiB}) {
      BackingRequest request = ask(BackingKind::anonymous, 64 * kMiB);
      request.align = align;
      REQUIRE(test::set_limit(RLIMIT_AS, 0));
      const Result<Mapping> mapping = create_backing(request);
      REQUIRE(test::set_limit(RLIMIT_AS, RLIM_INFINITY));
      REQUIRE_ERROR(mapping, ENOMEM);
      REQUIRE(says(mapping.error(), "RLIMIT_AS"));
    }
    return std::string();
  });
}

// The kernel would not fail: it would end processes until there is room.
TEST(BackingSpace, BeyondTheMachinesMemoryIsAnErrorBeforeAPageIsTaken) {
  struct sysinfo machine {};
  ASSERT_EQ(::sysinfo(&machine), 0);
  const std::uint64_t all = (std::uint64_t{machine.totalram} + machine.totalswap) * machine.mem_unit;
  for (const BackingKind kind : {BackingKind::anonymous, BackingKind::memfd}) {
    const Holdings before = Holdings::now();
    BackingRequest request = ask(kind, all + 1024 * kMiB);
    request.prefault = kind == BackingKind::anonymous;
    bool called = false;
    const auto note = [&](std::uint64_t, std::uint64_t) { return called = true; };
    request.progress = note;
    const Result<Mapping> mapping = create_backing(request);
    ASSERT_FALSE(mapping);
    EXPECT_EQ(mapping.error().code(), ENOMEM);
    EXPECT_TRUE(kind == BackingKind::anonymous || says(mapping.error(), "MemAvailable") ||
                says(mapping.error(), "memory.max"))
        << mapping.error().message();
    EXPECT_FALSE(called);
    EXPECT_EQ(Holdings::now(), before);
  }
}

// What others take meanwhile is missing at the next step.
TEST(BackingSpace, MemoryThatRunsShortOnTheWayIsAnErrorThere) {
  const TestFolder folder;
  RUN_IN_CHILD([&] {
    if (!test::can_pretend("/proc/meminfo")) return std::string("skip: no mount namespace");
    std::size_t reached = 0;
    const auto shorten = [&](std::uint64_t done, std::uint64_t) {
      reached = done;
      return done == 64 * kMiB && !test::pretend(folder, "/proc/meminfo", "MemAvailable: 65536 kB\n");
    };
    BackingRequest request = ask(BackingKind::memfd, 192 * kMiB);
    request.progress = shorten;
    const Result<Mapping> mapping = create_backing(request);
    REQUIRE_ERROR(mapping, ENOMEM);
    REQUIRE(says(mapping.error(), "MemAvailable"));
    REQUIRE(reached == 64 * kMiB);
    return std::string();
  });
}

TEST(BackingSpace, BeyondTheLockLimitNamesItBeforeTheLongWork) {
  RUN_IN_CHILD([] {
    REQUIRE(test::drop_privileges());
    REQUIRE(test::set_limit(RLIMIT_MEMLOCK, 64 << 10));
    bool called = false;
    const auto note = [&](std::uint64_t, std::uint64_t) { return called = true; };
    for (const BackingKind kind : {BackingKind::anonymous, BackingKind::memfd}) {
      Shortage shortage;
      BackingRequest request = ask(kind, kMiB);
      request.lock = true;
      request.progress = note;
      request.shortage = &shortage;
      const Holdings before = Holdings::now();
      const Result<Mapping> mapping = create_backing(request);
      REQUIRE_ERROR(mapping, ENOMEM);
      REQUIRE(says(mapping.error(), "RLIMIT_MEMLOCK"));
      REQUIRE(!called);
      REQUIRE(shortage.unit == 1 && shortage.needed == kMiB && shortage.available == 64 << 10);
      REQUIRE(Holdings::now() == before);
    }
    return std::string();
  });
}

TEST(BackingSpace, AFullTmpfsIsAnError) {
  const TestFolder folder;
  RUN_IN_CHILD([&] {
    if (!test::own_mounts() ||
        ::mount("none", folder.path().c_str(), "tmpfs", 0, "size=4m,huge=never") != 0) {
      return std::string("skip: needs root to mount a small tmpfs");
    }
    const std::string path = folder.file("data");
    for (const bool prefault : {false, true}) {
      BackingRequest request = ask_for_file(path, 8 * kMiB);
      request.prefault = prefault;
      const Holdings before = Holdings::now();
      const Result<Mapping> mapping = create_backing(request);
      REQUIRE_ERROR(mapping, ENOSPC);
      REQUIRE(says(mapping.error(), "tmpfs is full"));
      REQUIRE(!test::path_exists(path));
      REQUIRE(Holdings::now() == before);
    }
    // A file that was there before gets its length back, and keeps what it holds.
    REQUIRE(test::write_file(path, "precious"));
    const Result<Mapping> longer = create_backing(ask_for_file(path, 8 * kMiB));
    REQUIRE_ERROR(longer, ENOSPC);
    REQUIRE(test::file_length(path) == 8);
    // A file with holes fills up all the same.
    REQUIRE(::truncate(path.c_str(), 8 * kMiB) == 0);
    BackingRequest sparse = ask_for_file(path, 8 * kMiB);
    sparse.create = false;
    REQUIRE_ERROR(create_backing(sparse), ENOSPC);
    REQUIRE(::unlink(path.c_str()) == 0);
    Result<Mapping> fits = create_backing(ask_for_file(path, 2 * kMiB));
    REQUIRE_OK(fits);
    REQUIRE(test::works(*fits));
    REQUIRE_OK(close_backing(*fits));
    return std::string();
  });
}

TEST(BackingSpace, AFullTmpfsIsAnErrorWithTransparentHugepagesToo) {
  const TestFolder folder;
  const TestFolder settings;
  RUN_IN_CHILD([&] {
    if (!test::can_pretend("/sys/kernel/mm/transparent_hugepage/shmem_enabled") ||
        ::mount("none", folder.path().c_str(), "tmpfs", 0, "size=4m,huge=advise") != 0) {
      return std::string("skip: needs root to mount a small tmpfs with transparent hugepages");
    }
    const std::string setting = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
    REQUIRE(test::pretend(settings, setting, "always within_size [advise] never deny force\n"));
    const std::string path = folder.file("data");
    BackingRequest request = ask_for_file(path, 8 * kMiB);
    request.thp = true;
    REQUIRE_ERROR(create_backing(request), ENOSPC);
    REQUIRE(!test::path_exists(path));
    request.length = 2 * kMiB;
    Result<Mapping> fits = create_backing(request);
    REQUIRE_OK(fits);
    REQUIRE(test::file_length(path) == static_cast<long long>(2 * kMiB));
    REQUIRE(test::works(*fits));
    REQUIRE_OK(close_backing(*fits));
    return std::string();
  });
}

TEST(BackingSpace, TransparentHugepagesThatAreOffAreAnError) {
  const TestFolder settings;
  RUN_IN_CHILD([&] {
    REQUIRE(::prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0);
    for (const BackingKind kind : {BackingKind::anonymous, BackingKind::memfd}) {
      BackingRequest request = ask(kind, 4 * kMiB);
      request.thp = true;
      REQUIRE_ERROR(create_backing(request), EOPNOTSUPP);
    }
    const TestFolder folder;
    const std::string path = folder.file("data");
    BackingRequest request = ask_for_file(path, kMiB);
    request.thp = true;
    const Result<Mapping> mapping = create_backing(request);
    REQUIRE(mapping.error().code() == EINVAL || mapping.error().code() == EOPNOTSUPP);  // a disk, a tmpfs
    REQUIRE(!test::path_exists(path));
    return std::string();
  });
}

TEST(BackingSpace, BeyondTheFileSizeLimitIsAnErrorAndNoSignal) {
  const TestFolder folder;
  RUN_IN_CHILD([&] {
    REQUIRE(test::set_limit(RLIMIT_FSIZE, kMiB));
    const std::string path = folder.file("data");
    const Result<Mapping> mapping = create_backing(ask_for_file(path, 2 * kMiB));
    REQUIRE_ERROR(mapping, EFBIG);
    REQUIRE(says(mapping.error(), "RLIMIT_FSIZE"));
    REQUIRE(!test::path_exists(path));
    REQUIRE_ERROR(create_backing(ask(BackingKind::memfd, 2 * kMiB)), EFBIG);
    Result<Mapping> fits = create_backing(ask(BackingKind::memfd, kMiB));
    REQUIRE_OK(fits);
    return std::string();
  });
}

// Cancelled at the first call, the second, ... until it gets through.
TEST(BackingSpace, CancellingUndoesEverything) {
  const TestFolder folder;
  const std::string path = folder.file("data");
  for (const BackingKind kind : {BackingKind::anonymous, BackingKind::memfd, BackingKind::file}) {
    for (int cancel_at = 0;; ++cancel_at) {
      int calls = 0;
      const auto cancel = [&](std::uint64_t, std::uint64_t) { return calls++ == cancel_at; };
      BackingRequest request = ask(kind, 130 * kMiB);
      request.prefault = true;
      request.progress = cancel;
      if (kind == BackingKind::file) request.path_or_name = path.c_str();
      request.unlink_on_close = kind == BackingKind::file;
      const Holdings before = Holdings::now();
      Result<Mapping> mapping = create_backing(request);
      if (mapping) {
        EXPECT_EQ(cancel_at, 4) << "0, 64, 128 and 130 MiB";
        EXPECT_TRUE(close_backing(*mapping));
        break;
      }
      ASSERT_EQ(mapping.error().code(), ECANCELED) << mapping.error().message();
      EXPECT_EQ(calls, cancel_at + 1);
      EXPECT_EQ(Holdings::now(), before);
      EXPECT_FALSE(test::path_exists(path));
    }
  }
}

TEST(BackingSpace, CancellingGivesAFileItsLengthBack) {
  const TestFolder folder;
  const std::string path = folder.file("data");
  ASSERT_TRUE(test::write_file(path, "precious"));
  const auto cancel = [](std::uint64_t done, std::uint64_t) { return done > 0; };
  BackingRequest request = ask_for_file(path, 4 * kMiB);
  request.progress = cancel;
  EXPECT_EQ(create_backing(request).error().code(), ECANCELED);
  EXPECT_EQ(test::file_length(path), 8);
}

TEST(BackingSpace, AFileSystemWithoutFallocateNeedsAFullFile) {
  const TestFolder folder;
  RUN_IN_CHILD([&] {
    if (!test::fail_system_call(SYS_fallocate, EOPNOTSUPP)) return std::string("skip: no seccomp filters");
    const std::string path = folder.file("data");
    const Result<Mapping> mapping = create_backing(ask_for_file(path, kMiB));
    REQUIRE_ERROR(mapping, EOPNOTSUPP);
    REQUIRE(says(mapping.error(), "fallocate"));
    REQUIRE(!test::path_exists(path));

    const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    REQUIRE(fd >= 0);
    const std::string content(kMiB, 'x');
    REQUIRE(::write(fd, content.data(), content.size()) == static_cast<ssize_t>(content.size()));
    REQUIRE(::fsync(fd) == 0);  // until then some file systems count no blocks
    ::close(fd);
    Result<Mapping> full = create_backing(ask_for_file(path, kMiB));
    REQUIRE_OK(full);
    REQUIRE(full->addr[kMiB - 1] == std::byte{'x'});
    REQUIRE_OK(close_backing(*full));
    // One with a hole is not good enough.
    REQUIRE(::truncate(path.c_str(), 4 * kMiB) == 0);
    REQUIRE_ERROR(create_backing(ask_for_file(path, 4 * kMiB)), EOPNOTSUPP);
    return std::string();
  });
}

TEST(BackingSpace, SurvivesSignalsAllTheTime) {
  RUN_IN_CHILD([] {
    struct sigaction action {};
    action.sa_handler = [](int) {};
    REQUIRE(::sigaction(SIGALRM, &action, nullptr) == 0);
    const itimerval often{{0, 1000}, {0, 1000}};
    REQUIRE(::setitimer(ITIMER_REAL, &often, nullptr) == 0);
    BackingRequest request = ask(BackingKind::memfd, 256 * kMiB);
    request.prefault = true;
    Result<Mapping> mapping = create_backing(request);
    REQUIRE_OK(mapping);
    REQUIRE_OK(close_backing(*mapping));
    return std::string();
  });
}

TEST(BackingOldKernel, WithoutPopulateTouchesWhatCannotFail) {
  const TestFolder folder;
  RUN_IN_CHILD([&] {
    if (!test::fail_system_call(SYS_madvise, EINVAL, 2, kAllBits, kPopulateWrite)) {
      return std::string("skip: no seccomp filters");
    }
    for (const BackingKind kind : {BackingKind::anonymous, BackingKind::memfd}) {
      BackingRequest request = ask(kind, 2 * kMiB);
      request.prefault = true;
      Result<Mapping> mapping = create_backing(request);
      REQUIRE_OK(mapping);
      std::array<unsigned char, 512> present{};
      REQUIRE(::mincore(mapping->addr, present.size() * page_size(), present.data()) == 0);
      for (const unsigned char p : present) REQUIRE((p & 1) != 0);
      REQUIRE(test::works(*mapping));
      REQUIRE_OK(close_backing(*mapping));
    }
    const std::string path = folder.file("data");
    BackingRequest request = ask_for_file(path, kMiB);
    request.prefault = true;
    const Result<Mapping> mapping = create_backing(request);
    if (mapping) return std::string("skip: the test's folder is on a tmpfs, where touching is safe");
    REQUIRE_ERROR(mapping, EOPNOTSUPP);
    REQUIRE(says(mapping.error(), "5.14"));
    REQUIRE(!test::path_exists(path));
    return std::string();
  });
}

TEST(BackingOldKernel, WithoutPopulateTouchingKeepsWhatThereIs) {
  if (::access("/dev/shm", W_OK) != 0) GTEST_SKIP() << "needs /dev/shm";
  const std::string name = test::shm_name("touch");
  const std::string content(page_size(), 'x');
  ASSERT_TRUE(test::write_file("/dev/shm" + name, content));
  const auto outcome = test::in_child([&] {
    if (!test::fail_system_call(SYS_madvise, EINVAL, 2, kAllBits, kPopulateWrite)) {
      return std::string("skip: no seccomp filters");
    }
    BackingRequest request = ask(BackingKind::shm, page_size());
    request.path_or_name = name.c_str();
    request.prefault = true;
    Result<Mapping> mapping = create_backing(request);
    REQUIRE_OK(mapping);
    REQUIRE(std::memcmp(mapping->addr, content.data(), content.size()) == 0);
    return std::string();
  });
  ::unlink(("/dev/shm" + name).c_str());
  if (outcome.skipped) GTEST_SKIP() << "needs more than this machine gives a test: " << outcome.text;
  EXPECT_TRUE(outcome.ok) << outcome.text;
}

TEST(BackingOldKernel, WithoutNoexecSealStillMakesMemfds) {
  RUN_IN_CHILD([] {
    if (!test::fail_system_call(SYS_memfd_create, EINVAL, 1, kNoexecSeal, kNoexecSeal)) {
      return std::string("skip: no seccomp filters");
    }
    Result<Mapping> mapping = create_backing(ask(BackingKind::memfd, kMiB));
    REQUIRE_OK(mapping);
    REQUIRE(test::works(*mapping));
    return std::string();
  });
}

TEST(BackingOldKernel, WithoutMemfdsSaysSo) {
  RUN_IN_CHILD([] {
    if (!test::fail_system_call(SYS_memfd_create, ENOSYS)) return std::string("skip: no seccomp filters");
    REQUIRE_ERROR(create_backing(ask(BackingKind::memfd, kMiB)), ENOSYS);
    return std::string();
  });
}

TEST(BackingBroken, PagesThatCannotComeAreAnError) {
  const TestFolder folder;
  RUN_IN_CHILD([&] {
    if (!test::fail_system_call(SYS_madvise, EFAULT, 2, kAllBits, kPopulateWrite)) {
      return std::string("skip: no seccomp filters");
    }
    const std::string path = folder.file("data");
    BackingRequest request = ask_for_file(path, kMiB);
    request.prefault = true;
    REQUIRE_ERROR(create_backing(request), EFAULT);
    REQUIRE(!test::path_exists(path));
    return std::string();
  });
}

}  // namespace
}  // namespace extmem::os
