// What the demo leaves: the heap map as a picture, and the whole report as JSON.
#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <vector>

#include "extmem/version.h"
#include "faces/cli/demo.hpp"
#include "faces/cli/format.hpp"
#include "faces/cli/shell.hpp"

namespace extmem::cli {
namespace {

namespace fs = std::filesystem;

struct Closer {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, Closer>;

/// Whether the file can be made or written; errno says why not. Makes it, empty, where there is none.
bool writable(const std::string& path) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return false;
  close(fd);
  return true;
}

File open_file(const std::string& path) {
  File file(std::fopen(path.c_str(), "wbe"));
  if (!file) throw Impossible(fmt::format("cannot write {}: {}", clean(path), strerror(errno)));
  return file;
}

void close_file(File file, const std::string& path) {
  const bool bad = std::ferror(file.get()) != 0;
  if (std::fclose(file.release()) != 0 || bad) {
    throw Impossible(
        fmt::format("cannot write all of {}: {}; is the disk full?", clean(path), strerror(errno)));
  }
}

}  // namespace

// Before anything else: a run of many seconds must not end with a file that cannot be written.
void Demo::open_outputs() {
  picture_ = options_.svg;
  if (!picture_.empty()) {
    if (writable(picture_)) return;
    throw Impossible(fmt::format("cannot write {}: {}; name a file in a folder that exists and is yours",
                                 clean(picture_), strerror(errno)));
  }
  std::error_code failed;
  fs::create_directory("out", failed);
  picture_ = "out/extmem-demo.svg";
  if (writable(picture_)) return;
  fs::path folder = fs::temp_directory_path(failed);
  if (failed) folder = "/tmp";
  picture_ = folder / fmt::format("extmem-demo-{}.svg", geteuid());
  if (!writable(picture_)) {
    throw Impossible(fmt::format("cannot write the picture to out/ or {}: {}; name a file with --svg FILE",
                                 clean(folder.string()), strerror(errno)));
  }
  note("This folder cannot be written to, so the picture goes to the folder for temporary files.");
}

void Demo::write_picture() {
  File file = open_file(picture_);
  picture_bytes_ = 0;
  const Stopwatch watch;
  HeapMapOptions options;
  options.format = HeapMapFormat::svg;
  options.title = "extmem demo: the heap map after the load";
  const auto drawn = write_heap_map(
      domain_,
      [&](std::string_view chunk) {
        picture_bytes_ += chunk.size();
        return std::fwrite(chunk.data(), 1, chunk.size(), file.get()) == chunk.size();
      },
      options);
  time("draw the heap map", watch.seconds(), bytes_text(picture_bytes_));
  close_file(std::move(file), picture_);
  check("draw the heap map as a picture", drawn && picture_bytes_ <= kHeapMapMaxBytes,
        drawn ? "" : error_text(drawn.error()));
}

Json Demo::report() const {
  Json json = begin_json("demo");
  json.text("version", EXTMEM_VERSION_STRING);
  bool all = true;
  for (const Check& c : checks_) all = all && c.ok;
  json.boolean("passed", all).real("seconds", total_seconds_).text("picture", clean(picture_));
  json.object("machine").text("kernel", machine_.kernel).integer("cpus", machine_.cpus);
  json.integer("numa_nodes", machine_.numa_nodes).integer("memory_bytes", machine_.memory_total);
  json.boolean("root", machine_.root).boolean("physical_addresses", machine_.physical).array("hugepages");
  for (const HugePool& pool : machine_.pools) {
    json.object()
        .integer("page_size", pool.page_size)
        .integer("total", pool.total)
        .integer("free", pool.free)
        .end();
  }
  json.end().end();
  json.array("notes");
  for (const std::string& text : notes_) json.text({}, text);
  json.end().array("regions");
  for (const DemoRegion& region : regions_) {
    json.object().integer("slot", region.id.slot).text("heap", region.heap).text("from", region.what);
    json.integer("bytes", region.length)
        .integer("os_page_size", region.os_page_size)
        .text("iova", region.iova);
    json.integer("iova_runs", region.iova_runs).integer("first_iova", region.first_iova);
    json.integer("numa_node", region.numa_node).real("added_in_seconds", region.added_in).end();
  }
  json.end().array("memzones");
  for (std::size_t i = 0; i < memzones_.size(); ++i) {
    const MemzoneInfo& zone = memzones_[i];
    json.object().text("name", clean(zone.name)).integer("bytes", zone.length);
    json.boolean("iova_known", zone.iova != kBadIova);
    json.integer("iova", zone.iova != kBadIova ? static_cast<std::uint64_t>(zone.iova) : 0);
    json.text("asked_for", memzone_asked_[i]).end();
  }
  json.end();
  const LoadTotals& t = load_totals_;
  json.object("load").integer("threads", options_.threads).real("seconds", load_seconds_);
  json.integer("operations", t.operations()).integer("allocations", t.allocations).integer("frees", t.frees);
  json.integer("resizes", t.resizes).integer("handed_over", t.handed_over).integer("refused", t.refused);
  json.integer("bytes", t.bytes).integer("faults", t.faults).end();
  json.array("timings");
  for (const Timing& timing : timings_) {
    json.object().text("what", timing.what).real("seconds", timing.seconds).text("of", timing.note).end();
  }
  json.end().array("checks");
  for (const Check& c : checks_)
    json.object().text("name", c.name).boolean("ok", c.ok).text("detail", c.detail).end();
  json.end().end();
  return json;
}

}  // namespace extmem::cli
