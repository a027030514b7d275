// Inspector: opening, and what there is to see.
#include "heap/inspector.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>
#include <utility>

#include "base/error.hpp"
#include "os/descriptor.hpp"
#include "os/domain_folder.hpp"
#include "os/file.hpp"
#include "os/mapping.hpp"
#include "region/iova_table.hpp"

namespace extmem::heap {

using shared::Life;
using shared::Participant;

namespace {

Error no_visitor() noexcept { return EXTMEM_ERROR(EINVAL, "a walk needs a visitor"); }
Error inside_walk() noexcept {
  return EXTMEM_ERROR(EDEADLK, "the inspector is inside a walk over a heap: do this after the walk");
}
Error no_heap() noexcept { return EXTMEM_ERROR(ENOENT, "no heap has this id"); }

template <std::size_t N>
void copy_name(char (&to)[N], const char* from) noexcept {
  std::memcpy(to, from, N - 1);
  to[N - 1] = '\0';
}

}  // namespace

Result<InspectorState*> InspectorState::open(std::string_view name, const char* directory) noexcept {
  os::FolderRequest request;
  request.directory = directory;
  request.name = name;
  EXTMEM_TRY(fd, os::DomainFolder::open_to_look(request));
  return open_fd(fd, true);
}

Result<InspectorState*> InspectorState::open_fd(int fd, bool named) noexcept {
  os::Descriptor owned(fd);
  EXTMEM_TRY(header, shared::ControlSegment::read_header(fd));
  const DomainState::Tables tables = DomainState::place_tables(header.geometry);
  const std::uint64_t total = shared::ControlSegment::file_bytes(tables.layout);
  if (header.layout_hash != tables.layout.hash() || header.total_bytes != total) {
    return EXTMEM_ERROR(
        EPROTO,
        "the domain was made by a build of extmem with another layout: use that build, or remove the domain");
  }
  const std::uint64_t words = total / 65536 / 64 + 1;
  std::uint64_t bytes = base::align_up(sizeof(InspectorState), 64);
  const std::uint64_t copied = bytes;
  bytes = base::align_up(bytes + words * sizeof(std::uint64_t), 64);
  const std::uint64_t caches = bytes;
  bytes =
      base::align_up(bytes + std::uint64_t{header.geometry.max_caches} * sizeof(CacheMark), os::page_size());
  EXTMEM_TRY(view, DomainState::make(DomainState::options_of(header.geometry)));
  const auto fail = [&](Error why) {
    view->segment_.close();
    view->unmake();
    return why;
  };
  if (auto room = view->segment_.create_copy(total); !room) return fail(room.error());
  auto memory = os::reserve(bytes);
  if (!memory) return fail(memory.error());
  if (auto committed = os::commit(*memory, bytes); !committed) {
    os::unmap(*memory, bytes);
    return fail(committed.error());
  }
  view->looking_ = true;
  view->bind_tables(tables, header.geometry);
  view->core_.be_alone();
  view->participants_.bind(view->segment_.base(), total, view->segment_.at<Participant>(tables.participants),
                           &view->core_.slot(0), header.geometry.max_threads, -1, -1);
  auto* state = new (*memory) InspectorState;  // placement: the mapping is this object's home
  state->view_ = view;
  state->reader_ = shared::SegmentReader(fd, total);
  state->file_ = os::WatchedDescriptor(owned.release());
  state->named_ = named;
  state->mapping_bytes_ = bytes;
  state->copied_ = reinterpret_cast<std::uint64_t*>(*memory + copied);
  state->copied_words_ = words;
  state->caches_ = reinterpret_cast<CacheMark*>(*memory + caches);
  state->tables_ = tables;
  state->pid_namespace_ = os::pid_namespace();
  return state;
}

void InspectorState::close() noexcept {
  os::close_file(file_.get());
  view_->segment_.close();
  view_->unmake();
  const std::uint64_t bytes = mapping_bytes_;
  this->~InspectorState();
  os::unmap(this, bytes);
}

std::uint64_t InspectorState::resident_bytes() const noexcept { return os::occupied_bytes(file_.get()); }

Result<void> InspectorState::refresh() noexcept {
  if (walking_) return inside_walk();
  have_names_ = false;
  part_ = Part::none;
  return want_names();
}

Result<void> InspectorState::want_names() noexcept {
  if (have_names_) return {};
  EXTMEM_TRY(instant, take_patiently(Part::names, 0));
  have_names_ = true;
  if (instant.whole) return {};
  return EXTMEM_ERROR(
      EAGAIN, "unstable: names and regions came and went all the time while they were read: try again");
}

Result<void> InspectorState::want_heap(std::uint32_t heap, bool* stable) noexcept {
  if (stable != nullptr) *stable = false;
  if (walking_) return inside_walk();
  if (auto names = want_names(); !names && names.error().code() != EAGAIN) return names.error();
  if (heap >= view_->heaps_.high() || view_->heaps_[heap].used == 0) return no_heap();
  if (part_ != Part::heap || heap_ != heap || !instant_.whole) {
    EXTMEM_TRY_VOID(take_patiently(Part::heap, heap));
    if (view_->heaps_[heap].used == 0) return no_heap();
  }
  view_->heap_locals_[heap].state = view_;
  view_->heap_locals_[heap].id = heap;
  if (stable != nullptr) {
    *stable = instant_.whole;
    return {};
  }
  if (instant_.whole) return {};
  if (instant_.stopped) {
    return EXTMEM_ERROR(EAGAIN,
                        "unstable: a process of the domain stopped or died in the middle of a change to the "
                        "heap: continue or kill it, let another one recover it, then try again");
  }
  return EXTMEM_ERROR(EAGAIN, "unstable: the heap was changed all the time while it was read: try again");
}

// ---- what there is -----------------------------------------------------------------------------------------

Result<void> InspectorState::walk_heaps(FunctionRef<bool(const HeapInfo&)> visit) noexcept {
  if (!visit) return no_visitor();
  if (auto names = want_names(); !names && names.error().code() != EAGAIN) return names.error();
  for (std::uint32_t id = 0; id < view_->heaps_.high(); ++id) {
    if (view_->heaps_[id].used == 0) continue;
    if (!visit(view_->heap_info(id))) break;
  }
  return {};
}

Result<void> InspectorState::walk_regions(FunctionRef<bool(const RegionInfo&)> visit) noexcept {
  if (!visit) return no_visitor();
  if (walking_) return inside_walk();
  if (auto names = want_names(); !names && names.error().code() != EAGAIN) return names.error();
  for (std::uint32_t region = 1; region <= view_->regions_high(); ++region) {
    const alloc::RegionCore& r = view_->core_.region(region);
    const std::uint32_t flags = r.flags;
    if ((flags & alloc::kRegionUsed) == 0 || !view_->core_.sound(r)) continue;
    // The heap of this copy, for the region's free runs. Should it be gone or change all the time, these may be off.
    bool stable = false;
    if (auto heap = want_heap(r.heap, &stable); !heap && heap.error().code() != ENOENT) return heap.error();
    if (!view_->core_.sound(r)) continue;
    RegionInfo info;
    info.id = RegionId{region, r.generation};
    info.heap_id = r.heap;
    info.length = r.length;
    info.os_page_size = std::uint64_t{1} << r.os_page_shift;
    info.page_size = std::uint64_t{1} << r.pages.page_shift;
    const std::uint32_t kind = view_->shares_[region].kind;
    info.external = (flags & alloc::kRegionExternal) != 0;
    info.kind = info.external || kind > static_cast<std::uint32_t>(BackingKind::dax)
                    ? BackingKind::external
                    : static_cast<BackingKind>(kind);
    info.cpu_accessible = (flags & alloc::kRegionCpu) != 0;
    info.draining = (flags & alloc::kRegionDraining) != 0;
    info.grown = (flags & alloc::kRegionGrown) != 0;
    info.numa_node = r.node;
    info.free_bytes = r.pages.free_pages << r.pages.page_shift;
    info.free_runs = r.pages.free_runs;
    info.largest_free = std::uint64_t{view_->core_.pages(region).largest_free()} << r.pages.page_shift;
    if (view_->core_.heap(r.heap).exact != 0) {
      const alloc::Core::FreeFigures f = view_->core_.free_figures(region);
      info.free_bytes = f.pages << r.pages.page_shift;
      info.free_runs = f.runs;
      info.largest_free = f.longest << r.pages.page_shift;
    }
    info.iova_runs = region::run_count(r.iova);
    info.iova_table_bytes = r.iova.data_bytes;
    info.adder_base = reinterpret_cast<void*>(r.phase.get());
    if (!visit(info)) break;
  }
  return {};
}

Result<void> InspectorState::walk_participants(FunctionRef<bool(const ParticipantInfo&)> visit) noexcept {
  if (!visit) return no_visitor();
  if (auto names = want_names(); !names && names.error().code() != EAGAIN) return names.error();
  for (std::uint32_t i = 1; i <= shared::kMaxParticipants; ++i) {
    const Participant& record = view_->participants_.record(i);
    const Life life = Participant::life_of(record.state.load(std::memory_order_relaxed));
    if (life == Life::free) continue;
    ParticipantInfo info;
    info.id = i;
    info.pid = record.pid;
    copy_name(info.name, record.name);
    if (record.pid_namespace == pid_namespace_) {
      // Not by its token: closing the token's file here would take this process' own token away, if it has one.
      const auto start = os::process_start_time(info.pid);
      const bool there = start && *start == record.start_time && !os::process_is_zombie(info.pid) &&
                         !view_->participants_.replaced(i);
      info.self = there && info.pid == static_cast<std::uint32_t>(::getpid());
      info.dead =
          life == Life::dying || !there || !os::process_maps_file(info.pid, file_.device(), file_.inode());
    } else {
      info.dead = life == Life::dying;
    }
    if (!visit(info)) break;
  }
  return {};
}

Result<void> InspectorState::walk_memzones(FunctionRef<bool(const MemzoneInfo&)> visit) noexcept {
  if (!visit) return no_visitor();
  if (walking_) return inside_walk();
  if (auto names = want_names(); !names && names.error().code() != EAGAIN) return names.error();
  for (std::uint32_t i = 0; i < view_->memzones_.high(); ++i) {
    const MemzoneRecord& record = view_->memzones_[i];
    if (record.used == 0) continue;
    MemzoneInfo info;
    copy_name(info.name, record.name.text);
    info.ptr = RegionPtr{record.ptr};
    info.length = record.length;
    info.heap_id = record.heap;
    const std::uint32_t region = info.ptr.slot();
    if (region != 0 && region <= view_->core_.geometry().max_regions) {
      const alloc::RegionCore& r = view_->core_.region(region);
      info.os_page_size = std::uint64_t{1} << std::min(r.os_page_shift.get(), 63u);
      info.numa_node = r.node;
      bool stable = false;  // an IOVA table does not change while its region is there
      if (want_heap(info.heap_id, &stable) && r.heap == info.heap_id && iova_sound(region))
        info.iova = region::lookup(r.iova, view_->core_.segment(), info.ptr.offset());
    }
    if (!visit(info)) break;
  }
  return {};
}

bool InspectorState::iova_sound(std::uint32_t region) noexcept {
  const alloc::RegionCore& r = view_->core_.region(region);
  return region::check(r.iova, view_->core_.segment(), view_->segment_.bytes(), r.length) == nullptr;
}

Result<void> InspectorState::walk_iova_runs(RegionId id, FunctionRef<bool(const IovaRun&)> visit) noexcept {
  if (!visit) return no_visitor();
  if (walking_) return inside_walk();
  if (auto names = want_names(); !names && names.error().code() != EAGAIN) return names.error();
  const Error gone =
      EXTMEM_ERROR(ENOENT, "the domain has no such region: it was removed, or the id is wrong");
  if (id.slot == 0 || id.slot > view_->regions_high()) return gone;
  const alloc::RegionCore& r = view_->core_.region(id.slot);
  if ((r.flags & alloc::kRegionUsed) == 0 || r.generation != id.generation || !view_->core_.sound(r))
    return gone;
  EXTMEM_TRY_VOID(want_heap(r.heap, nullptr));
  if ((r.flags & alloc::kRegionUsed) == 0 || r.generation != id.generation || !view_->core_.sound(r))
    return gone;
  if (!iova_sound(id.slot))
    return EXTMEM_ERROR(EUCLEAN, "the region's table of IOVAs is damaged: run verify");
  (void)region::for_each_run(r.iova, view_->core_.segment(), visit);
  return {};
}

Result<void> InspectorState::walk_tags(FunctionRef<bool(Tag, const char*)> visit) noexcept {
  if (!visit) return no_visitor();
  if (auto names = want_names(); !names && names.error().code() != EAGAIN) return names.error();
  for (std::uint32_t i = 0; i < view_->tags_.high(); ++i) {
    if (view_->tags_[i].used == 0) continue;
    char name[kMaxNameLength + 1];
    copy_name(name, view_->tags_[i].name.text);
    if (!visit(Tag{static_cast<std::uint16_t>(i + 1)}, name)) break;
  }
  return {};
}

// ---- a heap ------------------------------------------------------------------------------------------------

Result<HeapStats> InspectorState::stats(std::uint32_t heap, bool* stable) noexcept {
  EXTMEM_TRY_VOID(want_heap(heap, stable));
  return view_->stats(view_->heap_locals_[heap]);
}

Result<std::size_t> InspectorState::tag_stats(std::uint32_t heap, std::span<TagStats> out,
                                              bool* stable) noexcept {
  EXTMEM_TRY_VOID(want_heap(heap, stable));
  return view_->tag_stats(view_->heap_locals_[heap], out);
}

Result<void> InspectorState::holders(std::uint32_t heap, HolderReport& report, bool* stable) noexcept {
  EXTMEM_TRY_VOID(want_heap(heap, stable));
  return view_->holders(view_->heap_locals_[heap], report);
}

Result<void> InspectorState::walk(std::uint32_t heap, FunctionRef<bool(const WalkEntry&)> visit,
                                  const WalkOptions& options, bool* stable) noexcept {
  EXTMEM_TRY_VOID(want_heap(heap, stable));
  walking_ = true;
  const auto walked = view_->walk(view_->heap_locals_[heap], visit, options);
  walking_ = false;
  return walked;
}

}  // namespace extmem::heap

