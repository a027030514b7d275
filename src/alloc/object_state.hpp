// Object states: one 16-bit word per object, outside the memory, is the truth about it.
//
//   0                       free: its slab may give it out
//   1 .. 0x3fff             cached by that thread slot (in its magazine)
//   0x4000 + h              held by holder h: an interned {participant, tag} pair
//
// Magazines and lists are caches of this truth; verify() and recovery rebuild them from it.
#pragma once

#include <cstdint>

namespace extmem::alloc {

inline constexpr std::uint16_t kFree = 0;
inline constexpr std::uint16_t kHeldBase = 0x4000;
inline constexpr std::uint32_t kMaxHolders = 0x10000 - kHeldBase;

// Holders 0 to 258 are given; from kFirstTagHolder on they are interned pairs with a tag, and counted.
inline constexpr std::uint16_t kHolderUntagged = 0;  // of the one process of a private domain
inline constexpr std::uint16_t kHolderMemzone = 1;   // nobody's: survives every process
inline constexpr std::uint16_t kHolderOrphan = 258;  // untagged, kept after its holder's death
inline constexpr std::uint16_t kFirstTagHolder = 259;

/// The holder of what participant `p` allocates untagged.
constexpr std::uint16_t untagged_holder(std::uint32_t participant) noexcept {
  return participant == 0 ? kHolderUntagged : static_cast<std::uint16_t>(participant + 1);
}

constexpr bool is_held(std::uint16_t state) noexcept { return state >= kHeldBase; }
constexpr std::uint16_t held_by(std::uint16_t holder) noexcept {
  return static_cast<std::uint16_t>(kHeldBase + holder);
}
constexpr std::uint16_t holder_of(std::uint16_t state) noexcept {
  return static_cast<std::uint16_t>(state - kHeldBase);
}
constexpr std::uint16_t cached_by(std::uint32_t slot) noexcept { return static_cast<std::uint16_t>(slot); }

}  // namespace extmem::alloc
