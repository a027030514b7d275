// Named domains, through both faces: opening, listing, removing, and runtime directories that are not safe.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "contract/companion.hpp"
#include "contract/face.hpp"
#include "contract/runtime_directory.hpp"

namespace extmem::test {
namespace {

class NamedDomain : public testing::TestWithParam<FaceKind> {
 protected:
  [[nodiscard]] OpenOptions options(OpenMode mode = OpenMode::create_or_open) const {
    OpenOptions options;
    options.directory = directory_.c_str();
    options.mode = mode;
    return options;
  }
  [[nodiscard]] std::unique_ptr<Face> face() const { return make_face(GetParam()); }
  /// A command for a companion.
  [[nodiscard]] std::string open(const char* name, const char* mode, const char* flags = "") const {
    return words("open", name, directory_.path(), mode, flags);
  }
  std::vector<DomainInfo> list() const {
    std::vector<DomainInfo> domains;
    EXPECT_EQ(face()->list(directory_.c_str(), domains), 0);
    return domains;
  }
  void expect_refused(int code, const OpenOptions& with, const char* name = "d") const {
    const auto one = face();
    EXPECT_EQ(one->open(name, with), -code) << one->message();
    EXPECT_NE(one->message(), "");
  }

  RuntimeDirectory directory_;
};

TEST_P(NamedDomain, IsCreatedByWhoeverComesFirst) {
  expect_refused(ENOENT, options(OpenMode::open_only));
  EXPECT_TRUE(list().empty()) << "a refused open leaves nothing behind";
  const auto first = face();
  ASSERT_EQ(first->open("d", options()), 0) << first->message();
  Companion other;
  EXPECT_EQ(other.code(open("d", "create")), EEXIST);
  EXPECT_EQ(other.number(open("d", "only")), 2u);
  expect_refused(EEXIST, options(OpenMode::create_only));
  const auto domains = list();
  ASSERT_EQ(domains.size(), 1u);
  EXPECT_STREQ(domains[0].name, "d");
  EXPECT_EQ(domains[0].participants, 2u);
  EXPECT_EQ(domains[0].dead, 0u);
  EXPECT_GT(domains[0].bytes, 0u);
  EXPECT_LT(domains[0].bytes, 4u << 20);
}

TEST_P(NamedDomain, OpenedTwiceInOneProcessIsOneParticipant) {
  const auto first = face();
  const auto second = face();
  ASSERT_EQ(first->open("d", options()), 0) << first->message();
  ASSERT_EQ(second->open("d", options()), 0) << second->message();
  std::uint32_t a = 0, b = 0;
  ASSERT_EQ(first->participant(a), 0);
  ASSERT_EQ(second->participant(b), 0);
  EXPECT_EQ(a, b);
  Heap heap;
  ASSERT_EQ(first->create_heap("mine", heap), 0) << first->message();
  first->close();
  Heap same;
  ASSERT_EQ(second->find_heap("mine", same), 0) << second->message();
  EXPECT_EQ(heap, same);
  std::vector<ParticipantInfo> participants;
  ASSERT_EQ(second->list_participants(participants), 0) << second->message();
  ASSERT_EQ(participants.size(), 1u);
  EXPECT_TRUE(participants[0].self);
}

TEST_P(NamedDomain, OfTwoCreatorsAtOnceExactlyOneCreates) {
  Companion one, two;
  for (int round = 0; round < 20; ++round) {
    const std::string name = "race" + std::to_string(round);
    const std::string command = open(name.c_str(), round % 2 == 0 ? "create" : "any");
    one.tell(command);
    two.tell(command);
    const int first = Companion::code_of(one.hear());
    const int second = Companion::code_of(two.hear());
    if (round % 2 == 0) {
      EXPECT_EQ(first + second, EEXIST) << first << " and " << second;
    } else {
      EXPECT_EQ(first, 0);
      EXPECT_EQ(second, 0);
      EXPECT_EQ(one.code("heap_new h"), 0);
      EXPECT_EQ(two.code("heap h"), 0) << "both have the same domain";
    }
    EXPECT_EQ(one.code("close"), 0);
    EXPECT_EQ(two.code("close"), 0);
    EXPECT_EQ(face()->remove(name.c_str(), directory_.c_str()), 0);
  }
}

TEST_P(NamedDomain, IsRemovedWhenNobodyUsesIt) {
  const auto one = face();
  EXPECT_EQ(one->remove("d", directory_.c_str()), -ENOENT);
  ASSERT_EQ(one->open("d", options()), 0) << one->message();
  EXPECT_EQ(face()->remove("d", directory_.c_str()), -EBUSY);
  Companion other;
  EXPECT_EQ(other.code(open("d", "only")), 0);
  one->close();
  EXPECT_EQ(face()->remove("d", directory_.c_str()), -EBUSY);
  EXPECT_EQ(other.code("close"), 0);
  EXPECT_EQ(list().size(), 1u) << "it stays when nobody uses it";
  EXPECT_EQ(face()->remove("d", directory_.c_str()), 0);
  EXPECT_TRUE(std::filesystem::is_empty(directory_.path()));
}

TEST_P(NamedDomain, FilesOfRegionsElsewhereGoWithIt) {
  const std::string outside = directory_.path() + ".outside";
  const std::string shm = "/extmem-test-" + std::to_string(::getpid());
  std::filesystem::create_directory(outside);
  const auto file = [&](const char* name) { return outside + "/" + name; };
  for (const bool by_its_last_user : {false, true}) {
    SCOPED_TRACE(by_its_last_user);
    Companion other;
    ASSERT_EQ(other.code(open("d", "create", by_its_last_user ? "last" : "")), 0);
    ASSERT_EQ(other.ask("heap_new h"), "ok");
    for (const char* name : {"goes", "removed", "replaced"})
      ASSERT_EQ(other.code(words("add", "file", 1 << 20, file(name), "unlink")), 0);
    ASSERT_EQ(other.code(words("add", "file", 1 << 20, file("stays"))), 0);
    ASSERT_EQ(other.code(words("add", "shm", 1 << 20, shm, "unlink")), 0);
    ASSERT_TRUE(std::filesystem::exists("/dev/shm" + shm));
    std::filesystem::remove(file("removed"));
    std::filesystem::remove(file("replaced"));
    std::ofstream(file("replaced")) << "somebody else's";
    if (by_its_last_user) {
      EXPECT_EQ(other.code("close"), 0);
    } else {
      other.kill();
      EXPECT_EQ(face()->remove("d", directory_.c_str()), 0);
    }
    EXPECT_TRUE(list().empty());
    EXPECT_FALSE(std::filesystem::exists(file("goes")));
    EXPECT_FALSE(std::filesystem::exists("/dev/shm" + shm));
    EXPECT_TRUE(std::filesystem::exists(file("stays"))) << "nobody asked for its removal";
    EXPECT_TRUE(std::filesystem::exists(file("replaced"))) << "another file's name by now";
  }
  std::filesystem::remove_all(outside);
}

TEST_P(NamedDomain, AFileThatCannotBeRemovedIsNamedAndKeepsTheDomain) {
  const std::string outside = directory_.path() + ".outside";
  std::filesystem::create_directory(outside);
  if (::geteuid() == 0) {  // root may remove everything: so as another user
    ASSERT_EQ(::chown(outside.c_str(), 65534, 65534), 0);
    ASSERT_EQ(::chown(directory_.c_str(), 65534, 65534), 0);
  }
  Companion other;
  if (::geteuid() == 0) {
    ASSERT_EQ(other.ask("become 65534 65534"), "ok");
  }
  ASSERT_EQ(other.code(open("d", "create")), 0);
  ASSERT_EQ(other.ask("heap_new h"), "ok");
  const std::string path = outside + "/memory";
  ASSERT_EQ(other.code(words("add", "file", 1 << 20, path, "unlink")), 0);
  ASSERT_EQ(other.code("close"), 0);
  ASSERT_EQ(::chmod(outside.c_str(), 0500), 0);
  const std::string why = other.ask(words("remove_domain", "d", directory_.path()));
  EXPECT_EQ(Companion::code_of(why), EACCES) << why;
  EXPECT_NE(why.find(path), std::string::npos) << why;
  EXPECT_TRUE(std::filesystem::exists(path));
  ASSERT_EQ(other.code(open("d", "only", "last")), 0) << "the domain is there as before";
  EXPECT_EQ(other.code("close"), 0);
  EXPECT_TRUE(std::filesystem::exists(directory_.file("d", "control")))
      << "its last user cannot remove it either";
  ASSERT_EQ(::chmod(outside.c_str(), 0700), 0);
  EXPECT_EQ(other.ask(words("remove_domain", "d", directory_.path())), "ok");
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_FALSE(std::filesystem::exists(directory_.path() + "/d"));
  if (::geteuid() == 0) {
    ASSERT_EQ(::chown(directory_.c_str(), 0, 0), 0);
  }
  std::filesystem::remove_all(outside);
}

TEST_P(NamedDomain, ADeadProcessKeepsNothing) {
  Companion other;
  ASSERT_EQ(other.code(open("d", "create")), 0);
  other.kill();
  auto domains = list();
  ASSERT_EQ(domains.size(), 1u);
  EXPECT_EQ(domains[0].participants, 0u);
  EXPECT_EQ(domains[0].dead, 1u);
  const auto one = face();
  ASSERT_EQ(one->open("d", options(OpenMode::open_only)), 0) << one->message();
  EXPECT_EQ(list()[0].dead, 0u) << "who opens it cleans up";
  one->close();
  EXPECT_EQ(face()->remove("d", directory_.c_str()), 0);
}

TEST_P(NamedDomain, TheLastOneRemovesItIfItWasTold) {
  OpenOptions last = options();
  last.remove_when_last = true;
  const auto one = face();
  ASSERT_EQ(one->open("d", last), 0) << one->message();
  Companion other;
  ASSERT_EQ(other.code(open("d", "only", "last")), 0);
  one->close();
  EXPECT_EQ(list().size(), 1u) << "it was not the last";
  EXPECT_EQ(other.code("close"), 0);
  EXPECT_TRUE(std::filesystem::is_empty(directory_.path()));
}

TEST_P(NamedDomain, APermanentOneIsRemovedByRemoveOnly) {
  OpenOptions permanent = options(OpenMode::create_only);
  permanent.permanent = true;
  const auto one = face();
  ASSERT_EQ(one->open("d", permanent), 0) << one->message();
  one->close();
  OpenOptions last = options(OpenMode::open_only);
  last.remove_when_last = true;
  const auto two = face();
  ASSERT_EQ(two->open("d", last), 0) << two->message();
  two->close();
  EXPECT_EQ(list().size(), 1u);
  EXPECT_EQ(face()->remove("d", directory_.c_str()), 0);
  EXPECT_TRUE(std::filesystem::is_empty(directory_.path()));
}

TEST_P(NamedDomain, TheFirstRecoveryTellsWhatOpeningRecovered) {
  Companion other;
  ASSERT_EQ(other.code(open("d", "create")), 0);
  other.kill();
  const auto one = face();
  ASSERT_EQ(one->open("d", options(OpenMode::open_only)), 0) << one->message();
  RecoveryReport report;
  ASSERT_EQ(one->recover(report), 0) << one->message();
  EXPECT_EQ(report.participants, 1u);
  ASSERT_EQ(one->recover(report), 0) << one->message();
  EXPECT_EQ(report.participants, 0u);
}

TEST_P(NamedDomain, RefusesBadNames) {
  expect_refused(EINVAL, options(), "");
  expect_refused(EINVAL, options(), ".hidden");
  expect_refused(EINVAL, options(), "..");
  expect_refused(EINVAL, options(), "a/b");
  expect_refused(ENAMETOOLONG, options(), std::string(64, 'x').c_str());
  EXPECT_EQ(face()->remove("../x", directory_.c_str()), -EINVAL);
  EXPECT_EQ(face()->remove("", directory_.c_str()), -EINVAL);
  EXPECT_TRUE(std::filesystem::is_empty(directory_.path()));
  const auto one = face();
  EXPECT_EQ(one->open(std::string(63, 'x').c_str(), options()), 0) << one->message();
}

TEST_P(NamedDomain, RefusesSenselessOptions) {
  OpenOptions bad = options();
  bad.sizes.max_threads = 0;
  expect_refused(EINVAL, bad);
  bad = options();
  bad.mode = static_cast<OpenMode>(3);
  expect_refused(EINVAL, bad);
  EXPECT_TRUE(std::filesystem::is_empty(directory_.path()));
}

TEST_P(NamedDomain, CanBeOpenedAgainWhenEveryProcessIsGone) {
  std::uint64_t bits = 0;
  {
    Companion other;
    ASSERT_EQ(other.code(open("d", "create")), 0);
    ASSERT_EQ(other.code("heap_new h"), 0);
    ASSERT_EQ(other.code("add anonymous 4194304"), 0);
    bits = other.number("zone_reserve kept 5000");
  }
  const auto one = face();
  ASSERT_EQ(one->open("d", options(OpenMode::open_only)), 0) << one->message();
  MemzoneInfo zone;
  ASSERT_EQ(one->find_memzone("kept", zone), 0) << one->message();
  EXPECT_EQ(zone.ptr.bits, bits);
  EXPECT_NE(zone.addr, nullptr) << "the memory is in the domain's folder, and is mapped again";
}

// ---- runtime directories -----------------------------------------------------------------------------------

TEST_P(NamedDomain, RefusesRuntimeDirectoriesThatAreNotSafe) {
  OpenOptions at = options();
  const std::string link = directory_.path() + "/link", folder = directory_.path() + "/real";
  std::filesystem::create_directory(folder);
  std::filesystem::permissions(folder, std::filesystem::perms::owner_all);
  std::filesystem::create_directory_symlink(folder, link);
  at.directory = link.c_str();
  expect_refused(ELOOP, at);

  const std::string file = directory_.path() + "/file";
  std::ofstream(file) << "x";
  at.directory = file.c_str();
  expect_refused(ELOOP, at);

  at.directory = folder.c_str();
  for (const mode_t mode : {0777u, 0707u, 0770u, 0720u}) {
    ASSERT_EQ(::chmod(folder.c_str(), mode), 0);
    expect_refused(EPERM, at);
  }
  ASSERT_EQ(::chmod(folder.c_str(), 0700), 0);
  EXPECT_TRUE(std::filesystem::is_empty(folder)) << "a refused open leaves nothing behind";

  const std::string missing = directory_.path() + "/no/such";
  at.directory = missing.c_str();
  expect_refused(ENOENT, at);
  const std::string longest = "/" + std::string(300, 'x');
  at.directory = longest.c_str();
  expect_refused(ENAMETOOLONG, at);
  const std::string proc =
      "/proc/" + std::to_string(::getpid());  // no tmpfs, whatever the machine's disks are
  at.directory = proc.c_str();
  at.mode = OpenMode::open_only;
  EXPECT_EQ(face()->open("d", at), -ENOTSUP);
}

TEST_P(NamedDomain, RefusesADomainsFolderThatIsNotSafe) {
  const std::string real = directory_.path() + "/.real", link = directory_.path() + "/d";
  std::filesystem::create_directory(real);
  std::filesystem::permissions(real, std::filesystem::perms::owner_all);
  std::filesystem::create_directory_symlink(real, link);
  expect_refused(ELOOP, options());
  EXPECT_EQ(face()->remove("d", directory_.c_str()), -ELOOP);
  std::filesystem::remove(link);
  std::filesystem::create_directory(link);
  ASSERT_EQ(::chmod(link.c_str(), 0777), 0);
  expect_refused(EPERM, options());
}

TEST_P(NamedDomain, RefusesFilesThatAreNotSafe) {
  for (const char* file : {"control", "alive"}) {
    SCOPED_TRACE(file);
    ASSERT_EQ(face()->open("d", options()), 0);
    const std::string path = directory_.file("d", file), elsewhere = directory_.path() + "/.elsewhere";
    std::filesystem::rename(path, elsewhere);
    std::filesystem::create_symlink(elsewhere, path);
    EXPECT_NE(face()->open("d", options()), 0);
    std::filesystem::remove(path);
    ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);  // must not hang, either
    EXPECT_NE(face()->open("d", options()), 0);
    std::filesystem::remove(path);
    std::filesystem::create_directory(path);
    EXPECT_NE(face()->open("d", options()), 0);
    std::filesystem::remove_all(directory_.path() + "/d");
  }
}

TEST_P(NamedDomain, RefusesFoldersOfOthers) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root: to give a folder to another user";
  ASSERT_EQ(::chown(directory_.c_str(), 65534, 65534), 0);
  expect_refused(EPERM, options());
  std::vector<DomainInfo> domains;
  EXPECT_EQ(face()->list(directory_.c_str(), domains), -EPERM);
  ASSERT_EQ(::chown(directory_.c_str(), 0, 0), 0);
  ASSERT_EQ(face()->open("d", options()), 0);
  ASSERT_EQ(::chown((directory_.path() + "/d").c_str(), 65534, 65534), 0);
  expect_refused(EPERM, options());
}

