#include "os/domain_folder.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.hpp"
#include "os/descriptor.hpp"
#include "os/errno_keeper.hpp"
#include "os/kernel_text.hpp"
#include "os/record_lock.hpp"
#include "os/runtime_directory.hpp"
#include "os/thread.hpp"

namespace extmem::os {
namespace {

constexpr const char* kNewControl = ".control.new";
constexpr std::uint64_t kLockPatienceNs = 5'000'000'000;
constexpr std::uint64_t kLockPauseNs = 2'000'000;

Error closed_by_program() noexcept {
  return EXTMEM_ERROR(EBADF,
                      "this program has closed descriptors of the domain, all that it did not know perhaps: "
                      "close the domain and open it anew");
}

Error too_many_files(int failed) noexcept {
  return EXTMEM_SYS_ERROR(
      failed,
      "too many open files for the descriptors of a domain: raise RLIMIT_NOFILE (ulimit -n; "
      "of the whole system: fs.file-max)");
}

Error folder_error(int failed, const char*) noexcept {
  switch (failed) {
    case EMFILE:
    case ENFILE:
      return too_many_files(failed);
    case ENOENT:
      return EXTMEM_ERROR(ENOENT, "no such domain, or its runtime directory does not exist");
    case ELOOP:
    case ENOTDIR:
      return EXTMEM_ERROR(
          ELOOP, "the runtime directory or the domain's folder is a symbolic link or no folder: remove it");
    case EACCES:
      return EXTMEM_ERROR(
          EACCES,
          "no permission for the runtime directory: set EXTMEM_RUNTIME_DIR to a tmpfs folder of yours");
    case ENOSPC:
      return EXTMEM_ERROR(ENOSPC,
                          "the tmpfs of the runtime directory is full: remove files, or mount it larger");
    default:
      return EXTMEM_SYS_ERROR(
          failed,
          "cannot open or make the folder of the domain: set EXTMEM_RUNTIME_DIR to a tmpfs "
          "folder that can be written to");
  }
}

/// That a folder is safe to trust: ours, nobody else writes to it, and (the runtime directory) memory.
Result<void> check_folder(int fd, bool group) noexcept {
  struct stat status {};
  if (::fstat(fd, &status) != 0) return EXTMEM_SYS_ERROR(errno, "cannot look at the folder of the domain");
  const bool ours = status.st_uid == ::geteuid() || (group && status.st_gid == ::getegid());
  if (!ours)
    return EXTMEM_ERROR(EPERM,
                        "the folder of the domain belongs to another user: choose another runtime directory");
  const mode_t others = group ? S_IWOTH : S_IWOTH | S_IWGRP;
  if ((status.st_mode & others) != 0) {
    return EXTMEM_ERROR(
        EPERM,
        "others may write to the folder of the domain: chmod it to 0700 (0770 to share it with a group)");
  }
  return {};
}

Result<void> check_tmpfs(int fd) noexcept {
  struct statfs status {};
  if (::fstatfs(fd, &status) != 0)
    return EXTMEM_SYS_ERROR(errno, "cannot tell which file system the runtime directory is on");
  if (!is_tmpfs(status)) {
    return EXTMEM_ERROR(ENOTSUP,
                        "the runtime directory is not on a tmpfs: set EXTMEM_RUNTIME_DIR to a folder that "
                        "is, /dev/shm/NAME for example");
  }
  return {};
}

/// Names who keeps the lock; the message lives until this thread's next such error.
Error still_locked(int fd) noexcept {
  struct Kept {
    ErrorInfo info;
    Path text;
  };
  static thread_local constinit Kept kept{{ETIMEDOUT, nullptr}, Path()};
  kept.text = Path(
      "the folder of the domain has been locked for five seconds by a process that does not go on "
      "(stopped?)");
  if (const std::uint32_t pid = flock_holder(fd); pid != 0) kept.text.add(": pid ").add(std::uint64_t{pid});
  kept.text.add("; continue or kill it, then try again");
  kept.info.message = kept.text.c_str();
  return Error(&kept.info);
}

Result<int> open_to_read(int at, const char* path) noexcept {
  const int fd = above_standard(::openat(at, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (fd < 0) return folder_error(errno, path);
  return fd;
}

Result<int> open_folder(int at, const char* path, bool create, bool group) noexcept {
  const mode_t mode = group ? 0770 : 0700;
  bool made = false;
  int fd = -1;
  for (;;) {
    made = create && ::mkdirat(at, path, mode) == 0;
    if (create && !made && errno != EEXIST) return folder_error(errno, path);
    fd = above_standard(::openat(at, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (fd >= 0) break;
    const int failed = errno;
    if (made) (void)::unlinkat(at, path, AT_REMOVEDIR);  // nothing is left behind
    errno = failed;
    // Who only opens and finds a folder without a control segment removes it: it may be the one made just now.
    if (!create || errno != ENOENT) return folder_error(errno, path);
  }
  if (made && group) (void)::fchmod(fd, mode);  // whatever the umask says
  if (auto checked = check_folder(fd, group); !checked) {
    ::close(fd);
    return checked.error();
  }
  return fd;
}

/// The path of the runtime directory.
Path runtime_directory(const char* directory) noexcept {
  return directory != nullptr ? Path(directory) : default_runtime_directory();
}

Error too_long() noexcept {
  return EXTMEM_ERROR(ENAMETOOLONG, "the path of the runtime directory is longer than 255 bytes");
}

Result<int> open_runtime_directory(const char* directory, bool create, bool group) noexcept {
  const Path path = runtime_directory(directory);
  if (!path.ok()) return too_long();
  EXTMEM_TRY(fd, open_folder(AT_FDCWD, path.c_str(), create, group));
  if (auto checked = check_tmpfs(fd); !checked) {
    ::close(fd);
    return checked.error();
  }
  return fd;
}

}  // namespace

Result<void> DomainFolder::check_name(std::string_view name) noexcept {
  if (name.data() == nullptr || name.empty())
    return EXTMEM_ERROR(EINVAL, "the domain's name is empty: give 1 to 63 bytes");
  if (name.size() > 63) return EXTMEM_ERROR(ENAMETOOLONG, "the domain's name is longer than 63 bytes");
  if (name.front() == '.' || name.find('/') != std::string_view::npos ||
      name.find('\0') != std::string_view::npos) {
    return EXTMEM_ERROR(
        EINVAL,
        "a domain's name is a file's name: it has no '/' and no zero byte and does not begin with '.'");
  }
  return {};
}

DomainFolder::DomainFolder(DomainFolder&& other) noexcept
    : parent_(std::exchange(other.parent_, {})), fd_(std::exchange(other.fd_, {})), group_(other.group_) {
  std::memcpy(name_, other.name_, sizeof name_);
}

DomainFolder& DomainFolder::operator=(DomainFolder&& other) noexcept {
  std::swap(parent_, other.parent_);
  std::swap(fd_, other.fd_);
  std::swap(group_, other.group_);
  std::swap(name_, other.name_);
  return *this;
}

DomainFolder::~DomainFolder() {
  if (const int own = fd(); own >= 0) {
    unlock();  // a child that was forked meanwhile has the descriptor too
    ::close(own);
  }
  if (const int own = parent(); own >= 0) ::close(own);
}

Result<DomainFolder> DomainFolder::open_locked(const FolderRequest& request) noexcept {
  EXTMEM_TRY_VOID(check_name(request.name));
  DomainFolder folder;
  folder.group_ = request.group;
  std::memcpy(folder.name_, request.name.data(), request.name.size());
  EXTMEM_TRY(parent, open_runtime_directory(request.directory, request.create, request.group));
  folder.parent_ = WatchedDescriptor(parent);
  for (;;) {
    EXTMEM_TRY(fd, open_folder(parent, folder.name_, request.create, request.group));
    folder.fd_ = WatchedDescriptor(fd);
    EXTMEM_TRY_VOID(folder.lock());
    if (folder.has_name()) return folder;
    // Somebody has removed the domain while we waited.
    folder.fd_ = {};
    ::close(fd);
  }
}

Result<int> DomainFolder::open_to_look(const FolderRequest& request) noexcept {
  EXTMEM_TRY_VOID(check_name(request.name));
  const Path path = runtime_directory(request.directory);
  if (!path.ok()) return too_long();
  char name[64] = {};
  std::memcpy(name, request.name.data(), request.name.size());
  EXTMEM_TRY(parent, open_to_read(AT_FDCWD, path.c_str()));
  const Descriptor parent_fd(parent);
  EXTMEM_TRY(folder, open_to_read(parent, name));
  const Descriptor folder_fd(folder);
  Descriptor control(
      above_standard(::openat(folder, kControlFile, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)));
  if (!control.is_open()) {
    if (errno == ENOENT) return EXTMEM_ERROR(ENOENT, "no domain of this name exists");
    return EXTMEM_SYS_ERROR(errno, "cannot open the domain's control file for reading");
  }
  struct stat status {};
  if (::fstat(control.get(), &status) != 0 || !S_ISREG(status.st_mode))
    return EXTMEM_ERROR(EPERM, "the domain's control file is no regular file: remove the domain's folder");
  return control.release();
}

Result<int> DomainFolder::checked_fd() const noexcept {
  const int own = fd();
  if (own < 0) return closed_by_program();
  return own;
}

bool DomainFolder::has_name() const noexcept {
  struct stat named {};
  struct stat opened {};
  return ::fstatat(parent(), name_, &named, AT_SYMLINK_NOFOLLOW) == 0 && ::fstat(fd(), &opened) == 0 &&
         named.st_ino == opened.st_ino && named.st_dev == opened.st_dev;
}

void DomainFolder::reopen() noexcept {
  const int old = fd();
  if (old < 0) return;
  fd_ = WatchedDescriptor(above_standard(::openat(old, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)));
  ::close(old);
}

Result<void> DomainFolder::lock() noexcept {
  EXTMEM_TRY(fd, checked_fd());
  const std::uint64_t start = monotonic_ns();
  while (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR)
      return EXTMEM_SYS_ERROR(errno, "cannot lock the folder of the domain");
    if (monotonic_ns() - start > kLockPatienceNs) return still_locked(fd);
    sleep_ns(kLockPauseNs);
  }
  return {};
}

void DomainFolder::unlock() noexcept { (void)::flock(fd(), LOCK_UN); }

Result<int> DomainFolder::open_file(const char* name, bool create) noexcept {
  const mode_t mode = group_ ? 0660 : 0600;
  const int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | (create ? O_CREAT : 0);
  const int fd = above_standard(::openat(this->fd(), name, flags, mode));
  if (fd < 0) {
    if (errno == EMFILE || errno == ENFILE) return too_many_files(errno);
    if (errno == EBADF) return closed_by_program();
    if (errno == ENOENT) return EXTMEM_ERROR(ENOENT, "no domain of this name exists: create it first");
    return EXTMEM_SYS_ERROR(errno, "cannot open a file of the domain");
  }
  struct stat status {};
  const bool readable = ::fstat(fd, &status) == 0;
  const bool ours = readable && S_ISREG(status.st_mode) &&
                    (status.st_uid == ::geteuid() || (group_ && status.st_gid == ::getegid()));
  if (!ours) {
    ::close(fd);
    return EXTMEM_ERROR(
        EPERM, "a file of the domain is no regular file of this user (or group): remove the domain's folder");
  }
  if (create) share_file(fd);
  return fd;
}

void DomainFolder::share_file(int fd) const noexcept {
  if (group_) (void)::fchmod(fd, 0660);  // whatever the umask says
}

Result<int> DomainFolder::open_new_control() noexcept {
  (void)::unlinkat(fd(), kNewControl, 0);  // of a creator that died
  return open_file(kNewControl, true);
}

Result<void> DomainFolder::publish_control() noexcept {
  if (::renameat(fd(), kNewControl, fd(), kControlFile) != 0) {
    return EXTMEM_SYS_ERROR(errno, "cannot publish the domain's control segment");
  }
  return {};
}

bool DomainFolder::private_to_user() const noexcept {
  struct stat status {};
  return ::fstat(fd(), &status) == 0 && status.st_uid == ::geteuid() && (status.st_mode & S_IWGRP) == 0;
}

bool DomainFolder::has(const char* name) const noexcept {
  struct stat named {};
  return ::fstatat(fd(), name, &named, AT_SYMLINK_NOFOLLOW) == 0 || errno != ENOENT;
}

bool DomainFolder::has(const char* name, int fd) const noexcept {
  struct stat named {};
  struct stat opened {};
  return ::fstatat(this->fd(), name, &named, AT_SYMLINK_NOFOLLOW) == 0 && ::fstat(fd, &opened) == 0 &&
         named.st_ino == opened.st_ino && named.st_dev == opened.st_dev;
}

void DomainFolder::remove_file(const char* name) noexcept {
  const ErrnoKeeper keeper;
  (void)::unlinkat(fd(), name, 0);
}

void DomainFolder::remove_files(std::string_view prefix, FunctionRef<bool(const char*)> keep) noexcept {
  const ErrnoKeeper keeper;
  FolderReader reader(fd());
  while (const auto name = reader.next()) {
    char text[256] = {};
    if (name->size() >= sizeof text || !name->starts_with(prefix)) continue;
    std::memcpy(text, name->data(), name->size());
    if (!keep(text)) (void)::unlinkat(fd(), text, 0);
  }
}

Result<void> DomainFolder::remove_all() noexcept {
  if (!FolderReader(fd()).is_open()) {
    const int failed = errno;
    if (has(kControlFile)) return folder_error(failed, name_);  // it stays whole
    for (const char* name : {kTokenFile, kNewControl}) (void)::unlinkat(fd(), name, 0);
  }
  (void)::unlinkat(fd(), kControlFile, 0);  // first: from now on nobody can join
  remove_files("", [](const char*) { return false; });
  if (::unlinkat(parent(), name_, AT_REMOVEDIR) != 0)
    return EXTMEM_SYS_ERROR(errno, "cannot remove the folder of the domain");
  return {};
}

Result<void> DomainFolder::list(const char* directory, FunctionRef<bool(std::string_view)> visit) noexcept {
  auto parent = open_runtime_directory(directory, false, true);
  if (!parent) return parent.error().code() == ENOENT ? Result<void>() : Result<void>(parent.error());
  FolderReader reader(*parent);
  while (const auto name = reader.next()) {
    if (check_name(*name) && !visit(*name)) break;
  }
  ::close(*parent);
  return {};
}

}  // namespace extmem::os
