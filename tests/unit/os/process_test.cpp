#include "os/process.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "os/shared_mapping.hpp"
#include "os/thread.hpp"
#include "unit/os/child.hpp"

namespace extmem::os {
namespace {

TEST(Process, LosesItsCapabilitiesWithRoot) {
  RUN_IN_CHILD([] {
    REQUIRE(test::drop_privileges());
    REQUIRE(!has_cap_sys_admin());
    REQUIRE(!has_cap_ipc_lock());
    return std::string();
  });
}

TEST(Process, KnowsItsBoot) {
  const Result<BootId> id = boot_id();
  ASSERT_TRUE(id) << id.error().message();
  EXPECT_NE(*id, BootId{});
  EXPECT_EQ(*id, *boot_id());
}

TEST(Process, GetsANewRandomNumberEachTime) {
  const std::uint64_t first = random_number();
  EXPECT_NE(first, random_number());
  EXPECT_NE(first >> 32, 0u) << "all of its bits are";
}

TEST(Process, HasAStartTimeThatStaysAndTellsItApart) {
  const Result<std::uint64_t> mine = process_start_time(process_id());
  ASSERT_TRUE(mine) << mine.error().message();
  EXPECT_GT(*mine, 0U);
  EXPECT_EQ(*mine, *process_start_time(process_id()));
  RUN_IN_CHILD([&] {
    // A name made to confuse: it looks like the fields that follow it.
    REQUIRE(::prctl(PR_SET_NAME, ") R 1 (2) 3") == 0);
    const Result<std::uint64_t> childs = process_start_time(process_id());
    REQUIRE_OK(childs);
    REQUIRE(*childs >= *mine);
    REQUIRE(*childs < *mine + 1'000'000);
    return std::string();
  });
}

/// What the test below turns a process into.
TEST(Process, TellsItsImage) {
  std::printf("image %llx\n", static_cast<unsigned long long>(program_image()));
}

TEST(Process, IsAnotherImageAfterExecAndTheSameAfterFork) {
  const std::uint64_t mine = program_image();
  EXPECT_NE(mine, 0u);
  EXPECT_EQ(mine, program_image());
  RUN_IN_CHILD([&] {
    REQUIRE(program_image() == mine);
    return std::string();
  });
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe(ends.data()), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(ends[1], STDOUT_FILENO);
    ::execl("/proc/self/exe", "image", "--gtest_filter=Process.TellsItsImage", nullptr);
    ::_exit(127);
  }
  ::close(ends[1]);
  FILE* told = ::fdopen(ends[0], "r");
  unsigned long long image = 0;
  for (char line[256]; std::fgets(line, sizeof line, told) != nullptr;) {
    if (const char* at = std::strstr(line, "image "); at != nullptr)
      (void)std::sscanf(at, "image %llx", &image);
  }
  std::fclose(told);
  ::waitpid(child, nullptr, 0);
  EXPECT_NE(image, 0u);
  EXPECT_NE(image, mine);
}

TEST(Process, HasNoImageWhereWhatTellsItIsWiped) {
  RUN_IN_CHILD([] {  // as the runtime of Go does
    std::memset(reinterpret_cast<void*>(::getauxval(AT_RANDOM)), 0, 16);
    REQUIRE(program_image() == 0);
    return std::string();
  });
}

TEST(Process, ThatIsNotThereHasNoStartTime) {
  EXPECT_EQ(process_start_time(0).error().code(), ESRCH);
  EXPECT_EQ(process_start_time(0xffffffff).error().code(), ESRCH);
}

TEST(Process, IsToldFromOnesThatEndedAndThatMapOtherThings) {
  const test::TestFolder folder;
  const std::string path = folder.path() + "/mapped";
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(::ftruncate(fd, 4096), 0);
  const auto file = identify(fd);
  ASSERT_TRUE(file);
  EXPECT_FALSE(process_maps_file(process_id(), file->device, file->inode));
  void* const p = ::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, fd, 0);
  ASSERT_NE(p, MAP_FAILED);
  EXPECT_TRUE(process_maps_file(process_id(), file->device, file->inode));
  EXPECT_FALSE(process_is_zombie(process_id()));
  const pid_t child = ::fork();
  if (child == 0) {
    ::pause();
    ::_exit(0);
  }
  const auto pid = static_cast<std::uint32_t>(child);
  EXPECT_TRUE(process_maps_file(pid, file->device, file->inode))
      << "a fork's child maps what its parent maps";
  ::kill(child, SIGKILL);
  siginfo_t info{};
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT), 0);
  EXPECT_TRUE(process_is_zombie(pid));
  ::waitpid(child, nullptr, 0);
  EXPECT_FALSE(process_is_zombie(pid));
  EXPECT_FALSE(process_maps_file(pid, file->device, file->inode));
  EXPECT_TRUE(process_is_gone(pid));
  EXPECT_FALSE(process_is_gone(process_id()));
  EXPECT_TRUE(process_is_gone(0));
  ::munmap(p, 4096);
  ::close(fd);
}

TEST(Process, HasANameAndANamespace) {
  char name[16] = {};
  process_name(name);
  EXPECT_NE(name[0], '\0');
  EXPECT_EQ(name[15], '\0');
  EXPECT_EQ(pid_namespace(), pid_namespace());
}

TEST(Process, WithoutProcIsAnError) {
  const test::TestFolder folder;
  RUN_IN_CHILD([&] {
    if (::chroot(folder.path().c_str()) != 0) return std::string("skip: needs root to chroot");
    REQUIRE_ERROR(boot_id(), ENOENT);
    REQUIRE_ERROR(process_start_time(process_id()), ESRCH);
    return std::string();
  });
}

}  // namespace
}  // namespace extmem::os
