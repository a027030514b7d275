// Making, attaching, detaching and destroying fbarrays; the list of those that this process has.
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <utility>

#include "base/crash_point.hpp"
#include "faces/dpdk/eal.hpp"
#include "faces/dpdk/fbarray.hpp"
#include "faces/dpdk/fbarray_file.hpp"

namespace extmem::dpdk {
namespace {

/// An array that this process has mapped.
struct Attached {
  Attached* next = nullptr;
  std::uint64_t begin = 0;  ///< of the mapping
  std::uint64_t bytes = 0;
  pid_t process = 0;  ///< whose lock the file has: this process, or before a fork its parent
  ArrayFile file;     ///< not open for memory of this process alone
  char name[RTE_FBARRAY_NAME_LEN] = {};
};

constinit std::mutex list_lock;
// Guarded by list_lock. What is in it at the program's end stays: other threads may be using the arrays until then.
constinit Attached* list_of_attached = nullptr;
bool fork_handled = false;  // guarded by list_lock

/// Holds the list for a scope. A fork waits until it is free, so that the child finds it whole and open.
class List {
 public:
  List() noexcept : guard_(list_lock) {
    if (!fork_handled) {
      fork_handled = ::pthread_atfork([] { list_lock.lock(); }, [] { list_lock.unlock(); },
                                      [] { list_lock.unlock(); }) == 0;
    }
  }

  /// The place of the array in the list, which holds nothing where this process has not got it.
  static Attached*& find(const rte_fbarray& array) noexcept {
    Attached** at = &list_of_attached;
    const bool possible = array.len > 0 && array.data != nullptr;
    const std::uint64_t begin = possible ? reinterpret_cast<std::uint64_t>(header_of(array)) : 0;
    const std::uint64_t bytes = possible ? bytes_of_array(array.len, array.elt_sz) : 0;
    while (*at != nullptr && ((*at)->begin != begin || (*at)->bytes != bytes)) at = &(*at)->next;
    return *at;
  }
  static bool overlaps(std::uint64_t begin, std::uint64_t bytes) noexcept {
    for (const Attached* a = list_of_attached; a != nullptr; a = a->next) {
      if (begin < a->begin + a->bytes && a->begin < begin + bytes) return true;
    }
    return false;
  }
  static void add(std::unique_ptr<Attached> made) noexcept {
    made->process = ::getpid();
    made->next = list_of_attached;
    list_of_attached = made.release();
  }
  static void unmap_and_forget(Attached*& place) noexcept {
    const std::unique_ptr<Attached> gone(place);
    place = gone->next;
    ::munmap(reinterpret_cast<void*>(gone->begin), gone->bytes);
  }

 private:
  std::lock_guard<std::mutex> guard_;
};

std::unique_ptr<Attached> new_attached(const char* name, std::uint64_t bytes) noexcept {
  std::unique_ptr<Attached> made(new (std::nothrow) Attached);
  if (!made) return made;
  std::memcpy(made->name, name, std::strlen(name));
  made->bytes = bytes;
  return made;
}

/// Elements get their memory when an array is made, so that no touch of theirs can fail; but not those of arrays that are so large
/// that few programs use all of them.
constexpr std::uint64_t kMemoryAtOnce = std::uint64_t{256} << 20;

/// The part of init after the checks. Returns: 0, or an errno value, and then there is neither file nor mapping.
int make_array(Attached& made, bool shared, unsigned len, unsigned elt_sz, rte_fbarray* array) noexcept {
  const char* const directory = rte_eal_get_runtime_dir();
  if (shared) {
    if (*directory == '\0') return E_RTE_NO_CONFIG;
    const std::uint64_t at_once = made.bytes <= kMemoryAtOnce ? made.bytes : bytes_before_elements(len);
    if (const int error = made.file.create(directory, made.name, made.bytes, at_once); error != 0)
      return error;
    base::crash_point("fbarray_created");
  }
  void* const mapping = map_anywhere(made.file.fd(), made.bytes, made.name, options().base_virtaddr);
  if (mapping == nullptr) {
    if (shared) made.file.remove(directory, made.name);
    return ENOMEM;
  }
  made.begin = reinterpret_cast<std::uint64_t>(mapping);
  rte_fbarray described{};
  int error = begin_array(mapping, made.name, len, elt_sz, shared, &described);
  base::crash_point("fbarray_begun");
  if (error == 0 && shared) error = made.file.let_others_attach();
  if (error != 0) {
    if (shared) made.file.remove(directory, made.name);
    ::munmap(mapping, made.bytes);
    return error;
  }
  *array = described;
  return 0;
}

/// The part of attach after the checks. Returns: 0, or an errno value, and then nothing is mapped.
int attach_mapping(Attached& made, rte_fbarray& array) noexcept {
  if (const int error = map_exactly(made.file.fd(), made.bytes, made.begin); error != 0) return error;
  const ArrayHeader* const header = header_of(array);
  // Acquire: pairs with the release in begin_array().
  const bool same = header->magic.load(std::memory_order_acquire) == kArrayMagic &&
                    header->data == reinterpret_cast<std::uint64_t>(array.data) && header->len == array.len &&
                    header->elt_sz == array.elt_sz && header->shared == 1;
  const int error = same ? refresh_count(array) : EINVAL;
  if (error != 0) ::munmap(reinterpret_cast<void*>(made.begin), made.bytes);
  return error;
}

/// Whether the struct's address can be one of an array: it is on a page with room for the header below, and the end of
/// the elements is an address as well.
bool address_is_possible(const rte_fbarray& array) noexcept {
  const auto data = reinterpret_cast<std::uint64_t>(array.data);
  const std::uint64_t before = bytes_before_elements(array.len);
  std::uint64_t end = 0;
  return base::is_aligned(data, kElementsAlign) && data > before &&
         base::checked_add(data - before, bytes_of_array(array.len, array.elt_sz), end);
}

}  // namespace
}  // namespace extmem::dpdk

