// Reading the kernel's small text files (/proc, /sys) into fixed buffers.
//
// What it is: open/read/parse by hand, because stdio, std::string and opendir allocate and the library must
// not.
// Thread-safety: functions on values; no shared state. No allocation.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "os/descriptor.hpp"

namespace extmem::os {

/// Reads the file at `path` from its start into `buffer`, as much as fits.
/// Returns: what was read, inside `buffer`; nothing where the file cannot be opened or read (errno says why).
std::optional<std::string_view> read_text(const char* path, std::span<char> buffer) noexcept;

/// Takes a decimal number, after any blanks, off the front of `text`.
/// Returns: the number; nothing, leaving `text` as it was, where there is none or it exceeds 64 bits.
std::optional<std::uint64_t> take_number(std::string_view& text) noexcept;

/// Finds the number that follows `key` at the start of a line ("HugePages_Free:   12").
std::optional<std::uint64_t> number_after(std::string_view text, std::string_view key) noexcept;

/// Reads a file that holds one decimal number.
std::optional<std::uint64_t> read_number(const char* path) noexcept;

/// A path put together piece by piece in a fixed buffer; too long a path is cut and ok() turns false.
class Path {
 public:
  constexpr Path() noexcept = default;
  explicit Path(std::string_view start) noexcept { add(start); }
  Path& add(std::string_view piece) noexcept;
  Path& add(std::uint64_t number) noexcept;
  /// The number as 0x...
  Path& add_hex(std::uint64_t number) noexcept;
  [[nodiscard]] const char* c_str() const noexcept { return text_.data(); }
  [[nodiscard]] bool ok() const noexcept { return ok_; }

 private:
  std::array<char, 256> text_{};
  std::size_t length_ = 0;
  bool ok_ = true;
};

/// Walks the names in a folder, "." and ".." left out, in the kernel's order.
class FolderReader {
 public:
  explicit FolderReader(const char* path) noexcept;
  /// The folder that is open as `fd`, from its start; works without /proc.
  explicit FolderReader(int fd) noexcept;
  [[nodiscard]] bool is_open() const noexcept { return folder_.is_open(); }

  /// Returns: the next name, valid until the next call; nothing at the end or where the folder cannot be
  /// read.
  std::optional<std::string_view> next() noexcept;

 private:
  Descriptor folder_;
  std::size_t at_ = 0;
  std::size_t filled_ = 0;
  alignas(std::uint64_t) std::array<char, 1024> entries_;
};

}  // namespace extmem::os
