// Scanning the IOVAs of a region, one a page, in blocks of 64 pages.
//
// What it is: the loop that plans and builds of pages share. It sums up what a plan needs, and hands the pages on to who writes
// them (Emit). Blocks without bad pages, nearly all, go a quicker way, four pages at a time where the processor can.
// Thread-safety: a pure function of its arguments. Each IOVA is loaded once, so that what is summed up is what is handed
// on, even while another thread changes the input.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "extmem/types.hpp"
#include "region/iova_table.hpp"

namespace extmem::region {

inline constexpr std::uint64_t kBad = static_cast<std::uint64_t>(kBadIova);
inline constexpr unsigned kBlock = 64;  // pages, as many as a word of starts has bits

/// What makes frames of IOVAs. A copy of the table's: what is written beside it may alias the record.
struct Frames {
  explicit Frames(const IovaTable& table) noexcept
      : base(table.iova_base), runs(table.run_count), shift(frame_shift(table)) {}
  /// `kKnown`: the IOVA is not bad.
  template <typename Word, bool kKnown = false>
  [[nodiscard]] Word of(std::uint64_t iova) const noexcept {
    const Word frame = static_cast<Word>((iova - base) >> shift);
    return !kKnown && iova == kBad ? detail::kBadFrame<Word> : frame;
  }
  std::uint64_t base;
  std::uint64_t runs;
  unsigned shift;
};

/// What is known between two pages of a scan. With facts all of it, else next, runs and digest.
struct Scan {
  std::uint64_t next;  ///< the IOVA that would go on the run
  std::uint64_t runs = 0;
  std::uint64_t digest = 0;  ///< of each IOVA and its place
  std::uint64_t length = 0;  ///< of the run so far
  std::uint64_t longest = 0;
  std::uint64_t lowest = kBad;
  std::uint64_t highest = 0;
  std::uint64_t set_bits = 0;                     ///< in some known IOVA
  std::uint64_t common_bits = ~std::uint64_t{0};  ///< in all of them
  bool bad = false;

