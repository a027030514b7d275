// Named domains in programs and surroundings as they are: descriptors that the program closes, limits, no /proc, folders
// with another path.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "contract/companion.hpp"
#include "contract/runtime_directory.hpp"
#include "extmem/domain.hpp"
#include "extmem/inspect.hpp"

namespace extmem::test {
namespace {

class Surroundings : public testing::Test {
 protected:
  Surroundings() {
    OpenOptions options;
    options.directory = directory_.c_str();
    auto opened = Domain::open("d", options);
    EXPECT_TRUE(opened) << opened.error().message();
    domain_ = std::move(*opened);
    heap_ = domain_.create_heap("h").value_or(Heap{});
    add(BackingKind::anonymous);
  }
  ~Surroundings() override {
    if (domain_) {
      const auto verified = domain_.verify();
      EXPECT_TRUE(verified && *verified == 0);
    }
  }
  RegionId add(BackingKind kind, std::size_t length = 4 << 20) {
    BackingSpec spec;
    spec.kind = kind;
    spec.length = length;
    auto added = domain_.add_backing(heap_, spec);
    EXPECT_TRUE(added) << added.error().message();
    return added.value_or(RegionId{});
  }
  [[nodiscard]] std::string open(const std::string& directory, const char* name = "d") const {
    return words("open", name, directory, "any");
  }
  void join(Companion& other) {
    ASSERT_EQ(other.ask(open(directory_.path())).substr(0, 2), "ok");
    ASSERT_EQ(other.ask("heap h"), "ok");
  }
  /// An object of this process, with the bytes that `check 100 3` looks for.
  std::uint64_t object() {
    void* const p = heap_.allocate(100).value_or(nullptr);
    EXPECT_NE(p, nullptr);
    return domain_.to_region_ptr(p).value_or(RegionPtr{}).bits;
  }
  [[nodiscard]] bool held(std::uint64_t bits) const {
    const auto p = domain_.from_region_ptr(RegionPtr{bits});
    if (!p) return false;
    const auto owner = domain_.owner_of(*p);
    return owner && owner->held;
  }

