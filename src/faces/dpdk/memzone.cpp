// rte_memzone_reserve() and its kin.
#include <rte_lcore.h>
#include <rte_malloc.h>
#include <rte_memzone.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstring>
#include <vector>

#include "base/bits.hpp"
#include "base/error.hpp"
#include "faces/dpdk/eal.hpp"
#include "faces/dpdk/memory_domain.hpp"
#include "faces/dpdk/memory_heaps.hpp"
#include "faces/dpdk/memory_lock.hpp"
#include "faces/dpdk/memory_ranges.hpp"
#include "faces/dpdk/memzone_max.hpp"
#include "faces/dpdk/memzone_table.hpp"

namespace extmem::dpdk {
namespace {

constexpr std::size_t kCacheLine = RTE_CACHE_LINE_SIZE;

struct PageFlag {
  unsigned flag;
  std::uint64_t page_size;
};
constexpr PageFlag kPageFlags[] = {
    {RTE_MEMZONE_2MB, RTE_PGSIZE_2M},     {RTE_MEMZONE_1GB, RTE_PGSIZE_1G},
    {RTE_MEMZONE_16MB, RTE_PGSIZE_16M},   {RTE_MEMZONE_16GB, RTE_PGSIZE_16G},
    {RTE_MEMZONE_256KB, RTE_PGSIZE_256K}, {RTE_MEMZONE_256MB, RTE_PGSIZE_256M},
    {RTE_MEMZONE_512MB, RTE_PGSIZE_512M}, {RTE_MEMZONE_4GB, RTE_PGSIZE_4G},
};

constexpr unsigned all_page_flags() noexcept {
  unsigned all = 0;
  for (const PageFlag& page : kPageFlags) all |= page.flag;
  return all;
}
constexpr unsigned kKnownFlags = all_page_flags() | RTE_MEMZONE_SIZE_HINT_ONLY | RTE_MEMZONE_IOVA_CONTIG;

std::nullptr_t refuse(int error) noexcept {
  rte_errno = error;
  return nullptr;
}

/// What is asked for, once it has been found to be sound.
struct Request {
  const char* name = nullptr;
  std::size_t length = 0;  // 0: the biggest piece
  unsigned flags = 0;
  AllocOptions options{};
};

/// Reserves in one heap, by its pages. Errors: EEXIST, ENOMEM, ENOSPC, EDEADLK.
Result<MemzoneInfo> reserve_in(Heap heap, const Request& request) noexcept {
  const auto reserve = [&](std::uint64_t page_size) {
    AllocOptions options = request.options;
    options.os_page_size = page_size;
    return domain().reserve_memzone(heap, memzones::domain_name(request.name), request.length, options);
  };
  const unsigned pages = request.flags & all_page_flags();
  if (pages == 0 || role_of(heap).kind == HeapKind::external) return reserve(0);
  Result<MemzoneInfo> zone = EXTMEM_ERROR(ENOMEM, "no memory of these page sizes");
  for (const PageFlag& page : kPageFlags) {
    if ((pages & page.flag) == 0) continue;
    zone = reserve(page.page_size);
    if (zone || zone.error().code() != ENOMEM) return zone;
  }
  return (request.flags & RTE_MEMZONE_SIZE_HINT_ONLY) != 0 ? reserve(0) : zone;
}

Result<MemzoneInfo> reserve_anywhere(const Request& request) noexcept {
  const unsigned own = rte_socket_id();
  Result<MemzoneInfo> zone = EXTMEM_ERROR(ENOMEM, "no internal heap has so much memory");
  if (own < kMaxSockets && internal_heaps.by_socket[own]) {
    zone = reserve_in(internal_heaps.by_socket[own], request);
    if (zone || zone.error().code() != ENOMEM) return zone;
  }
  for (std::size_t i = 0; i < internal_heaps.count; ++i) {
    const auto socket = static_cast<unsigned>(internal_heaps.sockets[i]);
    if (socket == own) continue;
    zone = reserve_in(internal_heaps.by_socket[socket], request);
    if (zone || zone.error().code() != ENOMEM) return zone;
  }
  return zone;
}

std::size_t zone_count() noexcept {
  const std::size_t all = domain().memzone_count();
  return all > kOwnMemzones ? all - kOwnMemzones : 0;
}

/// Where to reserve: in one heap, or for SOCKET_ID_ANY in any internal one.
struct Where {
  bool anywhere = false;
  Heap heap{};
};

const rte_memzone* reserve(const char* name, Where where, std::size_t length, unsigned flags, unsigned align,
                           unsigned bound) noexcept {
  if (!domain()) return refuse(E_RTE_NO_CONFIG);
  if (zone_count() >= rte_memzone_max_get()) return refuse(ENOSPC);
  if (name == nullptr) return refuse(EINVAL);
  if (::strnlen(name, RTE_MEMZONE_NAMESIZE) == RTE_MEMZONE_NAMESIZE) return refuse(ENAMETOOLONG);
  if (in_callback()) return refuse(EDEADLK);
  if (domain().find_memzone(memzones::domain_name(name))) return refuse(EEXIST);
  if ((align & (align - 1)) != 0 || length > SIZE_MAX - (kCacheLine - 1)) return refuse(EINVAL);
  length = base::align_up(length, kCacheLine);
  if (bound != 0 && (std::max(length, kCacheLine) > bound || !base::is_power_of_two(bound)))
    return refuse(EINVAL);
  if ((!where.anywhere && !where.heap) || (flags & ~kKnownFlags) != 0) return refuse(EINVAL);
  Request request;
  request.name = name;
  request.length = length == 0 ? bound : length;
  request.flags = flags;
  request.options.align = std::max<std::size_t>(align, kCacheLine);
  request.options.nocross = bound;
  request.options.nocross_in_addresses = bound != 0;
  request.options.iova_contiguous = (flags & RTE_MEMZONE_IOVA_CONTIG) != 0;
  const auto zone = where.anywhere ? reserve_anywhere(request) : reserve_in(where.heap, request);
  if (!zone) {
    switch (zone.error().code()) {
      case EEXIST:
      case ENOSPC:
      case EDEADLK:
        return refuse(zone.error().code());
      default:
        return refuse(ENOMEM);
    }
  }
  const rte_memzone* const mz = memzones::describe(*zone);
  if (mz == nullptr) {
    (void)domain().free_memzone(memzones::domain_name(name));
    return refuse(ENOMEM);
  }
  return mz;
}

Where of_socket(int socket) noexcept {
  if (socket == SOCKET_ID_ANY) return {true, {}};
  return {false, heap_of_socket(socket)};
}

/// The program's memzones as they are now. Errors: EDEADLK inside a callback.
std::vector<const rte_memzone*> all_zones() noexcept {
  std::vector<MemzoneInfo> infos;
  (void)domain().walk_memzones([&](const MemzoneInfo& info) {
    infos.push_back(info);
    return true;
  });
  std::vector<const rte_memzone*> zones;
  for (const MemzoneInfo& info : infos) {
    const rte_memzone* const mz = memzones::is_program_zone(info) ? memzones::describe(info) : nullptr;
    if (mz != nullptr) zones.push_back(mz);
  }
  std::sort(zones.begin(), zones.end());  // by place, as DPDK walks
  return zones;
}

/// Pages that a memzone lies in, those that continue each other on one line.
void print_pages(std::FILE* f, const rte_memzone& mz) {
  const std::uint64_t page = mz.hugepage_sz;
  if (mz.addr == nullptr || !base::is_power_of_two(page)) return;
  std::uintptr_t begin = base::align_down(mz.addr_64, page);
  std::uintptr_t end = begin;
  Iova first = kBadIova;
  const auto print = [&] {
    if (end == begin) return;
    (void)std::fprintf(
        f, "  addr: 0x%" PRIxPTR " iova: 0x%" PRIx64 " len: 0x%" PRIxPTR " pagesz: 0x%" PRIx64 "\n", begin,
        static_cast<std::uint64_t>(first), end - begin, page);
  };
  (void)std::fprintf(f, "physical segments used:\n");
  walk_iovas(domain(), begin, base::align_up(mz.addr_64 + mz.len, page) - begin, page,
             [&](std::uintptr_t at, Iova iova, std::uint64_t bytes) {
               const bool goes_on =
                   end != begin &&
                   (first == kBadIova ? iova == kBadIova
                                      : static_cast<std::uint64_t>(iova) ==
                                            static_cast<std::uint64_t>(first) + (end - begin));
               if (!goes_on) {
                 print();
                 begin = at;
                 first = iova;
               }
               end = at + bytes;
             });
  print();
}

}  // namespace
}  // namespace extmem::dpdk

