// Page space: runs of pages ("spans") inside one region, with every constraint and immediate coalescing.
//
// What it is: two-level segregated bins of free runs (TLSF: Masmano et al. 2004), kept wholly outside the memory
// as in OffsetAllocator: an array of 16-byte page descriptors, of which only the first and last of a run are
// touched. The constraint signature is vmem's (Bonwick & Adams 2001): align, nocross, [min, max), plus ours:
// IOVA contiguity and a DMA mask.
// It works on offsets and page numbers, never on bytes: no memory need stand behind it.
// Thread-safety: changes and searches need the lock that guards the space (the heap's); find() and the descriptors
// of a page that the caller holds may be read without it.
//
// A page descriptor, 16 bytes:
//
//   word 0:  63      48 47    40 39    32 31            0
//            | holder  |  zero  |  kind  |  run length   |     length in pages, at heads and tails
//            |    0    |  zero  |  slab  |  slab index   |     every page of a slab: one load says all
//   word 1:  63               32 31                      0
//            | previous in bin  | next in bin            |     free_head
//            | 0                | head page              |     mark, held_tail
//            | 0xffffffff       | heap    | owner slot   |     held_head; the whole word 0: shared
//
// A held run may be *biased* to a thread slot, as slabs are: then that thread may have it in its row, where it is free without
// any change here (span_magazines.hpp). Everything about a run changes under the lock, and in a biased one only while its
// owner stands still.
//
// Invariants:
//  1. Free and held runs and slabs tile [0, pages) without gap or overlap.
//  2. No two free runs are neighbours.
//  3. A run is in the bin of its length; a bin's bits are set exactly when it is not empty.
//  4. free_pages is the sum of the lengths of the free runs, free_runs their number.
//  5. Word 1 names an owner in held heads only, and held heads and slabs are only where such a run begins or a slab is.
//  6. Inside a run the only descriptors that mean anything are head, tail and marks; a mark is believed only when the head
//     it names is a held head whose run covers it. Old heads and tails of free runs may lie inside any run.
#pragma once

#include <cstdint>

#include "base/always_inline.hpp"
#include "base/bits.hpp"
#include "base/relaxed.hpp"
#include "extmem/types.hpp"
#include "region/iova_table.hpp"
#include "shared/control_segment.hpp"
#include "shared/transaction.hpp"

namespace extmem::alloc {

inline constexpr std::uint32_t kNoPage = 0xffffffff;
inline constexpr std::uint32_t kMaxPages = 0xfffffff0;

enum class PageKind : std::uint8_t {
  none = 0,   // inside a run, or never used
  free_head,  // first page of a free run
  free_tail,  // last page of a free run of two or more
  held_head,  // first page of a held run ("large object" or memzone)
  held_tail,  // last page of a held run of two or more
  slab,       // any page of a slab
  mark,       // inside a held run: names the head, so that interior pointers find it
  cached_head,  // only in an inspector's copy: first page of a run that a thread has freed and keeps to use again
};

struct PageDesc {
  base::Relaxed<std::uint64_t> word0;
  base::Relaxed<std::uint64_t> word1;

  [[nodiscard]] PageKind kind() const noexcept { return kind_of(word0.get()); }
  [[nodiscard]] std::uint32_t length() const noexcept { return static_cast<std::uint32_t>(word0.get()); }
  [[nodiscard]] std::uint32_t slab() const noexcept { return static_cast<std::uint32_t>(word0.get()); }
  [[nodiscard]] std::uint16_t holder() const noexcept {
    return static_cast<std::uint16_t>(word0.get() >> 48);
  }
  [[nodiscard]] std::uint32_t low() const noexcept { return static_cast<std::uint32_t>(word1.get()); }
  [[nodiscard]] std::uint32_t high() const noexcept { return static_cast<std::uint32_t>(word1.get() >> 32); }

  /// The thread slot to which a held or cached run is biased; 0: shared. Of no other kind.
  [[nodiscard]] std::uint32_t owner() const noexcept {
    const std::uint64_t word = word1;
    return word >> 32 == kOwned ? static_cast<std::uint16_t>(word) : 0;
  }
  /// Word 1 of a run that is biased to this slot. No link, mark or tail looks like it.
  static constexpr std::uint64_t owned_by(std::uint32_t heap, std::uint32_t slot) noexcept {
    return kOwned << 32 | std::uint64_t{heap} << 16 | slot;
  }
  static constexpr std::uint64_t kOwned = 0xffffffff;  // above kMaxPages

