// The elements of an rte_fbarray: marking them, the lock and the count, and the functions that look at one element.
#include "faces/dpdk/fbarray.hpp"

#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <climits>
#include <cstring>
#include <ctime>
#include <new>

#include "base/crash_point.hpp"
#include "faces/dpdk/eal.hpp"

namespace extmem::dpdk {
namespace {

constexpr time_t kPatienceSeconds = 5;

/// Waits for the lock, kPatienceSeconds at most.
int lock_patiently(pthread_mutex_t* lock) noexcept {
  timespec until{};
  ::clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_sec += kPatienceSeconds;
#ifdef __SANITIZE_THREAD__
  // The ThreadSanitizer of gcc 12 does not know pthread_mutex_clocklock(): it would see an unlock without a lock.
  for (timespec now = until; now.tv_sec <= until.tv_sec; ::clock_gettime(CLOCK_MONOTONIC, &now)) {
    if (const int error = ::pthread_mutex_trylock(lock); error != EBUSY) return error;
    ::sched_yield();
  }
  return ETIMEDOUT;
#else
  return ::pthread_mutex_clocklock(lock, CLOCK_MONOTONIC, &until);
#endif
}

/// Holds the lock of a shared array for a scope; for a private one there is none.
class Guard {
 public:
  explicit Guard(ArrayHeader* header) noexcept : header_(header) {
    if (header->shared == 0) return;
    error_ = ::pthread_mutex_trylock(&header->lock);
    if (error_ == EBUSY) error_ = lock_patiently(&header->lock);
    if (error_ != EOWNERDEAD) return;
    // The holder died. If we die in here as well, the next one comes here again. Nobody else changes anything now.
    base::crash_point("fbarray_inherited");
    // Release: pairs with the acquire in make_search().
    header->state.store(count_of_mask(), std::memory_order_release);
    base::crash_point("fbarray_recounted");
    error_ = ::pthread_mutex_consistent(&header->lock);
  }
  Guard(const Guard&) = delete;
  ~Guard() {
    if (error_ == 0 && header_->shared != 0) ::pthread_mutex_unlock(&header_->lock);
  }
  /// 0 where it is held.
  [[nodiscard]] int error() const noexcept { return error_; }

 private:
  [[nodiscard]] std::uint64_t count_of_mask() const noexcept {
    return Mask::of_used(mask_words(header_)).total(0, header_->len);
  }
  ArrayHeader* header_;
  int error_ = 0;
};

int init_lock(pthread_mutex_t* lock) noexcept {
  pthread_mutexattr_t attributes;
  int error = ::pthread_mutexattr_init(&attributes);
  if (error != 0) return error;
  error = ::pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  if (error == 0) error = ::pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  if (error == 0) error = ::pthread_mutex_init(lock, &attributes);
  ::pthread_mutexattr_destroy(&attributes);
  return error;
}

/// Changes the bits of [start, start + n), one atomic operation a word. Returns: how many were not so already.
std::uint64_t change_words(MaskWord* words, std::uint64_t start, std::uint64_t n, bool used) noexcept {
  std::uint64_t changed = 0;
  const std::uint64_t end = start + n;
  for (std::uint64_t at = start; at < end;) {
    const std::uint64_t in_word = std::min<std::uint64_t>(64 - at % 64, end - at);
    const std::uint64_t bits = (kAllOnes >> (64 - in_word)) << at % 64;
    MaskWord& word = words[at / 64];
    // Release: pairs with the acquire in Mask::word(), so that what was written to an element is seen by whoever finds
    // it used. Acquire, for the other direction: who finds it free, and uses it, comes after its last user.
    const std::uint64_t before = used ? word.fetch_or(bits, std::memory_order_acq_rel)
                                      : word.fetch_and(~bits, std::memory_order_acq_rel);
    changed += static_cast<std::uint64_t>(std::popcount((used ? ~before : before) & bits));
    at += in_word;
  }
  return changed;
}

/// Lets the struct say what the state says.
void publish_count(const ArrayHeader* header, rte_fbarray& array) noexcept {
  const std::atomic_ref<unsigned> shown(array.count);
  if (header->shared != 0) {
    // Relaxed, both: the caller holds the lock, and everybody who writes them does.
    shown.store(ArrayState{header->state.load(std::memory_order_relaxed)}.count(), std::memory_order_relaxed);
    return;
  }
  // In a private array several threads may be here at once. Each looks again after it has stored, so that the last one
  // to store stores the last count. Sequentially consistent, all: they pair with the same in other threads.
  std::uint32_t count = 0;
  do {
    count = ArrayState{header->state.load(std::memory_order_seq_cst)}.count();
    if (shown.load(std::memory_order_seq_cst) != count) shown.store(count, std::memory_order_seq_cst);
  } while (ArrayState{header->state.load(std::memory_order_seq_cst)}.count() != count);
}

}  // namespace

int check_array(const char* name, unsigned len, unsigned elt_sz) noexcept {
  if (name == nullptr || elt_sz == 0 || len == 0 || len > INT_MAX) return fail(EINVAL);
  if (::strnlen(name, RTE_FBARRAY_NAME_LEN) == RTE_FBARRAY_NAME_LEN) return fail(ENAMETOOLONG);
  return 0;
}

int begin_array(void* mapping, const char* name, unsigned len, unsigned elt_sz, bool shared,
                rte_fbarray* array) noexcept {
  std::byte* const data = static_cast<std::byte*>(mapping) + bytes_before_elements(len);
  auto* const header = new (mapping) ArrayHeader{};
  header->data = reinterpret_cast<std::uint64_t>(data);
  header->len = len;
  header->elt_sz = elt_sz;
  header->shared = shared ? 1 : 0;
  if (shared) {
    if (const int error = init_lock(&header->lock); error != 0) return error;
  }
  // Release: pairs with the acquire in attach_mapping() (fbarray_share.cpp): who sees it, sees the header.
  header->magic.store(kArrayMagic, std::memory_order_release);

  rte_fbarray made{};
  std::memcpy(made.name, name, std::strlen(name));
  made.len = len;
  made.elt_sz = elt_sz;
  made.data = data;
  *array = made;
  return 0;
}

int refresh_count(rte_fbarray& array) noexcept {
  ArrayHeader* const header = header_of(array);
  const Guard guard(header);
  if (guard.error() != 0) return guard.error();
  publish_count(header, array);
  return 0;
}

int mark_elements(rte_fbarray& array, unsigned start, unsigned n, bool used) noexcept {
  ArrayHeader* const header = header_of(array);
  const Guard guard(header);
  if (guard.error() != 0) return fail(guard.error());
  // Acquire and release: no change of the mask moves above it. Pairs with the acquire in make_search().
  header->state.fetch_add(ArrayState::kOneChange, std::memory_order_acq_rel);
  base::crash_point("fbarray_changing");
  const std::uint64_t changed = change_words(mask_words(header), start, n, used);
  base::crash_point("fbarray_mask_changed");
  // The count and the end of the change in one step; unsigned arithmetic makes a subtraction of the addition.
  // Sequentially consistent: pairs with make_search(), and with publish_count() in other threads.
  header->state.fetch_add((used ? changed : 0 - changed) - ArrayState::kOneChange, std::memory_order_seq_cst);
  base::crash_point("fbarray_counted");
  publish_count(header, array);
  return 0;
}

int init_private_array(rte_fbarray* array, const char* name, unsigned len, unsigned elt_sz) noexcept {
  if (array == nullptr) return fail(EINVAL);
  if (check_array(name, len, elt_sz) != 0) return -1;
  const std::uint64_t bytes = bytes_of_array(len, elt_sz);
  void* const mapping =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) return fail(ENOMEM);
  return begin_array(mapping, name, len, elt_sz, false, array);  // cannot fail: a private array has no lock
}

