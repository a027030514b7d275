// What a packet source with DPDK and the readers without it share: memzones of a named domain, and an order of steps that
// makes every death accountable.
//
//   way    ring of slots that hold a packet, from the source to the readers
//   back   ring of slots whose packet was read, from the readers to the source
//   slots  a packet's address (RegionPtr, into the buffer where the device put it) and length; one for each mbuf
//   hands  for each reader, the one slot that it has in hand: the table of what is out
//   ledger a bit for each packet: it was read
//
// A reader goes: take from way; hand := slot; read; ledger; settle; push to back; hand := 0. So when it dies,
//   - before it settles, the ring way reports the slot as an orphan;
//   - after that, its hand names the slot, and its serial number says whether the slot went back before.
// The source then sends the packet to another reader, or frees it if the ledger has it. When the source dies its buffers are
// reclaimed by the heap, but nobody else allocates there: the readers read on what is in the ring. The next source waits until
// they are through, begins with new buffers, and skips what the ledger has.
#pragma once

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include "extmem/extmem.hpp"

namespace packets {

using namespace extmem;
using namespace std::chrono_literals;

inline constexpr const char* kHeap = "packets";
inline constexpr std::uint32_t kSlots = 512;  // mbufs of the pool are one less, as DPDK likes it
inline constexpr std::size_t kRingCapacity =
    2048;  // an element that a stopped reader took blocks its place only
inline constexpr std::uint32_t kNumbers =
    16384;  // a ring's participants; each start of a program takes a new one
inline constexpr std::uint64_t kGone = ~std::uint64_t{0};

/// How a packet of the capture looks behind its Ethernet header.
struct Payload {
  static constexpr std::uint32_t kMagic = 0x45785061;
  std::uint32_t magic;
  std::uint32_t length;  // of the bytes behind this struct
  std::uint64_t number;  // from 0
  std::uint32_t sum;     // over those bytes
  std::uint32_t reserved;
};
inline constexpr std::size_t kEthernet = 14;
inline constexpr std::uint16_t kEtherType = 0x88b5;  // IEEE: local experiments

/// Adler-like, enough to see that a packet is whole.
inline std::uint32_t sum_of(const unsigned char* bytes, std::size_t n) {
  std::uint32_t a = 1, b = 0;
  for (std::size_t i = 0; i < n; ++i) b += a += bytes[i];
  return a ^ b << 16;
}

/// Reads what a packet says of itself. False: it is none of ours, or cut short.
inline bool read_payload(const unsigned char* packet, std::size_t length, Payload& payload) {
  if (length < kEthernet + sizeof payload) return false;
  std::memcpy(&payload, packet + kEthernet, sizeof payload);
  return payload.magic == Payload::kMagic && payload.length <= length - kEthernet - sizeof payload;
}

struct alignas(64) Slot {
  RegionPtr data;
  std::uint32_t length;
  std::uint32_t serial;  // of this use of the slot
};

/// What a reader has in hand: slot + 1 and serial; 0: nothing.
inline std::uint64_t hand_of(std::uint32_t slot, std::uint32_t serial) {
  return std::uint64_t{slot + 1} << 32 | serial;
}

/// Zeroes are its beginning. Each count says how often something happened in all, over all incarnations.
struct Control {
  std::atomic<std::uint64_t> packets;  // that there are; set once by the first source
  std::atomic<std::uint64_t> source;   // who: participant << 32 | pid; 0: there was none yet
  std::atomic<std::uint32_t> sources;  // that have begun
  std::atomic<std::uint32_t> finished;
  std::atomic<std::uint32_t> next_number;
  std::atomic<std::uint64_t> received, sent_again, orphans, dropped_hands, discarded, drained;
  std::atomic<std::uint64_t> who[kNumbers];  // by number; kGone: dead, and dealt with
  std::atomic<std::uint64_t> hands[kNumbers];
};

/// Which packets were read: a bit for each. Nothing else counts them: a reader may die between two stores.
struct Ledger {
  std::atomic<std::uint64_t> twice, damaged;
  std::atomic<std::uint64_t> bits[1];  // really (packets + 63) / 64
  static std::size_t bytes_for(std::uint64_t packets) { return sizeof(Ledger) + (packets + 63) / 64 * 8; }
  [[nodiscard]] bool has(std::uint64_t number) const {
    return (bits[number / 64].load(std::memory_order_acquire) >> (number % 64) & 1) != 0;
  }
  /// False: it is there already.
  bool enter(std::uint64_t number) {
    const std::uint64_t bit = std::uint64_t{1} << (number % 64);
    return (bits[number / 64].fetch_or(bit) & bit) == 0;
  }
  [[nodiscard]] std::uint64_t count(std::uint64_t packets) const {
    std::uint64_t sum = 0;
    for (std::uint64_t i = 0; i < (packets + 63) / 64; ++i)
      sum += static_cast<std::uint64_t>(std::popcount(bits[i].load(std::memory_order_acquire)));
    return sum;
  }
};

[[noreturn]] inline void give_up(const char* what, const char* why) {
  std::fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, why);
  std::exit(1);
}
template <typename T>
T need(Result<T> result, const char* what) {
  if (!result) give_up(what, result.error().message());
  return std::move(result).value();
}
inline void need(const Result<void>& result, const char* what) {
  if (!result) give_up(what, result.error().message());
}

