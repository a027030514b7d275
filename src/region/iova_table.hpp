// IovaTable: OS page -> IOVA of one region.
//
// What it is: a 64-byte record and a block of data, both in memory that the caller gives (the domain's control
// segment). Nothing in them is an address of this process: the data is reached by an offset from the segment's start,
// which every query is given. One OS page has one IOVA (its bytes are consecutive) or none ("bad").
// Thread-safety: the record and its data do not change after build_iova_table, so every query is a plain lock-free
// read; who publishes the record to other threads orders that after the build. No malloc, no locks, errno unchanged.
//
// A *run* is a maximal piece of the region whose IOVAs are consecutive, or all bad. Runs cover the region, in order.
//
// The form (P OS pages, R runs; W = 4 bytes, or 8 where page or frame numbers need it):
//
//   none     all bad                                     no data
//   linear   one run of known IOVAs (identity)           no data: 1 TiB costs the record
//   runs     where that halves the bytes: R < about P/10 (2 W + 8 to 16) R bytes; lookup is two dependent loads
//   flat     else                                        (W + 1/8) P bytes; lookup is one load
//
//   IovaTable (64 bytes)
//    0       1         2         3       4         8            16           24            32
//   +-------+---------+---------+-------+---------+------------+------------+-------------+
//   | form  | os page | bucket  | has   | finer,0 | os_pages   | run_count  | data_offset |
//   |       | shift   | shift   | bad   |         |            |            | in segment  |
//   +-------+---------+---------+-------+---------+------------+------------+-------------+
//   | data_bytes                        | iova_base            | iova_last  | max_run_pages |
//   +-----------------------------------+----------------------+------------+---------------+
//    32                                  40                     48           56             64
//
//   runs data                                                      flat data
//   +-------------------+-----+-------------------+-------------+  +-----------+-------------------------+
//   | {first W, frame W}| ... | {os_pages, bad}   | u32 bucket  |  | W frame   | u64 starts, one bit a   |
//   |  of run 0         |     |  the sentinel, R  | [B + 1]     |  | [P]       | page: a run starts here |
//   +-------------------+-----+-------------------+-------------+  +-----------+-------------------------+
//   first: the run's first OS page. frame: (IOVA - iova_base) >> frame shift; all ones: bad. The frame shift is the OS page
//   shift less `finer`, which is 0 where the IOVAs differ by whole OS pages, as they nearly always do: an OS page is
//   1 << finer frames.
//   bucket[b]: the run that holds page b << bucket_shift; bucket[B] = R - 1. So the run of page p lies in
//   [bucket[p >> bucket_shift], bucket[(p >> bucket_shift) + 1]], usually one or two candidates.
//
// Invariants (check() tests each):
//  1. none and linear have no data; data lies inside the segment, 8-aligned, and has exactly the bytes of its form.
//  2. Runs are maximal: neighbours are never mergeable. run_count counts the bad ones too.
//  3. Known IOVAs differ by multiples of 1 << frame shift, and the last byte of a page is below 2^64 - 1 (which would
//     read as kBadIova). Each is a multiple of the OS page size unless the table was planned with IovaAlign::any.
//     Frames are as long as they can be.
//  4. iova_base and iova_last are the IOVA of the lowest and of the highest known byte; max_run_pages is the length
//     of the longest known run; has_bad says whether a page is bad. All 0 (has_bad 1) where nothing is known.
//  5. A query of a table that passed check() reads nothing outside the data even if the data is damaged later:
//     what is loaded from it is clamped before it is used as an index. (The record itself is trusted; copy it out of
//     a segment that others can damage, and check() the copy.)
//  6. has_bad, finer, reserved, bucket_shift are 0 where they mean nothing.
//  7. Two pages may have the same IOVA (a table of constants is legal): finding such overlaps needs a sort, so it is
//     build_reverse that finds them, and find() copes.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include "extmem/function_ref.hpp"
#include "extmem/result.hpp"
#include "extmem/types.hpp"