  /// Adds a block to the digest, by the sum of its IOVAs and the sum of these sums, page by page.
  void add_sums(std::uint64_t sum, std::uint64_t sums) noexcept {
    constexpr std::uint64_t kOdd = 0x9e3779b97f4a7c15;
    digest = (((digest ^ sum) * kOdd) ^ std::rotl(sums, 32)) * kOdd;
  }
  /// Counts the lengths of a block's runs, whose starts are the bits. Requires: no page of it is bad.
  void add_lengths(std::uint64_t starts) noexcept {
    if (starts == 0) {
      length += kBlock;
      longest = std::max(longest, length);
      return;
    }
    const auto before = static_cast<std::uint64_t>(std::countr_zero(starts));
    longest = std::max({longest, std::uint64_t{1}, length + before});
    length = 1 + static_cast<std::uint64_t>(std::countl_zero(starts));
    if (longest >= kBlock) return;
    // A start and as many zeroes behind it as the longest run has pages are a longer run.
    std::uint64_t zeroes = ~starts;
    for (std::uint64_t n = longest; n > 1; n -= n / 2) zeroes &= zeroes >> (n / 2);
    for (; zeroes != 0; zeroes &= zeroes >> 1) ++longest;
  }
};

#if defined(__x86_64__)
/// Whether the processor has AVX2, which the next two need.
bool can_scan_wide() noexcept;
/// As scan_block<true, true> with EmitNothing.
bool scan_facts_wide(Scan& scan, const Iova* block, std::uint64_t size) noexcept;
/// As scan_block<false, true> with EmitFlat<std::uint32_t>, which stores to `words` and `starts`.
bool scan_flat_wide(Scan& scan, const Iova* block, std::uint64_t size, const Frames& frames,
                    std::uint32_t* words, std::uint64_t* starts) noexcept;
#else
constexpr bool can_scan_wide() noexcept { return false; }
#endif

/// While a plan is made: nothing is written.
struct EmitNothing {
  static constexpr bool kWide = true;
  template <bool>
  void page(std::uint64_t, std::uint64_t, std::uint64_t) noexcept {}
  void starts(std::uint64_t, std::uint64_t) noexcept {}
#if defined(__x86_64__)
  bool scan_wide(Scan& scan, std::span<const Iova> iovas, std::size_t page, std::uint64_t size) noexcept {
    return scan_facts_wide(scan, iovas.data() + page, size);
  }
#endif
};

/// The flat form's data.
template <typename Word>
struct EmitFlat {
  static constexpr bool kWide = sizeof(Word) == 4;
  template <bool kKnown>
  void page(std::uint64_t page, std::uint64_t iova, std::uint64_t) noexcept {
    words[page] = frames.template of<Word, kKnown>(iova);
  }
  void starts(std::uint64_t page, std::uint64_t bits) noexcept { start_words[page / kBlock] = bits; }
#if defined(__x86_64__)
  bool scan_wide(Scan& scan, std::span<const Iova> iovas, std::size_t page, std::uint64_t size) noexcept {
    return scan_flat_wide(scan, iovas.data() + page, size, frames, words + page, start_words + page / kBlock);
  }
#endif
  Frames frames;
  Word* words;
  std::uint64_t* start_words;
};

/// Adds `count` pages from `page` on, and calls emit.page<kKnown>(page, IOVA, runs that started before) for each and
/// emit.starts(page, one bit for each that starts a run) at the end. kKnown takes all of them for known, which is quicker: where
/// one is not, nothing has changed but what emit was told of pages. What depends on the IOVAs is computed and not branched on:
/// nothing is mispredicted. Returns whether all of them are known.
template <bool kFacts, bool kKnown, typename Emit>
bool scan_block(Scan& scan, std::span<const Iova> iovas, std::size_t page, unsigned count, std::uint64_t size,
                Emit& emit) noexcept {
  Scan now = scan;
  std::uint64_t starts = 0;
  std::uint64_t highest = 0;
  std::uint64_t bad = 0;
  std::uint64_t sum = 0;
  std::uint64_t sums = 0;
  for (unsigned i = 0; i < count; ++i) {
    const auto iova = static_cast<std::uint64_t>(iovas[page + i]);
    // All ones where it is known: a compare and a negation.
    const std::uint64_t known =
        kKnown ? ~std::uint64_t{0} : ~(std::uint64_t{0} - std::uint64_t{iova == kBad});
    const auto begins = std::uint64_t{iova != now.next};
    emit.template page<kKnown>(std::uint64_t{page + i}, iova, now.runs);
    now.next = iova + (size & known);
    now.runs += begins;
    sum += iova;
    sums += sum;
    starts |= begins << i;
    highest = std::max(highest, iova & known);
    if constexpr (kFacts) {
      now.lowest = std::min(now.lowest, iova);
      now.set_bits |= iova & known;
      now.common_bits &= iova | ~known;
    }
    if constexpr (!kKnown) bad |= ~known;
    if constexpr (kFacts && !kKnown) {
      now.length = (now.length & (begins - 1)) + 1;
      now.longest = std::max(now.longest, now.length & known);
    }
  }
  if (kKnown && highest == kBad) return false;
  if constexpr (kFacts) {
    now.highest = std::max(now.highest, highest);
    now.bad = now.bad || bad != 0;
    if (kKnown) now.add_lengths(starts);
  }
  now.add_sums(sum, sums);
  emit.starts(page, starts);
  scan = now;
  return bad == 0;
}

/// Scans one IOVA a page, at least one. `wide`: four at a time, where emit can.
template <bool kFacts, typename Emit>
Scan scan_pages(std::span<const Iova> iovas, std::uint64_t size, Emit emit,
                [[maybe_unused]] bool wide = can_scan_wide()) noexcept {
  Scan scan{.next = ~static_cast<std::uint64_t>(iovas[0])};  // nothing goes on yet
  const auto scan_known = [&](std::size_t page) {
#if defined(__x86_64__)
    if constexpr (Emit::kWide) {
      if (wide) return emit.scan_wide(scan, iovas, page, size);
    }
#endif
    return scan_block<kFacts, true>(scan, iovas, page, kBlock, size, emit);
  };
  std::size_t page = 0;
  for (bool known = true; iovas.size() - page >= kBlock; page += kBlock) {
    // Where one block has bad pages the next one may: not tried in vain.
    known = known && scan_known(page);
    if (!known) known = scan_block<kFacts, false>(scan, iovas, page, kBlock, size, emit);
  }
  if (const auto rest = static_cast<unsigned>(iovas.size() - page); rest != 0)
    scan_block<kFacts, false>(scan, iovas, page, rest, size, emit);
  return scan;
}

}  // namespace extmem::region
