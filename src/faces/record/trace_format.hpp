// The bytes of a trace: what `extmem record` writes and `extmem replay` and `extmem advise` read. docs/trace.md draws them.
//
// What it is: the header, the chunks, and the coding of numbers. A trace is a header and chunks, each written by one write() at the
// end of the file, so that threads need no lock and a killed process loses only what it had not written. A chunk of events is
// decoded by itself. Little-endian; times are the processor's time stamp counter.
// Thread-safety: plain functions on the caller's memory.
#pragma once

#include <cstddef>
#include <cstdint>

namespace extmem::record {

inline constexpr std::uint64_t kTraceMagic = 0x3130'6372'746d'6578;  // "xemtrc01"
inline constexpr std::uint32_t kChunkMagic = 0x4b4e'4843;            // "CHNK"

struct TraceHeader {
  std::uint64_t magic = kTraceMagic;
  std::uint32_t bytes = 64;  // of this header
  std::uint32_t pid = 0;
  std::uint64_t start_tsc = 0;
  std::uint64_t start_ns = 0;  // CLOCK_REALTIME
  char program[32] = {};       // what the kernel calls the process
};
static_assert(sizeof(TraceHeader) == 64);

enum class ChunkKind : std::uint32_t {
  events = 1,   // of one thread
  sites = 2,    // {varint id, varint address of the call}...
  modules = 3,  // {varint begin, varint end, varint file offset of begin, varint name length, name}...
  end = 4,  // {u64 tsc, u64 CLOCK_REALTIME ns}: how fast the counter runs; the process ended in good order
};

struct ChunkHeader {
  std::uint32_t magic = kChunkMagic;
  ChunkKind kind = ChunkKind::events;
  std::uint32_t thread = 0;  // events: 1, 2, ... in the order of their first allocation
  std::uint32_t bytes = 0;   // that follow
  std::uint64_t tsc = 0;     // events: the first event's time counts from here
};
static_assert(sizeof(ChunkHeader) == 24);

/// What an event is: the low three bits of its first byte.
enum class Op : std::uint8_t {
  free = 0,     // svarint address
  malloc = 1,   // varint size, svarint address [, varint site]
  calloc = 2,   // the same
  realloc = 3,  // varint duration, svarint old address, varint size, svarint address [, varint site]: the old
  // object ends at the event's time, the new one begins a duration later, and times go on from there
  memalign = 4,  // byte log2(alignment), varint size, svarint address [, varint site]
};
// The first byte's other bits, and what always follows it: varint time since the event before.
inline constexpr std::uint8_t kOpMask = 0x07;
inline constexpr std::uint8_t kSameSite =
    0x08;  // no site follows: it is that of the chunk's last event that had one
inline constexpr std::uint8_t kFailed =
    0x10;  // the allocation gave null: no address follows (realloc: the new one)
inline constexpr unsigned kAddressShift =
    3;  // addresses are divided by 8, and differ from the chunk's last one
inline constexpr std::size_t kMaxEventBytes = 1 + 6 * 10;

constexpr std::uint64_t zigzag(std::int64_t value) noexcept {
  return static_cast<std::uint64_t>(value) << 1 ^ static_cast<std::uint64_t>(value >> 63);
}
constexpr std::int64_t unzigzag(std::uint64_t value) noexcept {
  return static_cast<std::int64_t>(value >> 1 ^ (~(value & 1) + 1));
}

/// Writes a number, seven bits a byte, lowest first; returns the place behind it. Requires: room for 10 bytes.
inline std::uint8_t* put_varint(std::uint8_t* p, std::uint64_t value) noexcept {
  while (value >= 0x80) {
    *p++ = static_cast<std::uint8_t>(value | 0x80);
    value >>= 7;
  }
  *p++ = static_cast<std::uint8_t>(value);
  return p;
}
/// Reads one; false: it does not end before `end`, or has more than 64 bits.
inline bool get_varint(const std::uint8_t*& p, const std::uint8_t* end, std::uint64_t& value) noexcept {
  value = 0;
  for (unsigned shift = 0; shift < 64 && p != end; shift += 7) {
    const std::uint8_t byte = *p++;
    value |= std::uint64_t{byte & 0x7fu} << shift;
    if ((byte & 0x80) == 0) return true;
  }
  return false;
}

}  // namespace extmem::record
