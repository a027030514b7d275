// Writer: text to a descriptor without the C library's streams, which would allocate.
//
// Thread-safety: one thread. No allocation; errno is not changed.
#pragma once

#include <cstddef>
#include <cstdint>

namespace extmem::os {

class Writer {
 public:
  explicit Writer(int fd) noexcept : fd_(fd) {}
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;
  ~Writer() { flush(); }

  Writer& text(const char* text) noexcept;
  Writer& number(std::uint64_t value) noexcept;
  Writer& hex(std::uint64_t value) noexcept;
  /// 64 MiB and the like: the largest unit that divides it, or two decimals of the largest that fits.
  Writer& bytes(std::uint64_t value) noexcept;
  /// A string of JSON, with quotes. Bytes that are not UTF-8 become U+FFFD.
  Writer& quoted(const char* text) noexcept;
  /// "name":value, with a comma first but after an opening brace.
  Writer& member(const char* name, std::uint64_t value) noexcept;
  Writer& member(const char* name, const char* value) noexcept;
  void flush() noexcept;
  /// 0, or the errno value of the first write that failed: what was to be written then is lost.
  [[nodiscard]] int failed() const noexcept { return failed_; }

 private:
  void put(char c) noexcept;

  int fd_;
  int failed_ = 0;
  std::size_t used_ = 0;
  char last_ = '\0';
  char buffer_[1024];
};

}  // namespace extmem::os
