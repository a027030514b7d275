#include "shared/segment_reader.hpp"

#include <algorithm>
#include <atomic>

#include "base/error.hpp"
#include "os/file.hpp"
#include "os/mapping.hpp"

namespace extmem::shared {

namespace {
Error cut_short() noexcept {
  return EXTMEM_ERROR(EUCLEAN, "the control segment was cut short: remove the domain");
}
}  // namespace

Result<void> SegmentReader::bytes(std::uint64_t offset, void* to, std::uint64_t length) const noexcept {
  auto* at = static_cast<std::byte*>(to);
  while (length != 0) {
    EXTMEM_TRY(got, os::read_at(file_.get(), at, length, offset));
    if (got == 0) return cut_short();
    at += got;
    offset += got;
    length -= got;
  }
  // What is read later is not older: pairs with the writers' release fences (Lock::begin_turn, Core::enter).
  std::atomic_thread_fence(std::memory_order_acquire);
  return {};
}

Result<void> SegmentReader::copy(std::byte* copy, std::uint64_t offset, std::uint64_t length) const noexcept {
  const std::uint64_t end = offset + length;
  const std::uint64_t page = os::page_size();
  while (offset < end) {
    // kNoMore: no data from here on. That the file is long enough, check() finds out.
    EXTMEM_TRY(data, os::next_data(file_.get(), offset));
    const std::uint64_t from = std::min(data & ~(page - 1), end);
    if (from > offset) os::discard(copy + offset, from - offset);
    if (from >= end) return {};
    // kNoMore: a hole was made of it: it reads as zeroes, or is cut short.
    const std::uint64_t hole = std::min(os::next_hole(file_.get(), from), end);
    const std::uint64_t to = std::clamp((hole + page - 1) & ~(page - 1), from + page, end);
    EXTMEM_TRY_VOID(bytes(from, copy + from, to - from));
    offset = to;
  }
  return {};
}

Result<void> SegmentReader::check(bool named) const noexcept {
  EXTMEM_TRY(status, os::file_status(file_.get()));
  if (status.bytes != bytes_) return cut_short();
  if (named && status.names == 0) return EXTMEM_ERROR(ESTALE, "the domain was removed: look for another one");
  return {};
}

}  // namespace extmem::shared
