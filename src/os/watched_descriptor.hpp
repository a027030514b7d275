// WatchedDescriptor: a descriptor that stays open inside somebody else's program, which may close every descriptor that it does not
// know, and then get its number for a file of its own. So whoever uses or closes it asks each time whether it is still that file.
//
// Thread-safety: a value; get() by any thread. Does not own: nothing is closed. No allocation; errno stays as it was.
#pragma once

#include <cstdint>

namespace extmem::os {

class WatchedDescriptor {
 public:
  constexpr WatchedDescriptor() noexcept = default;
  /// Watches `fd`; a negative one is none.
  explicit WatchedDescriptor(int fd) noexcept;

  /// The descriptor; -1: there is none, or the program closed it.
  [[nodiscard]] int get() const noexcept { return fd_ >= 0 && is_file_of(fd_) ? fd_ : -1; }
  /// Whether `fd` has the same file open, as far as its device and number say.
  [[nodiscard]] bool is_file_of(int fd) const noexcept;
  [[nodiscard]] std::uint64_t device() const noexcept { return device_; }
  [[nodiscard]] std::uint64_t inode() const noexcept { return inode_; }

 private:
  int fd_ = -1;
  std::uint64_t device_ = 0;
  std::uint64_t inode_ = 0;
};

}  // namespace extmem::os
