// Small operations on open files: what the layers above need of descriptors.
//
// Thread-safety: any thread. No allocation; errno stays as it was.
#pragma once

#include <cstddef>
#include <cstdint>

#include "extmem/result.hpp"

namespace extmem::os {

/// Reads up to `bytes` at `offset`. Returns how many there were. Errors: those of pread.
Result<std::size_t> read_at(int fd, void* to, std::size_t bytes, std::uint64_t offset) noexcept;
/// Writes all of `bytes` at `offset`. Errors: those of pwrite.
Result<void> write_at(int fd, const void* from, std::size_t bytes, std::uint64_t offset) noexcept;
/// Sets the length. Returns 0 or the errno value; EFBIG where RLIMIT_FSIZE does not allow that.
[[nodiscard]] int set_length(int fd, std::uint64_t bytes) noexcept;
/// Takes space for a range, so that storing there cannot fail. Returns 0 or the errno value (ENOSPC, EDQUOT...).
[[nodiscard]] int take_space(int fd, std::uint64_t offset, std::uint64_t bytes) noexcept;
/// Gives the space of a range back: it reads as zeroes.
void give_space_back(int fd, std::uint64_t offset, std::uint64_t bytes) noexcept;
struct FileStatus {
  std::uint64_t bytes = 0;
  std::uint64_t names = 0;  ///< 0: it was removed
};
/// Errors: those of fstat.
Result<FileStatus> file_status(int fd) noexcept;
inline constexpr std::uint64_t kNoMore = ~std::uint64_t{0};
/// Where the file has data again, from an offset on; kNoMore: nowhere. Errors: those of lseek.
Result<std::uint64_t> next_data(int fd, std::uint64_t offset) noexcept;
/// Where that data ends; kNoMore where that cannot be found out, or where a hole was made of it.
[[nodiscard]] std::uint64_t next_hole(int fd, std::uint64_t offset) noexcept;
/// Bytes of memory or disk behind the file; 0 where that cannot be found out.
[[nodiscard]] std::uint64_t occupied_bytes(int fd) noexcept;
/// Whether two descriptors have the same file (or folder) open.
[[nodiscard]] bool same_file(int one, int other) noexcept;
/// Closes a descriptor; a negative one is none.
void close_file(int fd) noexcept;

}  // namespace extmem::os
