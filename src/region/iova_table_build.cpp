// IovaTable: planning and building. See iova_table.hpp.
//
// The input is read as maximal runs by a source (PageSource, RunSource); plan and build both take their sums over the
// same walk, so that an input that another thread changes in between is found and never overruns the data.
#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>

#include "base/error.hpp"
#include "region/iova_table.hpp"

namespace extmem::region {
namespace {

constexpr std::uint64_t kBad = static_cast<std::uint64_t>(kBadIova);
constexpr std::uint64_t kMaxRunIndex = std::numeric_limits<std::uint32_t>::max() - 1;

/// One IOVA per OS page.
struct PageSource {
  std::span<const Iova> iovas;
  unsigned shift;

  /// Calls visit(first page, pages, IOVA) for each maximal run, until it returns false.
  template <typename Visit>
  void walk(Visit visit) const noexcept {
    const std::uint64_t size = std::uint64_t{1} << shift;
    std::size_t page = 0;
    while (page < iovas.size()) {
      const auto iova = static_cast<std::uint64_t>(iovas[page]);
      const std::uint64_t step = iova == kBad ? 0 : size;
      std::size_t end = page + 1;
      for (std::uint64_t next = iova + step; end < iovas.size(); ++end, next += step) {
        if (static_cast<std::uint64_t>(iovas[end]) != next) break;
      }
      if (!visit(std::uint64_t{page}, std::uint64_t{end - page}, iova)) return;
      page = end;
    }
  }
};

/// Runs that follow each other, perhaps mergeable.
struct RunSource {
  std::span<const IovaRun> runs;
  unsigned shift;

  template <typename Visit>
  void walk(Visit visit) const noexcept {
    std::uint64_t page = 0;
    std::size_t i = 0;
    while (i < runs.size()) {
      const auto iova = static_cast<std::uint64_t>(runs[i].iova);
      std::uint64_t pages = runs[i].length >> shift;
      for (++i; i < runs.size(); ++i) {
        const std::uint64_t next = iova == kBad ? kBad : iova + (pages << shift);
        if (static_cast<std::uint64_t>(runs[i].iova) != next) break;
        pages += runs[i].length >> shift;
      }
      if (!visit(page, pages, iova)) return;
      page += pages;
    }
  }
};

/// Sums over the runs of an input, and the first thing that is wrong with them.
struct Sums {
  explicit Sums(unsigned os_page_shift) noexcept : shift(os_page_shift) {}

  bool add(std::uint64_t count, std::uint64_t iova) noexcept {
    pages += count;
    ++runs;
    if (iova == kBad) {
      bad = true;
      return true;
    }
    if ((iova & ((std::uint64_t{1} << shift) - 1)) != 0) {
      misaligned = true;
      return false;
    }
    const std::uint64_t last = iova + ((count << shift) - 1);
    if (last < iova || last == kBad) {
      overflow = true;
      return false;
    }
    lowest = std::min(lowest, iova);
    highest = std::max(highest, last);
    longest = std::max(longest, count);
    return true;
  }

  [[nodiscard]] Error error() const noexcept {
    if (misaligned) {
      return EXTMEM_ERROR(
          EINVAL,
          "an IOVA is no multiple of the OS page size; give the IOVA of each page's first byte, "
          "or kBadIova where it has none");
    }
    if (overflow) {
      return EXTMEM_ERROR(EOVERFLOW,
                          "a page's IOVAs reach 2^64 - 1, which means \"bad\"; map it lower for the device");
    }
    return {};
  }

