// Worker for Boost.Interprocess: managed_external_buffer over plain memory, with the mutex family.
//
// What it is: rbtree_best_fit<mutex_family>, which is what managed_shared_memory uses, over the same kind
// of memory that the other region allocators get (the stock managed_external_buffer has no mutex at all,
// so it could not be shared). Header-only, therefore inlined into this worker: its calls are cheaper than
// the others'. Memzones are its named objects.
#include <boost/interprocess/indexes/iset_index.hpp>
#include <boost/interprocess/managed_external_buffer.hpp>
#include <boost/interprocess/mem_algo/rbtree_best_fit.hpp>
#include <boost/interprocess/sync/mutex_family.hpp>
#include <boost/version.hpp>
#include <new>

#include "worker_main.hpp"

namespace {

namespace ipc = boost::interprocess;
using Manager =
    ipc::basic_managed_external_buffer<char, ipc::rbtree_best_fit<ipc::mutex_family>, ipc::iset_index>;

/// A named object of a memzone's length whose construction writes nothing.
struct Zone {
  Zone() {}  // NOLINT: "= default" would zero the bytes
  char bytes[bench::kZoneBytes];
};

struct Boost {
  static inline Manager manager;

  static const char* open(const bench::Need& need) {
    Manager made(ipc::create_only, bench::map_memory(need.bytes, need.populate), need.bytes);
    manager.swap(made);
    return nullptr;
  }
  static std::string version() { return BOOST_LIB_VERSION; }
  static void* allocate(std::size_t n) { return manager.allocate(n, std::nothrow); }
  static void* zallocate(std::size_t n) {
    void* p = allocate(n);
    return p == nullptr ? nullptr : std::memset(p, 0, n);
  }
  static void* allocate_aligned(std::size_t n, std::size_t align) {
    return manager.allocate_aligned(n, align, std::nothrow);
  }
  static constexpr bool kNeedsOldSize = true;
  static void deallocate(void* p) { manager.deallocate(p); }
  static void* reallocate(void* p, std::size_t old, std::size_t n) {
    Manager::size_type got = n;
    char* reuse = static_cast<char*>(p);
    manager.allocation_command<char>(ipc::expand_fwd | ipc::nothrow_allocation, n, got, reuse);
    if (got >= n && reuse == p) return p;
    void* moved = allocate(n);
    if (moved == nullptr) return nullptr;
    std::memcpy(moved, p, old);
    deallocate(p);
    return moved;
  }
  static void thread_begin() {}
  static void thread_end() {}

  static bool zone_reserve(const char* name, std::size_t) {
    return manager.construct<Zone>(name, std::nothrow)() != nullptr;
  }
  static const void* zone_lookup(const char* name) { return manager.find<Zone>(name).first; }
  static bool zone_free(const char* name, const void*) { return manager.destroy<Zone>(name); }
  static std::size_t max_zones() { return ~std::size_t{0}; }

  static std::size_t used_bytes() { return manager.get_size() - manager.get_free_memory(); }
};

}  // namespace

int main(int argc, char** argv) { return bench::worker_main<Boost>(argc, argv); }
