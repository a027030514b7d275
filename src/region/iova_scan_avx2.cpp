// Scanning IOVAs four at a time. See iova_scan.hpp.
#if defined(__x86_64__)
#include <immintrin.h>

#include "region/iova_scan.hpp"

#define EXTMEM_AVX2 [[gnu::target("avx2")]]

namespace extmem::region {
namespace {

using Lanes = __m256i;

EXTMEM_AVX2 inline Lanes all(std::uint64_t value) noexcept {
  return _mm256_set1_epi64x(static_cast<long long>(value));
}

struct Four {
  EXTMEM_AVX2 explicit Four(Lanes lanes) noexcept {
    _mm256_store_si256(reinterpret_cast<Lanes*>(numbers), lanes);
  }
  std::uint64_t operator[](unsigned lane) const noexcept { return numbers[lane]; }
  alignas(32) std::uint64_t numbers[4];
};

/// A block's pages, four by four: which of them start a run, and the sums of their digest.
struct Runs {
  Lanes size;
  Lanes next;  // lane 0: what would go on the run
  Lanes sum;   // of every fourth page
  Lanes sums;  // of these
  std::uint64_t goes_on;

  EXTMEM_AVX2 explicit Runs(const Scan& scan, std::uint64_t page_size) noexcept
      : size(all(page_size)), next(all(scan.next)), sum(all(0)), sums(all(0)), goes_on(0) {}
  EXTMEM_AVX2 void add(Lanes iovas, unsigned i) noexcept {
    // Each page's next one moves up a lane, where that page is; the last lane's comes down, for the next four.
    const Lanes after = _mm256_permute4x64_epi64(_mm256_add_epi64(iovas, size), 0x93);
    const Lanes same = _mm256_cmpeq_epi64(iovas, _mm256_blend_epi32(after, next, 3));
    next = after;
    const auto mask = static_cast<unsigned>(_mm256_movemask_pd(_mm256_castsi256_pd(same)));
    goes_on |= std::uint64_t{mask} << i;
    sum = _mm256_add_epi64(sum, iovas);
    sums = _mm256_add_epi64(sums, sum);
  }
  /// Tells the scan of the block. Returns: where runs start.
  EXTMEM_AVX2 std::uint64_t tell(Scan& scan) const noexcept {
    const Four by_lane(sum);
    const Four sums_by_lane(sums);
    // Page by page the sum of page i counts 64 - i times; here, in lane l at step k, 16 - k times: 64 - i = 4 (16 - k) - l.
    std::uint64_t all_sum = 0;
    std::uint64_t all_sums = 0;
    for (unsigned lane = 0; lane < 4; ++lane) {
      all_sum += by_lane[lane];
      all_sums += 4 * sums_by_lane[lane] - lane * by_lane[lane];
    }
    scan.add_sums(all_sum, all_sums);
    scan.next = Four(next)[0];
    scan.runs += static_cast<std::uint64_t>(std::popcount(~goes_on));
    return ~goes_on;
  }
};

EXTMEM_AVX2 inline Lanes load(const Iova* iovas) noexcept {
  return _mm256_loadu_si256(reinterpret_cast<const Lanes*>(iovas));
}

}  // namespace

bool can_scan_wide() noexcept { return __builtin_cpu_supports("avx2") != 0; }

EXTMEM_AVX2 bool scan_facts_wide(Scan& scan, const Iova* block, std::uint64_t size) noexcept {
  constexpr std::uint64_t kSign = std::uint64_t{1} << 63;  // AVX2 compares signed numbers only
  Runs runs(scan, size);
  Lanes lowest = all(kBad ^ kSign);
  Lanes highest = all(0 ^ kSign);
  Lanes set = all(0);
  Lanes common = all(~std::uint64_t{0});
  for (unsigned i = 0; i < kBlock; i += 4) {
    const Lanes iovas = load(block + i);
    runs.add(iovas, i);
    const Lanes number = _mm256_xor_si256(iovas, all(kSign));
    lowest = _mm256_blendv_epi8(lowest, number, _mm256_cmpgt_epi64(lowest, number));
    highest = _mm256_blendv_epi8(highest, number, _mm256_cmpgt_epi64(number, highest));
    set = _mm256_or_si256(set, iovas);
    common = _mm256_and_si256(common, iovas);
  }
  const Four lows(lowest);
  const Four highs(highest);
  const Four sets(set);
  const Four commons(common);
  for (const std::uint64_t high : highs.numbers) {
    if ((high ^ kSign) == kBad) return false;
  }
  for (unsigned lane = 0; lane < 4; ++lane) {
    scan.lowest = std::min(scan.lowest, lows[lane] ^ kSign);
    scan.highest = std::max(scan.highest, highs[lane] ^ kSign);
    scan.set_bits |= sets[lane];
    scan.common_bits &= commons[lane];
  }
  scan.add_lengths(runs.tell(scan));
  return true;
}

EXTMEM_AVX2 bool scan_flat_wide(Scan& scan, const Iova* block, std::uint64_t size, const Frames& frames,
                                std::uint32_t* words, std::uint64_t* starts) noexcept {
  const Lanes low_halves = _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6);
  const Lanes base = all(frames.base);
  const __m128i shift = _mm_cvtsi32_si128(static_cast<int>(frames.shift));
  Runs runs(scan, size);
  Lanes bad = all(0);
  for (unsigned i = 0; i < kBlock; i += 4) {
    const Lanes iovas = load(block + i);
    runs.add(iovas, i);
    bad = _mm256_or_si256(bad, _mm256_cmpeq_epi64(iovas, all(kBad)));
    const Lanes numbers = _mm256_srl_epi64(_mm256_sub_epi64(iovas, base), shift);
    const Lanes packed = _mm256_permutevar8x32_epi32(numbers, low_halves);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(words + i), _mm256_castsi256_si128(packed));
  }
  if (_mm256_testz_si256(bad, bad) == 0) return false;
  *starts = runs.tell(scan);
  return true;
}

}  // namespace extmem::region
#endif
