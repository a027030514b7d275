// Mapping memory that another process made: finding the file again, checking that it is the same, choosing the address.
//
// Thread-safety: any thread. No allocation.
#pragma once

#include <cstddef>
#include <cstdint>

#include "extmem/result.hpp"

namespace extmem::os {

/// A region's mappings in different processes are congruent modulo this: so what is aligned in one is in all.
inline constexpr std::uint64_t kCongruence = std::uint64_t{1} << 30;

/// What a file must be to be the one that is meant.
struct SharedFile {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::uint64_t bytes = 0;  ///< at least
};

/// Identifies the file of an open descriptor. Errors: those of fstat.
Result<SharedFile> identify(int fd) noexcept;
/// The absolute path of an open file as the kernel knows it, written to `path` (zero-terminated).
/// Errors: ENAMETOOLONG; ENOENT it has no name any more.
Result<void> path_of(int fd, char* path, std::size_t size) noexcept;
/// Opens a file by its path. Errors: those of open; ESTALE another file is there now, or it is shorter.
Result<int> open_shared_path(const char* path, const SharedFile& file) noexcept;
/// An open file that was found in another way, if it is the one; else it is closed. Errors: ESTALE.
Result<int> checked_shared(int fd, const SharedFile& file) noexcept;
/// Opens what process `pid` has open as `fd`. Errors: as above; EACCES without permission to look at that process.
Result<int> open_shared_holder(std::uint32_t pid, int fd, const SharedFile& file) noexcept;

/// A descriptor of its own for a file that somebody else opened and handed over. `sealed`: it must be a memfd that nobody can
/// cut short any more. Errors: EBADF; ESTALE it is another file, or shorter; EACCES it is not open for reading and writing;
/// EPERM it is not sealed; EMFILE.
Result<int> take_over(int fd, const SharedFile& file, bool sealed) noexcept;

/// Removes the path where it still names that file: gone, or another file's, it is left alone. `of_group`: only a file
/// that members of this process' group may write to. Errors: EPERM it is none; those of lstat, unlink.
Result<void> unlink_shared_path(const char* path, const SharedFile& file, bool of_group) noexcept;

/// Removes a path whose name nobody else can have, where an empty file of this user is, and the one that it is known to be, if it is.
/// `file`: zeroes where it is not known. Errors: as above.
Result<void> unlink_aside(const char* path, const SharedFile& file) noexcept;

struct SharedMappingRequest {
  int fd = -1;
  std::uint64_t length = 0;
  std::uint64_t wanted = 0;  ///< the address to have, if it is free; else another one congruent to it
  bool only_there = false;   ///< at `wanted` or nowhere
};
/// Maps the file's start, shared, readable and writable. Errors: those of mmap; ENOMEM no such address is free; EEXIST with
/// only_there: something else is there.
Result<std::byte*> map_shared_at(const SharedMappingRequest& request) noexcept;

}  // namespace extmem::os
