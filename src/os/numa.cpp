#include "os/numa.hpp"

#include <linux/mempolicy.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <string_view>

#include "base/error.hpp"
#include "os/kernel_text.hpp"
#include "os/mapping.hpp"

namespace extmem::os {
namespace {

// The kernel reads one bit less than it is told.
constexpr unsigned long kMaxNode = kMaxNumaNodes + 1;
constexpr const char* kOnline = "/sys/devices/system/node/online";
constexpr const char* kHasMemory = "/sys/devices/system/node/has_memory";

// Reads the kernel's list format: "0-3,5,8-9".
std::optional<NodeSet> read_node_list(const char* path) noexcept {
  std::array<char, 4096> buffer;
  std::optional<std::string_view> text = read_text(path, buffer);
  if (!text) return std::nullopt;
  NodeSet nodes;
  while (const auto first = take_number(*text)) {
    std::uint64_t last = *first;
    if (text->starts_with('-')) {
      text->remove_prefix(1);
      last = take_number(*text).value_or(*first);
    }
    for (std::uint64_t id = *first; id <= last && id < kMaxNumaNodes; ++id) nodes.add(static_cast<int>(id));
    if (!text->starts_with(',')) break;
    text->remove_prefix(1);
  }
  return nodes.count() > 0 ? std::optional(nodes) : std::nullopt;
}

// Without sysfs (a bare chroot): the nodes that this thread may take memory from, and without NUMA node 0.
NodeSet allowed_nodes() noexcept {
  NodeSet nodes;
  if (::syscall(SYS_get_mempolicy, nullptr, nodes.words(), kMaxNode, nullptr, MPOL_F_MEMS_ALLOWED) != 0 ||
      nodes.count() == 0) {
    nodes = NodeSet{};
    nodes.add(0);
  }
  return nodes;
}

bool is_the_only_memory(int node) noexcept {
  const NodeSet nodes = numa_memory_nodes();
  return nodes.count() == 1 && nodes.contains(node);
}

}  // namespace

NodeSet numa_nodes() noexcept {
  const auto nodes = read_node_list(kOnline);
  return nodes ? *nodes : allowed_nodes();
}

NodeSet numa_memory_nodes() noexcept {
  const auto nodes = read_node_list(kHasMemory);
  return nodes ? *nodes : allowed_nodes();
}

int current_node() noexcept {
  unsigned cpu = 0;
  unsigned node = 0;
  return ::getcpu(&cpu, &node) == 0 ? static_cast<int>(node) : 0;
}

Result<void> numa_bind(void* p, std::size_t bytes, int node, PresentPages present) noexcept {
  if (!numa_memory_nodes().contains(node)) {
    return EXTMEM_ERROR(
        EINVAL,
        "cannot bind memory to that NUMA node: this machine has none of that number, or it has no "
        "memory; /sys/devices/system/node/has_memory lists those that do");
  }
  if (is_the_only_memory(node)) return {};
  NodeSet wanted;
  wanted.add(node);
  const unsigned flags = present == PresentPages::move ? MPOL_MF_MOVE | MPOL_MF_STRICT : 0U;
  if (::syscall(SYS_mbind, p, bytes, MPOL_BIND | MPOL_F_STATIC_NODES, wanted.words(), kMaxNode, flags) == 0) {
    return {};
  }
  switch (errno) {
    case EIO:
      return EXTMEM_ERROR(
          EIO,
          "memory lies on another NUMA node and cannot be moved (another process maps it, or it is "
          "pinned): bind it before its first use, or ask for no node");
    case EINVAL:
      return EXTMEM_ERROR(EINVAL,
                          "cannot bind memory to that NUMA node: the cpuset of this process forbids it; see "
                          "Mems_allowed_list in /proc/self/status");
    case EPERM:
      return EXTMEM_ERROR(EPERM,
                          "cannot bind memory to a NUMA node: mbind is forbidden here; give the container "
                          "CAP_SYS_NICE, or ask for no node");
    default:
      return EXTMEM_SYS_ERROR(errno, "cannot bind memory to that NUMA node: mbind failed");
  }
}

Result<int> numa_node_of(const void* p) noexcept {
  void* page = const_cast<void*>(p);
  int status = 0;
  if (::syscall(SYS_move_pages, 0, 1UL, &page, nullptr, &status, 0) != 0) {
    const int failed = errno;
    const NodeSet nodes = numa_memory_nodes();
    // No NUMA in the kernel, or a container forbids the call: with one node there is nothing to ask.
    if (nodes.count() == 1) return nodes.id_at(0);
    return EXTMEM_SYS_ERROR(failed, "cannot ask on which NUMA node memory lies: move_pages failed");
  }
  if (status >= 0) return status;
  if (status == -ENOENT) {
    return EXTMEM_ERROR(ENOENT,
                        "memory lies on no NUMA node yet: its page was never touched; pre-fault it first");
  }
  if (status == -EFAULT) {
    return EXTMEM_ERROR(
        EFAULT,
        "no NUMA node to be had for that address: it is not mapped, was never written (shared "
        "zero page), or belongs to a device");
  }
  return EXTMEM_SYS_ERROR(-status, "the kernel does not tell the NUMA node of that page");
}

}  // namespace extmem::os
