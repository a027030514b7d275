// Where named domains live: <runtime directory>/<domain>/ on a tmpfs, with these files:
//
//   control      the control segment (published by rename, so it is there whole or not at all)
//   alive        the token file: each participant holds the lock of one byte (os/record_lock.hpp)
//   region-*     memory of own backings without a path
//   making-*     what files elsewhere are being made (heap/making_note.hpp)
//
// What it is: finding and checking that folder, and the one lock (flock on the folder) under which a domain is created,
// joined and removed. The kernel gives the lock back when its holder dies.
// Thread-safety: one owner. No allocation.
// Invariants:
//  1. Folders are ours: made with mode 0700 (0770 for a group), refused when somebody else owns them or may write to
//     them, or when they are symbolic links.
//  2. Names are opened relative to the folder's descriptor and never through symbolic links.
#pragma once

#include <cstdint>
#include <string_view>

#include "extmem/function_ref.hpp"
#include "extmem/result.hpp"
#include "os/watched_descriptor.hpp"

namespace extmem::os {

/// Which folder, and who may share it.
struct FolderRequest {
  const char* directory = nullptr;  ///< runtime directory; null: default_runtime_directory()
  std::string_view name;            ///< of the domain
  bool create = false;
  bool group = false;  ///< members of the group may share it
};

class DomainFolder {
 public:
  DomainFolder() noexcept = default;
  DomainFolder(DomainFolder&& other) noexcept;
  DomainFolder& operator=(DomainFolder&& other) noexcept;
  ~DomainFolder();

  /// Opens (or makes) the folder and takes its lock, waiting at most five seconds for others that join at the time.
  /// Errors: EINVAL the name; ENOENT no such domain; EPERM, ELOOP a folder that is not safe; ENOTSUP not on a tmpfs;
  /// ETIMEDOUT somebody keeps the lock; what mkdir and open say.
  static Result<DomainFolder> open_locked(const FolderRequest& request) noexcept;
  /// Opens the control file of a domain for reading only, whoever owns it, without any lock. For those who trust nothing of
  /// what they read. Errors: EINVAL the name; ENOENT no such domain; EACCES; EPERM not a regular file; what open says.
  static Result<int> open_to_look(const FolderRequest& request) noexcept;
  void unlock() noexcept;
  Result<void> lock() noexcept;

  /// The open folder; -1: the program has closed the descriptor.
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  /// The same. Errors: EBADF.
  Result<int> checked_fd() const noexcept;
  /// Whether `fd` has the same folder open, also where the program has closed ours.
  [[nodiscard]] bool is_folder_of(int fd) const noexcept { return fd_.is_file_of(fd); }
  /// In a fork's child: opens the folder anew, since the lock of an inherited descriptor is its parent's too.
  void reopen() noexcept;
  /// Whether the folder still has its name: nobody has removed the domain.
  [[nodiscard]] bool has_name() const noexcept;
  /// Lets the group use a file of the folder that was made in another way, where the group shares the folder.
  void share_file(int fd) const noexcept;
  /// Opens a file of the folder for reading and writing. Errors: ENOENT; EPERM not a regular file of ours.
  Result<int> open_file(const char* name, bool create) noexcept;
  /// Whether the folder has a file of that name.
  [[nodiscard]] bool has(const char* name) const noexcept;
  /// A new empty file under a name that nobody looks at, and its publication. Requires: the lock.
  Result<int> open_new_control() noexcept;
  Result<void> publish_control() noexcept;
  /// Whether no other user than root can write to it, nor to what is in it.
  [[nodiscard]] bool private_to_user() const noexcept;
  /// Whether the file of that name is the one that is open as `fd`.
  [[nodiscard]] bool has(const char* name, int fd) const noexcept;
  /// Removes one file, if it is there.
  void remove_file(const char* name) noexcept;
  /// Removes the files whose names begin with `prefix`, but those that `keep` answers true for.
  void remove_files(std::string_view prefix, FunctionRef<bool(const char*)> keep) noexcept;
  /// Removes every file and the folder itself. Requires: the lock.
  Result<void> remove_all() noexcept;

  /// Calls `visit` with the name of each domain of the runtime directory, this user's or the group's; true goes on.
  static Result<void> list(const char* directory, FunctionRef<bool(std::string_view)> visit) noexcept;
  /// A domain's or a file's name: 1 to 63 bytes, no '/', no leading '.'.
  static Result<void> check_name(std::string_view name) noexcept;

 private:
  [[nodiscard]] int parent() const noexcept { return parent_.get(); }

  WatchedDescriptor parent_;
  WatchedDescriptor fd_;
  bool group_ = false;
  char name_[64] = {};
};

inline constexpr const char* kControlFile = "control";
inline constexpr const char* kTokenFile = "alive";

}  // namespace extmem::os
