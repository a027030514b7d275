// Every way in which making a backing fails: a precise error, and everything as it was before.
#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <limits>

#include "os/backing.hpp"
#include "os/hugepages.hpp"
#include "os/mapping.hpp"
#include "os/numa.hpp"
#include "unit/os/backing_fixture.hpp"
#include "unit/os/hugepage_pool.hpp"

namespace extmem::os {
namespace {

using test::ask;
using test::ask_for_file;
using test::Holdings;
using test::kMiB;
using test::TestFolder;

bool says(Error error, const char* words) { return std::strstr(error.message(), words) != nullptr; }

// The request fails with this code and these words, and leaves the process as it was.
std::string fails(const BackingRequest& request, int code, const char* words) {
  const Holdings before = Holdings::now();
  const Result<Mapping> mapping = create_backing(request);
  REQUIRE_ERROR(mapping, code);
  if (!says(mapping.error(), words)) return std::string("unexpected message: ") + mapping.error().message();
  REQUIRE(Holdings::now() == before);
  return "";
}

TEST(BackingRequestCheck, RefusesWhatMakesNoSense) {
  const auto expect = [](BackingRequest request, const char* words) {
    EXPECT_EQ(fails(request, EINVAL, words), "");
  };
  expect(ask(BackingKind::external, 1), "kind");
  expect(ask(static_cast<BackingKind>(99), 1), "kind");
  expect(ask(BackingKind::anonymous, 0), "at least one byte");
  expect(ask(BackingKind::anonymous, std::numeric_limits<std::size_t>::max()), "overflow");
  expect(ask(BackingKind::anonymous, std::numeric_limits<std::ptrdiff_t>::max()), "overflow");
  BackingRequest request = ask(BackingKind::anonymous, 1);
  request.os_page_size = 3;
  expect(request, "power of two");
  request.os_page_size = 2 * page_size();
  expect(request, "does not have OS pages of the size");
  request = ask(BackingKind::memfd, 1);
  request.os_page_size = 1;
  expect(request, "does not have OS pages of the size");
  request = ask(BackingKind::anonymous, 1);
  request.align = 3;
  expect(request, "alignment");
  request = ask(BackingKind::anonymous, 1);
  request.numa_node = -2;
  expect(request, "NUMA node");
  request.numa_node = 1022;
  expect(request, "no such NUMA node");
  for (const BackingKind kind : {BackingKind::shm, BackingKind::file, BackingKind::dax}) {
    request = ask(kind, 1);
    expect(request, "needs a path");
    request.path_or_name = "";
    expect(request, "needs a path");
  }
  for (const char* const name : {"name", "/", "/.", "/..", "/a/b", "//"}) {
    request = ask(BackingKind::shm, 1);
    request.path_or_name = name;
    expect(request, "name of a shm backing");
  }
  for (const BackingKind kind : {BackingKind::hugetlb, BackingKind::memfd_hugetlb, BackingKind::dax}) {
    request = ask(kind, 1);
    request.path_or_name = "/x";
    request.thp = true;
    expect(request, "thp");
  }
}

TEST(BackingPath, NamesWhatIsWrongWithIt) {
  const TestFolder folder;
  const auto expect = [](const std::string& path, int code, const char* words) {
    BackingRequest request = ask_for_file(path, 1);
    EXPECT_EQ(fails(request, code, words), "") << path.substr(0, 100);
  };
  expect(folder.file("none/file"), ENOENT, "no such file or folder");
  expect(folder.path(), EISDIR, "folder");
  expect(folder.path() + "/", EISDIR, "folder");
  expect(folder.file("."), EISDIR, "folder");
  expect(folder.file(std::string(256, 'n')), ENAMETOOLONG, "too long");
  expect(std::string(5000, '/') + "x", ENAMETOOLONG, "too long");
  ASSERT_TRUE(test::write_file(folder.file("file"), "x"));
  expect(folder.file("file/below"), ENOTDIR, "not a folder");
  ASSERT_EQ(::mkfifo(folder.file("pipe").c_str(), 0600), 0);
  expect(folder.file("pipe"), EINVAL, "not a regular file");
  expect("/dev/null", EINVAL, "not a regular file");
  ASSERT_EQ(::symlink("nowhere", folder.file("dangling").c_str()), 0);
  expect(folder.file("dangling"), ENOENT, "no such file");
  ASSERT_EQ(::symlink("loop", folder.file("loop").c_str()), 0);
  expect(folder.file("loop"), ELOOP, "links");

  const std::string missing = folder.file("missing");
  BackingRequest request = ask_for_file(missing, 1);
  request.create = false;
  EXPECT_EQ(fails(request, ENOENT, "ask for it to be created"), "");
  EXPECT_FALSE(test::path_exists(missing));

  const std::string label(300, 'l');
  request = ask(BackingKind::memfd, 1);
  request.path_or_name = label.c_str();
  EXPECT_EQ(fails(request, ENAMETOOLONG, "label"), "");
}

TEST(BackingPath, TooShortAFileIsLeftAsItIs) {
  const TestFolder folder;
  const std::string path = folder.file("short");
  ASSERT_TRUE(test::write_file(path, "x"));
  BackingRequest request = ask_for_file(path, page_size());
  request.create = false;
  EXPECT_EQ(fails(request, EINVAL, "shorter"), "");
  EXPECT_EQ(test::file_length(path), 1);
}

TEST(BackingPath, WithoutPermissionSaysSo) {
  const TestFolder folder;
  const std::string path = folder.file("mine");
  ASSERT_TRUE(test::write_file(path, "x"));
  ASSERT_EQ(::chmod(path.c_str(), 0444), 0);
  ASSERT_EQ(::chmod(folder.path().c_str(), 0555), 0);
  const auto outcome = test::in_child([&] {
    REQUIRE(test::drop_privileges());
    BackingRequest request = ask_for_file(path, page_size());
    if (const std::string wrong = fails(request, EACCES, "permission"); !wrong.empty()) return wrong;
    const std::string another = folder.file("another");
    request = ask_for_file(another, page_size());
    return fails(request, EACCES, "permission");
  });
  ::chmod(folder.path().c_str(), 0755);
  EXPECT_TRUE(outcome.ok) << outcome.text;
}

TEST(BackingPath, WithoutDescriptorsSaysSo) {
  RUN_IN_CHILD([] {
    REQUIRE(test::set_limit(RLIMIT_NOFILE, 3));
    const Result<Mapping> mapping = create_backing(ask(BackingKind::memfd, kMiB));
    REQUIRE(test::set_limit(RLIMIT_NOFILE, 64));
    REQUIRE_ERROR(mapping, EMFILE);
    REQUIRE(says(mapping.error(), "RLIMIT_NOFILE"));
    return std::string();
  });
}

TEST(BackingDax, OnAnOrdinaryFileSystemIsAnError) {
  const TestFolder folder;
  const std::string path = folder.file("data");
  BackingRequest request = ask_for_file(path, kMiB);
  request.kind = BackingKind::dax;
  EXPECT_EQ(fails(request, EOPNOTSUPP, "not on a DAX file system"), "");
  EXPECT_FALSE(test::path_exists(path));
  request.path_or_name = "/dev/zero";
  EXPECT_EQ(fails(request, EOPNOTSUPP, "not a DAX device"), "");
}

TEST(BackingDax, ADevicesSizeAndAlignmentCount) {
  const TestFolder folder;
  RUN_IN_CHILD([&] {
    if (!test::can_pretend("/sys/dev/char")) {
      return std::string("skip: needs root, mounts of its own, /proc and /sys");
    }
    // /dev/zero in the clothes of a DAX device of 4 MiB.
    REQUIRE(::mount("none", "/sys/dev/char", "tmpfs", 0, nullptr) == 0);
    REQUIRE(::mkdir("/sys/dev/char/1:5", 0755) == 0);
    REQUIRE(test::write_file("/sys/dev/char/1:5/size", "4194304\n"));
    REQUIRE(test::write_file("/sys/dev/char/1:5/align", "2097152\n"));
    BackingRequest request = ask(BackingKind::dax, 4 * kMiB + 1);
    request.path_or_name = "/dev/zero";
    if (std::string wrong = fails(request, EINVAL, "longer than its DAX device"); !wrong.empty()) {
      return wrong;
    }
    request.length = kMiB;
    request.os_page_size = page_size();
    if (std::string wrong = fails(request, EINVAL, "does not have OS pages"); !wrong.empty()) return wrong;
    request.os_page_size = 0;
    request.numa_node = numa_memory_nodes().id_at(0);
    if (std::string wrong = fails(request, EINVAL, "cannot be bound"); !wrong.empty()) return wrong;
    request.numa_node = kAnyNode;
    return fails(request, EOPNOTSUPP, "not on a DAX file system");
  });
}

TEST(BackingHugetlb, SaysWhichHugepagesAreMissing) {
  const std::size_t size = default_hugepage_size();
  if (size == 0) GTEST_SKIP() << "needs a kernel with hugepages";
  for (const BackingKind kind : {BackingKind::hugetlb, BackingKind::memfd_hugetlb}) {
    Shortage shortage;
    BackingRequest request = ask(kind, std::size_t{1} << 44);
    request.shortage = &shortage;
    EXPECT_EQ(fails(request, ENOMEM, "nr_hugepages"), "");
    EXPECT_EQ(shortage.unit, size);
    EXPECT_EQ(shortage.needed, (std::size_t{1} << 44) / size);
    EXPECT_LT(shortage.available, shortage.needed);
  }
}

TEST(BackingHugetlb, TellsNoneFromTooFew) {
  const std::size_t size = std::size_t{2} * kMiB;
  const TestFolder folder;
  RUN_IN_CHILD([&] {
    if (!test::can_pretend("/sys/kernel/mm/hugepages/hugepages-2048kB")) {
      return std::string("skip: needs root, mounts of its own, /proc and /sys");
    }
    const std::string pool = "/sys/kernel/mm/hugepages/hugepages-2048kB/";
    BackingRequest request = ask(BackingKind::hugetlb, std::size_t{1} << 44);
    request.os_page_size = size;
    REQUIRE(test::pretend(folder, pool + "nr_hugepages", "0\n"));
    if (std::string wrong = fails(request, ENOMEM, "no 2 MiB hugepages are reserved"); !wrong.empty()) {
      return wrong;
    }
    REQUIRE(test::pretend(folder, pool + "nr_hugepages", "7\n"));
    return fails(request, ENOMEM, "not enough 2 MiB hugepages are free");
  });
}

TEST(BackingHugetlb, DoesNotBlameThePoolForAnotherLimit) {
  const std::size_t size = default_hugepage_size();
  const test::HugepagesForATest hugepages(size, 2);
  if (!hugepages.ready()) GTEST_SKIP() << "needs hugepages: " << hugepages.why_not();
  RUN_IN_CHILD([&] {
    REQUIRE(test::set_limit(RLIMIT_AS, 0));
    const Result<Mapping> mapping = create_backing(ask(BackingKind::hugetlb, size));
    REQUIRE(test::set_limit(RLIMIT_AS, RLIM_INFINITY));
    REQUIRE_ERROR(mapping, ENOMEM);
    REQUIRE(says(mapping.error(), "RLIMIT_AS"));
    return std::string();
  });
}

TEST(BackingHugetlb, SizesThatTheMachineLacksAreRefused) {
  BackingRequest request = ask(BackingKind::hugetlb, 1);
  request.os_page_size = page_size();
  EXPECT_EQ(fails(request, EOPNOTSUPP, "hugepages"), "");
  request.os_page_size = std::size_t{1} << 40;
  EXPECT_EQ(fails(request, EOPNOTSUPP, "hugepages"), "");
  const TestFolder folder;
  RUN_IN_CHILD([&] {
    if (::chroot(folder.path().c_str()) != 0) return std::string("skip: needs root to chroot");
    for (const BackingKind kind : {BackingKind::hugetlb, BackingKind::memfd_hugetlb}) {
      BackingRequest blind = ask(kind, 1);
      REQUIRE_ERROR(create_backing(blind), EOPNOTSUPP);
      blind.os_page_size = std::size_t{1} << 40;  // no list to look it up: the kernel says no
      REQUIRE_ERROR(create_backing(blind), EOPNOTSUPP);
    }
    return std::string();
  });
}

}  // namespace
}  // namespace extmem::os