using namespace extmem::dpdk;

const struct rte_memzone* rte_memzone_reserve(const char* name, size_t len, int socket_id, unsigned flags) {
  return reserve(name, of_socket(socket_id), len, flags, kCacheLine, 0);
}
const struct rte_memzone* rte_memzone_reserve_aligned(const char* name, size_t len, int socket_id,
                                                      unsigned flags, unsigned align) {
  return reserve(name, of_socket(socket_id), len, flags, align, 0);
}
const struct rte_memzone* rte_memzone_reserve_bounded(const char* name, size_t len, int socket_id,
                                                      unsigned flags, unsigned align, unsigned bound) {
  return reserve(name, of_socket(socket_id), len, flags, align, bound);
}

const struct rte_memzone* rte_memzone_reserve_from_heap(const char* name, const char* heap_name, size_t len,
                                                        unsigned flags) {
  return reserve(name, {false, heap_of_name(heap_name)}, len, flags, kCacheLine, 0);
}
const struct rte_memzone* rte_memzone_reserve_aligned_from_heap(const char* name, const char* heap_name,
                                                                size_t len, unsigned flags, unsigned align) {
  return reserve(name, {false, heap_of_name(heap_name)}, len, flags, align, 0);
}
const struct rte_memzone* rte_memzone_reserve_bounded_from_heap(const char* name, const char* heap_name,
                                                                size_t len, unsigned flags, unsigned align,
                                                                unsigned bound) {
  return reserve(name, {false, heap_of_name(heap_name)}, len, flags, align, bound);
}

