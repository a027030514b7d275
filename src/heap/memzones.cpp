// Memzones: named reservations. Their memory is an object or span like any other, held by "memzone".
#include <algorithm>
#include <cstring>

#include "alloc/heap_guard.hpp"
#include "base/crash_point.hpp"
#include "base/error.hpp"
#include "heap/domain_state.hpp"
#include "region/iova_table.hpp"

namespace extmem::heap {

namespace {

Error locked() noexcept {
  return EXTMEM_ERROR(EDEADLK,
                      "memzones cannot be used by name inside a walk over the directory or a listener");
}

std::uint64_t hash_ptr(std::uint64_t ptr) noexcept {
  ptr *= 0x9e3779b97f4a7c15u;
  return ptr ^ ptr >> 32;
}

}  // namespace

MemzoneInfo DomainState::make_memzone_info(const MemzoneRecord& record) noexcept {
  MemzoneInfo info;
  std::memcpy(info.name, record.name.text, kMaxNameLength);
  info.ptr = RegionPtr{record.ptr};
  if (info.ptr.slot() > core_.geometry().max_regions) return info;         // damaged: verify() says more
  info.addr = bases_[info.ptr.slot()] == 0 ? nullptr : address(info.ptr);  // not mapped in this process
  info.length = record.length;
  const alloc::RegionCore& region = core_.region(info.ptr.slot());
  info.iova = region::lookup(region.iova, core_.segment(), info.ptr.offset());
  info.os_page_size = std::uint64_t{1} << region.os_page_shift;
  info.heap_id = record.heap;
  info.numa_node = region.node;
  return info;
}

Result<RegionPtr> DomainState::allocate_biggest(HeapLocal& heap, const AllocOptions& o,
                                                std::uint64_t& length) noexcept {
  EXTMEM_TRY(slot, thread_slot());
  AllocOptions one = o;
  one.max_offset = 0;  // the window is tested against the piece, not against one byte
  one.min_offset = 0;
  EXTMEM_TRY(request, check_request(heap, 1, one));
  request.span.min_offset = o.min_offset;
  if (o.max_offset != 0) request.span.max_offset = o.max_offset;
  if (heap.exact) request.span.align = std::max<std::uint64_t>(64, request.span.align);
  // Between the search and the reservation another thread may take the piece: then the next biggest is sought.
  for (int round = 0; round < 100; ++round) {
    EXTMEM_TRY(biggest, core_.biggest_span(slot, heap.id, request.span, request.filter));
    if (biggest.region == 0) break;
    AllocOptions there = o;
    there.region = RegionId{biggest.region, core_.region(biggest.region).generation};
    there.min_offset = biggest.offset;
    there.max_offset = biggest.offset + biggest.bytes;
    auto exact = check_request(heap, biggest.bytes, there);
    if (!exact) return exact.error();
    exact->cls = alloc::kClasses;
    exact->holder = core_.untagged();
    auto got = allocate(heap, *exact);
    if (got) {
      length = biggest.bytes;
      return got;
    }
    if (got.error().code() != ENOMEM) return got.error();
  }
  return EXTMEM_ERROR(ENOMEM, "no free memory of the heap fits these constraints");
}

Result<MemzoneInfo> DomainState::reserve_memzone(Heap handle, std::string_view name, std::size_t length,
                                                 const AllocOptions& o) noexcept {
  if (name.data() == nullptr || name.empty())
    return EXTMEM_ERROR(EINVAL, "the memzone's name is empty: give 1 to 63 bytes");
  if (name.size() > kMaxNameLength)
    return EXTMEM_ERROR(ENAMETOOLONG, "the memzone's name is longer than 63 bytes");
  if (name.find('\0') != std::string_view::npos)
    return EXTMEM_ERROR(EINVAL, "the memzone's name contains a zero byte");
  if (o.tag.index != 0) return EXTMEM_ERROR(EINVAL, "a memzone has its name, not a tag");
  EXTMEM_TRY(slot, thread_slot());
  const std::uint64_t hash = hash_name(name);
  const OrderedGuard guard(core_, slot, directory_->lock, Rank::directory);
  if (!guard.held()) return guard.refused(locked());
  EXTMEM_TRY(local, checked(handle));
  HeapLocal& heap = *local;
  if (memzones_.find(name, hash) != memzones_.kNone)
    return EXTMEM_ERROR(EEXIST, "a memzone of this name exists");
  if (directory_->memzone_count >= directory_->memzones.capacity) {
    return EXTMEM_ERROR(ENOSPC, "no room for another memzone: raise DomainOptions::max_memzones");
  }
  std::uint64_t got = length;
  CheckedRequest request;
  if (length != 0) {
    EXTMEM_TRY(checked, check_request(heap, length, o));
    request = checked;
    if (length > alloc::kLastingSize) request.cls = alloc::kClasses;  // a span
    request.holder =
        core_.untagged();  // ours until the record is there: should we die before, it is a dead one's
  }
  auto ptr = length == 0 ? allocate_biggest(heap, o, got) : allocate(heap, request);
  if (!ptr) return ptr.error();
  if (o.zero) {
    if ((core_.region(ptr->slot()).flags & alloc::kRegionCpu) == 0) {
      (void)deallocate(&heap, address(*ptr));
      return EXTMEM_ERROR(ENOTSUP, "the CPU cannot reach this memory: zero it by the device that owns it");
    }
    std::memset(address(*ptr), 0, got);
  }
  base::crash_point("memzone.allocated");
  Error refused{};
  std::uint32_t index = memzones_.kNone;
  if (const alloc::HeapGuard heap_guard(core_, slot, heap.id); !heap_guard.held()) {
    refused = heap_guard.refused(locked());
  } else {
    auto tx = transaction(slot);
    index = memzones_.insert(tx, name, hash, ground_);
    if (index != memzones_.kNone) {
      MemzoneRecord& record = memzones_[index];
      auto& head = memzones_by_ptr_[hash_ptr(ptr->bits) & memzone_mask_];
      tx.set(record.heap, heap.id);
      tx.set(record.ptr, ptr->bits);
      tx.set(record.length, got);
      tx.set(record.ptr_next, head);
      tx.set(head, index + 1);
      tx.add(directory_->memzone_count, 1);
      tx.add(heaps_[heap.id].memzones, 1);
      core_.set_holder_locked(tx, ptr->bits, alloc::kHolderMemzone);
      tx.commit();
    }
  }
  if (index == memzones_.kNone) {
    (void)deallocate_at(heap, *ptr);
    if (refused) return refused;
    return EXTMEM_ERROR(
        ENOSPC, "no room for another memzone: raise DomainOptions::max_memzones (or its tmpfs is full)");
  }
  return make_memzone_info(memzones_[index]);
}

Result<MemzoneInfo> DomainState::find_memzone(std::string_view name) noexcept {
  if (name.data() == nullptr || name.empty() || name.size() > kMaxNameLength) {
    return EXTMEM_ERROR(ENOENT, "no memzone has this name: names have 1 to 63 bytes");
  }
  EXTMEM_TRY(slot, thread_slot());
  const std::uint64_t hash = hash_name(name);
  const OrderedGuard guard(core_, slot, directory_->lock, Rank::directory);
  if (!guard.held()) return guard.refused(locked());
  const std::uint32_t index = memzones_.find(name, hash);
  if (index == memzones_.kNone) return EXTMEM_ERROR(ENOENT, "no memzone has this name");
  return make_memzone_info(memzones_[index]);
}

Result<void> DomainState::free_memzone(std::string_view name) noexcept {
  if (name.data() == nullptr || name.empty()) return EXTMEM_ERROR(EINVAL, "the memzone's name is empty");
  if (name.size() > kMaxNameLength)
    return EXTMEM_ERROR(ENOENT, "no memzone has this name: names have 1 to 63 bytes");
  EXTMEM_TRY(slot, thread_slot());
  const std::uint64_t hash = hash_name(name);
  const OrderedGuard guard(core_, slot, directory_->lock, Rank::directory);
  if (!guard.held()) return guard.refused(locked());
  const std::uint32_t index = memzones_.find(name, hash);
  if (index == memzones_.kNone) return EXTMEM_ERROR(ENOENT, "no memzone has this name");
  MemzoneRecord& record = memzones_[index];
  const RegionPtr ptr{record.ptr};
  const std::uint32_t heap = record.heap;
  {
    const alloc::HeapGuard heap_guard(core_, slot, heap);
    if (!heap_guard.held()) return heap_guard.refused(locked());
    auto tx = transaction(slot);
    auto* link = &memzones_by_ptr_[hash_ptr(ptr.bits) & memzone_mask_];
    std::uint32_t left = memzones_.high();
    for (; *link != index + 1 && *link != 0 && *link <= memzones_.high() && left != 0; --left)
      link = &memzones_[*link - 1].ptr_next;
    if (*link == index + 1) tx.set(*link, record.ptr_next);  // else the table is damaged
    tx.add(directory_->memzone_count, ~std::uint32_t{0});
    tx.add(heaps_[heap].memzones, ~std::uint32_t{0});
    memzones_.erase(tx, index, hash);
    core_.set_holder_locked(tx, ptr.bits, core_.untagged());  // ours: should we die now, it is a dead one's
    tx.commit();
  }
  base::crash_point("memzone.unnamed");
  refresh_heap(heap);
  return deallocate_at(heap_locals_[heap], ptr);
}

Result<void> DomainState::walk_memzones(FunctionRef<bool(const MemzoneInfo&)> visit) noexcept {
  if (!visit) return EXTMEM_ERROR(EINVAL, "a walk needs a visitor");
  EXTMEM_TRY(slot, thread_slot());
  const OrderedGuard guard(core_, slot, directory_->lock, Rank::directory);
  if (!guard.held()) return guard.refused(locked());
  for (std::uint32_t i = 0; i < memzones_.high(); ++i) {
    if (memzones_[i].used != 0 && !visit(make_memzone_info(memzones_[i]))) break;
  }
  return {};
}

const char* DomainState::memzone_name_at(RegionPtr ptr) const noexcept {
  std::uint32_t left = memzones_.high();
  for (std::uint32_t link = memzones_by_ptr_[hash_ptr(ptr.bits) & memzone_mask_];
       link != 0 && link <= memzones_.high() && left != 0; link = memzones_[link - 1].ptr_next, --left) {
    const MemzoneRecord& record = memzones_[link - 1];
    if (record.ptr == ptr.bits) return record.name.text[kMaxNameLength] == '\0' ? record.name.text : nullptr;
  }
  return nullptr;
}

}  // namespace extmem::heap
