// Where inside one free run a request fits: alignment, boundary, window, IOVA contiguity, DMA mask.
//
// Everything reduces to "stretches": byte ranges of the run inside which the IOVA side of the request holds
// anywhere, and where only alignment and one boundary remain to be fulfilled by arithmetic.
#include <algorithm>

#include "alloc/page_space.hpp"

namespace extmem::alloc {

namespace {

using base::align_down;
using base::align_up;

struct Stretch {
  std::uint64_t begin;
  std::uint64_t end;
  std::uint64_t boundary;  // 0: none
  std::uint64_t boundary_phase;
};

/// The end of the part of a known IOVA run whose addresses stay below 2^dma_bits.
std::uint64_t masked_end(const IovaRun& run, std::uint8_t dma_bits) noexcept {
  const std::uint64_t end = run.offset + run.length;
  if (dma_bits == 0 || dma_bits > 63) return end;
  const std::uint64_t limit = std::uint64_t{1} << dma_bits;
  const auto first = static_cast<std::uint64_t>(run.iova);
  if (first >= limit) return run.offset;
  return run.length > limit - first ? run.offset + (limit - first) : end;
}

/// Calls fn(stretch) in rising or falling order until it returns true.
template <typename Fn>
void for_each_stretch(std::uint64_t begin, std::uint64_t end, const SpanRequest& request, bool falling,
                      Fn&& fn) noexcept {
  begin = std::max(begin, request.min_offset);
  end = std::min(end, request.max_offset);
  if (begin >= end) return;
  const std::uint64_t nocross_phase = request.nocross_in_addresses ? request.phase : 0;
  if (!request.iova_contiguous && request.dma_bits == 0) {
    (void)fn(Stretch{begin, end, request.nocross, nocross_phase});
    return;
  }
  if (request.iova == nullptr) return;
  const region::IovaTable& table = *request.iova;
  const std::uint64_t os_page = std::uint64_t{1} << table.os_page_shift;
  std::uint64_t at = falling ? end - 1 : begin;
  Stretch merged{0, 0, request.nocross, nocross_phase};  // for a mask without contiguity: neighbours join
  for (;;) {
    const IovaRun run = region::run_at(table, request.segment, at);
    if (run.length == 0) break;  // the table does not cover the region: nothing is known from here on
    const std::uint64_t run_begin = std::max(run.offset, begin);
    const std::uint64_t run_end = std::min(run.offset + run.length, end);
    const bool known = run.iova != kBadIova;
    if (request.iova_contiguous) {
      if (known) {
        const Stretch s{
            run_begin, std::min(run_end, masked_end(run, request.dma_bits)), request.nocross,
            request.nocross_in_addresses ? nocross_phase : static_cast<std::uint64_t>(run.iova) - run.offset};
        if (s.begin < s.end && fn(s)) return;
      } else if (request.dma_bits == 0) {
        // Inside one OS page memory is contiguous even where its IOVA is not known.
        const std::uint64_t boundary = request.nocross == 0 ? os_page : std::min(os_page, request.nocross);
        if (request.bytes <= boundary && fn(Stretch{run_begin, run_end, boundary, nocross_phase})) return;
      }
    } else {
      const std::uint64_t good_end = known ? std::min(run_end, masked_end(run, request.dma_bits)) : run_begin;
      const bool touches = merged.begin < merged.end &&
                           (falling ? good_end == merged.begin : run_begin == merged.end) &&
                           good_end > run_begin;
      if (touches) {
        (falling ? merged.begin : merged.end) = falling ? run_begin : good_end;
      } else {
        if (merged.begin < merged.end && fn(merged)) return;
        merged.begin = run_begin;
        merged.end = good_end;
      }
    }
    if (falling) {
      if (run.offset <= begin) break;
      at = run.offset - 1;
    } else {
      if (run.offset + run.length >= end) break;
      at = run.offset + run.length;
    }
  }
  if (merged.begin < merged.end) (void)fn(merged);
}

bool crosses(std::uint64_t at, const SpanRequest& request, const Stretch& s) noexcept {
  if (s.boundary == 0) return false;
  const std::uint64_t first = at + s.boundary_phase;
  return ((first ^ (first + request.bytes - 1)) & ~(s.boundary - 1)) != 0;
}

constexpr std::uint64_t kNowhere = ~std::uint64_t{0};

std::uint64_t fit_low(const Stretch& s, std::uint64_t run_end, std::uint64_t span, std::uint64_t align,
                      const SpanRequest& request) noexcept {
  std::uint64_t at = align_up(s.begin + request.phase, align) - request.phase;
  if (crosses(at, request, s)) {
    // At most one more try: from one boundary to the next the aligned offsets repeat themselves.
    at = align_up(at + s.boundary_phase, s.boundary) - s.boundary_phase;
    at = align_up(at + request.phase, align) - request.phase;
    if (crosses(at, request, s)) return kNowhere;
  }
  return at >= s.begin && at < s.end && request.bytes <= s.end - at && at < run_end && span <= run_end - at
             ? at
             : kNowhere;
}

std::uint64_t fit_high(const Stretch& s, std::uint64_t run_end, std::uint64_t span, std::uint64_t align,
                       const SpanRequest& request) noexcept {
  if (request.bytes > s.end - s.begin || span > run_end || request.bytes > s.end) return kNowhere;
  const auto below = [&](std::uint64_t limit) {  // highest aligned offset <= limit, or kNowhere
    const std::uint64_t at = align_down(limit + request.phase, align);
    return at < request.phase ? kNowhere : at - request.phase;
  };
  std::uint64_t at = below(std::min(s.end - request.bytes, run_end - span));
  if (at == kNowhere || at < s.begin) return kNowhere;
  if (crosses(at, request, s)) {
    const std::uint64_t boundary =
        align_down(at + s.boundary_phase + request.bytes - 1, s.boundary) - s.boundary_phase;
    if (boundary < s.begin || boundary - s.begin < request.bytes) return kNowhere;
    at = below(std::min(boundary - request.bytes, run_end - span));
    if (at == kNowhere || at < s.begin || crosses(at, request, s)) return kNowhere;
  }
  return at;
}

}  // namespace

std::uint32_t fit_in_run(const PageSpace& space, std::uint32_t run, std::uint32_t length,
                         const SpanRequest& request, bool high) noexcept {
  const unsigned shift = space.page_shift;
  if (length < request.pages) return kNoPage;
  const std::uint64_t page_size = std::uint64_t{1} << shift;
  const std::uint64_t begin = std::uint64_t{run} << shift;
  const std::uint64_t end = begin + (std::uint64_t{length} << shift);
  const std::uint64_t span = std::uint64_t{request.pages} << shift;
  const std::uint64_t align = std::max(request.align, page_size);
  std::uint64_t found = kNowhere;
  for_each_stretch(begin, end, request, high, [&](const Stretch& s) {
    found = high ? fit_high(s, end, span, align, request) : fit_low(s, end, span, align, request);
    return found != kNowhere;
  });
  return found == kNowhere ? kNoPage : static_cast<std::uint32_t>(found >> shift);
}

PageAllocator::Biggest PageAllocator::biggest(const SpanRequest& request) const noexcept {
  const unsigned shift = space_.page_shift;
  const std::uint64_t page_size = std::uint64_t{1} << shift;
  const std::uint64_t align = std::max(request.align, page_size);
  Biggest best;
  SpanRequest probe = request;
  probe.bytes = 1;
  for (std::uint32_t row = kBinRows; row-- > 0;) {
    for (std::uint32_t column = kBinColumns; column-- > 0;) {
      for (std::uint32_t link = space_.heads[row][column]; link != 0; link = descs_[link - 1].low()) {
        const std::uint32_t run = link - 1;
        const std::uint64_t begin = std::uint64_t{run} << shift;
        const std::uint64_t end = begin + (std::uint64_t{descs_[run].length()} << shift);
        if (end - begin <= best.bytes) continue;
        for_each_stretch(begin, end, probe, false, [&](const Stretch& s) {
          // The piece that begins at the first aligned offset, and those behind the next two boundaries: every
          // further one repeats the second.
          std::uint64_t at = align_up(s.begin + probe.phase, align) - probe.phase;
          for (int piece = 0; piece < 3 && at >= s.begin && at < s.end; ++piece) {
            std::uint64_t stop = s.end;
            std::uint64_t next = s.end;
            if (s.boundary != 0) {
              next = align_down(at + s.boundary_phase, s.boundary) + s.boundary - s.boundary_phase;
              stop = std::min(stop, next);
            }
            // Whole pages; of less than one, every byte counts (a window or boundary smaller than our pages).
            const std::uint64_t room = stop - at;
            const std::uint64_t bytes = room >= page_size ? align_down(room, page_size) : room;
            if (bytes > best.bytes) best = Biggest{static_cast<std::uint32_t>(at >> shift), bytes};
            if (next >= s.end) break;
            at = align_up(next + probe.phase, align) - probe.phase;
          }
          return false;
        });
      }
    }
  }
  return best;
}

}  // namespace extmem::alloc
