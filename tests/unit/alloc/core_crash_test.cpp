// Every transaction of Core, cut short between any two of its stores: what a cleaner finds after undoing it is the state
// at the transaction's beginning, and every invariant that held there holds again.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <set>
#include <sstream>

#include "unit/alloc/core_world.hpp"
#include "unit/shared/crash_watch.hpp"

namespace extmem::alloc {
namespace {

constexpr std::uint32_t kSlot = 1;

shared::Geometry tiny_geometry() {
  shared::Geometry g{};
  g.max_regions = 3;
  g.max_heaps = 3;
  g.max_tags = 0;
  g.max_threads = 3;
  g.max_caches = 3;
  g.max_slabs = 16;
  g.small_bytes = 64 * kKiB;
  g.large_bytes = 512 * kKiB;
  return g;
}

/// A copy of all metadata, at another address, with a Core of its own: what a cleaner would see.
class Copy {
 public:
  explicit Copy(CoreWorld& world) : tables_(world.tables()) { take(world.core().segment()); }
  Copy(const Copy& other) : tables_(other.tables_) { take(other.core_.segment()); }
  Copy& operator=(const Copy&) = delete;

  [[nodiscard]] Core& core() { return core_; }
  [[nodiscard]] shared::Journal& journal() { return core_.slot(at_work).journal; }
  static inline std::uint32_t at_work = kSlot;  // whose transactions are cut short
  [[nodiscard]] std::byte* bytes() { return core_.segment(); }
  void undo() { shared::undo(bytes(), journal()); }

  /// All breaches of the heap and of the metadata spaces.
  std::string breaches() {
    std::ostringstream text;
    const auto report = [&](const char* what, std::uint64_t where, std::uint64_t expected,
                            std::uint64_t found) {
      text << what << " at " << where << ": " << expected << " expected, " << found << " found\n";
    };
    (void)core_.check_heap_locked(CoreWorld::kHeap, report);
    for (MetaSpace* meta : {&core_.roots().small, &core_.roots().large}) {
      (void)PageAllocator(bytes(), meta->pages)
          .check([](std::uint32_t, std::uint32_t) { return 0u; }, report);
    }
    return text.str();
  }

  /// What counts and differs from `other`; "" if nothing.
  std::string differences(Copy& other) {
    std::ostringstream text;
    const auto same = [&](const char* what, const void* a, const void* b, std::size_t n) {
      if (std::memcmp(a, b, n) != 0) text << what << '\n';
    };
    Core& a = core_;
    Core& b = other.core_;
    // Not the locks: a transaction may begin before it takes one.
    constexpr std::size_t kLock = sizeof(shared::Lock);
    const auto behind_lock = [](const auto& record) {
      return reinterpret_cast<const std::byte*>(&record) + kLock;
    };
    same("small metadata", behind_lock(a.roots().small), behind_lock(b.roots().small),
         sizeof(MetaSpace) - kLock);
    same("large metadata", behind_lock(a.roots().large), behind_lock(b.roots().large),
         sizeof(MetaSpace) - kLock);
    same("list of slabs", &a.roots().slab_list, &b.roots().slab_list, sizeof(shared::IndexList));
    same("list of caches", &a.roots().cache_list, &b.roots().cache_list, sizeof(shared::IndexList));
    same("list of tag records", &a.roots().tag_list, &b.roots().tag_list, sizeof(shared::IndexList));
    for (std::uint32_t i = 0; i < 3; ++i) {
      same("heap", behind_lock(a.heap(i)), behind_lock(b.heap(i)), sizeof(HeapCore) - kLock);
    }
    for (std::uint32_t i = 0; i <= 3; ++i) {
      same("region", &a.region(i), &b.region(i), sizeof(RegionCore));
      const PageSpace& pages = a.region(i).pages;
      if (a.region(i).flags == 0) continue;
      descs(text, other, a.region(i).pages);
      same("slab map", a.slab_map(a.region(i)), b.slab_map(b.region(i)),
           4 * slab_map_words(pages.pages, pages.page_shift));
    }
    descs(text, other, a.roots().small.pages);
    descs(text, other, a.roots().large.pages);
    for (std::uint32_t i = 0; i < 16; ++i) {
      const Slab& s = a.slab(i);
      const Slab& t = b.slab(i);
      if (s.objects == 0 ? t.objects != 0 || s.all_next != t.all_next : std::memcmp(&s, &t, sizeof s) != 0) {
        text << "slab " << i << '\n';
      }
      if (s.objects != 0)
        same("object states", &a.state(s.first_state), &b.state(s.first_state), 2u * s.objects);
    }
    for (std::uint32_t i = 0; i < 3; ++i) {
      const bool used = a.cache(i).used != 0;
      if (a.cache(i).next != b.cache(i).next) text << "link of cache " << i << '\n';
      if (used) same("cache", &a.cache(i), &b.cache(i), sizeof(ThreadCache));
    }
    for (std::uint32_t i = 0; i <= 3; ++i) {
      if (a.slot(i).spare_caches != b.slot(i).spare_caches) text << "spare caches of slot " << i << '\n';
    }
    for (std::uint32_t i = 0; i < 1024; ++i) {
      if (a.tag_record(i).next != b.tag_record(i).next) text << "link of tag record " << i << '\n';
    }
    same("cache rows", bytes() + tables_.cache_rows, other.bytes() + tables_.cache_rows, 4u * 4 * 3);
    return text.str();
  }

