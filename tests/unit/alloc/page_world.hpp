// PageWorld: a page space over imaginary memory, in a little segment of its own that can be copied byte by byte.
//
//   0              16 KiB        +1.2 KiB         + 16 B * pages
//   +--------------+-------------+----------------+------------------+
//   | undo journal | PageSpace   | PageDesc[]     | IOVA table data  |
//   +--------------+-------------+----------------+------------------+
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "alloc/page_space.hpp"
#include "region/iova_table.hpp"
#include "shared/thread_slot.hpp"

namespace extmem::alloc {

/// What a run of pages is used for, for the model and for check()'s question about slabs.
struct Piece {
  std::uint32_t length = 0;
  bool slab = false;
  std::uint32_t slab_index = 0;
  std::uint16_t holder = 0;
};
using Pieces = std::map<std::uint32_t, Piece>;  // by first page

class PageWorld {
 public:
  PageWorld(std::uint32_t pages, unsigned page_shift, std::uint64_t iova_data_bytes = 0) {
    constexpr std::uint64_t kSpaceAt = base::align_up(sizeof(shared::Journal), 64);
    constexpr std::uint64_t kDescsAt = kSpaceAt + base::align_up(sizeof(PageSpace), 64);
    space_at_ = kSpaceAt;
    iova_at_ = kDescsAt + base::align_up(std::uint64_t{pages} * sizeof(PageDesc), 64);
    lines_.resize((iova_at_ + iova_data_bytes + 63) / 64);
    space().descs_offset = kDescsAt;
    space().pages = pages;
    space().page_shift = page_shift;
    allocator().init();
  }

  [[nodiscard]] std::byte* segment() { return lines_.data()->bytes; }
  [[nodiscard]] shared::Journal& journal() { return *reinterpret_cast<shared::Journal*>(segment()); }
  [[nodiscard]] PageSpace& space() { return *reinterpret_cast<PageSpace*>(segment() + space_at_); }
  [[nodiscard]] PageAllocator allocator() { return PageAllocator(segment(), space()); }
  [[nodiscard]] shared::Transaction transaction() { return shared::Transaction(segment(), journal()); }
  [[nodiscard]] std::uint64_t iova_at() const { return iova_at_; }

  std::uint32_t allocate(const SpanRequest& request, std::uint16_t holder = 0) {
    auto tx = transaction();
    const std::uint32_t page = allocator().allocate(tx, request, holder);
    tx.commit();
    return page;
  }
  std::uint32_t allocate(std::uint32_t pages, std::uint16_t holder = 0) {
    SpanRequest request;
    request.pages = pages;
    request.bytes = std::uint64_t{pages} << space().page_shift;
    return allocate(request, holder);
  }
  void free(std::uint32_t page, std::uint32_t length) {
    auto tx = transaction();
    allocator().free(tx, page, length);
    tx.commit();
  }

  /// Every breach as a line of text; "" when all is well. `runs` says where slabs lie.
  std::string breaches(const Pieces& runs = {}) {
    std::ostringstream text;
    const std::size_t n = allocator().check(
        [&](std::uint32_t slab, std::uint32_t page) {
          const auto run = runs.find(page);
          return run != runs.end() && run->second.slab && run->second.slab_index == slab ? run->second.length
                                                                                         : 0u;
        },
        [&](const char* what, std::uint64_t where, std::uint64_t expected, std::uint64_t found) {
          text << what << " at " << where << ": " << expected << " expected, " << found << " found\n";
        });
    EXPECT_EQ(n == 0, text.str().empty());
    return text.str();
  }

  /// Compares what the page layer believes with the model: runs, holders, free pages, heads of all pages.
  std::string differences(const Pieces& runs) {
    std::ostringstream text;
    PageAllocator pages = allocator();
    std::uint64_t free_pages = space().pages;
    std::uint32_t at = 0;
    const auto expect_free = [&](std::uint32_t from, std::uint32_t to) {
      if (from == to) return;
      if (pages.desc(from).kind() != PageKind::free_head || pages.desc(from).length() != to - from) {
        text << "pages [" << from << ", " << to << ") are not one free run\n";
      }
      for (std::uint32_t page = from; page < to; ++page) {
        if (pages.find_head(page) != kNoPage) text << "free page " << page << " has a head\n";
      }
    };
    for (const auto& [page, run] : runs) {
      expect_free(at, page);
      const PageDesc& desc = pages.desc(page);
      const PageKind kind = run.slab ? PageKind::slab : PageKind::held_head;
      if (desc.kind() != kind) text << "page " << page << " is not the kind that was made\n";
      if (!run.slab && (desc.length() != run.length || desc.holder() != run.holder)) {
        text << "run " << page << " has another length or holder\n";
      }
      for (std::uint32_t inside = page; inside < page + run.length; ++inside) {
        const std::uint32_t head = pages.find_head(inside);
        if (head != (run.slab ? kNoPage : page)) text << "find_head(" << inside << ") is " << head << '\n';
      }
      free_pages -= run.length;
      at = page + run.length;
    }
    expect_free(at, space().pages);
    if (space().free_pages != free_pages) text << "free_pages is " << space().free_pages << '\n';
    return text.str();
  }

 private:
  struct alignas(64) Line {
    std::byte bytes[64]{};
  };
  std::vector<Line> lines_;
  std::uint64_t space_at_ = 0;
  std::uint64_t iova_at_ = 0;
};

}  // namespace extmem::alloc
