#include "faces/dpdk_bridge/eal.hpp"

#include <rte_bus.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_tailq.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <sstream>

#include "faces/dpdk_bridge/error.hpp"

namespace extmem::faces::dpdk_bridge {
namespace {

/// The buses that are registered. DPDK 22.11 has no public function that lists them but the one that prints them.
std::vector<std::string> bus_names() {
  char* text = nullptr;
  std::size_t length = 0;
  std::FILE* const out = ::open_memstream(&text, &length);
  if (out == nullptr) throw std::bad_alloc();
  ::rte_bus_dump(out);
  if (std::fclose(out) != 0) {
    std::free(text);
    throw std::bad_alloc();
  }
  const std::unique_ptr<char, void (*)(void*)> owned(text, std::free);
  std::istringstream words(std::string(text, length));
  std::vector<std::string> names;
  for (std::string word; words >> word;) names.push_back(word);
  return names;
}

/// The errno of DPDK's last failure; a driver that has forgotten to set it fails with EIO.
int reason() noexcept { return rte_errno > 0 ? rte_errno : EIO; }

}  // namespace

bool eal_runs() noexcept {
  // Empty until EAL's memory is there, and still so where rte_eal_init has failed before that.
  return ::rte_eal_tailq_lookup("RTE_MEMPOOL") != nullptr;
}

int device_runs(extmem_domain_t* domain, const void* p, std::uint64_t length, std::vector<Run>& runs) {
  std::size_t count = 0;
  if (const int failed = ::extmem_iova_get_runs(domain, p, length, nullptr, 0, &count); failed != 0)
    return fail_as_extmem(failed);
  std::vector<extmem_iova_run_t> found(count);
  if (const int failed = ::extmem_iova_get_runs(domain, p, length, found.data(), found.size(), &count);
      failed != 0)
    return fail_as_extmem(failed);
  const bool addresses = ::rte_eal_iova_mode() == RTE_IOVA_VA;
  runs.clear();
  for (const extmem_iova_run_t& run : found) {
    rte_iova_t iova = run.iova;
    if (run.iova == EXTMEM_BAD_IOVA)
      iova = addresses ? reinterpret_cast<std::uintptr_t>(p) + run.offset : RTE_BAD_IOVA;
    if (!runs.empty()) {
      Run& last = runs.back();
      const bool joins = iova == RTE_BAD_IOVA ? last.iova == RTE_BAD_IOVA
                                              : last.iova != RTE_BAD_IOVA && last.iova + last.length == iova;
      if (joins) {
        last.length += run.length;
        continue;
      }
    }
    runs.push_back({run.offset, run.length, iova});
  }
  return 0;
}

std::vector<rte_iova_t> page_table(const std::vector<Run>& runs, std::uint64_t page_size) {
  std::vector<rte_iova_t> table;
  if (!runs.empty()) table.reserve((runs.back().offset + runs.back().length) / page_size);
  for (const Run& run : runs) {
    for (std::uint64_t at = 0; at < run.length; at += page_size)
      table.push_back(run.iova == RTE_BAD_IOVA ? RTE_BAD_IOVA : run.iova + at);
  }
  return table;
}

std::vector<Device> probed_devices() {
  std::vector<Device> devices;
  for (const std::string& bus : bus_names()) {
    const std::string all = "bus=" + bus;
    rte_dev_iterator at{};
    rte_errno = 0;  // 22.11's rte_dev_iterator_init returns what was in there, also on success
    if (::rte_dev_iterator_init(&at, all.c_str()) != 0) continue;  // a bus whose devices cannot be walked
    while (rte_device* const device = ::rte_dev_iterator_next(&at)) {
      if (::rte_dev_is_probed(device) != 0) devices.push_back({device, bus, ::rte_dev_name(device)});
    }
  }
  return devices;
}

int map_for(const Device& device, const Mapping& memory) noexcept {
  for (std::size_t i = 0; i < memory.runs.size(); ++i) {
    const Run& run = memory.runs[i];
    if (run.iova == RTE_BAD_IOVA) continue;
    rte_errno = 0;
    const int answer = ::rte_dev_dma_map(device.device, memory.base + run.offset, run.iova, run.length);
    if (answer == 0) continue;
    const int why = reason();
    bool any = false;
    for (std::size_t mapped = i; mapped-- > 0;) {
      const Run& undone = memory.runs[mapped];
      if (undone.iova == RTE_BAD_IOVA) continue;
      any = true;
      (void)::rte_dev_dma_unmap(device.device, memory.base + undone.offset, undone.iova, undone.length);
    }
    // The vdev bus answers 1 for a device without a driver. Who has mapped one run does not "not support" the next.
    if (!any && (answer > 0 || why == ENOTSUP)) return 0;
    return fail(why, "device %s (bus %s) refused to map %llu bytes at %p for DMA: %s", device.name.c_str(),
                device.bus.c_str(), static_cast<unsigned long long>(run.length),
                static_cast<void*>(memory.base + run.offset), ::rte_strerror(why));
  }
  return 1;
}

int unmap_for(const Device& device, const Mapping& memory, bool shared) noexcept {
  for (std::size_t i = 0; i < memory.runs.size(); ++i) {
    const Run& run = memory.runs[i];
    if (run.iova == RTE_BAD_IOVA) continue;
    rte_errno = 0;
    if (::rte_dev_dma_unmap(device.device, memory.base + run.offset, run.iova, run.length) >= 0) continue;
    const int why = reason();
    if (shared && (why == EINVAL || why == ENOENT)) continue;
    for (std::size_t again = i; again-- > 0;) {
      const Run& undone = memory.runs[again];
      if (undone.iova == RTE_BAD_IOVA) continue;
      (void)::rte_dev_dma_map(device.device, memory.base + undone.offset, undone.iova, undone.length);
    }
    return fail(why, "device %s (bus %s) did not let go of %llu bytes at %p: %s; stop it, then try again",
                device.name.c_str(), device.bus.c_str(), static_cast<unsigned long long>(run.length),
                static_cast<void*>(memory.base + run.offset), ::rte_strerror(why));
  }
  return 0;
}

}  // namespace extmem::faces::dpdk_bridge
