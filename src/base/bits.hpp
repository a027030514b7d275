// Bit and size arithmetic. Pure functions; no OS, no allocation.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace extmem::base {

/// Requires: align is a power of two; the result does not overflow.
constexpr std::uint64_t align_up(std::uint64_t value, std::uint64_t align) noexcept {
  return (value + align - 1) & ~(align - 1);
}
/// Requires: align is a power of two.
constexpr std::uint64_t align_down(std::uint64_t value, std::uint64_t align) noexcept {
  return value & ~(align - 1);
}
constexpr bool is_aligned(std::uint64_t value, std::uint64_t align) noexcept {
  return (value & (align - 1)) == 0;
}
constexpr bool is_power_of_two(std::uint64_t value) noexcept { return std::has_single_bit(value); }
/// Requires: value > 0.
constexpr unsigned floor_log2(std::uint64_t value) noexcept {
  return 63u - static_cast<unsigned>(std::countl_zero(value));
}

/// False when a + b, a * b or aligning up would overflow; else the result is in `out`.
constexpr bool checked_add(std::uint64_t a, std::uint64_t b, std::uint64_t& out) noexcept {
  return !__builtin_add_overflow(a, b, &out);
}
constexpr bool checked_mul(std::uint64_t a, std::uint64_t b, std::uint64_t& out) noexcept {
  return !__builtin_mul_overflow(a, b, &out);
}

/// Conversion whose value is known to fit.
template <typename To, typename From>
constexpr To narrow(From value) noexcept {
  return static_cast<To>(value);
}

}  // namespace extmem::base
