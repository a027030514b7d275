// The file of a shared fbarray: finding or making it safely, who has it, and mapping it at one address everywhere.
//
// What it is: RUNTIME_DIRECTORY/fbarray_NAME, mode 0600. Whoever has the array attached holds a read lock of its first
// byte, who makes or destroys it the write lock. They are locks of the open file description (F_OFD_SETLK): the kernel
// drops one when the last process that has the descriptor ends, so the dead block nobody; a fork's child, which has the
// mapping too, keeps it; and a read lock becomes a write lock or stays, while flock() would lose it on the way.
// Thread-safety: one owner. Results are 0 or an errno value.
#pragma once

#include <sys/types.h>

#include <cstdint>

namespace extmem::dpdk {

class ArrayFile {
 public:
  ArrayFile() noexcept = default;
  ArrayFile(ArrayFile&& other) noexcept;
  ArrayFile& operator=(ArrayFile&& other) noexcept;
  ~ArrayFile();

  /// Makes the file, or takes over the one that dead processes left, with `bytes` bytes of zeroes, of which the first
  /// `with_memory` have memory behind them at once; holds the write lock.
  /// Errors: EINVAL a '/' in the name; EBUSY a living process has it; EPERM a file of somebody else, or no regular one;
  /// ELOOP a symbolic link; ENOMEM no room; what open says.
  int create(const char* directory, const char* name, std::uint64_t bytes,
             std::uint64_t with_memory) noexcept;
  /// Opens the file; holds the read lock. Errors: as above; ENOENT; EINVAL it is shorter than `bytes`; EBUSY it is being
  /// made or destroyed.
  int open(const char* directory, const char* name, std::uint64_t bytes) noexcept;

  [[nodiscard]] bool is_open() const noexcept { return fd_ >= 0; }
  [[nodiscard]] int fd() const noexcept { return fd_; }
  /// From the write lock to the read lock.
  int let_others_attach() noexcept;
  /// From the read lock to the write lock: EBUSY where somebody else has the file, and then nothing has changed.
  int exclude_others() noexcept;
  /// In a fork's child: gets a read lock of its own, so that it and its parent count as two.
  int reopen_after_fork() noexcept;
  /// Removes the name, if it is still this file's. Requires: the write lock.
  void remove(const char* directory, const char* name) noexcept;

 private:
  int fd_ = -1;
};

/// Maps `bytes` bytes of the file at an address that other processes are likely to have free as well: one that the name
/// chooses above `base` (0: where neither programs nor libraries are put). `fd` -1: private anonymous memory.
/// Returns: the mapping, or nullptr where there are no addresses.
void* map_anywhere(int fd, std::uint64_t bytes, const char* name, std::uint64_t base) noexcept;
/// Maps them at `address` and nowhere else, never in place of another mapping. Errors: EADDRNOTAVAIL it is taken, or no
/// address that this process can have; ENOMEM.
int map_exactly(int fd, std::uint64_t bytes, std::uint64_t address) noexcept;

/// Removes the files of arrays that no living process has.
void remove_dead_arrays(const char* directory) noexcept;

}  // namespace extmem::dpdk