/// A memzone that is mapped here. Memory without a name (hugepages of a memfd) goes with the last process that has it, though
/// the domain still knows of it.
inline MemzoneInfo need_mapped(const MemzoneInfo& zone) {
  if (zone.addr == nullptr)
    give_up(zone.name,
            "its memory went with the last process that had it: remove the domain, and begin anew");
  return zone;
}

/// Where this program kills itself, for tests: `--die STEP COUNT`, at the COUNTth passing of the step.
struct Death {
  std::string step;
  std::uint64_t count = 0;
  void at(const char* here) {
    if (count != 0 && step == here && --count == 0) ::kill(::getpid(), SIGKILL);
  }
};

/// The memzones, mapped in this process.
struct Shared {
  Control* control = nullptr;
  Ledger* ledger = nullptr;
  Slot* slots = nullptr;
  Ring way, back;
  std::uint32_t number = 0;  // this process' in the rings

  [[nodiscard]] static std::uint64_t self(const Domain& domain) {
    return std::uint64_t{domain.participant()} << 32 | static_cast<std::uint32_t>(::getpid());
  }
  /// Whether the process lives and still takes part in the domain.
  [[nodiscard]] static bool lives(const Domain& domain, std::uint64_t who) {
    bool found = false;
    need(domain.walk_participants([&](const ParticipantInfo& info) {
      found = (std::uint64_t{info.id} << 32 | info.pid) == who && !info.dead;
      return !found;
    }),
         "walk participants");
    return found;
  }
  /// True only of numbers whose process is gone: the rings' is_dead.
  [[nodiscard]] bool is_dead(const Domain& domain, std::uint32_t of) const {
    if (of == number || of >= kNumbers) return false;
    const std::uint64_t who = control->who[of].load(std::memory_order_acquire);
    return who == kGone || (who != 0 && !lives(domain, who));
  }

  /// Takes a number for this process and attaches to the rings.
  void join(const Domain& domain, const MemzoneInfo& way_zone, const MemzoneInfo& back_zone) {
    number = control->next_number.fetch_add(1) + 1;
    if (number >= kNumbers) give_up("join", "more programs than a ring has numbers; start a new domain");
    // Release: who reads the number in a ring and then looks here sees whose it is.
    control->who[number].store(self(domain), std::memory_order_release);
    way = need(Ring::attach(way_zone.addr, way_zone.length, number), "attach to the ring way");
    back = need(Ring::attach(back_zone.addr, back_zone.length, number), "attach to the ring back");
  }
};

}  // namespace packets
