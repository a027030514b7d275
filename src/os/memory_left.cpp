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

/// What a control group's files are called.
struct GroupFiles {
  const char* limit;
  const char* used;
  const char* swap_limit;
  const char* swap_used;
  const char* droppable[3];  // in memory.stat
};
constexpr GroupFiles kVersion2{"/memory.max",
                               "/memory.current",
                               "/memory.swap.max",
                               "/memory.swap.current",
                               {"inactive_file ", "active_file ", "slab_reclaimable "}};
// Version 1 limits memory and swap space together.
constexpr GroupFiles kVersion1{"/memory.limit_in_bytes",
                               "/memory.usage_in_bytes",
                               "/memory.memsw.limit_in_bytes",
                               "/memory.memsw.usage_in_bytes",
                               {"total_inactive_file ", "total_active_file ", "total_no_such_line "}};

std::uint64_t left_of(std::uint64_t limit, std::uint64_t used) noexcept {
  return limit - std::min(limit, used);
}
std::uint64_t sum(std::uint64_t a, std::uint64_t b) noexcept {
  return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

/// What a group's limit leaves for `bytes` more; a lower bound where that is enough. UINT64_MAX: it has none, or does not say.
std::uint64_t left_in(const Path& folder, const GroupFiles& files, std::uint64_t bytes,
                      std::uint64_t free_swap) noexcept {
  const auto number = [&](const char* file) {
    const Path path = Path(folder).add(file);
    return path.ok() ? read_number(path.c_str()) : std::nullopt;
  };
  const auto limit = number(files.limit);  // "max": no number
  const auto used = limit ? number(files.used) : std::nullopt;
  if (!limit || !used) return limit.value_or(UINT64_MAX);
  std::uint64_t left = left_of(*limit, *used);
  if (bytes <= left) return left;
  // What of its files lies in memory only so that it need not be read again. Pages of tmpfs are none of these.
  std::array<char, 8192> buffer;
  const Path stat = Path(folder).add("/memory.stat");
  const auto text = stat.ok() ? read_text(stat.c_str(), buffer) : std::nullopt;
  for (const char* line : files.droppable) left = sum(left, text ? number_after(*text, line).value_or(0) : 0);
  left = std::min(left, *limit);
  if (const auto most = number(files.swap_limit); most)
    free_swap = std::min(free_swap, left_of(*most, number(files.swap_used).value_or(0)));
  return sum(left, free_swap);
}

/// The least that a control group and those that it is in leave; in a container the outer ones cannot be seen.
std::uint64_t least_left(Path root, std::string_view group, const GroupFiles& files, std::uint64_t bytes,
                         std::uint64_t free_swap) noexcept {
  std::uint64_t least = UINT64_MAX;
  for (;;) {
    while (group.ends_with('/')) group.remove_suffix(1);
    const Path folder = Path(root).add(group);
    if (folder.ok()) least = std::min(least, left_in(folder, files, bytes, free_swap));
    if (group.empty()) return least;
    group = group.substr(0, group.rfind('/') + 1);
  }
}

/// The most memory that this process' control groups let it have. A line of /proc/self/cgroup is ID:CONTROLLERS:/PATH.
std::uint64_t left_by_groups(const MemoryTold& told, std::uint64_t bytes, std::uint64_t free_swap) noexcept {
  std::array<char, 4096> buffer;
  const auto text = read_text(told.groups, buffer);
  std::uint64_t least = UINT64_MAX;
  for (std::string_view rest = text.value_or(""); !rest.empty();) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string_view::npos) continue;
    const std::string_view controller = line.substr(first + 1, second - first - 1);
    const std::string_view group = line.substr(second + 1);
    if (controller.empty()) {
      least = std::min(least, least_left(Path(told.tree), group, kVersion2, bytes, free_swap));
    } else if (controller == "memory") {
      const Path root = Path(told.tree).add("/memory");
      least = std::min(least, least_left(root, group, kVersion1, bytes, free_swap));
    }
  }
  return least;
}

}  // namespace

Result<void> check_memory_left(std::uint64_t bytes, const MemoryTold& told) noexcept {
  const ErrnoKeeper keeper;
  constexpr std::uint64_t kTiny = std::uint64_t{1} << 20, kSmall = std::uint64_t{64} << 20;
  struct sysinfo now {};
  const bool known = ::sysinfo(&now) == 0;
  // The quick answer: a system call, and no text. Small takers may still be those who meet the limit; so may everybody.
  const bool fits = known && bytes <= kSmall && bytes <= std::uint64_t{now.freeram} * now.mem_unit / 2;
  if (fits && bytes < kTiny) return {};
  const std::uint64_t free_swap = known ? std::uint64_t{now.freeswap} * now.mem_unit : UINT64_MAX;
  if (bytes > left_by_groups(told, bytes, free_swap)) {
    return EXTMEM_ERROR(ENOMEM,
                        "this process' control group has less memory left than that (memory.max, less what "
                        "memory.current counts "
                        "that cannot be dropped): ask for less, free some, or raise the limit");
  }
  if (fits) return {};
  std::array<char, 8192> buffer;
  const auto text = read_text(told.meminfo, buffer);
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
