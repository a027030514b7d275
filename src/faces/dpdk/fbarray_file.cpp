#include "faces/dpdk/fbarray_file.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string_view>
#include <utility>

#include "os/descriptor.hpp"

namespace extmem::dpdk {
namespace {

constexpr int kTries = 16;  // others may remove the file between our opening it and our lock
constexpr std::string_view kPrefix = "fbarray_";

using FileName = std::array<char, 128>;

bool file_name(const char* name, FileName& out) noexcept {
  if (std::strchr(name, '/') != nullptr) return false;
  const int length = std::snprintf(out.data(), out.size(), "%s%s", kPrefix.data(), name);
  return length > 0 && static_cast<std::size_t>(length) < out.size();
}

os::Descriptor open_directory(const char* directory) noexcept {
  return os::Descriptor(::open(directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
}

/// F_RDLCK, F_WRLCK on the first byte, without waiting. EBUSY: somebody has a lock that forbids it.
int lock(int fd, short type) noexcept {
  struct flock request {};
  request.l_type = type;
  request.l_whence = SEEK_SET;
  request.l_len = 1;
  if (::fcntl(fd, F_OFD_SETLK, &request) == 0) return 0;
  return errno == EAGAIN || errno == EACCES ? EBUSY : errno;
}

bool is_file_of(int directory, const char* name, int fd) noexcept {
  struct stat named {};
  struct stat open {};
  return ::fstatat(directory, name, &named, AT_SYMLINK_NOFOLLOW) == 0 && ::fstat(fd, &open) == 0 &&
         named.st_dev == open.st_dev && named.st_ino == open.st_ino;
}

/// Opens and locks the file that the name means at that moment.
int open_locked(int directory, const char* name, int flags, short type, int& result) noexcept {
  for (int i = 0; i < kTries; ++i) {
    os::Descriptor fd(os::above_standard(
        ::openat(directory, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | flags, 0600)));
    if (!fd.is_open()) return errno;
    struct stat status {};
    if (::fstat(fd.get(), &status) != 0) return errno;
    if (!S_ISREG(status.st_mode) || status.st_uid != ::geteuid()) return EPERM;
    if (const int error = lock(fd.get(), type); error != 0) return error;
    if (is_file_of(directory, name, fd.get())) {
      result = fd.release();
      return 0;
    }
  }
  return EBUSY;
}

/// Gives the file `bytes` bytes of zeroes with memory behind the first `with_memory`, so that no later touch of these finds the
/// directory full.
int make_zeroes(int fd, std::uint64_t bytes, std::uint64_t with_memory) noexcept {
  if (bytes > static_cast<std::uint64_t>(std::numeric_limits<off_t>::max())) return ENOMEM;
  const auto length = static_cast<off_t>(bytes);
  if (::ftruncate(fd, 0) != 0 || ::ftruncate(fd, length) != 0) return ENOMEM;
  int failed = 0;
  do {
    failed = ::fallocate(fd, 0, 0, static_cast<off_t>(with_memory)) == 0 ? 0 : errno;
  } while (failed == EINTR);
  return failed == 0 || failed == EOPNOTSUPP ? 0 : ENOMEM;
}

}  // namespace

ArrayFile::ArrayFile(ArrayFile&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

ArrayFile& ArrayFile::operator=(ArrayFile&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

ArrayFile::~ArrayFile() {
  if (fd_ >= 0) ::close(fd_);
}

int ArrayFile::create(const char* directory, const char* name, std::uint64_t bytes,
                      std::uint64_t with_memory) noexcept {
  FileName file;
  if (!file_name(name, file)) return EINVAL;
  const os::Descriptor folder = open_directory(directory);
  if (!folder.is_open()) return errno;
  int fd = -1;
  if (const int error = open_locked(folder.get(), file.data(), O_CREAT, F_WRLCK, fd); error != 0)
    return error;
  const int error = make_zeroes(fd, bytes, with_memory);
  if (error != 0) {
    ::unlinkat(folder.get(), file.data(), 0);
    ::close(fd);
    return error;
  }
  fd_ = fd;
  return 0;
}

int ArrayFile::open(const char* directory, const char* name, std::uint64_t bytes) noexcept {
  FileName file;
  if (!file_name(name, file)) return EINVAL;
  const os::Descriptor folder = open_directory(directory);
  if (!folder.is_open()) return errno;
  int fd = -1;
  if (const int error = open_locked(folder.get(), file.data(), 0, F_RDLCK, fd); error != 0) return error;
  fd_ = fd;
  struct stat status {};
  if (::fstat(fd, &status) != 0) return errno;
  return static_cast<std::uint64_t>(status.st_size) < bytes ? EINVAL : 0;
}

int ArrayFile::let_others_attach() noexcept { return lock(fd_, F_RDLCK); }

int ArrayFile::exclude_others() noexcept { return lock(fd_, F_WRLCK); }

int ArrayFile::reopen_after_fork() noexcept {
  std::array<char, 32> path;
  (void)std::snprintf(path.data(), path.size(), "/proc/self/fd/%d", fd_);
  os::Descriptor own(os::above_standard(::open(path.data(), O_RDWR | O_CLOEXEC)));
  if (!own.is_open()) return errno;
  if (const int error = lock(own.get(), F_RDLCK); error != 0) return error;
  ::close(fd_);
  fd_ = own.release();
  return 0;
}

void ArrayFile::remove(const char* directory, const char* name) noexcept {
  FileName file;
  const os::Descriptor folder = open_directory(directory);
  if (!folder.is_open() || !file_name(name, file) || !is_file_of(folder.get(), file.data(), fd_)) return;
  ::unlinkat(folder.get(), file.data(), 0);
}

void* map_anywhere(int fd, std::uint64_t bytes, const char* name, std::uint64_t base) noexcept {
  // Linux puts programs, their heaps, libraries and stacks near the bottom and the top of the 47 bits that every 64-bit
  // x86 process has. From 16 TiB on there is room; each name begins at one of many places there, so that arrays
  // which different processes make are apart. Smaller address spaces have no such place: then the kernel chooses.
#ifdef __SANITIZE_THREAD__
  // ThreadSanitizer has memory of its own at 16 TiB.
  constexpr std::uint64_t kQuietBase = std::uint64_t{1} << 36;
  constexpr std::uint64_t kPlaces = 256;
#else
  constexpr std::uint64_t kQuietBase = std::uint64_t{1} << 44;
  constexpr std::uint64_t kPlaces = 16384;
#endif
  constexpr std::uint64_t kStep = std::uint64_t{1} << 30;
  const int flags = fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  const auto map = [&](std::uint64_t address, int more) {
    return ::mmap(reinterpret_cast<void*>(address), bytes, PROT_READ | PROT_WRITE, flags | more, fd, 0);
  };
  std::uint64_t place = 14695981039346656037u;  // FNV-1a
  for (const char* c = name; *c != '\0'; ++c)
    place = (place ^ static_cast<unsigned char>(*c)) * 1099511628211u;
  for (int i = 0; i < kTries; ++i, ++place) {
    const std::uint64_t wanted = (base != 0 ? base & ~(kStep - 1) : kQuietBase) + place % kPlaces * kStep;
    void* const p = map(wanted, MAP_FIXED_NOREPLACE);
    if (p != MAP_FAILED && reinterpret_cast<std::uint64_t>(p) == wanted) return p;
    if (p != MAP_FAILED) ::munmap(p, bytes);  // a kernel before 4.17 takes the address as a hint
  }
  void* const p = map(0, 0);
  return p == MAP_FAILED ? nullptr : p;
}

int map_exactly(int fd, std::uint64_t bytes, std::uint64_t address) noexcept {
  void* const p = ::mmap(reinterpret_cast<void*>(address), bytes, PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
  if (p == MAP_FAILED) return errno == EEXIST || errno == EINVAL || errno == EPERM ? EADDRNOTAVAIL : ENOMEM;
  if (reinterpret_cast<std::uint64_t>(p) == address) return 0;
  ::munmap(p, bytes);
  return EADDRNOTAVAIL;
}

void remove_dead_arrays(const char* directory) noexcept {
  os::Descriptor folder = open_directory(directory);
  if (!folder.is_open()) return;
  const int at = folder.get();
  DIR* const files = ::fdopendir(at);
  if (files == nullptr) return;
  (void)folder.release();  // closedir closes it
  while (const dirent* file = ::readdir(files)) {
    if (!std::string_view(file->d_name).starts_with(kPrefix)) continue;
    int fd = -1;
    if (open_locked(at, file->d_name, 0, F_WRLCK, fd) != 0) continue;  // in use, or not one of ours
    ::unlinkat(at, file->d_name, 0);
    ::close(fd);
  }
  ::closedir(files);
}

}  // namespace extmem::dpdk
