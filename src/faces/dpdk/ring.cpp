// Rings: making, finding and freeing them. Their moves are in the header.
#include <rte_errno.h>
#include <rte_ring.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <new>

namespace {

constexpr unsigned kKnownFlags = RING_F_SP_ENQ | RING_F_SC_DEQ | RING_F_EXACT_SZ | RING_F_MP_RTS_ENQ |
                                 RING_F_MC_RTS_DEQ | RING_F_MP_HTS_ENQ | RING_F_MC_HTS_DEQ;

// Of the ways to agree on a turn, at most one for each side.
bool sync_type(unsigned flags, unsigned single, unsigned rts, unsigned hts, rte_ring_sync_type& type) {
  const unsigned asked = flags & (single | rts | hts);
  if (asked == 0) {
    type = RTE_RING_SYNC_MT;
  } else if (asked == single) {
    type = RTE_RING_SYNC_ST;
  } else if (asked == rts) {
    type = RTE_RING_SYNC_MT_RTS;
  } else if (asked == hts) {
    type = RTE_RING_SYNC_MT_HTS;
  } else {
    return false;
  }
  return true;
}

using ZoneName = std::array<char, RTE_MEMZONE_NAMESIZE>;
bool zone_name(const char* name, ZoneName& zone) {
  const int length = std::snprintf(zone.data(), zone.size(), RTE_RING_MZ_PREFIX "%s", name);
  return length > 0 && static_cast<std::size_t>(length) < zone.size();
}

void dump_zone(const rte_memzone* zone, void* file) {
  if (std::strncmp(zone->name, RTE_RING_MZ_PREFIX, std::strlen(RTE_RING_MZ_PREFIX)) == 0) {
    rte_ring_dump(static_cast<std::FILE*>(file), static_cast<const rte_ring*>(zone->addr));
  }
}

std::nullptr_t no_ring(int error) {
  rte_errno = error;
  return nullptr;
}

}  // namespace

extern "C" {

ssize_t rte_ring_get_memsize_elem(unsigned int esize, unsigned int count) {
  if (esize == 0 || esize % 4 != 0 || rte_is_power_of_2(count) == 0 || count > RTE_RING_SZ_MASK)
    return -EINVAL;
  const std::size_t bytes = sizeof(rte_ring) + std::size_t{count} * esize;
  return static_cast<ssize_t>((bytes + RTE_CACHE_LINE_MASK) & ~std::size_t{RTE_CACHE_LINE_MASK});
}

ssize_t rte_ring_get_memsize(unsigned int count) { return rte_ring_get_memsize_elem(sizeof(void*), count); }

int rte_ring_init(struct rte_ring* r, const char* name, unsigned int count, unsigned int flags) {
  rte_ring_sync_type producers = RTE_RING_SYNC_MT;
  rte_ring_sync_type consumers = RTE_RING_SYNC_MT;
  if ((flags & ~kKnownFlags) != 0 ||
      !sync_type(flags, RING_F_SP_ENQ, RING_F_MP_RTS_ENQ, RING_F_MP_HTS_ENQ, producers) ||
      !sync_type(flags, RING_F_SC_DEQ, RING_F_MC_RTS_DEQ, RING_F_MC_HTS_DEQ, consumers)) {
    return -EINVAL;
  }
  const bool exact = (flags & RING_F_EXACT_SZ) != 0;
  if (exact ? count >= RTE_RING_SZ_MASK : rte_is_power_of_2(count) == 0 || count > RTE_RING_SZ_MASK)
    return -EINVAL;
  const std::size_t length = ::strnlen(name, RTE_RING_NAMESIZE);
  if (length >= RTE_RING_NAMESIZE) return -ENAMETOOLONG;
  auto* ring = new (r) rte_ring{};
  std::memcpy(ring->name, name, length);
  ring->flags = static_cast<int>(flags);
  ring->size = exact ? rte_align32pow2(count + 1) : count;
  ring->mask = ring->size - 1;
  ring->capacity = exact ? count : count - 1;
  ring->prod.sync_type = producers;
  ring->cons.sync_type = consumers;
  return 0;
}

struct rte_ring* rte_ring_create_elem(const char* name, unsigned int esize, unsigned int count, int socket_id,
                                      unsigned int flags) {
  if (name == nullptr) return no_ring(EINVAL);
  const bool exact = (flags & RING_F_EXACT_SZ) != 0 && count < RTE_RING_SZ_MASK;
  const ssize_t bytes = rte_ring_get_memsize_elem(esize, exact ? rte_align32pow2(count + 1) : count);
  if (bytes < 0) return no_ring(static_cast<int>(-bytes));
  ZoneName zone{};
  if (!zone_name(name, zone)) return no_ring(ENAMETOOLONG);
  const rte_memzone* memzone = rte_memzone_reserve_aligned(zone.data(), static_cast<std::size_t>(bytes),
                                                           socket_id, 0, alignof(rte_ring));
  if (memzone == nullptr) return nullptr;  // with its error
  auto* ring = static_cast<rte_ring*>(memzone->addr);
  if (const int failed = rte_ring_init(ring, name, count, flags); failed != 0) {
    rte_memzone_free(memzone);
    return no_ring(-failed);
  }
  ring->memzone = memzone;
  return ring;
}

struct rte_ring* rte_ring_create(const char* name, unsigned int count, int socket_id, unsigned int flags) {
  return rte_ring_create_elem(name, sizeof(void*), count, socket_id, flags);
}

struct rte_ring* rte_ring_lookup(const char* name) {
  ZoneName zone{};
  if (name == nullptr) return no_ring(EINVAL);
  if (!zone_name(name, zone)) return no_ring(ENOENT);
  const rte_memzone* memzone = rte_memzone_lookup(zone.data());
  return memzone != nullptr ? static_cast<rte_ring*>(memzone->addr) : no_ring(ENOENT);
}

void rte_ring_free(struct rte_ring* r) {
  // By name: another process may have made it, and sees the memzone's description elsewhere.
  ZoneName zone{};
  if (r == nullptr || r->memzone == nullptr || !zone_name(r->name, zone)) return;
  const rte_memzone* memzone = rte_memzone_lookup(zone.data());
  if (memzone != nullptr && memzone->addr == r) rte_memzone_free(memzone);
}

void rte_ring_reset(struct rte_ring* r) {
  r->prod.head = 0;
  r->prod.tail = 0;
  r->cons.head = 0;
  r->cons.tail = 0;
}

void rte_ring_dump(FILE* f, const struct rte_ring* r) {
  std::fprintf(f, "ring <%s>@%p\n", r->name, static_cast<const void*>(r));
  std::fprintf(f, "  flags=%x\n  size=%u\n  capacity=%u\n", static_cast<unsigned>(r->flags), r->size,
               r->capacity);
  std::fprintf(f, "  ct=%u\n  ch=%u\n  pt=%u\n  ph=%u\n", r->cons.tail, r->cons.head, r->prod.tail,
               r->prod.head);
  std::fprintf(f, "  used=%u\n  avail=%u\n", rte_ring_count(r), rte_ring_free_count(r));
}

void rte_ring_list_dump(FILE* f) { rte_memzone_walk(dump_zone, f); }

}  // extern "C"
