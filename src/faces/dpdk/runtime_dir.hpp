// The runtime directory of a file prefix, and who is its primary process.
//
// <extmem's runtime directory>/.dpdk/<prefix>/config is an empty file; the primary process holds a record lock on its
// first byte. The kernel gives the lock back when the process ends, however it ends.
#pragma once

#include "faces/dpdk/eal.hpp"

namespace extmem::dpdk {

/// Puts the path together. Returns: false where it is too long.
bool runtime_dir_init(const char* file_prefix) noexcept;
/// Makes the directory and settles the process' type: primary (holding the lock) or secondary.
/// Returns: 0, or -1 with rte_errno: EBUSY another process is primary; what making the directory says.
int claim_process_type(rte_proc_type_t& type) noexcept;
/// Gives the lock back.
void release_process_type() noexcept;

}  // namespace extmem::dpdk