namespace extmem::region {

/// How a table is stored; 32 and 64 are the bits of W.
enum class IovaForm : std::uint8_t { none, linear, runs32, runs64, flat32, flat64 };

/// The most bytes that a table can cover: 2^56.
inline constexpr unsigned kMaxCoveredShift = 56;
/// "No byte has that IOVA."
inline constexpr std::uint64_t kNoOffset = ~std::uint64_t{0};

/// The record; see the drawing above. All zero: covers nothing, every query answers "bad" or "none".
struct IovaTable {
  IovaForm form = IovaForm::none;
  std::uint8_t os_page_shift = 0;
  std::uint8_t bucket_shift = 0;
  std::uint8_t has_bad = 0;
  std::uint8_t finer = 0;
  std::uint8_t reserved[3] = {};
  std::uint64_t os_pages = 0;
  std::uint64_t run_count = 0;
  std::uint64_t data_offset = 0;
  std::uint64_t data_bytes = 0;
  std::uint64_t iova_base = 0;
  std::uint64_t iova_last = 0;
  std::uint64_t max_run_pages = 0;
};
static_assert(sizeof(IovaTable) == 64 && std::is_trivially_copyable_v<IovaTable> &&
              std::is_standard_layout_v<IovaTable>);

/// What build_iova_table will need, and the record that it will store.
struct IovaPlan {
  IovaTable table{};             ///< all but data_offset
  std::uint64_t data_bytes = 0;  ///< of the data, a multiple of 8; 0: none
  std::uint64_t digest = 0;      ///< of the input: build refuses another one
};

// ---- making a table ----------------------------------------------------------------------------------------

/// What IOVAs of pages may be: multiples of the OS page size only, or anything.
enum class IovaAlign : bool { os_page, any };

/// Plans a table from one IOVA per OS page. Cost: one pass over the IOVAs.
/// Errors: EINVAL no page, page shift too large, with IovaAlign::os_page an IOVA that is no multiple of the OS page
/// size; EOVERFLOW the region is larger than 2^56 bytes, or a page ends at 2^64.
Result<IovaPlan> plan_iova_table(std::span<const Iova> iovas, unsigned os_page_shift,
                                 IovaAlign align = IovaAlign::os_page) noexcept;
/// Plans a table from runs, which need not be maximal. For huge regions, where one IOVA per page is too much.
/// Errors: as above; EINVAL also runs that do not start at 0, leave a gap, or are not whole OS pages.
Result<IovaPlan> plan_iova_runs(std::span<const IovaRun> runs, unsigned os_page_shift) noexcept;
/// Plans one run: page i has the IOVA first + i * page size. With kBadIova: plan_none. Errors: as above.
Result<IovaPlan> plan_linear(Iova first, std::uint64_t os_pages, unsigned os_page_shift) noexcept;
/// Plans a table without any IOVA. Errors: EINVAL, EOVERFLOW as above.
Result<IovaPlan> plan_none(std::uint64_t os_pages, unsigned os_page_shift) noexcept;

/// Writes the data and then the record.
/// Requires: data is 8-aligned memory of plan.data_bytes, at data_offset in the segment (both ignored where
/// data_bytes is 0); it need not be zero. The input is the one that was planned (for linear and none it is not
/// looked at and may be empty).
/// Errors: EINVAL the input is not what was planned (another thread changed it meanwhile); the record is untouched
/// and nothing outside the data was written.
Result<void> build_iova_table(IovaTable& table, const IovaPlan& plan, std::span<const Iova> iovas,
                              std::byte* data, std::uint64_t data_offset) noexcept;
Result<void> build_iova_table(IovaTable& table, const IovaPlan& plan, std::span<const IovaRun> runs,
                              std::byte* data, std::uint64_t data_offset) noexcept;

// ---- facts of a table, O(1) --------------------------------------------------------------------------------

/// log2 of what frames count: 1 << frame_shift bytes.
constexpr unsigned frame_shift(const IovaTable& table) noexcept {
  return unsigned{table.os_page_shift} - table.finer;
}
/// Bytes of the region: offsets below this are inside.
constexpr std::uint64_t covered_bytes(const IovaTable& table) noexcept {
  return table.os_pages << table.os_page_shift;
}
/// Runs, the bad ones included.
constexpr std::uint64_t run_count(const IovaTable& table) noexcept { return table.run_count; }
/// Bytes of the longest run of known IOVAs: no contiguous request above it can succeed. 0: nothing is known.
constexpr std::uint64_t max_run_length(const IovaTable& table) noexcept {
  return table.max_run_pages << table.os_page_shift;
}
/// Whether some page has no IOVA.
constexpr bool has_bad(const IovaTable& table) noexcept { return table.has_bad != 0; }
/// IOVA of the lowest / the highest known byte; kBadIova where nothing is known. A device that reaches
/// highest_iova reaches everything that is known.
constexpr Iova lowest_iova(const IovaTable& table) noexcept {
  return table.max_run_pages == 0 ? kBadIova : Iova{table.iova_base};
}
constexpr Iova highest_iova(const IovaTable& table) noexcept {
  return table.max_run_pages == 0 ? kBadIova : Iova{table.iova_last};
}

// ---- queries -----------------------------------------------------------------------------------------------
// `segment` is the start of the memory that data_offset counts from. Offsets and lengths are bytes of the region.

/// The IOVA of the byte at `byte_offset`; kBadIova where none is known and for an offset outside.
/// Cost: linear no load, flat one, runs two dependent ones (where more than one run starts in a bucket, a binary
/// search among these).
Iova lookup(const IovaTable& table, const std::byte* segment, std::uint64_t byte_offset) noexcept;

/// The run that holds the byte: its offset, length and IOVA of its first byte. It always holds the byte, so that
/// `offset = run.offset + run.length` walks all runs. Outside: {covered_bytes, 0, kBadIova}.
/// Cost: as lookup; flat: one 8-byte load more for every 64 pages of the run.
IovaRun run_at(const IovaTable& table, const std::byte* segment, std::uint64_t byte_offset) noexcept;

/// The part of that run that starts at `byte_offset` itself and has at most `max_length` bytes.
/// Outside, or max_length 0: length 0. Cost: as run_at, but of the part only.
IovaRun run_from(const IovaTable& table, const std::byte* segment, std::uint64_t byte_offset,
                 std::uint64_t max_length) noexcept;

/// The first part of a known run at or after `byte_offset` that has at least `min_length` bytes, up to the run's end.
/// None: {covered_bytes, 0, kBadIova}. Cost: the runs passed; flat passes 64 one-page runs in one step.
IovaRun next_run(const IovaTable& table, const std::byte* segment, std::uint64_t byte_offset,
                 std::uint64_t min_length) noexcept;

/// Whether [offset, offset + length) is one run of consecutive known IOVAs. False for length 0 and outside, and for
/// memory without an IOVA. Cost: as run_from.
bool contiguous(const IovaTable& table, const std::byte* segment, std::uint64_t offset,
                std::uint64_t length) noexcept;

/// The runs that [offset, offset + length) is made of, clipped to it, their offsets counted from `offset`.
/// Writes the first out.size() of them. Returns how many there are in all; 0 for length 0 and for a range that is
/// not inside. Cost: run_from per run.
std::size_t scatter_list(const IovaTable& table, const std::byte* segment, std::uint64_t offset,
                         std::uint64_t length, std::span<IovaRun> out) noexcept;

/// Visits all runs in order of their offsets; the visitor returns true to go on. Returns false if it was stopped.
bool for_each_run(const IovaTable& table, const std::byte* segment,
                  FunctionRef<bool(const IovaRun&)> visit) noexcept;

/// Tests all invariants and bounds, trusting nothing: neither the record nor the data.
/// `segment_bytes` bounds what may be read, `region_bytes` is what the table must cover.
/// Returns: the first breach, a constant string; null where there is none. Cost: one pass over the data.
const char* check(const IovaTable& table, const std::byte* segment, std::uint64_t segment_bytes,
                  std::uint64_t region_bytes) noexcept;

// ---- IOVA -> offset ----------------------------------------------------------------------------------------
// An index of the known runs, sorted by IOVA, that is built when it is first wanted:
//   u32 state (0 not built, 1 built, 2 built and runs overlap) | u32 n | u32 [n] run number (runs), first page (flat)

/// 4-byte words that build_reverse needs, scratch included. 0: the table needs no index (none, linear), or has too
/// many pages for one (2^32 and more).
std::uint64_t reverse_words(const IovaTable& table) noexcept;
/// Builds the index at the front of `storage`. Cost: a radix sort of 11 bits a pass; none where the runs are already
/// in order. Returns: the part of storage to keep and to pass to find(); empty where reverse_words is 0.
/// Errors: ENOSPC storage is smaller than reverse_words.
Result<std::span<const std::uint32_t>> build_reverse(const IovaTable& table, const std::byte* segment,
                                                     std::span<std::uint32_t> storage) noexcept;
/// The offset of the byte that has this IOVA (one of them, where runs overlap); kNoOffset where none has.
/// Cost: linear O(1); else a binary search among the runs; without an index (an empty span) a walk over all runs.
std::uint64_t find(const IovaTable& table, const std::byte* segment, std::span<const std::uint32_t> index,
                   Iova iova) noexcept;
/// As check(), for an index. Requires: the table passed check().
const char* check_reverse(const IovaTable& table, const std::byte* segment,
                          std::span<const std::uint32_t> index) noexcept;

// ---- the parts that are inline for speed -------------------------------------------------------------------

namespace detail {

template <typename Word>
struct RunEntry {
  Word first;
  Word frame;
};
template <typename Word>
inline constexpr Word kBadFrame = static_cast<Word>(~Word{0});

/// Halves [low, high] until at most two runs are left, the one that holds `page` among them; returns the first.
template <typename Word>
std::uint64_t narrow(const RunEntry<Word>* entries, std::uint64_t low, std::uint64_t high,
                     std::uint64_t page) noexcept;

/// The runs form, by pointers into the data; W is Word.
template <typename Word>
struct RunsView {
  RunsView(const IovaTable& table, const std::byte* segment) noexcept
      : entries(reinterpret_cast<const RunEntry<Word>*>(segment + table.data_offset)),
        buckets(reinterpret_cast<const std::uint32_t*>(entries + table.run_count + 1)) {}

