// The descriptions of memzones that this process has given out: struct rte_memzone, at addresses that stay.
//
// What it is: a copy of what the domain says about each memzone, made at the first lookup. A zone keeps its place while
// it exists; a place is used again after the zone was freed.
// Thread-safety: any thread.
#pragma once

#include <rte_memzone.h>

#include <cstddef>

#include "extmem/domain.hpp"

namespace extmem::dpdk::memzones {

/// The description that a memzone was given before; null: none, as far as this can tell at once.
const rte_memzone* described(const MemzoneInfo& info) noexcept;
/// The description of a memzone, the same as before if it was given out before. Null: there is no memory for it.
const rte_memzone* describe(const MemzoneInfo& info) noexcept;
/// Whether `mz` is the description of a living memzone as far as this process knows, and if so its name and place.
bool find(const rte_memzone* mz, char (&name)[RTE_MEMZONE_NAMESIZE], RegionPtr& ptr) noexcept;
/// Forgets the memzone of that name: its description becomes zeroes.
void forget(const char* name) noexcept;
/// Forgets all and their descriptions. Requires: no other thread uses the face.
void clear() noexcept;

/// The name in the domain for a program's memzone: its own; a name that no program can give for the empty one.
const char* domain_name(const char* name) noexcept;
/// Whether it is the name of a program's memzone.
bool is_program_zone(const MemzoneInfo& info) noexcept;

}  // namespace extmem::dpdk::memzones