  unsigned shift;
  std::uint64_t pages = 0;
  std::uint64_t runs = 0;
  std::uint64_t longest = 0;
  std::uint64_t lowest = kBad;
  std::uint64_t highest = 0;
  bool bad = false;
  bool misaligned = false;
  bool overflow = false;
};

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

constexpr std::uint64_t round_up_8(std::uint64_t bytes) noexcept { return (bytes + 7) & ~std::uint64_t{7}; }

// The largest value is (8 + 1/8) * 2^56 or 4 * 8 * 2^32: no overflow.
std::uint64_t flat_bytes(std::uint64_t pages, std::uint64_t word) noexcept {
  return round_up_8(pages * word) + (pages + 63) / 64 * 8;
}
std::uint64_t runs_bytes(std::uint64_t runs, std::uint64_t buckets, std::uint64_t word) noexcept {
  return round_up_8((runs + 1) * 2 * word + (buckets + 1) * sizeof(std::uint32_t));
}
std::uint64_t bucket_count(std::uint64_t pages, unsigned bucket_shift) noexcept {
  return ((pages - 1) >> bucket_shift) + 1;
}
/// The smallest shift that gives at most two buckets per run: most buckets then hold one run, or two.
unsigned bucket_shift_for(std::uint64_t pages, std::uint64_t runs) noexcept {
  unsigned shift = 0;
  while (bucket_count(pages, shift) > 2 * runs) ++shift;
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
  const std::uint64_t last_frame = (sums.highest - sums.lowest) >> sums.shift;
  const bool frames_fit = last_frame < detail::kBadFrame<std::uint32_t>;
  const bool pages_fit = sums.pages <= detail::kBadFrame<std::uint32_t>;
  const bool runs_narrow = frames_fit && pages_fit;
  const unsigned bucket_shift = bucket_shift_for(sums.pages, sums.runs);
  const std::uint64_t as_flat = flat_bytes(sums.pages, frames_fit ? 4 : 8);
  const std::uint64_t as_runs =
      sums.runs > kMaxRunIndex
          ? std::numeric_limits<std::uint64_t>::max()
          : runs_bytes(sums.runs, bucket_count(sums.pages, bucket_shift), runs_narrow ? 4 : 8);
  if (as_runs < as_flat) {
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

/// Adds the next run to the sums and gives its frame; false where it does not fit the plan, so that nothing is
/// written past what the plan has room for.
template <typename Word>
bool accept(const IovaTable& table, Sums& sums, std::uint64_t pages, std::uint64_t iova,
            Word& frame) noexcept {
  if (pages == 0 || pages > table.os_pages - sums.pages || !sums.add(pages, iova)) return false;
  if (iova == kBad) {
    frame = detail::kBadFrame<Word>;
    return true;
  }
  if (iova < table.iova_base || iova + ((pages << table.os_page_shift) - 1) > table.iova_last) return false;
  frame = static_cast<Word>((iova - table.iova_base) >> table.os_page_shift);
  return true;
}

template <typename Word, typename Source>
bool write_runs(const IovaTable& table, const Source& source, std::byte* data, Sums& sums) noexcept {
  auto* entries = reinterpret_cast<detail::RunEntry<Word>*>(data);
  source.walk([&](std::uint64_t page, std::uint64_t pages, std::uint64_t iova) noexcept {
    const std::uint64_t run = sums.runs;
    Word frame = 0;
    if (run >= table.run_count || !accept(table, sums, pages, iova, frame)) return false;
    entries[run] = {static_cast<Word>(page), frame};
    return true;
  });
  if (sums.runs != table.run_count || sums.pages != table.os_pages) return false;
  entries[table.run_count] = {static_cast<Word>(table.os_pages), detail::kBadFrame<Word>};

  auto* buckets = reinterpret_cast<std::uint32_t*>(entries + table.run_count + 1);
  const std::uint64_t count = bucket_count(table.os_pages, table.bucket_shift);
  std::uint64_t bucket = 0;
  for (std::uint64_t run = 0; run < table.run_count; ++run) {
    for (; bucket < count && (bucket << table.bucket_shift) < entries[run + 1].first; ++bucket) {
      buckets[bucket] = static_cast<std::uint32_t>(run);
    }
  }
  buckets[count] = static_cast<std::uint32_t>(table.run_count - 1);
  return true;
}

template <typename Word, typename Source>
bool write_flat(const IovaTable& table, const Source& source, std::byte* data, Sums& sums) noexcept {
  auto* frames = reinterpret_cast<Word*>(data);
  auto* starts = reinterpret_cast<std::uint64_t*>(data + round_up_8(table.os_pages * sizeof(Word)));
  std::memset(starts, 0, (table.os_pages + 63) / 64 * 8);
  source.walk([&](std::uint64_t page, std::uint64_t pages, std::uint64_t iova) noexcept {
    Word frame = 0;
    if (!accept(table, sums, pages, iova, frame)) return false;
    starts[page / 64] |= std::uint64_t{1} << (page % 64);
    const Word step = iova == kBad ? 0 : 1;
    for (std::uint64_t i = 0; i < pages; ++i, frame = static_cast<Word>(frame + step))
      frames[page + i] = frame;
    return true;
  });
  return true;
}

template <typename Source>
bool write_data(const IovaTable& table, const Source& source, std::byte* data) noexcept {
  Sums sums(table.os_page_shift);
  bool written = false;
  switch (table.form) {
    case IovaForm::runs32:
      written = write_runs<std::uint32_t>(table, source, data, sums);
      break;
    case IovaForm::runs64:
      written = write_runs<std::uint64_t>(table, source, data, sums);
      break;
    case IovaForm::flat32:
      written = write_flat<std::uint32_t>(table, source, data, sums);
      break;
    case IovaForm::flat64:
      written = write_flat<std::uint64_t>(table, source, data, sums);
      break;
    case IovaForm::none:
    case IovaForm::linear:
      return true;
  }
  return written && sums.pages == table.os_pages && sums.runs == table.run_count && !sums.error() &&
         sums.lowest == table.iova_base && sums.highest == table.iova_last &&
         sums.longest == table.max_run_pages && sums.bad == (table.has_bad != 0);
}

template <typename Source>
Result<void> build(IovaTable& table, const IovaPlan& plan, const Source& source, std::byte* data,
                   std::uint64_t data_offset) noexcept {
  if (!write_data(plan.table, source, data)) {
    return EXTMEM_ERROR(EINVAL,
                        "the IOVA table changed while it was copied; leave it alone until the call returns");
  }
  table = plan.table;
  table.data_offset = plan.data_bytes != 0 ? data_offset : 0;
  return {};
}

template <typename Source>
Result<IovaPlan> plan_from(const Source& source) noexcept {
  Sums sums(source.shift);
  source.walk(
      [&](std::uint64_t, std::uint64_t pages, std::uint64_t iova) noexcept { return sums.add(pages, iova); });
  if (const Error error = sums.error()) return error;
  return plan_of(sums);
}

}  // namespace

Result<IovaPlan> plan_iova_table(std::span<const Iova> iovas, unsigned os_page_shift) noexcept {
  EXTMEM_TRY_VOID(check_geometry(iovas.size(), os_page_shift));
  return plan_from(PageSource{iovas, os_page_shift});
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
  return plan_from(RunSource{runs, os_page_shift});
}

Result<IovaPlan> plan_linear(Iova first, std::uint64_t os_pages, unsigned os_page_shift) noexcept {
  EXTMEM_TRY_VOID(check_geometry(os_pages, os_page_shift));
  Sums sums(os_page_shift);
  sums.add(os_pages, static_cast<std::uint64_t>(first));
  if (const Error error = sums.error()) return error;
  return plan_of(sums);
}

Result<IovaPlan> plan_none(std::uint64_t os_pages, unsigned os_page_shift) noexcept {
  return plan_linear(kBadIova, os_pages, os_page_shift);
}

Result<void> build_iova_table(IovaTable& table, const IovaPlan& plan, std::span<const Iova> iovas,
                              std::byte* data, std::uint64_t data_offset) noexcept {
  return build(table, plan, PageSource{iovas, plan.table.os_page_shift}, data, data_offset);
}

Result<void> build_iova_table(IovaTable& table, const IovaPlan& plan, std::span<const IovaRun> runs,
                              std::byte* data, std::uint64_t data_offset) noexcept {
  return build(table, plan, RunSource{runs, plan.table.os_page_shift}, data, data_offset);
}

}  // namespace extmem::region
