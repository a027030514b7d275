#include "os/domain_folder.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "contract/runtime_directory.hpp"

namespace extmem::os {
namespace {

// Broke once: who opened a domain that was being made found a folder without a control segment and removed it, between the
// creator's mkdir and its open. The creator was told that there is no such domain.
TEST(DomainFolder, IsMadeAlthoughOthersRemoveItWhileItIsEmpty) {
  const test::RuntimeDirectory directory;
  const std::string path = directory.path() + "/d";
  const ::pid_t remover = ::fork();
  ASSERT_GE(remover, 0);
  if (remover == 0) {
    (void)::prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) (void)::rmdir(path.c_str());
  }
  FolderRequest request;
  request.directory = directory.c_str();
  request.name = "d";
  request.create = true;
  for (int i = 0; i < 50'000; ++i) {
    const auto folder = DomainFolder::open_locked(request);
    ASSERT_TRUE(folder) << "after " << i << " times: " << folder.error().message();
  }
  EXPECT_EQ(::kill(remover, SIGKILL), 0);
  EXPECT_EQ(::waitpid(remover, nullptr, 0), remover);
}

TEST(DomainFolder, IsNotMadeByWhoOnlyOpensIt) {
  const test::RuntimeDirectory directory;
  FolderRequest request;
  request.directory = directory.c_str();
  request.name = "d";
  const auto folder = DomainFolder::open_locked(request);
  ASSERT_FALSE(folder);
  EXPECT_EQ(folder.error().code(), ENOENT);
  EXPECT_NE(::access((directory.path() + "/d").c_str(), F_OK), 0);
}

TEST(DomainFolder, SaysWhoKeepsItLocked) {
  const test::RuntimeDirectory directory;
  FolderRequest request;
  request.directory = directory.c_str();
  request.name = "d";
  request.create = true;
  const ::pid_t keeper = ::fork();
  ASSERT_GE(keeper, 0);
  if (keeper == 0) {
    (void)::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const auto folder = DomainFolder::open_locked(request);
    (void)::raise(SIGSTOP);
    ::_exit(folder ? 0 : 1);
  }
  ASSERT_EQ(::waitpid(keeper, nullptr, WUNTRACED), keeper);
  const auto folder = DomainFolder::open_locked(request);
  ASSERT_FALSE(folder);
  EXPECT_EQ(folder.error().code(), ETIMEDOUT);
  const std::string message = folder.error().message();
  EXPECT_NE(message.find("pid " + std::to_string(keeper) + ";"), std::string::npos) << message;
  EXPECT_EQ(::kill(keeper, SIGKILL), 0);
  EXPECT_EQ(::waitpid(keeper, nullptr, 0), keeper);
  EXPECT_TRUE(DomainFolder::open_locked(request));
}

}  // namespace
}  // namespace extmem::os
