// PageOracle: where a request may be placed, decided page by page and by definition, without any cleverness.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "alloc/page_space.hpp"

namespace extmem::alloc {

struct PageOracle {
  unsigned page_shift;
  unsigned os_shift;
  std::vector<std::uint64_t> os_iovas;  // one for each OS page; ~0: not known
  std::vector<bool> used;               // one for each page

  static constexpr std::uint64_t kUnknown = ~std::uint64_t{0};

  [[nodiscard]] static bool crosses(std::uint64_t first, std::uint64_t bytes, std::uint64_t boundary) {
    return boundary != 0 && first / boundary != (first + bytes - 1) / boundary;
  }

  /// Whether the constraints hold for `bytes` at `page`; says nothing about what is free.
  [[nodiscard]] bool legal(const SpanRequest& request, std::uint32_t page, std::uint64_t bytes) const {
    const std::uint64_t at = std::uint64_t{page} << page_shift;
    if ((at + request.phase) % request.align != 0) return false;
    if (at < request.min_offset || request.max_offset < at || request.max_offset - at < bytes) return false;
    const std::uint64_t first_os = at >> os_shift;
    const std::uint64_t last_os = (at + bytes - 1) >> os_shift;
    const std::uint64_t os_page = std::uint64_t{1} << os_shift;
    std::uint64_t nocross_of = at + (request.nocross_in_addresses ? request.phase : 0);
    if (request.iova_contiguous) {
      for (std::uint64_t os = first_os + 1; os <= last_os; ++os) {
        if (os_iovas[os] == kUnknown || os_iovas[os - 1] == kUnknown) return false;
        if (os_iovas[os] != os_iovas[os - 1] + os_page) return false;
      }
      if (os_iovas[first_os] != kUnknown && !request.nocross_in_addresses)
        nocross_of = os_iovas[first_os] + (at & (os_page - 1));
    }
    if (request.dma_bits != 0) {
      for (std::uint64_t os = first_os; os <= last_os; ++os) {
        if (os_iovas[os] == kUnknown) return false;
        const std::uint64_t last_byte = std::min(at + bytes - 1, ((os + 1) << os_shift) - 1);
        if ((os_iovas[os] + (last_byte & (os_page - 1))) >> request.dma_bits != 0) return false;
      }
    }
    return !crosses(nocross_of, bytes, request.nocross);
  }

  [[nodiscard]] std::uint32_t free_pages_from(std::uint32_t page) const {
    std::uint32_t n = 0;
    while (page + n < used.size() && !used[page + n]) ++n;
    return n;
  }

  /// The lowest (highest) page where the request fits.
  [[nodiscard]] std::optional<std::uint32_t> find(const SpanRequest& request, bool high) const {
    std::optional<std::uint32_t> best;
    for (std::uint32_t page = 0; page < used.size();) {
      const std::uint32_t run = free_pages_from(page);
      for (std::uint32_t i = 0; i + request.pages <= run; ++i) {
        if (!legal(request, page + i, request.bytes)) continue;
        best = page + i;
        if (!high) return best;
      }
      page += std::max(run, 1u);
    }
    return best;
  }

  /// The most bytes that any placement could have; of more than a page, whole pages.
  [[nodiscard]] std::uint64_t biggest(const SpanRequest& request) const {
    std::uint64_t best = 0;
    const std::uint64_t page_size = std::uint64_t{1} << page_shift;
    std::uint64_t room = 0;
    for (auto page = static_cast<std::uint32_t>(used.size()); page-- > 0;) {
      room = used[page] ? 0 : room + page_size;
      if (room <= best || !legal(request, page, best + 1)) continue;
      std::uint64_t low = best;  // what fits: longer is never easier, so halving finds it
      std::uint64_t high = room;
      while (low < high) {
        const std::uint64_t middle = low + (high - low + 1) / 2;
        if (legal(request, page, middle)) {
          low = middle;
        } else {
          high = middle - 1;
        }
      }
      best = std::max(best, low >= page_size ? base::align_down(low, page_size) : low);
    }
    return best;
  }
};

}  // namespace extmem::alloc
