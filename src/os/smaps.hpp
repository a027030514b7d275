// Walking the mappings of this process with what /proc/self/smaps says about each.
//
// What it is: a line reader with fixed buffers. The kernel walks the page tables of each mapping to answer:
// slow in large processes, so for reports and old kernels only.
// Thread-safety: one owner. No allocation.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "os/descriptor.hpp"

namespace extmem::os {

/// One mapping: addresses [start, end), sizes in bytes.
struct SmapsEntry {
  std::uint64_t start = 0;
  std::uint64_t end = 0;
  std::uint64_t resident = 0;
  std::uint64_t kernel_page_size = 0;
};

class SmapsReader {
 public:
  SmapsReader() noexcept : file_(Descriptor::open_to_read("/proc/self/smaps")) {}
  /// False where smaps cannot be opened; errno says why, until another call changes it.
  [[nodiscard]] bool is_open() const noexcept { return file_.is_open(); }
  /// Returns: the next mapping, by ascending address; nothing at the end or after a failed read.
  std::optional<SmapsEntry> next() noexcept;

 private:
  std::optional<std::string_view> next_line() noexcept;

  Descriptor file_;
  std::optional<SmapsEntry> begun_{};  // its header has been read, not yet all that follows
  std::array<char, 4096> buffer_;
  std::size_t at_ = 0;
  std::size_t filled_ = 0;
  std::array<char, 128> line_;  // the start of a line is enough: headers end in a path of any length
};

}  // namespace extmem::os
