#include "os/file.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/error.hpp"
#include "os/errno_keeper.hpp"

namespace extmem::os {

Result<std::size_t> read_at(int fd, void* to, std::size_t bytes, std::uint64_t offset) noexcept {
  const ErrnoKeeper keeper;
  ssize_t got = 0;
  do got = ::pread(fd, to, bytes, static_cast<off_t>(offset));
  while (got < 0 && errno == EINTR);
  if (got < 0) return EXTMEM_SYS_ERROR(errno, "cannot read the file");
  return static_cast<std::size_t>(got);
}

Result<void> write_at(int fd, const void* from, std::size_t bytes, std::uint64_t offset) noexcept {
  const ErrnoKeeper keeper;
  const auto* at = static_cast<const char*>(from);
  while (bytes != 0) {
    const ssize_t put = ::pwrite(fd, at, bytes, static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return EXTMEM_SYS_ERROR(put < 0 ? errno : ENOSPC, "cannot write the file");
    at += put;
    bytes -= static_cast<std::size_t>(put);
    offset += static_cast<std::uint64_t>(put);
  }
  return {};
}

int set_length(int fd, std::uint64_t bytes) noexcept {
  const ErrnoKeeper keeper;
  // Beyond this limit the kernel sends SIGXFSZ, which kills.
  rlimit limit{};
  if (::getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && bytes > limit.rlim_cur)
    return EFBIG;
  return ::ftruncate(fd, static_cast<off_t>(bytes)) == 0 ? 0 : errno;
}

int take_space(int fd, std::uint64_t offset, std::uint64_t bytes) noexcept {
  const ErrnoKeeper keeper;
  int failed = 0;
  do failed = ::fallocate(fd, 0, static_cast<off_t>(offset), static_cast<off_t>(bytes)) == 0 ? 0 : errno;
  while (failed == EINTR);
  return failed;
}

void give_space_back(int fd, std::uint64_t offset, std::uint64_t bytes) noexcept {
  const ErrnoKeeper keeper;
  (void)::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                    static_cast<off_t>(bytes));
}

Result<FileStatus> file_status(int fd) noexcept {
  const ErrnoKeeper keeper;
  struct stat status {};
  if (::fstat(fd, &status) != 0) return EXTMEM_SYS_ERROR(errno, "cannot look at the file");
  return FileStatus{static_cast<std::uint64_t>(status.st_size), status.st_nlink};
}

Result<std::uint64_t> next_data(int fd, std::uint64_t offset) noexcept {
  const ErrnoKeeper keeper;
  const off_t data = ::lseek(fd, static_cast<off_t>(offset), SEEK_DATA);
  if (data >= 0) return static_cast<std::uint64_t>(data);
  if (errno == ENXIO) return kNoMore;
  return EXTMEM_SYS_ERROR(errno, "cannot read the file");
}

std::uint64_t next_hole(int fd, std::uint64_t offset) noexcept {
  const ErrnoKeeper keeper;
  const off_t hole = ::lseek(fd, static_cast<off_t>(offset), SEEK_HOLE);
  return hole < 0 ? kNoMore : static_cast<std::uint64_t>(hole);
}

std::uint64_t occupied_bytes(int fd) noexcept {
  const ErrnoKeeper keeper;
  struct stat status {};
  return ::fstat(fd, &status) == 0 ? static_cast<std::uint64_t>(status.st_blocks) * 512 : 0;
}

bool same_file(int one, int other) noexcept {
  const ErrnoKeeper keeper;
  struct stat a {};
  struct stat b {};
  return ::fstat(one, &a) == 0 && ::fstat(other, &b) == 0 && a.st_ino == b.st_ino && a.st_dev == b.st_dev;
}

void close_file(int fd) noexcept {
  const ErrnoKeeper keeper;
  if (fd >= 0) ::close(fd);
}

}  // namespace extmem::os
