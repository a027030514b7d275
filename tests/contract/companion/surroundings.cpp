#include "contract/companion/surroundings.hpp"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

namespace extmem::test {

namespace {

std::string answer_of(bool failed) {
  return failed ? "error " + std::to_string(errno) + " " + std::strerror(errno) : "ok";
}

bool private_mounts() {
  return ::unshare(CLONE_NEWNS) == 0 && ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
}

std::vector<int> replaced;

}  // namespace

std::string replace_descriptors(std::istream& in) {
  std::string folder;
  int count = 0;
  in >> folder >> count;
  for (int fd = 3; fd < 1024; ++fd) ::close(fd);
  for (int i = 0; i < count; ++i)
    replaced.push_back(
        ::open((folder + "/file" + std::to_string(i)).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  return answer_of(!replaced.empty() && replaced.back() < 0);
}

std::string replaced_bytes(std::istream&) {
  unsigned long long bytes = 0;
  for (const int fd : replaced) {
    struct stat status {};
    if (::fstat(fd, &status) != 0) return answer_of(true);  // somebody else closed it
    bytes += static_cast<unsigned long long>(status.st_size + status.st_blocks);
  }
  return "ok " + std::to_string(bytes);
}

std::string limit(std::istream& in) {
  std::string what;
  rlim_t most = 0;
  in >> what >> most;
  const auto which = what == "files" ? RLIMIT_NOFILE : RLIMIT_FSIZE;
  rlimit now{};
  if (::getrlimit(which, &now) != 0) return answer_of(true);
  now.rlim_cur = most;
  return answer_of(::setrlimit(which, &now) != 0);
}

std::string without_proc(std::istream&) {
  return answer_of(!private_mounts() || ::mount("extmem-test", "/proc", "tmpfs", 0, "mode=0755") != 0);
}

std::string move_folder(std::istream& in) {
  std::string from, to;
  in >> from >> to;
  return answer_of(!private_mounts() || ::mount(from.c_str(), to.c_str(), nullptr, MS_BIND, nullptr) != 0 ||
                   ::mount("extmem-test", from.c_str(), "tmpfs", 0, "mode=0755") != 0);
}

std::string change_root(std::istream& in) {
  std::string to;
  in >> to;
  return answer_of(::chroot(to.c_str()) != 0 || ::chdir("/") != 0);
}

}  // namespace extmem::test
