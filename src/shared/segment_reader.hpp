// SegmentReader: a control segment's file, read by somebody who maps nothing of it and trusts nothing in it.
//
// What it is: pread, so that a file which is cut short meanwhile is an error and not a SIGBUS; and only where the file has
// data, so that a sparse file of 75 GiB costs what is in it.
// Thread-safety: one owner (it moves the descriptor's own file position).
#pragma once

#include <cstddef>
#include <cstdint>

#include "extmem/result.hpp"
#include "os/watched_descriptor.hpp"

namespace extmem::shared {

class SegmentReader {
 public:
  SegmentReader() noexcept = default;
  /// `bytes`: the length that the file must have. The descriptor stays the caller's.
  SegmentReader(int fd, std::uint64_t bytes) noexcept : file_(fd), bytes_(bytes) {}

  /// Copies a range to where it lies in a copy of the segment at `copy`, in whole OS pages; where the file has no data the
  /// copy reads as zero. Requires: `offset` and `length` are multiples of 64 KiB, inside the segment; the copy's memory is
  /// private and anonymous. Errors: EUCLEAN the file was cut short; those of reading.
  Result<void> copy(std::byte* copy, std::uint64_t offset, std::uint64_t length) const noexcept;
  /// One word, read on its own. Words are read whole (docs/decisions/0012-inspectors.md). Errors: as above.
  template <typename Word>
  Result<Word> word(std::uint64_t offset) const noexcept {
    Word value{};
    if (auto read = bytes(offset, &value, sizeof value); !read) return read.error();
    return value;
  }
  Result<void> bytes(std::uint64_t offset, void* to, std::uint64_t length) const noexcept;
  /// Errors: EUCLEAN the file has another length than it had; ESTALE, where it had a name: the domain was removed.
  Result<void> check(bool named) const noexcept;

 private:
  os::WatchedDescriptor file_;  // the program may have closed it
  std::uint64_t bytes_ = 0;
};

}  // namespace extmem::shared
