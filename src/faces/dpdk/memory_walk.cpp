// Walks over memory, and lookups of addresses in it.
#include <rte_eal.h>
#include <rte_memory.h>

#include <cerrno>

#include "faces/dpdk/memory_domain.hpp"
#include "faces/dpdk/memory_lock.hpp"
#include "faces/dpdk/memory_ranges.hpp"
#include "os/mapping.hpp"
#include "os/pagemap.hpp"

namespace extmem::dpdk {
namespace {

/// What other processes have added becomes known here.
void look_around() noexcept { (void)domain().heap_by_id(0); }

/// visit(list, pages, count) for each range. Returns what ended it, 0, or -1 with rte_errno.
template <typename Visit>
int walk_lists(Visit&& visit) noexcept {
  look_around();
  return ranges::walk([&](Range& range) {
    const rte_memseg_list* const list = range.list();
    if (list == nullptr) return fail(ENOMEM);
    return visit(list, range.pages(), range.page_count());
  });
}

int walk_pages(rte_memseg_walk_t func, void* arg) noexcept {
  if (func == nullptr) return fail(EINVAL);
  return walk_lists([&](const rte_memseg_list* list, const rte_memseg* pages, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      if (const int ended = func(list, &pages[i], arg); ended != 0) return ended;
    }
    return 0;
  });
}

int walk_areas(rte_memseg_contig_walk_t func, void* arg) noexcept {
  if (func == nullptr) return fail(EINVAL);
  return walk_lists([&](const rte_memseg_list* list, const rte_memseg* pages, std::size_t) {
    return func(list, pages, list->len, arg);  // every page of a list is there
  });
}

int walk_all_lists(rte_memseg_list_walk_t func, void* arg) noexcept {
  if (func == nullptr) return fail(EINVAL);
  return walk_lists(
      [&](const rte_memseg_list* list, const rte_memseg*, std::size_t) { return func(list, arg); });
}

std::uint64_t page_of(const void* p) noexcept {
  return reinterpret_cast<std::uint64_t>(p) & ~(std::uint64_t{os::page_size()} - 1);
}

}  // namespace
}  // namespace extmem::dpdk

using namespace extmem::dpdk;

int rte_memseg_walk(rte_memseg_walk_t func, void* arg) {
  const ReadMemory reading;
  return walk_pages(func, arg);
}
int rte_memseg_contig_walk(rte_memseg_contig_walk_t func, void* arg) {
  const ReadMemory reading;
  return walk_areas(func, arg);
}
int rte_memseg_list_walk(rte_memseg_list_walk_t func, void* arg) {
  const ReadMemory reading;
  return walk_all_lists(func, arg);
}
int rte_memseg_walk_thread_unsafe(rte_memseg_walk_t func, void* arg) { return walk_pages(func, arg); }
int rte_memseg_contig_walk_thread_unsafe(rte_memseg_contig_walk_t func, void* arg) {
  return walk_areas(func, arg);
}
int rte_memseg_list_walk_thread_unsafe(rte_memseg_list_walk_t func, void* arg) {
  return walk_all_lists(func, arg);
}

struct rte_memseg_list* rte_mem_virt2memseg_list(const void* virt) {
  return ranges::look_up(virt).list;
}

struct rte_memseg* rte_mem_virt2memseg(const void* virt, const struct rte_memseg_list* msl) {
  const ranges::Found found = ranges::look_up(virt);
  return msl == nullptr || msl == found.list ? found.page : nullptr;
}

phys_addr_t rte_mem_virt2phy(const void* virt) {
  const std::uint64_t page = page_of(virt);
  std::uint64_t physical = 0;
  const auto found = extmem::os::physical_addresses(reinterpret_cast<const void*>(page),
                                                    extmem::os::page_size(), 1, &physical);
  return found ? physical + (reinterpret_cast<std::uint64_t>(virt) - page) : RTE_BAD_IOVA;
}

rte_iova_t rte_mem_virt2iova(const void* virt) {
  if (rte_eal_iova_mode() == RTE_IOVA_VA) return reinterpret_cast<rte_iova_t>(virt);
  return rte_mem_virt2phy(virt);
}

void* rte_mem_iova2virt(rte_iova_t iova) {
  if (iova == RTE_BAD_IOVA) return nullptr;
  const auto found = domain().address_of(extmem::Iova{iova});
  return found && ranges::at(*found) != nullptr ? *found : nullptr;
}
