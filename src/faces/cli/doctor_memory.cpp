// The memory's part: hugepages per size and node, file systems of them, transparent ones, NUMA, the cgroup.
#include <fmt/core.h>
#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "faces/cli/doctor.hpp"
#include "faces/cli/format.hpp"

namespace extmem::cli::doctor {
namespace {

namespace fs = std::filesystem;

/// The entries of a folder whose names begin so, sorted by the number behind that.
std::vector<fs::path> numbered(const fs::path& folder, const std::string& prefix) {
  std::vector<std::pair<unsigned long, fs::path>> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename();
    if (!name.starts_with(prefix) || name.size() == prefix.size()) continue;
    if (name[prefix.size()] < '0' || name[prefix.size()] > '9') continue;
    found.emplace_back(std::stoul(name.substr(prefix.size())), entry.path());
  }
  std::sort(found.begin(), found.end());
  std::vector<fs::path> paths;
  for (const auto& [number, path] : found) paths.push_back(path);
  return paths;
}

constexpr const char* kNodes = "/sys/devices/system/node";

std::vector<fs::path> nodes() { return numbered(kNodes, "node"); }

void check_hugepages_of(Checks& checks, const fs::path& pool) {
  const std::string name = pool.filename();  // hugepages-2048kB
  const std::uint64_t bytes = std::stoull(name.substr(10)) * 1024;
  const std::string title = fmt::format("hugepages of {}", bytes_text(bytes));
  const std::int64_t total = number_in(pool / "nr_hugepages", 0);
  const std::int64_t unreserved =
      number_in(pool / "free_hugepages", 0) - number_in(pool / "resv_hugepages", 0);
  Check check{"Memory", title, State::ok, {}, {}, {}};
  check.found = fmt::format("{} free of {}", std::max<std::int64_t>(unreserved, 0), total);
  const auto places = nodes();
  std::string by_node;
  for (const fs::path& node : places) {
    const fs::path there = node / "hugepages" / name;
    by_node += fmt::format("{}{}: {} of {}", by_node.empty() ? "" : ", ", node.filename().string(),
                           number_in(there / "free_hugepages", 0), number_in(there / "nr_hugepages", 0));
  }
  if (!by_node.empty()) check.found += " (" + by_node + ")";
  if (unreserved <= 0) {
    check.state = State::limited;
    check.matters = "heaps on hugepages of that size, and stable physical addresses";
    const fs::path file = (places.size() > 1 ? places.front() / "hugepages" / name : pool) / "nr_hugepages";
    const bool large = bytes >= std::uint64_t{1} << 30;
    check.fix =
        fmt::format("echo {} | {}tee {}", number_in(file, 0) + (large ? 1 : 64), as_root(), file.string());
    if (large) check.fix += "  # where memory is in pieces already: boot with hugepagesz=1G hugepages=N";
  }
  checks.push_back(check);
}

void check_hugetlbfs(Checks& checks) {
  std::ifstream mounts("/proc/self/mounts");
  std::string writable;
  std::string any;
  for (std::string line; std::getline(mounts, line);) {
    std::istringstream words(line);
    std::string device, path, type;
    words >> device >> path >> type;
    if (type != "hugetlbfs") continue;
    any = path;
    if (::access(path.c_str(), W_OK) == 0) writable += (writable.empty() ? "" : ", ") + path;
  }
  Check check{"Memory", "hugetlbfs", State::ok, writable, {}, {}};
  if (writable.empty()) {
    check.state = State::limited;
    check.found = any.empty() ? "not mounted" : any + " is not writable for this user";
    check.matters = "regions of hugepages that outlive a process (`extmem region add --backing file:...`)";
    check.fix = any.empty() ? as_root() + "mkdir -p /mnt/huge && " + as_root() +
                                  "mount -t hugetlbfs -o mode=1777 none /mnt/huge"
                            : as_root() + "chmod 1777 " + any;
  }
  checks.push_back(check);
}

void check_thp(Checks& checks) {
  const fs::path folder = "/sys/kernel/mm/transparent_hugepage";
  const std::string anonymous = chosen(folder / "enabled");
  Check check{"Memory", "transparent hugepages", State::ok, anonymous, {}, {}};
  if (anonymous != "always" && anonymous != "madvise") {
    check.state = State::limited;
    if (anonymous.empty()) check.found = "not in this kernel";
    check.matters = "heaps that advise them (thp)";
    if (!anonymous.empty())
      check.fix = fmt::format("echo madvise | {}tee {}", as_root(), (folder / "enabled").string());
  }
  checks.push_back(check);
  const std::string shmem = chosen(folder / "shmem_enabled");
  Check shared{"Memory", "the same for shared memory", State::ok, shmem, {}, {}};
  if (shmem != "always" && shmem != "advise" && shmem != "within_size" && shmem != "force") {
    shared.state = State::limited;
    if (shmem.empty()) shared.found = "not in this kernel";
    shared.matters = "memory of named domains, memfds and shm with thp";
    if (!shmem.empty())
      shared.fix = fmt::format("echo advise | {}tee {}", as_root(), (folder / "shmem_enabled").string());
  }
  checks.push_back(shared);
}

void check_numa(Checks& checks) {
  const auto places = nodes();
  Check check{"Memory", "NUMA", State::ok, plural(std::max<std::size_t>(places.size(), 1), "node"), {}, {}};
  for (const fs::path& node : places) {
    std::ifstream file(node / "meminfo");
    for (std::string line; std::getline(file, line);) {
      const std::size_t at = line.find("MemFree:");
      if (at == std::string::npos) continue;
      check.found += fmt::format(", {}: {} free", node.filename().string(),
                                 bytes_text(std::stoull(line.substr(at + 8)) * 1024));
    }
  }
  int mode = 0;
  if (::syscall(SYS_get_mempolicy, &mode, nullptr, 0, nullptr, 0) != 0) {
    check.state = State::limited;
    check.found += fmt::format("; policies are refused: {}", std::strerror(errno));
    check.matters = "binding memory to a node (--node)";
    check.fix = "let mbind and get_mempolicy through (docker run --cap-add SYS_NICE)";
  }
  checks.push_back(check);
}

void check_cgroup(Checks& checks) {
  std::string group;
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("0::")) group = line.substr(3);
  }
  const fs::path folder = fs::path("/sys/fs/cgroup") / fs::path(group).relative_path();
  const std::int64_t limit = number_in(folder / "memory.max");
  if (limit >= 0) {
    const std::int64_t used = number_in(folder / "memory.current", 0);
    checks.push_back({"Memory",
                      "the cgroup's limit",
                      State::ok,
                      fmt::format("{} of {} used", bytes_text(static_cast<std::uint64_t>(used)),
                                  bytes_text(static_cast<std::uint64_t>(limit))),
                      {},
                      {}});
  }
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename();
    if (!name.starts_with("hugetlb.") || !name.ends_with("B.max") || number_in(entry.path()) < 0) continue;
    const auto most = static_cast<std::uint64_t>(number_in(entry.path()));
    Check check{"Memory", name, most == 0 ? State::limited : State::ok, bytes_text(most), {}, {}};
    if (most == 0) {
      check.matters = "hugepages of that size: a touch beyond the cgroup's limit ends in SIGBUS";
      check.fix = fmt::format("echo max | {}tee {}", as_root(), entry.path().string());
    }
    checks.push_back(check);
  }
}

}  // namespace

void check_memory(Checks& checks) {
  const auto pools = numbered("/sys/kernel/mm/hugepages", "hugepages-");
  for (const fs::path& pool : pools) check_hugepages_of(checks, pool);
  if (pools.empty())
    checks.push_back({"Memory", "hugepages", State::limited, "not in this kernel", "heaps on hugepages",
                      "run a kernel with CONFIG_HUGETLBFS"});
  check_hugetlbfs(checks);
  check_thp(checks);
  check_numa(checks);
  check_cgroup(checks);
}

}  // namespace extmem::cli::doctor
