// Reading the values of options: numbers, sizes of sockets, masks and lists of processors, the map of lcores.
#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cstdint>
#include <string_view>

#include "faces/dpdk/options.hpp"

namespace extmem::dpdk {
namespace {

constexpr std::uint64_t kMebibyte = 1u << 20;

void skip_blanks(std::string_view& text) noexcept {
  while (text.starts_with(' ') || text.starts_with('\t')) text.remove_prefix(1);
}

// Takes a decimal number off the front, and the blanks around it.
std::optional<unsigned> take_unsigned(std::string_view& text) noexcept {
  skip_blanks(text);
  unsigned number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{}) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  skip_blanks(text);
  return number;
}

// "a" or "a-b" (in either order), off the front; sets the bits.
bool take_range(std::string_view& text, std::span<bool> bits) noexcept {
  const auto first = take_unsigned(text);
  if (!first) return false;
  auto last = first;
  if (text.starts_with('-')) {
    text.remove_prefix(1);
    last = take_unsigned(text);
    if (!last) return false;
  }
  const auto [low, high] = std::minmax(*first, *last);
  if (high >= bits.size()) return false;
  for (unsigned bit = low; bit <= high; ++bit) bits[bit] = true;
  return true;
}

// "(a,b-c)" or one range without parentheses, off the front. Sets the bits; returns what it looked like.
enum class Group { malformed, single, in_parentheses };
Group take_group(std::string_view& text, std::span<bool> bits) noexcept {
  skip_blanks(text);
  if (!text.starts_with('(')) return take_range(text, bits) ? Group::single : Group::malformed;
  do {
    text.remove_prefix(1);
    if (!take_range(text, bits)) return Group::malformed;
  } while (text.starts_with(','));
  if (!text.starts_with(')')) return Group::malformed;
  text.remove_prefix(1);
  skip_blanks(text);
  return Group::in_parentheses;
}

}  // namespace

std::optional<std::uint64_t> parse_number(std::string_view text, int base) noexcept {
  if (base == 0) {
    base = 10;
    if (text.starts_with("0x") || text.starts_with("0X")) {
      base = 16;
      text.remove_prefix(2);
    } else if (text.size() > 1 && text.front() == '0') {
      base = 8;
    }
  }
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return number;
}

bool parse_socket_sizes(const char* text, std::span<std::uint64_t> bytes) noexcept {
  std::string_view rest(text);
  for (std::size_t socket = 0; socket < bytes.size(); ++socket) {
    const std::size_t comma = std::min(rest.find(','), rest.size());
    const auto size = parse_number(rest.substr(0, comma));
    if (!size || *size > UINT64_MAX / kMebibyte / bytes.size()) return false;
    bytes[socket] = *size * kMebibyte;
    if (comma == rest.size()) return true;
    rest.remove_prefix(comma + 1);
  }
  return false;  // more values than sockets
}

bool parse_mask(std::string_view text, std::span<bool> bits) noexcept {
  while (!text.empty() && std::isblank(static_cast<unsigned char>(text.front())) != 0) text.remove_prefix(1);
  while (!text.empty() && std::isblank(static_cast<unsigned char>(text.back())) != 0) text.remove_suffix(1);
  if (text.starts_with("0x") || text.starts_with("0X")) text.remove_prefix(2);
  bool any = false;
  std::size_t bit = 0;
  for (auto digit = text.rbegin(); digit != text.rend(); ++digit, bit += 4) {
    const auto value = parse_number(std::string_view(&*digit, 1), 16);
    if (!value) return false;
    for (std::size_t i = 0; i < 4; ++i) {
      if ((*value >> i & 1) == 0) continue;
      if (bit + i >= bits.size()) return false;
      bits[bit + i] = any = true;
    }
  }
  return any;
}

bool parse_list(std::string_view text, std::span<bool> bits) noexcept {
  if (!take_range(text, bits)) return false;
  while (text.starts_with(',')) {
    text.remove_prefix(1);
    if (!take_range(text, bits)) return false;
  }
  return text.empty();
}

bool parse_lcore_map(std::string_view text, LcoreOptions& lcores) noexcept {
  for (;;) {
    std::array<bool, kMaxLcores> ids{};
    std::array<bool, CPU_SETSIZE> cpus{};
    const std::string_view start = text;
    const Group group = take_group(text, ids);
    if (group == Group::malformed) return false;
    // "3" and "0-3" are each on the processor of the same number; so is a group in parentheses, but its lcores float
    // over all of them.
    bool same = group == Group::single;
    if (text.starts_with('@')) {
      text.remove_prefix(1);
      same = false;
      if (take_group(text, cpus) == Group::malformed) return false;
    } else if (group == Group::in_parentheses) {
      std::string_view again = start;
      (void)take_group(again, cpus);
    }
    for (unsigned id = 0; id < kMaxLcores; ++id) {
      if (!ids[id]) continue;
      if (lcores.wanted[id]) return false;  // named twice
      lcores.wanted[id] = true;
      CPU_ZERO(&lcores.cpus[id]);
      for (unsigned cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
        if (same ? cpu == id : cpus[cpu]) CPU_SET(cpu, &lcores.cpus[id]);
      }
    }
    if (text.empty()) return true;
    if (!text.starts_with(',')) return false;
    text.remove_prefix(1);
  }
}

}  // namespace extmem::dpdk

extern "C" int rte_eal_parse_coremask(const char* coremask, int* cores) {
  std::array<bool, RTE_MAX_LCORE> bits{};
  if (coremask == nullptr || !extmem::dpdk::parse_mask(coremask, bits)) return -1;
  int index = 0;
  for (unsigned cpu = 0; cpu < RTE_MAX_LCORE; ++cpu) cores[cpu] = bits[cpu] ? index++ : -1;
  return 0;
}
