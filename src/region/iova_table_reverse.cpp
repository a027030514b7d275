// IovaTable: IOVA -> offset. See iova_table.hpp.
//
// The index is a list of the known runs, sorted by frame with an LSD radix sort (stable, no comparisons, no memory
// but the caller's): 262,144 runs in 64 GiB of IOVA space take three passes of 11 bits.
#include <cerrno>
#include <utility>

#include "base/error.hpp"
#include "region/iova_table.hpp"

namespace extmem::region {
namespace {

constexpr std::uint64_t kHeaderWords = 2;
constexpr unsigned kDigitBits = 11;
constexpr std::uint32_t kDigits = 1u << kDigitBits;
enum State : std::uint32_t { kNotBuilt = 0, kBuilt = 1, kOverlapping = 2 };

/// What an entry of the index means, by form. Every id is clamped: the index may be damaged.
template <typename Word>
struct RunsById {
  RunsById(const IovaTable& t, const std::byte* segment) noexcept : table(t), view(t, segment) {}
  [[nodiscard]] std::uint64_t ids() const noexcept { return table.run_count; }
  [[nodiscard]] std::uint64_t clamp(std::uint64_t id) const noexcept {
    return std::min(id, table.run_count - 1);
  }
  [[nodiscard]] Word frame(std::uint64_t id) const noexcept { return view.entries[clamp(id)].frame; }
  [[nodiscard]] std::uint64_t page(std::uint64_t id) const noexcept { return view.entries[clamp(id)].first; }
  [[nodiscard]] std::uint64_t pages(std::uint64_t id, std::uint64_t) const noexcept {
    return std::uint64_t{view.entries[clamp(id) + 1].first} - page(id);
  }
  [[nodiscard]] std::uint64_t next(std::uint64_t id) const noexcept { return id + 1; }
  [[nodiscard]] bool is_start(std::uint64_t) const noexcept { return true; }

  const IovaTable& table;
  detail::RunsView<Word> view;
};

template <typename Word>
struct FlatById {
  FlatById(const IovaTable& t, const std::byte* segment) noexcept : table(t), view(t, segment) {}
  [[nodiscard]] std::uint64_t ids() const noexcept { return table.os_pages; }
  [[nodiscard]] std::uint64_t clamp(std::uint64_t id) const noexcept {
    return std::min(id, table.os_pages - 1);
  }
  [[nodiscard]] Word frame(std::uint64_t id) const noexcept { return view.frames[clamp(id)]; }
  [[nodiscard]] std::uint64_t page(std::uint64_t id) const noexcept { return clamp(id); }
  /// Pages of the run, counted no further than `most`.
  [[nodiscard]] std::uint64_t pages(std::uint64_t id, std::uint64_t most) const noexcept {
    const std::uint64_t first = clamp(id);
    return view.start_after(first, first + std::min(most, table.os_pages - first)) - first;
  }
  [[nodiscard]] std::uint64_t next(std::uint64_t id) const noexcept {
    return view.start_after(id, table.os_pages);
  }
  [[nodiscard]] bool is_start(std::uint64_t id) const noexcept {
    return (view.starts[id / 64] >> id % 64 & 1) != 0;
  }

