// The demo's memory: heaps, regions of every kind that this machine has, memzones with constraints.
#include <fmt/core.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "faces/cli/demo.hpp"
#include "faces/cli/format.hpp"

namespace extmem::cli {
namespace {

constexpr std::uint64_t kMiB = 1024 * 1024;
constexpr std::uint64_t kDeviceIova =
    0xe0000000;  // below 4 GiB, where a PC has device registers and no memory

std::uint64_t system_page() { return static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE)); }

}  // namespace

LentMemory LentMemory::map(std::uint64_t bytes, bool access) {
  const int protection = access ? PROT_READ | PROT_WRITE : PROT_NONE;
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (access ? MAP_POPULATE : 0);
  void* p = mmap(nullptr, bytes, protection, flags, -1, 0);
  if (p == MAP_FAILED)
    throw Impossible(fmt::format("cannot map {} of memory: {}", bytes_text(bytes), strerror(errno)));
  LentMemory memory;
  memory.base_ = static_cast<std::byte*>(p);
  memory.length_ = bytes;
  return memory;
}

LentMemory::LentMemory(LentMemory&& other) noexcept
    : base_(std::exchange(other.base_, nullptr)), length_(std::exchange(other.length_, 0)) {}

LentMemory& LentMemory::operator=(LentMemory&& other) noexcept {
  std::swap(base_, other.base_);
  std::swap(length_, other.length_);
  return *this;
}

LentMemory::~LentMemory() {
  if (base_ != nullptr) munmap(base_, length_);
}

void Demo::show_machine() {
  machine_ = Machine::look();
  console_.heading("Machine");
  console_.item("processors", fmt::format("{}, {}, {}", plural(machine_.cpus, "CPU"),
                                          plural(machine_.numa_nodes, "NUMA node"), machine_.kernel));
  console_.item("memory", fmt::format("{}, {} available", bytes_text(machine_.memory_total),
                                      bytes_text(machine_.memory_available)));
  std::string pools;
  for (const HugePool& pool : machine_.pools) {
    if (pool.total == 0) continue;
    if (!pools.empty()) pools += "; ";
    pools += fmt::format("{} of {}, {} free", count_text(pool.total), bytes_text(pool.page_size),
                         count_text(pool.free));
  }
  console_.item("hugepages", pools.empty() ? "none reserved" : pools);
  console_.item("addresses", machine_.physical ? "physical addresses can be read (/proc/self/pagemap)"
                                               : "physical addresses are hidden from this user");
  unit_ = machine_.memory_available >= 1024 * kMiB ? 64 * kMiB : 16 * kMiB;
  if (!machine_.physical) {
    note(
        "No privilege to read physical addresses: virtual addresses serve as IOVAs, as they do behind an "
        "IOMMU. "
        "To see physical ones: sudo extmem demo");
  }
}

IovaSource Demo::iova_source() const {
  return machine_.physical ? IovaSource::physical : IovaSource::identity;
}

void Demo::make_heaps() {
  const Stopwatch watch;
  domain_ = need(Domain::create(), "cannot create a domain");
  time("create a domain", watch.seconds());
  packets_ = need(domain_.create_heap("packets"), "cannot create a heap");
  storage_ = need(domain_.create_heap("storage"), "cannot create a heap");
  HeapOptions exact;
  exact.style = Style::exact;
  control_ = need(domain_.create_heap("control", exact), "cannot create a heap");
  device_ = need(domain_.create_heap("device"), "cannot create a heap");
  long_lived_ = need(domain_.intern_tag("long-lived"), "cannot make a tag");
  device_tag_ = need(domain_.intern_tag("descriptor"), "cannot make a tag");
  need(domain_.add_listener(&Demo::on_region, this), "cannot add a listener");
}

int Demo::on_region(const RegionEvent& event, void* arg) {
  auto* demo = static_cast<Demo*>(arg);
  if (event.kind == RegionEventKind::added) {
    if (demo->veto_) return ENODEV;
    ++demo->regions_heard_;
  } else {
    ++demo->removals_heard_;
  }
  return 0;
}

