#include "faces/c/convert.hpp"

#include "faces/c/handles.hpp"

namespace extmem::faces::c {
namespace {

// ---- the same numbers on both sides ------------------------------------------------------------------------

template <typename E>
constexpr bool same(E cpp, int c) {
  return static_cast<int>(cpp) == c;
}
static_assert(same(Style::binned, EXTMEM_STYLE_BINNED) && same(Style::exact, EXTMEM_STYLE_EXACT));
static_assert(same(Placement::any, EXTMEM_PLACEMENT_ANY) && same(Placement::low, EXTMEM_PLACEMENT_LOW) &&
              same(Placement::high, EXTMEM_PLACEMENT_HIGH));
static_assert(same(IovaSource::table, EXTMEM_IOVA_TABLE) &&
              same(IovaSource::identity, EXTMEM_IOVA_IDENTITY) &&
              same(IovaSource::physical, EXTMEM_IOVA_PHYSICAL));
static_assert(same(BackingKind::external, EXTMEM_BACKING_EXTERNAL) &&
              same(BackingKind::anonymous, EXTMEM_BACKING_ANONYMOUS) &&
              same(BackingKind::hugetlb, EXTMEM_BACKING_HUGETLB) &&
              same(BackingKind::memfd, EXTMEM_BACKING_MEMFD) &&
              same(BackingKind::memfd_hugetlb, EXTMEM_BACKING_MEMFD_HUGETLB) &&
              same(BackingKind::shm, EXTMEM_BACKING_SHM) && same(BackingKind::file, EXTMEM_BACKING_FILE) &&
              same(BackingKind::dax, EXTMEM_BACKING_DAX));
static_assert(same(Fallback::none, EXTMEM_FALLBACK_NONE) && same(Fallback::thp, EXTMEM_FALLBACK_THP) &&
              same(Fallback::anonymous, EXTMEM_FALLBACK_ANONYMOUS));
static_assert(same(OnDeath::reclaim, EXTMEM_ON_DEATH_RECLAIM) && same(OnDeath::keep, EXTMEM_ON_DEATH_KEEP));
static_assert(same(OpenMode::create_or_open, EXTMEM_OPEN_OR_CREATE) &&
              same(OpenMode::open_only, EXTMEM_OPEN_EXISTING) &&
              same(OpenMode::create_only, EXTMEM_OPEN_CREATE_ONLY));
static_assert(same(RegionEventKind::added, EXTMEM_REGION_ADDED) &&
              same(RegionEventKind::removing, EXTMEM_REGION_REMOVING) &&
              same(RegionEventKind::reclaiming, EXTMEM_REGION_RECLAIMING));
static_assert(same(WalkKind::region, EXTMEM_WALK_REGION) &&
              same(WalkKind::free_span, EXTMEM_WALK_FREE_SPAN) &&
              same(WalkKind::held_span, EXTMEM_WALK_HELD_SPAN) && same(WalkKind::slab, EXTMEM_WALK_SLAB) &&
              same(WalkKind::object, EXTMEM_WALK_OBJECT) && same(WalkKind::memzone, EXTMEM_WALK_MEMZONE));
static_assert(same(HeapMapFormat::text, EXTMEM_MAP_TEXT) && same(HeapMapFormat::svg, EXTMEM_MAP_SVG));
static_assert(kMaxNameLength + 1 == EXTMEM_NAME_SIZE && kMaxAlign == EXTMEM_MAX_ALIGN &&
              HolderReport::kMax == EXTMEM_MAX_HOLDERS && kAnyNode == EXTMEM_ANY_NODE &&
              static_cast<std::uint64_t>(kBadIova) == EXTMEM_BAD_IOVA && Tag{}.index == EXTMEM_UNTAGGED);

template <typename E>
int to_enum(std::uint32_t value, E last, E& to) noexcept {
  EXTMEM_C_REQUIRE(value <= static_cast<std::uint32_t>(last),
                   "an option has a value that is not one of its enum's; see extmem_types.h");
  to = static_cast<E>(value);
  return 0;
}

template <std::size_t N>
int require_zero(const std::uint8_t (&reserved)[N]) noexcept {
  EXTMEM_C_REQUIRE(std::ranges::all_of(reserved, [](std::uint8_t byte) { return byte == 0; }),
                   "a reserved member is not 0; initialise the options with the struct's ..._INIT macro");
  return 0;
}

void copy_name(char (&to)[EXTMEM_NAME_SIZE], const char (&from)[kMaxNameLength + 1]) noexcept {
  std::memcpy(to, from, sizeof(to));
}

}  // namespace

// ---- options -----------------------------------------------------------------------------------------------

int convert(const extmem_domain_options_t* from, DomainOptions& to) noexcept {
  auto& [max_regions, max_heaps, max_memzones, max_tags, max_threads, small_metadata, large_metadata] = to;
  extmem_domain_options_t in{sizeof(in),  max_regions, max_heaps,      max_memzones,  max_tags,
                             max_threads, 0,           small_metadata, large_metadata};
  EXTMEM_C_TRY(load(from, in));
  EXTMEM_C_REQUIRE(in.reserved == 0,
                   "a reserved member is not 0; initialise the options with EXTMEM_DOMAIN_OPTIONS_INIT");
  max_regions = in.max_regions;
  max_heaps = in.max_heaps;
  max_memzones = in.max_memzones;
  max_tags = in.max_tags;
  max_threads = in.max_threads;
  small_metadata = in.small_metadata;
  large_metadata = in.large_metadata;
  return 0;
}

int convert(const extmem_open_options_t* from, OpenOptions& to) noexcept {
  auto& [mode, sizes, directory, group, remove_when_last, permanent, same_address] = to;
  extmem_open_options_t in = EXTMEM_OPEN_OPTIONS_INIT;
  EXTMEM_C_TRY(load(from, in));
  EXTMEM_C_TRY(require_zero(in.reserved));
  EXTMEM_C_TRY(to_enum(in.mode, OpenMode::create_only, mode));
  EXTMEM_C_TRY(convert(in.sizes, sizes));
  directory = in.directory;
  group = in.group;
  remove_when_last = in.remove_when_last;
  permanent = in.permanent;
  same_address = in.same_address;
  return 0;
}

int convert(const extmem_alloc_options_t* from, AllocOptions& to) noexcept {
  auto& [align, nocross, nocross_in_addresses, iova_contiguous, dma_bits, placement, zero, in_place, tag,
         numa_node, os_page_size, region, min_offset, max_offset] = to;
  if (from == nullptr) return 0;
  extmem_alloc_options_t in = EXTMEM_ALLOC_OPTIONS_INIT;
  EXTMEM_C_TRY(load(from, in));
  EXTMEM_C_TRY(require_zero(in.reserved));
  EXTMEM_C_TRY(to_enum(in.placement, Placement::high, placement));
  align = in.align;
  nocross = in.nocross;
  nocross_in_addresses = in.nocross_in_addresses;
  iova_contiguous = in.iova_contiguous;
  dma_bits = in.dma_bits;
  zero = in.zero;
  in_place = in.in_place;
  tag = Tag{in.tag};
  numa_node = in.numa_node;
  os_page_size = in.os_page_size;
  region = from_c(in.region);
  min_offset = in.min_offset;
  max_offset = in.max_offset;
  return 0;
}

std::span<const Iova> as_iovas(const extmem_iova_t* iovas, std::size_t count) noexcept {
  // Iova and its underlying type are different types to the optimiser: with link-time optimisation it might
  // order the caller's stores after the core's loads. The barrier ends what it knows about the table.
  asm volatile("" : : "r"(iovas) : "memory");
  return {reinterpret_cast<const Iova*>(iovas), count};
}

int convert(const extmem_region_spec_t& from, RegionSpec& to) noexcept {
  auto& [base, length, os_page_size, iovas, iova_source, allow_unstable_iova, cpu_accessible, numa_node,
         any_iovas, alone_at_address] = to;
  extmem_region_spec_t in = EXTMEM_REGION_SPEC_INIT;
  EXTMEM_C_TRY(load(&from, in));
  EXTMEM_C_TRY(require_zero(in.reserved));
  EXTMEM_C_TRY(to_enum(in.iova_source, IovaSource::physical, iova_source));
  EXTMEM_C_REQUIRE((in.iovas == nullptr) == (in.n_iovas == 0),
                   "iovas and n_iovas contradict each other; give a table and its length, or neither");
  base = in.base;
  length = in.length;
  os_page_size = in.os_page_size;
  iovas = as_iovas(in.iovas, in.n_iovas);
  allow_unstable_iova = in.allow_unstable_iova;
  cpu_accessible = in.cpu_accessible;
  any_iovas = in.any_iovas;
  alone_at_address = in.alone_at_address;
  numa_node = in.numa_node;
  return 0;
}

int convert(const extmem_backing_spec_t& from, Progress& call, BackingSpec& to) noexcept {
  auto& [kind, length, os_page_size, path, create, unlink_on_remove, thp, prefault, lock, numa_node,
         iova_source, allow_unstable_iova, fallback, progress] = to;
  extmem_backing_spec_t in = EXTMEM_BACKING_SPEC_INIT;
  EXTMEM_C_TRY(load(&from, in));
  EXTMEM_C_TRY(require_zero(in.reserved));
  EXTMEM_C_TRY(to_enum(in.kind, BackingKind::dax, kind));
  EXTMEM_C_TRY(to_enum(in.fallback, Fallback::anonymous, fallback));
  EXTMEM_C_TRY(to_enum(in.iova_source, IovaSource::physical, iova_source));
  length = in.length;
  os_page_size = in.os_page_size;
  path = in.path;
  create = in.create;
  unlink_on_remove = in.unlink_on_remove;
  thp = in.thp;
  prefault = in.prefault;
  lock = in.lock;
  numa_node = in.numa_node;
  allow_unstable_iova = in.allow_unstable_iova;
  if (in.progress != nullptr) {
    call = Progress{in.progress, in.progress_arg};
    progress = call;
  }
  return 0;
}

int convert(const extmem_heap_options_t* from, HeapOptions& to) noexcept {
  auto& [style, growth, on_death, user_data] = to;
  auto& [backing, step, limit, give_back, keep_one] = growth;
  if (from == nullptr) return 0;
  extmem_heap_options_t in = EXTMEM_HEAP_OPTIONS_INIT;
  EXTMEM_C_TRY(load(from, in));
  EXTMEM_C_TRY(require_zero(in.reserved));
  EXTMEM_C_TRY(to_enum(in.style, Style::exact, style));
  EXTMEM_C_TRY(to_enum(in.on_death, OnDeath::keep, on_death));
  user_data = in.user_data;
  if (in.growth == nullptr) {
    EXTMEM_C_REQUIRE(in.growth_step == 0 && in.growth_limit == 0,
                     "growth_step or growth_limit is given without growth; say which backing to grow from");
    return 0;
  }
  EXTMEM_C_REQUIRE(in.growth_step != 0,
                   "growth is given but growth_step is 0; say by how many bytes to grow");
  Progress progress;
  EXTMEM_C_TRY(convert(*in.growth, progress, backing));
  EXTMEM_C_REQUIRE(progress.call == nullptr, "growth->progress is not NULL; growing reports no progress");
  EXTMEM_C_REQUIRE(backing.path == nullptr, "growth->path is not NULL; a heap cannot grow from one path");
  step = in.growth_step;
  limit = in.growth_limit;
  give_back = in.give_back;
  keep_one = in.keep_one;
  return 0;
}

int convert(const extmem_walk_options_t* from, WalkOptions& to) noexcept {
  auto& [objects] = to;
  extmem_walk_options_t in = EXTMEM_WALK_OPTIONS_INIT;
  EXTMEM_C_TRY(load(from, in));
  EXTMEM_C_TRY(require_zero(in.reserved));
  objects = in.objects;
  return 0;
}

int convert(const extmem_map_options_t* from, HeapMapOptions& to) noexcept {
  auto& [format, heap, width, colors, ascii, objects, title] = to;
  extmem_map_options_t in = EXTMEM_MAP_OPTIONS_INIT;
  EXTMEM_C_TRY(load(from, in));
  EXTMEM_C_TRY(require_zero(in.reserved));
  EXTMEM_C_TRY(to_enum(in.format, HeapMapFormat::svg, format));
  heap = from_c(in.heap);
  width = in.width;
  colors = in.colors;
  ascii = in.ascii;
  objects = in.objects;
  if (in.title != nullptr) title = in.title;
  return 0;
}

// ---- reports -----------------------------------------------------------------------------------------------

extmem_region_info_t to_c(const RegionInfo& info) noexcept {
  const auto& [id, heap_id, base, length, os_page_size, page_size, kind, external, cpu_accessible, draining,
               grown, numa_node, fd, free_bytes, largest_free, free_runs, iova_runs, iova_table_bytes,
               adder_base] = info;
  return {sizeof(extmem_region_info_t),
          to_c(id),
          base,
          length,
          os_page_size,
          page_size,
          free_bytes,
          largest_free,
          free_runs,
          iova_runs,
          iova_table_bytes,
          heap_id,
          static_cast<std::uint32_t>(kind),
          numa_node,
          fd,
          external,
          cpu_accessible,
          draining,
          grown,
          {},
          adder_base};
}

extmem_region_file_t to_c(const RegionFile& file) noexcept {
  const auto& [fd, offset, length, kind] = file;
  return {sizeof(extmem_region_file_t), offset, length, fd, static_cast<std::uint32_t>(kind)};
}

extmem_holder_report_t to_c(const HolderReport& report) noexcept {
  const auto& [holders, count, more, total_count, total_bytes] = report;
  extmem_holder_report_t out{sizeof(out), count, more, total_count, total_bytes, {}};
  for (std::size_t i = 0; i < std::min(count, HolderReport::kMax); ++i) {
    const auto& [tag, memzone, mapping, pid, held_count, held_bytes] = holders[i];
    extmem_holder_t& line = out.holders[i];
    copy_name(line.tag, tag);
    line.memzone = memzone;
    line.mapping = mapping;
    line.pid = pid;
    line.count = held_count;
    line.bytes = held_bytes;
  }
  return out;
}

extmem_heap_stats_t to_c(const HeapStats& stats) noexcept {
  const auto& [total_bytes, used_bytes, free_bytes, cached_bytes, slab_free_bytes, largest_free, free_runs,
               used_count, cached_count, peak_bytes, peak_error, slabs, regions, memzones, metadata_bytes,
               fragmentation] = stats;
  return {sizeof(extmem_heap_stats_t),
          total_bytes,
          used_bytes,
          free_bytes,
          cached_bytes,
          slab_free_bytes,
          largest_free,
          free_runs,
          used_count,
          cached_count,
          peak_bytes,
          peak_error,
          slabs,
          regions,
          memzones,
          metadata_bytes,
          fragmentation};
}

extmem_tag_stats_t to_c(const TagStats& stats) noexcept {
  const auto& [name, tag, live_bytes, live_count, peak_bytes, peak_error] = stats;
  extmem_tag_stats_t out{{}, tag.index, {}, live_bytes, live_count, peak_bytes, peak_error};
  copy_name(out.name, name);
  return out;
}

extmem_memzone_info_t to_c(const MemzoneInfo& info) noexcept {
  const auto& [name, addr, length, iova, os_page_size, heap_id, numa_node, ptr] = info;
  extmem_memzone_info_t out{sizeof(out),  {},       addr,    length,   static_cast<extmem_iova_t>(iova),
                            os_page_size, ptr.bits, heap_id, numa_node};
  copy_name(out.name, name);
  return out;
}

extmem_heap_info_t to_c(const HeapInfo& info) noexcept {
  const auto& [name, id, style, regions, user_data] = info;
  extmem_heap_info_t out{sizeof(out), {}, regions, id, static_cast<std::uint32_t>(style), user_data};
  copy_name(out.name, name);
  return out;
}

extmem_object_info_t to_c(const ObjectInfo& info) noexcept {
  const auto& [base, size, heap_id, region, tag, memzone, held] = info;
  return {sizeof(extmem_object_info_t), base, size, to_c(region), heap_id, tag.index, memzone, held};
}

extmem_region_event_t to_c(const RegionEvent& event) noexcept {
  const auto& [kind, info, foreign, participant, pid] = event;
  return {sizeof(extmem_region_event_t),
          static_cast<std::uint32_t>(kind),
          foreign,
          {},
          participant,
          pid,
          to_c(info)};
}

extmem_walk_entry_t to_c(const WalkEntry& entry) noexcept {
  const auto& [kind, heap_id, region, external, offset, length, addr, tag, held, cached, object_size,
               object_count, held_count, name] = entry;
  return {sizeof(extmem_walk_entry_t),
          static_cast<std::uint32_t>(kind),
          heap_id,
          to_c(region),
          offset,
          length,
          addr,
          name,
          object_size,
          object_count,
          held_count,
          tag.index,
          external,
          held,
          cached,
          {}};
}

extmem_breach_t to_c(const Breach& breach) noexcept {
  const auto& [what, heap_id, region_slot, where, expected, found] = breach;
  return {sizeof(extmem_breach_t), what, where, expected, found, heap_id, region_slot};
}

extmem_iova_run_t to_c(const IovaRun& run) noexcept {
  const auto& [offset, length, iova] = run;
  return {offset, length, static_cast<extmem_iova_t>(iova)};
}

extmem_domain_info_t to_c(const DomainInfo& info) noexcept {
  const auto& [name, participants, dead, bytes] = info;
  extmem_domain_info_t out{sizeof(out), {}, bytes, participants, dead};
  copy_name(out.name, name);
  return out;
}

extmem_participant_info_t to_c(const ParticipantInfo& info) noexcept {
  const auto& [id, pid, name, self, dead] = info;
  extmem_participant_info_t out{sizeof(out), id, pid, {}, self, dead, {}};
  std::memcpy(out.name, name, sizeof(out.name));
  return out;
}

extmem_recovery_report_t to_c(const RecoveryReport& report) noexcept {
  const auto& [participants, threads, unfinished, regions, freed_objects, freed_bytes, kept_objects,
               kept_bytes, nanoseconds, withheld_objects, withheld_bytes] = report;
  return {sizeof(extmem_recovery_report_t),
          participants,
          threads,
          unfinished,
          regions,
          freed_objects,
          freed_bytes,
          kept_objects,
          kept_bytes,
          nanoseconds,
          withheld_objects,
          withheld_bytes};
}

}  // namespace extmem::faces::c
