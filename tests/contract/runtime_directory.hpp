// A runtime directory of a test's own, under /dev/shm; gone at the end with all that is in it.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <string>

namespace extmem::test {

class RuntimeDirectory {
 public:
  RuntimeDirectory() {
    static std::atomic<int> next{0};
    path_ = "/dev/shm/extmem-test-" + std::to_string(::getpid()) + "-" + std::to_string(next++);
    std::error_code failed;
    std::filesystem::remove_all(path_, failed);
    std::filesystem::create_directory(path_, failed);
    EXPECT_FALSE(failed) << path_ << ": " << failed.message();
    std::filesystem::permissions(path_, std::filesystem::perms::owner_all, failed);
  }
  RuntimeDirectory(const RuntimeDirectory&) = delete;
  ~RuntimeDirectory() {
    if (::getpid() != owner_) return;  // a fork's child
    std::error_code failed;
    std::filesystem::remove_all(path_, failed);
    EXPECT_FALSE(failed) << path_ << ": " << failed.message();
  }

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] const char* c_str() const { return path_.c_str(); }
  /// A file of a domain.
  [[nodiscard]] std::string file(const std::string& domain, const std::string& name) const {
    return path_ + "/" + domain + "/" + name;
  }

 private:
  std::string path_;
  pid_t owner_ = ::getpid();
};

}  // namespace extmem::test
