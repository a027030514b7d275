// What broke: a file could back two regions of a domain, which then handed out the same bytes twice; and an add that was
// refused after the mapping left the caller's file longer than it was.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string>

#include "extmem/extmem.hpp"

namespace extmem {
namespace {

class FileAsTwoRegions : public testing::Test {
 protected:
  void SetUp() override {
    const char* const folder = std::getenv("TMPDIR");
    path_ = std::string(folder != nullptr ? folder : "/tmp") + "/extmem-two-regions-" +
            std::to_string(::getpid());
    auto domain = Domain::create();
    ASSERT_TRUE(domain.ok());
    domain_ = std::move(*domain);
    auto heap = domain_.create_heap("h");
    ASSERT_TRUE(heap.ok());
    heap_ = *heap;
    spec_.kind = BackingKind::file;
    spec_.path = path_.c_str();
    spec_.length = 1 << 20;
  }
  void TearDown() override { ::unlink(path_.c_str()); }
  long length() const {
    struct stat status {};
    return ::stat(path_.c_str(), &status) == 0 ? static_cast<long>(status.st_size) : -1;
  }

  std::string path_;
  Domain domain_;
  Heap heap_;
  BackingSpec spec_;
};

TEST_F(FileAsTwoRegions, IsRefused) {
  auto first = domain_.add_backing(heap_, spec_);
  ASSERT_TRUE(first.ok()) << first.error().message();
  auto other = domain_.create_heap("other");
  ASSERT_TRUE(other.ok());
  EXPECT_EQ(domain_.add_backing(*other, spec_).error().code(), EEXIST);
  const std::string link = path_ + "-link";
  ASSERT_EQ(::link(path_.c_str(), link.c_str()), 0);
  BackingSpec again = spec_;
  again.path = link.c_str();
  EXPECT_EQ(domain_.add_backing(heap_, again).error().code(), EEXIST) << "by another name";
  again.unlink_on_remove = true;
  EXPECT_EQ(domain_.add_backing(heap_, again).error().code(), EEXIST);
  EXPECT_EQ(::access(link.c_str(), F_OK), 0) << "a refused add removed the name";
  ::unlink(link.c_str());
  EXPECT_EQ(length(), 1 << 20);
  ASSERT_TRUE(domain_.remove_region(*first).ok());
  EXPECT_TRUE(domain_.add_backing(*other, spec_).ok()) << "once the first region is gone";
}

TEST_F(FileAsTwoRegions, ARefusedAddLeavesTheFileAsItWas) {
  auto region = domain_.add_backing(heap_, spec_);
  ASSERT_TRUE(region.ok()) << region.error().message();
  ASSERT_TRUE(domain_.remove_region(*region).ok());
  ASSERT_EQ(length(), 1 << 20);
  const RegionListener refuses = [](const RegionEvent& event, void*) {
    return event.kind == RegionEventKind::added ? EPERM : 0;
  };
  ASSERT_TRUE(domain_.add_listener(refuses, nullptr).ok());
  BackingSpec longer = spec_;
  longer.length = 4 << 20;
  EXPECT_EQ(domain_.add_backing(heap_, longer).error().code(), EPERM);
  EXPECT_EQ(length(), 1 << 20);
  ::unlink(path_.c_str());
  EXPECT_EQ(domain_.add_backing(heap_, longer).error().code(), EPERM);
  EXPECT_EQ(length(), -1) << "a file that the add made is still there";
  ASSERT_TRUE(domain_.remove_listener(refuses, nullptr).ok());
  EXPECT_TRUE(domain_.add_backing(heap_, longer).ok());
  EXPECT_EQ(length(), 4 << 20);
}

}  // namespace
}  // namespace extmem