  /// The run that holds `page`; an entry's index in any case, but perhaps the sentinel's where the data is damaged.
  [[nodiscard]] std::uint64_t index_of(const IovaTable& table, std::uint64_t page) const noexcept {
    const std::uint32_t* bucket = buckets + (page >> table.bucket_shift);
    const std::uint64_t last = table.run_count - 1;
    std::uint64_t low = std::min<std::uint64_t>(bucket[0], last);
    if (bucket[1] > low + 1) [[unlikely]] {
      low = narrow(entries, low, std::min<std::uint64_t>(bucket[1], last), page);
    }
    // Two candidates: no branch, because it could not be predicted. After the last run stands the sentinel.
    return low + (entries[low + 1].first <= page ? 1u : 0u);
  }

  const RunEntry<Word>* entries;
  const std::uint32_t* buckets;
};

/// The flat form, by pointers into the data.
template <typename Word>
struct FlatView {
  FlatView(const IovaTable& table, const std::byte* segment) noexcept
      : frames(reinterpret_cast<const Word*>(segment + table.data_offset)),
        starts(reinterpret_cast<const std::uint64_t*>(
            segment + table.data_offset + ((table.os_pages * sizeof(Word) + 7) & ~std::uint64_t{7}))) {}

  /// The last run start at or before `page`. Page 0 counts as one.
  [[nodiscard]] std::uint64_t start_before(std::uint64_t page) const noexcept {
    std::uint64_t word = page / 64;
    std::uint64_t bits = starts[word] & (~std::uint64_t{0} >> (63 - page % 64));
    while (bits == 0 && word > 0) bits = starts[--word];
    return bits == 0 ? 0 : word * 64 + static_cast<std::uint64_t>(63 - std::countl_zero(bits));
  }
  /// The first run start after `page`, or `limit` where none is below it. Requires: page < limit <= os_pages.
  [[nodiscard]] std::uint64_t start_after(std::uint64_t page, std::uint64_t limit) const noexcept {
    const std::uint64_t from = page + 1;
    if (from >= limit) return limit;
    std::uint64_t word = from / 64;
    const std::uint64_t last_word = (limit - 1) / 64;
    std::uint64_t bits = starts[word] & (~std::uint64_t{0} << (from % 64));
    while (bits == 0 && word < last_word) bits = starts[++word];
    if (bits == 0) return limit;
    return std::min(limit, word * 64 + static_cast<std::uint64_t>(std::countr_zero(bits)));
  }

