// Breaches that are there, in a heap at rest, while another heap of the domain is hard at work: an inspector reports each.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <functional>
#include <string>
#include <vector>

#include "contract/companion.hpp"
#include "contract/runtime_directory.hpp"
#include "contract/segment_tables.hpp"
#include "extmem/extmem.hpp"

namespace extmem::test {
namespace {

class InspectorBreach : public testing::Test {
 protected:
  InspectorBreach() {
    // Everything is a companion's: its threads sleep while we look, and the kernel says so.
    EXPECT_EQ(user_.code(words("open", "d", directory_.path(), "any")), 0);
    EXPECT_EQ(user_.code("heap_new quiet"), 0);
    EXPECT_EQ(user_.code("add memfd 4194304"), 0);
    EXPECT_EQ(user_.code("zone_reserve zone 5000"), 0);
    for (int i = 0; i < 50; ++i) objects_.push_back(user_.number(words("allocate", 100, 16, i)));
    for (int i = 0; i < 20; ++i) (void)user_.number(words("allocate", 200, 16, i, "tag"));
    for (int i = 0; i < 5; ++i) (void)user_.number(words("allocate", 100'000, 16, i));
    for (int i = 0; i < 10; ++i)
      EXPECT_EQ(user_.code(words("free", objects_[static_cast<std::size_t>(i)])), 0);
    worker_ = ::fork();
    if (worker_ == 0) work();
    auto opened = Inspector::open("d", directory_.c_str());
    EXPECT_TRUE(opened) << opened.error().message();
    inspector_ = std::move(*opened);
    segment_.emplace(directory_.file("d", "control"));
    for (std::uint32_t id = 0; id < 16; ++id) {
      if (std::string(segment_->names()[id].name.view()) == "quiet") quiet_ = id;
    }
  }
  ~InspectorBreach() override {
    ::kill(worker_, SIGKILL);
    ::waitpid(worker_, nullptr, 0);
    user_.kill();
  }
  [[noreturn]] void work() const {
    OpenOptions options;
    options.directory = directory_.c_str();
    auto domain = Domain::open("d", options);
    auto heap = domain ? domain->create_heap("busy") : Result<Heap>(domain.error());
    BackingSpec spec;
    spec.kind = BackingKind::memfd;
    spec.length = 4 << 20;
    if (!heap || !domain->add_backing(*heap, spec)) ::_exit(1);
    for (;;) {
      void* held[100];
      for (void*& p : held) p = heap->allocate(64).value_or(nullptr);
      for (void* p : held) (void)heap->deallocate(p);
    }
  }
  [[nodiscard]] alloc::HeapCore& heap() const { return segment_->heaps()[quiet_]; }
  [[nodiscard]] alloc::RegionCore& region() const { return segment_->regions()[heap().first_region]; }
  /// A slab of the 100-byte objects.
  [[nodiscard]] alloc::Slab& slab() const { return segment_->slab(heap().all_slabs[alloc::class_of(100)]); }
  [[nodiscard]] alloc::ThreadCache& cache() const { return segment_->cache(heap().first_cache); }

  std::vector<std::string> verify() {
    std::vector<std::string> all;
    std::size_t unstable = 0;
    const auto found = inspector_.verify([&](const Breach& b) { all.emplace_back(b.what); }, &unstable);
    EXPECT_TRUE(found) << found.error().message();
    EXPECT_EQ(found.value_or(0), all.size());
    return all;
  }
  /// Damages, finds the breach, repairs, finds nothing.
  template <typename Word, typename Value>
  void expect(const char* what, Word& word, Value damage) {
    SCOPED_TRACE(what);
    const auto before = static_cast<Value>(word);
    word = damage;
    const std::vector<std::string> found = verify();
    EXPECT_NE(std::find(found.begin(), found.end(), what), found.end())
        << found.size() << " others" << (found.empty() ? "" : ", as: " + found[0]);
    word = before;
    EXPECT_EQ(verify(), std::vector<std::string>{});
  }

  RuntimeDirectory directory_;
  Companion user_;
  std::vector<std::uint64_t> objects_;
  pid_t worker_ = -1;
  Inspector inspector_;
  std::optional<MappedSegment> segment_;
  std::uint32_t quiet_ = 0;
};

TEST_F(InspectorBreach, IsReportedWhileOthersWork) {
  ASSERT_EQ(verify(), std::vector<std::string>{});
  EXPECT_EQ(inspector_.verify_heap(quiet_).value_or(9), 0u) << "all of it could be judged";

  expect("span_count counts the held spans", heap().span_count, heap().span_count + 1);
  expect("span bytes add up", heap().span_pages_bytes, heap().span_pages_bytes - 4096);
  expect("regions counts the heap's regions", heap().regions, std::uint32_t{2});
  expect("the heap's list of slabs ends", heap().slab_count, heap().slab_count - 1);
  expect("slab_count counts the slabs", heap().slab_count, heap().slab_count + 1);
  expect("caches counts the heap's caches", heap().caches, std::uint32_t{7});
  expect("slab_regions counts the regions with slabs", heap().slab_regions, std::uint32_t{0});
  expect("free_pages counts the free pages", region().pages.free_pages, region().pages.free_pages + 1);
  expect("free_runs counts the free runs", region().pages.free_runs, std::uint64_t{99});
  expect("a row's bit says whether it is empty", region().pages.row_bits, std::uint32_t{0});
  expect("a region's page table lies in its area", region().pages.descs_offset, std::uint64_t{64});
  expect("a heap's region names the heap", region().heap, std::uint32_t{0});
  expect("a slab counts its free objects", slab().free, static_cast<std::uint16_t>(slab().free + 1));
  expect("a slab with returned objects is in its keeper's list", slab().returned, std::uint16_t{1});
  expect("a slab is in the list of its keeper and class", slab().keeper, std::uint16_t{7});
  expect("an outbox holds at most its capacity", cache().out_counts[0], std::uint16_t{33});
  expect("a slab names its heap and class", slab().size_class,
         static_cast<std::uint16_t>(slab().size_class + 1));
  expect("a slab's memory and states lie in their areas", slab().first_state, std::uint32_t{0xfffffff0});
  expect("no object below the hint is free", slab().hint, slab().objects.get());
  expect("a slab with free objects is listed", slab().flags,
         static_cast<std::uint16_t>(slab().flags ^ alloc::kSlabListed));
  expect("a tag's live bytes are what its objects add up to", segment_->tag(1).bytes,
         segment_->tag(1).bytes + 8);
  expect("memzone_count counts the memzones", segment_->directory().memzone_count, std::uint32_t{3});
  expect("a memzone is found by its name", segment_->zones()[0].name.text[0], 'y');
  expect("a memzone's memory is held by it", segment_->zones()[0].length, std::uint64_t{1} << 30);
  expect("a heap is found by its name", segment_->names()[quiet_].name.text[0], 'x');
  expect("every region is in its heap's chain", segment_->heaps()[0].regions, std::uint32_t{1});
  expect("a metadata space is where its tables are", segment_->roots().small.pages.pages, std::uint32_t{1});
  expect("the runs tile the space", segment_->page(region(), 0).word0,
         alloc::PageDesc::pack(alloc::PageKind::held_head, 0));
}

TEST_F(InspectorBreach, OfMagazinesIsReportedWhereTheirThreadSleeps) {
  const std::uint32_t cls = alloc::class_of(100);
  ASSERT_GT(cache().count(cls), 2u);
  alloc::CachedObject* const objects = cache().objects(cls);
  expect("an object in a magazine is cached by its thread", segment_->state(objects[0].state),
         alloc::held_by(alloc::untagged_holder(1)));
  expect("an object is in a magazine once", objects[1].state, objects[0].state);
  expect("an object in a magazine has a state", objects[1].state, std::uint32_t{0xffffff00});
  expect("every cached object is in a magazine", cache().magazines[cls].top,
         cache().magazines[cls].top - static_cast<std::uint32_t>(sizeof(alloc::CachedObject)));
  expect("a magazine holds at most its capacity", cache().magazines[cls].top, std::uint32_t{1});
}

TEST_F(InspectorBreach, OfWhatAStoppedHolderGuardsIsReportedToo) {
  // As if the companion had stopped with the heap's lock: nobody can change anything, and only journaled things are whole.
  auto* const words = reinterpret_cast<std::atomic<std::uint32_t>*>(&heap().lock);
  words[0] = cache().slot;
  user_.stop();
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(verify(), std::vector<std::string>{});
  EXPECT_EQ(inspector_.verify_heap(quiet_).error().code(), EAGAIN);
  bool stable = true;
  auto stats = inspector_.stats(quiet_, &stable);
  ASSERT_TRUE(stats);
  EXPECT_FALSE(stable);
  EXPECT_EQ(stats->regions, 1u);
  EXPECT_EQ(inspector_.stats(quiet_).error().code(), EAGAIN);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20))
      << "nobody waits for the holder";
  heap().span_count.add(1);
  EXPECT_EQ(verify(), std::vector<std::string>{"span_count counts the held spans"});
  heap().span_count.add(~std::uint64_t{0});
  words[0] = 0;
  user_.go_on();
  EXPECT_EQ(inspector_.verify_heap(quiet_).value_or(9), 0u);
}

}  // namespace
}  // namespace extmem::test
