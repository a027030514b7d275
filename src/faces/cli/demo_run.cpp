// The demo's load: a few seconds of it, a region that is drained and removed meanwhile, and single figures after it.
#include <fmt/core.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <thread>

#include "faces/cli/demo.hpp"
#include "faces/cli/format.hpp"

namespace extmem::cli {
namespace {

constexpr auto kDrainLimit = std::chrono::seconds(20);

LoadTag load_tag(Domain& domain, const char* name, std::uint32_t min_size, std::uint32_t max_size,
                 unsigned weight) {
  LoadTag tag;
  tag.name = name;
  const auto interned = domain.intern_tag(name);
  if (!interned) throw Impossible("cannot make a tag: " + error_text(interned.error()));
  tag.tag = *interned;
  tag.min_size = min_size;
  tag.max_size = max_size;
  tag.weight = weight;
  return tag;
}

}  // namespace

void Demo::wait_until(double seconds, const char* doing) {
  while (load_watch_.seconds() < seconds) {
    const double left = seconds - load_watch_.seconds();
    std::this_thread::sleep_for(std::chrono::duration<double>(std::clamp(left, 0.0, 0.05)));
    const double now = load_watch_.seconds();
    const double rate = static_cast<double>(load_->totals().operations()) / now;
    console_.progress(now / options_.seconds,
                      fmt::format("{:.1f} of {:g} s, {:.2f} million operations/s, {}",
                                  std::min(now, options_.seconds), options_.seconds, rate / 1e6, doing));
  }
}

void Demo::run_load() {
  // Of what is free once the region in question has gone, as much as leaves room for rounding and fragmentation.
  const auto budget = [&](const Heap& heap, unsigned percent) {
    const HeapStats stats = need(heap.stats(), "cannot read a heap's statistics");
    const std::uint64_t going = heap == packets_ ? lent_[0].length() : 0;
    return (stats.free_bytes - std::min(stats.free_bytes, going)) / 100 * percent;
  };
  std::vector<LoadHeap> heaps(3);
  heaps[0] = {packets_,
              budget(packets_, 75),
              12,
              {load_tag(domain_, "packet", 64, 2048, 300), load_tag(domain_, "flow", 128, 512, 200),
               load_tag(domain_, "frame-batch", 128 * 1024, 512 * 1024, 1)}};
  heaps[1] = {storage_,
              budget(storage_, 60),
              7,
              {load_tag(domain_, "index", 2048, 32 * 1024, 6), load_tag(domain_, "session", 512, 4096, 12),
               load_tag(domain_, "log-line", 16, 200, 24)}};
  heaps[2] = {control_, budget(control_, 60), 1, {load_tag(domain_, "session", 256, 8192, 1)}};
  load_ = std::make_unique<Load>(std::move(heaps), options_.threads);

  load_watch_ = Stopwatch();
  load_->start();
  wait_until(options_.seconds * 0.5, "filling");
  drain_and_remove();
  wait_until(options_.seconds, "one region less");
  load_->stop();
  load_seconds_ = load_watch_.seconds();
  console_.progress_done();
  load_totals_ = load_->totals();
  live_ = load_->live();
}

// A region in use cannot be removed, and who holds it is named; drained under load it can.
void Demo::drain_and_remove() {
  HolderReport holders;
  const auto refused = domain_.remove_region(spare_, &holders);
  check_refused("remove a region that is in use", refused, EBUSY);
  bool named = false;
  for (std::size_t i = 0; i < std::min(holders.count, HolderReport::kMax); ++i) {
    const Holder& holder = holders.holders[i];
    named = named || std::string_view(holder.tag) == "long-lived";
    const std::string who = holder.tag[0] == '\0' ? "untagged" : clean(holder.tag);
    removal_report_ += fmt::format("{}{} {}{} ({})", i == 0 ? "" : ", ", count_text(holder.count),
                                   holder.memzone ? "memzone " : "", who, bytes_text(holder.bytes));
  }
  check("the holders of that region are named", named, removal_report_);

  const std::uint64_t before = load_->totals().operations();
  std::this_thread::sleep_for(std::chrono::milliseconds(1));
  const auto timed_out = domain_.drain_region(spare_, std::chrono::milliseconds(1), &holders);
  check_refused("drain while an object there is kept for good", timed_out, ETIMEDOUT);
  const auto freed = packets_.deallocate(pinned_in_spare_);
  check("free that object of a draining region", freed.ok(), freed ? "" : error_text(freed.error()));
  console_.progress(0.5, "draining a region under load");
  load_->retire(lent_[0].base(), lent_[0].length());
  Stopwatch watch;
  const auto drained = domain_.drain_region(spare_, kDrainLimit, &holders);
  const double drain_seconds = watch.seconds();
  load_->retire(nullptr, 0);
  const std::uint64_t meanwhile = load_->totals().operations() - before;
  time("drain a region under load", drain_seconds, plural(meanwhile, "operation") + " meanwhile");
  if (!check("drain a region under load", drained.ok(), drained ? "" : error_text(drained.error()))) return;
  watch = Stopwatch();
  const auto removed = domain_.remove_region(spare_, &holders);
  time("remove the drained region", watch.seconds());
  if (!check("remove the drained region", removed.ok(), removed ? "" : error_text(removed.error()))) return;
  lent_[0] = LentMemory();
  check("the load went on meanwhile", meanwhile > 0, plural(meanwhile, "operation"));
}

// The time of one call of `once`: the best of many short batches, since other programs use the processor too.
template <typename F>
static double best_of(std::uint64_t batch, F&& once) {
  double best = 1e9;
  const Stopwatch all;
  while (all.seconds() < 0.03) {
    const Stopwatch watch;
    for (std::uint64_t i = 0; i < batch; ++i) once();
    best = std::min(best, watch.seconds() / static_cast<double>(batch));
  }
  return best;
}

// With the load's objects still there: what one operation takes on one thread.
void Demo::measure() {
  constexpr std::uint64_t kBatch = 500;
  for (const std::size_t size : {std::size_t{64}, std::size_t{1024}, std::size_t{65536}}) {
    bool ok = true;
    const double seconds = best_of(kBatch, [&] {
      const auto p = packets_.allocate(size);
      ok = ok && p && packets_.deallocate(*p);
    });
    if (!ok) continue;  // the heap is full: no figure
    time(fmt::format("allocate and free {}", bytes_text(size)), seconds,
         fmt::format("best of many batches of {}", kBatch));
  }
  if (!live_.empty()) {
    std::size_t at = 0;
    std::uint64_t known = 0;
    const double seconds = best_of(kBatch, [&] {
      at = (at + 7919) % live_.size();
      const auto iova = domain_.iova_of(live_[at].p);
      known += iova && *iova != kBadIova ? 1u : 0u;
    });
    time("look up an IOVA", seconds, "of objects in no order");
    check("every object's IOVA is known", known > 0);
  }
  const Stopwatch watch;
  const auto stats = packets_.stats();
  time("consistent statistics of a heap", watch.seconds());
  check("statistics can be read", stats.ok());
}

// A heap that takes memory when it needs some, and gives it back.
void Demo::grow_by_itself() {
  HeapOptions options;
  options.growth.backing.kind = BackingKind::anonymous;
  options.growth.step = unit_ / 16;
  options.growth.limit = unit_ / 4;
  auto heap = domain_.create_heap("elastic", options);
  if (!check("create a heap that grows by itself", heap.ok(), heap ? "" : error_text(heap.error()))) return;
  const auto regions = [&] {
    std::uint64_t count = 0;
    const auto walked = domain_.walk_regions([&](const RegionInfo& info) {
      count += info.heap_id == heap->id() ? 1u : 0u;
      return true;
    });
    return walked ? count : 0;
  };
  std::vector<void*> objects;
  const std::uint64_t size = unit_ / 64;
  Result<void*> p = heap->allocate(size);
  for (; p && objects.size() < 1000; p = heap->allocate(size)) objects.push_back(*p);
  const std::uint64_t grown = regions();
  check("a heap grows by itself, up to its limit",
        grown >= 2 && p.error().code() == ENOMEM && objects.size() * size <= options.growth.limit,
        fmt::format("{}, {} allocated, then {}", plural(grown, "region"), bytes_text(objects.size() * size),
                    p ? "no end" : error_text(p.error())));
  bool freed = true;
  for (void* object : objects) freed = heap->deallocate(object).ok() && freed;
  check("and gives empty regions back", freed && regions() < grown,
        fmt::format("{} left", plural(regions(), "region")));
}

}  // namespace extmem::cli