// ---- the public class --------------------------------------------------------------------------------------

namespace extmem {

namespace {
Error empty() noexcept {
  return EXTMEM_ERROR(EINVAL, "the inspector is empty: get one from Inspector::open");
}
}  // namespace

Result<Inspector> Inspector::open(std::string_view name, const char* directory) noexcept {
  EXTMEM_TRY(state, heap::InspectorState::open(name, directory));
  return Inspector(state);
}

Inspector::Inspector(Inspector&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
Inspector& Inspector::operator=(Inspector&& other) noexcept {
  std::swap(state_, other.state_);
  return *this;
}
Inspector::~Inspector() {
  if (state_ != nullptr) state_->close();
}

Result<void> Inspector::refresh() noexcept { return state_ == nullptr ? empty() : state_->refresh(); }
Result<void> Inspector::walk_heaps(FunctionRef<bool(const HeapInfo&)> visit) noexcept {
  return state_ == nullptr ? empty() : state_->walk_heaps(visit);
}
Result<void> Inspector::walk_regions(FunctionRef<bool(const RegionInfo&)> visit) noexcept {
  return state_ == nullptr ? empty() : state_->walk_regions(visit);
}
Result<void> Inspector::walk_participants(FunctionRef<bool(const ParticipantInfo&)> visit) noexcept {
  return state_ == nullptr ? empty() : state_->walk_participants(visit);
}
Result<void> Inspector::walk_memzones(FunctionRef<bool(const MemzoneInfo&)> visit) noexcept {
  return state_ == nullptr ? empty() : state_->walk_memzones(visit);
}
Result<void> Inspector::walk_iova_runs(RegionId region, FunctionRef<bool(const IovaRun&)> visit) noexcept {
  return state_ == nullptr ? empty() : state_->walk_iova_runs(region, visit);
}
Result<void> Inspector::walk_tags(FunctionRef<bool(Tag, const char*)> visit) noexcept {
  return state_ == nullptr ? empty() : state_->walk_tags(visit);
}
Result<HeapStats> Inspector::stats(std::uint32_t heap, bool* stable) noexcept {
  return state_ == nullptr ? empty() : state_->stats(heap, stable);
}
Result<std::size_t> Inspector::tag_stats(std::uint32_t heap, std::span<TagStats> out, bool* stable) noexcept {
  return state_ == nullptr ? empty() : state_->tag_stats(heap, out, stable);
}
Result<void> Inspector::holders(std::uint32_t heap, HolderReport& report, bool* stable) noexcept {
  return state_ == nullptr ? empty() : state_->holders(heap, report, stable);
}
Result<void> Inspector::walk(std::uint32_t heap, FunctionRef<bool(const WalkEntry&)> visit,
                             const WalkOptions& options, bool* stable) noexcept {
  return state_ == nullptr ? empty() : state_->walk(heap, visit, options, stable);
}
Result<std::size_t> Inspector::verify(FunctionRef<void(const Breach&)> report,
                                      std::size_t* unstable) noexcept {
  return state_ == nullptr ? empty() : state_->verify(report, unstable);
}
Result<std::size_t> Inspector::verify_heap(std::uint32_t heap,
                                           FunctionRef<void(const Breach&)> report) noexcept {
  return state_ == nullptr ? empty() : state_->verify_heap(heap, report);
}
std::uint64_t Inspector::metadata_resident_bytes() const noexcept {
  return state_ == nullptr ? 0 : state_->resident_bytes();
}

}  // namespace extmem
