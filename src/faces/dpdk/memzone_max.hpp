// How many memzones there can be.
#pragma once

#include <cstddef>

namespace extmem::dpdk {

/// Memzones of the face itself, which programs do not see and which do not count.
inline constexpr std::size_t kOwnMemzones = 1;

}  // namespace extmem::dpdk
