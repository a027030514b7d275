// DPDK between two processes: a primary and a secondary on a heap over external memory.
//
// What it is: EAL with a few hugepages for itself (its multi-process mode needs them), without devices; the heap's memory
// is a file in a tmpfs, mapped by both at the same address, as rte_malloc_heap_memory_attach asks.
#pragma once

#include <fcntl.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_malloc.h>
#include <rte_memory.h>
#include <rte_memzone.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>
#include <vector>

namespace dpdk_shared {

constexpr const char* kHeap = "shared";
constexpr std::size_t kPage = 4096;
/// Far from what the kernel and EAL choose.
constexpr std::uintptr_t kBase = 0x2000'0000'0000;

/// Removes EAL's folder of this run, which it leaves behind.
inline void remove_folder(const std::string& prefix) {
  const std::filesystem::path folder = rte_eal_get_runtime_dir();
  std::error_code ignored;
  if (folder.filename() == prefix) std::filesystem::remove_all(folder, ignored);
}

/// Starts EAL on `cpu`, joins or creates the heap of `bytes` in `file`. Returns what failed, or nothing.
inline std::string open(bool create, const std::string& prefix, const char* file, std::size_t bytes, int cpu,
                        int& socket) {
  std::vector<std::string> arguments{"bench",
                                     "--file-prefix=" + prefix,
                                     create ? "--proc-type=primary" : "--proc-type=secondary",
                                     "--no-pci",
                                     "--no-telemetry",
                                     "--iova-mode=va",
                                     "--log-level=critical",
                                     "-l",
                                     std::to_string(cpu)};
  if (create) arguments.insert(arguments.end(), {"-m", "8"});
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  if (rte_eal_init(static_cast<int>(pointers.size()), pointers.data()) < 0) {
    const std::string reason = std::string("rte_eal_init: ") + rte_strerror(rte_errno);
    if (create) remove_folder(prefix);
    return reason;
  }
  const int fd = ::open(file, O_RDWR | O_CLOEXEC);
  if (fd < 0 || (create && ::ftruncate(fd, static_cast<off_t>(bytes)) != 0)) return "the file of the memory";
  void* const base = ::mmap(reinterpret_cast<void*>(kBase), bytes, PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
  ::close(fd);
  if (base == MAP_FAILED) return "the address of the memory is taken";
  if (create) {
    if (rte_malloc_heap_create(kHeap) != 0) return "rte_malloc_heap_create";
    const auto pages = static_cast<unsigned>(bytes / kPage);
    if (rte_malloc_heap_memory_add(kHeap, base, bytes, nullptr, pages, kPage) != 0)
      return "rte_malloc_heap_memory_add";
  } else if (rte_malloc_heap_memory_attach(kHeap, base, bytes) != 0) {
    return "rte_malloc_heap_memory_attach";
  }
  socket = rte_malloc_heap_get_socket(kHeap);
  return socket < 0 ? "rte_malloc_heap_get_socket" : "";
}

/// Ends EAL of the primary and removes what it leaves behind: its folder, and its hugepages' files.
inline void close(const std::string& prefix) {
  (void)rte_eal_cleanup();
  remove_folder(prefix);
  std::error_code ignored;
  std::ifstream mounts("/proc/mounts");
  for (std::string device, place, kind, rest;
       mounts >> device >> place >> kind && std::getline(mounts, rest);) {
    if (kind != "hugetlbfs") continue;
    for (const auto& file : std::filesystem::directory_iterator(place, ignored)) {
      if (file.path().filename().string().starts_with(prefix + "map_"))
        std::filesystem::remove(file.path(), ignored);
    }
  }
}

}  // namespace dpdk_shared
