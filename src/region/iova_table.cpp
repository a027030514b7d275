// IovaTable: runs, ranges and the check. See iova_table.hpp.
#include "region/iova_table.hpp"

namespace extmem::region {
namespace detail {

template <typename Word>
std::uint64_t narrow(const RunEntry<Word>* entries, std::uint64_t low, std::uint64_t high,
                     std::uint64_t page) noexcept {
  while (high > low + 1) {
    const std::uint64_t middle = low + (high - low) / 2;
    if (entries[middle].first <= page) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}
template std::uint64_t narrow(const RunEntry<std::uint32_t>*, std::uint64_t, std::uint64_t,
                              std::uint64_t) noexcept;
template std::uint64_t narrow(const RunEntry<std::uint64_t>*, std::uint64_t, std::uint64_t,
                              std::uint64_t) noexcept;

}  // namespace detail

namespace {

using detail::FlatView;
using detail::kBadFrame;
using detail::RunsView;

/// Pages [first, end) of one run and the IOVA of `first`; bad: all ones.
struct Pages {
  std::uint64_t first;
  std::uint64_t end;
  Iova iova;
};

template <typename Word>
Pages pages_of_runs(const IovaTable& table, const std::byte* segment, std::uint64_t page) noexcept {
  const RunsView<Word> view(table, segment);
  const std::uint64_t run = std::min(view.index_of(table, page), table.run_count - 1);
  // The clamps keep `page` inside the answer whatever the data says, so that every walk makes progress and ends.
  const std::uint64_t first = std::min<std::uint64_t>(view.entries[run].first, page);
  const std::uint64_t end = std::clamp<std::uint64_t>(view.entries[run + 1].first, page + 1, table.os_pages);
  const Word frame = view.entries[run].frame;
  return {first, end, detail::iova_of_frame(table.iova_base, frame_shift(table), frame, 0)};
}

/// `whole`: from the run's start; else from `page`.
template <typename Word>
Pages pages_of_flat(const IovaTable& table, const std::byte* segment, std::uint64_t page, std::uint64_t limit,
                    bool whole) noexcept {
  const FlatView<Word> view(table, segment);
  const std::uint64_t first = whole ? view.start_before(page) : page;
  const Word frame = view.frames[first];
  return {first, view.start_after(page, limit),
          detail::iova_of_frame(table.iova_base, frame_shift(table), frame, 0)};
}

/// The run of `page`, seen up to `limit`. Requires: page < limit <= os_pages.
Pages pages_at(const IovaTable& table, const std::byte* segment, std::uint64_t page, std::uint64_t limit,
               bool whole) noexcept {
  switch (table.form) {
    case IovaForm::linear:
      return {0, table.os_pages, Iova{table.iova_base}};
    case IovaForm::runs32:
      return pages_of_runs<std::uint32_t>(table, segment, page);
    case IovaForm::runs64:
      return pages_of_runs<std::uint64_t>(table, segment, page);
    case IovaForm::flat32:
      return pages_of_flat<std::uint32_t>(table, segment, page, limit, whole);
    case IovaForm::flat64:
      return pages_of_flat<std::uint64_t>(table, segment, page, limit, whole);
    case IovaForm::none:
      break;
  }
  return {0, table.os_pages, kBadIova};
}

Iova advance(Iova iova, std::uint64_t bytes) noexcept {
  return iova == kBadIova ? kBadIova : Iova{static_cast<std::uint64_t>(iova) + bytes};
}

IovaRun nothing(const IovaTable& table) noexcept { return {covered_bytes(table), 0, kBadIova}; }

/// The first page at or after `page` that is not one of 64 one-page runs which a whole word of `starts` shows.
std::uint64_t skip_one_page_runs(const IovaTable& table, const std::byte* segment,
                                 std::uint64_t page) noexcept {
  const bool narrow = table.form == IovaForm::flat32;
  if (!narrow && table.form != IovaForm::flat64) return page;
  const std::uint64_t* starts = narrow ? FlatView<std::uint32_t>(table, segment).starts
                                       : FlatView<std::uint64_t>(table, segment).starts;
  std::uint64_t word = page / 64;
  const std::uint64_t words = (table.os_pages + 63) / 64;
  if (starts[word] != ~std::uint64_t{0}) return page;
  while (word + 1 < words && starts[word + 1] == ~std::uint64_t{0}) ++word;
  return std::max(page, word * 64 + 63);  // the last page of the word may begin a longer run
}

}  // namespace

IovaRun run_at(const IovaTable& table, const std::byte* segment, std::uint64_t byte_offset) noexcept {
  const std::uint64_t page = byte_offset >> table.os_page_shift;
  if (page >= table.os_pages) return nothing(table);
  const Pages pages = pages_at(table, segment, page, table.os_pages, true);
  return {pages.first << table.os_page_shift, (pages.end - pages.first) << table.os_page_shift, pages.iova};
}

IovaRun run_from(const IovaTable& table, const std::byte* segment, std::uint64_t byte_offset,
                 std::uint64_t max_length) noexcept {
  const std::uint64_t page = byte_offset >> table.os_page_shift;
  if (page >= table.os_pages) return nothing(table);
  if (max_length == 0) return {byte_offset, 0, kBadIova};
  const std::uint64_t end = byte_offset + std::min(max_length, covered_bytes(table) - byte_offset);
  const std::uint64_t limit = ((end - 1) >> table.os_page_shift) + 1;
  const Pages pages = pages_at(table, segment, page, limit, false);
  return {byte_offset, std::min(end, pages.end << table.os_page_shift) - byte_offset,
          advance(pages.iova, byte_offset - (pages.first << table.os_page_shift))};
}

IovaRun next_run(const IovaTable& table, const std::byte* segment, std::uint64_t byte_offset,
                 std::uint64_t min_length) noexcept {
  if (min_length > max_run_length(table) || table.max_run_pages == 0) return nothing(table);
  const std::uint64_t covered = covered_bytes(table);
  while (byte_offset < covered) {
    const IovaRun run = run_from(table, segment, byte_offset, covered);
    if (run.iova != kBadIova && run.length >= min_length) return run;
    byte_offset += run.length;
    const std::uint64_t page = byte_offset >> table.os_page_shift;
    if (page < table.os_pages && min_length > std::uint64_t{1} << table.os_page_shift) {
      byte_offset = skip_one_page_runs(table, segment, page) << table.os_page_shift;
    }
  }
  return nothing(table);
}

bool contiguous(const IovaTable& table, const std::byte* segment, std::uint64_t offset,
                std::uint64_t length) noexcept {
  if (length == 0) return false;
  const IovaRun run = run_from(table, segment, offset, length);
  return run.length == length && run.iova != kBadIova;
}

std::size_t scatter_list(const IovaTable& table, const std::byte* segment, std::uint64_t offset,
                         std::uint64_t length, std::span<IovaRun> out) noexcept {
  const std::uint64_t covered = covered_bytes(table);
  if (offset > covered || length > covered - offset) return 0;
  std::size_t count = 0;
  for (std::uint64_t done = 0; done < length; ++count) {
    const IovaRun run = run_from(table, segment, offset + done, length - done);
    if (count < out.size()) out[count] = {done, run.length, run.iova};
    done += run.length;
  }
  return count;
}

bool for_each_run(const IovaTable& table, const std::byte* segment,
                  FunctionRef<bool(const IovaRun&)> visit) noexcept {
  const std::uint64_t covered = covered_bytes(table);
  for (std::uint64_t offset = 0; offset < covered;) {
    const IovaRun run = run_from(table, segment, offset, covered);
    if (!visit(run)) return false;
    offset += run.length;
  }
  return true;
}

// ---- check -------------------------------------------------------------------------------------------------

namespace {

/// What the data says of the facts that the record states.
struct Facts {
  std::uint64_t runs = 0;
  std::uint64_t longest = 0;
  std::uint64_t lowest_frame = ~std::uint64_t{0};
  std::uint64_t end_frame = 0;  ///< one past the highest
  std::uint64_t frame_bits = 0;
  bool bad = false;

