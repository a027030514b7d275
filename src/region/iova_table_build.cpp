// IovaTable: planning and building. See iova_table.hpp.
//
// One IOVA per page is read page by page (iova_scan.hpp); runs are read run by run (walk_runs). Plan and build sum up over
// the same pass, so that an input that another thread changes in between
// is found, and no value of it decides where something is written without a bound.
#include <algorithm>
#include <bit>
#include <cerrno>
#include <limits>

#include "base/error.hpp"
#include "region/iova_scan.hpp"
#include "region/iova_table.hpp"

namespace extmem::region {
namespace {

constexpr std::uint64_t kMaxRunIndex = std::numeric_limits<std::uint32_t>::max() - 1;

constexpr std::uint64_t digest_of(std::uint64_t page, std::uint64_t iova) noexcept {
  return iova * (2 * page + 1);
}

/// Sums over the runs of an input, and the first thing that is wrong with them.
struct Sums {
  explicit Sums(unsigned os_page_shift) noexcept : shift(os_page_shift) {}

  /// Adds a maximal run.
  void add(std::uint64_t count, std::uint64_t iova) noexcept {
    const bool known = iova != kBad;
    const std::uint64_t last = iova + ((count << shift) - 1);
    digest += digest_of(pages, iova);
    pages += count;
    ++runs;
    bad = bad || !known;
    if (!known) return;
    set_bits |= iova;
    common_bits &= iova;
    overflow = overflow || last < iova || last == kBad;
    lowest = std::min(lowest, iova);
    highest = std::max(highest, last);
    longest = std::max(longest, count);
  }

  /// log2 of how many frames an OS page must be, so that the IOVAs differ by whole frames.
  [[nodiscard]] unsigned finer() const noexcept {
    const std::uint64_t differing = set_bits & ~common_bits;
    const auto common = static_cast<unsigned>(std::countr_zero(differing));
    return longest == 0 || common >= shift ? 0 : shift - common;
  }

  [[nodiscard]] Error error(IovaAlign align) const noexcept {
    if (align == IovaAlign::os_page && (set_bits & ((std::uint64_t{1} << shift) - 1)) != 0) {
      return EXTMEM_ERROR(
          EINVAL,
          "an IOVA is no multiple of the OS page size; give the IOVA of each page's first byte, "
          "or kBadIova where it has none, or say with any_iovas that these are right");
    }
    if (overflow) {
      return EXTMEM_ERROR(EOVERFLOW,
                          "a page's IOVAs reach 2^64 - 1, which means \"bad\"; map it lower for the device");
    }
    return {};
  }
  [[nodiscard]] bool same_as(const IovaPlan& plan) const noexcept {
    return pages == plan.table.os_pages && runs == plan.table.run_count && digest == plan.digest;
  }

