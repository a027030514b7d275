// Opening and closing a domain; its heaps and tags.
#include <algorithm>
#include <bit>
#include <cstring>
#include <new>

#include "base/error.hpp"
#include "heap/domain_state.hpp"
#include "heap/live_domains.hpp"
#include "os/mapping.hpp"
#include "os/membarrier.hpp"
#include "os/numa.hpp"
#include "os/thread.hpp"

namespace extmem::heap {

namespace {

Result<void> check_name(std::string_view name) noexcept {
  if (name.data() == nullptr || name.empty()) return EXTMEM_ERROR(EINVAL, "the name is empty: give 1 to 63 bytes");
  if (name.size() > kMaxNameLength) return EXTMEM_ERROR(ENAMETOOLONG, "the name is longer than 63 bytes");
  if (name.find('\0') != std::string_view::npos) return EXTMEM_ERROR(EINVAL, "the name contains a zero byte");
  return {};
}

Result<void> check_options(const DomainOptions& o) noexcept {
  if (o.max_regions == 0 || o.max_regions > 65535) return EXTMEM_ERROR(EINVAL, "max_regions must be 1 to 65535");
  if (o.max_heaps == 0 || o.max_heaps > 65536) return EXTMEM_ERROR(EINVAL, "max_heaps must be 1 to 65536");
  if (o.max_memzones > 1u << 24) return EXTMEM_ERROR(EINVAL, "max_memzones must be at most 2^24");
  if (o.max_tags >= alloc::kMaxHolders - alloc::kFirstTagHolder) {
    return EXTMEM_ERROR(EINVAL, "max_tags must be below 49150: a tag is part of an object's 16-bit state");
  }
  if (o.max_threads == 0 || o.max_threads > shared::kMaxThreadSlots) {
    return EXTMEM_ERROR(EINVAL, "max_threads must be 1 to 16383: a thread is part of an object's 16-bit state");
  }
  if (o.small_metadata < 65536 || o.small_metadata > std::uint64_t{8} << 30) {
    return EXTMEM_ERROR(EINVAL, "small_metadata must be 64 KiB to 8 GiB");
  }
  if (o.large_metadata < 1u << 20 || o.large_metadata > std::uint64_t{1} << 45) {
    return EXTMEM_ERROR(EINVAL, "large_metadata must be 1 MiB to 32 TiB");
  }
  return {};
}

std::atomic<std::uint32_t> next_serial{1};

}  // namespace

Result<DomainState*> DomainState::create(const DomainOptions& options) noexcept {
  EXTMEM_TRY_VOID(check_options(options));
  EXTMEM_TRY_VOID(os::prepare_thread_exit());  // early: later the key may need malloc
  const std::uint64_t page = os::page_size();
  const std::uint64_t bytes =
      base::align_up(sizeof(DomainState), 64) +
      base::align_up(std::uint64_t{options.max_regions + 1} * sizeof(RegionLocal), 64) +
      base::align_up(std::uint64_t{options.max_regions + 1} * sizeof(RegionIndex::Entry), 64) +
      base::align_up(std::uint64_t{options.max_regions + 1} * sizeof(std::uintptr_t), 64) +
      base::align_up(std::uint64_t{options.max_heaps} * sizeof(HeapLocal), 64) + page;
  const std::uint64_t mapped = base::align_up(bytes, page);
  EXTMEM_TRY(memory, os::reserve(mapped));
  if (auto committed = os::commit(memory, mapped); !committed) {
    os::unmap(memory, mapped);
    return committed.error();
  }
  auto* state = new (memory) DomainState;  // placement: the mapping is this object's home
  state->mapping_bytes_ = mapped;
  if (auto opened = state->open(options, memory + base::align_up(sizeof(DomainState), 64), mapped); !opened) {
    state->~DomainState();
    os::unmap(memory, mapped);
    return opened.error();
  }
  return state;
}

Result<void> DomainState::open(const DomainOptions& o, std::byte* locals, std::uint64_t) noexcept {
  const auto carve = [&](std::uint64_t bytes) {
    std::byte* at = locals;
    locals += base::align_up(bytes, 64);
    return at;
  };
  options_ = o;
  locals_ = reinterpret_cast<RegionLocal*>(carve(std::uint64_t{o.max_regions + 1} * sizeof(RegionLocal)));
  auto* entries = reinterpret_cast<RegionIndex::Entry*>(carve(std::uint64_t{o.max_regions + 1} * sizeof(RegionIndex::Entry)));
  bases_ = reinterpret_cast<base::Relaxed<std::uintptr_t>*>(carve(std::uint64_t{o.max_regions + 1} * sizeof(std::uintptr_t)));
  heap_locals_ = reinterpret_cast<HeapLocal*>(carve(std::uint64_t{o.max_heaps} * sizeof(HeapLocal)));

  shared::Geometry g{};
  g.max_regions = o.max_regions;
  g.max_heaps = o.max_heaps;
  g.max_memzones = std::max(1u, o.max_memzones);
  g.max_tags = std::max(1u, o.max_tags);
  g.max_threads = o.max_threads;
  g.max_caches = static_cast<std::uint32_t>(std::min<std::uint64_t>(65536, std::uint64_t{o.max_threads} * o.max_heaps));
  g.small_bytes = base::align_up(o.small_metadata, 65536);
  g.large_bytes = base::align_up(o.large_metadata, 65536);
  g.max_slabs = static_cast<std::uint32_t>(std::min<std::uint64_t>(g.small_bytes / 64, 1u << 26));

  shared::SegmentLayout layout;
  const std::uint64_t directory = layout.place(sizeof(Directory), 1);
  const std::uint32_t heap_heads = std::bit_ceil(g.max_heaps);
  const std::uint32_t tag_heads = std::bit_ceil(g.max_tags);
  const std::uint32_t zone_heads = std::bit_ceil(g.max_memzones);
  const std::uint64_t heaps = layout.place(sizeof(HeapRecord), g.max_heaps);
  const std::uint64_t heaps_hash = layout.place(4, heap_heads);
  const std::uint64_t tags = layout.place(sizeof(TagName), g.max_tags);
  const std::uint64_t tags_hash = layout.place(4, tag_heads);
  const std::uint64_t holders = layout.place(sizeof(HolderRecord), std::uint64_t{g.max_tags} + alloc::kFirstTagHolder);
  const std::uint64_t zones = layout.place(sizeof(MemzoneRecord), g.max_memzones);
  const std::uint64_t zones_hash = layout.place(4, zone_heads);
  const std::uint64_t zones_by_ptr = layout.place(4, zone_heads);
  const alloc::CoreTables tables = alloc::CoreTables::place(layout, g);
  EXTMEM_TRY_VOID(segment_.create_private(layout, g));

  directory_ = segment_.at<Directory>(directory);
  directory_->heaps.capacity = g.max_heaps;
  directory_->tags.capacity = g.max_tags;
  directory_->memzones.capacity = o.max_memzones;
  directory_->regions.capacity = g.max_regions;
  heaps_.bind(segment_.at<HeapRecord>(heaps), segment_.at<base::Relaxed<std::uint32_t>>(heaps_hash), heap_heads,
              &directory_->heaps);
  tags_.bind(segment_.at<TagName>(tags), segment_.at<base::Relaxed<std::uint32_t>>(tags_hash), tag_heads,
             &directory_->tags);
  memzones_.bind(segment_.at<MemzoneRecord>(zones), segment_.at<base::Relaxed<std::uint32_t>>(zones_hash), zone_heads,
                 &directory_->memzones);
  memzones_by_ptr_ = segment_.at<base::Relaxed<std::uint32_t>>(zones_by_ptr);
  memzone_mask_ = zone_heads - 1;
  holders_ = segment_.at<HolderRecord>(holders);
  core_.bind(segment_.base(), tables, g, false, os::membarrier_register(false), bases_);
  core_.format();

  serial_ = next_serial.fetch_add(1, std::memory_order_relaxed) & 0xffffff;
  index_.bind(entries, std::uint64_t{serial_} << 32);
  enlist(this);
  const os::NodeSet nodes = os::numa_nodes();
  const int count = std::max(1, nodes.count());
  for (int i = 0; i < count && static_cast<std::uint32_t>(i) < g.max_heaps; ++i) {
    const int node = nodes.count() == 0 ? 0 : nodes.id_at(i);
    char name[16] = "node";
    char digits[8];
    int n = 0;
    for (int rest = node; n == 0 || rest != 0; rest /= 10) digits[n++] = static_cast<char>('0' + rest % 10);
    for (int d = 0; d < n; ++d) name[4 + d] = digits[n - 1 - d];
    if (auto made = create_heap(name, HeapOptions{}, node); !made) {
      delist(this);
      return made.error();
    }
    node_heaps_ = static_cast<std::uint32_t>(i) + 1;
  }
  return {};
}

void DomainState::close() noexcept {
  delist(this);
  for (std::uint32_t slot = 1; slot <= directory_->regions.high; ++slot) {
    if ((core_.region(slot).flags & alloc::kRegionUsed) == 0) continue;
    const RegionInfo info = make_region_info(slot, true);  // no vote: the domain goes whatever they say
    for (std::uint32_t i = 0; i < listener_count_; ++i) {
      (void)listeners_[i].fn(RegionEvent{RegionEventKind::removing, info}, listeners_[i].arg);
    }
    if (locals_[slot].kind != BackingKind::external) (void)os::close_backing(locals_[slot].mapping);
    if (std::uint32_t* words = locals_[slot].reverse.load(std::memory_order_acquire); words != nullptr) {
      os::unmap(words, locals_[slot].reverse_bytes);
    }
  }
  segment_.close();
  const std::uint64_t bytes = mapping_bytes_;
  this->~DomainState();
  os::unmap(this, bytes);
}

// ---- heaps -------------------------------------------------------------------------------------------------

Result<HeapLocal*> DomainState::checked(const Heap& heap) noexcept {
  if (heap.local_ == nullptr) return EXTMEM_ERROR(EINVAL, "the heap handle is empty: get one from create_heap or find_heap");
  if (heap.local_->state != this) return EXTMEM_ERROR(EINVAL, "the heap belongs to another domain");
  if (heap.local_->key.load(std::memory_order_relaxed) != heap.key_) {
    return EXTMEM_ERROR(ESTALE, "the heap was destroyed: this handle is stale");
  }
  return heap.local_;
}

Result<Heap> DomainState::create_heap(std::string_view name, const HeapOptions& options, int node) noexcept {
  EXTMEM_TRY_VOID(check_name(name));
  const GrowthPolicy& growth = options.growth;
  if (growth.step != 0 &&
      (growth.backing.kind == BackingKind::external || growth.backing.kind == BackingKind::file ||
       growth.backing.kind == BackingKind::dax || growth.backing.kind == BackingKind::shm)) {
    return EXTMEM_ERROR(EINVAL, "a growth policy needs a backing without a path: anonymous, hugetlb or memfd");
  }
  if (options.style != Style::binned && options.style != Style::exact) {
    return EXTMEM_ERROR(EINVAL, "unknown heap style: use binned or exact");
  }
  EXTMEM_TRY(slot, thread_slot());
  const OrderedGuard guard(core_, slot, directory_->lock, Rank::directory);
  if (!guard.held()) return EXTMEM_ERROR(EDEADLK, "heaps cannot be created inside a walk over the directory");
  if (heaps_.find(name) != heaps_.kNone) return EXTMEM_ERROR(EEXIST, "a heap of this name exists");
  auto tx = transaction(slot);
  const std::uint32_t id = heaps_.insert(tx, name);
  if (id == heaps_.kNone) return EXTMEM_ERROR(ENOSPC, "no room for another heap: raise DomainOptions::max_heaps");
  HeapRecord& record = heaps_[id];
  tx.add(record.generation, 1);
  tx.set(record.node, node);
  alloc::HeapCore& heap = core_.heap(id);
  heap.exact = options.style == Style::exact ? 1 : 0;
  HeapLocal& local = heap_locals_[id];
  if (local.state == nullptr) {
    local.state = this;
    local.id = id;
  }
  local.exact = options.style == Style::exact;
  local.grows = growth.step != 0;
  local.growth = growth;
  local.growth.backing.path = nullptr;
  local.growth.backing.progress = {};
  local.grown_bytes = 0;
  local.growths.store(0, std::memory_order_relaxed);
  std::memcpy(local.label, record.name.text, sizeof local.label);
  tx.commit();
  const std::uint64_t key = make_heap_key(serial_, record.generation, id);
  local.key.store(key, std::memory_order_release);
  return Heap(&local, key);
}

Result<Heap> DomainState::heap_by_id(std::uint32_t id) noexcept {
  if (id >= options_.max_heaps || id >= heaps_.high() || heaps_[id].used == 0) {
    return EXTMEM_ERROR(ENOENT, "no heap has this id");
  }
  HeapLocal& local = heap_locals_[id];
  const std::uint64_t key = local.key.load(std::memory_order_acquire);
  if (key == 0) return EXTMEM_ERROR(ENOENT, "no heap has this id: it is just being made or destroyed");
  return Heap(&local, key);
}

Result<Heap> DomainState::find_heap(std::string_view name) noexcept {
  EXTMEM_TRY_VOID(check_name(name));
  EXTMEM_TRY(slot, thread_slot());
  const OrderedGuard guard(core_, slot, directory_->lock, Rank::directory);
  if (!guard.held()) return EXTMEM_ERROR(EDEADLK, "heaps cannot be looked up by name inside a walk over the directory");
  const std::uint32_t id = heaps_.find(name);
  if (id == heaps_.kNone) return EXTMEM_ERROR(ENOENT, "no heap has this name");
  return heap_by_id(id);
}

Result<Heap> DomainState::heap_of_node(int node) noexcept {
  for (std::uint32_t id = 0; id < node_heaps_; ++id) {
    if (heaps_[id].node == node) return heap_by_id(id);
  }
  return EXTMEM_ERROR(ENOENT, "this machine has no such NUMA node");
}

Result<void> DomainState::destroy_heap(Heap handle, HolderReport* users) noexcept {
  EXTMEM_TRY(heap, checked(handle));
  if (heap->id < node_heaps_) return EXTMEM_ERROR(EPERM, "a NUMA node's own heap cannot be destroyed");
  EXTMEM_TRY(slot, thread_slot());
  const OrderedGuard directory(core_, slot, directory_->lock, Rank::directory);
  const OrderedGuard regions(core_, slot, directory_->region_lock, Rank::regions);
  if (!directory.held() || !regions.held()) {
    return EXTMEM_ERROR(EDEADLK, "heaps cannot be destroyed inside a listener or a walk over the directory");
  }
  EXTMEM_TRY_VOID(checked(handle));
  alloc::HeapCore& core = core_.heap(heap->id);
  {
    // Grown regions that nothing uses go with their heap; any other region is in the way, and then nothing goes.
    const shared::LockGuard guard(core.lock, slot, core_.process_shared());
    if (!guard.held()) return EXTMEM_ERROR(EDEADLK, "the heap cannot be destroyed inside a walk over it");
    core_.flush_all_locked(slot, heap->id, true);
    bool busy = false;
    for (std::uint32_t region = core.first_region; region != 0; region = core_.region(region).next) {
      busy |= (core_.region(region).flags & alloc::kRegionGrown) == 0 || !core_.region_empty_locked(region);
    }
    if (busy) {
      if (users != nullptr) {
        *users = HolderReport{};
        core_.pause_all(slot, core);
        for (std::uint32_t region = core.first_region; region != 0; region = core_.region(region).next) {
          report_holders_locked(region, *users);
        }
        core_.resume_all(slot, core);
      }
      return EXTMEM_ERROR(EBUSY, "the heap still has regions: remove them first");
    }
  }
  while (core.first_region != 0) EXTMEM_TRY_VOID(remove_locked(core.first_region, users));
  const shared::LockGuard guard(core.lock, slot, core_.process_shared());
  if (!guard.held()) return EXTMEM_ERROR(EDEADLK, "the heap cannot be destroyed inside a walk over it");
  heap->key.store(0, std::memory_order_release);
  index_.touch();
  thread_memory.see(index_.sequence());  // invariant 3 of ThreadMemory: our own cache becomes anybody's
  core_.drop_caches_locked(slot, heap->id);
  core_.free_tags_locked(slot, core);
  core.out_bytes.store(0, std::memory_order_relaxed);
  core.out_peak = 0;
  core.most_caches = 0;
  for (auto& sharing : core.sharing) sharing = 0;
  auto tx = transaction(slot);
  heaps_.erase(tx, heap->id);
  tx.commit();
  return {};
}

Result<void> DomainState::walk_heaps(FunctionRef<bool(const HeapInfo&)> visit) noexcept {
  if (!visit) return EXTMEM_ERROR(EINVAL, "a walk needs a visitor");
  EXTMEM_TRY(slot, thread_slot());
  for (std::uint32_t id = 0; id < heaps_.high(); ++id) {
    const HeapRecord& record = heaps_[id];
    HeapInfo info;
    {
      // One heap at a time: the visitor may use the directory.
      const OrderedGuard guard(core_, slot, directory_->lock, Rank::directory);
      if (!guard.held()) return EXTMEM_ERROR(EDEADLK, "heaps cannot be listed inside a walk or a listener");
      if (record.used == 0) continue;
      std::memcpy(info.name, record.name.text, sizeof info.name);
      info.id = id;
      info.style = core_.heap(id).exact ? Style::exact : Style::binned;
      info.regions = core_.heap(id).regions;
    }
    if (!visit(info)) break;
  }
  return {};
}

// ---- tags --------------------------------------------------------------------------------------------------

Result<Tag> DomainState::intern_tag(std::string_view name) noexcept {
  EXTMEM_TRY_VOID(check_name(name));
  EXTMEM_TRY(slot, thread_slot());
  const OrderedGuard guard(core_, slot, directory_->lock, Rank::directory);
  if (!guard.held()) return EXTMEM_ERROR(EDEADLK, "tags cannot be made inside a walk over the directory");
  std::uint32_t index = tags_.find(name);
  if (index == tags_.kNone) {
    auto tx = transaction(slot);
    index = tags_.insert(tx, name);
    if (index == tags_.kNone) return EXTMEM_ERROR(ENOSPC, "no room for another tag: raise DomainOptions::max_tags");
    holders_[alloc::kFirstTagHolder + index] = HolderRecord{0, index + 1};
    tx.commit();
  }
  return Tag{static_cast<std::uint16_t>(index + 1)};
}

Result<const char*> DomainState::tag_name(Tag tag) noexcept {
  if (tag.index == 0) return "";
  if (tag.index > tags_.high()) return EXTMEM_ERROR(ENOENT, "no such tag in this domain");
  return static_cast<const char*>(tags_[tag.index - 1u].name.text);
}

Tag DomainState::holder_tag(std::uint16_t holder) const noexcept {
  return holder < alloc::kFirstTagHolder ? Tag{} : Tag{static_cast<std::uint16_t>(holders_[holder].tag)};
}

const char* DomainState::holder_name(std::uint16_t holder) const noexcept {
  const Tag tag = holder_tag(holder);
  return tag.index == 0 ? "" : tags_[tag.index - 1u].name.text;
}

}  // namespace extmem::heap
