// A private copy in the place of a shared mapping.
#include "os/private_copy.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "os/mapping.hpp"
#include "os/resident.hpp"

namespace extmem::os {
namespace {

constexpr std::size_t kLength = std::size_t{64} << 20;

class PrivateCopy : public ::testing::Test {
 protected:
  void SetUp() override {
    fd_ = ::memfd_create("copied", MFD_CLOEXEC);
    ASSERT_GE(fd_, 0);
    ASSERT_EQ(::ftruncate(fd_, kLength), 0);
    void* p = ::mmap(nullptr, kLength, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
    ASSERT_NE(p, MAP_FAILED);
    p_ = static_cast<std::byte*>(p);
    std::memset(p_ + 5000, 7, 20000);
    std::memset(p_ + kLength - 3 * 4096, 9, 4096);
  }
  void TearDown() override {
    ::munmap(p_, kLength);
    ::close(fd_);
  }
  void expect_copied() {
    EXPECT_EQ(p_[4999], std::byte{0});
    EXPECT_EQ(p_[5000], std::byte{7});
    EXPECT_EQ(p_[24999], std::byte{7});
    EXPECT_EQ(p_[25000], std::byte{0});
    EXPECT_EQ(p_[kLength - 3 * 4096], std::byte{9});
    EXPECT_EQ(p_[kLength - 1], std::byte{0});
    p_[5000] = std::byte{1};
    std::byte in_file{};
    ASSERT_EQ(::pread(fd_, &in_file, 1, 5000), 1);
    EXPECT_EQ(in_file, std::byte{7}) << "what is written to the copy stays in the copy";
  }

  int fd_ = -1;
  std::byte* p_ = nullptr;
};

TEST_F(PrivateCopy, HasWhatTheFileHadAndNoMore) {
  EXPECT_LT(bytes_to_copy(fd_, kLength), std::uint64_t{1} << 20);
  EXPECT_GE(bytes_to_copy(fd_, kLength), 24000u);
  ASSERT_TRUE(copy_in_place(CopyRequest{p_, kLength, fd_, -1}));
  EXPECT_LT(resident_bytes(p_, kLength), std::uint64_t{1} << 20)
      << "pages that were never written are not copied";
  expect_copied();
}

TEST_F(PrivateCopy, IsMadeWithoutTheFilesDescriptorToo) {
  ASSERT_TRUE(copy_in_place(CopyRequest{p_, kLength, -1, -1}));
  expect_copied();
}

TEST_F(PrivateCopy, ThatCannotBeHadChangesNothing) {
  const pid_t child = ::fork();
  if (child == 0) {
    const rlimit none{1 << 20, 1 << 20};
    ::setrlimit(RLIMIT_AS, &none);
    const auto copied = copy_in_place(CopyRequest{p_, kLength, fd_, -1});
    const bool right = !copied && copied.error().code() == ENOMEM && p_[5000] == std::byte{7};
    p_[0] = std::byte{3};
    ::_exit(right ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(p_[0], std::byte{3}) << "still shared";
}

}  // namespace
}  // namespace extmem::os
