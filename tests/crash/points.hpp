// Every named crash point of the sources, in one table. A point that is missing here, or that no run reaches, fails.
#pragma once

#include <cstdint>
#include <cstring>

namespace extmem::crash {

inline constexpr const char* kPointNames[] = {
    "add.allocated",
    "add.attached",
    "add.mapped",
    "add.described",
    "backing.aside",
    "backing.known",
    "backing.linked",
    "backing.named",
    "backing.told",
    "cache.flushed",
    "cache.unbiased",
    "destroy.emptied",
    "drain.marked",
    "drain.relisted",
    "flush.freed",
    "holder.changed",
    "holder.paused",
    "pause.asked",
    "refill.taken",
    "remove.unmapped",
    "revoke.shared",
    "bury.emptied",
    "bury.freed",
    "bury.shared",
    "clean.cache",
    "clean.elected",
    "clean.healed",
    "clean.heap",
    "clean.heaps",
    "clean.region",
    "clean.regions",
    "clean.slot",
    "clean.slots",
    "clean.unlocked",
    "heal.undone",
    "heap.named",
    "heap.of_node",
    "inherit.taken",
    "inherit.undone",
    "join.alive",
    "join.filled",
    "join.token",
    "leave.emptied",
    "memzone.allocated",
    "memzone.unnamed",
    "reclaim.object",
    "reclaim.slab",
    "reclaim.span",
    "release.unlinked",
    "release.unused",
    "release.zeroed",
    "remove.begun",
    "remove.detached",
    "remove.draining",
    "repair.begun",
    "repair.done",
    "repair.emptied",
    "repair.slab",
    "slot.claimed",
    "slot.counted",
    "spans.asked",
    "spans.freed",
    "spans.returned",
    "spans.shared",
    "reclaim.four",
    "slot.freed",
    "transaction.begun",
    "transaction.changed",
    "transaction.committed",
    "transaction.complete",
    "transaction.journaled",
    "undo.step",
    "withheld.freed",
    "withheld.marked",
    "rebias.owned",
    "refill.kept",
    "return.freed",
    "return.listed",
    "return.unlisted",
};
inline constexpr std::uint32_t kPointCount = sizeof kPointNames / sizeof kPointNames[0];

/// kPointCount where it is not in the table.
inline std::uint32_t point_number(const char* name) {
  for (std::uint32_t i = 0; i < kPointCount; ++i) {
    if (std::strcmp(kPointNames[i], name) == 0) return i;
  }
  return kPointCount;
}

}  // namespace extmem::crash