  static constexpr PageKind kind_of(std::uint64_t word0) noexcept {
    return static_cast<PageKind>(word0 >> 32 & 0xff);
  }
  static constexpr std::uint64_t pack(PageKind kind, std::uint32_t length,
                                      std::uint16_t holder = 0) noexcept {
    return std::uint64_t{holder} << 48 | static_cast<std::uint64_t>(kind) << 32 | length;
  }
};
static_assert(sizeof(PageDesc) == 16);

inline constexpr std::uint32_t kBinRows = 32;    // by the length's highest bit
inline constexpr std::uint32_t kBinColumns = 8;  // by its next three bits

/// The part of a region's record that the page layer owns. All zero but geometry = nothing to give.
struct PageSpace {
  // These three are constant while the region is there; a look-up of an address may meet a region that goes.
  base::Relaxed<std::uint64_t> descs_offset;  // segment offset of PageDesc[pages]
  base::Relaxed<std::uint32_t> pages;
  base::Relaxed<std::uint32_t> page_shift;
  base::Relaxed<std::uint64_t> free_pages;
  base::Relaxed<std::uint64_t> free_runs;
  base::Relaxed<std::uint32_t> row_bits;
  base::Relaxed<std::uint32_t> column_bits[kBinRows];
  base::Relaxed<std::uint32_t> heads[kBinRows][kBinColumns];  // page + 1; 0: empty
};

/// What a span must fulfil. Offsets are of the region; `phase` turns them into addresses.
struct SpanRequest {
  std::uint32_t pages = 0;  // length
  std::uint64_t bytes = 0;  // of these pages, what must fulfil nocross / contiguity / mask; <= pages' bytes
  std::uint64_t align = 1;  // power of two, of address = offset + phase
  std::uint64_t nocross =
      0;  // power of two >= bytes, of offsets (the same in every process) or, with iova_contiguous, the IOVA
  bool nocross_in_addresses = false;  // of addresses, whatever else
  std::uint64_t phase = 0;            // address of offset 0
  std::uint64_t min_offset = 0;
  std::uint64_t max_offset = ~std::uint64_t{0};
  bool iova_contiguous = false;
  std::uint8_t dma_bits = 0;
  Placement placement = Placement::any;
  bool high_end = false;                    // `any`: carve from the high end of the chosen run
  const region::IovaTable* iova = nullptr;  // needed for iova_contiguous and dma_bits
  const std::byte* segment = nullptr;

  [[nodiscard]] bool constrained() const noexcept {
    return align > 1 || nocross != 0 || iova_contiguous || dma_bits != 0 || min_offset != 0 ||
           ~max_offset != 0;
  }
};

/// A view of one PageSpace: the algorithms.
class PageAllocator {
 public:
  /// Where the list of free runs of some lengths begins: PageSpace::heads[row][column].
  struct Bin {
    std::uint32_t row;
    std::uint32_t column;
  };

  PageAllocator(std::byte* segment, PageSpace& space, shared::Ground ground = {}) noexcept
      : space_(space), descs_(reinterpret_cast<PageDesc*>(segment + space.descs_offset)), ground_(ground) {}

  /// Makes all pages one free run. Requires: descriptors are zero; 0 < pages <= kMaxPages; set in the space.
  void init() noexcept;

