#include "os/watched_descriptor.hpp"

#include <sys/stat.h>

#include "os/errno_keeper.hpp"

namespace extmem::os {

WatchedDescriptor::WatchedDescriptor(int fd) noexcept {
  const ErrnoKeeper keeper;
  struct stat status {};
  if (fd < 0 || ::fstat(fd, &status) != 0) return;
  fd_ = fd;
  device_ = status.st_dev;
  inode_ = status.st_ino;
}

bool WatchedDescriptor::is_file_of(int fd) const noexcept {
  const ErrnoKeeper keeper;
  struct stat status {};
  return fd_ >= 0 && ::fstat(fd, &status) == 0 && status.st_dev == device_ && status.st_ino == inode_;
}

}  // namespace extmem::os