  /// Whether the word at this offset is only a hint or a leftover, here and in `other`.
  bool means_nothing(std::uint64_t offset, Copy& other) {
    for (std::uint32_t i = 0; i < 16; ++i) {
      if (offset == offset_of(core_.slab(i).all_prev)) return core_.slab(i).objects == 0;
    }
    for (std::uint32_t i = 0; i < core_.geometry().max_caches; ++i) {
      // Of a record that no heap uses; whether one is used, the heap's list says too.
      if (offset == offset_of(core_.cache(i).used)) return true;
      if (offset == offset_of(core_.cache(i).next)) return core_.cache(i).used == 0;
    }
    for (PageSpace* space : spaces()) {
      if (offset < space->descs_offset || offset >= space->descs_offset + std::uint64_t{space->pages} * 16)
        continue;
      const auto page = static_cast<std::uint32_t>((offset - space->descs_offset) / 16);
      const PageDesc& desc = PageAllocator(bytes(), *space).desc(page);
      const PageDesc& there = PageAllocator(other.bytes(), *space).desc(page);
      if (!decides(desc) && !decides(there)) return true;
      return offset % 16 == 8 && !links(desc);
    }
    return false;
  }

 private:
  /// Buffers are used again: there are thousands of copies, and fresh pages cost more than the copying.
  static std::vector<std::byte*>& unused() {
    struct Buffers {
      std::vector<std::byte*> all;
      ~Buffers() {
        for (std::byte* memory : all) std::free(memory);
      }
    };
    static Buffers buffers;
    return buffers.all;
  }
  struct Free {
    void operator()(std::byte* memory) const { unused().push_back(memory); }
  };
  /// All tables, and what is used of the large area: the page tables of three regions.
  void take(const std::byte* from) {
    constexpr std::uint64_t kPage = 65536;
    constexpr std::uint64_t kUsed = 2048;
    if (unused().empty()) {
      unused().push_back(static_cast<std::byte*>(std::aligned_alloc(kPage, tables_.large_area + 4 * kPage)));
    }
    memory_.reset(unused().back());
    unused().pop_back();
    std::memcpy(memory_.get(), from, tables_.large_area);
    for (std::uint64_t at = tables_.large_area; at < tables_.large_area + 4 * kPage; at += kPage) {
      std::memcpy(memory_.get() + at, from + at, kUsed);
    }
    core_.bind(memory_.get(), tables_, tiny_geometry(), false, false);
  }
  template <typename T>
  std::uint64_t offset_of(const T& field) {
    return static_cast<std::uint64_t>(reinterpret_cast<const std::byte*>(&field) - bytes());
  }
  std::vector<PageSpace*> spaces() {
    std::vector<PageSpace*> all = {&core_.roots().small.pages, &core_.roots().large.pages};
    for (std::uint32_t i = 1; i <= 3; ++i) {
      if (core_.region(i).flags != 0) all.push_back(&core_.region(i).pages);
    }
    return all;
  }
  static bool decides(const PageDesc& desc) {
    return desc.kind() != PageKind::none && desc.kind() != PageKind::mark;
  }
  static bool links(const PageDesc& desc) {
    return desc.kind() == PageKind::free_head || desc.kind() == PageKind::held_head ||
           desc.kind() == PageKind::held_tail;
  }
  void descs(std::ostringstream& text, Copy& other, PageSpace& space) {
    for (std::uint32_t page = 0; page < space.pages; ++page) {
      const PageDesc& was = PageAllocator(bytes(), space).desc(page);
      const PageDesc& is = PageAllocator(other.bytes(), space).desc(page);
      if (!decides(was) && !decides(is)) continue;
      if (was.word0 != is.word0 || (links(was) && was.word1 != is.word1)) text << "page " << page << '\n';
    }
  }

