// Numbers as people read them.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace extmem::cli {

/// 64 MiB, 38.2 MiB, 512 B.
std::string bytes_text(std::uint64_t bytes);
/// 1,234,567
std::string count_text(std::uint64_t count);
/// 3.1 ns, 12.4 ms, 4.00 s
std::string time_text(double seconds);
/// 61 %; <1 % where there is a little.
std::string share_text(double part, double whole);
/// 0x1c0000000
std::string hex_text(std::uint64_t value);
/// "1 region", "5 regions"; `many` where an s is not enough.
std::string plural(std::uint64_t count, const std::string& noun, const std::string& many = {});
/// A name without control characters: what other programs chose must not steer the terminal.
std::string clean(const std::string& name);

/// Seconds since it was made.
class Stopwatch {
 public:
  [[nodiscard]] double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace extmem::cli
