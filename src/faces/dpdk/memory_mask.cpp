// rte_mem_check_dma_mask() and its kin.
#include "faces/dpdk/memory_mask.hpp"

#include <rte_log.h>
#include <rte_memory.h>

#include "faces/dpdk/memory_domain.hpp"
#include "faces/dpdk/memory_lock.hpp"
#include "faces/dpdk/memory_ranges.hpp"
#include "faces/dpdk/memory_state.hpp"

namespace extmem::dpdk {
namespace {

constexpr std::uint8_t kMostBits = 63;

bool fits(std::uintptr_t base, std::uint64_t length, std::uint64_t page_size, unsigned bits) noexcept {
  bool all = true;
  walk_iovas(domain(), base, length, page_size, [&](std::uintptr_t, Iova iova, std::uint64_t bytes) {
    if (iova == kBadIova) return;  // no device gets an address of it
    const std::uint64_t last = static_cast<std::uint64_t>(iova) + bytes - 1;
    if (last >> bits != 0) all = false;
  });
  return all;
}

void remember(std::uint8_t bits) noexcept {
  SharedState* const state = shared_state();
  if (state == nullptr) return;
  std::uint32_t now =
      state->dma_bits.load(std::memory_order_relaxed);  // relaxed: it says nothing about other memory
  while ((now == SharedState::kNoMask || bits < now) &&
         !state->dma_bits.compare_exchange_weak(now, bits, std::memory_order_relaxed)) {
  }
}

}  // namespace

bool mask_allows(const RegionInfo& info) noexcept {
  const SharedState* const state = shared_state();
  if (state == nullptr) return true;
  const std::uint32_t bits = state->dma_bits.load(std::memory_order_relaxed);  // as above
  if (bits == SharedState::kNoMask ||
      fits(reinterpret_cast<std::uintptr_t>(info.base), info.length, info.os_page_size, bits))
    return true;
  RTE_LOG(ERR, EAL,
          "memory at %p has IOVAs of more than %u bits, which rte_mem_check_dma_mask() promised not to be "
          "there: it is refused\n",
          info.base, bits);
  return false;
}

}  // namespace extmem::dpdk

using namespace extmem::dpdk;

int rte_mem_check_dma_mask_thread_unsafe(uint8_t maskbits) {
  if (maskbits > kMostBits) {
    RTE_LOG(ERR, EAL, "rte_mem_check_dma_mask(%u): at most 63 bits\n", maskbits);
    return -1;
  }
  const int violated = ranges::walk(
      [&](const Range& range) { return fits(range.base, range.length, range.page_size, maskbits) ? 0 : 1; });
  if (violated == 0) remember(maskbits);
  return violated;
}

int rte_mem_check_dma_mask(uint8_t maskbits) {
  const ReadMemory reading;
  return rte_mem_check_dma_mask_thread_unsafe(maskbits);
}

void rte_mem_set_dma_mask(uint8_t maskbits) { remember(maskbits); }
