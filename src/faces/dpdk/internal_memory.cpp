// The memory of internal heaps.
#include "faces/dpdk/internal_memory.hpp"

#include <linux/magic.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <sys/vfs.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>

#include "base/bits.hpp"
#include "base/error.hpp"
#include "faces/dpdk/memory_domain.hpp"
#include "faces/dpdk/memory_heaps.hpp"
#include "os/hugepages.hpp"
#include "os/mapping.hpp"
#include "os/memory_left.hpp"

namespace extmem::dpdk {
namespace {

constexpr std::uint64_t kNoHugeFromStart = std::uint64_t{64} << 20;  // as DPDK has it
constexpr std::uint64_t kNoHugeStep = std::uint64_t{2} << 20;  // pages of 4 KiB would make very many regions
constexpr std::uint64_t kNoLimit = std::uint64_t{1} << 46;

/// The page size of a hugetlbfs mount, or 0.
std::uint64_t page_size_of_mount(const char* path) noexcept {
  struct statfs status {};
  if (::statfs(path, &status) != 0 || status.f_type != HUGETLBFS_MAGIC) return 0;
  return static_cast<std::uint64_t>(status.f_bsize);
}

/// The page size to use: that of --huge-dir, else the kernel's default where it has free pages, else the largest that has.
/// 0, and a line in the log: there is none.
std::uint64_t choose_hugepages(const EalOptions& options) noexcept {
  const auto pools = os::hugepage_pools();
  if (options.huge_dir[0] != '\0') {
    const std::uint64_t size = page_size_of_mount(options.huge_dir.data());
    if (size == 0) RTE_LOG(ERR, EAL, "--huge-dir: '%s' is no mounted hugetlbfs\n", options.huge_dir.data());
    return size;
  }
  const std::uint64_t usual = os::default_hugepage_size();
  std::uint64_t size = 0;
  if (pools) {
    for (const os::HugepagePool& pool : pools->list()) {
      if (pool.available() == 0) continue;
      if (pool.page_size == usual) return usual;
      size = pool.page_size;
    }
  }
  if (size == 0)
    RTE_LOG(ERR, EAL,
            "no free hugepages: reserve some (/sys/kernel/mm/hugepages/hugepages-*kB/nr_hugepages), or use "
            "pages of the system's size with --no-huge\n");
  return size;
}

/// How many hugepages of that size nobody has been promised, on a node or on the machine.
std::uint64_t free_hugepages(int node, std::uint64_t page_size) noexcept {
  const auto pools = os::hugepage_pools(node);
  const os::HugepagePool* const pool = pools ? pools->find(page_size) : nullptr;
  return pool != nullptr && pool->free > pool->reserved ? pool->free - pool->reserved : 0;
}

int plan_first_memory(const EalOptions& options, InternalMemory& plan) noexcept {
  const unsigned sockets = rte_socket_count();
  const auto in_pages = [&](std::uint64_t bytes) { return base::align_up(bytes, plan.page_size); };
  std::uint64_t total = options.memory;
  if (options.has_socket_mem) {
    for (unsigned i = 0; i < kMaxSockets; ++i) {
      total += options.socket_mem[i];
      if (i < sockets) {
        plan.from_start[i] = in_pages(options.socket_mem[i]);
      } else if (options.socket_mem[i] != 0) {
        RTE_LOG(ERR, EAL, "--socket-mem: value %u is not 0, and there are %u sockets\n", i + 1, sockets);
        return fail(ENOMEM);
      }
    }
  } else {
    if (total == 0 && options.no_huge) total = kNoHugeFromStart;
    for (unsigned i = 0; i < sockets && i < kMaxSockets; ++i)
      plan.from_start[i] = in_pages(total / sockets + (i == 0 ? total % sockets : 0));
  }
  if (total != 0) return 0;
  if (options.legacy_mem) {  // what cannot grow has all there is, as in DPDK
    for (unsigned i = 0; i < sockets && i < kMaxSockets; ++i)
      plan.from_start[i] =
          free_hugepages(sockets > 1 ? rte_socket_id_by_idx(i) : kAnyNode, plan.page_size) * plan.page_size;
    return 0;
  }
  // Nothing was asked for: one page where this thread is, as DPDK takes for itself. What growth brings would come and go with
  // each allocation.
  for (unsigned i = 0; i < sockets && i < kMaxSockets; ++i) {
    if (static_cast<unsigned>(rte_socket_id_by_idx(i)) != rte_socket_id()) continue;
    if (options.has_socket_limit && options.socket_limit[i] != 0 && options.socket_limit[i] < plan.page_size)
      continue;
    plan.from_start[i] = plan.page_size;
    plan.from_start_or_later = true;
  }
  return 0;
}

/// About as much memory as the machine, or a control group of this process, has left: not more.
std::uint64_t memory_left() noexcept {
  std::uint64_t left = kNoHugeStep;
  while (left < kNoLimit && os::check_memory_left(2 * left)) left *= 2;
  for (std::uint64_t more = left / 2; more > left / 16; more /= 2)
    if (os::check_memory_left(left + more)) left += more;
  return left;
}

/// What a heap without hugepages may grow by where nothing is said: half of what is left beside the first memory. Programs allocate
/// until they get nothing, and ordinary pages have no pool that ends before the system does.
std::uint64_t limit_without_hugepages(const InternalMemory& plan) noexcept {
  std::uint64_t left = memory_left();
  for (const std::uint64_t first : plan.from_start) left -= std::min(left, first);
  return left / 2 / std::max(1u, rte_socket_count());
}

std::uint64_t limit_of(const EalOptions& options, const InternalMemory& plan, unsigned index) noexcept {
  const std::uint64_t limit = options.has_socket_limit ? options.socket_limit[index] : 0;
  if (limit == 0) return options.no_huge ? limit_without_hugepages(plan) : kNoLimit;
  return limit > plan.from_start[index] ? limit - plan.from_start[index] : 0;
}

int log_failure(const char* what, int socket, Error why) noexcept {
  RTE_LOG(ERR, EAL, "%s socket_%d: %s\n", what, socket, why.message());
  return fail(why.code());
}

void name_of(int socket, char (&name)[kMaxHeapName + 1]) noexcept {
  (void)std::snprintf(name, sizeof name, "socket_%d", socket);
}

}  // namespace

int plan_internal_memory(const EalOptions& options, InternalMemory& plan) noexcept {
  if (options.no_huge) {
    plan.page_size = os::page_size();
    plan.step = kNoHugeStep;
    plan.backing.kind = BackingKind::memfd;
  } else {
    plan.page_size = choose_hugepages(options);
    if (plan.page_size == 0) return fail(options.huge_dir[0] != '\0' ? EINVAL : EACCES);
    plan.step = plan.page_size;
    plan.backing.kind = BackingKind::memfd_hugetlb;
    plan.backing.os_page_size = plan.page_size;
    plan.backing.prefault = true;  // a shortage is an error now, and not a SIGBUS later
  }
  if (options.legacy_mem) plan.step = 0;
  if (options.iova_mode == RTE_IOVA_PA) {
    plan.backing.iova_source = IovaSource::physical;
    plan.backing.allow_unstable_iova = options.no_huge;
  } else {
    plan.backing.iova_source = IovaSource::identity;
  }
  return plan_first_memory(options, plan);
}

int make_internal_heap(const EalOptions& options, const InternalMemory& plan, unsigned index) noexcept {
  const int socket = rte_socket_id_by_idx(index);
  char name[kMaxHeapName + 1];
  name_of(socket, name);
  HeapOptions heap_options;
  heap_options.style = Style::exact;
  heap_options.on_death = OnDeath::keep;  // DPDK's memory belongs to the heap, not to a process
  heap_options.user_data = HeapRole{HeapKind::internal, socket}.user_data();
  GrowthPolicy& growth = heap_options.growth;
  const std::uint64_t limit = base::align_down(limit_of(options, plan, index), plan.page_size);
  if (plan.step != 0 && limit != 0) {
    growth.backing = plan.backing;
    growth.step = plan.step;
    growth.limit = limit;
    growth.keep_one = false;
    if (rte_socket_count() > 1) growth.backing.numa_node = socket;
  }
  const auto heap = domain().create_heap(name, heap_options);
  if (!heap)
    return heap.error().code() == EEXIST ? 0 : log_failure("cannot make the heap", socket, heap.error());
  if (plan.from_start[index] == 0) return 0;
  BackingSpec first = plan.backing;
  first.length = plan.from_start[index];
  if (rte_socket_count() > 1) first.numa_node = socket;
  const auto added = domain().add_backing(*heap, first);
  if (added || plan.from_start_or_later) return 0;
  RTE_LOG(ERR, EAL, "%" PRIu64 " MiB were asked for from the start\n", plan.from_start[index] >> 20);
  return log_failure("cannot get the memory of", socket, added.error());
}

int find_internal_heaps() noexcept {
  internal_heaps = InternalHeaps{};
  for (unsigned i = 0; i < rte_socket_count() && i < kMaxSockets; ++i) {
    const int socket = rte_socket_id_by_idx(i);
    if (socket < 0 || socket >= static_cast<int>(kMaxSockets)) continue;
    char name[kMaxHeapName + 1];
    name_of(socket, name);
    const auto heap = domain().find_heap(name);
    if (!heap || role_of(*heap).kind != HeapKind::internal)
      return log_failure(
          "cannot find the heap", socket,
          heap ? EXTMEM_ERROR(EPROTO, "the domain has one that is not the DPDK interface's") : heap.error());
    internal_heaps.by_socket[static_cast<std::size_t>(socket)] = *heap;
    internal_heaps.sockets[internal_heaps.count++] = socket;
  }
  return 0;
}

}  // namespace extmem::dpdk
