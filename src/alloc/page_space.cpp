#include "alloc/page_space.hpp"

#include <bit>

namespace extmem::alloc {

namespace {

using Bin = PageAllocator::Bin;

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

/// Takes a run out of the list of its bin. Its own descriptors stay as they are.
EXTMEM_ALWAYS_INLINE void PageAllocator::unlink(shared::Writer& w, std::uint32_t page, Bin bin) noexcept {
  const std::uint32_t previous = descs_[page].high();
  const std::uint32_t next = descs_[page].low();
  if (next != 0) w.set(descs_[next - 1].word1, links(previous, descs_[next - 1].low()));
  if (previous != 0) {
    w.set(descs_[previous - 1].word1, links(descs_[previous - 1].high(), next));
    return;
  }
  w.set(space_.heads[bin.row][bin.column], next);
  if (next != 0) return;
  const std::uint32_t columns = space_.column_bits[bin.row] & ~(1u << bin.column);
  w.set(space_.column_bits[bin.row], columns);
  if (columns == 0) w.set(space_.row_bits, space_.row_bits & ~(1u << bin.row));
}

/// Puts a run first in the list of its bin. Its word 0 is the caller's to write.
EXTMEM_ALWAYS_INLINE void PageAllocator::link(shared::Writer& w, std::uint32_t page, Bin bin) noexcept {
  auto& head = space_.heads[bin.row][bin.column];
  const std::uint32_t first = head;
  w.set(descs_[page].word1, links(0, first));
  w.set(head, page + 1);
  if (first != 0) {
    w.set(descs_[first - 1].word1, links(page + 1, descs_[first - 1].low()));
    return;
  }
  const std::uint32_t columns = space_.column_bits[bin.row];
  w.set(space_.column_bits[bin.row], columns | 1u << bin.column);
  if (columns == 0) w.set(space_.row_bits, space_.row_bits | 1u << bin.row);
}

/// Says where a free run begins and ends. What it had inside until now stays there: nobody looks at it.
EXTMEM_ALWAYS_INLINE void PageAllocator::set_free(shared::Writer& w, std::uint32_t page,
                                                  std::uint32_t length) noexcept {
  if (length > 1) w.set(descs_[page + length - 1].word0, PageDesc::pack(PageKind::free_tail, length));
  w.set(descs_[page].word0, PageDesc::pack(PageKind::free_head, length));
}

EXTMEM_ALWAYS_INLINE void PageAllocator::insert(shared::Writer& w, std::uint32_t page,
                                                std::uint32_t length) noexcept {
  set_free(w, page, length);
  link(w, page, bin_of(length));
}

/// Changes the length of a free run, which keeps its head.
EXTMEM_ALWAYS_INLINE void PageAllocator::resize_free(shared::Writer& w, std::uint32_t page,
                                                     std::uint32_t length,
                                                     std::uint32_t new_length) noexcept {
  const Bin from = bin_of(length);
  const Bin to = bin_of(new_length);
  if (from.row != to.row || from.column != to.column) {
    unlink(w, page, from);
    link(w, page, to);
  }
  set_free(w, page, new_length);
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

EXTMEM_ALWAYS_INLINE void PageAllocator::set_held(shared::Writer& w, std::uint32_t page, std::uint32_t length,
                                                  std::uint16_t holder, std::uint64_t owner) noexcept {
  if (length > 1) {
    w.set(descs_[page + length - 1].word1, page);
    w.set(descs_[page + length - 1].word0, PageDesc::pack(PageKind::held_tail, length));
  }
  w.set(descs_[page].word1, owner);
  w.set(descs_[page].word0, PageDesc::pack(PageKind::held_head, length, holder));
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

/// The first run of the first bin that surely fits, after a few tries in the bin that may.
EXTMEM_ALWAYS_INLINE PageAllocator::Choice PageAllocator::choose_plain(std::uint32_t pages,
                                                                       bool high) const noexcept {
  const Bin start = bin_of(pages);
  const auto take = [&](std::uint32_t run, std::uint32_t length) {
    return Choice{run, length, high ? run + length - pages : run};
  };
  int tries = 0;
  for (std::uint32_t link = space_.heads[start.row][start.column]; link != 0 && tries < kGoodFitTries;
       link = descs_[link - 1].low(), ++tries) {
    const std::uint32_t length = descs_[link - 1].length();
    if (length >= pages) return take(link - 1, length);
  }
  // The next bin that is not empty: any run there is long enough.
  std::uint32_t row = start.row;
  std::uint32_t columns = space_.column_bits[row] & ~((2u << start.column) - 1);
  if (columns == 0) {
    const std::uint32_t rows = row + 1 < kBinRows ? space_.row_bits >> (row + 1) << (row + 1) : 0;
    if (rows != 0) {
      row = static_cast<std::uint32_t>(std::countr_zero(rows));
      columns = space_.column_bits[row];
    }
  }
  if (columns != 0) {
    const std::uint32_t link = space_.heads[row][static_cast<std::uint32_t>(std::countr_zero(columns))];
    return link == 0 ? Choice{} : take(link - 1, descs_[link - 1].length());
  }
  if (tries < kGoodFitTries) return {};
  for (std::uint32_t link = space_.heads[start.row][start.column]; link != 0; link = descs_[link - 1].low()) {
    const std::uint32_t length = descs_[link - 1].length();
    if (length >= pages) return take(link - 1, length);
  }
  return {};
}

PageAllocator::Choice PageAllocator::choose(const SpanRequest& request) const noexcept {
  const bool extreme = request.placement != Placement::any;
  const bool high = request.placement == Placement::high || (!extreme && request.high_end);
  if (!extreme && !request.constrained()) return choose_plain(request.pages, high);
  Choice best;
  const Bin start = bin_of(request.pages);
  std::uint32_t rows = space_.row_bits & ~((1u << start.row) - 1);
  while (rows != 0) {
    const auto row = static_cast<std::uint32_t>(std::countr_zero(rows));
    rows &= rows - 1;
    std::uint32_t columns = space_.column_bits[row];
    if (row == start.row) columns &= ~((1u << start.column) - 1);
    while (columns != 0) {
      const auto column = static_cast<std::uint32_t>(std::countr_zero(columns));
      columns &= columns - 1;
      for (std::uint32_t link = space_.heads[row][column]; link != 0; link = descs_[link - 1].low()) {
        const std::uint32_t run = link - 1;
        const std::uint32_t length = descs_[run].length();
        const std::uint32_t at = fit_in_run(space_, run, length, request, high);
        if (at == kNoPage) continue;
        if (!extreme) return Choice{run, length, at};
        if (best.page == kNoPage || (high ? at > best.page : at < best.page)) best = Choice{run, length, at};
      }
    }
  }
  return best;
}

std::uint32_t PageAllocator::probe(const SpanRequest& request) const noexcept { return choose(request).page; }

EXTMEM_ALWAYS_INLINE std::uint32_t PageAllocator::take(shared::Transaction& tx, const Choice& choice,
                                                       std::uint32_t pages, std::uint16_t holder,
                                                       std::uint64_t owner) noexcept {
  if (choice.page == kNoPage || !ensure_run(choice.page, pages)) return kNoPage;
  shared::Writer w(tx);
  const std::uint32_t front = choice.page - choice.run;
  const std::uint32_t back = choice.run_length - front - pages;
  w.add(space_.free_pages, -std::uint64_t{pages});
  if (front != 0) {  // the usual case: cut from the high end, the free run keeps its head, and mostly its bin
    resize_free(w, choice.run, choice.run_length, front);
  } else {
    unlink(w, choice.run, bin_of(choice.run_length));
  }
  if (back != 0) insert(w, choice.page + pages, back);
  if ((front == 0) != (back != 0)) w.add(space_.free_runs, back != 0 ? 1 : ~std::uint64_t{0});
  set_held(w, choice.page, pages, holder, owner);
  return choice.page;
}

std::uint32_t PageAllocator::allocate(shared::Transaction& tx, const SpanRequest& request,
                                      std::uint16_t holder, std::uint64_t owner) noexcept {
  return take(tx, choose(request), request.pages, holder, owner);
}

std::uint32_t PageAllocator::allocate_plain(shared::Transaction& tx, std::uint32_t pages,
                                            std::uint16_t holder, std::uint64_t owner) noexcept {
  return take(tx, choose_plain(pages, true), pages, holder, owner);
}

void PageAllocator::free(shared::Transaction& tx, std::uint32_t page, std::uint32_t length) noexcept {
  const std::uint32_t end = page + length;
  std::uint32_t before = 0;  // length of the free run that ends where ours begins
  if (page > 0) {
    const std::uint64_t last = descs_[page - 1].word0;
    const auto run = static_cast<std::uint32_t>(last);
    if (last >> 32 == static_cast<std::uint64_t>(PageKind::free_tail) ||
        last == PageDesc::pack(PageKind::free_head, 1))
      before = run;
  }
  const bool free_behind = end < space_.pages && descs_[end].kind() == PageKind::free_head;
  const std::uint32_t behind = free_behind ? descs_[end].length() : 0;
  shared::Writer w(tx);
  w.add(space_.free_pages, length);
  if (before != 0) {
    // The run before keeps its head.
    if (descs_[page].owner() != 0) w.set(descs_[page].word1, 0);
    if (length + behind != 1) w.set(descs_[page].word0, 0);  // else it becomes the tail
    if (behind != 0) {
      unlink(w, end, bin_of(behind));
      w.add(space_.free_runs, ~std::uint64_t{0});
    }
    resize_free(w, page - before, before, before + length + behind);
    return;
  }
  const Bin to = bin_of(length + behind);
  if (behind != 0) {
    const Bin from = bin_of(behind);
    if (from.row == to.row && from.column == to.column) {
      // The run keeps its place in its bin, under another page's number.
      const std::uint32_t previous = descs_[end].high();
      const std::uint32_t next = descs_[end].low();
      w.set(descs_[page].word1, links(previous, next));
      if (next != 0) w.set(descs_[next - 1].word1, links(page + 1, descs_[next - 1].low()));
      if (previous != 0) {
        w.set(descs_[previous - 1].word1, links(descs_[previous - 1].high(), page + 1));
      } else {
        w.set(space_.heads[to.row][to.column], page + 1);
      }
      set_free(w, page, length + behind);
      return;
    }
    unlink(w, end, from);
  } else {
    w.add(space_.free_runs, 1);
  }
  set_free(w, page, length + behind);
  link(w, page, to);
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
  shared::Writer w(tx);
  unlink(w, page + length, bin_of(run));
  // Over the head of the run, where mark_inside() may put the same.
  w.set(descs_[page + length].word1, page);
  w.set(descs_[page + length].word0, 0);
  if (run > more) {
    insert(w, page + length + more, run - more);
  } else {
    w.add(space_.free_runs, ~std::uint64_t{0});
  }
  w.add(space_.free_pages, -std::uint64_t{more});
  if (length > 1) w.set(descs_[page + length - 1].word0, 0);
  set_held(w, page, length + more, holder, 0);
}

void PageAllocator::shrink(shared::Transaction& tx, std::uint32_t page, std::uint32_t length,
                           std::uint32_t new_length) noexcept {
  const std::uint16_t holder = descs_[page].holder();
  {
    shared::Writer w(tx);
    set_held(w, page, new_length, holder, 0);
  }
  free(tx, page + new_length, length - new_length);
}

void PageAllocator::set_holder(shared::Transaction& tx, std::uint32_t page, std::uint16_t holder) noexcept {
  tx.set(descs_[page].word1, 0);
  tx.set(descs_[page].word0, PageDesc::pack(PageKind::held_head, descs_[page].length(), holder));
}

std::uint32_t PageAllocator::find_head(std::uint32_t page) const noexcept {
  const auto covers = [&](std::uint32_t head) {
    return head <= page && there(head) && descs_[head].kind() == PageKind::held_head &&
           page - head < descs_[head].length();
  };
  for (unsigned k = 0; k < 32; ++k) {
    const auto at = static_cast<std::uint32_t>(base::align_down(page, std::uint64_t{1} << k));
    const PageDesc& desc = descs_[at];
    if (covers(at)) return at;
    if (there(at) && (desc.kind() == PageKind::mark || (desc.kind() == PageKind::held_tail && at == page))) {
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
