// Writing without malloc, stdio or locale: text through a small buffer into a sink.
//
// What it is: what the heap map is written with. Units are spelled as people read them; names are escaped.
// Thread-safety: an object belongs to one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "extmem/function_ref.hpp"

namespace extmem::heap::map {

/// A short text on the stack: what does not fit is cut off.
class Label {
 public:
  Label& text(std::string_view s) noexcept;
  Label& number(std::uint64_t value) noexcept;
  /// 64 MiB, 38.2 MiB, 512 B: exact where it can be, else one decimal, rounded down.
  Label& bytes(std::uint64_t value) noexcept;
  /// 61 %; <1 % and >99 % are never rounded to nothing or to everything.
  Label& percent(std::uint64_t part, std::uint64_t whole) noexcept;
  Label& hex(std::uint64_t value) noexcept;
  /// At most `most` characters of a name, as valid UTF-8 without control characters; "…" (or "~") marks a cut.
  Label& name(std::string_view s, std::size_t most = 64, bool ascii = false) noexcept;

  [[nodiscard]] std::string_view view() const noexcept { return {buffer_, used_}; }
  /// Characters (code points), which is what a terminal's columns count.
  [[nodiscard]] std::size_t columns() const noexcept;
  void clear() noexcept { used_ = 0; }

 private:
  char buffer_[360];
  std::size_t used_ = 0;
};

class Writer {
 public:
  explicit Writer(FunctionRef<bool(std::string_view)> sink) noexcept : sink_(sink) {}
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  Writer& raw(std::string_view s) noexcept;
  Writer& raw(const Label& label) noexcept { return raw(label.view()); }
  /// Text inside an XML element or attribute.
  Writer& xml(std::string_view s) noexcept;
  Writer& xml(const Label& label) noexcept { return xml(label.view()); }
  Writer& number(std::uint64_t value) noexcept;
  Writer& repeat(std::string_view s, std::size_t times) noexcept;
  /// Sends what is buffered. Returns false when the sink has stopped.
  bool flush() noexcept;
  [[nodiscard]] bool stopped() const noexcept { return stopped_; }

 private:
  FunctionRef<bool(std::string_view)> sink_;
  std::size_t used_ = 0;
  bool stopped_ = false;
  char buffer_[4096];
};

/// Characters of valid UTF-8.
[[nodiscard]] std::size_t count_columns(std::string_view s) noexcept;

}  // namespace extmem::heap::map
