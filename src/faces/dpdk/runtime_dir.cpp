// The runtime directory: its path, and the lock that makes a process the primary one.
#include "faces/dpdk/runtime_dir.hpp"

#include <fcntl.h>
#include <rte_log.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "os/descriptor.hpp"
#include "os/record_lock.hpp"
#include "os/runtime_directory.hpp"

namespace extmem::dpdk {
namespace {

std::array<char, PATH_MAX> directory{};
int config_fd = -1;  // held by a primary process only

// The directory that the domains are in, with "/.dpdk": no domain's name begins so.
bool base_directory(std::array<char, PATH_MAX>& path) noexcept {
  const os::Path domains = os::default_runtime_directory();
  const int length = std::snprintf(path.data(), path.size(), "%s/.dpdk", domains.c_str());
  return domains.ok() && length > 0 && static_cast<std::size_t>(length) < path.size();
}

// Makes the last three folders of the path where they are missing, and looks that the last is ours alone.
int make_directories() noexcept {
  std::array<char, PATH_MAX> path = directory;
  std::array<char*, 2> cuts{};
  for (char*& cut : cuts) {
    cut = std::strrchr(path.data(), '/');
    if (cut == nullptr) return EINVAL;
    *cut = '\0';
  }
  // path is the runtime directory now; each further step puts one slash back.
  for (std::size_t step = 0; step <= cuts.size(); ++step) {
    if (::mkdir(path.data(), 0700) != 0 && errno != EEXIST) return errno;
    if (step < cuts.size()) *cuts[cuts.size() - 1 - step] = '/';
  }
  struct stat status {};
  if (::lstat(directory.data(), &status) != 0) return errno;
  if (!S_ISDIR(status.st_mode)) return ENOTDIR;
  if (status.st_uid != ::geteuid() || (status.st_mode & (S_IWGRP | S_IWOTH)) != 0) return EPERM;
  return 0;
}

bool config_path(std::array<char, PATH_MAX>& path) noexcept {
  const int length = std::snprintf(path.data(), path.size(), "%s/config", directory.data());
  return length > 0 && static_cast<std::size_t>(length) < path.size();
}

}  // namespace

bool runtime_dir_init(const char* file_prefix) noexcept {
  std::array<char, PATH_MAX> base{};
  if (!base_directory(base)) return false;
  const int length = std::snprintf(directory.data(), directory.size(), "%s/%s", base.data(), file_prefix);
  return length > 0 && static_cast<std::size_t>(length) < directory.size() - sizeof "/config";
}

int claim_process_type(rte_proc_type_t& type) noexcept {
  if (const int failed = make_directories(); failed != 0) {
    RTE_LOG(ERR, EAL, "cannot use the runtime directory %s: %s\n", directory.data(), std::strerror(failed));
    return fail(failed);
  }
  if (type == RTE_PROC_SECONDARY) return 0;
  std::array<char, PATH_MAX> path{};
  if (!config_path(path)) return fail(ENAMETOOLONG);
  const int fd = os::above_standard(::open(path.data(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (fd < 0) {
    RTE_LOG(ERR, EAL, "cannot open %s: %s\n", path.data(), std::strerror(errno));
    return fail(errno);
  }
  const auto locked = os::try_lock_byte(fd, 0);
  if (locked && *locked) {
    config_fd = fd;
    type = RTE_PROC_PRIMARY;
    return 0;
  }
  ::close(fd);
  if (!locked) return fail(locked.error().code());
  if (type == RTE_PROC_AUTO) {
    type = RTE_PROC_SECONDARY;
    return 0;
  }
  RTE_LOG(ERR, EAL,
          "another process is the primary one of this file prefix: use --proc-type=secondary or auto, or "
          "another --file-prefix\n");
  return fail(EBUSY);
}

void release_process_type() noexcept {
  if (config_fd >= 0) ::close(config_fd);
  config_fd = -1;
}

}  // namespace extmem::dpdk

using namespace extmem::dpdk;

extern "C" {

const char* rte_eal_get_runtime_dir(void) { return directory.data(); }

int rte_eal_primary_proc_alive(const char* config_file_path) {
  std::array<char, PATH_MAX> own{};
  if (config_file_path == nullptr) {
    if (initialized() && !options().shared()) return 0;  // nobody is: nothing is shared
    if (config_fd >= 0) return 1;                        // we are
    if (!config_path(own)) return 0;
    config_file_path = own.data();
  } else if (config_fd >= 0) {
    // Opening our own file and closing it would drop our lock.
    struct stat ours {};
    struct stat asked {};
    if (::fstat(config_fd, &ours) == 0 && ::stat(config_file_path, &asked) == 0 &&
        ours.st_dev == asked.st_dev && ours.st_ino == asked.st_ino) {
      return 1;
    }
  }
  const int fd = ::open(config_file_path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  const bool locked = extmem::os::byte_is_locked(fd, 0);
  ::close(fd);
  return locked ? 1 : 0;
}

}  // extern "C"
