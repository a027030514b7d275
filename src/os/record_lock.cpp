#include "os/record_lock.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <string_view>

#include "base/error.hpp"
#include "os/descriptor.hpp"
#include "os/errno_keeper.hpp"
#include "os/kernel_text.hpp"

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

/// The process of a line of /proc/locks ("7: FLOCK  ADVISORY  WRITE 123 00:1a:456 0 EOF"), if it is an flock of `file`.
std::uint32_t holder_in(std::string_view line, std::string_view file) noexcept {
  constexpr std::string_view kKind = ": FLOCK ";  // who only waits for one has an arrow before the word
  const std::size_t kind = line.find(kKind);
  const std::size_t at = line.find(file);
  if (kind == std::string_view::npos || at == std::string_view::npos) return 0;
  std::string_view before = line.substr(0, at);
  const std::size_t number = before.find_last_of(' ');
  if (number == std::string_view::npos) return 0;
  before.remove_prefix(number);
  return static_cast<std::uint32_t>(take_number(before).value_or(0));
}

}  // namespace

std::uint32_t flock_holder(int fd) noexcept {
  const ErrnoKeeper keeper;
  struct stat status {};
  if (::fstat(fd, &status) != 0) return 0;
  std::array<char, 64> file{};
  (void)std::snprintf(file.data(), file.size(), " %02x:%02x:%llu ", major(status.st_dev),
                      minor(status.st_dev), static_cast<unsigned long long>(status.st_ino));
  const Descriptor locks = Descriptor::open_to_read("/proc/locks");
  if (!locks.is_open()) return 0;
  std::array<char, 128> line{};
  std::size_t length = 0;
  std::array<char, 4096> buffer{};
  for (;;) {
    const ssize_t got = ::read(locks.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return 0;
    for (const char c : std::string_view(buffer.data(), static_cast<std::size_t>(got))) {
      if (c != '\n') {
        if (length < line.size()) line[length++] = c;
        continue;
      }
      if (const std::uint32_t pid = holder_in({line.data(), length}, file.data()); pid != 0) return pid;
      length = 0;
    }
  }
}

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
  // As if the lock were to be the open file's: so this process' own is in its way, too.
  return ::fcntl(fd, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

}  // namespace extmem::os