TEST_P(NamedDomain, GroupsMayShareIt) {
  ASSERT_EQ(::chmod(directory_.c_str(), 0770), 0);
  OpenOptions group = options();
  group.group = true;
  const mode_t umask = ::umask(0077);
  const auto one = face();
  EXPECT_EQ(one->open("d", group), 0) << one->message();
  ::umask(umask);
  struct stat status {};
  ASSERT_EQ(::stat((directory_.path() + "/d").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0770u);
  for (const char* file : {"control", "alive"}) {
    ASSERT_EQ(::stat(directory_.file("d", file).c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0660u) << file;
  }
  expect_refused(EPERM, options(OpenMode::open_only));  // who does not ask for it does not trust the group
}

TEST_P(NamedDomain, OfAGroupIsListedAndRemovedLikeAnyOther) {
  ASSERT_EQ(::chmod(directory_.c_str(), 0770), 0);
  OpenOptions group = options();
  group.group = true;
  const auto one = face();
  ASSERT_EQ(one->open("d", group), 0) << one->message();
  const auto own = face();
  EXPECT_EQ(own->open("own", options()), -EPERM) << "nor may it lie in a folder of the group";
  ASSERT_EQ(list().size(), 1u);
  EXPECT_STREQ(list()[0].name, "d");
  EXPECT_EQ(list()[0].participants, 1u);
  EXPECT_EQ(face()->remove("d", directory_.c_str()), -EBUSY);
  one->close();
  EXPECT_EQ(face()->remove("d", directory_.c_str()), 0);
  EXPECT_TRUE(std::filesystem::is_empty(directory_.path()));
  ASSERT_EQ(::chmod(directory_.c_str(), 0777), 0);
  std::vector<DomainInfo> domains;
  EXPECT_EQ(face()->list(directory_.c_str(), domains), -EPERM) << "anybody's is nobody's";
  EXPECT_EQ(face()->remove("d", directory_.c_str()), -EPERM);
}

TEST_P(NamedDomain, AGroupsDomainRemovesNoFilesThatAreNotTheGroups) {
  // Any member of the group may have written into the control segment which files go with it.
  const std::string outside = directory_.path() + ".outside";
  std::filesystem::create_directory(outside);
  ASSERT_EQ(::chmod(directory_.c_str(), 0770), 0);
  const std::string path = outside + "/memory";
  Companion other;
  ASSERT_EQ(other.code(open("d", "create", "group")), 0);
  ASSERT_EQ(other.ask("heap_new h"), "ok");
  ASSERT_EQ(other.code(words("add", "file", 1 << 20, path, "unlink")), 0);
  other.kill();
  ASSERT_EQ(::chmod(path.c_str(), 0640), 0);
  const auto one = face();
  EXPECT_EQ(one->remove("d", directory_.c_str()), -EPERM);
  EXPECT_NE(one->message().find(path), std::string::npos) << one->message();
  EXPECT_TRUE(std::filesystem::exists(path));
  ASSERT_EQ(::chmod(path.c_str(), 0660), 0);
  EXPECT_EQ(face()->remove("d", directory_.c_str()), 0);
  EXPECT_FALSE(std::filesystem::exists(path));
  std::filesystem::remove_all(outside);
}

TEST_P(NamedDomain, GroupsOfDifferentUsersShareIt) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root: to become another user";
  ASSERT_EQ(::chmod(directory_.c_str(), 0770), 0);
  OpenOptions group = options();
  group.group = true;
  const auto one = face();
  ASSERT_EQ(one->open("d", group), 0) << one->message();
  Heap heap;
  ASSERT_EQ(one->create_heap("h", heap), 0);
  BackingSpec backing;
  backing.length = 4 << 20;
  RegionId region;
  ASSERT_EQ(one->add_backing(heap, backing, region), 0) << one->message();
  Companion other;
  ASSERT_EQ(other.ask(words("become", 65534, ::getegid())), "ok");
  ASSERT_EQ(other.ask(open("d", "only", "group")), "ok 2");
  ASSERT_EQ(other.ask("heap h"), "ok");
  const std::uint64_t bits = other.number("allocate 100 16 7");
  void* p = nullptr;
  ASSERT_EQ(one->from_region_ptr(RegionPtr{bits}, p), 0) << one->message();
  EXPECT_EQ(one->deallocate(p), 0) << one->message();
  EXPECT_EQ(other.code("close"), 0);
}

// ---- a full tmpfs ------------------------------------------------------------------------------------------

TEST_P(NamedDomain, AFullTmpfsIsAnErrorAndNoSigbus) {
  Companion other;  // the mount is the companion's alone
  if (const int failed = other.code(words("mount", directory_.path(), "64k")); failed != 0) {
    GTEST_SKIP() << "needs the right to mount a tmpfs: " << std::strerror(failed);
  }
  EXPECT_EQ(other.code(open("d", "any")), ENOSPC);
  EXPECT_EQ(other.code(open("d", "any")), ENOSPC);
}

TEST_P(NamedDomain, ATmpfsThatFillsUpIsAnErrorAndNoSigbus) {
  for (const char* size : {"1m", "2m", "4m", "8m", "12m"}) {
    SCOPED_TRACE(size);
    Companion other;
    if (const int failed = other.code(words("mount", directory_.path(), size)); failed != 0) {
      GTEST_SKIP() << "needs the right to mount a tmpfs: " << std::strerror(failed);
    }
    const int opened = other.code(open("d", "any"));
    EXPECT_TRUE(opened == 0 || opened == ENOSPC) << opened;
    if (opened != 0) continue;
    int code = other.code("heap_new h");
    for (int i = 0; i < 40 && code == 0; ++i) code = other.code("add memfd 4194304");
    EXPECT_TRUE(code == 0 || code == ENOSPC) << code;
    code = 0;
    for (int i = 0; i < 100 && code == 0; ++i) code = other.code(words("many", 5000, 64 << i % 7));
    EXPECT_TRUE(code == ENOSPC || code == ENOMEM) << code;
    EXPECT_EQ(other.ask("verify"), "ok 0");
    for (int i = 0; i < 10; ++i) (void)other.code(words("zone_reserve", "z" + std::to_string(i), 64));
    for (int i = 0; i < 10; ++i) (void)other.code(words("heap_new", "h" + std::to_string(i)));
    EXPECT_EQ(other.ask("verify"), "ok 0");
    EXPECT_EQ(other.code("close"), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Faces, NamedDomain, testing::Values(FaceKind::cpp, FaceKind::c),
                         [](const auto& with) { return name_of(with.param); });

}  // namespace
}  // namespace extmem::test