  RuntimeDirectory directory_;
  Domain domain_;
  Heap heap_;
};

// ---- descriptors ---------------------------------------------------------------------------------------------

TEST_F(Surroundings, WhoClosedItsDescriptorsTakesNobodyForDead) {
  const std::uint64_t mine = object();
  RuntimeDirectory files;
  Companion other;
  join(other);
  ASSERT_EQ(other.code("many 1000 100"), 0);
  ASSERT_EQ(other.ask(words("replace_descriptors", files.path(), 16)), "ok");
  EXPECT_EQ(other.ask("participants"), "ok 1 2") << "what has the token file's number now is another file";
  EXPECT_EQ(other.ask("recover"), "ok 0 0 0");
  EXPECT_TRUE(held(mine));
  // It goes on where it needs no descriptor, and says why where it does.
  EXPECT_EQ(other.code("many 20000 100"), 0) << "the control segment grows";
  EXPECT_EQ(other.code("heap_new another"), 0);
  EXPECT_EQ(other.code("add anonymous 4194304"), EBADF);
  EXPECT_EQ(other.code("add memfd 4194304"), 0);
  EXPECT_EQ(other.code("many 20000 64"), 0);
  EXPECT_EQ(other.ask("verify"), "ok 0");
  EXPECT_EQ(other.ask("replaced_bytes"), "ok 0") << "nothing of the program's was touched";
  // A death that it sees nevertheless.
  Companion third;
  join(third);
  ASSERT_EQ(third.code("many 10 100"), 0);
  EXPECT_EQ(other.ask("participants"), "ok 1 2 3");
  third.kill();
  EXPECT_EQ(other.ask("participants"), "ok 1 2 3dead");
  EXPECT_EQ(other.ask("recover"), "ok 1 10 0");
  // And the others see that it lives, and then that it has died.
  const auto nothing = domain_.recover();
  ASSERT_TRUE(nothing);
  EXPECT_EQ(nothing->participants, 0u);
  EXPECT_EQ(other.ask("close"), "ok");
  EXPECT_EQ(other.ask("replaced_bytes"), "ok 0");
  EXPECT_EQ(other.ask(open(directory_.path())), "ok 2") << "opened anew it is as any other";
  EXPECT_EQ(other.ask("heap h"), "ok");
  EXPECT_EQ(other.code("add anonymous 4194304"), 0);
}

TEST_F(Surroundings, NoFileOfTheProgramIsTouched) {
  RuntimeDirectory files;
  Companion other;
  join(other);
  // Its page table is more than one unit of the control segment long; it is used, and given back.
  const auto use = [&] {
    const std::string region = other.ask("add memfd 67108864");
    ASSERT_EQ(region.substr(0, 3), "ok ");
    const std::uint64_t bits = other.number("allocate 60000000 64 1");
    EXPECT_EQ(other.ask(words("free", bits)), "ok");
    EXPECT_EQ(other.ask("remove " + region.substr(3)), "ok");
    EXPECT_EQ(other.ask("verify"), "ok 0");
  };
  use();
  const std::uint64_t before = domain_.metadata_resident_bytes();
  ASSERT_EQ(other.ask(words("replace_descriptors", files.path(), 16)), "ok");
  for (int i = 0; i < 3; ++i) use();
  EXPECT_LE(domain_.metadata_resident_bytes(), before) << "taken and given back through the mapping";
  EXPECT_EQ(other.ask("replaced_bytes"), "ok 0");
}

TEST_F(Surroundings, AForksChildWithoutDescriptorsIsTold) {
  RuntimeDirectory files;
  Companion other;
  join(other);
  ASSERT_EQ(other.ask("fork"), "ok");
  ASSERT_EQ(other.ask(words("replace_descriptors", files.path(), 16)), "ok");
  EXPECT_EQ(other.code("many 1 100000"), EBADF);
  EXPECT_EQ(other.code(open(directory_.path())), EBADF) << "what it has inherited is of no use";
  EXPECT_EQ(other.ask("replaced_bytes"), "ok 0");
  EXPECT_EQ(other.ask("close"), "ok");
  EXPECT_EQ(other.ask("replaced_bytes"), "ok 0");
  EXPECT_EQ(other.ask(open(directory_.path())), "ok 3");
  EXPECT_EQ(other.ask("heap h"), "ok");
  EXPECT_EQ(other.code("many 10 100"), 0);
}

TEST_F(Surroundings, NeitherDoInspectorsAndPrivateDomains) {
  RuntimeDirectory files;
  const std::string path = files.path() + "/backing";
  const pid_t child = ::fork();
  if (child == 0) {
    auto inspector = Inspector::open("d", directory_.c_str());
    auto own = Domain::create();
    if (!inspector || !own) ::_exit(1);
    auto heap = own->create_heap("h");
    for (const BackingKind kind : {BackingKind::memfd, BackingKind::file}) {
      BackingSpec spec;
      spec.kind = kind;
      spec.length = 1 << 20;
      spec.path = kind == BackingKind::file ? path.c_str() : nullptr;
      spec.unlink_on_remove = true;
      if (!own->add_backing(*heap, spec)) ::_exit(2);
    }
    for (int fd = 3; fd < 100; ++fd) ::close(fd);
    for (int fd = 3; fd < 30; ++fd) {
      if (::open(files.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC) != fd) ::_exit(3);
    }
    if (inspector->refresh().error().code() != EBADF) ::_exit(4);
    *inspector = Inspector();
    *own = Domain();
    for (int fd = 3; fd < 30; ++fd) {
      if (::fcntl(fd, F_GETFD) < 0) ::_exit(5);
    }
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(Surroundings, ADomainWhoseFolderIsLockedIsListed) {
  const int folder = ::open((directory_.path() + "/d").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  ASSERT_GE(folder, 0);
  Companion other;
  ASSERT_EQ(::flock(folder, LOCK_EX | LOCK_NB), 0);  // as by one who is stopped while it joins
  EXPECT_EQ(other.ask(words("domains", directory_.path())), "ok d/1");
  const std::string refused = other.ask(open(directory_.path()));
  EXPECT_EQ(Companion::code_of(refused), ETIMEDOUT);
  EXPECT_NE(refused.find("pid " + std::to_string(::getpid())), std::string::npos) << refused;
  ::close(folder);
  EXPECT_EQ(other.ask(words("domains", directory_.path())), "ok d/1");
}

// ---- limits --------------------------------------------------------------------------------------------------

TEST_F(Surroundings, AFileSizeLimitIsAnErrorAndNoSignal) {
  Companion other;
  ASSERT_EQ(other.ask("limit file_size 1000000"), "ok");
  EXPECT_EQ(other.code(open(directory_.path(), "new")), EFBIG);
  EXPECT_FALSE(std::filesystem::exists(directory_.path() + "/new")) << "nothing is left behind";
  EXPECT_EQ(other.code(open(directory_.path())), 0) << "one that is there is as long as it is";
}

TEST_F(Surroundings, TooFewDescriptorsLeaveNothingBehind) {
  int opened = 0;
  for (int files = 4; files < 16; ++files) {
    Companion other;
    ASSERT_EQ(other.ask(words("limit files", files)), "ok");
    const int code = other.code(open(directory_.path(), "new"));
    if (code == 0) {
      ++opened;
      EXPECT_EQ(other.ask("close"), "ok");
      const int removed = other.code(words("remove_domain new", directory_.path()));
      EXPECT_TRUE(removed == 0 || removed == EMFILE) << removed;
      if (removed != 0) {
        EXPECT_TRUE(Domain::remove("new", directory_.c_str())) << "it was still whole";
      }
    } else {
      EXPECT_EQ(code, EMFILE) << files;
    }
    EXPECT_FALSE(std::filesystem::exists(directory_.path() + "/new")) << files;
  }
  EXPECT_GT(opened, 0);
}

TEST_F(Surroundings, WithoutDescriptorsNobodyIsTakenForDeadWhoHasLostItsToken) {
  RuntimeDirectory files;
  const std::uint64_t mine = object();
  Companion tokenless, other;
  join(tokenless);
  join(other);
  ASSERT_EQ(tokenless.code("many 10 100"), 0);
  ASSERT_EQ(tokenless.ask(words("replace_descriptors", files.path(), 1)), "ok");
  ASSERT_EQ(other.ask("limit files 4"), "ok");
  EXPECT_EQ(other.ask("participants"), "ok 1 2 3");
  EXPECT_EQ(other.ask("recover"), "ok 0 0 0");
  EXPECT_TRUE(held(mine));
}

TEST_F(Surroundings, AnAllocationSaysThatARegionIsNotMappedHere) {
  Companion other;
  join(other);
  const std::string full = other.ask("allocate 6000000 64 1");
  EXPECT_EQ(Companion::code_of(full), ENOMEM);
  EXPECT_EQ(full.find("not mapped here"), std::string::npos) << full;
  ASSERT_EQ(other.ask("limit files 4"), "ok");
  add(BackingKind::anonymous, 8 << 20);
  const std::string refused = other.ask("allocate 6000000 64 1");
  EXPECT_EQ(Companion::code_of(refused), ENOMEM);
  EXPECT_NE(refused.find("not mapped here"), std::string::npos) << refused;
  ASSERT_EQ(other.ask("limit files 100"), "ok");
  EXPECT_EQ(other.code("allocate 6000000 64 1"), 0);
}

// ---- what is mounted -----------------------------------------------------------------------------------------

#define MOUNTED(asked)                                                                   \
  if (const int failed = Companion::code_of(asked); failed != 0) {                       \
    GTEST_SKIP() << "needs the right to mount and to chroot: " << std::strerror(failed); \
  }

TEST_F(Surroundings, WithoutProcADomainIsSharedToo) {
  const std::uint64_t mine = object();
  Companion other;
  MOUNTED(other.ask("without_proc"));
  ASSERT_EQ(other.ask(open(directory_.path())), "ok 2") << "it is not from before a reboot";
  ASSERT_EQ(other.ask("heap h"), "ok");
  EXPECT_EQ(other.code(words("address", mine)), 0);
  EXPECT_EQ(other.code("many 10 100"), 0);
  EXPECT_EQ(other.ask("participants"), "ok 1 2");
  const std::uint64_t region = other.number("add anonymous 8388608");
  const std::uint64_t theirs = other.number("allocate 6000000 64 1");
  EXPECT_EQ(theirs >> 48, region);
  EXPECT_TRUE(domain_.from_region_ptr(RegionPtr{theirs}));
  EXPECT_EQ(other.ask(words("domains", directory_.path())), "ok d/2");
  other.kill();
  const auto recovered = domain_.recover();
  ASSERT_TRUE(recovered);
  EXPECT_EQ(recovered->participants, 1u);
  EXPECT_EQ(recovered->freed_objects, 11u);
}

TEST_F(Surroundings, WithoutProcADomainIsMadeAndRemoved) {
  Companion other;
  MOUNTED(other.ask("without_proc"));
  ASSERT_EQ(other.ask(open(directory_.path(), "new")), "ok 1");
  ASSERT_EQ(other.ask("heap_new h"), "ok");
  EXPECT_EQ(other.code("add anonymous 4194304"), 0);
  const std::uint64_t theirs = other.number("allocate 100 64 1");
  OpenOptions options;
  options.directory = directory_.c_str();
  {
    const auto opened = Domain::open("new", options);
    ASSERT_TRUE(opened) << opened.error().message();
    EXPECT_TRUE(opened->from_region_ptr(RegionPtr{theirs}));
  }
  EXPECT_EQ(other.ask("close"), "ok");
  EXPECT_EQ(other.ask(words("remove_domain new", directory_.path())), "ok");
  EXPECT_FALSE(std::filesystem::exists(directory_.path() + "/new"));
  ASSERT_EQ(other.ask(words("open last", directory_.path(), "any last")), "ok 1");
  EXPECT_EQ(other.ask("close"), "ok");
  EXPECT_FALSE(std::filesystem::exists(directory_.path() + "/last"));
}

TEST_F(Surroundings, TheRuntimeDirectoryMayHaveAnotherPath) {
  const std::uint64_t mine = object();
  RuntimeDirectory elsewhere;
  Companion other;
  MOUNTED(other.ask(words("move_folder", directory_.path(), elsewhere.path())));
  ASSERT_EQ(other.ask(open(elsewhere.path())), "ok 2");
  ASSERT_EQ(other.ask("heap h"), "ok");
  EXPECT_EQ(other.code(words("address", mine)), 0);
  const std::uint64_t theirs = other.number("allocate 100 64 1");
  EXPECT_EQ(theirs >> 48, mine >> 48);
  const std::uint64_t region = other.number("add anonymous 8388608");
  const std::uint64_t large = other.number("allocate 6000000 64 1");
  EXPECT_EQ(large >> 48, region);
  EXPECT_TRUE(domain_.from_region_ptr(RegionPtr{large}));
}

TEST_F(Surroundings, BehindAChrootTheDomainGoesOn) {
  RuntimeDirectory root;
  Companion other;
  join(other);
  MOUNTED(other.ask(words("change_root", root.path())));
  EXPECT_EQ(other.code("many 10 100"), 0);
  const RegionId added = add(BackingKind::anonymous, 8 << 20);
  EXPECT_EQ(other.code(words("allocate_in", added.slot, added.generation, 100)), 0);
  const std::uint64_t region = other.number("add anonymous 16777216");
  void* const large = heap_.allocate(12'000'000).value_or(nullptr);
  ASSERT_NE(large, nullptr) << "this process maps what that one made";
  EXPECT_EQ(domain_.to_region_ptr(large).value_or(RegionPtr{}).slot(), region);
  EXPECT_EQ(other.ask("participants"), "ok 1 2");
  EXPECT_EQ(other.ask("verify"), "ok 0");
}

}  // namespace
}  // namespace extmem::test
