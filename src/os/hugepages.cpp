#include "os/hugepages.hpp"

#include <sys/prctl.h>
#include <sys/stat.h>

#include <optional>
#include <string_view>
#include <utility>

#include "base/error.hpp"
#include "os/kernel_text.hpp"

namespace extmem::os {
namespace {

constexpr std::string_view kPools = "/sys/kernel/mm/hugepages/";
constexpr std::string_view kThp = "/sys/kernel/mm/transparent_hugepage/";
constexpr std::string_view kPoolPrefix = "hugepages-";

// The bytes in "hugepages-2048kB".
std::optional<std::size_t> size_in_name(std::string_view name) noexcept {
  if (!name.starts_with(kPoolPrefix)) return std::nullopt;
  name.remove_prefix(kPoolPrefix.size());
  const auto kilobytes = take_number(name);
  if (!kilobytes || name != "kB") return std::nullopt;
  return static_cast<std::size_t>(*kilobytes * 1024);
}

std::uint64_t figure(std::string_view folder, std::string_view pool, std::string_view file) noexcept {
  Path path(folder);
  path.add(pool).add("/").add(file);
  return read_number(path.c_str()).value_or(0);
}

void insert_sorted(HugepagePools& pools, const HugepagePool& pool) noexcept {
  if (pools.count == HugepagePools::kCapacity) return;
  std::size_t at = pools.count++;
  pools.pools[at] = pool;
  for (; at > 0 && pools.pools[at - 1].page_size > pools.pools[at].page_size; --at) {
    std::swap(pools.pools[at - 1], pools.pools[at]);
  }
}

HugepagePools pools_in(std::string_view folder) noexcept {
  HugepagePools pools;
  FolderReader reader(Path(folder).c_str());
  while (const auto name = reader.next()) {
    const auto page_size = size_in_name(*name);
    if (!page_size) continue;
    HugepagePool pool;
    pool.page_size = *page_size;
    pool.total = figure(folder, *name, "nr_hugepages");
    pool.free = figure(folder, *name, "free_hugepages");
    pool.reserved = figure(folder, *name, "resv_hugepages");
    pool.surplus = figure(folder, *name, "surplus_hugepages");
    pool.overcommit = figure(folder, *name, "nr_overcommit_hugepages");
    insert_sorted(pools, pool);
  }
  return pools;
}

HugepagePools pool_of_meminfo() noexcept {
  HugepagePools pools;
  std::array<char, 8192> buffer;
  const auto text = read_text("/proc/meminfo", buffer);
  if (!text) return pools;
  const auto kilobytes = number_after(*text, "Hugepagesize:");
  if (!kilobytes) return pools;
  HugepagePool pool;
  pool.page_size = static_cast<std::size_t>(*kilobytes * 1024);
  pool.total = number_after(*text, "HugePages_Total:").value_or(0);
  pool.free = number_after(*text, "HugePages_Free:").value_or(0);
  pool.reserved = number_after(*text, "HugePages_Rsvd:").value_or(0);
  pool.surplus = number_after(*text, "HugePages_Surp:").value_or(0);
  pool.overcommit = read_number("/proc/sys/vm/nr_overcommit_hugepages").value_or(0);
  insert_sorted(pools, pool);
  return pools;
}

bool exists(const char* path) noexcept {
  struct stat status {};
  return ::stat(path, &status) == 0;
}

enum class Setting : std::uint8_t { off, on, unknown };

// The chosen word of "always [madvise] never" stands in brackets.
Setting read_setting(const char* path) noexcept {
  std::array<char, 256> buffer;
  const auto text = read_text(path, buffer);
  if (!text) return Setting::unknown;
  for (const std::string_view off : {"[never]", "[deny]", "[inherit]"}) {
    if (text->find(off) != std::string_view::npos) return Setting::off;
  }
  return Setting::on;
}

// One setting rules all sizes unless the folder of a size has its own ("inherit" points back to the common
// one).
bool thp_permitted(std::string_view file) noexcept {
  const Setting common = read_setting(Path(kThp).add(file).c_str());
  if (common == Setting::on) return true;
  if (common == Setting::unknown) return !exists("/sys/kernel/mm");
  FolderReader reader(Path(kThp).c_str());
  while (const auto name = reader.next()) {
    if (!size_in_name(*name)) continue;
    Path path(kThp);
    path.add(*name).add("/").add(file);
    if (read_setting(path.c_str()) == Setting::on) return true;
  }
  return false;
}

}  // namespace

Result<HugepagePools> hugepage_pools(int node) noexcept {
  if (node == kAnyNode) {
    HugepagePools pools = pools_in(kPools);
    return pools.count > 0 ? pools : pool_of_meminfo();
  }
  Path folder("/sys/devices/system/node/node");
  if (node >= 0) folder.add(static_cast<std::uint64_t>(node));
  if (node < 0 || !exists(folder.c_str())) {
    return EXTMEM_ERROR(ENODEV,
                        "no hugepage figures for that NUMA node: it does not exist, or /sys is not mounted");
  }
  folder.add("/hugepages/");
  return pools_in(folder.c_str());
}

std::size_t default_hugepage_size() noexcept {
  const HugepagePools pools = pool_of_meminfo();
  return pools.count > 0 ? pools.pools[0].page_size : 0;
}

ThpPolicy thp_policy() noexcept {
  ThpPolicy policy;
  policy.page_size =
      static_cast<std::size_t>(read_number(Path(kThp).add("hpage_pmd_size").c_str()).value_or(0));
  if (::prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 1) return policy;
  policy.anonymous = thp_permitted("enabled");
  policy.shmem = thp_permitted("shmem_enabled");
  return policy;
}

}  // namespace extmem::os
