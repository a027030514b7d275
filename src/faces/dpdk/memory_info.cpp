// The whole of memory in figures and in print, locking a page, and secrets.
#include <rte_eal.h>
#include <rte_memory.h>
#include <sys/mman.h>

#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>

#include "faces/dpdk/eal.hpp"
#include "faces/dpdk/memory_lock.hpp"
#include "faces/dpdk/memory_ranges.hpp"
#include "os/mapping.hpp"

namespace extmem::dpdk {
namespace {

/// Pages that differ in nothing but their place.
struct Row {
  std::size_t first = 0;
  std::size_t count = 0;
};

void print_row(std::FILE* f, unsigned list_number, const rte_memseg_list& list, const rte_memseg* pages,
               Row row) {
  const rte_memseg& page = pages[row.first];
  const int fd = rte_memseg_get_fd_thread_unsafe(&page);
  (void)std::fprintf(f, "Segment %u-%zu", list_number, row.first);
  if (row.count > 1) (void)std::fprintf(f, "..%zu", row.first + row.count - 1);
  (void)std::fprintf(f,
                     ": IOVA:0x%" PRIx64 ", len:%zu, virt:%p, socket_id:%" PRId32 ", hugepage_sz:%" PRIu64
                     ", nchannel:%" PRIx32 ", nrank:%" PRIx32 " fd:%i%s\n",
                     page.iova, row.count * page.len, page.addr, page.socket_id, page.hugepage_sz,
                     page.nchannel, page.nrank, fd, list.external != 0 ? " external" : "");
}

/// How many pages from `first` on continue each other, in IOVAs too.
Row row_from(const rte_memseg* pages, std::size_t first, std::size_t count) noexcept {
  std::size_t next = first + 1;
  for (; next < count; ++next) {
    const bool bad = pages[first].iova == RTE_BAD_IOVA;
    const rte_iova_t expected = bad ? RTE_BAD_IOVA : pages[next - 1].iova + pages[next - 1].len;
    if (pages[next].iova != expected) break;
  }
  return {first, next - first};
}

}  // namespace
}  // namespace extmem::dpdk

using namespace extmem::dpdk;

void rte_dump_physmem_layout(FILE* f) {
  if (f == nullptr) return;
  const ReadMemory reading;
  unsigned number = 0;
  (void)ranges::walk([&](Range& range) {
    const rte_memseg_list* const list = range.list();
    if (list == nullptr) return 0;
    for (std::size_t first = 0; first < range.page_count();) {
      const Row row = row_from(range.pages(), first, range.page_count());
      print_row(f, number, *list, range.pages(), row);
      first += row.count;
    }
    ++number;
    return 0;
  });
}

uint64_t rte_eal_get_physmem_size(void) {
  const ReadMemory reading;
  return ranges::internal_bytes(SOCKET_ID_ANY);
}

unsigned rte_memory_get_nchannel(void) { return options().channels; }
unsigned rte_memory_get_nrank(void) { return options().ranks; }

int rte_mem_lock_page(const void* virt) {
  const std::uint64_t page = extmem::os::page_size();
  const std::uint64_t at = reinterpret_cast<std::uint64_t>(virt) & ~(page - 1);
  return ::mlock(reinterpret_cast<const void*>(at), page) == 0 ? 0 : -errno;
}

int rte_eal_using_phys_addrs(void) {
  const int here = 1;  // a page that is there: this one, of the stack
  return rte_mem_virt2phy(&here) != RTE_BAD_IOVA ? 1 : 0;
}

void rte_memzero_explicit(void* dst, size_t sz) { ::explicit_bzero(dst, sz); }

bool rte_memeq_timingsafe(const void* a, const void* b, size_t n) {
  const auto* const left = static_cast<const volatile unsigned char*>(a);
  const auto* const right = static_cast<const volatile unsigned char*>(b);
  unsigned different = 0;
  for (std::size_t i = 0; i < n; ++i) different |= static_cast<unsigned>(left[i] ^ right[i]);
  return different == 0;
}
