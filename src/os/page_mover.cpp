#include "os/page_mover.hpp"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/bits.hpp"
#include "os/descriptor.hpp"
#include "os/errno_keeper.hpp"
#include "os/kernel_text.hpp"
#include "os/mapping.hpp"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4  // Linux 5.7
#endif
#ifndef MADV_COLD
#define MADV_COLD 20  // Linux 5.4
#endif

namespace extmem::os {
namespace {

constexpr std::uint64_t kUsualMost = 65530;  // vm.max_map_count, where it cannot be read
constexpr std::int64_t kFewest = 128;        // fewer are not worth a count
constexpr std::int64_t kSkipped = 4096;      // moves, before it is counted again whether there is room
constexpr std::int64_t kSplit = 2;           // mappings that a moved piece adds at most

/// Mappings of this process; 0: not known.
std::uint64_t count_mappings() noexcept {
  const Descriptor maps = Descriptor::open_to_read("/proc/self/maps");
  if (!maps.is_open()) return 0;
  std::array<char, 4096> buffer;
  std::uint64_t lines = 0;
  for (;;) {
    const ssize_t got = ::read(maps.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return lines;
    lines += static_cast<std::uint64_t>(std::count(buffer.data(), buffer.data() + got, '\n'));
  }
}

/// Whether less than a quarter of the pages is in memory.
bool mostly_absent(std::byte* p, std::size_t bytes) noexcept {
  std::array<unsigned char, 4096> present;
  const std::size_t page = page_size();
  std::size_t there = 0;
  for (std::size_t done = 0; done < bytes;) {
    const std::size_t piece = std::min(bytes - done, present.size() * page);
    if (::mincore(p + done, piece, present.data()) != 0) return false;
    const auto pages = static_cast<std::ptrdiff_t>(piece / page);
    there += static_cast<std::size_t>(
        std::count_if(present.data(), present.data() + pages, [](unsigned char c) { return (c & 1) != 0; }));
    done += piece;
  }
  return there < bytes / page / 4;
}

/// Whether one of the two is locked in memory, or is not ours to move: the kernel refuses both pieces of advice there.
/// What is locked in between is a mapping of its own and takes its lock along.
bool locked(std::byte* to, std::byte* from, std::size_t bytes, std::size_t page) noexcept {
  const std::size_t last = bytes - page;
  return ::madvise(from, page, MADV_COLD) != 0 || ::madvise(from + last, page, MADV_COLD) != 0 ||
         ::madvise(to, page, MADV_DONTNEED) != 0 || ::madvise(to + last, page, MADV_DONTNEED) != 0;
}

/// What a failed move leaves: the kernel had no memory for its tables, and may have unmapped the place already. False: something
/// is mapped there, and it may be another thread's.
bool mapped_anew(std::byte* p, std::size_t bytes) noexcept {
  return ::mmap(p, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) ==
         p;
}

}  // namespace

void* PageMover::call_mremap(void* from, std::size_t bytes, int flags, void* to) noexcept {
  // Not the C library's mremap: some pass no address on without MREMAP_FIXED, and MREMAP_DONTUNMAP takes one too.
  return reinterpret_cast<void*>(::syscall(SYS_mremap, from, bytes, bytes, flags, to));
}

bool PageMover::may_split() noexcept {
  if (left_.load(std::memory_order_relaxed) > 0) return true;
  if (skip_.load(std::memory_order_relaxed) > 0) {
    skip_.fetch_sub(1, std::memory_order_relaxed);
    return false;
  }
  const std::uint64_t there = count_mappings();
  const std::uint64_t limit =
      most_ != 0 ? most_ : read_number("/proc/sys/vm/max_map_count").value_or(kUsualMost) / 4;
  const std::int64_t room =
      there != 0 && there < limit ? static_cast<std::int64_t>((limit - there) / 2) : std::int64_t{0};
  if (room >= kFewest) {
    left_.store(room, std::memory_order_relaxed);
    return true;
  }
  skip_.store(kSkipped, std::memory_order_relaxed);
  return false;
}

/// In two steps, by way of a place that the kernel chooses: a move straight to `to` unmaps that before it finds out whether
/// there is anything in the way. The first step is refused without a trace; the second has no reason to be.
PageMover::Step PageMover::move_one(std::byte* to, std::byte* from, std::size_t bytes) noexcept {
  void* const between = remap_(from, bytes, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, nullptr);
  if (between == MAP_FAILED) return errno == EFAULT ? Step::across_mappings : Step::refused;
  if (remap_(between, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to) != MAP_FAILED) {
    left_.fetch_sub(kSplit, std::memory_order_relaxed);
    return Step::done;
  }
  const bool whole = mapped_anew(to, bytes);
  std::memcpy(whole ? to : from, between, bytes);
  unmap(between, bytes);
  return whole ? Step::done : Step::place_lost;
}

/// Makes one mapping with its neighbours again of an old place. The pieces that were left there have kept the numbers of
/// where they began, by which the kernel joins what is side by side: the next object there would lie in them all. False:
/// nobody knows whether the place is still ours.
bool PageMover::renew(std::byte* p, std::size_t bytes) noexcept {
  // Mapped before the old one goes, so that there is nothing to run out of in between.
  void* const fresh = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (fresh == MAP_FAILED) return true;
  if (remap_(fresh, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, p) != MAP_FAILED) {
    forget_ends(p, bytes);
    return true;
  }
  unmap(fresh, bytes);
  return mapped_anew(p, bytes);
}

std::size_t PageMover::known_piece(const std::byte* at, std::size_t bytes) const noexcept {
  const auto begin = reinterpret_cast<std::uintptr_t>(at);
  for (const auto& end : ends_) {
    const std::uintptr_t distance = end.load(std::memory_order_relaxed) - begin;
    if (distance - 1 < bytes - 1) bytes = distance;
  }
  return bytes;
}

void PageMover::remember_end(const std::byte* at) noexcept {
  const auto end = reinterpret_cast<std::uintptr_t>(at);
  for (const auto& known : ends_) {
    if (known.load(std::memory_order_relaxed) == end) return;
  }
  ends_[next_end_.fetch_add(1, std::memory_order_relaxed) % kEnds].store(end, std::memory_order_relaxed);
}

void PageMover::forget_ends(const std::byte* p, std::size_t bytes) noexcept {
  const auto begin = reinterpret_cast<std::uintptr_t>(p);
  for (auto& known : ends_) {
    if (known.load(std::memory_order_relaxed) - begin - 1 < bytes - 1)
      known.store(0, std::memory_order_relaxed);
  }
}

Moved PageMover::move(std::byte* to, std::byte* from, std::size_t bytes) noexcept {
  const std::size_t page = page_size();
  const auto on_pages = reinterpret_cast<std::uintptr_t>(to) | reinterpret_cast<std::uintptr_t>(from);
  bytes = base::align_down(bytes, page);
  if (bytes < kLeast || (on_pages & (page - 1)) != 0) return {};
  const ErrnoKeeper keeper;
  if (!mostly_absent(to, bytes) || !may_split() || locked(to, from, bytes, page)) return {};
  // An object that grew where it had been moved to lies in several mappings, and the kernel moves (before Linux 6.17) within
  // one only. Where one ends is known of what was moved last; else it is found by halving.
  remember_end(to);
  std::size_t done = 0;
  Step step = Step::done;
  while (done < bytes && step != Step::refused) {
    const std::size_t before = done;
    std::size_t piece = known_piece(from + done, bytes - done);
    std::size_t too_many = 0;  // from `before` on: more than the mapping has
    for (;;) {
      step = move_one(to + done, from + done, piece);
      if (step == Step::place_lost) {
        std::memcpy(from, to, done);
        return Moved{0, true, false};
      }
      if (step == Step::refused) break;
      if (step == Step::done) {
        done += piece;
      } else {
        too_many = done - before + piece;
      }
      if (too_many <= done - before + page) break;  // found; or all at the first go
      piece = base::align_down((too_many - (done - before)) / 2, page);
    }
    if (done == before) break;
    remember_end(to + done);
  }
  // All of it, or it is in use yet.
  return Moved{done, false, done == bytes && !renew(from, bytes)};
}

}  // namespace extmem::os