void destroy_private_array(rte_fbarray* array) noexcept {
  if (array == nullptr || array->data == nullptr) return;
  ::munmap(header_of(*array), bytes_of_array(array->len, array->elt_sz));
  *array = rte_fbarray{};
}

namespace {

int set_one(rte_fbarray* array, unsigned index, bool used) noexcept {
  if (array == nullptr || index >= array->len) return fail(EINVAL);
  return mark_elements(*array, index, 1, used);
}

void dump(const rte_fbarray& array, FILE* file) noexcept {
  const Mask used = Mask::of_used(mask_words(header_of(array)));
  const Mask free = used.opposite();
  std::fprintf(file, "File-backed array: %.*s\nsize: %u occupied: %" PRIu64 " elt_sz: %u\n",
               RTE_FBARRAY_NAME_LEN, array.name, array.len, used.total(0, array.len), array.elt_sz);
  for (std::uint64_t at = used.first(0, array.len); at != kNone;) {
    const std::uint64_t end = free.first(at, array.len);
    const std::uint64_t last = (end == kNone ? array.len : end) - 1;
    if (last == at) {
      std::fprintf(file, "  used: %" PRIu64 "\n", at);
    } else {
      std::fprintf(file, "  used: %" PRIu64 " to %" PRIu64 "\n", at, last);
    }
    at = end == kNone ? kNone : used.first(end, array.len);
  }
}

}  // namespace
}  // namespace extmem::dpdk

using extmem::dpdk::fail;

extern "C" {

void* rte_fbarray_get(const struct rte_fbarray* arr, unsigned int idx) {
  if (arr == nullptr || idx >= arr->len) {
    fail(EINVAL);
    return nullptr;
  }
  return static_cast<std::byte*>(arr->data) + std::uint64_t{idx} * arr->elt_sz;
}

int rte_fbarray_find_idx(const struct rte_fbarray* arr, const void* elt) {
  if (arr == nullptr || elt == nullptr || arr->len == 0) return fail(EINVAL);
  const std::uint64_t offset =
      reinterpret_cast<std::uintptr_t>(elt) - reinterpret_cast<std::uintptr_t>(arr->data);
  // An address below the elements gives a difference that is too large as well.
  if (offset >= std::uint64_t{arr->len} * arr->elt_sz) return fail(EINVAL);
  return static_cast<int>(offset / arr->elt_sz);
}

int rte_fbarray_set_used(struct rte_fbarray* arr, unsigned int idx) {
  return extmem::dpdk::set_one(arr, idx, true);
}
int rte_fbarray_set_free(struct rte_fbarray* arr, unsigned int idx) {
  return extmem::dpdk::set_one(arr, idx, false);
}

int rte_fbarray_is_used(struct rte_fbarray* arr, unsigned int idx) {
  if (arr == nullptr || idx >= arr->len) return fail(EINVAL);
  const extmem::dpdk::Mask used =
      extmem::dpdk::Mask::of_used(extmem::dpdk::mask_words(extmem::dpdk::header_of(*arr)));
  return used.first(idx, std::uint64_t{idx} + 1) != extmem::dpdk::kNone ? 1 : 0;
}

void rte_fbarray_dump_metadata(struct rte_fbarray* arr, FILE* f) {
  if (arr == nullptr || f == nullptr) {
    fail(EINVAL);
  } else if (arr->len == 0 || arr->data == nullptr) {
    std::fprintf(f, "Invalid file-backed array\n");
  } else {
    extmem::dpdk::dump(*arr, f);
  }
}

}  // extern "C"