  const IovaTable& table;
  detail::FlatView<Word> view;
};

/// Calls use(RunsById or FlatById of the table); `otherwise` for the forms without data.
template <typename Answer, typename Use>
Answer with_runs(const IovaTable& table, const std::byte* segment, Answer otherwise, Use use) noexcept {
  switch (table.form) {
    case IovaForm::runs32:
      return use(RunsById<std::uint32_t>(table, segment));
    case IovaForm::runs64:
      return use(RunsById<std::uint64_t>(table, segment));
    case IovaForm::flat32:
      return use(FlatById<std::uint32_t>(table, segment));
    case IovaForm::flat64:
      return use(FlatById<std::uint64_t>(table, segment));
    case IovaForm::none:
    case IovaForm::linear:
      break;
  }
  return otherwise;
}

template <typename Runs>
using WordOf = decltype(std::declval<const Runs&>().frame(0));

/// Whether the run has a frame that is `distance` frames after its first.
template <typename Runs>
bool reaches(const Runs& runs, std::uint64_t id, std::uint64_t distance) noexcept {
  const std::uint64_t page = distance >> runs.table.finer;
  return runs.pages(id, page + 1) > page;
}

/// Sorts ids[0, n) by frame; the answer lies in `ids` again. Requires: scratch has room for n.
template <typename Runs>
void sort_by_frame(const Runs& runs, std::uint64_t last_frame, std::uint32_t* ids, std::uint32_t* scratch,
                   std::uint64_t n) noexcept {
  std::uint32_t* from = ids;
  std::uint32_t* to = scratch;
  for (unsigned shift = 0; shift < 64 && last_frame >> shift != 0; shift += kDigitBits) {
    std::uint32_t places[kDigits] = {};
    for (std::uint64_t i = 0; i < n; ++i) ++places[runs.frame(from[i]) >> shift & (kDigits - 1)];
    std::uint32_t sum = 0;
    for (std::uint32_t& place : places) {
      const std::uint32_t count = place;
      place = sum;
      sum += count;
    }
    for (std::uint64_t i = 0; i < n; ++i) {
      const std::uint32_t id = from[i];
      // The clamp matters only where the data is damaged between the two loops.
      to[std::min<std::uint64_t>(places[runs.frame(id) >> shift & (kDigits - 1)]++, n - 1)] = id;
    }
    std::swap(from, to);
  }
  if (from != ids) std::copy_n(from, n, ids);
}

template <typename Runs>
std::span<const std::uint32_t> build_index(const Runs& runs, std::span<std::uint32_t> storage) noexcept {
  using Word = WordOf<Runs>;
  const IovaTable& table = runs.table;
  const std::uint64_t room = (storage.size() - kHeaderWords) / 2;
  std::uint32_t* ids = storage.data() + kHeaderWords;
  std::uint64_t n = 0;
  bool ascending = true;
  Word last = 0;
  for (std::uint64_t id = 0; id < runs.ids() && n < room; id = runs.next(id)) {
    const Word frame = runs.frame(id);
    if (frame == detail::kBadFrame<Word>) continue;
    ascending = ascending && frame >= last;
    last = frame;
    ids[n++] = static_cast<std::uint32_t>(id);
  }
  if (!ascending)
    sort_by_frame(runs, (table.iova_last - table.iova_base) >> frame_shift(table), ids, ids + n, n);

  bool overlapping = false;
  for (std::uint64_t i = 0; i + 1 < n && !overlapping; ++i) {
    const std::uint64_t distance = runs.frame(ids[i + 1]) - std::uint64_t{runs.frame(ids[i])};
    overlapping = distance < table.max_run_pages << table.finer && reaches(runs, ids[i], distance);
  }
  storage[1] = static_cast<std::uint32_t>(n);
  storage[0] = overlapping ? kOverlapping : kBuilt;
  return storage.first(kHeaderWords + n);
}

/// The offset of `frame` in run `id`; kNoOffset where the run does not hold it.
template <typename Runs>
std::uint64_t offset_in_run(const Runs& runs, std::uint64_t id, std::uint64_t frame) noexcept {
  const std::uint64_t first = runs.frame(id);
  if (first == detail::kBadFrame<WordOf<Runs>> || frame < first) return kNoOffset;
  const std::uint64_t distance = frame - first;
  if (!reaches(runs, id, distance)) return kNoOffset;
  return (runs.page(id) << runs.table.os_page_shift) + (distance << frame_shift(runs.table));
}

template <typename Runs>
std::uint64_t find_by_index(const Runs& runs, std::span<const std::uint32_t> index,
                            std::uint64_t frame) noexcept {
  const std::uint32_t* ids = index.data() + kHeaderWords;
  std::uint64_t n = std::min<std::uint64_t>(index[1], index.size() - kHeaderWords);
  // The number of runs that begin at or before the frame.
  std::uint64_t before = 0;
  while (n > 0) {
    const std::uint64_t half = n / 2;
    if (runs.frame(ids[before + half]) <= frame) {
      before += half + 1;
      n -= half + 1;
    } else {
      n = half;
    }
  }
  while (before > 0) {
    const std::uint64_t id = ids[--before];
    const std::uint64_t offset = offset_in_run(runs, id, frame);
    if (offset != kNoOffset) return offset;
    // Only among overlapping runs can one that begins earlier still reach the frame.
    if (index[0] != kOverlapping || frame - runs.frame(id) >= runs.table.max_run_pages << runs.table.finer)
      break;
  }
  return kNoOffset;
}

template <typename Runs>
std::uint64_t find_by_walk(const Runs& runs, std::uint64_t frame) noexcept {
  for (std::uint64_t id = 0; id < runs.ids(); id = runs.next(id)) {
    const std::uint64_t offset = offset_in_run(runs, id, frame);
    if (offset != kNoOffset) return offset;
  }
  return kNoOffset;
}

template <typename Runs>
const char* check_index(const Runs& runs, std::span<const std::uint32_t> index) noexcept {
  using Word = WordOf<Runs>;
  if (index.size() < kHeaderWords || index[1] != index.size() - kHeaderWords) return "IOVA index: its length";
  if (index[0] != kBuilt && index[0] != kOverlapping) return "IOVA index: not built";
  std::uint64_t known = 0;
  for (std::uint64_t id = 0; id < runs.ids(); id = runs.next(id)) {
    if (runs.frame(id) != detail::kBadFrame<Word>) ++known;
  }
  if (index[1] != known) return "IOVA index: number of runs";
  bool overlapping = false;
  for (std::uint64_t i = kHeaderWords; i < index.size(); ++i) {
    const std::uint32_t id = index[i];
    if (id >= runs.ids() || !runs.is_start(id) || runs.frame(id) == detail::kBadFrame<Word>) {
      return "IOVA index: an entry is no known run";
    }
    if (i == kHeaderWords) continue;
    // Ordered by (frame, id), so that no run can stand twice and, with the right number of them, none is missing.
    const std::uint32_t earlier = index[i - 1];
    if (runs.frame(earlier) > runs.frame(id) || (runs.frame(earlier) == runs.frame(id) && earlier >= id)) {
      return "IOVA index: not sorted";
    }
    const std::uint64_t distance = runs.frame(id) - std::uint64_t{runs.frame(earlier)};
    overlapping = overlapping || reaches(runs, earlier, distance);
  }
  if (overlapping != (index[0] == kOverlapping)) return "IOVA index: the flag for overlapping runs";
  return nullptr;
}

}  // namespace

std::uint64_t reverse_words(const IovaTable& table) noexcept {
  if (table.form == IovaForm::none || table.form == IovaForm::linear) return 0;
  const bool flat = table.form == IovaForm::flat32 || table.form == IovaForm::flat64;
  if ((flat ? table.os_pages : table.run_count) > 0xffffffff) return 0;
  return kHeaderWords + 2 * table.run_count;
}

Result<std::span<const std::uint32_t>> build_reverse(const IovaTable& table, const std::byte* segment,
                                                     std::span<std::uint32_t> storage) noexcept {
  const std::uint64_t words = reverse_words(table);
  if (words == 0) return std::span<const std::uint32_t>{};
  if (storage.size() < words) {
    return EXTMEM_ERROR(ENOSPC, "the storage for the IOVA index is too small; give reverse_words() words");
  }
  return with_runs(table, segment, std::span<const std::uint32_t>{},
                   [&](const auto& runs) noexcept { return build_index(runs, storage.first(words)); });
}

std::uint64_t find(const IovaTable& table, const std::byte* segment, std::span<const std::uint32_t> index,
                   Iova iova) noexcept {
  const auto address = static_cast<std::uint64_t>(iova);
  if (table.max_run_pages == 0 || address < table.iova_base || address > table.iova_last) return kNoOffset;
  const std::uint64_t distance = address - table.iova_base;
  if (table.form == IovaForm::linear) return distance;
  const std::uint64_t frame = distance >> frame_shift(table);
  const bool indexed = index.size() >= kHeaderWords && index[0] != kNotBuilt;
  const std::uint64_t page = with_runs(table, segment, kNoOffset, [&](const auto& runs) noexcept {
    return indexed ? find_by_index(runs, index, frame) : find_by_walk(runs, frame);
  });
  if (page >= covered_bytes(table)) return kNoOffset;
  return page + (distance - (frame << frame_shift(table)));
}

const char* check_reverse(const IovaTable& table, const std::byte* segment,
                          std::span<const std::uint32_t> index) noexcept {
  if (index.empty()) return nullptr;
  return with_runs<const char*>(table, segment, "IOVA index: the table has none",
                                [&](const auto& runs) noexcept { return check_index(runs, index); });
}

}  // namespace extmem::region