using namespace extmem::dpdk;

extern "C" {

int rte_fbarray_init(struct rte_fbarray* arr, const char* name, unsigned int len, unsigned int elt_sz) {
  if (arr == nullptr) return fail(EINVAL);
  if (check_array(name, len, elt_sz) != 0) return -1;
  const List list;
  std::unique_ptr<Attached> made = new_attached(name, bytes_of_array(len, elt_sz));
  if (!made) return fail(ENOMEM);
  if (const int error = make_array(*made, options().shared(), len, elt_sz, arr); error != 0)
    return fail(error);
  List::add(std::move(made));
  return 0;
}

int rte_fbarray_attach(struct rte_fbarray* arr) {
  if (arr == nullptr) return fail(EINVAL);
  if (check_array(arr->name, arr->len, arr->elt_sz) != 0) return -1;
  if (!address_is_possible(*arr)) return fail(EINVAL);
  const List list;
  std::unique_ptr<Attached> made = new_attached(arr->name, bytes_of_array(arr->len, arr->elt_sz));
  if (!made) return fail(ENOMEM);
  made->begin = reinterpret_cast<std::uint64_t>(header_of(*arr));
  if (List::overlaps(made->begin, made->bytes)) return fail(EEXIST);
  const char* const directory = rte_eal_get_runtime_dir();
  // Where nothing is shared there is no file that others could have made.
  if (!options().shared()) return fail(ENOENT);
  if (*directory == '\0') return fail(E_RTE_NO_CONFIG);
  if (const int error = made->file.open(directory, arr->name, made->bytes); error != 0) return fail(error);
  if (const int error = attach_mapping(*made, *arr); error != 0) return fail(error);
  List::add(std::move(made));
  return 0;
}

int rte_fbarray_detach(struct rte_fbarray* arr) {
  if (arr == nullptr) return fail(EINVAL);
  const List list;
  Attached*& place = List::find(*arr);
  if (place == nullptr) return fail(ENOENT);
  List::unmap_and_forget(place);
  return 0;
}

int rte_fbarray_destroy(struct rte_fbarray* arr) {
  if (arr == nullptr) return fail(EINVAL);
  const List list;
  Attached*& place = List::find(*arr);
  if (place == nullptr) return fail(ENOENT);
  if (place->file.is_open()) {
    if (place->process != ::getpid()) {
      if (const int error = place->file.reopen_after_fork(); error != 0) return fail(error);
      place->process = ::getpid();
    }
    if (const int error = place->file.exclude_others(); error != 0) return fail(error);
    place->file.remove(rte_eal_get_runtime_dir(), place->name);
    extmem::base::crash_point("fbarray_removed");
  }
  List::unmap_and_forget(place);
  *arr = rte_fbarray{};
  return 0;
}

}  // extern "C"
