#include "crash/lists.hpp"

#include <cstdint>
#include <sstream>

#include "heap/domain_state.hpp"

namespace extmem::crash {

namespace {

// Private members, by which nobody else than this test needs to get at the tables: a template's explicit instantiation may name
// them.
struct State {
  using Class = Domain;
  using Type = heap::DomainState*;
  friend Type& of(Domain& object, State);
};
struct Directory {
  using Class = heap::DomainState;
  using Type = heap::Directory*;
  friend Type& of(heap::DomainState& object, Directory);
};
struct Heaps {
  using Class = heap::DomainState;
  using Type = heap::NameTable<heap::HeapRecord>;
  friend Type& of(heap::DomainState& object, Heaps);
};
struct Tags {
  using Class = heap::DomainState;
  using Type = heap::NameTable<heap::TagName>;
  friend Type& of(heap::DomainState& object, Tags);
};
struct Memzones {
  using Class = heap::DomainState;
  using Type = heap::NameTable<heap::MemzoneRecord>;
  friend Type& of(heap::DomainState& object, Memzones);
};
struct MemzonesByPtr {
  using Class = heap::DomainState;
  using Type = base::Relaxed<std::uint32_t>*;
  friend Type& of(heap::DomainState& object, MemzonesByPtr);
};
struct MemzoneMask {
  using Class = heap::DomainState;
  using Type = std::uint32_t;
  friend Type& of(heap::DomainState& object, MemzoneMask);
};
struct Holders {
  using Class = heap::DomainState;
  using Type = heap::HolderRecord*;
  friend Type& of(heap::DomainState& object, Holders);
};
struct TagRecords {
  using Class = alloc::Core;
  using Type = alloc::TagRecord*;
  friend Type& of(alloc::Core& object, TagRecords);
};
template <typename Tag, typename Tag::Type Tag::Class::*Member>
struct Shown {
  friend typename Tag::Type& of(typename Tag::Class& object, Tag) { return object.*Member; }
};
template struct Shown<State, &Domain::state_>;
template struct Shown<Directory, &heap::DomainState::directory_>;
template struct Shown<Heaps, &heap::DomainState::heaps_>;
template struct Shown<Tags, &heap::DomainState::tags_>;
template struct Shown<Memzones, &heap::DomainState::memzones_>;
template struct Shown<MemzonesByPtr, &heap::DomainState::memzones_by_ptr_>;
template struct Shown<MemzoneMask, &heap::DomainState::memzone_mask_>;
template struct Shown<Holders, &heap::DomainState::holders_>;
template struct Shown<TagRecords, &alloc::Core::tags_>;

/// `used`: how many of the records [from, high) are in use. `link(i)`: record i's link word.
template <typename Link>
void check(std::ostringstream& text, const char* name, const shared::IndexList& list, std::uint32_t from,
           std::uint32_t used, Link&& link) {
  std::uint32_t unused = 0;
  std::uint32_t last = 0;
  for (std::uint32_t next = list.first; next != 0 && unused <= list.high; next = link(next - 1), ++unused) {
    if (next > list.high) {
      text << "the list of unused " << name << " goes to " << next << " of " << list.high << '\n';
      return;
    }
    last = next;
  }
  if (last != list.last) text << "the list of unused " << name << " does not end where it should\n";
  if (from + used + unused != list.high)
    text << name << ": " << used << " used, " << unused << " unused, of " << list.high - from << '\n';
}

}  // namespace

std::string wrong_lists(Domain& domain) {
  std::ostringstream text;
  heap::DomainState& state = *of(domain, State{});
  alloc::Core& core = state.core_;
  const heap::Directory& directory = *of(state, Directory{});
  const auto named = [&](const char* name, const auto& table, const shared::IndexList& list) {
    std::uint32_t used = 0;
    for (std::uint32_t i = 0; i < table.high(); ++i) used += table[i].used != 0;
    check(text, name, list, 0, used, [&](std::uint32_t i) { return table[i].hash_next.get(); });
  };
  named("heaps", of(state, Heaps{}), directory.heaps);
  named("tags", of(state, Tags{}), directory.tags);
  named("memzones", of(state, Memzones{}), directory.memzones);

  const auto& memzones = of(state, Memzones{});
  const base::Relaxed<std::uint32_t>* const by_ptr = of(state, MemzonesByPtr{});
  std::uint32_t chained = 0;
  for (std::uint32_t i = 0; i <= of(state, MemzoneMask{}); ++i) {
    for (std::uint32_t link = by_ptr[i]; link != 0 && chained <= memzones.high();
         link = memzones[link - 1].ptr_next, ++chained) {
      if (memzones[link - 1].used == 0) text << "an unused memzone is found by its address\n";
    }
  }
  if (chained != directory.memzone_count)
    text << chained << " memzones are found by their addresses, of " << directory.memzone_count << '\n';

  const heap::HolderRecord* const holders = of(state, Holders{});
  const auto& names = of(state, Tags{});
  chained = 0;
  for (std::uint32_t i = 0; i < names.high(); ++i) {
    for (std::uint32_t link = names[i].used != 0 ? names[i].holders.get() : 0;
         link != 0 && chained <= directory.holders.high; link = holders[link - 1].next)
      ++chained;
  }
  if (chained + alloc::kFirstTagHolder != directory.holders.high)
    text << chained << " holders are found by their tags, of "
         << directory.holders.high - alloc::kFirstTagHolder << '\n';

  std::uint32_t used = 0;
  for (std::uint32_t i = 0; i < directory.regions.high; ++i)
    used += core.region(i + 1).flags != 0 || core.region(i + 1).changing != 0;
  check(text, "regions", directory.regions, 0, used,
        [&](std::uint32_t i) { return core.region(i + 1).next.get(); });

  const alloc::CoreRoots& roots = core.roots();
  used = 0;
  for (std::uint32_t i = 0; i < roots.slab_list.high; ++i) used += core.slab(i).objects != 0;
  check(text, "slabs", roots.slab_list, 0, used,
        [&](std::uint32_t i) { return core.slab(i).all_next.get(); });

  const alloc::TagRecord* const tags = of(core, TagRecords{});
  std::uint32_t caches = 0;
  used = 0;
  for (std::uint32_t id = 0; id < core.geometry().max_heaps; ++id) {
    const alloc::HeapCore& h = core.heap(id);
    for (std::uint32_t link = h.first_cache; link != 0 && caches <= roots.cache_list.high;
         link = core.cache(link - 1).next)
      ++caches;
    for (const auto& bucket : h.tags) {
      for (std::uint32_t link = bucket; link != 0 && used <= roots.tag_list.high; link = tags[link - 1].next)
        ++used;
    }
  }
  check(text, "tags of heaps", roots.tag_list, 0, used, [&](std::uint32_t i) { return tags[i].next.get(); });
  std::uint32_t spare = 0;
  for (std::uint32_t slot = 1; slot <= core.geometry().max_threads; ++slot) {
    for (std::uint32_t link = core.slot(slot).spare_caches; link != 0 && spare <= roots.cache_list.high;
         link = core.cache(link - 1).next)
      ++spare;
    for (std::uint32_t id = 0; id < core.geometry().max_heaps; ++id) {
      const alloc::ThreadCache* const cache = core.cache_of(slot, id);
      if (cache != nullptr && (cache->used == 0 || cache->slot != slot || cache->heap != id))
        text << "slot " << slot << " has another one's cache for heap " << id << '\n';
    }
  }
  check(text, "caches", roots.cache_list, 0, caches + spare,
        [&](std::uint32_t i) { return core.cache(i).next.get(); });
  return text.str();
}

}  // namespace extmem::crash
