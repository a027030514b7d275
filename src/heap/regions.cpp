// Adding regions: validate, place metadata, tell listeners, publish. Whatever fails undoes what came before.
#include <algorithm>
#include <bit>
#include <cstring>

#include "base/crash_point.hpp"
#include "base/error.hpp"
#include "heap/domain_state.hpp"
#include "heap/making_note.hpp"
#include "os/backing.hpp"
#include "os/kernel_text.hpp"
#include "os/mapping.hpp"
#include "os/pagemap.hpp"
#include "os/process.hpp"
#include "os/shared_mapping.hpp"
#include "os/thread.hpp"
#include "os/vma.hpp"

namespace extmem::heap {

namespace {

constexpr std::uint64_t kMinOsPage = 64;
constexpr int kMaxNode = 1023;                   // the kernel's own limit (CONFIG_NODES_SHIFT is at most 10)
constexpr std::uint64_t kSlabRegion = 1u << 20;  // smaller regions have small pages instead of slabs

Result<std::uint64_t> check_spec(const RegionSpec& spec) noexcept {
  const auto base = reinterpret_cast<std::uintptr_t>(spec.base);
  const std::uint64_t os_page = spec.os_page_size == 0 ? os::page_size() : spec.os_page_size;
  if (spec.base == nullptr) return EXTMEM_ERROR(EINVAL, "the region's base is null");
  if (spec.length == 0) return EXTMEM_ERROR(EINVAL, "the region's length is zero");
  if (!base::is_power_of_two(os_page)) return EXTMEM_ERROR(EINVAL, "the OS page size must be a power of two");
  if (os_page < kMinOsPage) return EXTMEM_ERROR(EINVAL, "the OS page size must be at least 64 bytes");
  if (!base::is_aligned(base, os_page))
    return EXTMEM_ERROR(EINVAL, "the region's base must be a multiple of the OS page size");
  if (!base::is_aligned(spec.length, os_page)) {
    return EXTMEM_ERROR(EINVAL, "the region's length must be a multiple of the OS page size");
  }
  std::uint64_t end;
  if (!base::checked_add(base, spec.length, end)) {
    return EXTMEM_ERROR(EOVERFLOW,
                        "the region reaches beyond the end of the address space: base + length overflows");
  }
  if (spec.length > std::uint64_t{1} << 47)
    return EXTMEM_ERROR(EOVERFLOW, "a region can be at most 2^47 bytes long");
  if (spec.iova_source > IovaSource::physical)
    return EXTMEM_ERROR(EINVAL, "unknown IOVA source: use table, identity or physical");
  if (spec.numa_node < kAnyNode || spec.numa_node > kMaxNode) {
    return EXTMEM_ERROR(EINVAL, "no such NUMA node: give 0 to 1023, or -1 where it is not known");
  }
  if (!spec.iovas.empty() && spec.iova_source != IovaSource::table) {
    return EXTMEM_ERROR(EINVAL, "an IOVA table goes with IovaSource::table only");
  }
  if (!spec.iovas.empty() && (spec.iovas.data() == nullptr || spec.iovas.size() != spec.length / os_page)) {
    return EXTMEM_ERROR(EINVAL,
                        "the IOVA table must have exactly one entry per OS page: length / os_page_size");
  }
  return os_page;
}

/// The granule: small for small regions, so that little is wasted; never above what the base is aligned to.
unsigned choose_page_shift(std::uint64_t length, std::uintptr_t base, bool exact) noexcept {
  const unsigned log = base::floor_log2(length);
  unsigned shift = exact ? 6 : std::clamp(log < 10 ? 0u : log - 10, 6u, 12u);
  while (length >> shift > 1u << 31) ++shift;
  return std::min(shift, static_cast<unsigned>(std::countr_zero(base)));
}

/// Memory for one call: an array of IOVAs.
class Scratch {
 public:
  Scratch() noexcept = default;
  Scratch(const Scratch&) = delete;
  ~Scratch() { os::unmap(memory_, bytes_); }
  Result<std::uint64_t*> make(std::uint64_t words) noexcept {
    bytes_ = base::align_up(words * 8, os::page_size());
    EXTMEM_TRY(memory, os::reserve(bytes_));
    memory_ = memory;
    EXTMEM_TRY_VOID(os::commit(memory_, bytes_));
    return reinterpret_cast<std::uint64_t*>(memory_);
  }

