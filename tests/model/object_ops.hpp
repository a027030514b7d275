// Random operations on objects, each checked against the model.
#pragma once

#include <cerrno>

#include "model/model.hpp"

namespace extmem::model {

inline std::uint64_t random_size(Random& random) {
  switch (below(random, 12)) {
    case 0:
      return 1 + below(random, 300 * kKiB);
    case 1:
    case 2:
      return 1 + below(random, 40 * kKiB);
    case 3:
      return std::uint64_t{1} << below(random, 17);
    default:
      return 1 + below(random, 1500);
  }
}

inline AllocOptions random_options(Model& m, std::size_t heap, std::uint64_t size) {
  Random& random = m.random;
  AllocOptions o;
  if (one_in(random, 2)) o.tag = m.tags[one_in(random, 2) ? below(random, 3) : below(random, Model::kTags)];
  if (one_in(random, 3)) return o;
  if (one_in(random, 3)) o.align = std::uint64_t{1} << below(random, one_in(random, 5) ? 21 : 13);
  if (one_in(random, 6)) o.nocross = std::bit_ceil(round_up(size, 64)) << below(random, 3);
  if (one_in(random, 6)) o.iova_contiguous = true;
  if (one_in(random, 10)) o.dma_bits = static_cast<std::uint8_t>(20 + below(random, 20));
  o.placement = one_in(random, 3) ? static_cast<Placement>(below(random, 3)) : Placement::any;
  if (one_in(random, 15)) o.numa_node = static_cast<int>(below(random, 2));
  if (one_in(random, 15)) o.os_page_size = std::uint64_t{4096} << below(random, 3);
  if (one_in(random, 15)) {
    for (const Region& region : m.regions) {
      if (region.heap == heap && !region.grown && one_in(random, 2)) o.region = region.id;
    }
  }
  if (one_in(random, 12)) {
    o.min_offset = below(random, 512 * kKiB);
    if (one_in(random, 2)) o.max_offset = o.min_offset + size + below(random, 512 * kKiB);
  }
  return o;
}

/// What an exact heap is held to: the first region that can serve does, and at the right end. The oracle sees the heap
/// as it is before the allocation.
struct ExactChoice {
  const Region* region = nullptr;
  std::uint64_t offset = 0;
};
inline ExactChoice naive_choice(Model& m, std::uint64_t size, const AllocOptions& o, bool high) {
  AllocOptions rounded = o;
  rounded.align = std::max<std::size_t>(64, o.align);
  for (const Region& region : m.regions) {
    if (region.heap != kExact || !region.admits(o)) continue;
    const auto at = naive_place(region, m.objects, round_up(size, 64), rounded, high);
    if (at) return ExactChoice{&region, *at};
  }
  return {};
}

inline std::string describe(std::size_t heap, std::uint64_t size, const AllocOptions& o) {
  std::ostringstream out;
  out << "heap " << heap << ", size " << size << ", align " << o.align << ", nocross " << o.nocross
      << ", contiguous " << o.iova_contiguous << ", dma " << int{o.dma_bits} << ", placement "
      << static_cast<int>(o.placement) << ", node " << o.numa_node << ", os page " << o.os_page_size
      << ", region " << o.region.slot << ", window " << o.min_offset << ".." << o.max_offset;
  return out.str();
}

inline void check_placed(Model& m, const Object& object, const AllocOptions& o) {
  const Region& region = *m.region_at(object.at);
  MODEL_CHECK(region.admits(o), describe(object.heap, object.size, o)
                                    << " came from region " << region.id.slot);
  MODEL_CHECK(region.legal(object.at - region.base, object.size, o),
              describe(object.heap, object.size, o) << " came to offset " << object.at - region.base);
}

inline void check_refusal(Model& m, std::size_t heap, std::uint64_t size, const AllocOptions& o,
                          Error error) {
  ++m.refused;
  if (error.code() == ENOTSUP) {
    MODEL_CHECK(o.zero && !m.has_cpu(heap), error.message());
    return;
  }
  MODEL_CHECK(error.code() == ENOMEM, describe(heap, size, o) << ": " << error.message());
  if (heap == kExact) {
    const ExactChoice choice = naive_choice(m, size, o, false);
    MODEL_CHECK(choice.region == nullptr, describe(heap, size, o)
                                              << " was refused, but fits at " << choice.offset
                                              << " of region " << choice.region->id.slot);
  } else if (m.account[heap].count == 0 && heap != kGrowing) {
    // Nothing is held, so everything must be there for whoever asks; of a slab's pages, too.
    for (const Region& region : m.regions) {
      if (region.heap != heap || !region.admits(o) || o.dma_bits != 0 || o.iova_contiguous) continue;
      if (o.align > 4096 || o.nocross != 0 || o.min_offset != 0 || o.max_offset != 0) continue;
      MODEL_CHECK(round_up(size, 4096) > region.length, describe(heap, size, o)
                                                            << " was refused by an empty heap");
    }
  }
}

inline void op_allocate(Model& m) {
  const std::size_t heap = below(m.random, kHeaps);
  const std::uint64_t size = random_size(m.random);
  AllocOptions o = random_options(m, heap, size);
  o.zero = one_in(m.random, 6);
  const bool plain = one_in(m.random, 2);
  if (plain) o = {};
  ExactChoice expected;
  const bool compare = heap == kExact && !plain && one_in(m.random, 4);
  if (compare) expected = naive_choice(m, size, o, o.placement == Placement::high);
  const Result<void*> got = plain ? m.heaps[heap].allocate(size) : m.heaps[heap].allocate(size, o);
  if (!got.ok()) {
    if (o.zero) m.peak_slack[heap] += size + 64 * kKiB;  // held until it was found that it cannot be zeroed
    return check_refusal(m, heap, size, o, got.error());
  }
  ++m.served;
  if (o.zero) {
    MODEL_CHECK(m.has_cpu(heap), "device memory cannot be zeroed");
    for_each_sample(size, [&](std::uint64_t i) {
      MODEL_CHECK(static_cast<const unsigned char*>(*got)[i] == 0,
                  "byte " << i << " of " << size << " is not zero");
    });
  }
  const Object& object = m.enter(heap, *got, size, o.tag);
  check_placed(m, object, o);
  if (!compare) return;
  MODEL_CHECK(expected.region == m.region_at(object.at), describe(heap, size, o)
                                                             << " came from another region");
  if (o.placement != Placement::any) {
    MODEL_CHECK(expected.offset == object.at - expected.region->base,
                describe(heap, size, o)
                    << " came to " << object.at - expected.region->base << ", not " << expected.offset);
  }
}

inline void free_object(Model& m, Object& object) {
  m.check_content(object);
  auto* const p = reinterpret_cast<void*>(object.at);
  const auto freed = one_in(m.random, 4) ? m.domain.deallocate(p) : m.heaps[object.heap].deallocate(p);
  MODEL_CHECK(freed.ok(), freed.error().message());
  const std::size_t heap = object.heap;
  const std::uintptr_t at = object.at;
  m.forget(object);
  if (heap == kGrowing) {
    m.learn_grown_regions();
  }
  if (one_in(m.random, 8)) {
    const auto again = m.heaps[heap].deallocate(reinterpret_cast<void*>(at));
    const int expected = m.region_at(at) == nullptr ? EFAULT : EALREADY;
    MODEL_CHECK(again.error().code() == expected, "second free: " << again.error().message());
  }
}

inline void op_free(Model& m) {
  Object* const object = m.any_object();
  if (object != nullptr && object->zone.empty()) free_object(m, *object);
}

inline void op_reallocate(Model& m) {
  Object* const object = m.any_object();
  if (object == nullptr || !object->zone.empty()) return;
  const Object old = *object;
  const std::uint64_t size = one_in(m.random, 3) ? random_size(m.random) : 1 + below(m.random, 2 * old.size);
  AllocOptions o;
  if (one_in(m.random, 4)) o = random_options(m, old.heap, size);
  const auto got = m.heaps[old.heap].reallocate(reinterpret_cast<void*>(old.at), size, o);
  if (!got.ok()) {
    ++m.refused;
    m.peak_slack[old.heap] += size + 64 * kKiB;
    MODEL_CHECK(got.error().code() == ENOMEM || (got.error().code() == ENOTSUP && !m.has_cpu(old.heap)),
                describe(old.heap, size, o) << ": " << got.error().message());
    if (old.heap == kGrowing) m.learn_grown_regions();
    m.check_content(old);  // as it was
    return;
  }
  const auto at = reinterpret_cast<std::uintptr_t>(*got);
  if (m.has_cpu(old.heap)) {
    MODEL_CHECK(intact(at, old.seed, old.size, std::min(old.size, size)),
                old.size << " -> " << size << " lost content");
  }
  if (at != old.at) {  // old and new were held at once
    MODEL_CHECK(m.has_cpu(old.heap), "device memory cannot be moved");
    Account& whole = m.account[old.heap];
    whole.peak = std::max(whole.peak, whole.bytes + round_up(size, 64));
    m.peak_slack[old.heap] += size + 64 * kKiB;
  }
  // A draining region may keep an object that stays where it is.
  Region* const home = m.region_at(at);
  const bool draining = home != nullptr && home->draining && at == old.at;
  if (draining) home->draining = false;
  m.forget(*object);
  const Object& moved = m.enter(old.heap, *got, size, o.tag.index != 0 ? o.tag : old.tag);
  if (draining) m.region_at(at)->draining = true;
  if (!draining) check_placed(m, moved, o);
}

inline void op_batch(Model& m) {
  const std::size_t heap = below(m.random, kHeaps);
  const std::uint64_t size = 1 + below(m.random, one_in(m.random, 4) ? 20 * kKiB : 600);
  std::vector<void*> out(1 + below(m.random, 100), nullptr);
  AllocOptions o;
  if (one_in(m.random, 3)) o = random_options(m, heap, size);
  const auto got = m.heaps[heap].allocate_batch(size, out, o);
  if (!got.ok()) {
    m.peak_slack[heap] += (size + 64 * kKiB) * out.size();
    MODEL_CHECK(got.error().code() == ENOMEM, describe(heap, size, o) << ": " << got.error().message());
    if (heap == kGrowing) m.learn_grown_regions();
    return;
  }
  for (void* p : out) check_placed(m, m.enter(heap, p, size, o.tag), o);
}

inline void op_free_batch(Model& m) {
  const std::size_t heap = below(m.random, kHeaps);
  std::vector<void*> pointers;
  std::vector<Object*> chosen;
  std::size_t first_bad = ~std::size_t{0};
  for (std::uint64_t n = below(m.random, 100); n > 0; --n) {
    Object* const object = m.any_object();
    if (object == nullptr || object->heap != heap || !object->zone.empty()) continue;
    const auto* const p = reinterpret_cast<void*>(object->at);
    const bool again = std::find(pointers.begin(), pointers.end(), p) != pointers.end();
    if (again && first_bad == ~std::size_t{0}) first_bad = pointers.size();  // a double free inside the batch
    if (!again) {
      m.check_content(*object);
      chosen.push_back(object);
    }
    pointers.push_back(reinterpret_cast<void*>(object->at));
  }
  std::size_t reported = ~std::size_t{0};
  const auto freed = m.heaps[heap].deallocate_batch(pointers, &reported);
  MODEL_CHECK(freed.ok() == (first_bad == ~std::size_t{0}), freed.error().message());
  MODEL_CHECK(reported == first_bad, reported << " is not " << first_bad);
  for (Object* object : chosen) m.forget(*object);
  if (heap == kGrowing) m.learn_grown_regions();
}

/// The code that freeing any address must give; 0 for an allocated object. EALREADY stands for "nothing is there":
/// there EINVAL is right, too, when the address is in the middle of a free object.
inline int free_code_of(Model& m, std::size_t heap, std::uintptr_t at) {
  const Region* const region = m.region_at(at);
  if (region == nullptr || region->heap != heap) return EFAULT;
  const Object* const object = m.object_around(at);
  if (object == nullptr) return EALREADY;
  if (object->at != at) return EINVAL;
  return object->zone.empty() ? 0 : EPERM;
}

inline void op_bad_free(Model& m) {
  m.learn_grown_regions();
  if (m.regions.empty()) return;
  std::uintptr_t at = 0;
  std::size_t heap = below(m.random, kHeaps);
  Object* const object = m.any_object();
  switch (below(m.random, 4)) {
    case 0: {
      const Region& region = m.regions[below(m.random, m.regions.size())];
      at = region.base + below(m.random, region.length);
      if (one_in(m.random, 2)) at = at / 16 * 16;
      heap = region.heap;
      break;
    }
    case 1:
      at = m.cpu_arena.base() + below(m.random, m.cpu_arena.bytes());
      break;
    case 2:
      if (object == nullptr) return;
      at = object->at + 1 + below(m.random, object->usable + 64);
      heap = object->heap;
      break;
    default:
      if (object == nullptr) return;
      at = object->at;
      if (object->zone.empty()) heap = (object->heap + 1) % kHeaps;  // right address, wrong heap
  }
  const int expected = free_code_of(m, heap, at);
  if (expected == 0) return;
  const int code = m.heaps[heap].deallocate(reinterpret_cast<void*>(at)).error().code();
  MODEL_CHECK(code == expected || (expected == EALREADY && code == EINVAL),
              "bad free at " << std::hex << at << std::dec << ": " << code << ", not " << expected);
}

inline void op_look(Model& m) {
  Object* const object = m.any_object();
  if (object == nullptr) return;
  const std::uint64_t inside = below(m.random, object->usable);
  auto* const p = reinterpret_cast<void*>(object->at + inside);
  const auto info = one_in(m.random, 2) ? m.domain.owner_of(p) : m.heaps[object->heap].owner_of(p);
  MODEL_CHECK(info.ok(), info.error().message());
  const Region& region = *m.region_at(object->at);
  MODEL_CHECK(info->base == reinterpret_cast<void*>(object->at) && info->size == object->usable && info->held,
              "owner_of");
  MODEL_CHECK(info->heap_id == m.heaps[object->heap].id() && info->region == region.id, "owner_of");
  MODEL_CHECK(info->memzone != object->zone.empty(), "owner_of");
  MODEL_CHECK(info->tag == (object->zone.empty() ? object->tag : Tag{}), "owner_of");
  const auto iova = m.domain.iova_of(p);
  MODEL_CHECK(
      iova.ok() && static_cast<std::uint64_t>(*iova) == region.iova_of(object->at + inside - region.base),
      "iova_of");
  const std::uint64_t n = 1 + below(m.random, object->usable - inside);
  const auto contiguous = m.domain.iova_contiguous(p, n);
  const std::uint64_t offset = object->at + inside - region.base;
  const bool expected = region.iova_of(offset) != Region::kBad && region.contiguous(offset, n);
  MODEL_CHECK(contiguous.ok() && *contiguous == expected,
              "iova_contiguous of " << n << " bytes at " << offset);
  const auto portable = m.domain.to_region_ptr(p);
  MODEL_CHECK(portable.ok() && portable->slot() == region.id.slot && portable->offset() == offset,
              "to_region_ptr");
  MODEL_CHECK(m.domain.from_region_ptr(*portable).value_or(nullptr) == p, "from_region_ptr");
}

}  // namespace extmem::model
