#include "os/vma.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>

#include "base/error.hpp"
#include "os/descriptor.hpp"
#include "os/mapping.hpp"
#include "os/smaps.hpp"

namespace extmem::os {
namespace {

// <linux/fs.h> has these since Linux 6.11.
struct ProcmapQuery {
  std::uint64_t size;
  std::uint64_t query_flags;
  std::uint64_t query_addr;
  std::uint64_t vma_start;
  std::uint64_t vma_end;
  std::uint64_t vma_flags;
  std::uint64_t vma_page_size;
  std::uint64_t vma_offset;
  std::uint64_t inode;
  std::uint32_t dev_major;
  std::uint32_t dev_minor;
  std::uint32_t vma_name_size;
  std::uint32_t build_id_size;
  std::uint64_t vma_name_addr;
  std::uint64_t build_id_addr;
};
constexpr unsigned long kProcmapQuery = _IOWR('f', 17, ProcmapQuery);

struct Range {
  std::uint64_t start;
  std::uint64_t end;
};

Error not_mapped() noexcept {
  return EXTMEM_ERROR(EFAULT,
                      "a part of the memory is not mapped in this process: check its address and length");
}

Error cannot_look(int failed) noexcept {
  return EXTMEM_SYS_ERROR(failed,
                          "cannot find out the page size of memory: /proc/self is not readable; mount /proc");
}

// Returns: nothing where the kernel does not know the query.
std::optional<Result<std::size_t>> ask_by_query(Range range) noexcept {
  const Descriptor maps = Descriptor::open_to_read("/proc/self/maps");
  if (!maps.is_open()) return Result<std::size_t>(cannot_look(errno));
  std::size_t smallest = std::numeric_limits<std::size_t>::max();
  for (std::uint64_t at = range.start; at < range.end;) {
    ProcmapQuery query{};
    query.size = sizeof query;
    query.query_addr = at;
    if (::ioctl(maps.get(), kProcmapQuery, &query) != 0) {
      if (errno == ENOENT) return Result<std::size_t>(not_mapped());
      return std::nullopt;
    }
    smallest = std::min(smallest, static_cast<std::size_t>(query.vma_page_size));
    at = query.vma_end;
  }
  return Result<std::size_t>(smallest);
}

Result<std::size_t> ask_by_smaps(Range range) noexcept {
  SmapsReader reader;
  if (!reader.is_open()) return cannot_look(errno);
  std::size_t smallest = std::numeric_limits<std::size_t>::max();
  std::uint64_t known = range.start;  // the range is known up to here
  while (known < range.end) {
    const auto mapping = reader.next();
    if (!mapping || mapping->start > known) return not_mapped();
    if (mapping->end <= known) continue;
    smallest = std::min(smallest, static_cast<std::size_t>(mapping->kernel_page_size));
    known = mapping->end;
  }
  return smallest;
}

}  // namespace

Result<std::size_t> kernel_page_size(const void* p, std::size_t bytes) noexcept {
  Range range{};
  range.start = reinterpret_cast<std::uintptr_t>(p);
  if (bytes == 0 || __builtin_add_overflow(range.start, bytes, &range.end)) {
    return EXTMEM_ERROR(EINVAL, "an empty range, or one beyond the address space, has no page size");
  }
  if (const auto answer = ask_by_query(range)) return *answer;
  return ask_by_smaps(range);
}

Result<bool> is_hugetlb(const void* p, std::size_t bytes) noexcept {
  EXTMEM_TRY(size, kernel_page_size(p, bytes));
  return size > page_size();
}

bool is_shared_with_children(const void* p, std::size_t bytes) noexcept {
  const auto start = reinterpret_cast<std::uint64_t>(p);
  const std::uint64_t end = start + bytes;
  const Descriptor maps = Descriptor::open_to_read("/proc/self/maps");
  if (!maps.is_open()) return true;
  // "first-last rwxp offset dev inode path", in order of addresses.
  std::uint64_t first = 0, last = 0, number = 0, reached = start;
  int field = 0, flag = 0;
  std::array<char, 4096> buffer;
  for (;;) {
    const ssize_t got = ::read(maps.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return true;  // the range ends in nothing
    for (const char c : std::string_view(buffer.data(), static_cast<std::size_t>(got))) {
      if (c == '\n') {
        field = flag = 0;
        number = 0;
      } else if (field == 0 && c == '-') {
        first = number;
        number = 0;
      } else if (field == 0 && c == ' ') {
        last = number;
        field = 1;
      } else if (field == 0) {
        number = number << 4 | static_cast<std::uint64_t>(c <= '9' ? c - '0' : c - 'a' + 10);
      } else if (field == 1 && flag++ == 3) {
        field = 2;
        if (last <= reached) continue;
        if (first > reached || c != 'p') return true;
        reached = last;
        if (reached >= end) return false;
      }
    }
  }
}

}  // namespace extmem::os