  void add(std::uint64_t pages, std::uint64_t frame, unsigned finer, bool known) noexcept {
    ++runs;
    if (!known) {
      bad = true;
      return;
    }
    longest = std::max(longest, pages);
    lowest_frame = std::min(lowest_frame, frame);
    end_frame = std::max(end_frame, frame + (pages << finer));
    frame_bits |= frame;
  }
};

/// Whether `data_bytes` is what runs of this table take; everything that indexes the data is then bounded.
template <typename Word>
bool runs_size_ok(const IovaTable& table, std::uint64_t buckets) noexcept {
  constexpr std::uint64_t kEntry = 2 * sizeof(Word);
  if (table.run_count >= table.data_bytes / kEntry || table.run_count > 0xffffffff) return false;
  if (table.data_bytes % 8 != 0) return false;
  const std::uint64_t left = table.data_bytes - (table.run_count + 1) * kEntry;
  return buckets < left / 4 && left - (buckets + 1) * 4 < 8;
}

template <typename Word>
const char* check_runs(const IovaTable& table, const std::byte* segment, std::uint64_t frames,
                       Facts& facts) noexcept {
  const std::uint64_t last_page = table.os_pages - 1;
  if (table.bucket_shift > 63) return "IOVA table: bucket shift out of range";
  const std::uint64_t buckets = (last_page >> table.bucket_shift) + 1;
  if (table.run_count < 2 || !runs_size_ok<Word>(table, buckets)) return "IOVA table: data size of the runs";
  const RunsView<Word> view(table, segment);
  if (view.entries[0].first != 0) return "IOVA table: the first run does not start at page 0";
  const detail::RunEntry<Word> sentinel = view.entries[table.run_count];
  if (sentinel.first != table.os_pages || sentinel.frame != kBadFrame<Word>) {
    return "IOVA table: the sentinel is not the end";
  }
  for (std::uint64_t run = 0; run < table.run_count; ++run) {
    const detail::RunEntry<Word> entry = view.entries[run];
    const std::uint64_t end = view.entries[run + 1].first;
    if (end <= entry.first || end > table.os_pages) return "IOVA table: the runs' pages do not increase";
    const std::uint64_t pages = end - entry.first;
    const std::uint64_t run_frames = pages << table.finer;
    const bool known = entry.frame != kBadFrame<Word>;
    if (known && (entry.frame >= frames || run_frames > frames - entry.frame))
      return "IOVA table: a frame is out of range";
    if (run + 1 < table.run_count) {
      const Word next = view.entries[run + 1].frame;
      const bool next_known = next != kBadFrame<Word>;
      if (known == next_known && (!known || next == entry.frame + run_frames))
        return "IOVA table: two runs are one";
    }
    facts.add(pages, entry.frame, table.finer, known);
  }
  std::uint64_t run = 0;
  for (std::uint64_t bucket = 0; bucket < buckets; ++bucket) {
    const std::uint64_t page = bucket << table.bucket_shift;
    while (run + 1 < table.run_count && view.entries[run + 1].first <= page) ++run;
    if (view.buckets[bucket] != run) return "IOVA table: a bucket names another run";
  }
  if (view.buckets[buckets] != table.run_count - 1) return "IOVA table: the last bucket is not the last run";
  return nullptr;
}

template <typename Word>
const char* check_flat(const IovaTable& table, const std::byte* segment, std::uint64_t frames,
                       Facts& facts) noexcept {
  if (table.bucket_shift != 0) return "IOVA table: buckets where its form has none";
  if (table.os_pages > table.data_bytes / sizeof(Word)) return "IOVA table: data size of the pages";
  const std::uint64_t words = (table.os_pages + 63) / 64;
  if (((table.os_pages * sizeof(Word) + 7) & ~std::uint64_t{7}) + words * 8 != table.data_bytes) {
    return "IOVA table: data size of the pages";
  }
  const FlatView<Word> view(table, segment);
  for (std::uint64_t page = 0; page < table.os_pages;) {
    const Word frame = view.frames[page];
    const bool known = frame != kBadFrame<Word>;
    std::uint64_t end = page;
    do {
      const bool starts = (view.starts[end / 64] >> (end % 64) & 1) != 0;
      if (starts != (end == page)) return "IOVA table: a start bit is wrong";
      ++end;
    } while (end < table.os_pages && (known ? view.frames[end] != kBadFrame<Word> &&
                                                  view.frames[end] == frame + ((end - page) << table.finer)
                                            : view.frames[end] == kBadFrame<Word>));
    if (known && (frame >= frames || (end - page) << table.finer > frames - frame))
      return "IOVA table: a frame is out of range";
    facts.add(end - page, frame, table.finer, known);
    page = end;
  }
  if (table.os_pages % 64 != 0 && view.starts[words - 1] >> (table.os_pages % 64) != 0) {
    return "IOVA table: a start bit beyond the end";
  }
  return nullptr;
}

}  // namespace

const char* check(const IovaTable& table, const std::byte* segment, std::uint64_t segment_bytes,
                  std::uint64_t region_bytes) noexcept {
  if (table.form > IovaForm::flat64) return "IOVA table: unknown form";
  if (table.os_page_shift > kMaxCoveredShift) return "IOVA table: OS page shift out of range";
  if (table.os_pages == 0 || table.os_pages > (std::uint64_t{1} << kMaxCoveredShift) >> table.os_page_shift) {
    return "IOVA table: number of OS pages out of range";
  }
  if (covered_bytes(table) != region_bytes) return "IOVA table: it does not cover the region";
  if (table.has_bad > 1 || table.reserved[0] != 0 || table.reserved[1] != 0 || table.reserved[2] != 0)
    return "IOVA table: a flag is neither 0 nor 1";

  const bool has_data = table.form > IovaForm::linear;
  if (!has_data &&
      (table.data_bytes != 0 || table.data_offset != 0 || table.run_count != 1 || table.bucket_shift != 0)) {
    return "IOVA table: data or runs where its form has none";
  }
  if (table.form == IovaForm::none) {
    if (table.has_bad != 1 || table.iova_base != 0 || table.iova_last != 0 || table.max_run_pages != 0 ||
        table.finer != 0) {
      return "IOVA table: facts of a table without IOVAs";
    }
    return nullptr;
  }

  // The range of IOVAs: whole frames below 2^64 - 1.
  if (table.finer > table.os_page_shift) return "IOVA table: frame size out of range";
  const std::uint64_t in_frame = (std::uint64_t{1} << frame_shift(table)) - 1;
  if (table.iova_last < table.iova_base || table.iova_last == static_cast<std::uint64_t>(kBadIova) ||
      ((table.iova_last - table.iova_base) & in_frame) != in_frame) {
    return "IOVA table: lowest and highest IOVA out of range";
  }
  const std::uint64_t frames = ((table.iova_last - table.iova_base) >> frame_shift(table)) + 1;
  Facts facts;
  if (!has_data) {
    facts.add(table.os_pages, 0, table.finer, true);
  } else {
    if (table.data_offset % 8 != 0 || table.data_offset > segment_bytes ||
        table.data_bytes > segment_bytes - table.data_offset) {
      return "IOVA table: data outside the segment";
    }
    const char* breach = nullptr;
    switch (table.form) {
      case IovaForm::runs32:
        breach = check_runs<std::uint32_t>(table, segment, frames, facts);
        break;
      case IovaForm::runs64:
        breach = check_runs<std::uint64_t>(table, segment, frames, facts);
        break;
      case IovaForm::flat32:
        breach = check_flat<std::uint32_t>(table, segment, frames, facts);
        break;
      case IovaForm::flat64:
        breach = check_flat<std::uint64_t>(table, segment, frames, facts);
        break;
      default:
        break;
    }
    if (breach != nullptr) return breach;
  }
  if (facts.runs != table.run_count) return "IOVA table: number of runs";
  if (facts.longest != table.max_run_pages || facts.longest == 0) return "IOVA table: longest run";
  if (facts.lowest_frame != 0 || facts.end_frame != frames) return "IOVA table: lowest or highest IOVA";
  if (table.finer != 0 && (facts.frame_bits & 1) == 0) return "IOVA table: frames smaller than they need be";
  if (facts.bad != (table.has_bad != 0)) return "IOVA table: the flag for bad pages";
  return nullptr;
}

}  // namespace extmem::region