  CoreTables tables_;
  std::unique_ptr<std::byte[], Free> memory_;
  Core core_;
};

class CoreCrash : public ::testing::Test {
 protected:
  CoreCrash() { region_ = world_.add_region(256 * kKiB); }

  /// Runs the operation; each of its transactions is cut short at every point.
  void survives(int transactions, const std::function<void()>& operation) {
    std::unique_ptr<Copy> before;
    std::unique_ptr<Copy> last;
    std::string
        known;  // breaches at the beginning, where lists and magazines may be halfway: they are rebuilt
    int begun = 0;
    int committed = 0;
    const auto finish = [&] {
      if (last != nullptr && last->journal().count != 0) every_word_matters(*before, *last);
      last.reset();
    };
    {
      const shared::CrashWatch watch([&](std::string_view name) {
        if (name == "transaction.committed") {
          ++committed;
          finish();
          before.reset();
        }
        if (name == "transaction.committed" || name == "undo.step") return;
        if (name.starts_with("return.")) return;  // of object states, which no journal keeps
        Copy now(world_);
        // A transaction that was begun around others starts anew where it makes its first change.
        if (name == "transaction.begun" || before == nullptr) {
          ++begun;
          before = std::make_unique<Copy>(now);
          before->journal().count = 0;
          known = before->breaches();
        }
        last = std::make_unique<Copy>(now);
        now.undo();
        ASSERT_EQ(before->differences(now), "") << name << " of transaction " << begun;
        ASSERT_EQ(now.breaches(), known) << name << " of transaction " << begun;
      });
      operation();
    }
    EXPECT_GE(begun, transactions);
    EXPECT_LE(committed, begun);
    EXPECT_EQ(world_.breaches(kSlot), "");
  }

  /// A transaction that forgot to journal a word would not be undone: each one left out must show.
  static void every_word_matters(Copy& before, Copy& unfinished) {
    const std::uint32_t entries = unfinished.journal().count;
    std::set<std::uint64_t> seen;
    int detected = 0;
    for (std::uint32_t i = 0; i < entries; ++i) {
      const shared::JournalEntry entry = unfinished.journal().entries[i];
      if (!seen.insert(entry.where).second) continue;
      Copy copy(unfinished);
      const auto* const scratch =
          reinterpret_cast<const std::byte*>(&copy.journal().entries[shared::kJournalCapacity - 1]);
      for (std::uint32_t j = i; j < entries; ++j) {
        shared::JournalEntry& same = copy.journal().entries[j];
        if (same.where == entry.where) {
          same.where = static_cast<std::uint64_t>(scratch - copy.bytes()) << 8 | (entry.where & 0xff);
        }
      }
      copy.undo();
      const std::uint64_t offset = entry.where >> 8;
      if (std::memcmp(copy.bytes() + offset, before.bytes() + offset, entry.where & 0xff) == 0) continue;
      if (before.means_nothing(offset, copy)) continue;
      EXPECT_NE(before.differences(copy), "")
          << "entry " << i << " of " << entries << " at offset " << offset;
      ++detected;
    }
    EXPECT_GT(detected, 0) << "of " << entries << " entries";
  }

