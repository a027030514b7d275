// Allocating and freeing: the checks, the choice between object and span, and growing when memory runs out.
#include <algorithm>
#include <bit>
#include <cstring>

#include "alloc/span_magazines.hpp"
#include "base/error.hpp"
#include "heap/domain_state.hpp"

namespace extmem::heap {

namespace {
constexpr std::uint64_t kExactGranule = 64;
constexpr std::uint64_t kMaxSize = std::uint64_t{1} << 47;
}  // namespace

Result<CheckedRequest> DomainState::check_request(const HeapLocal& heap, std::size_t size,
                                                  const AllocOptions& o) noexcept {
  if (size == 0) return EXTMEM_ERROR(EINVAL, "cannot allocate zero bytes: ask for at least one");
  if (size > kMaxSize)
    return EXTMEM_ERROR(EOVERFLOW, "the size is larger than any region can be (2^47 bytes)");
  if (o.align != 0 && !base::is_power_of_two(o.align))
    return EXTMEM_ERROR(EINVAL, "the alignment must be a power of two");
  if (o.align > kMaxAlign) return EXTMEM_ERROR(EINVAL, "the alignment must be at most 1 GiB");
  if (o.nocross != 0 && (!base::is_power_of_two(o.nocross) || o.nocross < size)) {
    return EXTMEM_ERROR(EINVAL, "nocross must be a power of two that is not smaller than the size");
  }
  if (o.dma_bits > 63) return EXTMEM_ERROR(EINVAL, "dma_bits must be 1 to 63, or 0 for any");
  if (o.os_page_size != 0 && !base::is_power_of_two(o.os_page_size)) {
    return EXTMEM_ERROR(EINVAL, "the OS page size must be a power of two");
  }
  if (o.numa_node < kAnyNode)
    return EXTMEM_ERROR(EINVAL, "no such NUMA node: give a node's number, or -1 for any");
  if (o.max_offset != 0 && (o.min_offset >= o.max_offset || o.max_offset - o.min_offset < size)) {
    return EXTMEM_ERROR(EINVAL, "the window [min_offset, max_offset) is smaller than the size");
  }
  if (o.placement > Placement::high) return EXTMEM_ERROR(EINVAL, "unknown placement: use any, low or high");
  CheckedRequest request;
  request.size = size;
  if (!knows(o.tag)) return EXTMEM_ERROR(EINVAL, "the tag is not one of this domain: use intern_tag");
  EXTMEM_TRY_VOID(
      thread_slot());  // first: with it a fork's child joins, and from then on the holder is another one
  EXTMEM_TRY(holder, intern_holder(o.tag));
  request.holder = holder;
  if (o.region) {
    EXTMEM_TRY(region, checked_region(o.region));
    if (core_.region(region).heap != heap.id)
      return EXTMEM_ERROR(EINVAL, "the wanted region belongs to another heap");
    EXTMEM_TRY_VOID(mapped_here(region));
    request.filter.region = region;
  }
  request.filter.node = o.numa_node;
  request.filter.os_page_shift = o.os_page_size == 0 ? 0 : base::floor_log2(o.os_page_size);
  request.span.align = std::max<std::uint64_t>(1, o.align);
  request.span.nocross = o.nocross;
  request.span.nocross_in_addresses = o.nocross_in_addresses;
  request.span.iova_contiguous = o.iova_contiguous;
  request.span.dma_bits = o.dma_bits;
  request.span.placement = o.placement;
  request.span.min_offset = o.min_offset;
  request.span.max_offset = o.max_offset == 0 ? ~std::uint64_t{0} : o.max_offset;
  if (heap.exact) {
    request.size = base::align_up(size, kExactGranule);
    request.span.align = std::max(kExactGranule, request.span.align);
    request.span.high_end = true;
    if (o.nocross != 0 && o.nocross < request.size) {
      return EXTMEM_ERROR(EINVAL, "nocross must not be smaller than the size rounded to 64 bytes");
    }
    return request;
  }
  const bool anywhere = o.dma_bits == 0 && o.placement == Placement::any && !o.region &&
                        o.numa_node == kAnyNode && o.os_page_size == 0 && o.min_offset == 0 &&
                        o.max_offset == 0;
  if (anywhere) {
    std::uint64_t bytes = size;
    std::uint64_t align = std::max<std::uint64_t>(16, o.align);
    if (o.nocross != 0 || o.iova_contiguous) {
      // An object as long as its alignment crosses no larger boundary, and no OS page.
      bytes = align = std::bit_ceil(std::max<std::uint64_t>(size, align));
    }
    request.cls = alloc::class_of_aligned(bytes, align);
  }
  request.span.align = std::max<std::uint64_t>(16, request.span.align);
  request.span.high_end =
      true;  // away from the slabs, which grow from the low end; and cheaper (PageAllocator::allocate)
  return request;
}

namespace {

/// Whether a region that the policy adds could serve the request at all.
bool growth_helps(const GrowthPolicy& policy, const CheckedRequest& request) noexcept {
  const BackingSpec& backing = policy.backing;
  if (request.filter.region != 0 || request.span.min_offset != 0 || ~request.span.max_offset != 0)
    return false;
  if (request.filter.node != kAnyNode && request.filter.node != backing.numa_node) return false;
  const std::uint64_t os_page = backing.os_page_size;
  const bool hugetlb = backing.kind == BackingKind::hugetlb || backing.kind == BackingKind::memfd_hugetlb;
  const std::uint64_t wanted =
      request.filter.os_page_shift == 0 ? 0 : std::uint64_t{1} << request.filter.os_page_shift;
  if (wanted != 0 && wanted != os_page && (os_page != 0 || (!hugetlb && wanted != 4096))) return false;
  if (backing.iova_source != IovaSource::table) return true;
  // Without IOVAs only what lies inside one OS page is contiguous.
  const std::uint64_t page = os_page != 0 ? os_page : hugetlb ? 2u << 20 : 4096;
  return request.span.dma_bits == 0 && (!request.span.iova_contiguous || request.size <= page);
}

/// Whether any place in an exact heap will do.
bool is_plain(const CheckedRequest& request, std::uint16_t untagged) noexcept {
  const alloc::SpanRequest& span = request.span;
  const alloc::RegionFilter& filter = request.filter;
  return request.holder == untagged && span.align == kExactGranule && span.nocross == 0 &&
         !span.iova_contiguous && span.dma_bits == 0 && span.min_offset == 0 && ~span.max_offset == 0 &&
         span.placement == Placement::any && filter.region == 0 && filter.node == kAnyNode &&
         filter.os_page_shift == 0;
}

}  // namespace

bool DomainState::lacks_region_of(const HeapLocal& heap) const noexcept {
  for (std::uint32_t region = 1; region <= regions_high(); ++region) {
    const alloc::RegionCore& core = core_.region(region);
    if (core.heap == heap.id && bases_[region] == 0 &&
        (core.flags & (alloc::kRegionAttached | alloc::kRegionDraining)) == alloc::kRegionAttached)
      return true;
  }
  return false;
}

Result<RegionPtr> DomainState::allocate(HeapLocal& heap, const CheckedRequest& request) noexcept {
  EXTMEM_TRY(slot, thread_slot());
  RegionId grown{};  // for this request
  bool others_asked = false;
  for (;;) {
    const std::uint64_t growths = heaps_[heap.id].growths.load(std::memory_order_acquire);
    Error failed{};
    // No magazines where no region has slabs: thousands of small heaps then need no cache for each thread.
    const bool slabs = request.cls < alloc::kClasses && core_.heap(heap.id).slab_regions != 0;
    if (slabs) {
      EXTMEM_TRY(cache, thread_cache(slot, heap));
      if (cache->exact())
        return EXTMEM_ERROR(ESTALE,
                            "the heap was destroyed while this call was under way");  // it is another's now
      auto ptr = core_.allocate_small(slot, *cache, request.cls, request.holder);
      if (ptr)
        return to_region_ptr(
            reinterpret_cast<void*>(*ptr));  // found: while we hold the object, its region stays
      failed = ptr.error();
    }
    // Who has freed nothing yet has no cache, and would not come by the short way (handles.cpp) before.
    if (heap.exact && remember_cache(slot, heap) == nullptr && is_plain(request, core_.untagged())) {
      const std::uint64_t p = core_.allocate_plain_span(slot, heap.id, nullptr, request.size);
      if (p != 0) return to_region_ptr(reinterpret_cast<void*>(p));
    }
    if (!slabs || failed.code() == ENOTBLK || failed.code() == ENOMEM) {
      auto span =
          core_.allocate_span(slot, heap.id, request.size, request.span, request.filter, request.holder);
      if (span) {
        return RegionPtr{alloc::make_ptr(
            span->region, std::uint64_t{span->page} << core_.region(span->region).pages.page_shift)};
      }
      failed = span.error();
    }
    if (failed.code() == ENOMEM && shared_ && !others_asked) {
      // What dead processes left may be what is missing, or a region that we have not mapped yet.
      others_asked = true;
      if (poll()) continue;
    }
    if (failed.code() == ENOMEM && !heap.grows && shared_ && lacks_region_of(heap)) {
      return EXTMEM_ERROR(
          ENOMEM,
          "no free memory of the heap fits this size and these constraints in the regions that this process "
          "has mapped, and others of the heap are not mapped here: from_region_ptr says why; or add a "
          "region");
    }
    if (failed.code() != ENOMEM || !heap.grows || !growth_helps(heap.growth, request)) return failed;
    // What a new region does not serve while nobody else uses it, no further one will: its IOVAs do not fit, say.
    if (grown && take_back_growth(grown)) return failed;
    if (!grow(heap, request.size + request.span.align, growths, grown, failed)) return failed;
  }
}

Result<void*> DomainState::allocate_pointer(HeapLocal& heap, std::size_t size,
                                            const AllocOptions& options) noexcept {
  EXTMEM_TRY(request, check_request(heap, size, options));
  RegionPtr ptr{};
  // A small object in one region: a span would take whole pages. So where the thread's next object happens to lie there, it is
  // that, and always so in a heap of one region.
  if (request.filter.region != 0 && !heap.exact && core_.heap(heap.id).slab_regions != 0 &&
      size >> core_.region(request.filter.region).pages.page_shift == 0) {
    AllocOptions anywhere = options;
    anywhere.region = RegionId{};
    EXTMEM_TRY(small, check_request(heap, size, anywhere));
    EXTMEM_TRY(slot, thread_slot());
    EXTMEM_TRY(cache, thread_cache(slot, heap));
    if (small.cls < alloc::kClasses && !cache->exact()) {
      if (auto found = core_.allocate_small(slot, *cache, small.cls, small.holder); found) {
        void* const object = reinterpret_cast<void*>(*found);
        ptr = to_region_ptr(object).value_or(RegionPtr{});
        if (ptr.slot() != request.filter.region) {
          ptr = RegionPtr{};
          (void)deallocate(&heap, object);
        }
      }
    }
  }
  if (!ptr) {
    EXTMEM_TRY(allocated, allocate(heap, request));
    ptr = allocated;
  }
  void* p = address(ptr);
  if (options.zero) {
    if ((core_.region(ptr.slot()).flags & alloc::kRegionCpu) == 0) {
      (void)deallocate(&heap, p);
      return EXTMEM_ERROR(ENOTSUP, "the CPU cannot reach this memory: zero it by the device that owns it");
    }
    std::memset(p, 0, size);
  }
  return p;
}

Result<ObjectInfo> DomainState::object_at(const void* p, std::uint16_t* holder) noexcept {
  RegionLocal* region = region_at(p);
  if (region == nullptr)
    return EXTMEM_ERROR(EFAULT, "foreign pointer: the address is in no region of this domain");
  return object_in(region->slot, reinterpret_cast<std::uintptr_t>(p) - region->base, region->base, holder);
}

ObjectInfo DomainState::object_in(std::uint32_t region, std::uint64_t offset, std::uintptr_t base,
                                  std::uint16_t* holder) noexcept {
  const alloc::RegionCore& core = core_.region(region);
  const unsigned shift = core.pages.page_shift;
  const auto page = static_cast<std::uint32_t>(offset >> shift);
  ObjectInfo info;
  info.heap_id = core.heap;
  info.region = RegionId{region, core.generation};
  std::uint16_t found = alloc::kHolderUntagged;
  if (page >= core.pages.pages) return info;
  const alloc::PageAllocator pages = core_.pages(region);
  const alloc::PageDesc& desc = pages.desc(page);
  if (pages.there(page) && desc.kind() == alloc::PageKind::slab) {
    const std::uint32_t index = desc.slab();
    if (!core_.slab_covers(index, region, page)) return info;
    const alloc::Slab& slab = core_.slab(index);
    const std::uint64_t object = alloc::place_of(offset - slab.offset(), slab.reciprocal).number;
    if (object >= slab.objects) return info;
    const std::uint64_t word = slab.first_state + object;
    if (word >= core_.state_words()) return info;  // damaged
    const std::uint16_t state = core_.state(static_cast<std::uint32_t>(word)).load(std::memory_order_relaxed);
    info.base = reinterpret_cast<void*>(base + slab.offset() + object * slab.size());
    info.size = slab.size();
    info.held = alloc::is_held(state);
    if (info.held) found = alloc::holder_of(state);
  } else if (const std::uint32_t head = pages.find_head(page); head != alloc::kNoPage) {
    info.base = reinterpret_cast<void*>(base + (std::uint64_t{head} << shift));
    info.size = std::uint64_t{pages.desc(head).length()} << shift;
    info.held = !core_.span_is_cached(region, head);
    found = pages.desc(head).holder();
  }
  info.tag = holder_tag(found);
  info.memzone = info.held && found == alloc::kHolderMemzone;
  if (holder != nullptr) *holder = found;
  return info;
}

Result<ObjectInfo> DomainState::held_object(const HeapLocal* heap, const void* p,
                                            std::uint16_t* holder) noexcept {
  if (p == nullptr) return EXTMEM_ERROR(EINVAL, "the pointer is null");
  EXTMEM_TRY(info, object_at(p, holder));
  if (heap != nullptr && info.heap_id != heap->id) {
    return EXTMEM_ERROR(EFAULT, "foreign pointer: the address belongs to another heap of this domain");
  }
  if (!info.held)
    return EXTMEM_ERROR(EALREADY, "nothing is allocated at this address: it was freed, or never was");
  if (info.base != p) return EXTMEM_ERROR(EINVAL, "interior pointer: use the address that allocate returned");
  return info;
}

Result<void> DomainState::deallocate(HeapLocal* heap, void* p) noexcept {
  if (p == nullptr) return {};
  RegionLocal* region = region_at(p);
  if (region == nullptr)
    return EXTMEM_ERROR(EFAULT, "foreign pointer: the address is in no region of this domain");
  if (heap == nullptr) {
    heap = &heap_locals_[region->heap];
  } else if (region->heap != heap->id) {
    return EXTMEM_ERROR(EFAULT, "foreign pointer: the address belongs to another heap of this domain");
  }
  return deallocate_at(
      *heap, RegionPtr{alloc::make_ptr(region->slot, reinterpret_cast<std::uintptr_t>(p) - region->base)});
}

/// Frees the span that the thread allocated last in that exact heap into its cache there; makes that at its first free. False:
/// not that easily.
bool DomainState::cache_span(std::uint32_t slot, const HeapLocal& heap, RegionPtr ptr) noexcept {
  const std::uint64_t sequence = index_.sequence();  // first: what follows is of then, or is found out
  if (bases_[ptr.slot()] == 0) return false;
  alloc::ThreadCache* cache = remember_cache(slot, heap);
  if (cache == nullptr) {
    // Without a cache all goes under the lock, as well.
    (void)thread_cache(slot, heap);
    return false;
  }
  if (!cache->exact()) return false;  // the record is another heap's now
  return alloc::push_span(*cache, bases_[ptr.slot()] + ptr.offset(), *index_.word(), sequence);
}

Result<void> DomainState::deallocate_at(HeapLocal& heap, RegionPtr ptr) noexcept {
  EXTMEM_TRY(slot, thread_slot());
  const std::uint32_t region = ptr.slot();
  const alloc::RegionCore& core = core_.region(region);
  const auto page = static_cast<std::uint32_t>(ptr.offset() >> core.pages.page_shift);
  if (ptr.offset() >> core.pages.page_shift >= core.pages.pages) {
    return EXTMEM_ERROR(EALREADY, "nothing is allocated at this address: it is the region's unusable end");
  }
  if (!core_.pages(region).there(page))
    return EXTMEM_ERROR(EALREADY, "nothing is allocated at this address, and never was");
  Result<void> freed = EXTMEM_ERROR(ENOTBLK, "not tried");
  // A page may turn from a slab's to a span's between the two looks only when p is not allocated: then one of
  // them says so at the second try.
  for (int round = 0; round < 2 && !freed && freed.error().code() == ENOTBLK; ++round) {
    if (core_.pages(region).desc(page).kind() == alloc::PageKind::slab) {
      EXTMEM_TRY(cache, thread_cache(slot, heap));
      if (cache->exact()) break;  // nothing is allocated there: the record is another heap's now
      freed = core_.free_small(slot, *cache, region, ptr.offset());
    } else {
      if (heap.exact && cache_span(slot, heap, ptr)) return {};
      freed = core_.free_span(slot, heap.id, region, ptr.offset());
    }
  }
  if (!freed && freed.error().code() == ENOTBLK) {
    return EXTMEM_ERROR(
        EALREADY, "nothing is allocated at this address: it was freed (a double free), or never allocated");
  }
  if (freed) tidy_growth(heap);
  return freed;
}

Result<void*> DomainState::reallocate(HeapLocal& heap, void* p, std::size_t new_size,
                                      const AllocOptions& o) noexcept {
  if (p == nullptr) return allocate_pointer(heap, new_size, o);
  std::uint16_t holder = alloc::kHolderUntagged;
  EXTMEM_TRY(object, held_object(&heap, p, &holder));
  if (object.memzone) return EXTMEM_ERROR(EPERM, "the memory belongs to a memzone: it cannot be reallocated");
  EXTMEM_TRY(request, check_request(heap, new_size, o));
  if (o.tag.index == 0 && holder_participant(holder) == participants_.self()) {
    request.holder = holder;
  } else if (o.tag.index == 0) {  // another process': its tag, our account
    EXTMEM_TRY(ours, intern_holder(holder_tag(holder)));
    request.holder = ours;
  }
  EXTMEM_TRY(slot, thread_slot());
  const auto zero_beyond = [&](void* now) {  // what the old object did not have
    if (o.zero && new_size > object.size)
      std::memset(static_cast<char*>(now) + object.size, 0, new_size - object.size);
    return now;
  };
  const auto address_now = reinterpret_cast<std::uintptr_t>(p);
  const alloc::RegionCore& region = core_.region(object.region.slot);
  if (o.zero && (region.flags & alloc::kRegionCpu) == 0) {
    return EXTMEM_ERROR(ENOTSUP, "the CPU cannot reach this memory: zero it by the device that owns it");
  }
  const std::uint64_t offset = address_now - bases_[object.region.slot];
  // In place: when the object stays where it is, its constraints must hold for the new size there.
  const bool plain = o.nocross == 0 && !o.iova_contiguous && o.dma_bits == 0 &&
                     o.placement == Placement::any && !o.region && o.numa_node == kAnyNode &&
                     o.os_page_size == 0 && o.min_offset == 0 && o.max_offset == 0 &&
                     request.holder == holder;
  const bool aligned = o.align == 0 || base::is_aligned(address_now, o.align);
  if (plain && aligned) {
    const alloc::PageDesc& desc =
        core_.pages(object.region.slot).desc(static_cast<std::uint32_t>(offset >> region.pages.page_shift));
    if (desc.kind() == alloc::PageKind::slab) {
      if (alloc::fits_well(request.size, object.size)) return p;
    } else if (heap.exact || core_.heap(heap.id).slab_regions == 0 || request.size > alloc::kLastingSize ||
               request.size > object.size / 2) {
      EXTMEM_TRY(resized, core_.resize_span(slot, heap.id, object.region.slot, offset, request.size));
      if (resized) return zero_beyond(p);
    }
  }
  // An object that would better move to a smaller place can also stay: what shrinks must not fail for want of memory.
  const bool may_stay = plain && aligned && request.size <= object.size;
  const auto stay = [&]() -> Result<void*> {
    const alloc::PageDesc& desc =
        core_.pages(object.region.slot).desc(static_cast<std::uint32_t>(offset >> region.pages.page_shift));
    if (desc.kind() == alloc::PageKind::slab) return p;
    auto shrunk = core_.resize_span(slot, heap.id, object.region.slot, offset, request.size);
    return shrunk ? Result<void*>(p) : Result<void*>(shrunk.error());
  };
  if (may_stay && ((region.flags & alloc::kRegionCpu) == 0 || o.in_place)) return stay();
  if (o.in_place)
    return EXTMEM_ERROR(ENOMEM, "the object cannot have this size, and these constraints, where it is");
  if (new_size > alloc::kLastingSize) request.cls = alloc::kClasses;  // a span
  auto place = allocate(heap, request);
  if (!place) return may_stay && place.error().code() != EDEADLK ? stay() : Result<void*>(place.error());
  const RegionPtr moved = *place;
  void* to = address(moved);
  if ((region.flags & alloc::kRegionCpu) == 0 ||
      (core_.region(moved.slot()).flags & alloc::kRegionCpu) == 0) {
    (void)deallocate(&heap, to);
    if (may_stay) return stay();
    return EXTMEM_ERROR(
        ENOTSUP, "the CPU cannot reach this memory: allocate anew and copy by the device that owns it");
  }
  const std::uint64_t bytes = std::min<std::uint64_t>(object.size, new_size);
  const os::Moved pages = move_pages(heap, slot, object.region.slot, p, moved, bytes);
  if (pages.place_lost) {  // and stays allocated, so that nobody gets it
    return EXTMEM_ERROR(ENOMEM, "the kernel has no memory to move the object's pages: it stays where it is");
  }
  std::memcpy(static_cast<std::byte*>(to) + pages.bytes, static_cast<const std::byte*>(p) + pages.bytes,
              bytes - pages.bytes);
  if (pages.old_place_lost) return zero_beyond(to);
  if (auto freed = deallocate(&heap, p); !freed) {  // somebody else freed it meanwhile: a bug of the caller's
    (void)deallocate(&heap, to);
    return freed.error();
  }
  return zero_beyond(to);
}

}  // namespace extmem::heap
