#include "faces/cli/look.hpp"

#include <fmt/core.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>

#include "faces/cli/exit_code.hpp"
#include "faces/cli/text.hpp"

namespace extmem::cli {
namespace {

namespace fs = std::filesystem;

/// Heaps are looked at again where they change meanwhile; after that the figures are taken as they are.
constexpr int kTries = 3;

void read_heap(Inspector& inspector, HeapLook& heap, const Wanted& wanted) {
  for (int i = 0; i < kTries; ++i) {
    heap.stable = true;
    auto stats = inspector.stats(heap.info.id, &heap.stable);
    if (!stats) {
      if (stats.error().code() == ENOENT) return;  // it went meanwhile
      throw Failure(fmt::format("cannot read the heap {}", heap.info.id), stats.error());
    }
    heap.stats = *stats;
    if (wanted.tags) {
      heap.tags.resize(256);
      for (;;) {
        bool stable = true;
        const std::size_t count =
            need(inspector.tag_stats(heap.info.id, heap.tags, &stable), "cannot read the tags");
        heap.stable = heap.stable && stable;
        const bool fits = count <= heap.tags.size();
        heap.tags.resize(count);
        if (fits) break;
      }
      bool stable = true;
      need(inspector.holders(heap.info.id, heap.holders, &stable), "cannot read the holders");
      heap.stable = heap.stable && stable;
    }
    if (heap.stable) return;
    if (i + 1 < kTries) (void)inspector.refresh();
  }
}

}  // namespace

const char* DomainLook::heap_name(std::uint32_t id) const {
  for (const HeapLook& heap : heaps) {
    if (heap.info.id == id) return heap.info.name;
  }
  return "?";
}

std::size_t DomainLook::dead() const {
  return static_cast<std::size_t>(
      std::count_if(processes.begin(), processes.end(), [](const ParticipantInfo& p) { return p.dead; }));
}

RuntimeDirectory runtime_directory(const std::string& given) {
  const auto environment = [](const char* name) {
    const char* value = ::secure_getenv(name);
    return std::string(value != nullptr ? value : "");
  };
  if (!given.empty()) return {given, "--directory"};
  if (const std::string own = environment("EXTMEM_RUNTIME_DIR"); !own.empty())
    return {own, "EXTMEM_RUNTIME_DIR"};
  // As src/os/runtime_directory.cpp has it.
  struct statfs status {};
  if (const std::string xdg = environment("XDG_RUNTIME_DIR");
      !xdg.empty() && ::statfs(xdg.c_str(), &status) == 0 &&
      (status.f_type == TMPFS_MAGIC || status.f_type == RAMFS_MAGIC))
    return {xdg + "/extmem", "XDG_RUNTIME_DIR"};
  return {fmt::format("/dev/shm/extmem-{}", ::geteuid()), "the default"};
}

std::vector<std::string> domain_names(const ShellOptions& options) {
  const std::string path = runtime_directory(options.directory).path;
  std::vector<std::string> names;
  std::error_code error;
  fs::directory_iterator entries(path, error);
  if (error && error != std::errc::no_such_file_or_directory)
    throw Failure(kImpossible,
                  fmt::format("cannot list the runtime directory {}: {}", path, error.message()));
  for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
    const std::string name = entries->path().filename();
    std::error_code ignored;
    if (name[0] != '.' && fs::exists(entries->path() / "control", ignored)) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

Inspector open_inspector(const ShellOptions& options, const std::string& name, const Console& console) {
  auto opened = Inspector::open(name, options.where());
  if (opened) return std::move(*opened);
  const std::string title = shown(name, console.unicode());
  if (opened.error().code() == ENOENT)
    throw Failure(kImpossible, fmt::format("no domain \"{}\" in {}: `extmem ls` lists those that there are",
                                           title, runtime_directory(options.directory).path));
  throw Failure(fmt::format("cannot look at the domain \"{}\"", title), opened.error());
}

DomainLook look_at(Inspector& inspector, const std::string& name, const Wanted& wanted) {
  DomainLook look;
  look.name = name;
  if (auto fresh = inspector.refresh(); !fresh && fresh.error().code() != EAGAIN)
    throw Failure("cannot read the domain", fresh.error());
  look.metadata_bytes = inspector.metadata_resident_bytes();
  need(inspector.walk_participants([&](const ParticipantInfo& info) {
    look.processes.push_back(info);
    return true;
  }),
       "cannot read the processes");
  need(inspector.walk_heaps([&](const HeapInfo& info) {
    look.heaps.emplace_back().info = info;
    return true;
  }),
       "cannot read the heaps");
  // Regions and zones first: a heap that is looked at again makes the inspector read the names again.
  if (wanted.regions)
    need(inspector.walk_regions([&](const RegionInfo& info) {
      look.regions.push_back(info);
      return true;
    }),
         "cannot read the regions");
  if (wanted.zones)
    need(inspector.walk_memzones([&](const MemzoneInfo& info) {
      look.zones.push_back(info);
      return true;
    }),
         "cannot read the memzones");
  if (wanted.stats) {
    for (HeapLook& heap : look.heaps) read_heap(inspector, heap, wanted);
  }
  return look;
}

DomainLook look_at(const ShellOptions& options, const std::string& name, const Wanted& wanted,
                   const Console& console) {
  try {
    Inspector inspector = open_inspector(options, name, console);
    return look_at(inspector, name, wanted);
  } catch (const Failure& failure) {
    DomainLook look;
    look.name = name;
    look.trouble = failure.what();
    return look;
  }
}

void add_stats(Json& json, const HeapStats& s) {
  json.integer("total_bytes", s.total_bytes).integer("used_bytes", s.used_bytes);
  json.integer("free_bytes", s.free_bytes).integer("cached_bytes", s.cached_bytes);
  json.integer("slab_free_bytes", s.slab_free_bytes).integer("largest_free", s.largest_free);
  json.integer("free_runs", s.free_runs).integer("used_count", s.used_count);
  json.integer("cached_count", s.cached_count).integer("peak_bytes", s.peak_bytes);
  json.integer("peak_error", s.peak_error).integer("slabs", s.slabs).integer("memzones", s.memzones);
  json.integer("metadata_bytes", s.metadata_bytes).real("fragmentation", s.fragmentation);
}

void add_tags(Json& json, const std::vector<TagStats>& tags) {
  json.array("tags");
  for (const TagStats& t : tags) {
    json.object().text("tag", t.name).integer("bytes", t.live_bytes).integer("count", t.live_count);
    json.integer("peak_bytes", t.peak_bytes).integer("peak_error", t.peak_error).end();
  }
  json.end();
}

void add_processes(Json& json, const std::vector<ParticipantInfo>& processes) {
  json.array("processes");
  for (const ParticipantInfo& p : processes)
    json.object()
        .integer("id", p.id)
        .integer("pid", p.pid)
        .text("name", p.name)
        .boolean("dead", p.dead)
        .end();
  json.end();
}

void add_regions(Json& json, const DomainLook& domain) {
  json.array("regions");
  for (const RegionInfo& r : domain.regions) {
    json.object().integer("region", r.id.slot).integer("generation", r.id.generation);
    json.text("heap", domain.heap_name(r.heap_id))
        .text("kind", preload::backing_word(r.kind))
        .integer("bytes", r.length);
    json.integer("os_page_size", r.os_page_size)
        .integer("page_size", r.page_size)
        .integer("node", r.numa_node);
    json.boolean("cpu_accessible", r.cpu_accessible)
        .boolean("draining", r.draining)
        .boolean("grown", r.grown);
    json.integer("free_bytes", r.free_bytes).integer("largest_free", r.largest_free);
    json.integer("free_runs", r.free_runs).integer("iova_runs", r.iova_runs).end();
  }
  json.end();
}

void add_zones(Json& json, const DomainLook& domain) {
  json.array("zones");
  for (const MemzoneInfo& z : domain.zones) {
    json.object().text("zone", z.name).text("heap", domain.heap_name(z.heap_id));
    json.integer("region", z.ptr.slot()).integer("offset", z.ptr.offset()).integer("bytes", z.length);
    json.integer("node", z.numa_node)
        .integer("os_page_size", z.os_page_size)
        .boolean("iova_known", z.iova != kBadIova);
    json.integer("iova", z.iova != kBadIova ? static_cast<std::uint64_t>(z.iova) : 0).end();
  }
  json.end();
}

}  // namespace extmem::cli
