// What happens when memory comes and goes: validators are asked, the table of ranges kept in step, callbacks told.
#pragma once

#include "extmem/domain.hpp"

namespace extmem::dpdk {

/// The domain's listener. Runs with the domain's region lock.
int on_region(const RegionEvent& event, void*) noexcept;
/// Makes known what the domain had before the listener was there. Errors: those of walking over regions.
Result<void> learn_regions() noexcept;
/// Forgets callbacks and validators.
void forget_callbacks() noexcept;

}  // namespace extmem::dpdk
