#include "os/kernel_text.hpp"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>

namespace extmem::os {
namespace {

// What getdents64 writes; the C library does not declare it.
struct DirectoryEntry {
  std::uint64_t inode;
  std::int64_t offset;
  std::uint16_t length;
  std::uint8_t type;
};
constexpr std::size_t kNameOffset = 19;  // the name follows `type` at once

}  // namespace

std::optional<std::string_view> read_text(const char* path, std::span<char> buffer) noexcept {
  const Descriptor file = Descriptor::open_to_read(path);
  if (!file.is_open()) return std::nullopt;
  std::size_t filled = 0;
  while (filled < buffer.size()) {
    const ssize_t got = ::read(file.get(), buffer.data() + filled, buffer.size() - filled);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return std::nullopt;
    if (got == 0) break;
    filled += static_cast<std::size_t>(got);
  }
  return std::string_view(buffer.data(), filled);
}

std::optional<std::uint64_t> take_number(std::string_view& text) noexcept {
  const std::size_t start = text.find_first_not_of(" \t");
  if (start == std::string_view::npos) return std::nullopt;
  std::uint64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, failed] = std::from_chars(text.data() + start, end, value);
  if (failed != std::errc{}) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(stop - text.data()));
  return value;
}

std::optional<std::uint64_t> number_after(std::string_view text, std::string_view key) noexcept {
  while (!text.empty()) {
    if (text.starts_with(key)) {
      text.remove_prefix(key.size());
      return take_number(text);
    }
    const std::size_t end = text.find('\n');
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  return std::nullopt;
}

std::optional<std::uint64_t> read_number(const char* path) noexcept {
  std::array<char, 32> buffer;
  std::optional<std::string_view> text = read_text(path, buffer);
  return text ? take_number(*text) : std::nullopt;
}

Path& Path::add(std::string_view piece) noexcept {
  if (!ok_ || piece.size() >= text_.size() - length_) {
    ok_ = false;
    return *this;
  }
  std::memcpy(text_.data() + length_, piece.data(), piece.size());
  length_ += piece.size();
  text_[length_] = '\0';
  return *this;
}

Path& Path::add(std::uint64_t number) noexcept {
  std::array<char, 20> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), number).ptr;
  return add(std::string_view(digits.data(), static_cast<std::size_t>(end - digits.data())));
}

Path& Path::add_hex(std::uint64_t number) noexcept {
  std::array<char, 16> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), number, 16).ptr;
  return add("0x").add(std::string_view(digits.data(), static_cast<std::size_t>(end - digits.data())));
}

FolderReader::FolderReader(const char* path) noexcept
    : folder_(Descriptor::open_to_read(path, O_DIRECTORY)) {}

FolderReader::FolderReader(int fd) noexcept
    : folder_(::openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {}

std::optional<std::string_view> FolderReader::next() noexcept {
  while (folder_.is_open()) {
    if (at_ >= filled_) {
      const long got = ::syscall(SYS_getdents64, folder_.get(), entries_.data(), entries_.size());
      if (got <= 0) return std::nullopt;
      at_ = 0;
      filled_ = static_cast<std::size_t>(got);
    }
    DirectoryEntry entry;
    std::memcpy(&entry, entries_.data() + at_, sizeof entry);
    const std::string_view name(entries_.data() + at_ + kNameOffset);
    at_ += entry.length;
    if (name != "." && name != "..") return name;
  }
  return std::nullopt;
}

}  // namespace extmem::os
