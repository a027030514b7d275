// Processors and the NUMA nodes they are on, as sysfs has them.
//
// Thread-safety: both detect() are for rte_eal_init(); the rest only reads.
#pragma once

#include <sched.h>

#include "os/numa.hpp"

namespace extmem::dpdk {

inline constexpr unsigned kAnySocket = ~0u;  ///< SOCKET_ID_ANY as an unsigned

/// The processors of the machine that are online, and the nodes that have one.
struct Cpus {
  cpu_set_t online{};
  os::NodeSet sockets{};

  /// Reads them anew. There is always at least one processor, and one node.
  static Cpus detect() noexcept;
};

/// The processors of the calling thread.
struct ProcessCpus {
  cpu_set_t now{};      ///< those that it may run on as it is pinned now
  cpu_set_t allowed{};  ///< those that it can be pinned to: pinning is inherited, and no limit

  /// Asks by pinning this thread to all processors, and back to where it was.
  static ProcessCpus detect() noexcept;
};

/// The node of a processor; 0 where the machine does not tell.
unsigned socket_of_cpu(unsigned cpu) noexcept;
/// The one node that all these processors are on, or kAnySocket.
unsigned socket_of(const cpu_set_t& cpus) noexcept;
/// The number of the processor's core inside its package; 0 where the machine does not tell.
unsigned core_of_cpu(unsigned cpu) noexcept;
/// The lowest processor of the set; CPU_SETSIZE where it is empty.
unsigned first_cpu(const cpu_set_t& cpus) noexcept;

}  // namespace extmem::dpdk
