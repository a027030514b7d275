#include "os/shared_mapping.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.hpp"
#include "os/descriptor.hpp"
#include "os/errno_keeper.hpp"
#include "os/kernel_text.hpp"
#include "os/mapping.hpp"

namespace extmem::os {
namespace {

constexpr int kTries = 16;  // other threads may take an address between our look and our use

Error other_file() noexcept {
  return EXTMEM_ERROR(ESTALE,
                      "the memory of the region is another file now, or was cut short: it cannot be mapped");
}

/// Whether the path names the file. Where it names nothing that can be looked at, opening it says why.
bool is_named(const char* path, const SharedFile& file) noexcept {
  struct stat status {};
  return ::stat(path, &status) != 0 || (status.st_dev == file.device && status.st_ino == file.inode);
}

Result<int> check(int fd, const SharedFile& file) noexcept {
  const auto found = identify(fd);
  if (found && found->device == file.device && found->inode == file.inode && found->bytes >= file.bytes)
    return fd;
  ::close(fd);
  return other_file();
}

}  // namespace

Result<int> checked_shared(int fd, const SharedFile& file) noexcept {
  const ErrnoKeeper keeper;
  return check(fd, file);
}

Result<SharedFile> identify(int fd) noexcept {
  const ErrnoKeeper keeper;
  struct stat status {};
  if (::fstat(fd, &status) != 0) return EXTMEM_SYS_ERROR(errno, "cannot look at the file of the region");
  return SharedFile{status.st_dev, status.st_ino, static_cast<std::uint64_t>(status.st_size)};
}

Result<void> path_of(int fd, char* path, std::size_t size) noexcept {
  const ErrnoKeeper keeper;
  const ssize_t got =
      ::readlink(Path("/proc/self/fd/").add(static_cast<std::uint64_t>(fd)).c_str(), path, size);
  if (got < 0) return EXTMEM_SYS_ERROR(errno, "cannot read the path of the region's file from /proc/self/fd");
  if (static_cast<std::size_t>(got) >= size)
    return EXTMEM_ERROR(ENAMETOOLONG,
                        "the path of the region's file is too long to be shared: use one below 192 bytes");
  path[got] = '\0';
  struct stat named {};
  struct stat open {};
  if (::stat(path, &named) != 0 || ::fstat(fd, &open) != 0 || named.st_ino != open.st_ino ||
      named.st_dev != open.st_dev) {
    return EXTMEM_ERROR(ENOENT, "the region's file has no name");
  }
  return {};
}

Result<int> open_shared_path(const char* path, const SharedFile& file) noexcept {
  const ErrnoKeeper keeper;
  // Looked at before it is opened: what has the name now may be a device that opening does something to.
  if (!is_named(path, file)) return other_file();
  const int fd = above_standard(::open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (fd < 0)
    return EXTMEM_SYS_ERROR(
        errno,
        "cannot open the file of the region by the path that its adder has (permissions? another mount "
        "namespace?): attach_region_file takes a descriptor of it");
  return check(fd, file);
}

Result<int> open_shared_holder(std::uint32_t pid, int fd, const SharedFile& file) noexcept {
  const ErrnoKeeper keeper;
  const Path path = Path("/proc/").add(std::uint64_t{pid}).add("/fd/").add(static_cast<std::uint64_t>(fd));
  if (!is_named(path.c_str(), file)) return other_file();  // and that process may be another one by now
  const int opened = above_standard(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (opened < 0)
    return EXTMEM_SYS_ERROR(errno, "cannot open the memory of the region through the process that holds it");
  return check(opened, file);
}

Result<int> take_over(int fd, const SharedFile& file, bool sealed) noexcept {
  const ErrnoKeeper keeper;
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0) return EXTMEM_ERROR(EBADF, "the descriptor is not open in this process");
  const int own = ::fcntl(fd, F_DUPFD_CLOEXEC, 3);
  if (own < 0) return EXTMEM_SYS_ERROR(errno, "cannot keep a descriptor of the region's memory");
  const auto same = check(own, file);
  if (!same) return same.error();
  const auto refuse = [&](Error why) {
    ::close(own);
    return why;
  };
  if ((flags & O_ACCMODE) != O_RDWR)
    return refuse(EXTMEM_ERROR(EACCES, "the descriptor must be open for reading and writing"));
  const int seals = sealed ? ::fcntl(own, F_GET_SEALS) : F_SEAL_SHRINK;
  if (seals >= 0 && (seals & F_SEAL_SHRINK) != 0) return own;
  return refuse(
      EXTMEM_ERROR(EPERM, "the memfd is not sealed: whoever has it could cut it short under the region"));
}

Result<void> unlink_shared_path(const char* path, const SharedFile& file, bool of_group) noexcept {
  const ErrnoKeeper keeper;
  struct stat status {};
  if (::lstat(path, &status) == 0) {
    if (status.st_dev != file.device || status.st_ino != file.inode) return {};
    if (of_group && (status.st_gid != ::getegid() || (status.st_mode & S_IWGRP) == 0))
      return EXTMEM_ERROR(EPERM, "the file is not the group's");
    if (::unlink(path) == 0) return {};
  }
  if (errno == ENOENT || errno == ENOTDIR) return {};
  return EXTMEM_SYS_ERROR(errno, "cannot remove the file of the region");
}

Result<void> unlink_aside(const char* path, const SharedFile& file) noexcept {
  const ErrnoKeeper keeper;
  struct stat status {};
  if (::lstat(path, &status) == 0) {
    const bool known = file.inode != 0;
    if (!S_ISREG(status.st_mode) || status.st_size != 0 || status.st_uid != ::geteuid()) return {};
    if (known && (status.st_dev != file.device || status.st_ino != file.inode)) return {};
    if (::unlink(path) == 0) return {};
  }
  if (errno == ENOENT || errno == ENOTDIR) return {};
  return EXTMEM_SYS_ERROR(errno, "cannot remove a file that was being made for a region");
}

Result<std::byte*> map_shared_at(const SharedMappingRequest& request) noexcept {
  const ErrnoKeeper keeper;
  const auto map = [&](std::uint64_t address) {
    return ::mmap(reinterpret_cast<void*>(address), request.length, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_FIXED_NOREPLACE, request.fd, 0);
  };
  if (void* p = map(request.wanted); p != MAP_FAILED) {
    if (reinterpret_cast<std::uint64_t>(p) == request.wanted) return static_cast<std::byte*>(p);
    ::munmap(p, request.length);  // a kernel before 4.17 takes the address as a hint
    errno = EEXIST;
  }
  if (request.only_there) {
    const int failed = errno;
    if (failed == EEXIST) return EXTMEM_ERROR(EEXIST, "something else is mapped at the wanted address");
    return EXTMEM_SYS_ERROR(failed, "cannot map the memory of the region in this process");
  }
  const std::uint64_t residue = request.wanted & (kCongruence - 1);
  for (int i = 0; i < kTries; ++i) {
    EXTMEM_TRY(room, reserve(request.length + kCongruence));
    const auto start = reinterpret_cast<std::uint64_t>(room);
    const std::uint64_t at = start + ((residue - start) & (kCongruence - 1));
    unmap(room, (request.length + kCongruence + page_size() - 1) & ~(page_size() - 1));
    void* const p = map(at);
    if (p != MAP_FAILED && reinterpret_cast<std::uint64_t>(p) == at) return static_cast<std::byte*>(p);
    if (p != MAP_FAILED) ::munmap(p, request.length);
    if (p == MAP_FAILED && errno != EEXIST)
      return EXTMEM_SYS_ERROR(errno, "cannot map the memory of the region in this process");
  }
  return EXTMEM_ERROR(
      EAGAIN, "cannot map the memory of the region: other threads keep taking the addresses; try again");
}

}  // namespace extmem::os
