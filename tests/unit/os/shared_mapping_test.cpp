// Mapping again what another process made: the same file or nothing, at its address or a congruent one.
#include "os/shared_mapping.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>

#include "unit/os/child.hpp"

namespace extmem::os {
namespace {

constexpr std::size_t kLength = 1 << 20;

class SharedMapping : public testing::Test {
 protected:
  void SetUp() override {
    path_ = folder_.path() + "/region";
    fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ASSERT_GE(fd_, 0);
    ASSERT_EQ(::ftruncate(fd_, kLength), 0);
    file_ = *identify(fd_);
  }
  void TearDown() override { ::close(fd_); }
  test::TestFolder folder_;
  std::string path_;
  SharedFile file_;
  int fd_ = -1;
};

TEST_F(SharedMapping, OpensTheSameFileAndNoOther) {
  char path[192];
  ASSERT_TRUE(path_of(fd_, path, sizeof path).ok());
  auto again = open_shared_path(path, file_);
  ASSERT_TRUE(again.ok()) << again.error().message();
  EXPECT_EQ(identify(*again)->inode, file_.inode);
  ::close(*again);
  auto held = open_shared_holder(static_cast<std::uint32_t>(::getpid()), fd_, file_);
  ASSERT_TRUE(held.ok()) << held.error().message();
  ::close(*held);
  SharedFile other = file_;
  ++other.inode;
  EXPECT_EQ(open_shared_path(path, other).error().code(), ESTALE);
  other = file_;
  other.bytes = kLength + 1;
  EXPECT_EQ(open_shared_path(path, other).error().code(), ESTALE) << "cut short";
  EXPECT_EQ(open_shared_holder(static_cast<std::uint32_t>(::getpid()), 0x7fffffff, file_).error().code(),
            ENOENT);
  EXPECT_EQ(open_shared_path("/no/such/file", file_).error().code(), ENOENT);
}

TEST_F(SharedMapping, APathIsOnlyAPathWhileItNamesTheFile) {
  char path[192];
  EXPECT_EQ(path_of(fd_, path, 5).error().code(), ENAMETOOLONG);
  SharedFile other = file_;
  ++other.inode;
  EXPECT_TRUE(unlink_shared_path(path_.c_str(), other, false).ok());
  EXPECT_EQ(::access(path_.c_str(), F_OK), 0) << "another file's name was removed";
  EXPECT_TRUE(unlink_shared_path(path_.c_str(), file_, false).ok());
  EXPECT_TRUE(unlink_shared_path(path_.c_str(), file_, false).ok()) << "it is gone";
  EXPECT_NE(::access(path_.c_str(), F_OK), 0);
  EXPECT_EQ(path_of(fd_, path, sizeof path).error().code(), ENOENT);
  const int memfd = ::memfd_create("nameless", MFD_CLOEXEC);
  EXPECT_EQ(path_of(memfd, path, sizeof path).error().code(), ENOENT);
  ::close(memfd);
}

TEST_F(SharedMapping, TakesOverWhatIsTheSameFileAndSafe) {
  auto own = take_over(fd_, file_, false);
  ASSERT_TRUE(own.ok()) << own.error().message();
  EXPECT_NE(*own, fd_);
  EXPECT_EQ(identify(*own)->inode, file_.inode);
  ::close(*own);
  EXPECT_EQ(take_over(-1, file_, false).error().code(), EBADF);
  EXPECT_EQ(take_over(0x7fffffff, file_, false).error().code(), EBADF);
  SharedFile other = file_;
  other.bytes = kLength + 1;
  EXPECT_EQ(take_over(fd_, other, false).error().code(), ESTALE);
  EXPECT_EQ(take_over(fd_, file_, true).error().code(), EPERM) << "a file has no seals";
  const int read_only = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  EXPECT_EQ(take_over(read_only, file_, false).error().code(), EACCES);
  ::close(read_only);

  const int memfd = ::memfd_create("memory", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  ASSERT_EQ(::ftruncate(memfd, kLength), 0);
  const SharedFile memory = *identify(memfd);
  EXPECT_EQ(take_over(memfd, memory, true).error().code(), EPERM) << "it can still be cut short";
  ASSERT_EQ(::fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
  own = take_over(memfd, memory, true);
  ASSERT_TRUE(own.ok()) << own.error().message();
  ::close(*own);
  ::close(memfd);
}

TEST_F(SharedMapping, TakesTheWantedAddressOrACongruentOne) {
  SharedMappingRequest request;
  request.fd = fd_;
  request.length = kLength;
  void* const free_place = ::mmap(nullptr, kLength, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ::munmap(free_place, kLength);
  request.wanted = reinterpret_cast<std::uint64_t>(free_place);
  auto first = map_shared_at(request);
  ASSERT_TRUE(first.ok()) << first.error().message();
  EXPECT_EQ(static_cast<void*>(*first), free_place);
  auto second = map_shared_at(request);  // the place is taken now
  ASSERT_TRUE(second.ok()) << second.error().message();
  EXPECT_NE(*second, *first);
  EXPECT_EQ((reinterpret_cast<std::uint64_t>(*second) ^ request.wanted) & (kCongruence - 1), 0u);
  std::strcpy(reinterpret_cast<char*>(*first), "the same bytes");
  EXPECT_STREQ(reinterpret_cast<char*>(*second), "the same bytes");
  ::munmap(*first, kLength);
  ::munmap(*second, kLength);
  request.only_there = true;
  auto alone = map_shared_at(request);
  ASSERT_TRUE(alone.ok()) << alone.error().message();
  EXPECT_EQ(static_cast<void*>(*alone), free_place);
  EXPECT_EQ(map_shared_at(request).error().code(), EEXIST);
  ::munmap(*alone, kLength);
  request.fd = -1;
  EXPECT_EQ(map_shared_at(request).error().code(), EBADF);
}

}  // namespace
}  // namespace extmem::os
