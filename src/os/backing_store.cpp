#include "os/backing_store.hpp"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <climits>
#include <cstdio>  // renameat2
#include <cstring>
#include <utility>

#include "base/crash_point.hpp"
#include "base/error.hpp"
#include "os/descriptor.hpp"
#include "os/errno_keeper.hpp"
#include "os/kernel_text.hpp"
#include "os/mapping.hpp"
#include "os/process.hpp"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U  // Linux 6.3
#endif

namespace extmem::os {
namespace {

constexpr unsigned kHugeShift =
    26;  // where memfd_create and mmap expect the binary logarithm of a hugepage's size
constexpr std::size_t kMaxMemfdName = 249;
constexpr int kMaxOpenRaces = 8;
constexpr std::uint64_t kBlock = 512;  // the unit of st_blocks

Error open_error(int failed) noexcept {
  switch (failed) {
    case ENOENT:
      return EXTMEM_ERROR(
          ENOENT,
          "cannot open the backing: no such file or folder; correct the path, or ask for it to be "
          "created (its folder must exist; shm needs /dev/shm)");
    case EACCES:
    case EPERM:
      return EXTMEM_SYS_ERROR(
          failed,
          "cannot open the backing: permission denied; it must be readable and writable for "
          "this user, and its folder writable to create it");
    case EROFS:
      return EXTMEM_ERROR(EROFS, "cannot open the backing: its file system is mounted read-only");
    case EISDIR:
      return EXTMEM_ERROR(EISDIR, "cannot use a folder as a backing: give the path of a file in it");
    case ENOTDIR:
      return EXTMEM_ERROR(ENOTDIR, "cannot open the backing: a part of its path is not a folder");
    case ELOOP:
      return EXTMEM_ERROR(ELOOP,
                          "cannot open the backing: too many symbolic links, or a shm name that is one");
    case ENAMETOOLONG:
      return EXTMEM_ERROR(ENAMETOOLONG,
                          "the path of the backing is too long: at most 4095 bytes, 255 in its last part");
    case EMFILE:
      return EXTMEM_ERROR(EMFILE,
                          "cannot open the backing: too many open files; raise RLIMIT_NOFILE (ulimit -n)");
    case ENFILE:
      return EXTMEM_ERROR(ENFILE, "cannot open the backing: too many open files in the system (fs.file-max)");
    case ENOSPC:
      return EXTMEM_ERROR(ENOSPC, "cannot create the backing: no space or no inode left on its file system");
    case ENXIO:
    case ENODEV:
      return EXTMEM_SYS_ERROR(failed, "cannot open the backing: not a file, or a device without a driver");
    default:
      return EXTMEM_SYS_ERROR(failed, "cannot open the backing: open failed");
  }
}

Error hold_error(int failed, Medium medium) noexcept {
  switch (failed) {
    case ENOSPC:
      if (medium == Medium::tmpfs) {
        return EXTMEM_ERROR(ENOSPC,
                            "no space for the backing: its tmpfs is full, or memory is; enlarge it (mount -o "
                            "remount,size=... /dev/shm) or ask for less");
      }
      return EXTMEM_ERROR(ENOSPC,
                          "no space for the backing: its file system is full; free some, or ask for less");
    case EDQUOT:
      return EXTMEM_ERROR(EDQUOT, "no space for the backing: the disk quota of this user is used up");
    case EFBIG:
      return EXTMEM_ERROR(EFBIG, "the backing is too long for its file system");
    case ENOMEM:
      return EXTMEM_ERROR(ENOMEM, "no memory for the backing: the system or the cgroup has run out");
    case EPERM:
      return EXTMEM_ERROR(EPERM, "cannot make the backing longer: it is sealed, immutable or append-only");
    default:
      return EXTMEM_SYS_ERROR(failed, "cannot take space for the backing: fallocate failed");
  }
}

// Beyond RLIMIT_FSIZE the kernel sends SIGXFSZ, which kills: so look before growing.
Result<void> check_file_size_limit(std::uint64_t length) noexcept {
  rlimit limit{};
  if (::getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && length > limit.rlim_cur) {
    return EXTMEM_ERROR(EFBIG,
                        "the backing would be longer than RLIMIT_FSIZE allows: raise the limit (ulimit -f)");
  }
  return {};
}

}  // namespace

Store::Store(Store&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      folder_(std::exchange(other.folder_, -1)),
      medium_(other.medium_),
      is_memfd_(other.is_memfd_),
      is_new_(other.is_new_),
      may_have_grown_(other.may_have_grown_),
      page_size_(other.page_size_),
      old_length_(other.old_length_),
      length_(other.length_),
      name_(other.name_) {}

Store::~Store() {
  const ErrnoKeeper keeper;
  if (fd_ >= 0) {
    // Nothing can be done about a failing undo, and the caller's error says what went wrong first.
    if (is_new_ && folder_ >= 0) {
      [[maybe_unused]] const Result<void> undone = unlink_if_same(folder_, name_.data(), fd_);
    } else if (may_have_grown_ && !is_memfd_) {
      // Also a fallocate that failed may have lengthened the file, as far as it got.
      [[maybe_unused]] const int undone = ::ftruncate(fd_, static_cast<off_t>(old_length_));
    }
    ::close(fd_);
  }
  if (folder_ >= 0) ::close(folder_);
}

Result<Store> Store::open(const BackingRequest& request, std::size_t page_size) noexcept {
  Store store;
  switch (request.kind) {
    case BackingKind::memfd:
    case BackingKind::memfd_hugetlb:
      EXTMEM_TRY_VOID(store.open_memfd(request, page_size));
      return store;
    case BackingKind::shm:
      EXTMEM_TRY_VOID(store.open_shm(request));
      break;
    default:
      EXTMEM_TRY_VOID(store.open_path(request));
      break;
  }
  EXTMEM_TRY_VOID(store.recognise(request.kind));
  return store;
}

Result<void> Store::open_memfd(const BackingRequest& request, std::size_t page_size) noexcept {
  const char* const label = request.path_or_name != nullptr ? request.path_or_name : "extmem";
  if (std::strlen(label) > kMaxMemfdName) {
    return EXTMEM_ERROR(ENAMETOOLONG, "the label of a memfd is too long: at most 249 bytes");
  }
  unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  if (request.kind == BackingKind::memfd_hugetlb) {
    flags |= MFD_HUGETLB | static_cast<unsigned>(std::countr_zero(page_size)) << kHugeShift;
    medium_ = Medium::hugetlb;
    page_size_ = page_size;
  } else {
    page_size_ = os::page_size();
  }
  fd_ = above_standard(::memfd_create(label, flags | MFD_NOEXEC_SEAL));
  if (fd_ < 0 && errno == EINVAL) fd_ = above_standard(::memfd_create(label, flags));  // a kernel before 6.3
  if (fd_ < 0) {
    if (request.kind == BackingKind::memfd_hugetlb &&
        (errno == ENODEV || errno == EINVAL || errno == ENOSYS)) {
      return EXTMEM_ERROR(EOPNOTSUPP,
                          "the kernel makes no memfd of that hugepage size: see /sys/kernel/mm/hugepages");
    }
    if (errno == ENOSYS || errno == EACCES) {
      return EXTMEM_SYS_ERROR(
          errno, "cannot create a memfd: the kernel or its settings (vm.memfd_noexec) forbid it");
    }
    return open_error(errno);
  }
  is_memfd_ = true;
  is_new_ = true;
  return {};
}

Result<void> Store::open_shm(const BackingRequest& request) noexcept {
  std::string_view rest(request.path_or_name);
  if (!rest.starts_with('/')) {
    return EXTMEM_ERROR(EINVAL, "the name of a shm backing must begin with a slash: \"/name\"");
  }
  rest.remove_prefix(1);
  if (rest.empty() || rest == "." || rest == ".." || rest.find('/') != std::string_view::npos) {
    return EXTMEM_ERROR(EINVAL, "the name of a shm backing must be one slash and a plain name: \"/name\"");
  }
  return open_name(request, "/dev/shm", rest, O_NOFOLLOW);
}

Result<void> Store::open_path(const BackingRequest& request) noexcept {
  const std::string_view whole(request.path_or_name);
  if (request.folder >= 0) return open_name(request, ".", whole, O_NOFOLLOW);
  if (whole.size() >= PATH_MAX) return open_error(ENAMETOOLONG);
  const std::size_t slash = whole.rfind('/');
  if (slash == std::string_view::npos) return open_name(request, ".", whole, 0);
  std::array<char, PATH_MAX> folder;
  const std::size_t length = slash == 0 ? 1 : slash;  // "/file": the root keeps its slash
  std::memcpy(folder.data(), whole.data(), length);
  folder[length] = '\0';
  return open_name(request, folder.data(), whole.data() + slash + 1, 0);
}

/// Opens the file that has just got its name. By that: the kernel tells the path of a descriptor by how it was opened. Leaves fd_
/// negative where another file has taken its place.
void Store::take_name(int made_fd, int flags) noexcept {
  base::crash_point("backing.named");
  fd_ = above_standard(::openat(folder_, name_.data(), flags));
  struct stat made {};
  struct stat opened {};
  is_new_ = fd_ >= 0 && ::fstat(made_fd, &made) == 0 && ::fstat(fd_, &opened) == 0 &&
            made.st_dev == opened.st_dev && made.st_ino == opened.st_ino;
  if (fd_ >= 0 && !is_new_) ::close(std::exchange(fd_, -1));
}

/// The same for file systems where a file cannot be without a name: it first has one that was told beforehand, and that nobody
/// else can have. Returns: false where a file cannot get another name there without replacing what has it; else as above.
Result<bool> Store::create_aside(const BackingRequest& request, int flags) noexcept {
  const Path aside = Path(kAsidePrefix).add(random_number()).add("-").add(random_number());
  EXTMEM_TRY_VOID(request.making(NewFile{-1, folder_, name_.data(), aside.c_str()}));
  base::crash_point("backing.told");
  const Descriptor made(
      ::openat(folder_, aside.c_str(), flags | O_CREAT | O_EXCL | O_NOFOLLOW, S_IRUSR | S_IWUSR));
  if (!made.is_open()) return true;
  base::crash_point("backing.aside");
  const auto told = request.making(NewFile{made.get(), folder_, name_.data(), aside.c_str()});
  base::crash_point("backing.known");
  bool there = told.ok();  // under the name aside
  if (there) there = ::renameat2(folder_, aside.c_str(), folder_, name_.data(), RENAME_NOREPLACE) != 0;
  bool named = told.ok() && !there;
  if (there && errno != EEXIST) {
    named = ::linkat(folder_, aside.c_str(), folder_, name_.data(), 0) == 0;
    if (named) base::crash_point("backing.linked");
  }
  const int failed = errno;
  if (!named || there) (void)::unlinkat(folder_, aside.c_str(), 0);
  if (!told) return told.error();
  if (named) take_name(made.get(), flags);
  if (!named && failed != EEXIST) return false;
  if (fd_ < 0) errno = ENOENT;
  return true;
}

/// Creates the file so that whoever asked to know of it does before it has its name: makes it without one first. Leaves fd_
/// negative, errno ENOENT, where somebody else made the name meanwhile.
Result<void> Store::create_known(const BackingRequest& request, int flags) noexcept {
  const Descriptor nameless(
      ::openat(folder_, ".", O_TMPFILE | O_RDWR | O_CLOEXEC | O_NOCTTY, S_IRUSR | S_IWUSR));
  if (nameless.is_open()) {
    EXTMEM_TRY_VOID(request.making(NewFile{nameless.get(), folder_, name_.data(), ""}));
    base::crash_point("backing.known");
    const Path own = Path("/proc/self/fd/").add(static_cast<std::uint64_t>(nameless.get()));
    const bool named = ::linkat(AT_FDCWD, own.c_str(), folder_, name_.data(), AT_SYMLINK_FOLLOW) == 0;
    if (named) take_name(nameless.get(), flags);
    if (named || errno == EEXIST) {
      if (fd_ < 0) errno = ENOENT;
      return {};
    }
  }
  EXTMEM_TRY(done, create_aside(request, flags));
  if (done) return {};
  fd_ = above_standard(::openat(folder_, name_.data(), flags | O_CREAT | O_EXCL, S_IRUSR | S_IWUSR));
  is_new_ = fd_ >= 0;
  if (is_new_) return request.making(NewFile{fd_, folder_, name_.data(), ""});
  if (errno == EEXIST) errno = ENOENT;
  return {};
}

Result<void> Store::open_name(const BackingRequest& request, const char* folder, std::string_view name,
                              int flags) noexcept {
  if (name.empty() || name == "." || name == "..") return open_error(EISDIR);
  if (name.size() >= name_.size()) return open_error(ENAMETOOLONG);
  std::memcpy(name_.data(), name.data(), name.size());
  const int at = request.folder >= 0 ? request.folder : AT_FDCWD;
  folder_ = above_standard(::openat(at, folder, O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (folder_ < 0) return open_error(errno);
  // Others may create and remove the name meanwhile; only an exclusive creation tells whether it is ours to
  // undo.
  flags |= O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
  for (int race = 0; race < kMaxOpenRaces; ++race) {
    fd_ = above_standard(::openat(folder_, name_.data(), flags));
    if (fd_ >= 0 || errno != ENOENT || !request.create) break;
    if (request.making) {
      EXTMEM_TRY_VOID(create_known(request, flags));
      if (fd_ >= 0 || errno != ENOENT) break;
      continue;
    }
    fd_ = above_standard(::openat(folder_, name_.data(), flags | O_CREAT | O_EXCL, S_IRUSR | S_IWUSR));
    is_new_ = fd_ >= 0;
    if (is_new_ || errno != EEXIST) break;
    errno = ENOENT;  // a symbolic link to nothing, or a race lost
  }
  if (fd_ < 0) return open_error(errno);
  return {};
}

Result<void> Store::recognise(BackingKind kind) noexcept {
  struct stat status {};
  struct statfs system {};
  if (::fstat(fd_, &status) != 0 || ::fstatfs(fd_, &system) != 0) {
    return EXTMEM_SYS_ERROR(errno, "cannot examine the backing's file: fstat failed");
  }
  if (kind == BackingKind::dax && S_ISCHR(status.st_mode)) return recognise_device(status.st_rdev);
  if (!S_ISREG(status.st_mode)) {
    return EXTMEM_ERROR(
        EINVAL, "the path of the backing is not a regular file (nor, for kind dax, a /dev/dax device)");
  }
  old_length_ = length_ = static_cast<std::uint64_t>(status.st_size);
  switch (static_cast<unsigned long>(system.f_type)) {
    case HUGETLBFS_MAGIC:
      medium_ = Medium::hugetlb;
      page_size_ = static_cast<std::size_t>(system.f_bsize);
      return {};
    case TMPFS_MAGIC:
      medium_ = Medium::tmpfs;
      break;
    default:
      medium_ = Medium::disk;
      break;
  }
  page_size_ = os::page_size();
  return {};
}

Result<void> Store::recognise_device(std::uint64_t device) noexcept {
  Path folder("/sys/dev/char/");
  folder.add(std::uint64_t{major(device)}).add(":").add(std::uint64_t{minor(device)});
  const auto length = read_number(Path(folder).add("/size").c_str());
  const auto align = read_number(Path(folder).add("/align").c_str());
  if (!length || !align || !std::has_single_bit(*align)) {
    return EXTMEM_ERROR(
        EOPNOTSUPP,
        "the backing is not a DAX device: its size and alignment are not in /sys/dev/char; give "
        "/dev/daxX.Y, or a file on a file system mounted with -o dax");
  }
  medium_ = Medium::device;
  page_size_ = static_cast<std::size_t>(*align);
  old_length_ = length_ = *length;
  return {};
}

Result<void> Store::prepare(std::uint64_t length, bool may_grow) noexcept {
  if (length_ >= length) return {};
  if (medium_ == Medium::device) {
    return EXTMEM_ERROR(EINVAL,
                        "the backing is longer than its DAX device: ask for less; see its size in sysfs");
  }
  if (!may_grow) {
    return EXTMEM_ERROR(
        EINVAL,
        "the backing's file is shorter than the length asked for: ask for less, or for it to be "
        "made longer (create)");
  }
  EXTMEM_TRY_VOID(check_file_size_limit(length));
  return medium_ == Medium::hugetlb ? lengthen(length) : Result<void>();
}

Result<void> Store::lengthen(std::uint64_t length) noexcept {
  if (length_ >= length) return {};
  may_have_grown_ = true;
  if (::ftruncate(fd_, static_cast<off_t>(length)) != 0) return hold_error(errno, medium_);
  length_ = length;
  return {};
}

std::uint64_t Store::held() const noexcept {
  struct stat status {};
  return ::fstat(fd_, &status) == 0 ? static_cast<std::uint64_t>(status.st_blocks) * kBlock : 0;
}

Result<void> Store::hold(std::uint64_t offset, std::uint64_t bytes) noexcept {
  if (medium_ == Medium::hugetlb || medium_ == Medium::device) return {};
  // A signal makes tmpfs give up and undo the whole step, so under frequent signals only small steps get
  // through.
  std::uint64_t step = bytes;
  if (offset + bytes > length_) may_have_grown_ = true;
  while (bytes > 0) {
    step = std::min(step, bytes);
    if (::fallocate(fd_, 0, static_cast<off_t>(offset), static_cast<off_t>(step)) == 0) {
      offset += step;
      bytes -= step;
      length_ = std::max(length_, offset);
      continue;
    }
    if (errno == EINTR) {
      step = std::max<std::uint64_t>(step / 2, page_size_);
      continue;
    }
    if (errno != EOPNOTSUPP) return hold_error(errno, medium_);
    // A file system without fallocate: good enough is a file that has no holes.
    struct stat status {};
    if (::fstat(fd_, &status) == 0 && static_cast<std::uint64_t>(status.st_size) >= offset + bytes &&
        static_cast<std::uint64_t>(status.st_blocks) * kBlock >= static_cast<std::uint64_t>(status.st_size)) {
      return {};
    }
    return EXTMEM_ERROR(
        EOPNOTSUPP,
        "the file system of the backing cannot reserve space (no fallocate), so that a full disk "
        "would end in a SIGBUS: write the file in full beforehand, or choose another file system");
  }
  return {};
}

Result<void> Store::seal() noexcept {
  if (!is_memfd_) return {};
  if (::fcntl(fd_, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return EXTMEM_SYS_ERROR(errno, "cannot seal the length of the memfd: the kernel is older than 4.16");
  }
  return {};
}

void Store::release(Mapping& mapping, bool unlink_on_close) noexcept {
  mapping.fd = std::exchange(fd_, -1);
  mapping.created = is_new_ && !is_memfd_;
  mapping.lengthened = may_have_grown_ && !is_new_;
  mapping.old_length = old_length_;
  if (unlink_on_close && folder_ >= 0) {
    mapping.folder = std::exchange(folder_, -1);
    mapping.name = name_;
  }
}

Result<void> unlink_if_same(int folder, const char* name, int fd) noexcept {
  struct stat named {};
  struct stat open {};
  if (::fstatat(folder, name, &named, AT_SYMLINK_NOFOLLOW) != 0 || ::fstat(fd, &open) != 0) return {};
  if (named.st_dev != open.st_dev || named.st_ino != open.st_ino) return {};
  if (::unlinkat(folder, name, 0) != 0 && errno != ENOENT) {
    return EXTMEM_SYS_ERROR(errno, "cannot remove the name of the backing: its folder does not permit it");
  }
  return {};
}

}  // namespace extmem::os
