// The file behind a page: rte_memseg_get_fd() and its kin.
//
// Internal memory is a memfd of ours. External memory is the program's: what it maps shared from a file, the kernel tells
// in /proc/self/maps; whether this process still has that file open, in /proc/self/fd.
#include <dirent.h>
#include <rte_memory.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "faces/dpdk/memory_domain.hpp"
#include "faces/dpdk/memory_lock.hpp"
#include "faces/dpdk/memory_ranges.hpp"

namespace extmem::dpdk {
namespace {

struct FileClose {
  void operator()(std::FILE* file) const noexcept { (void)std::fclose(file); }
};
struct DirClose {
  void operator()(DIR* dir) const noexcept { (void)::closedir(dir); }
};

struct Place {
  int fd = -1;
  std::uint64_t offset = 0;
};

struct Mapped {
  dev_t device = 0;
  ino_t inode = 0;
  std::uint64_t offset = 0;
};

/// Which file's bytes [start, start + length) are, where that is a shared mapping of one.
bool find_mapping(std::uintptr_t start, std::uint64_t length, Mapped& found) noexcept {
  const std::unique_ptr<std::FILE, FileClose> maps(std::fopen("/proc/self/maps", "re"));
  if (maps == nullptr) return false;
  char* line = nullptr;
  std::size_t room = 0;
  bool ok = false;
  while (::getline(&line, &room, maps.get()) > 0) {
    std::uintptr_t begin = 0, end = 0;
    char permissions[8] = {};
    std::uint64_t offset = 0, inode = 0;
    unsigned major = 0, minor = 0;
    if (std::sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %7s %" SCNx64 " %x:%x %" SCNu64, &begin, &end,
                    permissions, &offset, &major, &minor, &inode) != 7 ||
        start < begin || start >= end)
      continue;
    ok = length <= end - start && permissions[3] == 's' && inode != 0;
    found = Mapped{makedev(major, minor), inode, offset + (start - begin)};
    break;
  }
  std::free(line);
  return ok;
}

/// The lowest descriptor of this process that has the file open, or -1.
int find_descriptor(const Mapped& file) noexcept {
  const std::unique_ptr<DIR, DirClose> open(::opendir("/proc/self/fd"));
  if (open == nullptr) return -1;
  int found = -1;
  while (const dirent* const entry = ::readdir(open.get())) {
    char* end = nullptr;
    const long fd = std::strtol(entry->d_name, &end, 10);
    if (end == entry->d_name || *end != '\0' || (found >= 0 && fd >= found)) continue;
    struct stat status {};
    if (::fstat(static_cast<int>(fd), &status) == 0 && status.st_ino == file.inode &&
        status.st_dev == file.device)
      found = static_cast<int>(fd);
  }
  return found;
}

Place find_external(std::uintptr_t start, std::uint64_t length) noexcept {
  Mapped file;
  if (!find_mapping(start, length, file)) return {};
  return {find_descriptor(file), file.offset};
}

/// Returns: 0, or -1 with rte_errno.
int find_place(const rte_memseg* ms, Place& place) noexcept {
  if (ms == nullptr) return fail(EINVAL);
  const RangePtr range = ranges::of(ms);
  if (range == nullptr) return fail(EINVAL);
  const auto index = static_cast<unsigned>(ms - range->pages());
  const rte_memseg_list* const list = range->list_if_made();
  if (rte_fbarray_is_used(const_cast<rte_fbarray*>(&list->memseg_arr), index) != 1) return fail(ENOENT);
  const std::uint64_t offset = std::uint64_t{index} * range->page_size;
  if (range->external()) {
    place = find_external(range->base + offset, range->page_size);
    return place.fd >= 0 ? 0 : fail(ENOTSUP);
  }
  const auto file = domain().region_file(range->region);
  if (!file) return fail(ENODEV);
  place = {file->fd, file->offset + offset};
  return 0;
}

int find_fd(const rte_memseg* ms) noexcept {
  Place place;
  return find_place(ms, place) == 0 ? place.fd : -1;
}

int find_fd_and_offset(const rte_memseg* ms, std::size_t* offset) noexcept {
  if (ms == nullptr || offset == nullptr) return fail(EINVAL);
  Place place;
  if (find_place(ms, place) != 0) return -1;
  *offset = place.offset;
  return 0;
}

}  // namespace
}  // namespace extmem::dpdk

using namespace extmem::dpdk;

int rte_memseg_get_fd(const struct rte_memseg* ms) {
  const ReadMemory reading;
  return find_fd(ms);
}
int rte_memseg_get_fd_thread_unsafe(const struct rte_memseg* ms) { return find_fd(ms); }
int rte_memseg_get_fd_offset(const struct rte_memseg* ms, size_t* offset) {
  const ReadMemory reading;
  return find_fd_and_offset(ms, offset);
}
int rte_memseg_get_fd_offset_thread_unsafe(const struct rte_memseg* ms, size_t* offset) {
  return find_fd_and_offset(ms, offset);
}
