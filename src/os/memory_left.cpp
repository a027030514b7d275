#include "os/memory_left.hpp"

#include <sys/sysinfo.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>
#include <string_view>

#include "base/error.hpp"
#include "os/errno_keeper.hpp"
#include "os/kernel_text.hpp"

namespace extmem::os {
namespace {

/// The lowest limit of a control group and those that it is in; in a container the outer ones cannot be seen.
std::uint64_t lowest_limit(std::string_view root, std::string_view group, std::string_view file) noexcept {
  std::uint64_t lowest = UINT64_MAX;
  for (;;) {
    while (group.ends_with('/')) group.remove_suffix(1);
    Path path(root);
    path.add(group).add("/").add(file);
    if (path.ok()) lowest = std::min(lowest, read_number(path.c_str()).value_or(UINT64_MAX));
    if (group.empty()) return lowest;
    group = group.substr(0, group.rfind('/') + 1);
  }
}

/// The most memory that this process' control groups let it have. A line of /proc/self/cgroup is ID:CONTROLLERS:/PATH.
std::uint64_t group_limit() noexcept {
  std::array<char, 4096> buffer;
  const auto text = read_text("/proc/self/cgroup", buffer);
  std::uint64_t lowest = UINT64_MAX;
  for (std::string_view rest = text.value_or(""); !rest.empty();) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string_view::npos) continue;
    const std::string_view controller = line.substr(first + 1, second - first - 1);
    const std::string_view group = line.substr(second + 1);
    if (controller.empty()) {
      lowest = std::min(lowest, lowest_limit("/sys/fs/cgroup", group, "memory.max"));
    } else if (controller == "memory") {
      lowest = std::min(lowest, lowest_limit("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes"));
    }
  }
  return lowest;
}

}  // namespace

Result<void> check_memory_left(std::uint64_t bytes) noexcept {
  const ErrnoKeeper keeper;
  constexpr std::uint64_t kSmall = std::uint64_t{64} << 20;
  struct sysinfo now {};
  // The quick answer: a system call, and no text. Small takers may still be those who meet the limit; so may everybody.
  if (bytes <= kSmall && ::sysinfo(&now) == 0 && bytes <= std::uint64_t{now.freeram} * now.mem_unit / 2)
    return {};
  if (bytes > group_limit()) {
    return EXTMEM_ERROR(
        ENOMEM,
        "this process' control group may not have that much memory (memory.max): ask for less, "
        "or raise the limit");
  }
  std::array<char, 8192> buffer;
  const auto text = read_text("/proc/meminfo", buffer);
  if (!text) return {};
  const auto available = number_after(*text, "MemAvailable:");
  if (!available) return {};
  const std::uint64_t kibibytes = *available + number_after(*text, "SwapFree:").value_or(0);
  if (bytes / 1024 <= kibibytes) return {};
  return EXTMEM_ERROR(
      ENOMEM,
      "the system has less memory left than that (MemAvailable and SwapFree in /proc/meminfo): "
      "ask for less, or free some");
}

}  // namespace extmem::os
