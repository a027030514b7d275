#include "os/record_lock.hpp"

#include <fcntl.h>

#include <cerrno>

#include "base/error.hpp"
#include "os/errno_keeper.hpp"

namespace extmem::os {
namespace {

struct flock one_byte(short type, std::uint64_t byte) noexcept {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(byte);
  lock.l_len = 1;
  return lock;
}

}  // namespace

Result<bool> try_lock_byte(int fd, std::uint64_t byte) noexcept {
  const ErrnoKeeper keeper;
  struct flock lock = one_byte(F_WRLCK, byte);
  if (::fcntl(fd, F_SETLK, &lock) == 0) return true;
  if (errno == EAGAIN || errno == EACCES) return false;
  return EXTMEM_SYS_ERROR(errno, "cannot lock a byte of the domain's token file (fcntl F_SETLK)");
}

void unlock_byte(int fd, std::uint64_t byte) noexcept {
  const ErrnoKeeper keeper;
  struct flock lock = one_byte(F_UNLCK, byte);
  (void)::fcntl(fd, F_SETLK, &lock);
}

bool byte_is_locked(int fd, std::uint64_t byte) noexcept {
  const ErrnoKeeper keeper;
  struct flock lock = one_byte(F_WRLCK, byte);
  return ::fcntl(fd, F_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

}  // namespace extmem::os