  unsigned shift;
  std::uint64_t pages = 0;
  std::uint64_t runs = 0;
  std::uint64_t longest = 0;
  std::uint64_t lowest = kBad;
  std::uint64_t highest = 0;
  bool bad = false;
  bool overflow = false;
  std::uint64_t set_bits = 0;                     ///< in some known IOVA
  std::uint64_t common_bits = ~std::uint64_t{0};  ///< in all of them
  std::uint64_t digest = 0;  ///< of the input, to see that build reads what plan has read
};

/// Sums up one IOVA per page. Without kFacts, only what same_as compares.
template <bool kFacts, typename Emit>
Sums sum_pages(std::span<const Iova> iovas, unsigned shift, Emit emit) noexcept {
  const std::uint64_t size = std::uint64_t{1} << shift;
  const Scan scan = scan_pages<kFacts>(iovas, size, emit);
  Sums sums(shift);
  sums.pages = iovas.size();
  sums.runs = scan.runs;
  sums.digest = scan.digest;
  sums.longest = scan.longest;
  sums.lowest = scan.lowest;
  sums.bad = scan.bad;
  if (sums.longest == 0) return sums;
  sums.set_bits = scan.set_bits;
  sums.common_bits = scan.common_bits;
  sums.highest = scan.highest + (size - 1);
  sums.overflow = sums.highest < scan.highest || sums.highest == kBad;
  return sums;
}

/// Sums up runs that may be mergeable, and calls emit(page, pages, IOVA) for each maximal one until it returns false.
template <typename Emit>
Sums walk_runs(std::span<const IovaRun> runs, unsigned shift, Emit emit) noexcept {
  Sums sums(shift);
  std::size_t i = 0;
  while (i < runs.size()) {
    const auto iova = static_cast<std::uint64_t>(runs[i].iova);
    std::uint64_t pages = runs[i].length >> shift;
    for (++i; i < runs.size(); ++i) {
      const std::uint64_t next = iova == kBad ? kBad : iova + (pages << shift);
      if (static_cast<std::uint64_t>(runs[i].iova) != next) break;
      pages += runs[i].length >> shift;
    }
    if (!emit(sums.pages, pages, iova)) break;
    sums.add(pages, iova);
  }
  return sums;
}

Result<void> check_geometry(std::uint64_t os_pages, unsigned os_page_shift) noexcept {
  if (os_page_shift > kMaxCoveredShift) {
    return EXTMEM_ERROR(EINVAL, "the OS page size is too large; it is at most 2^56 bytes");
  }
  if (os_pages == 0)
    return EXTMEM_ERROR(EINVAL, "the IOVA table is empty; give one IOVA per OS page of the region");
  if (os_pages > (std::uint64_t{1} << kMaxCoveredShift) >> os_page_shift) {
    return EXTMEM_ERROR(EOVERFLOW, "the region is too large for an IOVA table; it is at most 2^56 bytes");
  }
  return {};
}

Error changed() noexcept {
  return EXTMEM_ERROR(EINVAL,
                      "the IOVA table changed while it was copied; leave it alone until the call returns");
}

constexpr std::uint64_t round_up_8(std::uint64_t bytes) noexcept { return (bytes + 7) & ~std::uint64_t{7}; }

// The largest value is (8 + 1/8) * 2^56 or 32 * 2^32: no overflow.
std::uint64_t flat_bytes(std::uint64_t pages, std::uint64_t word) noexcept {
  return round_up_8(pages * word) + (pages + 63) / 64 * 8;
}
std::uint64_t runs_bytes(std::uint64_t runs, std::uint64_t buckets, std::uint64_t word) noexcept {
  return round_up_8((runs + 1) * 2 * word + (buckets + 1) * sizeof(std::uint32_t));
}
std::uint64_t bucket_count(std::uint64_t pages, unsigned bucket_shift) noexcept {
  return ((pages - 1) >> bucket_shift) + 1;
}
/// The smallest shift that gives at most four buckets per run: in few of them starts more than one run.
unsigned bucket_shift_for(std::uint64_t pages, std::uint64_t runs) noexcept {
  unsigned shift = 0;
  while (bucket_count(pages, shift) > 4 * runs) ++shift;
  return shift;
}

IovaPlan plan_of(const Sums& sums) noexcept {
  IovaPlan plan;
  IovaTable& table = plan.table;
  table.os_page_shift = static_cast<std::uint8_t>(sums.shift);
  table.has_bad = sums.bad ? 1 : 0;
  table.os_pages = sums.pages;
  table.run_count = sums.runs;
  if (sums.longest == 0) return plan;  // form none
  table.iova_base = sums.lowest;
  table.iova_last = sums.highest;
  table.max_run_pages = sums.longest;
  if (sums.runs == 1) {
    table.form = IovaForm::linear;
    return plan;
  }
  table.finer = static_cast<std::uint8_t>(sums.finer());
  const std::uint64_t last_frame = (sums.highest - sums.lowest) >> frame_shift(table);
  const bool frames_fit = last_frame < detail::kBadFrame<std::uint32_t>;
  const bool pages_fit = sums.pages <= detail::kBadFrame<std::uint32_t>;
  const bool runs_narrow = frames_fit && pages_fit;
  const unsigned bucket_shift = bucket_shift_for(sums.pages, sums.runs);
  const std::uint64_t as_flat = flat_bytes(sums.pages, frames_fit ? 4 : 8);
  const std::uint64_t as_runs =
      sums.runs > kMaxRunIndex
          ? std::numeric_limits<std::uint64_t>::max()
          : runs_bytes(sums.runs, bucket_count(sums.pages, bucket_shift), runs_narrow ? 4 : 8);
  // Runs are slower to look up: they must be worth it.
  if (as_runs <= as_flat / 2) {
    table.form = runs_narrow ? IovaForm::runs32 : IovaForm::runs64;
    table.bucket_shift = static_cast<std::uint8_t>(bucket_shift);
    table.data_bytes = as_runs;
  } else {
    table.form = frames_fit ? IovaForm::flat32 : IovaForm::flat64;
    table.data_bytes = as_flat;
  }
  plan.data_bytes = table.data_bytes;
  return plan;
}

/// Writes what follows the runs' entries, from them.
template <typename Word>
void finish_runs(const IovaTable& table, detail::RunEntry<Word>* entries) noexcept {
  entries[table.run_count] = {static_cast<Word>(table.os_pages), detail::kBadFrame<Word>};
  auto* buckets = reinterpret_cast<std::uint32_t*>(entries + table.run_count + 1);
  const std::uint64_t count = bucket_count(table.os_pages, table.bucket_shift);
  const std::uint64_t round_up = (std::uint64_t{1} << table.bucket_shift) - 1;
  // Each run marks the first bucket that starts in it or after it; a later run that marks the same one wins.
  std::fill_n(buckets, count + 1, 0u);
  for (std::uint64_t run = 0; run < table.run_count; ++run) {
    const std::uint64_t bucket = (entries[run].first + round_up) >> table.bucket_shift;
    buckets[std::min(bucket, count)] = static_cast<std::uint32_t>(run);
  }
  std::uint32_t holder = 0;
  for (std::uint64_t bucket = 0; bucket < count; ++bucket) {
    holder = std::max(holder, buckets[bucket]);
    buckets[bucket] = holder;
  }
  buckets[count] = static_cast<std::uint32_t>(table.run_count - 1);
}

/// The runs' entries.
template <typename Word>
struct EmitRuns {
  static constexpr bool kWide = false;
  template <bool kKnown>
  void page(std::uint64_t page, std::uint64_t iova, std::uint64_t runs) noexcept {
    // Stored for every page, kept where a run starts; the bound is the sentinel.
    entries[std::min(runs, frames.runs)] = {static_cast<Word>(page), frames.template of<Word, kKnown>(iova)};
  }
  void starts(std::uint64_t, std::uint64_t) noexcept {}
  Frames frames;
  detail::RunEntry<Word>* entries;
};

template <typename Word>
Sums write_runs(const IovaTable& table, std::span<const Iova> iovas, std::byte* data) noexcept {
  auto* entries = reinterpret_cast<detail::RunEntry<Word>*>(data);
  const Sums sums = sum_pages<false>(iovas, table.os_page_shift, EmitRuns<Word>{Frames(table), entries});
  finish_runs(table, entries);
  return sums;
}

template <typename Word>
Sums write_runs(const IovaTable& table, std::span<const IovaRun> runs, std::byte* data) noexcept {
  auto* entries = reinterpret_cast<detail::RunEntry<Word>*>(data);
  const Frames frames(table);
  std::uint64_t run = 0;
  const Sums sums = walk_runs(runs, table.os_page_shift,
                              [&](std::uint64_t page, std::uint64_t pages, std::uint64_t iova) noexcept {
                                if (run == table.run_count || pages == 0) return false;
                                entries[run++] = {static_cast<Word>(page), frames.template of<Word>(iova)};
                                return true;
                              });
  finish_runs(table, entries);
  return sums;
}

template <typename Word>
std::uint64_t* starts_of(const IovaTable& table, std::byte* data) noexcept {
  return reinterpret_cast<std::uint64_t*>(data + round_up_8(table.os_pages * sizeof(Word)));
}

/// Requires: one IOVA per page of the plan.
template <typename Word>
Sums write_flat(const IovaTable& table, std::span<const Iova> iovas, std::byte* data) noexcept {
  return sum_pages<false>(
      iovas, table.os_page_shift,
      EmitFlat<Word>{Frames(table), reinterpret_cast<Word*>(data), starts_of<Word>(table, data)});
}

template <typename Word>
Sums write_flat(const IovaTable& table, std::span<const IovaRun> runs, std::byte* data) noexcept {
  auto* words = reinterpret_cast<Word*>(data);
  const Frames frames(table);
  std::uint64_t* starts = starts_of<Word>(table, data);
  std::fill_n(starts, (table.os_pages + 63) / 64, 0u);
  return walk_runs(
      runs, table.os_page_shift, [&](std::uint64_t page, std::uint64_t pages, std::uint64_t iova) noexcept {
        if (pages == 0 || pages > table.os_pages - page) return false;
        starts[page / 64] |= std::uint64_t{1} << (page % 64);
        Word frame = frames.template of<Word>(iova);
        const Word step = iova == kBad ? 0 : static_cast<Word>(Word{1} << table.finer);
        for (std::uint64_t i = page; i < page + pages; ++i, frame = static_cast<Word>(frame + step)) {
          words[i] = frame;
        }
        return true;
      });
}

template <typename Input>
Result<void> build(IovaTable& table, const IovaPlan& plan, std::span<const Input> input, std::byte* data,
                   std::uint64_t data_offset) noexcept {
  const IovaTable& planned = plan.table;
  bool as_planned = true;
  switch (planned.form) {
    case IovaForm::runs32:
      as_planned = write_runs<std::uint32_t>(planned, input, data).same_as(plan);
      break;
    case IovaForm::runs64:
      as_planned = write_runs<std::uint64_t>(planned, input, data).same_as(plan);
      break;
    case IovaForm::flat32:
      as_planned = write_flat<std::uint32_t>(planned, input, data).same_as(plan);
      break;
    case IovaForm::flat64:
      as_planned = write_flat<std::uint64_t>(planned, input, data).same_as(plan);
      break;
    case IovaForm::none:
    case IovaForm::linear:
      break;
  }
  if (!as_planned) return changed();
  table = planned;
  table.data_offset = plan.data_bytes != 0 ? data_offset : 0;
  return {};
}

Result<IovaPlan> plan_from(const Sums& sums, IovaAlign align = IovaAlign::os_page) noexcept {
  if (const Error error = sums.error(align)) return error;
  IovaPlan plan = plan_of(sums);
  plan.digest = sums.digest;
  return plan;
}

}  // namespace

Result<IovaPlan> plan_iova_table(std::span<const Iova> iovas, unsigned os_page_shift,
                                 IovaAlign align) noexcept {
  EXTMEM_TRY_VOID(check_geometry(iovas.size(), os_page_shift));
  return plan_from(sum_pages<true>(iovas, os_page_shift, EmitNothing{}), align);
}

Result<IovaPlan> plan_iova_runs(std::span<const IovaRun> runs, unsigned os_page_shift) noexcept {
  EXTMEM_TRY_VOID(check_geometry(runs.size(), os_page_shift));
  const std::uint64_t size = std::uint64_t{1} << os_page_shift;
  std::uint64_t end = 0;
  for (const IovaRun& run : runs) {
    if (run.offset != end) {
      return EXTMEM_ERROR(
          EINVAL, "the IOVA runs leave a gap or overlap; begin at 0 and give each where the last ends");
    }
    if (run.length == 0 || (run.length & (size - 1)) != 0) {
      return EXTMEM_ERROR(EINVAL, "an IOVA run's length is not a positive multiple of the OS page size");
    }
    if (run.length > (std::uint64_t{1} << kMaxCoveredShift) - end) {
      return EXTMEM_ERROR(EOVERFLOW, "the region is too large for an IOVA table; it is at most 2^56 bytes");
    }
    end += run.length;
  }
  return plan_from(walk_runs(runs, os_page_shift,
                             [](std::uint64_t, std::uint64_t, std::uint64_t) noexcept { return true; }));
}

Result<IovaPlan> plan_linear(Iova first, std::uint64_t os_pages, unsigned os_page_shift) noexcept {
  EXTMEM_TRY_VOID(check_geometry(os_pages, os_page_shift));
  Sums sums(os_page_shift);
  sums.add(os_pages, static_cast<std::uint64_t>(first));
  return plan_from(sums);
}

Result<IovaPlan> plan_none(std::uint64_t os_pages, unsigned os_page_shift) noexcept {
  return plan_linear(kBadIova, os_pages, os_page_shift);
}

Result<void> build_iova_table(IovaTable& table, const IovaPlan& plan, std::span<const Iova> iovas,
                              std::byte* data, std::uint64_t data_offset) noexcept {
  const bool has_data = plan.data_bytes != 0;
  if (has_data && iovas.size() != plan.table.os_pages) return changed();
  return build(table, plan, iovas, data, data_offset);
}

Result<void> build_iova_table(IovaTable& table, const IovaPlan& plan, std::span<const IovaRun> runs,
                              std::byte* data, std::uint64_t data_offset) noexcept {
  return build(table, plan, runs, data, data_offset);
}

}  // namespace extmem::region
