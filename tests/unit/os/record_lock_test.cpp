// The token of liveness: who holds a byte's lock, and when it is let go.
#include "os/record_lock.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>

#include "unit/os/child.hpp"

namespace extmem::os {
namespace {

class RecordLock : public testing::Test {
 protected:
  void SetUp() override {
    path_ = folder_.path() + "/token";
    fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ASSERT_GE(fd_, 0);
  }
  void TearDown() override { ::close(fd_); }
  /// A process that holds a byte's lock until it is told to end: returns its pid and where to tell it.
  pid_t holder(std::uint64_t byte, int (&ends)[2]) {
    int ready[2];
    EXPECT_EQ(::pipe2(ready, O_CLOEXEC), 0);
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      ::close(ends[1]);
      const int own = ::open(path_.c_str(), O_RDWR | O_CLOEXEC);
      const char answer = *try_lock_byte(own, byte) ? 'y' : 'n';
      (void)!::write(ready[1], &answer, 1);
      char c;
      (void)!::read(ends[0], &c, 1);  // until the parent closes its end
      ::_exit(0);
    }
    ::close(ends[0]);
    ::close(ready[1]);
    char answer = '?';
    EXPECT_EQ(::read(ready[0], &answer, 1), 1);
    EXPECT_EQ(answer, 'y');
    ::close(ready[0]);
    return child;
  }

  test::TestFolder folder_;
  std::string path_;
  int fd_ = -1;
};

TEST_F(RecordLock, IsSeenByOthersAndGoneWithItsProcess) {
  int ends[2];
  const pid_t child = holder(7, ends);
  EXPECT_TRUE(byte_is_locked(fd_, 7));
  EXPECT_FALSE(byte_is_locked(fd_, 6));
  EXPECT_FALSE(byte_is_locked(fd_, 8));
  EXPECT_FALSE(*try_lock_byte(fd_, 7));
  EXPECT_TRUE(*try_lock_byte(fd_, 8));
  EXPECT_TRUE(byte_is_locked(fd_, 8)) << "its own, too: it may be another copy of the library's";
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_FALSE(byte_is_locked(fd_, 7));
  EXPECT_TRUE(*try_lock_byte(fd_, 7));
  ::close(ends[1]);
}

TEST_F(RecordLock, IsNotInheritedByAForksChild) {
  ASSERT_TRUE(*try_lock_byte(fd_, 3));
  RUN_IN_CHILD([&] {
    REQUIRE(byte_is_locked(fd_, 3));  // its parent's
    const auto taken = try_lock_byte(fd_, 3);
    REQUIRE_OK(taken);
    REQUIRE(!*taken);
    return std::string();
  });
  EXPECT_TRUE(*try_lock_byte(fd_, 3)) << "the child's end takes nothing from the parent";
  RUN_IN_CHILD([&] {
    REQUIRE(byte_is_locked(fd_, 3));
    return std::string();
  });
}

TEST_F(RecordLock, StaysWithAStoppedProcess) {
  int ends[2];
  const pid_t child = holder(1, ends);
  ::kill(child, SIGSTOP);
  ::waitpid(child, nullptr, WUNTRACED);
  EXPECT_TRUE(byte_is_locked(fd_, 1));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_FALSE(byte_is_locked(fd_, 1));
  ::close(ends[1]);
}

TEST_F(RecordLock, IsGivenBack) {
  ASSERT_TRUE(*try_lock_byte(fd_, 5));
  unlock_byte(fd_, 5);
  RUN_IN_CHILD([&] {
    REQUIRE(!byte_is_locked(fd_, 5));
    return std::string();
  });
}

TEST_F(RecordLock, InDoubtSomebodyHoldsIt) {
  EXPECT_EQ(try_lock_byte(-1, 0).error().code(), EBADF);
  EXPECT_TRUE(byte_is_locked(-1, 0));
}

}  // namespace
}  // namespace extmem::os
