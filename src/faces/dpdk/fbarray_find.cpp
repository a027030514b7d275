// The searches of rte_fbarray.h: what they check, the answers that need no search, and the errors.
#include <optional>

#include "faces/dpdk/eal.hpp"
#include "faces/dpdk/fbarray.hpp"

namespace extmem::dpdk {
namespace {

/// One search: which elements are looked at, and which of them count.
struct Search {
  std::uint64_t low;
  std::uint64_t high;
  bool used;
  Mask mask;
  /// How many elements of the array count, where that is known without looking.
  std::optional<std::uint64_t> known;

  [[nodiscard]] int fails() const noexcept { return fail(used ? ENOENT : ENOSPC); }
  [[nodiscard]] int answer(std::uint64_t index) const noexcept {
    return index == kNone ? fails() : static_cast<int>(index);
  }
  /// Nothing counts, or fewer than `n`. (False where it is not known.)
  [[nodiscard]] bool fewer_than(std::uint64_t n) const noexcept { return known && *known < n; }
};

enum class Way : bool { up, down };

bool in_array(const rte_fbarray* array, unsigned index) noexcept {
  return array != nullptr && index < array->len;
}

/// Requires: in_array(array, start).
Search make_search(const rte_fbarray& array, unsigned start, Way way, bool used) noexcept {
  ArrayHeader* const header = header_of(array);
  const MaskWord* const words = mask_words(header);
  std::optional<std::uint64_t> known;
  // Acquire: pairs with the release that ends a change (mark_elements). Where no change is under way at this moment, the
  // count holds every one that has ended; one that comes later runs at the same time as this search, which may as well
  // have come before it.
  const ArrayState state{header->state.load(std::memory_order_acquire)};
  if (state.settled()) known = used ? state.count() : array.len - state.count();
  return Search{way == Way::up ? start : 0u, way == Way::up ? array.len : start + 1u, used,
                used ? Mask::of_used(words) : Mask::of_free(words), known};
}

int find(const rte_fbarray* array, unsigned start, Way way, bool used) noexcept {
  if (!in_array(array, start)) return fail(EINVAL);
  const Search search = make_search(*array, start, way, used);
  if (search.fewer_than(1)) return search.fails();
  return search.answer(way == Way::up ? search.mask.first(search.low, search.high)
                                      : search.mask.last(search.low, search.high));
}

int find_n(const rte_fbarray* array, unsigned start, unsigned n, Way way, bool used) noexcept {
  if (!in_array(array, start) || n == 0 || n > array->len) return fail(EINVAL);
  const Search search = make_search(*array, start, way, used);
  if (search.high - search.low < n || search.fewer_than(n)) return search.fails();
  return search.answer(way == Way::up ? search.mask.first_run(search.low, search.high, n)
                                      : search.mask.last_run(search.low, search.high, n));
}

int find_contig(const rte_fbarray* array, unsigned start, Way way, bool used) noexcept {
  if (!in_array(array, start)) return fail(EINVAL);
  const Search search = make_search(*array, start, way, used);
  if (search.known == array->len) return static_cast<int>(search.high - search.low);
  return static_cast<int>(way == Way::up ? search.mask.length_up(search.low, search.high)
                                         : search.mask.length_down(search.low, search.high));
}

int find_biggest(const rte_fbarray* array, unsigned start, Way way, bool used) noexcept {
  if (!in_array(array, start)) return fail(EINVAL);
  const Search search = make_search(*array, start, way, used);
  if (search.fewer_than(1)) return search.fails();
  if (search.known == array->len) return static_cast<int>(search.low);
  const Run run = way == Way::up ? search.mask.longest_from_low(search.low, search.high)
                                 : search.mask.longest_from_high(search.low, search.high);
  return search.answer(run.start);
}

}  // namespace
}  // namespace extmem::dpdk

using extmem::dpdk::fail;
using extmem::dpdk::Way;

extern "C" {

int rte_fbarray_find_next_free(struct rte_fbarray* arr, unsigned int start) {
  return extmem::dpdk::find(arr, start, Way::up, false);
}
int rte_fbarray_find_next_used(struct rte_fbarray* arr, unsigned int start) {
  return extmem::dpdk::find(arr, start, Way::up, true);
}
int rte_fbarray_find_prev_free(struct rte_fbarray* arr, unsigned int start) {
  return extmem::dpdk::find(arr, start, Way::down, false);
}
int rte_fbarray_find_prev_used(struct rte_fbarray* arr, unsigned int start) {
  return extmem::dpdk::find(arr, start, Way::down, true);
}

int rte_fbarray_find_next_n_free(struct rte_fbarray* arr, unsigned int start, unsigned int n) {
  return extmem::dpdk::find_n(arr, start, n, Way::up, false);
}
int rte_fbarray_find_next_n_used(struct rte_fbarray* arr, unsigned int start, unsigned int n) {
  return extmem::dpdk::find_n(arr, start, n, Way::up, true);
}
int rte_fbarray_find_prev_n_free(struct rte_fbarray* arr, unsigned int start, unsigned int n) {
  return extmem::dpdk::find_n(arr, start, n, Way::down, false);
}
int rte_fbarray_find_prev_n_used(struct rte_fbarray* arr, unsigned int start, unsigned int n) {
  return extmem::dpdk::find_n(arr, start, n, Way::down, true);
}

int rte_fbarray_find_contig_free(struct rte_fbarray* arr, unsigned int start) {
  return extmem::dpdk::find_contig(arr, start, Way::up, false);
}
int rte_fbarray_find_contig_used(struct rte_fbarray* arr, unsigned int start) {
  return extmem::dpdk::find_contig(arr, start, Way::up, true);
}
int rte_fbarray_find_rev_contig_free(struct rte_fbarray* arr, unsigned int start) {
  return extmem::dpdk::find_contig(arr, start, Way::down, false);
}
int rte_fbarray_find_rev_contig_used(struct rte_fbarray* arr, unsigned int start) {
  return extmem::dpdk::find_contig(arr, start, Way::down, true);
}

int rte_fbarray_find_biggest_free(struct rte_fbarray* arr, unsigned int start) {
  return extmem::dpdk::find_biggest(arr, start, Way::up, false);
}
int rte_fbarray_find_biggest_used(struct rte_fbarray* arr, unsigned int start) {
  return extmem::dpdk::find_biggest(arr, start, Way::up, true);
}
int rte_fbarray_find_rev_biggest_free(struct rte_fbarray* arr, unsigned int start) {
  return extmem::dpdk::find_biggest(arr, start, Way::down, false);
}
int rte_fbarray_find_rev_biggest_used(struct rte_fbarray* arr, unsigned int start) {
  return extmem::dpdk::find_biggest(arr, start, Way::down, true);
}

}  // extern "C"
