// What the parts of the DPDK face share: the parsed options, the order of starting and ending, and setting rte_errno.
//
// What it is: the seam between rte_eal_init() (eal_init.cpp) and the parts that it starts: memory (memory_init.cpp)
// and fbarrays (fbarray_init.cpp).
// Thread-safety: options() is written by rte_eal_init() before any other thread of ours starts, and only read after.
#pragma once

#include <rte_common.h>
#include <rte_eal.h>
#include <rte_errno.h>

#include <array>
#include <climits>
#include <cstddef>
#include <cstdint>

namespace extmem::dpdk {

inline constexpr std::size_t kMaxSockets = RTE_MAX_NUMA_NODES;

/// Everything that the command line said. Sizes are in bytes.
struct EalOptions {
  rte_proc_type_t process = RTE_PROC_PRIMARY;  ///< PRIMARY or SECONDARY once rte_eal_init() has settled AUTO
  std::array<char, 64> file_prefix{"rte"};     ///< never empty

  std::uint64_t memory = 0;  ///< -m: internal memory to have from the start, over all sockets; 0: not said
  bool has_socket_mem = false;
  std::array<std::uint64_t, kMaxSockets> socket_mem{};  ///< --socket-mem, by index of the socket
  bool has_socket_limit = false;
  std::array<std::uint64_t, kMaxSockets> socket_limit{};  ///< --socket-limit, by index of the socket; 0: none

  bool no_huge = false;      ///< --no-huge: memfd memory in pages of the system's size
  bool in_memory = false;    ///< --in-memory: nothing is shared, no file is made
  bool no_shconf = false;    ///< --no-shconf: nothing is shared
  bool huge_unlink = false;  ///< --huge-unlink[=existing|always]
  bool legacy_mem = false;   ///< --legacy-mem: internal heaps do not grow
  bool single_file_segments = false;
  bool match_allocations = false;
  std::array<char, PATH_MAX> huge_dir{};  ///< --huge-dir; empty: not said
  std::uint64_t base_virtaddr = 0;        ///< --base-virtaddr; 0: not said
  rte_iova_mode iova_mode = RTE_IOVA_VA;  ///< never RTE_IOVA_DC

  unsigned channels = 0;  ///< -n: memory channels; 0: not said
  unsigned ranks = 0;     ///< -r: memory ranks; 0: not said

  bool create_uio_dev = false;
  rte_intr_mode vfio_intr = RTE_INTR_MODE_NONE;
  rte_uuid_t vfio_vf_token{};
  std::array<char, 32> mbuf_pool_ops{};  ///< --mbuf-pool-ops-name; empty: not said

  /// True where other processes can join: the domain has a name.
  [[nodiscard]] bool shared() const noexcept { return !in_memory && !no_shconf; }
};

/// The options of this process; the defaults before rte_eal_init().
const EalOptions& options() noexcept;

/// True between rte_eal_init() and rte_eal_cleanup().
bool initialized() noexcept;

/// Sets rte_errno. Returns: -1, so that a failing function is one line.
inline int fail(int error) noexcept {
  rte_errno = error;
  return -1;
}

// ---- what rte_eal_init() starts, in this order; each returns 0, or -1 with rte_errno and nothing left behind ----

/// Opens the domain: "dpdk-" and the file prefix where the options share, else a private one; makes the internal heaps.
/// Who joins a domain takes its IOVA mode over, whatever the options said.
int memory_init(EalOptions& options) noexcept;
/// Closes the domain. What was allocated is gone, memzones of a shared domain stay while another process has it open.
void memory_cleanup() noexcept;

}  // namespace extmem::dpdk
