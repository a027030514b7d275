// Small operations on files: what they return, and that errno stays as it was.
#include "os/file.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace extmem::os {
namespace {

class File : public testing::Test {
 protected:
  File() { errno = 77; }
  ~File() override {
    EXPECT_EQ(errno, 77);
    ::close(fd_);
  }
  int fd_ = ::memfd_create("file", MFD_CLOEXEC);
};

TEST_F(File, ReadsWhatIsThere) {
  ASSERT_EQ(set_length(fd_, 10'000), 0);
  ASSERT_EQ(::pwrite(fd_, "abcdef", 6, 9'996), 6);
  char bytes[8] = {};
  EXPECT_EQ(*read_at(fd_, bytes, 4, 9'996), 4u);
  EXPECT_EQ(std::memcmp(bytes, "abcd", 4), 0);
  EXPECT_EQ(*read_at(fd_, bytes, 8, 9'998), 4u) << "cut short";
  EXPECT_EQ(*read_at(fd_, bytes, 8, 20'000), 0u);
  EXPECT_EQ(read_at(-1, bytes, 8, 0).error().code(), EBADF);
}

TEST_F(File, TakesSpaceAndGivesItBack) {
  ASSERT_EQ(set_length(fd_, 1 << 20), 0);
  EXPECT_EQ(occupied_bytes(fd_), 0u);
  EXPECT_EQ(take_space(fd_, 65'536, 65'536), 0);
  EXPECT_EQ(occupied_bytes(fd_), 65'536u);
  ASSERT_EQ(::pwrite(fd_, "x", 1, 65'536), 1);
  give_space_back(fd_, 65'536, 65'536);
  EXPECT_EQ(occupied_bytes(fd_), 0u);
  char byte = 'y';
  EXPECT_EQ(*read_at(fd_, &byte, 1, 65'536), 1u);
  EXPECT_EQ(byte, '\0');
  struct stat status {};
  ASSERT_EQ(::fstat(fd_, &status), 0);
  EXPECT_EQ(status.st_size, 1 << 20);
  EXPECT_EQ(take_space(-1, 0, 4096), EBADF);
  EXPECT_EQ(set_length(-1, 0), EBADF);
  EXPECT_EQ(occupied_bytes(-1), 0u);
}

TEST_F(File, TellsWhereDataIs) {
  ASSERT_EQ(set_length(fd_, 1 << 20), 0);
  EXPECT_EQ(file_status(fd_)->bytes, 1u << 20);
  EXPECT_EQ(file_status(fd_)->names, 0u) << "a memfd has none";
  EXPECT_EQ(file_status(-1).error().code(), EBADF);
  EXPECT_EQ(*next_data(fd_, 0), kNoMore);
  ASSERT_EQ(::pwrite(fd_, "x", 1, 65'536), 1);
  EXPECT_EQ(*next_data(fd_, 0), 65'536u);
  EXPECT_EQ(next_hole(fd_, 65'536), 65'536u + static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)));
  EXPECT_EQ(next_hole(fd_, 1 << 21), kNoMore);
  EXPECT_EQ(next_data(-1, 0).error().code(), EBADF);
}

TEST_F(File, KnowsTheSameFile) {
  const int again = ::dup(fd_);
  EXPECT_TRUE(same_file(fd_, again));
  const int other = ::memfd_create("other", MFD_CLOEXEC);
  EXPECT_FALSE(same_file(fd_, other));
  EXPECT_FALSE(same_file(fd_, -1));
  close_file(other);
  EXPECT_EQ(::fcntl(other, F_GETFD), -1);
  errno = 77;
  close_file(-1);
  close_file(again);
}

}  // namespace
}  // namespace extmem::os
