// Descriptor: a file descriptor that is closed when its owner goes.
//
// Thread-safety: one owner. No allocation.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace extmem::os {

/// `fd`, or where the program closed one of its standard descriptors and `fd` got that number, another of the same open file: for
/// what stays open, as what the program prints must not get there. -1, and errno, where `fd` is that or there is none left.
inline int above_standard(int fd) noexcept {
  if (fd < 0 || fd > STDERR_FILENO) return fd;
  const int own = ::fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
  const int failed = errno;
  ::close(fd);
  errno = failed;
  return own;
}

class Descriptor {
 public:
  /// Opens `path` for reading; is_open() tells whether that worked, errno why not.
  static Descriptor open_to_read(const char* path, int more_flags = 0) noexcept {
    return Descriptor(::open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | more_flags));
  }
  explicit Descriptor(int fd) noexcept : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  [[nodiscard]] bool is_open() const noexcept { return fd_ >= 0; }
  [[nodiscard]] int get() const noexcept { return fd_; }
  /// Hands it on: it is the caller's to close.
  int release() noexcept { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

}  // namespace extmem::os
