#include "os/runtime_directory.hpp"

#include <gtest/gtest.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "contract/runtime_directory.hpp"

namespace extmem::os {
namespace {

/// Sets a variable of the environment, or takes it away, until the end.
class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) {
    const char* before = std::getenv(name);
    had_ = before != nullptr;
    before_ = had_ ? before : "";
    set(value);
  }
  ~Variable() { set(had_ ? before_.c_str() : nullptr); }
  void set(const char* value) const {
    EXPECT_EQ(value != nullptr ? ::setenv(name_, value, 1) : ::unsetenv(name_), 0);
  }

 private:
  const char* name_;
  bool had_;
  std::string before_;
};

std::string now() { return default_runtime_directory().c_str(); }

TEST(RuntimeDirectory, IsTheUsersOnlyWhereThatIsOnATmpfs) {
  const std::string usual = "/dev/shm/extmem-" + std::to_string(::geteuid());
  const test::RuntimeDirectory directory;
  const Variable own("EXTMEM_RUNTIME_DIR", nullptr);
  const Variable xdg("XDG_RUNTIME_DIR", nullptr);
  EXPECT_EQ(now(), usual);
  xdg.set("");
  EXPECT_EQ(now(), usual);
  xdg.set(directory.c_str());
  EXPECT_EQ(now(), directory.path() + "/extmem");
  // What programs are left with in containers and under sudo: a folder that is not there, or on a disk.
  xdg.set("/run/user/4294967293");
  EXPECT_EQ(now(), usual);
  xdg.set("/proc");
  EXPECT_EQ(now(), usual);
  own.set("/proc/1");  // what is said in so many words is taken as it is
  EXPECT_EQ(now(), "/proc/1");
}

TEST(RuntimeDirectory, IsNotCutOff) {
  const Variable own("EXTMEM_RUNTIME_DIR", ("/" + std::string(300, 'a')).c_str());
  EXPECT_FALSE(default_runtime_directory().ok());
}

}  // namespace
}  // namespace extmem::os
