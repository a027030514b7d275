#include "alloc/page_space.hpp"

#include <bit>

namespace extmem::alloc {

namespace {

struct Bin {
  std::uint32_t row;
  std::uint32_t column;
};

/// The bin of runs of this length: lengths below 8 have a bin each, longer ones eight to a power of two.
constexpr Bin bin_of(std::uint32_t length) noexcept {
  if (length < kBinColumns) return Bin{0, length};
  const unsigned high = base::floor_log2(length);
  return Bin{high - 2, length >> (high - 3) & (kBinColumns - 1)};
}
static_assert(bin_of(0xffffffff).row < kBinRows);

constexpr std::uint64_t links(std::uint32_t previous, std::uint32_t next) noexcept {
  return std::uint64_t{previous} << 32 | next;
}

constexpr bool same_bin(std::uint32_t a, std::uint32_t b) noexcept {
  const Bin one = bin_of(a);
  const Bin two = bin_of(b);
  return one.row == two.row && one.column == two.column;
}

constexpr int kGoodFitTries = 8;  // runs looked at in a bin that may hold too short ones

}  // namespace

void PageAllocator::init() noexcept {
  const std::uint32_t n = space_.pages;
  if (n > 1) descs_[n - 1].word0.set(PageDesc::pack(PageKind::free_tail, n));
  descs_[0].word0.set(PageDesc::pack(PageKind::free_head, n));
  const Bin bin = bin_of(n);
  space_.heads[bin.row][bin.column] = 1;
  space_.column_bits[bin.row] = 1u << bin.column;
  space_.row_bits = 1u << bin.row;
  space_.free_pages = n;
  space_.free_runs = 1;
}

void PageAllocator::insert(shared::Transaction& tx, std::uint32_t page, std::uint32_t length) noexcept {
  const Bin bin = bin_of(length);
  auto& head = space_.heads[bin.row][bin.column];
  const std::uint32_t first = head;
  if (length > 1) tx.set(descs_[page + length - 1].word0, PageDesc::pack(PageKind::free_tail, length));
  tx.set(descs_[page].word0, PageDesc::pack(PageKind::free_head, length));
  tx.set(descs_[page].word1, links(0, first));
  if (first != 0) tx.set(descs_[first - 1].word1, links(page + 1, descs_[first - 1].low()));
  tx.set(head, page + 1);
  tx.set(space_.column_bits[bin.row], space_.column_bits[bin.row] | 1u << bin.column);
  tx.set(space_.row_bits, space_.row_bits | 1u << bin.row);
  tx.add(space_.free_pages, length);
  tx.add(space_.free_runs, 1);
}

void PageAllocator::remove(shared::Transaction& tx, std::uint32_t page, std::uint32_t length) noexcept {
  const Bin bin = bin_of(length);
  const std::uint32_t previous = descs_[page].high();
  const std::uint32_t next = descs_[page].low();
  if (next != 0) tx.set(descs_[next - 1].word1, links(previous, descs_[next - 1].low()));
  if (previous != 0) {
    tx.set(descs_[previous - 1].word1, links(descs_[previous - 1].high(), next));
  } else {
    tx.set(space_.heads[bin.row][bin.column], next);
    if (next == 0) {
      tx.set(space_.column_bits[bin.row], space_.column_bits[bin.row] & ~(1u << bin.column));
      if (space_.column_bits[bin.row] == 0) tx.set(space_.row_bits, space_.row_bits & ~(1u << bin.row));
    }
  }
  tx.set(descs_[page].word0, 0);
  if (length > 1) tx.set(descs_[page + length - 1].word0, 0);
  tx.add(space_.free_pages, -std::uint64_t{length});
  tx.add(space_.free_runs, ~std::uint64_t{0});
}

// Aligned pages inside the run name the head: for any page x of the run, the largest k for which x rounded down to
// 2^k pages is still inside lands on the first 2^k-aligned page of the run, which is marked here. Hints only: they
// are not journaled, because find_head() believes a mark only when the head confirms it (invariant 5).
void PageAllocator::mark_inside(std::uint32_t page, std::uint32_t length) noexcept {
  for (unsigned k = 0; k < 32; ++k) {
    const std::uint64_t at = base::align_up(std::uint64_t{page} + 1, std::uint64_t{1} << k);
    if (at >= std::uint64_t{page} + length) break;
    PageDesc& desc = descs_[at];
    if (at == std::uint64_t{page} + length - 1) continue;  // the tail: found by its kind
    desc.word1.set(page);
    desc.word0.set(PageDesc::pack(PageKind::mark, 0));
  }
}

void PageAllocator::set_held(shared::Transaction& tx, std::uint32_t page, std::uint32_t length,
                             std::uint16_t holder, std::uint64_t owner) noexcept {
  if (length > 1) {
    tx.set(descs_[page + length - 1].word1, page);
    tx.set(descs_[page + length - 1].word0, PageDesc::pack(PageKind::held_tail, length));
  }
  tx.set(descs_[page].word1, owner);
  tx.set(descs_[page].word0, PageDesc::pack(PageKind::held_head, length, holder));
  if (length > 2) mark_inside(page, length);
}

bool PageAllocator::ensure_run(std::uint32_t page, std::uint32_t length) const noexcept {
  if (!ground_) return true;
  const auto ensure = [&](std::uint64_t at) {
    return at >= space_.pages || ground_.ensure_object(descs_[at]);
  };
  // Its ends, what lies before and behind it (new ends of free runs), and the marks of mark_inside().
  const std::uint64_t end = std::uint64_t{page} + length;
  if (!ensure(page) || !ensure(end - 1) || !ensure(end) || (page > 0 && !ensure(page - 1u))) return false;
  for (unsigned k = 0; k < 32; ++k) {
    const std::uint64_t at = base::align_up(std::uint64_t{page} + 1, std::uint64_t{1} << k);
    if (at >= end) break;
    if (!ensure(at)) return false;
  }
  return true;
}

PageAllocator::Choice PageAllocator::choose(const SpanRequest& request) const noexcept {
  const bool extreme = request.placement != Placement::any;
  const bool plain = !extreme && !request.constrained();
  const bool high = request.placement == Placement::high || (!extreme && request.high_end);
  Choice best;
  const Bin start = bin_of(request.pages);
  std::uint32_t rows = space_.row_bits & ~((1u << start.row) - 1);
  bool start_bin_cut_short = false;
  while (rows != 0) {
    const auto row = static_cast<std::uint32_t>(std::countr_zero(rows));
    rows &= rows - 1;
    std::uint32_t columns = space_.column_bits[row];
    if (row == start.row) columns &= ~((1u << start.column) - 1);
    while (columns != 0) {
      const auto column = static_cast<std::uint32_t>(std::countr_zero(columns));
      columns &= columns - 1;
      int tries = 0;
      for (std::uint32_t link = space_.heads[row][column]; link != 0; link = descs_[link - 1].low()) {
        const std::uint32_t run = link - 1;
        const std::uint32_t length = descs_[run].length();
        if (plain) {
          if (length >= request.pages) return Choice{run, length, high ? run + length - request.pages : run};
          if (++tries >= kGoodFitTries) {  // only in the start bin; a bigger bin fits for certain
            start_bin_cut_short = true;
            break;
          }
          continue;
        }
        const std::uint32_t at = fit_in_run(space_, run, length, request, high);
        if (at == kNoPage) continue;
        if (!extreme) return Choice{run, length, at};
        if (best.page == kNoPage || (high ? at > best.page : at < best.page)) best = Choice{run, length, at};
      }
    }
  }
  if (start_bin_cut_short) {
    for (std::uint32_t link = space_.heads[start.row][start.column]; link != 0;
         link = descs_[link - 1].low()) {
      const std::uint32_t length = descs_[link - 1].length();
      if (length >= request.pages)
        return Choice{link - 1, length, high ? link - 1 + length - request.pages : link - 1};
    }
  }
  return best;
}

/// Changes the length of a free run at its high end. Requires: the bin stays the same; what it grows into is nobody's.
void PageAllocator::resize_free(shared::Transaction& tx, std::uint32_t page, std::uint32_t length,
                                std::uint32_t new_length) noexcept {
  if (length > 1) tx.set(descs_[page + length - 1].word0, 0);
  tx.set(descs_[page].word0, PageDesc::pack(PageKind::free_head, new_length));
  if (new_length > 1)
    tx.set(descs_[page + new_length - 1].word0, PageDesc::pack(PageKind::free_tail, new_length));
  tx.add(space_.free_pages, std::uint64_t{new_length} - length);
}

std::uint32_t PageAllocator::probe(const SpanRequest& request) const noexcept { return choose(request).page; }

std::uint32_t PageAllocator::allocate(shared::Transaction& tx, const SpanRequest& request,
                                      std::uint16_t holder, std::uint64_t owner) noexcept {
  const Choice choice = choose(request);
  if (choice.page == kNoPage || !ensure_run(choice.page, request.pages)) return kNoPage;
  const std::uint32_t rest = choice.run_length - request.pages;
  if (rest != 0 && choice.page == choice.run + rest && same_bin(rest, choice.run_length)) {
    // Cut from the high end, the run stays where it is in its bin: the usual case, and half the work.
    resize_free(tx, choice.run, choice.run_length, rest);
    set_held(tx, choice.page, request.pages, holder, owner);
    return choice.page;
  }
  remove(tx, choice.run, choice.run_length);
  if (const std::uint32_t front = choice.page - choice.run; front != 0) insert(tx, choice.run, front);
  const std::uint32_t end = choice.page + request.pages;
  if (const std::uint32_t back = choice.run + choice.run_length - end; back != 0) insert(tx, end, back);
  set_held(tx, choice.page, request.pages, holder, owner);
  return choice.page;
}

void PageAllocator::free(shared::Transaction& tx, std::uint32_t page, std::uint32_t length) noexcept {
  tx.set(descs_[page].word0, 0);
  if (descs_[page].owner() != 0) tx.set(descs_[page].word1, 0);
  if (length > 1) tx.set(descs_[page + length - 1].word0, 0);
  std::uint32_t begin = page;
  std::uint32_t end = page + length;
  const bool free_behind = end < space_.pages && descs_[end].kind() == PageKind::free_head;
  if (begin > 0) {
    const PageDesc& before = descs_[begin - 1];
    const std::uint32_t run = before.length();
    const bool free_before =
        before.kind() == PageKind::free_tail || (before.kind() == PageKind::free_head && run == 1);
    if (free_before && !free_behind && same_bin(run, run + length)) {
      resize_free(tx, begin - run, run, run + length);  // the mirror of allocate's usual case
      return;
    }
    if (free_before) {
      remove(tx, begin - run, run);
      begin -= run;
    }
  }
  if (free_behind) {
    const std::uint32_t run = descs_[end].length();
    remove(tx, end, run);
    end += run;
  }
  insert(tx, begin, end - begin);
}

void PageAllocator::make_slab(shared::Transaction& tx, std::uint32_t page, std::uint32_t length,
                              std::uint32_t slab) noexcept {
  for (std::uint32_t i = page; i < page + length; ++i) {
    tx.set(descs_[i].word0, PageDesc::pack(PageKind::slab, slab));
  }
}

std::uint32_t PageAllocator::free_after(std::uint32_t page, std::uint32_t length) const noexcept {
  const std::uint32_t end = page + length;
  if (end >= space_.pages || descs_[end].kind() != PageKind::free_head) return 0;
  return descs_[end].length();
}

void PageAllocator::grow(shared::Transaction& tx, std::uint32_t page, std::uint32_t length,
                         std::uint32_t more) noexcept {
  const std::uint16_t holder = descs_[page].holder();
  const std::uint32_t run = descs_[page + length].length();
  remove(tx, page + length, run);
  tx.set(descs_[page + length].word1,
         page);  // over the links of the run, where mark_inside() may put the same value
  if (run > more) insert(tx, page + length + more, run - more);
  if (length > 1) tx.set(descs_[page + length - 1].word0, 0);
  set_held(tx, page, length + more, holder, 0);
}

void PageAllocator::shrink(shared::Transaction& tx, std::uint32_t page, std::uint32_t length,
                           std::uint32_t new_length) noexcept {
  const std::uint16_t holder = descs_[page].holder();
  if (length > 1) tx.set(descs_[page + length - 1].word0, 0);
  set_held(tx, page, new_length, holder, 0);
  free(tx, page + new_length, length - new_length);
}

void PageAllocator::set_holder(shared::Transaction& tx, std::uint32_t page, std::uint16_t holder) noexcept {
  tx.set(descs_[page].word1, 0);
  tx.set(descs_[page].word0, PageDesc::pack(PageKind::held_head, descs_[page].length(), holder));
}

std::uint32_t PageAllocator::find_head(std::uint32_t page) const noexcept {
  const auto covers = [&](std::uint32_t head) {
    return head <= page && descs_[head].kind() == PageKind::held_head && page - head < descs_[head].length();
  };
  for (unsigned k = 0; k < 32; ++k) {
    const auto at = static_cast<std::uint32_t>(base::align_down(page, std::uint64_t{1} << k));
    const PageDesc& desc = descs_[at];
    if (covers(at)) return at;
    if (desc.kind() == PageKind::mark || (desc.kind() == PageKind::held_tail && at == page)) {
      if (desc.low() < space_.pages && covers(desc.low())) return desc.low();
    }
    if (at == 0) break;
  }
  return kNoPage;
}

std::uint32_t PageAllocator::largest_free() const noexcept {
  if (space_.row_bits == 0) return 0;
  const unsigned row = base::floor_log2(space_.row_bits);
  const std::uint32_t columns = space_.column_bits[row] & ((1u << kBinColumns) - 1);
  if (columns == 0) return 0;  // damaged: verify() says more
  std::uint32_t largest = 0;
  std::uint32_t left = space_.pages;
  for (std::uint32_t link = space_.heads[row][base::floor_log2(columns)];
       link != 0 && link <= space_.pages && left != 0; link = descs_[link - 1].low(), --left) {
    if (descs_[link - 1].length() > largest) largest = descs_[link - 1].length();
  }
  return largest;
}

std::uint32_t PageAllocator::largest_free_bound() const noexcept {
  if (space_.row_bits == 0) return 0;
  const unsigned row = base::floor_log2(space_.row_bits);
  const unsigned column = base::floor_log2(space_.column_bits[row]);
  if (row == 0) return column;
  const std::uint64_t bound = (std::uint64_t{kBinColumns + column + 1} << (row - 1)) - 1;
  return bound > kMaxPages ? kMaxPages : static_cast<std::uint32_t>(bound);
}

std::size_t PageAllocator::check(
    FunctionRef<std::uint32_t(std::uint32_t, std::uint32_t)> slab_pages,
    FunctionRef<void(const char*, std::uint64_t, std::uint64_t, std::uint64_t)> report) const noexcept {
  std::size_t breaches = 0;
  const auto breach = [&](const char* what, std::uint64_t where, std::uint64_t expected,
                          std::uint64_t found) {
    ++breaches;
    if (report) report(what, where, expected, found);
  };
  std::uint64_t free_pages = 0;
  std::uint64_t free_runs = 0;
  bool previous_free = false;
  for (std::uint64_t page = 0; page < space_.pages;) {
    const PageDesc& desc = descs_[page];
    std::uint64_t length = desc.length();
    const PageKind kind = desc.kind();
    if (kind == PageKind::slab) {
      length = slab_pages(desc.slab(), static_cast<std::uint32_t>(page));
      for (std::uint64_t i = page; length != 0 && i < page + length && i < space_.pages; ++i) {
        if (descs_[i].kind() != PageKind::slab || descs_[i].slab() != desc.slab()) {
          breach("every page of a slab names the slab", i, desc.slab(), descs_[i].slab());
        }
      }
    } else if (kind == PageKind::free_head || kind == PageKind::held_head || kind == PageKind::cached_head) {
      const PageKind tail = kind == PageKind::free_head ? PageKind::free_tail : PageKind::held_tail;
      if (length > 1 && length <= space_.pages - page) {
        const PageDesc& last = descs_[page + length - 1];
        if (last.kind() != tail || last.length() != length) {
          breach("the tail of a run agrees with its head", page, length, last.length());
        }
      }
    } else {
      breach("a run begins where the one before ends", page, static_cast<std::uint64_t>(PageKind::free_head),
             static_cast<std::uint64_t>(kind));
      return breaches;
    }
    if (length == 0 || length > space_.pages - page) {
      breach("the runs tile the space", page, space_.pages - page, length);
      return breaches;
    }
    const bool is_free = kind == PageKind::free_head;
    if (is_free && previous_free) breach("no two free runs are neighbours", page, 0, 1);
    if (is_free) {
      free_pages += length;
      ++free_runs;
    }
    previous_free = is_free;
    page += length;
  }
  if (free_pages != space_.free_pages)
    breach("free_pages counts the free pages", 0, free_pages, space_.free_pages);
  if (free_runs != space_.free_runs) breach("free_runs counts the free runs", 0, free_runs, space_.free_runs);

  std::uint64_t binned = 0;
  for (std::uint32_t row = 0; row < kBinRows; ++row) {
    for (std::uint32_t column = 0; column < kBinColumns; ++column) {
      const std::uint32_t head = space_.heads[row][column];
      if ((head != 0) != ((space_.column_bits[row] >> column & 1) != 0)) {
        breach("a bin's bit says whether it is empty", row * kBinColumns + column, head != 0, head == 0);
      }
      std::uint32_t previous = 0;
      for (std::uint32_t link = head; link != 0; previous = link, link = descs_[link - 1].low()) {
        if (link > space_.pages || ++binned > free_runs) {
          breach("the bins' lists hold the free runs once each", link, free_runs, binned);
          return breaches;
        }
        const PageDesc& desc = descs_[link - 1];
        const Bin bin = bin_of(desc.length());
        if (desc.kind() != PageKind::free_head || bin.row != row || bin.column != column) {
          breach("a run is in the bin of its length", link - 1, row * kBinColumns + column,
                 bin.row * kBinColumns + bin.column);
        }
        if (desc.high() != previous) breach("a bin's list is doubly linked", link - 1, previous, desc.high());
      }
    }
    if ((space_.column_bits[row] != 0) != ((space_.row_bits >> row & 1) != 0)) {
      breach("a row's bit says whether it is empty", row, space_.column_bits[row] != 0,
             space_.row_bits >> row & 1);
    }
  }
  if (binned != free_runs) breach("every free run is in a bin", 0, free_runs, binned);
  return breaches;
}

}  // namespace extmem::alloc
