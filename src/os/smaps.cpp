#include "os/smaps.hpp"

#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <utility>

#include "os/kernel_text.hpp"

namespace extmem::os {
namespace {

// "7f0000000000-7f0000200000 rw-p ...": all other lines begin with a capital letter.
std::optional<SmapsEntry> header(std::string_view line) noexcept {
  SmapsEntry entry;
  const char* const end = line.data() + line.size();
  const auto start_result = std::from_chars(line.data(), end, entry.start, 16);
  if (start_result.ec != std::errc{} || start_result.ptr == end || *start_result.ptr != '-')
    return std::nullopt;
  const auto end_result = std::from_chars(start_result.ptr + 1, end, entry.end, 16);
  if (end_result.ec != std::errc{}) return std::nullopt;
  return entry;
}

}  // namespace

std::optional<std::string_view> SmapsReader::next_line() noexcept {
  std::size_t length = 0;
  while (file_.is_open()) {
    if (at_ == filled_) {
      const ssize_t got = ::read(file_.get(), buffer_.data(), buffer_.size());
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return std::nullopt;
      at_ = 0;
      filled_ = static_cast<std::size_t>(got);
    }
    const char c = buffer_[at_++];
    if (c == '\n') return std::string_view(line_.data(), length);
    if (length < line_.size()) line_[length++] = c;
  }
  return std::nullopt;
}

std::optional<SmapsEntry> SmapsReader::next() noexcept {
  while (const auto line = next_line()) {
    if (const auto begins = header(*line)) {
      const auto ends = std::exchange(begun_, begins);
      if (ends) return ends;
    } else if (begun_) {
      if (const auto kilobytes = number_after(*line, "Rss:")) begun_->resident = *kilobytes * 1024;
      if (const auto kilobytes = number_after(*line, "KernelPageSize:")) {
        begun_->kernel_page_size = *kilobytes * 1024;
      }
    }
  }
  return std::exchange(begun_, std::nullopt);
}

}  // namespace extmem::os
