// The program's own memory in the domain.
#include "faces/dpdk/external_memory.hpp"

#include <cerrno>
#include <span>

#include "base/bits.hpp"
#include "base/error.hpp"
#include "faces/dpdk/memory_domain.hpp"
#include "faces/dpdk/memory_lock.hpp"

namespace extmem::dpdk {
namespace {

constexpr std::size_t kSmallestPage = 64;

/// The core's errors as DPDK has them: what is wrong with the memory is EINVAL.
int fail_as(Error why) noexcept { return fail(why.code() == EOVERFLOW ? EINVAL : why.code()); }

}  // namespace

bool ExternalMemory::is_sound() const noexcept {
  return addr != nullptr && page_size >= kSmallestPage && base::is_power_of_two(page_size) && length != 0 &&
         base::is_aligned(length, page_size) &&
         base::is_aligned(reinterpret_cast<std::uintptr_t>(addr), page_size) &&
         (iovas == nullptr || length / page_size == n_pages);
}

int add_memory(Heap heap, const ExternalMemory& memory) noexcept {
  RegionSpec spec;
  spec.base = memory.addr;
  spec.length = memory.length;
  spec.os_page_size = memory.page_size;
  spec.any_iovas = true;         // DPDK does not ask what they are
  spec.alone_at_address = true;  // addresses are its name, in each process
  if (memory.iovas != nullptr)
    spec.iovas = std::span(reinterpret_cast<const Iova*>(memory.iovas), memory.n_pages);
  const auto added = domain().add_region(heap, spec);
  return added ? 0 : fail_as(added.error());
}

Result<RegionInfo> find_memory(const void* addr, std::size_t length,
                               FunctionRef<bool(std::uint32_t)> accept) noexcept {
  const auto is_it = [&](const RegionInfo& info) {
    return info.adder_base == addr && info.length == length && info.external && accept(info.heap_id);
  };
  if (const auto here = domain().region_of(addr)) {
    const auto info = domain().region_info(*here);
    if (info && is_it(*info)) return info;
  }
  RegionInfo found;
  const auto walked = domain().walk_regions([&](const RegionInfo& info) {
    if (!is_it(info)) return true;
    found = info;
    return false;
  });
  if (!walked) return walked.error();
  if (!found.id) return EXTMEM_ERROR(ENOENT, "no memory was added at exactly this address with this length");
  return found;
}

int remove_memory(const RegionInfo& region) noexcept {
  const WriteMemory alone;
  if (!alone.held()) return fail(EDEADLK);
  const auto removed = domain().remove_region(region.id);
  return removed ? 0 : fail(removed.error().code());
}

int attach_memory(const RegionInfo& region) noexcept {
  const auto attached = domain().attach_region(region.id, region.adder_base);
  return attached ? 0 : fail(attached.error().code());
}

int detach_memory(const RegionInfo& region) noexcept {
  const WriteMemory alone;
  if (!alone.held()) return fail(EDEADLK);
  const auto detached = domain().detach_region(region.id);
  if (detached) return 0;
  // A private domain has no process that would keep it; still, DPDK lets its one process go without it.
  return fail(detached.error().code());
}

}  // namespace extmem::dpdk
