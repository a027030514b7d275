#include "os/kept_descriptor.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

namespace extmem::os {
namespace {

class KeptDescriptorTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_GE(null_ = ::open("/dev/null", O_WRONLY | O_CLOEXEC), 0); }
  void TearDown() override { ::close(null_); }
  int null_ = -1;
};

TEST_F(KeptDescriptorTest, IsAboveTheNumbersThatProgramsCountOn) {
  KeptDescriptor kept;
  EXPECT_EQ(kept.get(), -1);
  kept.keep(null_, 300);
  ASSERT_GE(kept.get(), 300);
  EXPECT_TRUE(kept.is_file_of(null_));
  EXPECT_FALSE(kept.is_file_of(-1));
  EXPECT_NE(::fcntl(kept.get(), F_GETFD) & FD_CLOEXEC, 0);
  const int fd = kept.get();
  kept.drop();
  EXPECT_EQ(kept.get(), -1);
  EXPECT_LT(::fcntl(fd, F_GETFD), 0);
}

TEST_F(KeptDescriptorTest, IsNoneWhereTheProgramClosedItAndItsNumberIsAnothersNow) {
  KeptDescriptor kept;
  kept.keep(null_, 300);
  const int fd = kept.get();
  ASSERT_EQ(::close(fd), 0);
  EXPECT_EQ(kept.get(), -1);
  const int zero = ::open("/dev/zero", O_RDONLY | O_CLOEXEC);
  ASSERT_GE(zero, 0);
  ASSERT_EQ(::dup3(zero, fd, O_CLOEXEC), fd);
  EXPECT_EQ(kept.get(), -1);
  EXPECT_TRUE(kept.is_file_of(null_)) << "what it was it still knows";
  kept.drop();
  EXPECT_GE(::fcntl(fd, F_GETFD), 0) << "not ours to close";
  ::close(fd);
  ::close(zero);
}

TEST_F(KeptDescriptorTest, IsLowerWhereTheLimitIs) {
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit little{64, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &little), 0);
  KeptDescriptor kept;
  kept.keep(null_, 300);
  EXPECT_GE(kept.get(), 3);
  EXPECT_LT(kept.get(), 64);
  kept.drop();
  kept.keep(-1, 300);
  EXPECT_EQ(kept.get(), -1);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
}

}  // namespace
}  // namespace extmem::os