void Demo::added(RegionId id, Heap heap, const std::string& what, const std::string& iova, double seconds) {
  const RegionInfo info = need(domain_.region_info(id), "cannot read a region's description");
  DemoRegion region;
  region.id = id;
  region.heap = heap.name();
  region.what = what;
  region.iova = iova;
  region.length = info.length;
  region.os_page_size = info.os_page_size;
  region.numa_node = info.numa_node;
  region.iova_runs = info.iova_runs;
  region.added_in = seconds;
  need(domain_.walk_iova_runs(id,
                              [&](const IovaRun& run) {
                                if (run.iova == kBadIova) return true;
                                region.first_iova = static_cast<std::uint64_t>(run.iova);
                                return false;
                              }),
       "cannot walk a region's IOVAs");
  regions_.push_back(region);
}

Result<RegionId> Demo::add_own(Heap heap, BackingSpec spec, const std::string& what) {
  spec.prefault = true;  // physical addresses exist only for pages that are there
  spec.iova_source = iova_source();
  const bool stable = spec.kind == BackingKind::hugetlb || spec.kind == BackingKind::memfd_hugetlb;
  spec.allow_unstable_iova = machine_.physical && !stable;
  std::string iova = !machine_.physical ? "identity" : stable ? "physical" : "physical (unstable)";
  spec.progress = [](std::uint64_t, std::uint64_t) { return false; };
  auto make_present = [&](std::uint64_t done, std::uint64_t total) {
    console_.progress(static_cast<double>(done) / static_cast<double>(std::max<std::uint64_t>(total, 1)),
                      "making pages present: " + what);
    return false;
  };
  spec.progress = make_present;
  const Stopwatch watch;
  auto id = domain_.add_backing(heap, spec);
  const double seconds = watch.seconds();
  console_.progress_done();
  if (id) added(*id, heap, what, iova, seconds);
  return id;
}

// The best large pages that can be had: hugetlb, else a memfd or anonymous memory advised for transparent hugepages.
void Demo::add_huge(Heap heap) {
  std::string why = "no hugepages are reserved";
  for (const HugePool& pool : machine_.pools) {
    const std::uint64_t wanted = std::max<std::uint64_t>(unit_ / pool.page_size, 1);
    if (pool.total == 0 || pool.page_size > 1024 * kMiB) continue;
    if (pool.free * pool.page_size < unit_ / 4) {
      why = fmt::format("only {} of {} is free", plural(pool.free, "hugepage"), bytes_text(pool.page_size));
      continue;
    }
    BackingSpec spec;
    spec.kind = BackingKind::hugetlb;
    spec.os_page_size = pool.page_size;
    spec.length = std::min(wanted, pool.free) * pool.page_size;
    const auto id = add_own(heap, spec, "hugetlb");
    if (id && spec.length < unit_) {
      note(fmt::format(
          "Only {} of {} could be had where {} were wanted. To have them all: {}sysctl vm.nr_hugepages={}",
          plural(spec.length / pool.page_size, "hugepage"), bytes_text(pool.page_size), wanted,
          machine_.root ? "" : "sudo ", unit_ / (2 * kMiB)));
    }
    if (id) return;
    why = "reserved hugepages could not be had (" + error_text(id.error()) + ")";
  }
  struct Choice {
    bool possible;
    BackingKind kind;
    bool thp;
    const char* what;
    const char* instead;
  };
  for (const Choice& choice :
       {Choice{machine_.thp_shmem, BackingKind::memfd, true, "memfd, THP",
               "a memfd advised for transparent hugepages (THP)"},
        Choice{machine_.thp_anonymous, BackingKind::anonymous, true, "anonymous, THP",
               "anonymous memory advised for transparent hugepages (THP)"},
        Choice{true, BackingKind::memfd, false, "memfd", "a memfd of ordinary pages"}}) {
    if (!choice.possible) continue;
    BackingSpec spec;
    spec.kind = choice.kind;
    spec.length = unit_;
    spec.thp = choice.thp;
    const auto id = add_own(heap, spec, choice.what);
    if (!id) {
      why += fmt::format(", {} could not be had ({})", choice.instead, error_text(id.error()));
      continue;
    }
    note(fmt::format("Large pages: {}. Instead: {}. To have hugepages: {}sysctl vm.nr_hugepages={}", why,
                     choice.instead, machine_.root ? "" : "sudo ", unit_ / (2 * kMiB)));
    if (!machine_.thp_shmem && choice.kind == BackingKind::anonymous) {
      note(
          "Transparent hugepages are off for memfd. To have them: "
          "echo advise | sudo tee /sys/kernel/mm/transparent_hugepage/shmem_enabled");
    }
    return;
  }
  throw Impossible("no memory for the first region: " + why);
}

