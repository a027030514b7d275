// The demo's checks: contents, accounting, walks, addresses, refusals, and that nothing is left at the end.
#include <fmt/core.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "faces/cli/demo.hpp"
#include "faces/cli/format.hpp"

namespace extmem::cli {

bool Demo::check(const std::string& name, bool ok, const std::string& detail) {
  checks_.push_back({name, ok, detail});
  if (!ok) console_.complain(fmt::format("check failed: {}{}{}", name, detail.empty() ? "" : ": ", detail));
  return ok;
}

void Demo::check_contents() {
  const LoadTotals& totals = load_totals_;
  check("contents were intact at every free and resize", totals.faults == 0,
        totals.faults == 0 ? fmt::format("{} objects checked", count_text(totals.frees + totals.resizes))
                           : load_->first_fault());
  const auto spoiled =
      std::count_if(live_.begin(), live_.end(), [](const LiveObject& o) { return !pattern_intact(o); });
  check("contents of all live objects are intact", spoiled == 0,
        fmt::format("{} objects", count_text(live_.size())));
}

// The demo's own books against extmem's, by heap and tag.
void Demo::check_accounting() {
  std::map<std::pair<std::uint32_t, std::uint16_t>, std::pair<std::uint64_t, std::uint64_t>> expected;
  const std::vector<LoadHeap>& heaps = load_->heaps();
  const auto expect = [&](const Heap& heap, Tag tag, void* p) {
    auto& entry = expected[{heap.id(), tag.index}];
    ++entry.first;
    entry.second += heap.usable_size(p).value_or(0);
  };
  for (const LiveObject& object : live_)
    expect(heaps[object.heap].heap, heaps[object.heap].tags[object.tag].tag, object.p);
  for (void* p : device_objects_) expect(device_, device_tag_, p);
  std::uint64_t compared = 0;
  std::string wrong;
  std::vector<TagStats> tags(4096);
  for (const Heap& heap : {packets_, storage_, control_, device_}) {
    const auto count = heap.tag_stats(tags);
    if (!count) {
      wrong = error_text(count.error());
      break;
    }
    for (std::size_t i = 0; i < std::min(*count, tags.size()); ++i) {
      const TagStats& t = tags[i];
      const auto at = expected.find({heap.id(), t.tag.index});
      const auto [objects, bytes] =
          at != expected.end() ? at->second : std::pair<std::uint64_t, std::uint64_t>{};
      const bool zones = t.tag.index == 0;  // memzones are untagged
      if (!zones && (t.live_count != objects || t.live_bytes != bytes)) {
        wrong = fmt::format("{}/{}: extmem says {} in {}, the demo {} in {}", heap.name(), t.name,
                            t.live_bytes, t.live_count, bytes, objects);
      }
      if (t.peak_bytes < t.live_bytes) wrong = fmt::format("{}/{}: peak below live", heap.name(), t.name);
      if (at != expected.end()) expected.erase(at);
      ++compared;
    }
    const auto stats = heap.stats();
    if (!stats || stats->total_bytes !=
                      stats->used_bytes + stats->free_bytes + stats->cached_bytes + stats->slab_free_bytes) {
      wrong = fmt::format("{}: total is not used + free + cached + free in slabs", heap.name());
    }
  }
  if (wrong.empty() && !expected.empty()) wrong = "a tag with live objects is missing in the statistics";
  check("live bytes and counts of every tag are exact", wrong.empty(),
        wrong.empty() ? fmt::format("{} in 4 heaps compared", plural(compared, "tag")) : wrong);
}

// A walk meets every byte of every region once, in order, and as many held objects as the demo holds.
void Demo::check_walks() {
  std::uint64_t entries = 0, held = 0;
  std::string wrong;
  for (const Heap& heap : {packets_, storage_, control_, device_}) {
    RegionId region{};
    std::uint64_t next = 0, end = 0;
    const auto close = [&] {
      if (region && next != end)
        wrong = fmt::format("{}: the walk leaves bytes of region {} out", heap.name(), region.slot);
    };
    const auto walked = heap.walk(
        [&](const WalkEntry& entry) {
          ++entries;
          switch (entry.kind) {
            case WalkKind::region:
              close();
              region = entry.region;
              next = 0;
              end = entry.length;
              break;
            case WalkKind::object:
              held += entry.held ? 1 : 0;
              break;
            default:
              if (entry.offset != next)
                wrong = fmt::format("{}: gap or overlap at offset {}", heap.name(), entry.offset);
              next = entry.offset + entry.length;
              held += entry.kind == WalkKind::held_span ? 1 : 0;
          }
          return true;
        },
        WalkOptions{.objects = true});
    close();
    if (!walked) wrong = error_text(walked.error());
  }
  const std::uint64_t expected = live_.size() + device_objects_.size();
  if (wrong.empty() && held != expected) wrong = fmt::format("{} objects walked, {} held", held, expected);
  check("a walk meets every byte once", wrong.empty(),
        wrong.empty() ? plural(entries, "entry", "entries") : wrong);
}

void Demo::check_iovas() {
  std::uint64_t known = 0;
  std::string wrong;
  const std::size_t step = std::max<std::size_t>(live_.size() / 2000, 1);
  for (std::size_t i = 0; i < live_.size() && wrong.empty(); i += step) {
    const auto iova = domain_.iova_of(live_[i].p);
    if (!iova) {
      wrong = error_text(iova.error());
    } else if (*iova != kBadIova) {
      const auto back = domain_.address_of(*iova);
      if (!back || *back != live_[i].p)
        wrong = fmt::format("IOVA {} leads elsewhere", hex_text(static_cast<std::uint64_t>(*iova)));
      IovaRun runs[64];
      const auto count = domain_.iova_runs(live_[i].p, live_[i].size, runs);
      std::uint64_t covered = 0;
      for (std::size_t r = 0; count && r < std::min<std::size_t>(*count, 64); ++r) covered += runs[r].length;
      if (!count || (*count <= 64 && covered != live_[i].size))
        wrong = "a scatter list does not cover its object";
      ++known;
    }
    const auto portable = domain_.to_region_ptr(live_[i].p);
    const auto resolved = portable ? domain_.from_region_ptr(*portable) : Result<void*>(portable.error());
    if (!resolved || *resolved != live_[i].p) wrong = "a RegionPtr leads elsewhere";
  }
  check("address to IOVA and back, scatter lists, RegionPtr", wrong.empty(),
        wrong.empty() ? fmt::format("{} looked at", plural(known, "object")) : wrong);
}

void Demo::check_refusals() {
  const auto p = packets_.allocate(200);
  if (check("allocate for the refusals", p.ok(), p ? "" : error_text(p.error()))) {
    auto* bytes = static_cast<std::byte*>(*p);
    check_refused("free a pointer into an object", packets_.deallocate(bytes + 32), EINVAL);
    const auto freed = packets_.deallocate(*p);
    check("free it", freed.ok(), freed ? "" : error_text(freed.error()));
    check_refused("free it a second time", packets_.deallocate(*p), EALREADY);
  }
  int foreign = 0;
  check_refused("free a foreign pointer", packets_.deallocate(&foreign), EFAULT);
  if (!memzones_.empty()) {
    const MemzoneInfo& zone = memzones_.front();
    const auto owner = domain_.heap_by_id(zone.heap_id);
    if (owner) check_refused("free a memzone as an object", Heap(*owner).deallocate(zone.addr), EPERM);
    check_refused("reserve a memzone whose name is taken", domain_.reserve_memzone(packets_, zone.name, 4096),
                  EEXIST);
  }
  check_refused("zeroed memory where the CPU has no access", device_.zalloc(64), ENOTSUP);
  AllocOptions crooked;
  crooked.align = 48;
  check_refused("an alignment that is no power of two", packets_.allocate(64, crooked), EINVAL);
  check_refused("a size that overflows", packets_.calloc(~std::size_t{0} / 2, 4), EOVERFLOW);
  RegionSpec overlap;
  overlap.base = lent_[1].base();
  overlap.length = lent_[1].length();
  check_refused("lend the same memory twice", domain_.add_region(control_, overlap), EEXIST);
  check_refused("destroy a heap that is in use", domain_.destroy_heap(packets_), EBUSY);
  LentMemory unwanted = LentMemory::map(64 * 1024, false);
  RegionSpec refused;
  refused.base = unwanted.base();
  refused.length = unwanted.length();
  refused.cpu_accessible = false;
  veto_ = true;
  check_refused("add a region that a listener refuses", domain_.add_region(device_, refused), ENODEV);
  veto_ = false;
}

void Demo::check_verify(const char* when) {
  std::string first;
  const Stopwatch watch;
  const auto breaches = domain_.verify([&](const Breach& breach) {
    if (first.empty()) {
      first = fmt::format("{} (heap {}, region {}, at {}: expected {}, found {})", breach.what,
                          breach.heap_id, breach.region_slot, breach.where, breach.expected, breach.found);
    }
  });
  const double seconds = watch.seconds();
  time(fmt::format("verify every invariant, {}", when), seconds);
  check(fmt::format("verify {}", when), breaches && *breaches == 0,
        !breaches        ? error_text(breaches.error())
        : *breaches == 0 ? "no breach"
                         : fmt::format("{}: {}", plural(*breaches, "breach", "breaches"), first));
}

void Demo::free_everything() {
  std::vector<void*> pointers;
  for (const LiveObject& object : live_) pointers.push_back(object.p);
  pointers.insert(pointers.end(), device_objects_.begin(), device_objects_.end());
  std::uint64_t failed = 0;
  const Stopwatch watch;
  for (void* p : pointers) failed += domain_.deallocate(p) ? 0u : 1u;
  time("free all that is left", watch.seconds(), plural(pointers.size(), "object"));
  check("free all that is left", failed == 0, plural(pointers.size(), "object"));
  live_.clear();
  device_objects_.clear();
  for (const MemzoneInfo& zone : memzones_) {
    const auto freed = domain_.free_memzone(zone.name);
    if (!freed) check(fmt::format("free memzone {}", zone.name), false, error_text(freed.error()));
  }
  std::string wrong;
  for (Heap heap : {packets_, storage_, control_, device_}) {
    const auto flushed = heap.flush();
    const auto stats = heap.stats();
    if (!flushed || !stats || stats->used_bytes != 0 || stats->free_bytes != stats->total_bytes) {
      wrong += fmt::format("{}{} still holds {} of {}", wrong.empty() ? "" : "; ", heap.name(),
                           stats ? bytes_text(stats->total_bytes - stats->free_bytes) : "?",
                           stats ? bytes_text(stats->total_bytes) : "?");
    } else if (stats->free_runs != stats->regions) {
      wrong +=
          fmt::format("{}{} is left in {} pieces", wrong.empty() ? "" : "; ", heap.name(), stats->free_runs);
    }
  }
  check("every byte is free again, one run in each region", wrong.empty(), wrong);
}

void Demo::remove_everything() {
  const Stopwatch watch;
  std::string wrong;
  std::uint64_t removed = 0;
  for (const DemoRegion& region : regions_) {
    if (region.id == spare_) continue;
    const auto done = domain_.remove_region(region.id);
    if (!done) wrong = error_text(done.error());
    ++removed;
  }
  for (const Heap& heap : {packets_, storage_, control_, device_}) {
    const auto done = domain_.destroy_heap(heap);
    if (!done) wrong = error_text(done.error());
  }
  time("remove all regions and heaps", watch.seconds(), plural(removed, "region"));
  check("remove all regions, destroy all heaps", wrong.empty(), wrong);
  check("the listener heard of every region",
        regions_heard_ >= regions_.size() && removals_heard_ >= regions_.size(),
        fmt::format("{} added, {} removed", regions_heard_, removals_heard_));
}

}  // namespace extmem::cli
