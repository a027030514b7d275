#include "os/kept_descriptor.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/errno_keeper.hpp"

namespace extmem::os {

void KeptDescriptor::keep(int fd, int lowest) noexcept {
  const ErrnoKeeper keeper;
  struct stat status {};
  fd_ = -1;
  if (::fstat(fd, &status) != 0) return;
  device_ = status.st_dev;
  inode_ = status.st_ino;
  fd_ = ::fcntl(fd, F_DUPFD_CLOEXEC, lowest);
  if (fd_ < 0) fd_ = ::fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
}

void KeptDescriptor::drop() noexcept {
  const ErrnoKeeper keeper;
  if (const int fd = get(); fd >= 0) ::close(fd);
  fd_ = -1;
}

int KeptDescriptor::get() const noexcept { return fd_ >= 0 && is_file_of(fd_) ? fd_ : -1; }

bool KeptDescriptor::is_file_of(int fd) const noexcept {
  const ErrnoKeeper keeper;
  struct stat status {};
  return ::fstat(fd, &status) == 0 && status.st_dev == device_ && status.st_ino == inode_;
}

}  // namespace extmem::os
