// What a child and the harness both see, outside the domain: the harness' own truth about what was handed out.
//
// A word of state is stored before a call that it announces and after the call that it reports: so whatever the instant
// of a death, the harness knows which objects must be there, which must not, and which may be either.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>

namespace extmem::crash {

enum class Of : std::uint32_t {
  nobody = 0,
  allocating,  // may be anywhere or nowhere
  held,        // the child's
  freeing,     // the child's, or free
  handing,     // the child's, or the harness'
  handed,      // the harness'
  lent,        // the harness', for the child to free
  freed,
};

struct Entry {
  std::atomic<Of> of;
  std::uint32_t size;
  bool kept;          // of a heap that keeps what the dead held
  std::uint64_t ptr;  // RegionPtr bits
  std::uint64_t seed;
};

enum class ZoneIs : std::uint32_t { none = 0, reserving, reserved, freeing };
struct ZoneEntry {
  std::atomic<ZoneIs> is;
  std::uint32_t length;
  char name[32];
};

inline constexpr std::uint32_t kSequence = 16384;
inline constexpr std::uint32_t kEntries = 8192;
inline constexpr std::uint32_t kZones = 16;

/// Where a child dies: at the n-th hit of a point. Not at the n-th hit of all: what an operation does depends on what was
/// done before.
struct Kill {
  std::uint32_t point = 0;
  std::uint32_t nth = 0;  // 0: nowhere
};

enum class Phase : std::uint32_t { starting = 0, ready, acted };

struct Log {
  std::atomic<Phase> phase;
  std::atomic<std::uint32_t> armed;  // 1: crash points count
  std::uint32_t kill_point;          // Kill
  std::uint32_t kill_nth;
  std::atomic<std::uint32_t> killed;  // 1: it was reached
  std::uint32_t stop;                 // 1: it stops instead
  std::atomic<std::uint64_t> hits;
  std::atomic<std::uint32_t> last_point;
  std::atomic<std::uint32_t> inside;  // 1: the child is inside the library, not at its own log
  std::atomic<std::uint32_t> go;      // 1: what the operation waits for has happened
  std::uint8_t sequence[kSequence];   // the points in the order of their hits, as many as fit
  char unknown_point[48];
  char trouble[192];          // the child's complaint
  std::uint32_t harness;      // the harness' participant number
  std::uint32_t pages_taken;  // addresses to occupy before opening
  std::uint64_t taken[8];
  std::uint64_t taken_bytes;
  std::uint64_t seed;
  std::uint32_t zones_from;  // the child's own memzones
  std::atomic<std::uint64_t> progress;
  std::atomic<std::uint64_t> worst_ns;  // of one call of the child
  std::atomic<std::uint32_t> entries;   // used ones
  Entry entry[kEntries];
  ZoneEntry zone[kZones];

  /// Objects and memzones of which the dead one had not written down yet whether it has them.
  [[nodiscard]] std::uint64_t in_flight() const {
    std::uint64_t count = 0;
    for (std::uint32_t i = 0; i < entries; ++i) {
      const Of of = entry[i].of.load();
      count += of == Of::allocating || of == Of::freeing;
    }
    for (const ZoneEntry& one : zone) {  // not named yet, or no more
      const ZoneIs is = one.is.load();
      count += is == ZoneIs::reserving || is == ZoneIs::freeing;
    }
    return count;
  }
};

/// Calls fn(where, word) for the words that name an object: at its beginning and its end.
template <typename Fn>
bool each_word(std::uint32_t size, std::uint64_t seed, Fn&& fn) {
  const std::uint32_t ends = size < 128 ? size / 8 * 8 : 64;
  for (std::uint32_t at = 0; at < ends; at += 8) {
    if (!fn(at, seed + at)) return false;
    if (size >= 128 && !fn((size & ~std::uint32_t{7}) - 8 - at, ~seed + at)) return false;
  }
  return true;
}
/// Fills an object with words that name it, so that whoever writes into it as well shows.
inline void fill(void* p, std::uint32_t size, std::uint64_t seed) {
  each_word(size, seed, [&](std::uint32_t at, std::uint64_t word) {
    std::memcpy(static_cast<unsigned char*>(p) + at, &word, 8);
    return true;
  });
}
inline bool intact(const void* p, std::uint32_t size, std::uint64_t seed) {
  return each_word(size, seed, [&](std::uint32_t at, std::uint64_t word) {
    return std::memcmp(static_cast<const unsigned char*>(p) + at, &word, 8) == 0;
  });
}
/// The same for an object that has another size now: its beginning only.
inline bool begins_intact(const void* p, std::uint32_t old_size, std::uint32_t size, std::uint64_t seed) {
  return each_word(old_size, seed, [&](std::uint32_t at, std::uint64_t word) {
    return at >= 64 || at + 8 > size || std::memcmp(static_cast<const unsigned char*>(p) + at, &word, 8) == 0;
  });
}

}  // namespace extmem::crash