  CoreWorld world_{tiny_geometry()};
  std::uint32_t region_ = 0;
};

TEST_F(CoreCrash, MakingSlabs) {
  (void)world_.cache(kSlot);
  survives(3, [&] {
    for (const std::uint64_t size : {100u, 5000u, 16u}) world_.must_allocate(kSlot, size);
  });
}

TEST_F(CoreCrash, MakingASlabNextToOthersOfItsClass) {
  std::vector<std::uint64_t> held;
  for (int i = 0; i < 8; ++i) held.push_back(world_.must_allocate(kSlot, 4096));
  survives(2, [&] {
    for (int i = 0; i < 12; ++i) held.push_back(world_.must_allocate(kSlot, 4096));
  });
}

TEST_F(CoreCrash, TryingToMakeASlabWhereNothingFits) {
  while (world_.allocate_span(kSlot, 8192).ok()) {
  }
  (void)world_.cache(kSlot);
  survives(0, [&] { EXPECT_EQ(world_.allocate(kSlot, 64).error().code(), ENOMEM); });
}

TEST_F(CoreCrash, TryingToMakeASlabWithoutMetadata) {
  (void)world_.cache(kSlot);
  MetaSpace& small = world_.core().roots().small;
  SpanRequest all;
  all.pages = small.pages.pages;
  {
    auto tx = world_.core().transaction(kSlot);
    ASSERT_EQ(PageAllocator(world_.core().segment(), small.pages).allocate(tx, all, 0), 0u);
    tx.commit();
  }
  survives(1, [&] { EXPECT_EQ(world_.allocate(kSlot, 64).error().code(), ENOSPC); });
}

TEST_F(CoreCrash, ReleasingSlabs) {
  std::vector<std::uint64_t> held;
  for (const std::uint64_t size : {100u, 5000u, 16u, 3000u})
    held.push_back(world_.must_allocate(kSlot, size));
  for (const std::uint64_t ptr : held) world_.must_free(kSlot, ptr);
  survives(4, [&] { world_.flush(kSlot, true); });
  EXPECT_EQ(world_.leftovers(kSlot), "");
}

TEST_F(CoreCrash, ReleasingASlabBetweenOthersOfItsClass) {
  std::vector<std::uint64_t> held;
  for (int i = 0; i < 16; ++i) held.push_back(world_.must_allocate(kSlot, 8192));  // one slab each
  for (int i = 4; i < 9; ++i) world_.must_free(kSlot, held[std::size_t(i)]);
  survives(4, [&] { world_.flush(kSlot, true); });
}

TEST_F(CoreCrash, Spans) {
  std::uint64_t offset = 0;
  std::uint64_t ptr = 0;
  survives(1, [&] {
    ptr = world_.must_span(kSlot, 100 * kKiB);
    offset = ptr & ((std::uint64_t{1} << 48) - 1);
  });
  world_.must_free(kSlot, world_.must_allocate(kSlot, 64));
  survives(1, [&] {
    EXPECT_TRUE(*world_.core().resize_span(kSlot, CoreWorld::kHeap, region_, offset, 40 * kKiB));
  });
  survives(1, [&] {
    EXPECT_TRUE(*world_.core().resize_span(kSlot, CoreWorld::kHeap, region_, offset, 80 * kKiB));
  });
  survives(2, [&] {
    EXPECT_TRUE(*world_.core().resize_span(kSlot, CoreWorld::kHeap, region_, offset, 256 * kKiB));
  });
  survives(1, [&] { world_.must_free(kSlot, ptr); });
  EXPECT_EQ(world_.leftovers(kSlot), "");
}

TEST_F(CoreCrash, CachesComeAndGo) {
  survives(1, [&] { (void)world_.cache(kSlot); });
  const std::uint64_t ptr = world_.must_allocate(kSlot, 100);
  world_.must_free(kSlot, ptr);
  {
    // Else its slab stays for the next thread, as everybody's: neither what was before nor what is after.
    const shared::LockGuard guard(world_.heap().lock, kSlot, false);
    ASSERT_TRUE(world_.core().flush_all_locked(kSlot, CoreWorld::kHeap, true));
  }
  survives(1, [&] { world_.core().drop_cache(kSlot, world_.cache(kSlot)); });
  survives(1, [&] { (void)world_.cache(kSlot); });
}

// One thread destroys a heap that others have caches of: the records stay with their slots.
TEST_F(CoreCrash, CachesAreLeftToTheirOwners) {
  {
    const shared::LockGuard guard(world_.heap().lock, kSlot, false);
    world_.core().detach_region_locked(region_);
  }
  world_.core().region(region_).heap = 0;
  (void)world_.cache(kSlot);
  (void)world_.cache(2);
  (void)world_.core().make_cache(2, 1);
  const auto destroy = [&](std::uint32_t heap) {
    const shared::LockGuard guard(world_.heap(heap).lock, kSlot, false);
    (void)world_.core().pause_all(kSlot, world_.heap(heap));
    EXPECT_TRUE(world_.core().drop_caches_paused(kSlot, heap));
  };
  survives(2, [&] { destroy(CoreWorld::kHeap); });
  survives(1, [&] { destroy(1); });  // the second spare record of slot 2
  Copy::at_work = 2;
  survives(1, [&] { (void)world_.cache(2); });
  survives(1, [&] { (void)world_.core().drop_spare_caches(2, 2); });
  Copy::at_work = kSlot;
}

TEST_F(CoreCrash, TagsComeAndGo) {
  HeapCore& h = world_.heap();
  const shared::LockGuard guard(h.lock, 2, false);  // survives() takes it for slot 1 in breaches(): not here
  std::unique_ptr<Copy> before;
  int points = 0;
  const shared::CrashWatch watch([&](std::string_view name) {
    if (name == "transaction.committed" || name == "undo.step") return;
    Copy now(world_);
    if (name == "transaction.begun") before = std::make_unique<Copy>(now);
    now.undo();
    ++points;
    ASSERT_EQ(before->differences(now), "");
  });
  for (std::uint16_t i = 0; i < 20; ++i) {
    ASSERT_NE(world_.core().make_tag_locked(kSlot, h, static_cast<std::uint16_t>(kFirstTagHolder + i)),
              nullptr);
  }
  EXPECT_TRUE(world_.core().free_tags_locked(kSlot, h));
  ASSERT_NE(world_.core().make_tag_locked(kSlot, h, 77), nullptr);
  EXPECT_GT(points, 100);
}

TEST_F(CoreCrash, RegionsComeAndGo) {
  survives(1, [&] { (void)world_.add_region(64 * kKiB); });
  survives(1, [&] { (void)world_.add_region(64 * kKiB); });
  for (const std::uint32_t region : {2u, 1u, 3u}) {
    survives(1, [&] {
      const shared::LockGuard guard(world_.heap().lock, kSlot, false);
      world_.core().detach_region_locked(region);
    });
    world_.core().region(region).heap = 0;
  }
}

TEST_F(CoreCrash, MetadataComesAndGoes) {
  CoreRoots& roots = world_.core().roots();
  std::vector<std::uint64_t> pieces;
  survives(4, [&] {
    for (const std::uint64_t bytes : {64u, 1000u, 65u, 4096u}) {
      auto tx = world_.core().transaction(kSlot);
      pieces.push_back(allocate_meta(world_.core().segment(), roots.small, tx, bytes));
      tx.commit();
      EXPECT_NE(pieces.back(), 0u);
    }
  });
  survives(4, [&] {
    for (const std::size_t i : {1u, 3u, 0u, 2u}) {
      auto tx = world_.core().transaction(kSlot);
      const std::uint64_t bytes = free_meta(world_.core().segment(), roots.small, tx, pieces[i]);
      tx.commit();
      EXPECT_GE(bytes, 64u);
    }
  });
  EXPECT_EQ(roots.small.pages.free_runs, 1u);
}

}  // namespace
}  // namespace extmem::alloc
