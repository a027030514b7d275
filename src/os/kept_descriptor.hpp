// KeptDescriptor: a descriptor inside somebody else's program, which may close every descriptor that it does not know, and then
// get its number for a file of its own.
//
// Thread-safety: get() by any thread; keep() and drop() by one, while nobody calls get().
// No allocation; errno stays as it was.
#pragma once

#include <cstdint>

namespace extmem::os {

class KeptDescriptor {
 public:
  constexpr KeptDescriptor() noexcept = default;
  KeptDescriptor(const KeptDescriptor&) = delete;
  KeptDescriptor& operator=(const KeptDescriptor&) = delete;

  /// Keeps a duplicate of `fd`, which goes with an exec, at `lowest` or above: out of the way of programs that count on the numbers of
  /// what they open. Where the limit does not allow that, at 3 or above; where that neither, it keeps none.
  void keep(int fd, int lowest) noexcept;
  /// Closes it, if it is still there.
  void drop() noexcept;
  /// The descriptor, or -1: none is kept, or the program closed it.
  [[nodiscard]] int get() const noexcept;
  /// Whether `fd` has the same file open, as far as its device and number say.
  [[nodiscard]] bool is_file_of(int fd) const noexcept;

 private:
  int fd_ = -1;
  std::uint64_t device_ = 0;
  std::uint64_t inode_ = 0;
};

}  // namespace extmem::os
