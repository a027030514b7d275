// What broke: in a program that had closed its standard input, output or error, as daemons do, extmem's own files got those numbers,
// and what the program printed was written over a heap's memory or into the folder of a domain.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "extmem/extmem.hpp"

namespace extmem {
namespace {

std::string temporary_folder(const char* below) {
  std::string name = std::string(below) + "/extmem-standard-XXXXXX";
  return ::mkdtemp(name.data()) != nullptr ? name : std::string();
}

class StandardDescriptors : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_FALSE(folder_.empty());
    ASSERT_FALSE(runtime_.empty());
  }
  void TearDown() override {
    std::filesystem::remove_all(folder_);
    std::filesystem::remove_all(runtime_);
  }

  /// What `work` returns in a child with none of the three open; 100 + n where one of them is open afterwards.
  template <typename Work>
  static int without_them(Work work) {
    const pid_t child = ::fork();
    if (child == 0) {
      for (int fd : {0, 1, 2}) ::close(fd);
      int failed = work();
      for (int fd : {0, 1, 2}) {
        if (::fcntl(fd, F_GETFD) >= 0) failed = 100 + fd;
      }
      ::_exit(failed);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

  std::string folder_ = temporary_folder("/tmp");
  std::string runtime_ = temporary_folder("/dev/shm");
};

TEST_F(StandardDescriptors, AreNoBackings) {
  const std::string path = folder_ + "/memory";
  const std::string name = "/" + std::filesystem::path(folder_).filename().string();
  for (const BackingKind kind : {BackingKind::memfd, BackingKind::shm, BackingKind::file}) {
    EXPECT_EQ(without_them([&] {
                auto domain = Domain::create();
                if (!domain) return 1;
                auto heap = domain->create_heap("h");
                if (!heap) return 2;
                BackingSpec spec;
                spec.kind = kind;
                spec.length = 1 << 20;
                spec.unlink_on_remove = kind != BackingKind::memfd;
                if (kind != BackingKind::memfd)
                  spec.path = kind == BackingKind::shm ? name.c_str() : path.c_str();
                auto region = domain->add_backing(*heap, spec);
                if (!region) return 3;
                for (int fd : {0, 1, 2}) {
                  if (::fcntl(fd, F_GETFD) >= 0) return 10 + fd;
                }
                return domain->remove_region(*region) ? 0 : 4;
              }),
              0)
        << "kind " << static_cast<int>(kind);
  }
}

TEST_F(StandardDescriptors, AreNoFilesOfADomain) {
  OpenOptions options;
  options.directory = runtime_.c_str();
  const auto work = [&](bool first) {
    return without_them([&] {
      auto domain = Domain::open("d", options);
      if (!domain) return 1;
      auto heap = first ? domain->create_heap("h") : domain->find_heap("h");
      if (!heap) return 2;
      if (first) {
        BackingSpec spec;
        spec.length = 1 << 20;
        if (!domain->add_backing(*heap, spec)) return 3;
      }
      auto p = heap->allocate(100);
      if (!p) return 4;
      *static_cast<char*>(*p) = 1;
      for (int fd : {0, 1, 2}) {
        if (::fcntl(fd, F_GETFD) >= 0) return 10 + fd;
      }
      ::_exit(0);  // the domain stays
    });
  };
  EXPECT_EQ(work(true), 0);
  EXPECT_EQ(work(false), 0) << "a process that maps the memory of another one";
}

}  // namespace
}  // namespace extmem
