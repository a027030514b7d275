// Settings: what the environment says about the heap that a program is to run on.
//
// What it is: the names of the environment variables that `extmem run` sets and the preload library reads, and their
// reading. Whoever preloads the library by hand sets the same ones.
// Thread-safety: reading is done once, before a second thread exists. No allocation.
//
//   EXTMEM_BACKING   anon | thp | hugetlb[:SIZE] | memfd | shm:/NAME | file:PATH | dax:PATH       (default anon)
//   EXTMEM_SIZE      bytes mapped at the start       (default: one step; none where the heap is there already)
//   EXTMEM_LIMIT     most bytes in all, 0: none    EXTMEM_STEP   bytes added when the heap is full
//   EXTMEM_NODE      NUMA node to bind to          EXTMEM_FALLBACK   none | thp | anon  (default none)
//   EXTMEM_PREFAULT, EXTMEM_LOCK, EXTMEM_TAGS      1: on
//   EXTMEM_HEAP      name of the heap (default malloc)    EXTMEM_DOMAIN   name of a shared domain (default: private)
//   EXTMEM_STATS     text | json: written at exit         EXTMEM_STATS_FILE   where to (default: standard error)
//   A path is of one process: the one that EXTMEM_REPORT names, or else the first to lock it. Children take anonymous memory.
//   EXTMEM_REPORT    +PID: the process that says which memory it took, and its statistics; others only say what fails. Once it
//                    has said so the library makes it -PID: what the process turns itself into by exec is quiet.
// Sizes are decimal, with an optional K, M, G or T (binary).
#pragma once

#include <cstdint>

#include "extmem/types.hpp"

namespace extmem::preload {

enum class StatsFormat : std::uint8_t { none, text, json };

/// Strings from the environment are copied: many servers write over it to change what ps shows.
inline constexpr std::size_t kTextBytes = 4096;

struct Settings {
  BackingSpec backing{};  // length: what is mapped at the start
  std::uint64_t limit = 0;
  std::uint64_t step = 0;
  char heap[kMaxNameLength + 1] = "malloc";
  char domain[kMaxNameLength + 1] = "";  // empty: private
  char path[kTextBytes] = "";            // backing.path points here
  StatsFormat stats = StatsFormat::none;
  char stats_file[kTextBytes] = "";
  bool sized = false;  // the length was asked for: a heap that is there already gets that, too
  std::uint32_t report_pid = 0;
  bool told = false;  // which memory was taken
  bool tags = false;

  /// Whether a fork's child would share the memory with its parent instead of having a copy.
  [[nodiscard]] bool shared_with_children() const noexcept {
    return domain[0] != '\0' ||
           (backing.kind != BackingKind::anonymous && backing.kind != BackingKind::hugetlb);
  }
};

/// A size such as 64M. Errors: EINVAL.
Result<std::uint64_t> parse_size(const char* text) noexcept;

/// Reads what EXTMEM_BACKING may say into settings.backing and .path. Errors: EINVAL, ENAMETOOLONG.
Result<void> parse_backing(const char* text, Settings& settings) noexcept;

/// Reads the environment. Errors: EINVAL, ENAMETOOLONG; *which then names the variable.
Result<void> read_settings(Settings& settings, const char** which) noexcept;

/// Makes EXTMEM_REPORT say that the memory was told, in place.
void mark_told() noexcept;

}  // namespace extmem::preload