int rte_memzone_free(const struct rte_memzone* mz) {
  char name[RTE_MEMZONE_NAMESIZE];
  extmem::RegionPtr ptr;
  if (mz == nullptr || !memzones::find(mz, name, ptr)) return -EINVAL;
  const auto now = domain().find_memzone(memzones::domain_name(name));
  if (!now && now.error().code() != ENOENT) return -now.error().code();
  // Another process may have freed it, and the name may be another zone's by now.
  const bool same = now && now->ptr == ptr;
  const auto freed = same ? domain().free_memzone(memzones::domain_name(name)) : extmem::Result<void>();
  if (!freed && freed.error().code() != ENOENT) return -freed.error().code();
  memzones::forget(name);
  return same && freed ? 0 : -EINVAL;
}

const struct rte_memzone* rte_memzone_lookup(const char* name) {
  if (name == nullptr || ::strnlen(name, RTE_MEMZONE_NAMESIZE) == RTE_MEMZONE_NAMESIZE) return refuse(ENOENT);
  const auto zone = domain().find_memzone(memzones::domain_name(name));
  if (zone) {
    if (const rte_memzone* const mz = memzones::described(*zone)) return mz;
    return memzones::is_program_zone(*zone) ? memzones::describe(*zone) : refuse(ENOENT);
  }
  if (zone.error().code() == ENOENT) memzones::forget(name);
  return refuse(zone.error().code());
}

void rte_memzone_dump(FILE* f) {
  if (f == nullptr) return;
  unsigned number = 0;
  for (const rte_memzone* const mz : all_zones()) {
    (void)std::fprintf(f,
                       "Zone %u: name:<%s>, len:0x%zx, virt:%p, socket_id:%" PRId32 ", flags:%" PRIx32
                       ", IOVA:0x%" PRIx64 ", hugepage_sz:%" PRIu64 "\n",
                       number++, mz->name, mz->len, mz->addr, mz->socket_id, mz->flags, mz->iova,
                       mz->hugepage_sz);
    print_pages(f, *mz);
  }
}

void rte_memzone_walk(void (*func)(const struct rte_memzone*, void* arg), void* arg) {
  if (func == nullptr) return;
  for (const rte_memzone* const mz : all_zones()) func(mz, arg);
}
