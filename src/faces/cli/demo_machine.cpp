#include "faces/cli/demo_machine.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

namespace extmem::cli {
namespace {

namespace fs = std::filesystem;

std::uint64_t number_in(const fs::path& path) {
  std::ifstream file(path);
  std::uint64_t value = 0;
  return file >> value ? value : 0;
}

/// The word in brackets of a file like "always [madvise] never".
std::string chosen_in(const fs::path& path) {
  std::ifstream file(path);
  std::string word;
  while (file >> word) {
    if (word.size() > 2 && word.front() == '[') return word.substr(1, word.size() - 2);
  }
  return {};
}

std::uint64_t meminfo(const std::string& key) {
  std::ifstream file("/proc/meminfo");
  std::string word;
  std::uint64_t kib = 0;
  while (file >> word) {
    if (word == key + ":" && file >> kib) return kib * 1024;
  }
  return 0;
}

std::vector<HugePool> read_pools() {
  std::vector<HugePool> pools;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator("/sys/kernel/mm/hugepages", ignored)) {
    const std::string name = entry.path().filename();  // hugepages-2048kB
    if (!name.starts_with("hugepages-")) continue;
    HugePool pool;
    pool.page_size = std::strtoull(name.c_str() + 10, nullptr, 10) * 1024;
    pool.total = number_in(entry.path() / "nr_hugepages");
    const std::uint64_t free = number_in(entry.path() / "free_hugepages");
    pool.free = free - std::min(free, number_in(entry.path() / "resv_hugepages"));
    pools.push_back(pool);
  }
  std::sort(pools.begin(), pools.end(),
            [](const HugePool& a, const HugePool& b) { return a.page_size < b.page_size; });
  return pools;
}

/// Whether the frame number of a page that is surely present can be read: without privilege it is shown as 0.
bool pagemap_readable() {
  const int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  volatile int present = 1;
  const auto page =
      reinterpret_cast<std::uintptr_t>(&present) / static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  std::uint64_t entry = 0;
  const ssize_t got = pread(fd, &entry, sizeof entry, static_cast<off_t>(page * sizeof entry));
  close(fd);
  return got == static_cast<ssize_t>(sizeof entry) && (entry & ((std::uint64_t{1} << 55) - 1)) != 0;
}

unsigned count_nodes() {
  unsigned nodes = 0;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator("/sys/devices/system/node", ignored)) {
    const std::string name = entry.path().filename();
    if (name.starts_with("node") && name.size() > 4 && name[4] >= '0' && name[4] <= '9') ++nodes;
  }
  return std::max(nodes, 1u);
}

}  // namespace

Machine Machine::look() {
  Machine machine;
  utsname name{};
  if (uname(&name) == 0) machine.kernel = fmt::format("{} {}", name.sysname, name.release);
  machine.cpus = std::max(std::thread::hardware_concurrency(), 1u);
  machine.numa_nodes = count_nodes();
  machine.memory_total = meminfo("MemTotal");
  machine.memory_available = meminfo("MemAvailable");
  machine.pools = read_pools();
  const std::string anonymous = chosen_in("/sys/kernel/mm/transparent_hugepage/enabled");
  const std::string shmem = chosen_in("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
  machine.thp_anonymous = anonymous == "always" || anonymous == "madvise";
  machine.thp_shmem = shmem == "always" || shmem == "advise" || shmem == "within_size" || shmem == "force";
  machine.root = geteuid() == 0;
  machine.physical = pagemap_readable();
  return machine;
}

}  // namespace extmem::cli
