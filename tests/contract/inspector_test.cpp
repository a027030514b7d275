// The inspector: what it sees of a domain is what the domain's own processes see, and none of these notices.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "contract/companion.hpp"
#include "contract/memory.hpp"
#include "contract/runtime_directory.hpp"
#include "contract/segment_tables.hpp"
#include "extmem/extmem.hpp"

namespace extmem::test {
namespace {

class InspectorTest : public testing::Test {
 protected:
  InspectorTest() {
    OpenOptions options;
    options.directory = directory_.c_str();
    options.sizes.max_regions = 64;
    options.sizes.max_heaps = 16;
    options.sizes.max_memzones = 64;
    options.sizes.max_tags = 32;
    options.sizes.max_threads = 64;
    options.sizes.small_metadata = 16 << 20;
    options.sizes.large_metadata = 64 << 20;
    auto opened = Domain::open("d", options);
    EXPECT_TRUE(opened) << opened.error().message();
    if (opened) domain_ = std::move(*opened);
  }
  Inspector open() {
    auto opened = Inspector::open("d", directory_.c_str());
    EXPECT_TRUE(opened) << opened.error().message();
    return opened ? std::move(*opened) : Inspector();
  }
  Heap heap(const char* name, std::size_t length = 4 * kMiB) {
    HeapOptions options;
    options.user_data = 0xfeed;
    auto made = domain_.create_heap(name, options);
    EXPECT_TRUE(made) << made.error().message();
    BackingSpec spec;
    spec.kind = BackingKind::memfd;
    spec.length = length;
    auto added = domain_.add_backing(*made, spec);
    EXPECT_TRUE(added) << added.error().message();
    return *made;
  }
  [[nodiscard]] std::uint32_t id_of(const char* name) {
    std::uint32_t id = ~0u;
    (void)domain_.walk_heaps([&](const HeapInfo& info) {
      if (std::string(info.name) == name) id = info.id;
      return true;
    });
    return id;
  }
  [[nodiscard]] std::string control() const { return directory_.file("d", "control"); }
  /// No breach, and all was judged.
  static void expect_sound(Inspector& inspector) {
    std::string breaches;
    std::size_t unstable = 0;
    const auto found =
        inspector.verify([&](const Breach& b) { breaches += std::string(b.what) + "\n"; }, &unstable);
    ASSERT_TRUE(found) << found.error().message();
    EXPECT_EQ(*found, 0u) << breaches;
    EXPECT_EQ(unstable, 0u);
  }

