// Processors and their nodes, read from /sys/devices/system/cpu.
#include "faces/dpdk/cpus.hpp"

#include <array>
#include <cstdint>
#include <string_view>

#include "os/kernel_text.hpp"

namespace extmem::dpdk {
namespace {

os::Path cpu_folder(unsigned cpu) noexcept {
  os::Path path("/sys/devices/system/cpu/cpu");
  path.add(std::uint64_t{cpu});
  return path;
}

}  // namespace

unsigned first_cpu(const cpu_set_t& cpus) noexcept {
  unsigned cpu = 0;
  while (cpu < CPU_SETSIZE && !CPU_ISSET(cpu, &cpus)) ++cpu;
  return cpu;
}

unsigned socket_of_cpu(unsigned cpu) noexcept {
  // The processor's folder has a link "node3" to its node.
  os::FolderReader entries(cpu_folder(cpu).c_str());
  while (auto name = entries.next()) {
    if (!name->starts_with("node")) continue;
    std::string_view rest = name->substr(4);
    const auto node = os::take_number(rest);
    if (node && rest.empty() && *node < os::kMaxNumaNodes) return static_cast<unsigned>(*node);
  }
  return 0;
}

unsigned socket_of(const cpu_set_t& cpus) noexcept {
  unsigned socket = kAnySocket;
  for (unsigned cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &cpus)) continue;
    const unsigned here = socket_of_cpu(cpu);
    if (socket != kAnySocket && here != socket) return kAnySocket;
    socket = here;
  }
  return socket;
}

unsigned core_of_cpu(unsigned cpu) noexcept {
  os::Path path = cpu_folder(cpu);
  const auto core = os::read_number(path.add("/topology/core_id").c_str());
  return core ? static_cast<unsigned>(*core) : 0;
}

Cpus Cpus::detect() noexcept {
  Cpus cpus;
  // "0-3,8": numbers and ranges.
  std::array<char, 4096> buffer{};
  auto text = os::read_text("/sys/devices/system/cpu/online", buffer).value_or(std::string_view{});
  while (const auto first = os::take_number(text)) {
    auto last = first;
    if (text.starts_with('-')) {
      text.remove_prefix(1);
      last = os::take_number(text);
      if (!last) break;
    }
    for (std::uint64_t cpu = *first; cpu <= *last && cpu < CPU_SETSIZE; ++cpu) CPU_SET(cpu, &cpus.online);
    if (!text.starts_with(',')) break;
    text.remove_prefix(1);
  }
  // Where sysfs is not mounted: those that this process may use.
  if (CPU_COUNT(&cpus.online) == 0) (void)::sched_getaffinity(0, sizeof(cpus.online), &cpus.online);
  if (CPU_COUNT(&cpus.online) == 0) CPU_SET(0, &cpus.online);
  for (unsigned cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &cpus.online)) cpus.sockets.add(static_cast<int>(socket_of_cpu(cpu)));
  }
  return cpus;
}

ProcessCpus ProcessCpus::detect() noexcept {
  ProcessCpus cpus;
  (void)::sched_getaffinity(0, sizeof(cpus.now), &cpus.now);
  cpus.allowed = cpus.now;
  cpu_set_t all;
  CPU_ZERO(&all);
  for (unsigned cpu = 0; cpu < CPU_SETSIZE; ++cpu) CPU_SET(cpu, &all);
  // The kernel leaves out those that the process' cpuset does not have.
  if (::sched_setaffinity(0, sizeof(all), &all) != 0) return cpus;
  (void)::sched_getaffinity(0, sizeof(cpus.allowed), &cpus.allowed);
  (void)::sched_setaffinity(0, sizeof(cpus.now), &cpus.now);
  return cpus;
}

}  // namespace extmem::dpdk
