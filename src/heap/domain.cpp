// Making and closing a domain; its heaps.
#include <algorithm>
#include <bit>
#include <cstring>
#include <new>

#include "alloc/heap_guard.hpp"
#include "base/crash_point.hpp"
#include "base/error.hpp"
#include "heap/domain_state.hpp"
#include "heap/live_domains.hpp"
#include "os/mapping.hpp"
#include "os/membarrier.hpp"
#include "os/numa.hpp"
#include "os/thread.hpp"

namespace extmem::heap {

namespace {

std::atomic<std::uint32_t> next_serial{1};

SharedGrowth share(const GrowthPolicy& policy) noexcept {
  const BackingSpec& b = policy.backing;
  SharedGrowth g;
  g.step = policy.step;
  g.limit = policy.limit;
  g.os_page_size = b.os_page_size;
  g.numa_node = b.numa_node;
  g.kind = static_cast<std::uint8_t>(b.kind);
  g.iova_source = static_cast<std::uint8_t>(b.iova_source);
  g.fallback = static_cast<std::uint8_t>(b.fallback);
  g.flags = static_cast<std::uint8_t>(
      (b.thp ? kGrowthThp : 0) | (b.prefault ? kGrowthPrefault : 0) | (b.lock ? kGrowthLock : 0) |
      (b.allow_unstable_iova ? kGrowthUnstable : 0) | (policy.give_back ? kGrowthGiveBack : 0) |
      (policy.keep_one ? 0 : kGrowthKeepNone));
  return g;
}

GrowthPolicy unshare(const SharedGrowth& g) noexcept {
  GrowthPolicy policy;
  BackingSpec& b = policy.backing;
  policy.step = g.step;
  policy.limit = g.limit;
  b.os_page_size = g.os_page_size;
  b.numa_node = g.numa_node;
  b.kind = static_cast<BackingKind>(g.kind.get());
  b.iova_source = static_cast<IovaSource>(g.iova_source.get());
  b.fallback = static_cast<Fallback>(g.fallback.get());
  const std::uint8_t flags = g.flags;
  b.thp = (flags & kGrowthThp) != 0;
  b.prefault = (flags & kGrowthPrefault) != 0;
  b.lock = (flags & kGrowthLock) != 0;
  b.allow_unstable_iova = (flags & kGrowthUnstable) != 0;
  policy.give_back = (flags & kGrowthGiveBack) != 0;
  policy.keep_one = (flags & kGrowthKeepNone) == 0;
  return policy;
}

}  // namespace

Result<DomainState*> DomainState::make(const DomainOptions& options) noexcept {
  EXTMEM_TRY_VOID(check_options(options));
  EXTMEM_TRY_VOID(os::prepare_thread_exit());  // early: later the key may need malloc
  EXTMEM_TRY_VOID(watch_forks());
  const std::uint64_t page = os::page_size();
  const std::uint64_t regions = std::uint64_t{options.max_regions} + 1;
  std::uint64_t bytes = 0;
  const auto room = [&](std::uint64_t more) {
    const std::uint64_t at = bytes;
    bytes += base::align_up(more, 64);
    return at;
  };
  const std::uint64_t map = room(RegionIndex::kMapBytes);  // whole pages, from a page on
  const std::uint64_t home = room(sizeof(DomainState));
  const std::uint64_t locals = room(regions * sizeof(RegionLocal));
  const std::uint64_t entries = room(RegionIndex::entry_bytes(regions));
  const std::uint64_t elsewhere = room(regions * sizeof(std::uint32_t));
  const std::uint64_t bases = room(regions * sizeof(std::uintptr_t));
  const std::uint64_t heaps = room(std::uint64_t{options.max_heaps} * sizeof(HeapLocal));
  const std::uint64_t holders = room((std::uint64_t{options.max_tags} + 1) * sizeof(std::uint16_t));
  const std::uint64_t mapped = base::align_up(bytes, page);
  EXTMEM_TRY(memory, os::reserve(mapped));
  if (auto committed = os::commit(memory, mapped); !committed) {
    os::unmap(memory, mapped);
    return committed.error();
  }
  auto* state = new (memory + home) DomainState;  // placement: the mapping is this object's home
  state->mapping_ = memory;
  state->mapping_bytes_ = mapped;
  state->options_ = options;
  state->locals_ = reinterpret_cast<RegionLocal*>(memory + locals);
  state->bases_ = reinterpret_cast<base::Relaxed<std::uintptr_t>*>(memory + bases);
  state->heap_locals_ = reinterpret_cast<HeapLocal*>(memory + heaps);
  state->tag_holders_ = reinterpret_cast<base::Relaxed<std::uint16_t>*>(memory + holders);
  state->serial_ = next_serial.fetch_add(1, std::memory_order_relaxed) & 0xffffff;
  state->index_.bind(reinterpret_cast<RegionIndex::Entry*>(memory + entries),
                     static_cast<std::uint32_t>(regions),
                     reinterpret_cast<RegionIndex::Granule*>(memory + map), state->locals_,
                     reinterpret_cast<std::uint32_t*>(memory + elsewhere), state->own_sequence_,
                     std::uint64_t{state->serial_} << 32);
  return state;
}

void DomainState::unmake() noexcept {
  std::byte* const memory = mapping_;
  const std::uint64_t bytes = mapping_bytes_;
  this->~DomainState();
  os::unmap(memory, bytes);
}

shared::Geometry DomainState::geometry_of(const DomainOptions& o) noexcept {
  shared::Geometry g{};
  g.max_regions = o.max_regions;
  g.max_heaps = o.max_heaps;
  g.max_memzones = o.max_memzones;
  g.max_tags = std::max(1u, o.max_tags);
  g.max_threads = o.max_threads;
  g.max_caches =
      static_cast<std::uint32_t>(std::min<std::uint64_t>(65536, std::uint64_t{o.max_threads} * o.max_heaps));
  g.small_bytes = base::align_up(o.small_metadata, 65536);
  g.large_bytes = base::align_up(o.large_metadata, 65536);
  g.max_slabs = static_cast<std::uint32_t>(std::min<std::uint64_t>(g.small_bytes / 64, 1u << 26));
  return g;
}

DomainState::Tables DomainState::place_tables(const shared::Geometry& g) noexcept {
  Tables t{};
  shared::SegmentLayout& layout = t.layout;
  t.heap_heads = std::bit_ceil(g.max_heaps);
  t.tag_heads = std::bit_ceil(g.max_tags);
  t.zone_heads = std::bit_ceil(std::max(1u, g.max_memzones));
  t.directory = layout.place(sizeof(Directory), 1);
  t.participants = layout.place(sizeof(shared::Participant), shared::kMaxParticipants + 1);
  t.heaps_hash = layout.place(4, t.heap_heads);
  t.tags_hash = layout.place(4, t.tag_heads);
  t.zones_hash = layout.place(4, t.zone_heads);
  t.zones_by_ptr = layout.place(4, t.zone_heads);
  t.always =
      layout.total_bytes();  // read before anything is stored there: so there is space for it from the start
  t.heaps = layout.place(sizeof(HeapRecord), g.max_heaps);
  t.tags = layout.place(sizeof(TagName), g.max_tags);
  t.holder_count = static_cast<std::uint32_t>(
      std::min<std::uint64_t>(alloc::kMaxHolders, std::uint64_t{g.max_tags} * 4 + alloc::kFirstTagHolder));
  t.holders = layout.place(sizeof(HolderRecord), t.holder_count);
  t.zones = layout.place(sizeof(MemzoneRecord), std::max(1u, g.max_memzones));
  t.shares = layout.place(sizeof(RegionShare), std::uint64_t{g.max_regions} + 1);
  t.mapped =
      layout.place(sizeof(std::uint32_t),
                   std::uint64_t{shared::kMaxParticipants + 1} * (std::uint64_t{g.max_regions} + 1), 4096);
  t.core = alloc::CoreTables::place(layout, g);
  return t;
}

void DomainState::bind_tables(const Tables& t, const shared::Geometry& g) noexcept {
  directory_ = segment_.at<Directory>(t.directory);
  heaps_.bind(segment_.at<HeapRecord>(t.heaps), segment_.at<base::Relaxed<std::uint32_t>>(t.heaps_hash),
              t.heap_heads, &directory_->heaps, g.max_heaps);
  tags_.bind(segment_.at<TagName>(t.tags), segment_.at<base::Relaxed<std::uint32_t>>(t.tags_hash),
             t.tag_heads, &directory_->tags, g.max_tags);
  memzones_.bind(segment_.at<MemzoneRecord>(t.zones), segment_.at<base::Relaxed<std::uint32_t>>(t.zones_hash),
                 t.zone_heads, &directory_->memzones, g.max_memzones);
  holder_count_ = t.holder_count;
  memzones_by_ptr_ = segment_.at<base::Relaxed<std::uint32_t>>(t.zones_by_ptr);
  memzone_mask_ = t.zone_heads - 1;
  holders_ = segment_.at<HolderRecord>(t.holders);
  shares_ = segment_.at<RegionShare>(t.shares);
  mapped_ = segment_.at<base::Relaxed<std::uint32_t>>(t.mapped);
  if (shared_) {
    const shared::Peers peers(participants_);
    core_.bind(segment_.base(), t.core, g, peers, os::membarrier_register(true), bases_);
  } else {
    core_.bind(segment_.base(), t.core, g, false, os::membarrier_register(false), bases_);
  }
}

void DomainState::format_tables(const Tables& t, const shared::Geometry& g) noexcept {
  directory_->heaps.capacity = g.max_heaps;
  directory_->tags.capacity = g.max_tags;
  directory_->memzones.capacity = g.max_memzones;
  directory_->regions.capacity = g.max_regions;
  directory_->holders.capacity = t.holder_count;
  directory_->holders.high = alloc::kFirstTagHolder;
  core_.format();
}

Result<DomainState*> DomainState::create(const DomainOptions& options) noexcept {
  EXTMEM_TRY(state, make(options));
  const shared::Geometry g = geometry_of(options);
  const Tables tables = place_tables(g);
  if (auto made = state->segment_.create_private(tables.layout, g); !made) {
    state->unmake();
    return made.error();
  }
  state->bind_tables(tables, g);
  state->format_tables(tables, g);
  enlist(state);
  if (auto made = state->make_node_heaps(); !made) {
    state->close();
    return made.error();
  }
  return state;
}

Result<void> DomainState::make_node_heaps() noexcept {
  const os::NodeSet nodes = os::numa_nodes();
  const int count = std::max(1, nodes.count());
  for (int i = 0; i < count && static_cast<std::uint32_t>(i) < options_.max_heaps; ++i) {
    const int node = nodes.count() == 0 ? 0 : nodes.id_at(i);
    char name[16] = "node";
    char digits[8];
    int n = 0;
    for (int rest = node; n == 0 || rest != 0; rest /= 10) digits[n++] = static_cast<char>('0' + rest % 10);
    for (int d = 0; d < n; ++d) name[4 + d] = digits[n - 1 - d];
    // Another process may be at it too, or have died over it: all make the same heaps, in this order, before any other.
    if (auto made = create_heap(name, HeapOptions{}, node); !made && made.error().code() != EEXIST)
      return made.error();
    base::crash_point("heap.of_node");
  }
  // Once, at the end: who finds it set finds them all.
  directory_->node_heaps = std::min(static_cast<std::uint32_t>(count), options_.max_heaps);
  return {};
}

void DomainState::close() noexcept {
  delist(this);
  for (std::uint32_t slot = 1; slot <= regions_high(); ++slot) {
    if (bases_[slot] == 0) continue;
    const RegionInfo info = make_region_info(slot, true);  // no vote: the domain goes whatever they say
    for (std::uint32_t i = 0; i < listener_count_; ++i) {
      (void)listeners_[i].fn(RegionEvent{RegionEventKind::removing, info}, listeners_[i].arg);
    }
  }
  if (participants_.self() != 0) leave();
  for (std::uint32_t slot = 1; slot <= regions_high(); ++slot) {
    if (bases_[slot] != 0) unmap_region(slot);
  }
  if (shared_) finish_leaving();
  segment_.close();
  unmake();
}

// ---- heaps -------------------------------------------------------------------------------------------------

Result<HeapLocal*> DomainState::checked(const Heap& heap) noexcept {
  if (heap.local_ == nullptr)
    return EXTMEM_ERROR(EINVAL, "the heap handle is empty: get one from create_heap or find_heap");
  if (heap.local_->state != this) return EXTMEM_ERROR(EINVAL, "the heap belongs to another domain");
  if (heap.local_->key.load(std::memory_order_relaxed) != heap.key_) {
    return EXTMEM_ERROR(ESTALE, "the heap was destroyed: this handle is stale");
  }
  return heap.local_;
}

Result<Heap> DomainState::create_heap(std::string_view name, const HeapOptions& options, int node) noexcept {
  EXTMEM_TRY_VOID(check_name(name));
  EXTMEM_TRY_VOID(check_growth(options.growth));
  if (options.on_death > OnDeath::keep)
    return EXTMEM_ERROR(EINVAL, "unknown policy for a death: use reclaim or keep");
  if (options.style != Style::binned && options.style != Style::exact) {
    return EXTMEM_ERROR(EINVAL, "unknown heap style: use binned or exact");
  }
  EXTMEM_TRY(slot, thread_slot());
  const OrderedGuard guard(core_, slot, directory_->lock, Rank::directory);
  if (!guard.held())
    return guard.refused(EXTMEM_ERROR(EDEADLK, "heaps cannot be created inside a walk over the directory"));
  if (heaps_.find(name) != heaps_.kNone) return EXTMEM_ERROR(EEXIST, "a heap of this name exists");
  auto tx = transaction(slot);
  const std::uint32_t id = heaps_.insert(tx, name, ground_);
  if (id == heaps_.kNone || !ground_.ensure_object(core_.heap(id))) {
    return EXTMEM_ERROR(ENOSPC,
                        "no room for another heap: raise DomainOptions::max_heaps (or its tmpfs is full)");
  }
  HeapRecord& record = heaps_[id];
  tx.add(record.generation, 1);
  tx.set(record.node, node);
  record.on_death = static_cast<std::uint32_t>(options.on_death);
  record.growths.store(0, std::memory_order_relaxed);
  record.growth = share(options.growth);
  record.user_data = options.user_data;
  core_.heap(id).exact = options.style == Style::exact ? 1 : 0;
  base::crash_point("heap.named");
  tx.commit();
  refresh_heap(id);
  announce(Here::done);
  HeapLocal& local = heap_locals_[id];
  return Heap(&local, local.key.load(std::memory_order_relaxed));
}

/// Makes this process' side of a heap what the record says. Requires: the directory's lock, or the heap cannot go.
void DomainState::refresh_heap(std::uint32_t id) noexcept {
  const HeapRecord& record = heaps_[id];
  HeapLocal& local = heap_locals_[id];
  const auto key_now = [&] { return record.used == 0 ? 0 : make_heap_key(serial_, record.generation, id); };
  if (local.key.load(std::memory_order_acquire) == key_now()) return;
  // By thread id, as it is this process' own lock; held for a few stores.
  const shared::LockGuard guard(refresh_lock_, os::thread_id(), false);
  const std::uint64_t key = key_now();
  if (local.key.load(std::memory_order_relaxed) == key) return;
  if (key != 0) {
    if (local.state == nullptr) {
      local.state = this;
      local.id = id;
    }
    local.exact = core_.heap(id).exact != 0;
    local.growth = unshare(record.growth);
    local.grows = local.growth.step != 0;
    std::memcpy(local.label, record.name.text, sizeof local.label);
  }
  local.key.store(key, std::memory_order_release);
}

Result<Heap> DomainState::heap_by_id(std::uint32_t id) noexcept {
  if (id >= options_.max_heaps || id >= heaps_.high() || heaps_[id].used == 0) {
    return EXTMEM_ERROR(ENOENT, "no heap has this id");
  }
  HeapLocal& local = heap_locals_[id];
  if (shared_) refresh_heap(id);
  const std::uint64_t key = local.key.load(std::memory_order_acquire);
  if (key == 0) return EXTMEM_ERROR(ENOENT, "no heap has this id: it is just being made or destroyed");
  return Heap(&local, key);
}

Result<Heap> DomainState::find_heap(std::string_view name) noexcept {
  EXTMEM_TRY_VOID(check_name(name));
  EXTMEM_TRY(slot, thread_slot());
  const OrderedGuard guard(core_, slot, directory_->lock, Rank::directory);
  if (!guard.held())
    return guard.refused(
        EXTMEM_ERROR(EDEADLK, "heaps cannot be looked up by name inside a walk over the directory"));
  const std::uint32_t id = heaps_.find(name);
  if (id == heaps_.kNone) return EXTMEM_ERROR(ENOENT, "no heap has this name");
  refresh_heap(id);
  return heap_by_id(id);
}

Result<Heap> DomainState::heap_of_node(int node) noexcept {
  for (std::uint32_t id = 0; id < directory_->node_heaps; ++id) {
    if (heaps_[id].node == node) return heap_by_id(id);
  }
  return EXTMEM_ERROR(ENOENT, "this machine has no such NUMA node");
}

Result<void> DomainState::destroy_heap(Heap handle, HolderReport* users) noexcept {
  EXTMEM_TRY(heap, checked(handle));
  if (heap->id < directory_->node_heaps)
    return EXTMEM_ERROR(EPERM, "a NUMA node's own heap cannot be destroyed");
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
    const alloc::HeapGuard guard(core_, slot, heap->id);
    if (!guard.held())
      return guard.refused(EXTMEM_ERROR(EDEADLK, "the heap cannot be destroyed inside a walk over it"));
    EXTMEM_TRY_VOID(core_.flush_all_locked(slot, heap->id, true));
    bool busy = false;
    for (std::uint32_t region = core.first_region; region != 0; region = core_.region(region).next) {
      busy |= (core_.region(region).flags & alloc::kRegionGrown) == 0 || !core_.region_empty_locked(region);
    }
    if (busy) {
      if (users != nullptr) {
        *users = HolderReport{};
        EXTMEM_TRY_VOID(core_.pause_all(slot, core));
        LeftOut left_out;
        for (std::uint32_t region = core.first_region; region != 0; region = core_.region(region).next) {
          report_holders_locked(region, *users, left_out);
        }
        core_.resume_all(slot, core);
      }
      return EXTMEM_ERROR(EBUSY, "the heap still has regions: remove them first");
    }
  }
  while (core.first_region != 0) EXTMEM_TRY_VOID(remove_locked(core.first_region, users));
  const alloc::HeapGuard guard(core_, slot, heap->id);
  if (!guard.held())
    return guard.refused(EXTMEM_ERROR(EDEADLK, "the heap cannot be destroyed inside a walk over it"));
  EXTMEM_TRY_VOID(core_.pause_all(slot, core));
  heap->key.store(0, std::memory_order_release);
  index_.touch();
  thread_memory.see(index_.sequence());  // invariant 3 of ThreadMemory: our own cache becomes anybody's
  auto emptied = core_.drop_caches_paused(slot, heap->id);
  base::crash_point("destroy.emptied");
  if (emptied) emptied = core_.free_tags_locked(slot, core);
  if (!emptied) {
    // A stopped process keeps the metadata's lock. The heap has no memory left that a dropped cache could miss: it stays,
    // and whoever uses it makes new ones.
    core_.resume_all(slot, core);
    refresh_heap(heap->id);
    index_.touch();
    return emptied.error();
  }
  core.out_bytes.store(0, std::memory_order_relaxed);
  core.out_peak = 0;
  core.most_caches = 0;
  for (auto& sharing : core.sharing) sharing = 0;
  core.disturbed = 0;
  core.backoff = 0;
  core.hits = 0;
  core.closed_frees = 0;
  core.tight = 0;
  auto tx = transaction(slot);
  heaps_.erase(tx, heap->id);
  tx.commit();
  announce(Here::done);
  return {};
}

HeapInfo DomainState::heap_info(std::uint32_t id) noexcept {
  const HeapRecord& record = heaps_[id];
  HeapInfo info;
  std::memcpy(info.name, record.name.text, sizeof info.name);
  info.name[sizeof info.name - 1] = '\0';
  info.id = id;
  info.style = core_.heap(id).exact ? Style::exact : Style::binned;
  info.regions = core_.heap(id).regions;
  info.user_data = record.user_data;
  return info;
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
      if (!guard.held())
        return guard.refused(EXTMEM_ERROR(EDEADLK, "heaps cannot be listed inside a walk or a listener"));
      if (record.used == 0) continue;
      info = heap_info(id);
    }
    if (!visit(info)) break;
  }
  return {};
}

}  // namespace extmem::heap
