// The DMA mask: how many bits the devices of this domain can address.
#pragma once

#include "extmem/domain.hpp"

namespace extmem::dpdk {

/// Whether every known IOVA of the region fits the mask that was set; true where none was.
bool mask_allows(const RegionInfo& info) noexcept;

}  // namespace extmem::dpdk