// A file in a folder for temporary files. Its name goes at once: nothing is left behind, however the demo ends.
void Demo::add_file(Heap heap) {
  std::error_code failed;
  std::filesystem::path folder = std::filesystem::temp_directory_path(failed);
  if (failed) {
    folder = "/tmp";
    note("TMPDIR names no folder: /tmp serves instead.");
  }
  std::string name = folder / "extmem-demo-XXXXXX";
  if (mkdtemp(name.data()) == nullptr) {
    throw Impossible(fmt::format("cannot make a folder in {}: {}; set TMPDIR to one that you can write to",
                                 folder.string(), strerror(errno)));
  }
  const std::string file = name + "/memory";
  BackingSpec spec;
  spec.kind = BackingKind::file;
  spec.path = file.c_str();
  spec.length = unit_ / 2;
  const auto id = add_own(heap, spec, "file in " + clean(folder.string()));
  unlink(file.c_str());
  rmdir(name.c_str());
  if (!id) throw Impossible("cannot use a file as memory: " + error_text(id.error()));
}

void Demo::add_lent(Heap heap, std::size_t which, std::uint64_t bytes, const char* what) {
  lent_[which] = LentMemory::map(bytes, true);
  RegionSpec spec;
  spec.base = lent_[which].base();
  spec.length = bytes;
  spec.iova_source = iova_source();
  spec.allow_unstable_iova = machine_.physical;
  const Stopwatch watch;
  const RegionId id = need(domain_.add_region(heap, spec), "cannot lend memory to a heap");
  added(id, heap, what, machine_.physical ? "physical (unstable)" : "identity", watch.seconds());
}

// Memory that no instruction may touch, as a device's is: managed all the same, since nothing is written into it.
void Demo::add_device(Heap heap) {
  lent_[2] = LentMemory::map(unit_ / 2, false);
  const std::uint64_t page = system_page();
  std::vector<Iova> table(lent_[2].length() / page);
  for (std::size_t i = 0; i < table.size(); ++i) table[i] = Iova{kDeviceIova + i * page};
  RegionSpec spec;
  spec.base = lent_[2].base();
  spec.length = lent_[2].length();
  spec.iovas = table;
  spec.cpu_accessible = false;
  const Stopwatch watch;
  const RegionId id = need(domain_.add_region(heap, spec), "cannot lend memory without access rights");
  added(id, heap, "lent, no access", "given table", watch.seconds());
}

void Demo::add_memory() {
  // Heaps fill their first region first: the one that is to be drained will be in full use.
  add_lent(packets_, 0, unit_ / 4, "lent, to be drained");
  spare_ = regions_.back().id;
  add_huge(packets_);
  large_ = regions_.back().id;
  BackingSpec plain;
  plain.length = unit_ / 2;
  need(add_own(packets_, plain, "anonymous"), "cannot map anonymous memory");
  add_lent(storage_, 1, unit_ / 4, "lent");
  add_file(storage_);
  BackingSpec small;
  small.length = unit_ / 8;
  need(add_own(control_, small, "anonymous"), "cannot map anonymous memory");
  add_device(device_);
  if (machine_.physical) {
    note(
        "Physical addresses of memory that is not hugetlb are asked for with allow_unstable_iova: the kernel "
        "may "
        "move such pages, so real DMA needs hugepages, pinned pages or an IOMMU.");
  }

  AllocOptions here;
  here.region = spare_;
  here.tag = long_lived_;
  pinned_in_spare_ = need(packets_.allocate(64 * 1024, here), "cannot allocate in the region that is lent");
  AllocOptions descriptor;
  descriptor.tag = device_tag_;
  for (int i = 0; i < 6000; ++i) {
    device_objects_.push_back(
        need(device_.allocate(i % 3 == 0 ? 4096 : 256, descriptor), "cannot allocate device memory"));
  }
  for (std::size_t i = 0; i < device_objects_.size(); i += 2) {
    need(device_.deallocate(std::exchange(device_objects_[i], nullptr)), "cannot free device memory");
  }
  std::erase(device_objects_, nullptr);
}