  /// Takes a run that fulfils the request; its pages' descriptors say held by `holder`. kNoPage: nothing fits.
  /// `owner`: PageDesc::owned_by, or 0 for a shared one.
  std::uint32_t allocate(shared::Transaction& tx, const SpanRequest& request, std::uint16_t holder,
                         std::uint64_t owner = 0) noexcept;
  /// The same for a request without constraints, from the high end of the run that is chosen.
  std::uint32_t allocate_plain(shared::Transaction& tx, std::uint32_t pages, std::uint16_t holder,
                               std::uint64_t owner) noexcept;
  /// Where allocate would place the request, without changing anything. kNoPage: nothing fits.
  [[nodiscard]] std::uint32_t probe(const SpanRequest& request) const noexcept;
  /// Gives [page, page + length) back and merges it with its free neighbours. Requires: it is one held or cached run, or
  /// slab.
  void free(shared::Transaction& tx, std::uint32_t page, std::uint32_t length) noexcept;
  /// Turns a held run into a slab's pages.
  void make_slab(shared::Transaction& tx, std::uint32_t page, std::uint32_t length,
                 std::uint32_t slab) noexcept;
  /// Pages that directly follow the run and are free.
  [[nodiscard]] std::uint32_t free_after(std::uint32_t page, std::uint32_t length) const noexcept;
  /// Makes a held run longer, into the free run behind it; it is shared then. Requires: free_after >= more; ensure_run.
  void grow(shared::Transaction& tx, std::uint32_t page, std::uint32_t length, std::uint32_t more) noexcept;
  /// Makes a held run shorter; it is shared then. Requires: 0 < new_length < length; ensure_run.
  void shrink(shared::Transaction& tx, std::uint32_t page, std::uint32_t length,
              std::uint32_t new_length) noexcept;
  /// Makes sure that the descriptors which a held run of this place touches can be stored to: before grow() and shrink(), of the run
  /// that it will be. False: the tmpfs is full.
  [[nodiscard]] bool ensure_run(std::uint32_t page, std::uint32_t length) const noexcept;
  /// Whether a descriptor was ever stored to: else it is zero, and must not be read (shared::Ground).
  [[nodiscard]] bool there(std::uint32_t page) const noexcept { return ground_.there(descs_[page]); }
  /// Changes who holds a run; it is shared then.
  void set_holder(shared::Transaction& tx, std::uint32_t page, std::uint16_t holder) noexcept;

  /// The head of the held run that covers `page`, or kNoPage. Cost: log2(pages) descriptors.
  [[nodiscard]] std::uint32_t find_head(std::uint32_t page) const noexcept;
  /// Length in pages of the longest free run. Cost: the length of one bin's list.
  [[nodiscard]] std::uint32_t largest_free() const noexcept;
  /// Upper bound of largest_free from the bin bits alone.
  [[nodiscard]] std::uint32_t largest_free_bound() const noexcept;
  /// The biggest run that fulfils the request's constraints, whatever its length: {page, length in bytes}.
  struct Biggest {
    std::uint32_t page = kNoPage;
    std::uint64_t bytes = 0;
  };
  [[nodiscard]] Biggest biggest(const SpanRequest& request) const noexcept;

  /// Checks invariants 1 to 4; reports each breach and returns how many. `slab_pages(slab, page)` says how many
  /// pages of this slab begin at this page, 0 if none does.
  std::size_t check(
      FunctionRef<std::uint32_t(std::uint32_t, std::uint32_t)> slab_pages,
      FunctionRef<void(const char*, std::uint64_t, std::uint64_t, std::uint64_t)> report) const noexcept;

  [[nodiscard]] PageDesc& desc(std::uint32_t page) const noexcept { return descs_[page]; }
  [[nodiscard]] const PageSpace& space() const noexcept { return space_; }

 private:
  void unlink(shared::Writer& w, std::uint32_t page, Bin bin) noexcept;
  void link(shared::Writer& w, std::uint32_t page, Bin bin) noexcept;
  void set_free(shared::Writer& w, std::uint32_t page, std::uint32_t length) noexcept;
  void insert(shared::Writer& w, std::uint32_t page, std::uint32_t length) noexcept;
  void resize_free(shared::Writer& w, std::uint32_t page, std::uint32_t length,
                   std::uint32_t new_length) noexcept;
  void set_held(shared::Writer& w, std::uint32_t page, std::uint32_t length, std::uint16_t holder,
                std::uint64_t owner) noexcept;
  void mark_inside(std::uint32_t page, std::uint32_t length) noexcept;
  struct Choice {
    std::uint32_t run = kNoPage;
    std::uint32_t run_length = 0;
    std::uint32_t page = kNoPage;
  };
  [[nodiscard]] Choice choose(const SpanRequest& request) const noexcept;
  [[nodiscard]] Choice choose_plain(std::uint32_t pages, bool high) const noexcept;
  std::uint32_t take(shared::Transaction& tx, const Choice& choice, std::uint32_t pages, std::uint16_t holder,
                     std::uint64_t owner) noexcept;

  PageSpace& space_;
  PageDesc* descs_;
  shared::Ground ground_;
};

/// The page at which the request fits into the free run [run, run + length), or kNoPage. Pure; cost: the number
/// of IOVA runs inside the free run when the request asks about IOVAs, else constant.
std::uint32_t fit_in_run(const PageSpace& space, std::uint32_t run, std::uint32_t length,
                         const SpanRequest& request, bool high) noexcept;

}  // namespace extmem::alloc