 private:
  std::byte* memory_ = nullptr;
  std::uint64_t bytes_ = 0;
};

Result<std::span<const Iova>> physical_iovas(const RegionSpec& spec, std::uint64_t os_page,
                                             Scratch& scratch) noexcept {
  if (!spec.allow_unstable_iova) {
    auto stable = os::is_hugetlb(spec.base, spec.length);
    if (!stable) return stable.error();
    if (!*stable) {
      return EXTMEM_ERROR(
          EINVAL,
          "the kernel may move these pages, so their physical addresses are not stable: use hugetlb memory "
          "or pinned pages with a table of your own, or set allow_unstable_iova");
    }
  }
  const std::uint64_t pages = spec.length / os_page;
  EXTMEM_TRY(words, scratch.make(pages));
  EXTMEM_TRY_VOID(os::physical_addresses(spec.base, os_page, pages, words));
  return std::span<const Iova>(reinterpret_cast<const Iova*>(words), pages);
}

}  // namespace

Result<std::uint32_t> DomainState::checked_region(RegionId id) noexcept {
  if (id.slot == 0 || id.slot > regions_high() || id.generation == 0 ||
      (core_.region(id.slot).flags & alloc::kRegionUsed) == 0 ||
      core_.region(id.slot).generation != id.generation) {
    return EXTMEM_ERROR(ENOENT, "no such region: it was removed, or the id is of another domain");
  }
  return id.slot;
}

int DomainState::notify(RegionEventKind kind, std::uint32_t region, bool foreign) noexcept {
  if (listener_count_ == 0) return 0;
  const RegionEventKind opposite =
      kind == RegionEventKind::added ? RegionEventKind::removing : RegionEventKind::added;
  const RegionInfo info = make_region_info(region, true);
  for (std::uint32_t i = 0; i < listener_count_; ++i) {
    const int refused = listeners_[i].fn(RegionEvent{kind, info, foreign}, listeners_[i].arg);
    if (refused == 0) continue;
    while (i-- > 0) (void)listeners_[i].fn(RegionEvent{opposite, info, foreign}, listeners_[i].arg);
    return refused;
  }
  return 0;
}

Result<RegionId> DomainState::add_region(Heap handle, const RegionSpec& spec) noexcept {
  EXTMEM_TRY(slot, thread_slot());
  const OrderedGuard guard(core_, slot, directory_->region_lock, Rank::regions);
  if (!guard.held())
    return guard.refused(
        EXTMEM_ERROR(EDEADLK, "regions cannot be added inside a listener or a walk over regions"));
  if (spec.alone_at_address && shared_ && behind()) sync_locked(false);
  EXTMEM_TRY(heap, checked(handle));
  return add_locked(*heap, spec, nullptr, false, false);
}

Result<RegionId> DomainState::add_locked(HeapLocal& heap, const RegionSpec& spec, const os::Mapping* mapping,
                                         bool grown, bool unlink) noexcept {
  // Under the region lock, which destroy_heap holds too: the heap cannot go from here on.
  if (heap.key.load(std::memory_order_relaxed) == 0)
    return EXTMEM_ERROR(ESTALE, "the heap was destroyed: this handle is stale");
  EXTMEM_TRY(os_page, check_spec(spec));
  const auto base = reinterpret_cast<std::uintptr_t>(spec.base);
  if (index_.overlapping(base, spec.length) != 0) {
    return EXTMEM_ERROR(EEXIST, "the memory overlaps a region that is already in this domain");
  }
  if (spec.alone_at_address && overlaps_elsewhere(base, spec.length)) {
    return EXTMEM_ERROR(
        EEXIST,
        "a region that is not mapped in this process has these addresses where it was added, and "
        "the memory is to be alone there (alone_at_address)");
  }
  const unsigned os_shift = base::floor_log2(os_page);
  Scratch scratch;
  std::span<const Iova> iovas = spec.iovas;
  region::IovaPlan plan;
  if (spec.iova_source == IovaSource::identity) {
    EXTMEM_TRY(linear, region::plan_linear(Iova{base}, spec.length >> os_shift, os_shift));
    plan = linear;
  } else {
    if (spec.iova_source == IovaSource::physical) {
      EXTMEM_TRY(physical, physical_iovas(spec, os_page, scratch));
      iovas = physical;
    }
    auto planned = iovas.empty() ? region::plan_none(spec.length >> os_shift, os_shift)
                                 : region::plan_iova_table(
                                       iovas, os_shift,
                                       spec.any_iovas ? region::IovaAlign::any : region::IovaAlign::os_page);
    if (!planned) return planned.error();
    plan = *planned;
  }
  const unsigned shift = choose_page_shift(spec.length, base, heap.exact);
  if (spec.length >> shift > alloc::kMaxPages) {
    return EXTMEM_ERROR(
        EINVAL,
        "so long a region needs large pages, and its base is not aligned to them: align it to 64 KiB");
  }
  const auto pages = static_cast<std::uint32_t>(spec.length >> shift);
  EXTMEM_TRY(slot, thread_slot());
  alloc::CoreRoots& roots = core_.roots();
  std::uint32_t region;
  std::uint64_t page_table;
  std::uint64_t iova_data = 0;
  {
    // Page tables and IOVA tables are made and freed with regions only: the region lock guards their space too.
    auto tx = transaction(slot);
    region = directory_->regions.take(
        tx, [&](std::uint32_t i) -> auto& { return core_.region(i + 1).next; });
    if (region == shared::IndexList::kNone)
      return EXTMEM_ERROR(ENOSPC, "no room for another region: raise DomainOptions::max_regions");
    ++region;  // slot 0 is "no region"
    alloc::RegionCore& fresh = core_.region(region);
    const bool stands = ground_.ensure_object(fresh) && (!shared_ || ground_.ensure_object(shares_[region]));
    page_table = !stands ? 0
                         : alloc::allocate_meta(core_.segment(), roots.large, tx,
                                                alloc::page_table_bytes(pages, shift), ground_, false);
    if (page_table != 0 && plan.data_bytes != 0) {
      iova_data = alloc::allocate_meta(core_.segment(), roots.large, tx, plan.data_bytes, ground_);
    }
    if (page_table == 0 || (iova_data == 0 && plan.data_bytes != 0)) {
      return EXTMEM_ERROR(
          ENOSPC, "the control segment is full: raise DomainOptions::large_metadata (or its tmpfs is full)");
    }
    // All that release_region needs, before anybody (a cleaner) may have to call it.
    tx.set(fresh.changing, slot);
    fresh.pages = alloc::PageSpace{};
    fresh.pages.descs_offset = page_table;
    fresh.page_table_bytes = alloc::page_table_bytes(pages, shift);
    fresh.iova_offset = iova_data;
    fresh.iova_bytes = plan.data_bytes;
    fresh.heap = heap.id;
    fresh.served = 0;
    if (shared_) shares_[region].unlink = 0;
    tx.commit();
    base::crash_point("add.allocated");
  }
  alloc::RegionCore& core = core_.region(region);
  if (auto built = region::build_iova_table(core.iova, plan, iovas, core_.segment() + iova_data, iova_data);
      !built) {
    release_region(slot, region);
    return built.error();
  }
  core.pages.pages = pages;
  core.pages.page_shift = shift;
  core.generation = core.generation + 1 == 0 ? 1 : core.generation + 1;
  core.os_page_shift = os_shift;
  core.node = spec.numa_node;
  core.length = spec.length;
  core.phase = base;
  base::crash_point("add.described");
  const bool slabs = !heap.exact && spec.length >= kSlabRegion && os_page >= alloc::kSlabAlign;
  core.asked = 0;
  core.flags = alloc::kRegionUsed | (slabs ? alloc::kRegionSlabs : 0) |
               (spec.cpu_accessible ? alloc::kRegionCpu : 0) |
               (mapping == nullptr ? alloc::kRegionExternal : 0) | (grown ? alloc::kRegionGrown : 0);
  if (shared_) describe_share(region, mapping);
  publish_local(region, base, mapping, mapping != nullptr ? mapping->kind : BackingKind::external);
  const auto withdraw = [&] {
    locals_[region].mapping = os::Mapping{};  // the caller's to close
    locals_[region].kind = BackingKind::external;
    forget_region(region);
    release_region(slot, region);
  };
  if (const int refused = notify(RegionEventKind::added, region); refused != 0) {
    withdraw();
    return EXTMEM_SYS_ERROR(refused < 0 ? -refused : refused,
                            "a listener refused the region; nothing has changed");
  }
  // At one with being the heap's, the file goes with the region. Before that it is in a note, where it is new.
  const bool goes = unlink && shared_ && shares_[region].unlink == 0;
  if (auto attached = core_.attach_region(slot, region, goes ? &shares_[region].unlink : nullptr, 2);
      !attached) {
    (void)notify(RegionEventKind::removing, region);
    withdraw();
    return attached.error();
  }
  base::crash_point("add.attached");
  announce(Here::done);
  return RegionId{region, core.generation};
}

void DomainState::release_region(std::uint32_t slot, std::uint32_t region) noexcept {
  alloc::RegionCore& core = core_.region(region);
  alloc::CoreRoots& roots = core_.roots();
  core.flags = 0;
  bases_[region] = 0;
  base::crash_point("release.unused");
  if (shared_ && shares_[region].unlink != 0) {
    const RegionShare& share = shares_[region];
    if (share.unlink == 2) {
      (void)remove_path(share, false);  // else the name stays: the region goes all the same
    } else if (const char* name = std::strrchr(share.path, '/'); name != nullptr) {
      folder_.remove_file(name + 1);
    }
    base::crash_point("release.unlinked");
    shares_[region].unlink = 0;
  }
  // Zeroed before the transaction gives it back: a page table must be zero when it is handed out again.
  segment_.discard(core.pages.descs_offset, core.page_table_bytes);
  if (core.iova_bytes != 0)
    segment_.discard(core.iova_offset, core.iova_bytes);  // the next page table may lie there
  base::crash_point("release.zeroed");
  auto tx = transaction(slot);
  alloc::free_meta(core_.segment(), roots.large, tx, core.pages.descs_offset);
  if (core.iova_bytes != 0) alloc::free_meta(core_.segment(), roots.large, tx, core.iova_offset);
  directory_->regions.put(
      tx, region - 1, [&](std::uint32_t i) -> auto& { return core_.region(i + 1).next; });
  tx.set(core.changing, 0);
  tx.commit();
}

Result<RegionId> DomainState::add_backing(Heap handle, const BackingSpec& spec) noexcept {
  EXTMEM_TRY_VOID(checked(handle));
  if (spec.length == 0) return EXTMEM_ERROR(EINVAL, "the backing's length is zero");
  if (spec.length > std::uint64_t{1} << 47)
    return EXTMEM_ERROR(EOVERFLOW, "a region can be at most 2^47 bytes long");
  EXTMEM_TRY(slot, thread_slot());
  // Mapped before the lock is taken for good: pre-faulting may take minutes, and `progress` is the caller's.
  if (const OrderedGuard allowed(core_, slot, directory_->region_lock, Rank::regions); !allowed.held()) {
    return EXTMEM_ERROR(EDEADLK, "regions cannot be added inside a listener or a walk over regions");
  }
  if (lowest_address_ != 0) {  // where it goes depends on the regions that there are
    const OrderedGuard placing(core_, slot, directory_->region_lock, Rank::regions);
    EXTMEM_TRY(heap, checked(handle));
    return add_backing_locked(*heap, spec, false);
  }
  MakingNote note(folder_);
  EXTMEM_TRY(mapping, map_backing(spec, note));
  base::crash_point("add.mapped");
  const OrderedGuard guard(core_, slot, directory_->region_lock, Rank::regions);
  auto heap = checked(handle);  // again: mapping took its time
  if (!heap) {
    drop_mapping(mapping);
    return heap.error();
  }
  return add_mapped(**heap, spec, mapping, false);
}

Result<RegionId> DomainState::add_backing_locked(HeapLocal& heap, const BackingSpec& spec,
                                                 bool grown) noexcept {
  MakingNote note(folder_);
  EXTMEM_TRY(mapping, map_backing(spec, note));
  return add_mapped(heap, spec, mapping, grown);
}

/// How others can map what this process has just mapped.
void DomainState::describe_share(std::uint32_t region, const os::Mapping* mapping) noexcept {
  RegionShare& share = shares_[region];
  share.reach = static_cast<std::uint32_t>(Reach::none);
  share.unlink = 0;
  share.device = share.inode = 0;
  for (auto& word : share.withheld_by) word = 0;
  share.adder = participants_.self();
  share.kind = static_cast<std::uint32_t>(mapping != nullptr ? mapping->kind : BackingKind::external);
  share.os_page_size = mapping != nullptr ? mapping->os_page_size : os::page_size();
  if (mapping == nullptr || mapping->fd < 0) return;
  const auto file = os::identify(mapping->fd);
  if (!file) return;
  share.device = file->device;
  share.inode = file->inode;
  bool named = os::path_of(mapping->fd, share.path, sizeof share.path).ok();
  if (!named) share.path[0] = '\0';
  const bool in_folder = mapping->created && folder_.has(mapping->name.data(), mapping->fd);
  if (in_folder && !named) {  // without /proc: others go by the folder, as for every such file
    const os::Path path = os::Path("/").add(mapping->name.data());
    const std::size_t length = std::strlen(path.c_str());
    named = length < sizeof share.path;
    if (named) std::memcpy(share.path, path.c_str(), length + 1);
  }
  share.reach = static_cast<std::uint32_t>(named ? Reach::path : Reach::holder);
  // Last: whoever releases the region after our death trusts the path only then.
  if (named && in_folder) share.unlink = 1;
}

Result<os::Mapping> DomainState::map_backing(const BackingSpec& spec, MakingNote& note) noexcept {
  if (spec.iova_source > IovaSource::physical)
    return EXTMEM_ERROR(EINVAL, "unknown IOVA source: use table, identity or physical");
  if (spec.fallback > Fallback::anonymous)
    return EXTMEM_ERROR(EINVAL, "unknown fallback: use none, thp or anonymous");
  os::BackingRequest request;
  request.kind = spec.kind;
  request.length = spec.length;
  request.os_page_size = spec.os_page_size;
  request.numa_node = spec.numa_node;
  request.lock = spec.lock;
  request.prefault = spec.prefault || spec.iova_source == IovaSource::physical;
  request.thp = spec.thp;
  request.path_or_name = spec.path;
  request.create = spec.create;
  request.unlink_on_close = true;  // until it is added: see add_mapped
  // Aligned to 2 MiB where it is long enough: transparent hugepages and alignment constraints then work.
  request.align = spec.length >= 2u << 20 ? 2u << 20 : 0;
  request.lowest_address =
      lowest_address_ != 0 ? next_address() : window_address(spec.length, spec.os_page_size);
  request.progress = spec.progress;
  const auto write_note = [&](const os::NewFile& file) {
    return note.write(participants_.self(),
                      directory_->next_file.atomic().fetch_add(1, std::memory_order_relaxed), file);
  };
  if (shared_ && spec.path != nullptr && spec.unlink_on_remove) request.making = write_note;
  os::Path own;  // memory of a named domain that nobody has a path for lies in the domain's folder
  if (shared_ && spec.kind == BackingKind::anonymous) {
    request.kind = BackingKind::file;
    EXTMEM_TRY(folder, folder_.checked_fd());
    request.folder = folder;
    own.add("region-")
        .add(std::uint64_t{participants_.self()})
        .add("-")
        .add(directory_->next_file.atomic().fetch_add(1, std::memory_order_relaxed));
    request.path_or_name = own.c_str();
  } else if (shared_ && spec.kind == BackingKind::hugetlb) {
    request.kind = BackingKind::memfd_hugetlb;
  }
  EXTMEM_TRY_VOID(os::check_backing(request));  // a mistake is no reason to fall back
  auto made = os::create_backing(request);
  if (!made && made.error().code() != ECANCELED && spec.fallback != Fallback::none) {
    if (shared_) {  // the same, as memory that others can map
      BackingSpec plain = spec;
      plain.kind = BackingKind::anonymous;
      plain.os_page_size = 0;
      plain.path = nullptr;
      plain.thp = spec.fallback == Fallback::thp;
      plain.fallback = Fallback::none;
      return map_backing(plain, note);
    }
    request.kind = BackingKind::anonymous;
    request.os_page_size = 0;
    request.path_or_name = nullptr;
    request.thp = spec.fallback == Fallback::thp;
    made = os::create_backing(request);
  }
  return made;
}

Result<RegionId> DomainState::add_mapped(HeapLocal& heap, const BackingSpec& spec, os::Mapping& mapping,
                                         bool grown) noexcept {
  // A shared domain's plain memory has a new file of a name of its own.
  const bool own_file = shared_ && spec.kind == BackingKind::anonymous;
  if (!own_file && backs_a_region(mapping)) {
    mapping.created = mapping.lengthened =
        false;  // nothing to undo: the other region needs the file as it is
    drop_mapping(mapping);
    return EXTMEM_ERROR(
        EEXIST, "the file backs a region of this domain already: its bytes would be handed out twice");
  }
  RegionSpec region;
  region.base = mapping.addr;
  region.length = mapping.length;
  region.os_page_size = mapping.os_page_size;
  region.iova_source = spec.iova_source;
  region.allow_unstable_iova = spec.allow_unstable_iova;
  region.numa_node = mapping.node;
  auto added = add_locked(heap, region, &mapping, grown, spec.unlink_on_remove);
  if (!added) {
    drop_mapping(mapping);
  } else if (shared_) {
    // The name goes with the region, whoever removes it, and not with this process' mapping.
    os::keep_name(locals_[added->slot].mapping);
    if (spec.kind == BackingKind::anonymous) folder_.share_file(locals_[added->slot].mapping.fd);
  } else if (!spec.unlink_on_remove) {
    os::keep_name(locals_[added->slot].mapping);
  }
  return added;
}

void DomainState::drop_mapping(os::Mapping& mapping) noexcept { (void)os::discard_backing(mapping); }

/// Whether a region maps the file already: two regions over the same bytes would hand them out twice.
bool DomainState::backs_a_region(const os::Mapping& mapping) noexcept {
  const bool has_name = mapping.kind == BackingKind::file || mapping.kind == BackingKind::shm ||
                        mapping.kind == BackingKind::dax;
  if (!has_name) return false;
  if (mapping.inode == 0) return false;  // it cannot be told
  for (std::uint32_t region = 1; region <= regions_high(); ++region) {
    // As they were when it was mapped: a program may have closed the descriptor. A shared domain's are of other processes too.
    const std::uint64_t inode = shared_ ? shares_[region].inode.get() : locals_[region].mapping.inode;
    if (inode != mapping.inode) continue;
    const std::uint64_t device = shared_ ? shares_[region].device.get() : locals_[region].mapping.device;
    if (device == mapping.device && (core_.region(region).flags & alloc::kRegionUsed) != 0) return true;
  }
  return false;
}

Result<void> DomainState::add_listener(RegionListener listener, void* arg) noexcept {
  if (listener == nullptr) return EXTMEM_ERROR(EINVAL, "the listener is null");
  EXTMEM_TRY(slot, thread_slot());
  const OrderedGuard guard(core_, slot, directory_->region_lock, Rank::regions);
  if (!guard.held())
    return guard.refused(EXTMEM_ERROR(EDEADLK, "listeners cannot be added inside a listener"));
  for (std::uint32_t i = 0; i < listener_count_; ++i) {
    if (listeners_[i].fn == listener && listeners_[i].arg == arg) {
      return EXTMEM_ERROR(EEXIST, "this listener is registered with this argument");
    }
  }
  if (listener_count_ == kMaxListeners) return EXTMEM_ERROR(ENOSPC, "a domain has room for 64 listeners");
  listeners_[listener_count_++] = Listener{listener, arg};
  return {};
}

Result<void> DomainState::remove_listener(RegionListener listener, void* arg) noexcept {
  EXTMEM_TRY(slot, thread_slot());
  const OrderedGuard guard(core_, slot, directory_->region_lock, Rank::regions);
  if (!guard.held())
    return guard.refused(EXTMEM_ERROR(EDEADLK, "listeners cannot be removed inside a listener"));
  for (std::uint32_t i = 0; i < listener_count_; ++i) {
    if (listeners_[i].fn != listener || listeners_[i].arg != arg) continue;
    for (; i + 1 < listener_count_; ++i) listeners_[i] = listeners_[i + 1];
    --listener_count_;
    return {};
  }
  return EXTMEM_ERROR(ENOENT, "this listener is not registered with this argument");
}

}  // namespace extmem::heap
