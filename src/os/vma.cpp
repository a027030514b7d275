#include "os/vma.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>

#include "base/error.hpp"
#include "os/descriptor.hpp"
#include "os/kernel_text.hpp"
#include "os/mapping.hpp"

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

// What has been understood of smaps so far.
class SmapsReading {
 public:
  explicit SmapsReading(Range range) noexcept : range_(range), at_(range.start) {}

  // Takes one line, or the beginning of a long one. Returns: whether the range may go on in what follows.
  bool take(std::string_view line) noexcept {
    if (const auto mapping = header(line)) {
      inside_ = mapping->start <= at_ && at_ < mapping->end;
      if (inside_) at_ = mapping->end;
      return inside_ || mapping->start <= at_;
    }
    if (inside_) {
      if (const auto kilobytes = number_after(line, "KernelPageSize:")) {
        smallest_ = std::min(smallest_, static_cast<std::size_t>(*kilobytes) * 1024);
        inside_ = false;
        return at_ < range_.end;
      }
    }
    return true;
  }

  [[nodiscard]] Result<std::size_t> result() const noexcept {
    if (at_ < range_.end) return not_mapped();
    return smallest_;
  }

 private:
  // "7f0000000000-7f0000200000 rw-p ...": all other lines begin with a capital letter.
  static std::optional<Range> header(std::string_view line) noexcept {
    Range range{};
    const char* const end = line.data() + line.size();
    const auto start_result = std::from_chars(line.data(), end, range.start, 16);
    if (start_result.ec != std::errc{} || start_result.ptr == end || *start_result.ptr != '-')
      return std::nullopt;
    const auto end_result = std::from_chars(start_result.ptr + 1, end, range.end, 16);
    if (end_result.ec != std::errc{}) return std::nullopt;
    return range;
  }

  Range range_;
  std::uint64_t at_;  // the range is known up to here
  bool inside_ = false;
  std::size_t smallest_ = std::numeric_limits<std::size_t>::max();
};

Result<std::size_t> ask_by_smaps(Range range) noexcept {
  const Descriptor smaps = Descriptor::open_to_read("/proc/self/smaps");
  if (!smaps.is_open()) return cannot_look(errno);
  SmapsReading reading(range);
  std::array<char, 4096> buffer;
  std::array<char, 128> line;  // the start of a line is enough: headers end in a path of any length
  std::size_t length = 0;
  for (;;) {
    const ssize_t got = ::read(smaps.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return cannot_look(errno);
    if (got == 0) return reading.result();
    for (const char c : std::string_view(buffer.data(), static_cast<std::size_t>(got))) {
      if (c != '\n') {
        if (length < line.size()) line[length++] = c;
        continue;
      }
      if (!reading.take(std::string_view(line.data(), length))) return reading.result();
      length = 0;
    }
  }
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

}  // namespace extmem::os