  RuntimeDirectory directory_;
  Domain domain_;
};

struct Entry {
  WalkKind kind;
  std::uint32_t region;
  std::uint64_t offset, length;
  bool held, cached;
  std::uint16_t tag;
  std::string name;
  bool operator==(const Entry&) const = default;
};
template <typename Walker>
std::vector<Entry> entries_of(Walker&& walk) {
  std::vector<Entry> all;
  const auto walked = walk([&](const WalkEntry& e) {
    all.push_back(Entry{e.kind, e.region.slot, e.offset, e.length, e.held, e.cached, e.tag.index,
                        e.name == nullptr ? "" : e.name});
    return true;
  });
  EXPECT_TRUE(walked) << walked.error().message();
  return all;
}

TEST_F(InspectorTest, SeesWhatTheDomainSees) {
  Heap first = heap("first", 16 * kMiB);
  Heap second = heap("second", 2 * kMiB);
  auto tag = domain_.intern_tag("packets");
  ASSERT_TRUE(tag);
  AllocOptions tagged;
  tagged.tag = *tag;
  std::vector<void*> held;
  for (std::size_t i = 1; i <= 300; ++i) {
    auto p = i % 3 == 0 ? first.allocate(i * 50, tagged) : first.allocate(i * 50);
    ASSERT_TRUE(p) << p.error().message();
    held.push_back(*p);
  }
  for (std::size_t i = 0; i < held.size(); i += 4) ASSERT_TRUE(domain_.deallocate(held[i]));
  ASSERT_TRUE(domain_.reserve_memzone(second, "zone", 100'000));
  ASSERT_TRUE(domain_.reserve_memzone(first, "small zone", 100));

  Inspector inspector = open();
  ASSERT_TRUE(inspector);
  std::vector<std::string> heaps, domains_heaps;
  ASSERT_TRUE(inspector.walk_heaps([&](const HeapInfo& info) {
    heaps.push_back(std::string(info.name) + std::to_string(info.id) + std::to_string(info.regions) + " " +
                    std::to_string(info.user_data));
    return true;
  }));
  ASSERT_TRUE(domain_.walk_heaps([&](const HeapInfo& info) {
    domains_heaps.push_back(std::string(info.name) + std::to_string(info.id) + std::to_string(info.regions) +
                            " " + std::to_string(info.user_data));
    return true;
  }));
  EXPECT_EQ(heaps, domains_heaps);

  for (const char* name : {"first", "second"}) {
    SCOPED_TRACE(name);
    const std::uint32_t id = id_of(name);
    const Heap own = *domain_.heap_by_id(id);
    auto theirs = own.stats();
    auto seen = inspector.stats(id);
    ASSERT_TRUE(theirs && seen) << seen.error().message();
    EXPECT_EQ(std::memcmp(&*theirs, &*seen, sizeof(HeapStats)), 0) << seen->used_bytes << " bytes used";
    EXPECT_EQ(entries_of([&](auto visit) { return inspector.walk(id, visit, WalkOptions{true}); }),
              entries_of([&](auto visit) { return own.walk(visit, WalkOptions{true}); }));
    TagStats seen_tags[4], own_tags[4];
    EXPECT_EQ(inspector.tag_stats(id, seen_tags).value_or(9), own.tag_stats(own_tags).value_or(8));
    EXPECT_EQ(seen_tags[1].live_bytes, own_tags[1].live_bytes);
    EXPECT_STREQ(seen_tags[1].name, own_tags[1].name);
    HolderReport seen_holders, own_holders;
    ASSERT_TRUE(inspector.holders(id, seen_holders) && own.holders(own_holders));
    EXPECT_EQ(seen_holders.count, own_holders.count);
    EXPECT_EQ(seen_holders.total_bytes, own_holders.total_bytes);
    EXPECT_EQ(seen_holders.holders[0].pid, own_holders.holders[0].pid);
  }

  std::vector<std::string> regions, own_regions;
  const auto line = [](const RegionInfo& info) {
    return std::to_string(info.id.slot) + " " + std::to_string(info.id.generation) + " " +
           std::to_string(info.heap_id) + " " + std::to_string(info.length) + " " +
           std::to_string(info.page_size) + " " + std::to_string(static_cast<int>(info.kind)) + " " +
           std::to_string(info.free_bytes) + " " + std::to_string(info.largest_free) + " " +
           std::to_string(info.free_runs) + " " + std::to_string(info.iova_runs) + " " +
           std::to_string(reinterpret_cast<std::uintptr_t>(info.adder_base));
  };
  ASSERT_TRUE(
      inspector.walk_regions([&](const RegionInfo& info) { return regions.push_back(line(info)), true; }));
  ASSERT_TRUE(
      domain_.walk_regions([&](const RegionInfo& info) { return own_regions.push_back(line(info)), true; }));
  EXPECT_EQ(regions, own_regions);

  std::vector<std::string> zones;
  ASSERT_TRUE(inspector.walk_memzones([&](const MemzoneInfo& info) {
    auto own = domain_.find_memzone(info.name);
    EXPECT_TRUE(own);
    EXPECT_EQ(info.ptr.bits, own->ptr.bits);
    EXPECT_EQ(info.length, own->length);
    EXPECT_EQ(info.iova, own->iova);
    return zones.emplace_back(info.name), true;
  }));
  EXPECT_EQ(zones.size(), 2u);
  std::vector<std::string> tags;
  ASSERT_TRUE(inspector.walk_tags([&](Tag, const char* name) { return tags.emplace_back(name), true; }));
  EXPECT_EQ(tags, std::vector<std::string>{"packets"});
  std::size_t participants = 0;
  ASSERT_TRUE(inspector.walk_participants([&](const ParticipantInfo& info) {
    EXPECT_EQ(info.id, domain_.participant());
    EXPECT_EQ(info.pid, static_cast<std::uint32_t>(::getpid()));
    EXPECT_TRUE(info.self);
    EXPECT_FALSE(info.dead);
    return ++participants, true;
  }));
  EXPECT_EQ(participants, 1u);
  expect_sound(inspector);
}

TEST_F(InspectorTest, SeesRunsOfIovasAndIsDrawnAsTheDomainIs) {
  auto made = domain_.create_heap("h");
  ASSERT_TRUE(made);
  BackingSpec spec;
  spec.kind = BackingKind::memfd;
  spec.length = 4 * kMiB;
  spec.iova_source = IovaSource::identity;
  auto region = domain_.add_backing(*made, spec);
  ASSERT_TRUE(region) << region.error().message();
  heap("other");
  AllocOptions tagged;
  tagged.tag = *domain_.intern_tag("packets");
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(made->allocate(3000, tagged));
  ASSERT_TRUE(domain_.reserve_memzone(*made, "zone", 65536));

  Inspector inspector = open();
  std::vector<IovaRun> runs;
  ASSERT_TRUE(
      inspector.walk_iova_runs(*region, [&](const IovaRun& run) { return runs.push_back(run), true; }));
  ASSERT_EQ(runs.size(), 1u);
  EXPECT_EQ(runs[0].length, 4 * kMiB);
  EXPECT_EQ(static_cast<std::uint64_t>(runs[0].iova),
            reinterpret_cast<std::uint64_t>(domain_.region_info(*region)->base));
  const auto none = [](const IovaRun&) { return true; };
  EXPECT_EQ(inspector.walk_iova_runs(RegionId{region->slot, region->generation + 1}, none).error().code(),
            ENOENT);
  EXPECT_EQ(inspector.walk_iova_runs(RegionId{60, 1}, none).error().code(), ENOENT);
  EXPECT_EQ(inspector.walk_iova_runs(RegionId{}, none).error().code(), ENOENT);

  for (const HeapMapFormat format : {HeapMapFormat::text, HeapMapFormat::svg}) {
    HeapMapOptions options;
    options.format = format;
    std::string outside, inside, one;
    const auto into = [](std::string& text) {
      return [&text](std::string_view chunk) { return text.append(chunk), true; };
    };
    auto to_outside = into(outside);
    auto to_inside = into(inside);
    auto to_one = into(one);
    ASSERT_TRUE(write_heap_map(domain_, to_inside, options));
    ASSERT_TRUE(inspector.refresh());
    ASSERT_TRUE(write_heap_map(inspector, to_outside, options));
    EXPECT_EQ(outside, inside);
    ASSERT_TRUE(write_heap_map(inspector, to_one, options, "other"));
    EXPECT_EQ(one.find("packets"), std::string::npos);
    EXPECT_EQ(write_heap_map(inspector, to_one, options, "none").error().code(), ENOENT);
  }
}

TEST_F(InspectorTest, NeverWritesAndNeverJoins) {
  Heap h = heap("h");
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(h.allocate(100));
  const std::uint32_t id = id_of("h");
  const auto content = [&] {
    std::string all;
    const MappedSegment segment(control());
    for (const std::uint64_t page : pages_with_data(control()))
      all.append(reinterpret_cast<const char*>(segment.base() + page), 4096);
    return all;
  };
  ASSERT_EQ(::chmod(control().c_str(), 0400), 0);
  const std::string before = content();
  {
    Inspector inspector = open();
    expect_sound(inspector);
    EXPECT_TRUE(inspector.stats(id));
  }
  EXPECT_TRUE(content() == before);
  ASSERT_EQ(::chmod(control().c_str(), 0600), 0);
  // Our token is still ours: no descriptor of its file was closed.
  Companion other;
  ASSERT_EQ(other.code(words("open", "d", directory_.path(), "only")), 0);
  EXPECT_EQ(other.ask("recover").substr(0, 4), "ok 0") << "we live";
}

TEST_F(InspectorTest, NeedsOnlyPermissionToRead) {
  if (::geteuid() != 0) return;  // only root can become somebody else
  Heap h = heap("h");
  ASSERT_TRUE(h.allocate(100));
  ASSERT_EQ(::chmod(directory_.c_str(), 0755), 0);
  ASSERT_EQ(::chmod((directory_.path() + "/d").c_str(), 0755), 0);
  ASSERT_EQ(::chmod(control().c_str(), 0644), 0);
  const std::uint32_t id = id_of("h");
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setgid(65534) != 0 || ::setuid(65534) != 0) ::_exit(2);
    auto opened = Inspector::open("d", directory_.c_str());
    if (!opened) ::_exit(3);
    auto stats = opened->stats(id);
    if (!stats || stats->used_count != 1) ::_exit(4);
    ::_exit(opened->verify_heap(id).value_or(9) == 0 ? 0 : 5);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0) << WEXITSTATUS(status);
}

TEST_F(InspectorTest, TellsWhatIsNotThere) {
  EXPECT_EQ(Inspector::open("none", directory_.c_str()).error().code(), ENOENT);
  EXPECT_EQ(Inspector::open("d", "/dev/shm/extmem-test-none").error().code(), ENOENT);
  EXPECT_EQ(Inspector::open("", directory_.c_str()).error().code(), EINVAL);
  EXPECT_EQ(Inspector::open("../d", directory_.c_str()).error().code(), EINVAL);
  EXPECT_EQ(Inspector::open(std::string(64, 'x'), directory_.c_str()).error().code(), ENAMETOOLONG);
  ASSERT_EQ(::mkdir((directory_.path() + "/odd").c_str(), 0700), 0);
  ASSERT_EQ(::symlink(control().c_str(), (directory_.path() + "/odd/control").c_str()), 0);
  EXPECT_EQ(Inspector::open("odd", directory_.c_str()).error().code(), ELOOP);
  ASSERT_EQ(::unlink((directory_.path() + "/odd/control").c_str()), 0);
  ASSERT_EQ(::mkfifo((directory_.path() + "/odd/control").c_str(), 0600), 0);
  EXPECT_EQ(Inspector::open("odd", directory_.c_str()).error().code(), EPERM);

  Inspector empty;
  EXPECT_FALSE(empty);
  EXPECT_EQ(empty.refresh().error().code(), EINVAL);
  EXPECT_EQ(empty.verify().error().code(), EINVAL);
  EXPECT_EQ(empty.stats(0).error().code(), EINVAL);

  Inspector inspector = open();
  EXPECT_EQ(inspector.stats(15).error().code(), ENOENT);
  EXPECT_EQ(inspector.stats(~0u).error().code(), ENOENT);
  EXPECT_EQ(inspector.verify_heap(15).error().code(), ENOENT);
  EXPECT_EQ(inspector.walk_heaps({}).error().code(), EINVAL);
  EXPECT_EQ(inspector.walk(0, {}).error().code(), EINVAL);
}

TEST_F(InspectorTest, RefreshShowsWhatHasChanged) {
  Heap h = heap("h");
  const std::uint32_t id = id_of("h");
  Inspector inspector = open();
  EXPECT_EQ(inspector.stats(id)->used_count, 0u);
  ASSERT_TRUE(h.allocate(100));
  EXPECT_EQ(inspector.stats(id)->used_count, 0u) << "a snapshot";
  ASSERT_TRUE(inspector.refresh());
  EXPECT_EQ(inspector.stats(id)->used_count, 1u);
  const auto count = [&] {
    std::size_t n = 0;
    (void)inspector.walk_heaps([&](const HeapInfo&) { return ++n, true; });
    return n;
  };
  const std::size_t before = count();
  ASSERT_TRUE(domain_.create_heap("another"));
  EXPECT_EQ(count(), before);
  ASSERT_TRUE(inspector.refresh());
  EXPECT_EQ(count(), before + 1);
}

TEST_F(InspectorTest, IsUsableInsideWalksAsFarAsItCanBe) {
  Heap h = heap("h");
  ASSERT_TRUE(h.allocate(100));
  const std::uint32_t id = id_of("h");
  Inspector inspector = open();
  std::size_t heaps = 0;
  ASSERT_TRUE(inspector.walk_heaps([&](const HeapInfo& info) {
    EXPECT_TRUE(inspector.stats(info.id));
    EXPECT_EQ(inspector.verify_heap(info.id).value_or(9), 0u);
    return ++heaps, true;
  }));
  EXPECT_GE(heaps, 2u);
  ASSERT_TRUE(inspector.walk(id, [&](const WalkEntry&) {
    EXPECT_EQ(inspector.stats(id).error().code(), EDEADLK);
    EXPECT_EQ(inspector.verify().error().code(), EDEADLK);
    EXPECT_EQ(inspector.refresh().error().code(), EDEADLK);
    return true;
  }));
}

TEST_F(InspectorTest, SurvivesTheDomainsEnd) {
  Inspector inspector = open();
  ASSERT_TRUE(inspector.refresh());
  domain_ = Domain();
  expect_sound(inspector);
  ASSERT_TRUE(Domain::remove("d", directory_.c_str()));
  EXPECT_EQ(inspector.refresh().error().code(), ESTALE);
  EXPECT_EQ(inspector.verify().error().code(), ESTALE);
}

TEST_F(InspectorTest, AFileThatIsCutShortIsAnError) {
  (void)heap("h");
  domain_ = Domain();
  for (const off_t length : {off_t{100}, off_t{4096}, off_t{1} << 20, off_t{8} << 20}) {
    SCOPED_TRACE(length);
    struct stat status {};
    ASSERT_EQ(::stat(control().c_str(), &status), 0);
    Inspector inspector = open();
    ASSERT_TRUE(inspector.stats(0));
    ASSERT_EQ(::truncate(control().c_str(), length), 0);
    EXPECT_EQ(inspector.refresh().error().code(), EUCLEAN);
    EXPECT_EQ(inspector.verify().error().code(), EUCLEAN);
    EXPECT_EQ(inspector.stats(0).error().code(), EUCLEAN);
    EXPECT_EQ(Inspector::open("d", directory_.c_str()).error().code(), EUCLEAN);
    ASSERT_EQ(::truncate(control().c_str(), status.st_size), 0);
    if (length < 104) break;  // the header is gone
  }
}

// ---- while others work -------------------------------------------------------------------------------------

/// A participant that allocates and frees until it is killed. `pause_us`: between bursts.
pid_t start_worker(const std::string& directory, const char* heap_name, unsigned seed, unsigned pause_us) {
  const pid_t child = ::fork();
  if (child != 0) return child;
  OpenOptions options;
  options.directory = directory.c_str();
  options.mode = OpenMode::open_only;
  auto opened = Domain::open("d", options);
  if (!opened) ::_exit(3);
  Domain& domain = *opened;
  auto heap = domain.find_heap(heap_name);
  auto tag = domain.intern_tag("worker");
  if (!heap || !tag) ::_exit(4);
  const auto work = [&](unsigned thread_seed) {
    std::mt19937 random(thread_seed);
    std::vector<void*> held(400, nullptr);
    AllocOptions tagged;
    tagged.tag = *tag;
    for (;;) {
      for (int i = 0; i < 2000; ++i) {
        void*& p = held[random() % held.size()];
        if (p != nullptr) {
          if (!domain.deallocate(p)) ::_exit(5);
          p = nullptr;
        } else {
          const std::size_t size = 16 + random() % (random() % 20 == 0 ? 60'000 : 600);
          p = (random() % 4 == 0 ? heap->allocate(size, tagged) : heap->allocate(size)).value_or(nullptr);
        }
      }
      if (pause_us != 0) ::usleep(pause_us);
    }
  };
  std::thread other(work, seed + 1);
  work(seed);
  ::_exit(0);
}
void end(pid_t child) {
  ::kill(child, SIGKILL);
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "it ended by itself: " << status;
}

TEST_F(InspectorTest, NeverReportsABreachOfASoundDomain) {
  Heap used = heap("busy", 16 * kMiB);
  (void)heap("relaxed", 16 * kMiB);
  std::vector<pid_t> workers = {start_worker(directory_.path(), "busy", 1, 0),
                                start_worker(directory_.path(), "busy", 2, 0),
                                start_worker(directory_.path(), "relaxed", 3, 3000)};
  std::atomic<bool> stop{false};
  std::thread names([&] {
    for (int i = 0; !stop; ++i) {
      // No region: the workers would map it, and do not look whether it is to go.
      auto other = domain_.create_heap("come and go");
      ASSERT_TRUE(other) << other.error().message();
      auto zone = domain_.reserve_memzone(used, "zone", i % 2 == 0 ? 5000 : 50'000);
      if (zone) {
        EXPECT_TRUE(domain_.free_memzone("zone"));
      }
      EXPECT_TRUE(domain_.destroy_heap(*other));
      if (i % 16 == 0) ::usleep(2000);
    }
  });
  Inspector inspector = open();
  const std::uint32_t relaxed = id_of("relaxed");
  std::size_t verified = 0, settled = 0, stats = 0;
  const auto start = std::chrono::steady_clock::now();
  const auto goes_on = [&] {  // on a loaded machine until it has seen something
    const auto passed = std::chrono::steady_clock::now() - start;
    return passed < std::chrono::seconds(4) || (stats == 0 && passed < std::chrono::seconds(100));
  };
  while (goes_on()) {
    std::size_t unstable = 0;
    auto found = inspector.verify(
        [](const Breach& b) {
          ADD_FAILURE() << b.what << ": heap " << b.heap_id << ", region " << b.region_slot << ", at "
                        << b.where << ", expected " << b.expected << ", found " << b.found;
        },
        &unstable);
    ASSERT_TRUE(found) << found.error().message();
    ++verified;
    if (unstable == 0) ++settled;
    bool stable = false;
    if (auto s = inspector.stats(relaxed, &stable); s && stable) {
      ++stats;
      EXPECT_EQ(s->total_bytes, s->used_bytes + s->free_bytes + s->cached_bytes + s->slab_free_bytes);
    }
    (void)inspector.walk(
        relaxed, [](const WalkEntry&) { return true; }, WalkOptions{true}, &stable);
    if (HasFailure()) break;
  }
  stop = true;
  names.join();
  for (const pid_t worker : workers) end(worker);
  ASSERT_TRUE(domain_.recover());
  std::printf("%zu verified, %zu of them wholly; %zu exact statistics of a heap in use\n", verified, settled,
              stats);
  EXPECT_GT(verified, 0u);
  EXPECT_GT(stats, 0u);
  EXPECT_EQ(domain_.verify().value_or(99), 0u);
  expect_sound(inspector);
}

}  // namespace
}  // namespace extmem::test
