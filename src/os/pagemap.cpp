#include "os/pagemap.hpp"

#include <linux/kernel-page-flags.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <limits>

#include "base/error.hpp"
#include "os/descriptor.hpp"
#include "os/mapping.hpp"

namespace extmem::os {
namespace {

// An entry of pagemap (Documentation/admin-guide/mm/pagemap.rst).
constexpr std::uint64_t kFrameMask = (std::uint64_t{1} << 55) - 1;
constexpr std::uint64_t kExclusive = std::uint64_t{1} << 56;
constexpr std::uint64_t kFileOrShared = std::uint64_t{1} << 61;
constexpr std::uint64_t kSwapped = std::uint64_t{1} << 62;
constexpr std::uint64_t kPresent = std::uint64_t{1} << 63;

constexpr std::size_t kBatch = 512;  // entries read at once: 4 KiB of stack
constexpr std::uint64_t kEntry = sizeof(std::uint64_t);

Error absent() noexcept {
  return EXTMEM_ERROR(ENOENT,
                      "a page is not present, so it has no physical address: pre-fault the memory first");
}

Error zero_page() noexcept {
  return EXTMEM_ERROR(
      ENOENT,
      "a page was read but never written, so the shared zero page stands in for it: pre-fault the "
      "memory for writing first");
}

// Reads `count` entries from entry number `first` on. Returns: how many came.
std::size_t read_entries(const Descriptor& file, std::uint64_t first, std::uint64_t* entries,
                         std::size_t count) noexcept {
  std::size_t bytes = 0;
  while (bytes < count * kEntry) {
    const ssize_t got = ::pread(file.get(), reinterpret_cast<char*>(entries) + bytes, count * kEntry - bytes,
                                static_cast<off_t>(first * kEntry + bytes));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    bytes += static_cast<std::size_t>(got);
  }
  return bytes / kEntry;
}

// Decides whether a page that several mappings share may be used: it could be a zero page.
class SharedPageCheck {
 public:
  Result<void> operator()(std::uint64_t entry) noexcept {
    const std::uint64_t frame = entry & kFrameMask;
    if (!file_.is_open() || !load(frame)) {
      // Zero pages count as neither exclusive nor file; but so do private pages that fork or KSM shares.
      if ((entry & kFileOrShared) != 0) return {};
      return EXTMEM_ERROR(EBUSY,
                          "a page is the shared zero page, or shared with a forked process, and without "
                          "/proc/kpageflags there is no telling which: write to all of the memory first");
    }
    const std::uint64_t flags = flags_[frame - first_];
    if ((flags >> KPF_ZERO_PAGE & 1U) != 0) return zero_page();
    if ((flags >> KPF_KSM & 1U) != 0) {
      return EXTMEM_ERROR(
          EBUSY,
          "a page is shared by KSM and moves when it is written: madvise(MADV_UNMERGEABLE) the "
          "memory first");
    }
    if ((flags >> KPF_HWPOISON & 1U) != 0) {
      return EXTMEM_ERROR(EHWPOISON, "a page of the memory has failed in hardware");
    }
    return {};
  }

 private:
  // Frames mostly come in runs: reads some more than one at a time.
  bool load(std::uint64_t frame) noexcept {
    if (frame >= first_ && frame - first_ < count_) return true;
    first_ = frame;
    count_ = read_entries(file_, frame, flags_.data(), flags_.size());
    return count_ > 0;
  }

  Descriptor file_ = Descriptor::open_to_read("/proc/kpageflags");
  std::array<std::uint64_t, 64> flags_;
  std::uint64_t first_ = 0;
  std::size_t count_ = 0;
};

// Checks one entry of pagemap and gives its frame number.
Result<std::uint64_t> frame_of(std::uint64_t entry, SharedPageCheck& shared) noexcept {
  if ((entry & kSwapped) != 0) {
    return EXTMEM_ERROR(ENOENT,
                        "a page is swapped out, so it has no physical address: lock the memory first");
  }
  if ((entry & kPresent) == 0) return absent();
  const std::uint64_t frame = entry & kFrameMask;
  if (frame == 0) {
    return EXTMEM_ERROR(
        EPERM,
        "the kernel does not show physical addresses to this process: it needs CAP_SYS_ADMIN (in the "
        "first user namespace); run as root, or use another source of IOVAs");
  }
  if ((entry & kExclusive) == 0) EXTMEM_TRY_VOID(shared(entry));
  return frame;
}

}  // namespace

Result<void> physical_addresses(const void* p, std::size_t os_page_size, std::size_t n_pages,
                                std::uint64_t* out) noexcept {
  const std::size_t base_page = page_size();
  const auto address = reinterpret_cast<std::uintptr_t>(p);
  if (!std::has_single_bit(os_page_size) || os_page_size < base_page) {
    return EXTMEM_ERROR(EINVAL, "an OS page size must be a power of two, and not below the base page size");
  }
  if (address % os_page_size != 0) {
    return EXTMEM_ERROR(EINVAL, "memory whose physical addresses are wanted must start on an OS page");
  }
  if (n_pages == 0) return {};
  if (out == nullptr || n_pages > (std::numeric_limits<std::uintptr_t>::max() - address) / os_page_size) {
    return EXTMEM_ERROR(EINVAL,
                        "no room for the physical addresses, or more pages than the address space has");
  }
  const Descriptor pagemap = Descriptor::open_to_read("/proc/self/pagemap");
  if (!pagemap.is_open()) {
    const int failed = errno;
    if (failed == ENOENT) {
      return EXTMEM_ERROR(EOPNOTSUPP,
                          "there is no /proc/self/pagemap: mount /proc, or the kernel is built without it");
    }
    return EXTMEM_SYS_ERROR(failed, "cannot open /proc/self/pagemap: physical addresses need CAP_SYS_ADMIN");
  }
  SharedPageCheck shared;
  const std::uint64_t first = address / base_page;
  const std::size_t per_page = os_page_size / base_page;

  if (per_page == 1) {
    std::array<std::uint64_t, kBatch> entries;
    for (std::size_t done = 0; done < n_pages;) {
      const std::size_t wanted = std::min(kBatch, n_pages - done);
      const std::size_t got = read_entries(pagemap, first + done, entries.data(), wanted);
      if (got == 0) return absent();  // beyond the end of the address space
      for (std::size_t i = 0; i < got; ++i) {
        EXTMEM_TRY(frame, frame_of(entries[i], shared));
        out[done + i] = frame * base_page;
      }
      done += got;
    }
    return {};
  }

  // A page of many base pages: its two ends must fit, or it is not one page.
  for (std::size_t page = 0; page < n_pages; ++page) {
    std::array<std::uint64_t, 2> ends;
    const std::uint64_t at = first + page * per_page;
    if (read_entries(pagemap, at, &ends[0], 1) != 1 ||
        read_entries(pagemap, at + per_page - 1, &ends[1], 1) != 1)
      return absent();
    EXTMEM_TRY(low, frame_of(ends[0], shared));
    EXTMEM_TRY(high, frame_of(ends[1], shared));
    if (low % per_page != 0 || high != low + per_page - 1) {
      return EXTMEM_ERROR(EINVAL, "the memory is not made of OS pages of that size: give its true page size");
    }
    out[page] = low * base_page;
  }
  return {};
}

}  // namespace extmem::os