void Demo::reserve_memzone(Heap heap, const char* name, std::uint64_t length, const AllocOptions& options,
                           const std::string& asked) {
  const Stopwatch watch;
  const auto zone = domain_.reserve_memzone(heap, name, length, options);
  const double seconds = watch.seconds();
  if (!check(fmt::format("memzone {}", name), zone.ok(), zone ? asked : error_text(zone.error()))) return;
  time(fmt::format("reserve memzone {}", name), seconds, bytes_text(zone->length));
  memzones_.push_back(*zone);
  memzone_asked_.push_back(asked);
  const auto address = reinterpret_cast<std::uintptr_t>(zone->addr);
  const auto iova = static_cast<std::uint64_t>(zone->iova);
  bool kept = zone->length >= length;
  if (options.align != 0) kept = kept && address % options.align == 0;
  if (options.iova_contiguous) {
    const auto contiguous = domain_.iova_contiguous(zone->addr, zone->length);
    kept = kept && contiguous && *contiguous;
    if (options.nocross != 0)
      kept = kept && iova / options.nocross == (iova + zone->length - 1) / options.nocross;
  } else if (options.nocross != 0) {
    const std::uint64_t offset = zone->ptr.offset();
    kept = kept && offset / options.nocross == (offset + zone->length - 1) / options.nocross;
  }
  if (options.dma_bits != 0) kept = kept && (iova + zone->length - 1) >> options.dma_bits == 0;
  const auto found = domain_.find_memzone(name);
  check(fmt::format("memzone {} is as asked for, and found by its name", name),
        kept && found && found->addr == zone->addr);
}

void Demo::reserve_memzones() {
  // How much consecutive IOVA space there is depends on the machine: physical pages may lie scattered.
  const RegionId large = large_;
  std::uint64_t longest = 0;
  need(domain_.walk_iova_runs(large,
                              [&](const IovaRun& run) {
                                if (run.iova != kBadIova) longest = std::max(longest, run.length);
                                return true;
                              }),
       "cannot walk a region's IOVAs");
  const std::uint64_t ring =
      std::clamp<std::uint64_t>(std::bit_floor(std::max<std::uint64_t>(longest / 2, 1)), 4096, unit_ / 32);
  AllocOptions contiguous;
  contiguous.iova_contiguous = true;
  contiguous.region = large;
  contiguous.align = 4096;
  reserve_memzone(packets_, "rx-ring", ring, contiguous, "IOVA-contiguous, aligned to 4 KiB");
  AllocOptions boundary;
  boundary.region = large;
  boundary.align = 64 * 1024;
  boundary.nocross = unit_ / 16;
  reserve_memzone(packets_, "tx-buffers", unit_ / 20, boundary,
                  fmt::format("aligned to 64 KiB, crosses no {}", bytes_text(boundary.nocross)));
  AllocOptions low;
  low.dma_bits = 32;
  low.iova_contiguous = true;
  reserve_memzone(device_, "dma-32", unit_ / 16, low, "IOVAs below 2^32, IOVA-contiguous");
  AllocOptions high;
  high.placement = Placement::high;
  reserve_memzone(storage_, "journal", unit_ / 24, high, "from the high end");
  AllocOptions impossible;
  impossible.dma_bits = 24;
  check_refused("a memzone with IOVAs below 2^24",
                domain_.reserve_memzone(device_, "isa-dma", 4096, impossible), ENOMEM);
}

}  // namespace extmem::cli
