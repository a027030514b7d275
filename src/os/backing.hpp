// Memory that extmem maps itself: anonymous, hugetlb, memfd, POSIX shm, file and DAX.
//
// What it is: one request in, one mapping out. Never a fallback: what was asked for is what is got, or an
// error says why not; falling back is the business of the layer above.
// Thread-safety: create_backing from any thread; one Mapping has one owner. No allocation.
//
// Invariants:
//  1. A create_backing that fails leaves nothing behind: nothing mapped or open, no name made, no file longer
//     than before.
//  2. Touching a mapping ends in no SIGBUS for want of memory or space: tmpfs and files are fallocated,
//     hugepages are reserved by the kernel. Nor is the machine brought to end processes: what it, or the control group, cannot
//     have is refused before a page is taken (memory_left.hpp). (Outside: a file that others cut short, a failing device, a
//     hugetlb cgroup's limit, a file system that cannot keep what fallocate promised.)
//  3. Where a node is asked for, binding precedes the first touch. The kernel reserves hugepages per machine
//     and not per node, so bound hugepages are always pre-faulted where there is more than one node; so are
//     existing tmpfs files, whose pages may lie elsewhere.
//  4. Anonymous and hugetlb memory is private: fork copies it on write. All other kinds are shared mappings.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "extmem/function_ref.hpp"
#include "extmem/result.hpp"
#include "extmem/types.hpp"

namespace extmem::os {

/// Figures to go with an error about something that ran short: a constant message cannot hold them.
struct Shortage {
  std::uint64_t unit =
      0;  ///< bytes of one of what ran short: the hugepage size, 1 for locked memory; 0: nothing
  std::uint64_t needed = 0;     ///< units
  std::uint64_t available = 0;  ///< units: hugepages that a new mapping can have, bytes of RLIMIT_MEMLOCK
};

/// A file that is being made: it has, or is about to get, this name in this folder.
struct NewFile {
  int fd;  ///< negative: it is not there yet, and will be there as `aside` first
  int folder;
  const char* name;
  const char*
      aside;  ///< the name in the folder that it has, or will have, before that, which nobody else has (kAside...); ""
};

/// What such a name begins with. Two random numbers follow.
inline constexpr const char* kAsidePrefix = ".extmem-making-";

/// What to map.
struct BackingRequest {
  BackingKind kind = BackingKind::anonymous;  ///< any but external
  std::size_t length = 0;                     ///< bytes; rounded up to the OS page size
  std::size_t os_page_size = 0;               ///< 0: the kind's own; hugetlb kinds: the size wanted
  int numa_node = kAnyNode;            ///< not for files on disk and DAX, whose bytes lie where they lie
  bool lock = false;                   ///< lock the pages in memory; implies prefault
  bool prefault = false;               ///< make every page present now
  bool thp = false;                    ///< advise transparent hugepages: anonymous, memfd, shm, tmpfs files
  const char* path_or_name = nullptr;  ///< file, dax: path; shm: "/name"; memfd: a label, or null
  int folder = -1;                     ///< file: an open folder, in which path_or_name is a plain name
  bool create = true;                  ///< shm, file, dax: create it, or make it longer, when needed
  bool unlink_on_close = false;        ///< shm, file, dax: close_backing removes the name
  std::size_t align = 0;               ///< of the address; power of two; 0: the page size
  std::uint64_t lowest_address = 0;    ///< the first free address from here upwards; 0, or none: any
  /// Called with (done, total) bytes while space is taken and pages are made present, first with done = 0,
  /// then about every 64 MiB; true cancels.
  FunctionRef<bool(std::uint64_t, std::uint64_t)> progress{};
  /// shm, file, dax: called with a file that is created, before it has its name. On file systems that have no nameless files it
  /// is called before the file is there, too, with the name that it has first; where files cannot be renamed without replacing
  /// others either, once more just after the file has its name. An error ends it all. So somebody can know of the file,
  /// whenever this process dies.
  FunctionRef<Result<void>(const NewFile&)> making{};
  Shortage* shortage = nullptr;  ///< where to put the figures of a shortage, or null
};

/// A mapping that create_backing made. Default-constructed: none.
struct Mapping {
  std::byte* addr = nullptr;
  std::size_t length = 0;  ///< bytes: a multiple of os_page_size
  std::size_t os_page_size =
      0;  ///< bytes, really got; transparent hugepages do not show: nothing promises them
  BackingKind kind = BackingKind::external;
  int node = kAnyNode;           ///< where its pages are, when bound or when there is one node only
  int fd = -1;                   ///< what it maps; -1 for anonymous and hugetlb
  std::uint64_t device = 0;      ///< of that file, and
  std::uint64_t inode = 0;       ///< its number: a program may have closed the descriptor, and opened another
  bool created = false;          ///< the name is of our making
  bool lengthened = false;       ///< the file was there before, and shorter:
  std::uint64_t old_length = 0;  ///< so long; of use to discard_backing only
  // Of use to close_backing only: the name to remove, in an open folder (-1: none), whatever happens to its
  // path.
  int folder = -1;
  std::array<char, 256> name{};
};

/// Whether a request makes sense at all, on any machine: the part of create_backing's EINVAL that no other backing and
/// no other machine would help with.
Result<void> check_backing(const BackingRequest& request) noexcept;

/// Maps memory as `request` says.
/// Returns: the mapping; give it back with close_backing.
/// Errors: EINVAL for a request that makes no sense; EOPNOTSUPP for what this machine, file system or kernel
/// does not have (hugepage size, DAX, transparent hugepages, fallocate); ENOMEM for hugepages, memory,
/// address space or the lock limit; ENOSPC, EDQUOT, EFBIG for space; ENOENT, EACCES, EROFS... for the path;
/// ECANCELED where the callback said so.
Result<Mapping> create_backing(const BackingRequest& request) noexcept;

/// Gives a mapping back of which nothing came, and leaves things as they were before create_backing: a file that it made
/// goes, one that it made longer is cut to its old length. Errors: those of close_backing.
Result<void> discard_backing(Mapping& mapping) noexcept;

/// Keeps the name of a file or shm that close_backing would remove.
void keep_name(Mapping& mapping) noexcept;

/// Unmaps, closes, and removes the name where that was asked for and it still names the same file; `mapping`
/// is empty afterwards. Not for a fork's child, which would remove its parent's name.
/// Errors: the first that occurred; every step is tried all the same.
Result<void> close_backing(Mapping& mapping) noexcept;

}  // namespace extmem::os
