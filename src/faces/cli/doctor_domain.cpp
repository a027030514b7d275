// The runtime directory, in which named domains live.
#include <fmt/core.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "faces/cli/doctor.hpp"
#include "faces/cli/format.hpp"
#include "faces/cli/look.hpp"

namespace extmem::cli::doctor {
namespace fs = std::filesystem;

namespace {

/// The folder that the file system of this one is mounted at.
std::string mount_point(fs::path folder) {
  struct stat here {};
  struct stat above {};
  std::error_code ignored;
  folder = fs::canonical(folder, ignored);
  while (folder.has_relative_path() && ::stat(folder.c_str(), &here) == 0 &&
         ::stat(folder.parent_path().c_str(), &above) == 0 && here.st_dev == above.st_dev)
    folder = folder.parent_path();
  return folder.string();
}

}  // namespace

void check_runtime_directory(Checks& checks, const std::string& directory) {
  const RuntimeDirectory place = runtime_directory(directory);
  Check check{
      "Domains", "runtime directory", State::ok, fmt::format("{} ({})", place.path, place.because), {}, {}};
  const auto lacks = [&](const std::string& what, const std::string& fix) {
    check.state = State::lacking;
    check.found += ": " + what;
    check.matters = "named domains, which processes share";
    check.fix = fix;
    checks.push_back(check);
  };
  struct stat status {};
  const bool there = ::lstat(place.path.c_str(), &status) == 0;
  if (!there && errno != ENOENT)
    return lacks(std::strerror(errno), "set EXTMEM_RUNTIME_DIR to a folder on a tmpfs");
  const std::string parent = fs::path(place.path).parent_path().string();
  const std::string folder = there ? place.path : parent;
  struct statfs system {};
  if (::statfs(folder.c_str(), &system) != 0)
    return lacks(fmt::format("{} is not there: {}", folder, std::strerror(errno)),
                 parent == "/dev/shm" ? as_root() + "mount -t tmpfs tmpfs /dev/shm" : "mkdir -p " + parent);
  if (there && !S_ISDIR(status.st_mode)) return lacks("not a folder", "rm " + place.path);
  if (there && status.st_uid != ::geteuid())
    return lacks(fmt::format("belongs to user {}", status.st_uid), "export EXTMEM_RUNTIME_DIR=/dev/shm/NAME");
  if (there && (status.st_mode & (S_IWGRP | S_IWOTH)) != 0)
    return lacks("others may write to it", "chmod 0700 " + place.path);
  if (system.f_type != TMPFS_MAGIC && system.f_type != RAMFS_MAGIC)
    return lacks("not on a tmpfs", fmt::format("export EXTMEM_RUNTIME_DIR=/dev/shm/extmem-{}", ::geteuid()));
  if (!there && ::access(parent.c_str(), W_OK) != 0)
    return lacks(fmt::format("cannot be made in {}", parent),
                 fmt::format("export EXTMEM_RUNTIME_DIR=/dev/shm/extmem-{}", ::geteuid()));
  checks.push_back(check);

  const std::uint64_t block = static_cast<std::uint64_t>(system.f_bsize);
  Check space{"Domains", "its tmpfs", State::ok, {}, {}, {}};
  if (system.f_blocks == 0) {
    space.found = "without a limit";
  } else {
    space.found = fmt::format("{} free of {}", bytes_text(system.f_bavail * block),
                              bytes_text(system.f_blocks * block));
    if (system.f_bavail * block < std::uint64_t{64} << 20) {
      space.state = system.f_bavail * block < std::uint64_t{4} << 20 ? State::lacking : State::limited;
      space.matters = "metadata of domains, and regions without a path of their own";
      space.fix = fmt::format("{}mount -o remount,size={}M {}", as_root(),
                              (system.f_blocks * block >> 20) + 1024, mount_point(folder));
    }
  }
  checks.push_back(space);
}

}  // namespace extmem::cli::doctor
