// The domain behind the DPDK face: one for the process, open from rte_eal_init() to rte_eal_cleanup().
#pragma once

#include "extmem/domain.hpp"

namespace extmem::dpdk {

extern constinit Domain& the_domain;

/// The domain; empty before rte_eal_init() and after rte_eal_cleanup().
inline Domain& domain() noexcept { return the_domain; }

}  // namespace extmem::dpdk