  const Word* frames;
  const std::uint64_t* starts;
};

/// The IOVA of the byte `bytes_after` the start of the page that has this frame.
template <typename Word>
inline Iova iova_of_frame(std::uint64_t base, unsigned shift, Word frame,
                          std::uint64_t bytes_after) noexcept {
  // kBadIova is all ones: an OR, because a branch on scattered bad pages could not be predicted.
  const std::uint64_t if_bad = std::uint64_t{0} - static_cast<std::uint64_t>(frame == kBadFrame<Word>);
  return Iova{(base + (std::uint64_t{frame} << shift) + bytes_after) | if_bad};
}

template <typename Word>
inline Iova lookup_runs(const IovaTable& table, const std::byte* segment, std::uint64_t page,
                        std::uint64_t byte_offset) noexcept {
  const RunsView<Word> view(table, segment);
  const RunEntry<Word> run = view.entries[view.index_of(table, page)];
  return iova_of_frame(table.iova_base, frame_shift(table), run.frame,
                       byte_offset - (std::uint64_t{run.first} << table.os_page_shift));
}

template <typename Word>
inline Iova lookup_flat(const IovaTable& table, const std::byte* segment, std::uint64_t page,
                        std::uint64_t byte_offset) noexcept {
  const Word frame = FlatView<Word>(table, segment).frames[page];
  return iova_of_frame(table.iova_base, frame_shift(table), frame,
                       byte_offset - (page << table.os_page_shift));
}

}  // namespace detail

inline Iova lookup(const IovaTable& table, const std::byte* segment, std::uint64_t byte_offset) noexcept {
  const std::uint64_t page = byte_offset >> table.os_page_shift;
  if (page >= table.os_pages) return kBadIova;
  // A chain, not a switch: predicted branches are cheaper here than a jump through a table.
  const IovaForm form = table.form;
  if (form == IovaForm::linear) return Iova{table.iova_base + byte_offset};
  if (form == IovaForm::flat32) return detail::lookup_flat<std::uint32_t>(table, segment, page, byte_offset);
  if (form == IovaForm::runs32) return detail::lookup_runs<std::uint32_t>(table, segment, page, byte_offset);
  if (form == IovaForm::flat64) return detail::lookup_flat<std::uint64_t>(table, segment, page, byte_offset);
  if (form == IovaForm::runs64) return detail::lookup_runs<std::uint64_t>(table, segment, page, byte_offset);
  return kBadIova;
}

/// The frames of a table of the form flat32 that covers `bytes`, one for each OS page's size; null: it is another one. For
/// lookup_frame, by who looks up often.
inline const std::uint32_t* flat_frames(const IovaTable& table, const std::byte* segment,
                                        std::uint64_t bytes) noexcept {
  if (table.form != IovaForm::flat32 || table.finer != 0 || covered_bytes(table) < bytes) return nullptr;
  return reinterpret_cast<const std::uint32_t*>(segment + table.data_offset);
}
/// As lookup. Requires: `frames` are the table's, `base` and `shift` its iova_base and os_page_shift; the offset is inside.
inline Iova lookup_frame(const std::uint32_t* frames, std::uint64_t base, unsigned shift,
                         std::uint64_t byte_offset) noexcept {
  return detail::iova_of_frame(base, shift, frames[byte_offset >> shift],
                               byte_offset & ((std::uint64_t{1} << shift) - 1));
}
/// The same where no page is bad.
inline Iova lookup_known_frame(const std::uint32_t* frames, std::uint64_t base, unsigned shift,
                               std::uint64_t byte_offset) noexcept {
  const std::uint64_t beside = base + (byte_offset & ((std::uint64_t{1} << shift) - 1));
  return Iova{beside + (std::uint64_t{frames[byte_offset >> shift]} << shift)};
}

}  // namespace extmem::region
